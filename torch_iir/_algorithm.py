"""Forcing one of the algorithms that can compute a filter."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

NAMES: tuple[str, ...] = (
    "automatic",
    "direct",
    "rows",
    "segments",
    "blocks",
    "wavefront",
    "fft",
    "clusters",
    "lookback",
)


def _force(name: str) -> int:
    if name not in NAMES:
        raise ValueError(f"algorithm must be one of {', '.join(NAMES)}; got {name!r}")
    return int(torch.ops.torch_iir._force_algorithm(NAMES.index(name)))


@contextmanager
def algorithm(name: str) -> Iterator[None]:
    """Forces one algorithm for all filters of the process.

    Args:
        name: ``"automatic"`` (by rows, samples and order: the tables in the README) or ``"direct"`` (one sample after
            another). On the CPU ``"rows"`` (rows in SIMD lanes), ``"segments"`` (one row cut into segments),
            ``"blocks"`` (one row, blocks of outputs at once), ``"wavefront"`` (sections in SIMD lanes: sosfilt) or
            ``"fft"`` (a convolution: lfilter with a = [1]). On CUDA ``"rows"`` (a block of threads for each row),
            ``"clusters"`` (blocks of a cluster share a row) or ``"lookback"`` (any number of blocks share a row). A
            filter that the forced algorithm cannot run is a RuntimeError.

    The environment variable ``TORCH_IIR_ALGORITHM`` does the same from the start.

    Example::

        with torch_iir.algorithm("direct"):
            y = torch_iir.signal.lfilter(b, a, x)
    """
    previous = _force(name)
    try:
        yield
    finally:
        torch.ops.torch_iir._force_algorithm(previous)


def force_from_environment() -> None:
    if name := os.environ.get("TORCH_IIR_ALGORITHM"):
        try:
            _force(name)
        except ValueError as error:
            raise ImportError(f"TORCH_IIR_ALGORITHM: {error}") from None
