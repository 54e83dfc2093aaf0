"""Convolution by FFT."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import (
    ArrayLike,
    as_signal,
    check_convolution,
    first_tensor,
    shapes,
    time_axis,
)
from torch_iir.ops.fftconvolve import fftconvolve as _fftconvolve

MODES = ("full", "same", "valid")


def fftconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None) -> Tensor:
    r"""Convolves two arrays by FFT.

    .. math::
        y_t = \sum_k u_{t-k} v_k

    over all elements of v where u has one, in each of the axes; u is in1, v is in2.

    Args:
        in1: real or complex, of any number of dimensions.
        in2: as in1. Each may be the longer one.
        mode: how much of y, in each of the axes, where in1 has N elements and in2 has K:

            - ``"full"``: all of it, N + K − 1. The default.
            - ``"same"``: N, the middle of it.
            - ``"valid"``: max(N, K) − min(N, K) + 1, those that need no zeros beyond an end. In all axes, the longer
              one has to be the same of the two.
        axes: the axes to convolve over. Default: None, all.

    Returns:
        y, contiguous, of the dtype that those of in1 and in2 promote to. Axes that are not convolved over broadcast.
        Scalars are multiplied. Empty inputs give an empty result: no elements in an axis where one of them has none.

    Raises:
        TypeError: an argument is not numeric, axes are not integers.
        ValueError: shapes do not broadcast, or have different lengths where axes is None; there is no such axis or
            mode, axes are empty or repeat; in mode ``"valid"`` neither input is at least as large in every axis;
            devices differ.

    Note:
        As ``scipy.signal.fftconvolve`` and ``oaconvolve``, which compute the same and differ in speed: here both names
        are one operator, which transforms blocks of the size that is fastest. It takes and gives what it is given: no
        complex tensor enters the graph of real inputs, and torch.compile traces it whole. More than one axis is one
        convolution of the flattened arrays, padded so that rows do not meet. Half precision is computed in float32.
        Integers become the default floating dtype (scipy: float64). With axes given, in1 and in2 may have different
        numbers of dimensions; then axes count in the larger. Inf and NaN spread over the blocks that they are in
        (scipy's fftconvolve: over all). In mode ``"same"`` an axis that in1 is broadcast in is kept whole, where scipy
        cuts it to that of in1; an empty result keeps its dimensions, where scipy's has one. In mode ``"valid"`` an axis
        of length 1 is no exception, as it is in scipy. Differentiable in in1 and in2 to any order, forwards and
        backwards, by the same operator.

    Example:
        >>> import torch
        >>> from torch_iir.signal import fftconvolve
        >>> fftconvolve([1.0, 2.0, 3.0], [1.0, 0.25], mode="valid")
        tensor([2.2500, 3.5000], dtype=torch.float64)
        >>> rooms, signals = torch.randn(8, 1, 24000), torch.randn(4, 48000)
        >>> fftconvolve(signals, rooms, axes=-1).shape
        torch.Size([8, 4, 71999])
        >>> fftconvolve(torch.randn(64, 64), torch.randn(5, 5), mode="same").shape
        torch.Size([64, 64])
    """
    like = first_tensor(in1, in2)
    u, v = as_signal(in1, "in1", like), as_signal(in2, "in2", like)
    if mode not in MODES:
        raise ValueError(f"mode must be 'full', 'same' or 'valid', got {mode!r}")
    dims = max(u.dim(), v.dim())
    if axes is None and u.dim() != v.dim():
        given = shapes([("in1", u), ("in2", v)])
        raise ValueError(f"in1 and in2 must have as many dimensions, unless axes are given, got {given}")
    if not dims:
        return u * v
    chosen = range(-dims, 0) if axes is None else _chosen(axes, u, v)
    u, v = (w if w.dim() == dims else w[(None,) * (dims - w.dim())] for w in (u, v))
    if torch.compiler.is_compiling():  # what the op raises in a trace is not what the user would see
        check_convolution(u, v, chosen)
    try:
        return _convolved(u, v, mode, chosen)
    except (RuntimeError, TypeError):
        check_convolution(u, v, chosen)
        raise


def oaconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None) -> Tensor:
    """Convolves two arrays by FFT, in blocks.

    Args:
        in1, in2, mode, axes: as for :func:`fftconvolve`.

    Returns:
        What :func:`fftconvolve` returns.

    Raises:
        TypeError, ValueError: as :func:`fftconvolve`.

    Note:
        As ``scipy.signal.oaconvolve``, and another name of :func:`fftconvolve`: both choose the block size for speed.

    Example:
        >>> import torch
        >>> from torch_iir.signal import fftconvolve, oaconvolve
        >>> x, h = torch.randn(2, 10000), torch.randn(2, 64)
        >>> torch.equal(oaconvolve(x, h, mode="same", axes=-1), fftconvolve(x, h, mode="same", axes=-1))
        True
    """
    return fftconvolve(in1, in2, mode, axes)


def _convolved(in1: Tensor, in2: Tensor, mode: str, axes: Sequence[int]) -> Tensor:
    """With as many dimensions, and axes in ascending order, counted from the end."""
    pairs = [(in1.shape[axis], in2.shape[axis]) for axis in axes]
    if any(n == 0 or k == 0 for n, k in pairs):
        return _nothing(in1, in2, mode, axes)
    if mode == "valid" and not all(n >= k for n, k in pairs):
        if not all(n <= k for n, k in pairs):
            given = shapes([("in1", in1), ("in2", in2)])
            raise ValueError(f"for mode 'valid' one must be as large as the other in all axes, got {given}")
        in1, in2, pairs = in2, in1, [(k, n) for n, k in pairs]
    starts = [{"full": 0, "same": (k - 1) // 2, "valid": k - 1}[mode] for _, k in pairs]
    sizes = [_size(n, k, mode) for n, k in pairs]

    last = tuple(range(-len(pairs), 0))
    if tuple(axes) != last:
        in1, in2 = in1.movedim(tuple(axes), last), in2.movedim(tuple(axes), last)
    if len(pairs) == 1:
        y: Tensor = _fftconvolve(in1, in2, starts[0], sizes[0])
    else:
        inner = [n + k - 1 for n, k in pairs[1:]]
        row = math.prod(inner)
        y = _fftconvolve(_flattened(in1, inner), _flattened(in2, inner), starts[0] * row, sizes[0] * row)
        y = y.reshape(*y.shape[:-1], sizes[0], *inner)
        for axis, start, size in zip(last[1:], starts[1:], sizes[1:], strict=True):
            y = y.narrow(axis, start, size)
    return (y if tuple(axes) == last else y.movedim(last, tuple(axes))).contiguous()


def _flattened(u: Tensor, inner: Sequence[int]) -> Tensor:
    """The last dimensions, all but the first of them padded to the inner sizes, as one, without the zeros at its end.

    Each row then has room for what the convolution adds to it, and does not meet the next.
    """
    sizes = u.shape[-len(inner) :]
    length = u.shape[-len(inner) - 1] - 1  # the place of the last element
    for size, whole in zip(sizes, inner, strict=True):
        length = length * whole + size - 1
    room = [(0, whole - size) for size, whole in zip(sizes, inner, strict=True)]
    return pad(u, [side for pair in reversed(room) for side in pair]).flatten(-len(inner) - 1)[..., : length + 1]


def _nothing(in1: Tensor, in2: Tensor, mode: str, axes: Sequence[int]) -> Tensor:
    """An empty result, which the inputs still have gradients of."""
    check_convolution(in1, in2, axes)  # the op sees nothing of the shapes
    sizes = [_size(n, k, mode) for n, k in zip(in1.shape, in2.shape, strict=True)]
    whole = [max(n, k) if n and k else 0 for n, k in zip(in1.shape, in2.shape, strict=True)]
    dims = in1.dim()
    shape = [sizes[axis] if axis - dims in axes else whole[axis] for axis in range(dims)]
    nothing: Tensor = _fftconvolve(in1.reshape(-1)[:0], in2.reshape(-1)[:0], 0, 0)
    return nothing.reshape(shape)


def _size(n: int, k: int, mode: str) -> int:
    """How many elements of the convolution of n elements with k a mode has."""
    if not (n and k):
        return 0
    return {"full": n + k - 1, "same": n, "valid": abs(n - k) + 1}[mode]


def _chosen(axes: int | Sequence[int], in1: Tensor, in2: Tensor) -> list[int]:
    """The axes in ascending order, counted from the end."""
    larger = ("in1", in1) if in1.dim() >= in2.dim() else ("in2", in2)
    listed = [axes] if isinstance(axes, int) or not isinstance(axes, Sequence) else axes
    chosen = sorted(time_axis(larger[1], axis, "axes", larger[0]) for axis in listed)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"axes must be one or more, each of them once, got {axes!r}")
    return chosen
