import os
import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # the end, so that torch_iir is what is installed
    # Before NumPy and torch read them: no library starts threads of its own.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    from bench.runner import main

    sys.exit(main())
