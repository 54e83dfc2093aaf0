"""Recursive (IIR) filters as real PyTorch operators: fast, differentiable, and whole under torch.compile."""

from torch_iir import _algorithm, _libraries

_libraries.load()
_algorithm.force_from_environment()

from torch_iir import compiler, design, fft, functional, nn, signal, transforms  # noqa: E402  (they need the operators)
from torch_iir._algorithm import algorithm  # noqa: E402
from torch_iir._libraries import build_info  # noqa: E402
from torch_iir._mel_to_audio import mel_to_audio  # noqa: E402
from torch_iir._memory import empty_cache  # noqa: E402
from torch_iir._nnls import nnls  # noqa: E402
from torch_iir.compiler import compile, explain, patch  # noqa: E402

__version__ = str(build_info()["version"])
__all__ = [
    "algorithm",
    "build_info",
    "compile",
    "compiler",
    "design",
    "empty_cache",
    "explain",
    "fft",
    "functional",
    "mel_to_audio",
    "nn",
    "nnls",
    "patch",
    "signal",
    "transforms",
]
