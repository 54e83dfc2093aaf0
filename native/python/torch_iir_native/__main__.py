"""``python -m torch_iir_native --cmake-dir`` prints where torch_iirConfig.cmake is; alone, facts about the build."""

import argparse

from torch_iir_native import build_info, cmake_dir


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torch_iir_native", description=__doc__)
    parser.add_argument("--cmake-dir", action="store_true", help="print the directory of torch_iirConfig.cmake")
    if parser.parse_args().cmake_dir:
        print(cmake_dir())
        return
    for name, value in build_info().items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
