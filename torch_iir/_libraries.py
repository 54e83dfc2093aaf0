"""Loads the libraries that register the operators with torch."""

from pathlib import Path

import torch
import torch_iir_native  # the instruction set is checked here: a clear ImportError, before any operator runs


def find(stem: str) -> Path | None:
    # In an editable install this package has two directories: the sources', and the one with what was built.
    import torch_iir

    for directory in torch_iir.__path__:
        path = Path(directory) / "lib" / f"lib{stem}.so"
        if path.exists():
            return path
    return None


def load() -> None:
    ops = find("torch_iir_ops")
    if ops is None:
        raise ImportError(
            "libtorch_iir_ops.so was not built: install the package (python -m pip install .), "
            "and import it from there rather than from its sources"
        )
    torch.ops.load_library(ops)  # type: ignore[no-untyped-call]
    # The same operators for CUDA. Their symbols live in libtorch_cuda, which only a torch with CUDA has.
    if torch.version.cuda is not None and (cuda := find("torch_iir_ops_cuda")) is not None:
        torch.ops.load_library(cuda)  # type: ignore[no-untyped-call]


def build_info() -> dict[str, object]:
    """Facts about the build: version, compiler, instruction set in use (``isa``) and available, torch, CUDA library."""
    return {
        **torch_iir_native.build_info(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda is not None and find("torch_iir_ops_cuda") is not None,
    }
