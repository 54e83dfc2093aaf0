"""Linear prediction: all-pole filters whose coefficients change over time, and the linear recurrence of order 1."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from torch_iir._arguments import (
    ArrayLike,
    as_coefficients,
    as_signal,
    broadcast_shape,
    first_tensor,
    time_axis,
    whole_number,
)
from torch_iir.signal._lfilter_tv import filtered


@overload
def sample_wise_lpc(
    x: ArrayLike, a: ArrayLike, zi: ArrayLike | None = None, return_zf: Literal[False] = False
) -> Tensor: ...
@overload
def sample_wise_lpc(
    x: ArrayLike, a: ArrayLike, zi: ArrayLike | None = None, *, return_zf: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def sample_wise_lpc(
    x: ArrayLike, a: ArrayLike, zi: ArrayLike | None, return_zf: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def sample_wise_lpc(
    x: ArrayLike, a: ArrayLike, zi: ArrayLike | None = None, return_zf: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Linear predictive synthesis with coefficients for every sample.

    .. math::
        y_t = x_t - \sum_{k=1}^{N} a_{t,k} y_{t-k}

    Args:
        x: excitation, (B, T), or (..., T). Any T ≥ 0.
        a: predictor coefficients without the leading 1, (B, T, N), or (..., T, N): ``a[..., t, k - 1]`` is
            :math:`a_{t,k}`. (..., 1, N) is constant in time. Any N ≥ 0.
        zi: outputs before the first, (B, N), or (..., N), newest first: ``zi[..., 0]`` is :math:`y_{-1}`. Default:
            None, zeros.
        return_zf: also return the last N outputs. Default: False.

    Returns:
        y, (B, T), of the dtype of x (its complex counterpart if any argument is complex), contiguous; with return_zf
        ``(y, zf)``, zf (B, N) newest first, which continues the signal exactly; for T < N it goes on into zi. It has at
        least the dtype of zi, and at least float32.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: a has neither T nor 1 rows, zi does not hold N values, shapes do not broadcast, or devices differ.

    Note:
        As ``torchlpc.sample_wise_lpc``, whose zf is wrong for T < N: the outputs before the first are missing from it.
        Its op fails under torch.compile, and x, a and zi must have the same B and T; here leading dimensions broadcast.
        The recursion runs in double precision, also for a float32 or half signal. :func:`torch_iir.signal.lfilter_tv`
        is the filter with a numerator and an a0. Differentiable in x, a and zi to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.functional import sample_wise_lpc
        >>> a = torch.tensor([[[-0.5], [-0.5], [0.0], [-1.0]]])
        >>> sample_wise_lpc(torch.ones(1, 4), a)
        tensor([[1.0000, 1.5000, 1.0000, 2.0000]])
        >>> y, zf = sample_wise_lpc(torch.randn(2, 3), torch.rand(2, 3, 4) / 4, zi=torch.ones(2, 4), return_zf=True)
        >>> torch.equal(zf, torch.cat([y.flip(-1), torch.ones(2, 1)], -1))
        True
    """
    like = first_tensor(x, a, zi)
    x, a = as_signal(x, "x", like), as_coefficients(a, "a", like)
    zi = None if zi is None else as_coefficients(zi, "zi", like)
    y, zf = filtered(x, None, a, None, zi)
    return (y, zf) if return_zf else y


@overload
def all_pole_digital_filter(
    x: ArrayLike,
    a: ArrayLike,
    frame_period: int,
    ignore_gain: bool = False,
    zi: ArrayLike | None = None,
    return_zf: Literal[False] = False,
) -> Tensor: ...
@overload
def all_pole_digital_filter(
    x: ArrayLike,
    a: ArrayLike,
    frame_period: int,
    ignore_gain: bool = False,
    zi: ArrayLike | None = None,
    *,
    return_zf: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def all_pole_digital_filter(
    x: ArrayLike, a: ArrayLike, frame_period: int, ignore_gain: bool, zi: ArrayLike | None, return_zf: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def all_pole_digital_filter(
    x: ArrayLike,
    a: ArrayLike,
    frame_period: int,
    ignore_gain: bool = False,
    zi: ArrayLike | None = None,
    return_zf: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Speech synthesis by an all-pole filter whose gain and coefficients are given once a frame.

    .. math::
        y_t = K_t x_t - \sum_{k=1}^{M} a_{t,k} y_{t-k}

    The frame f holds for the sample f P, P the frame period. Between frames the gain and the coefficients are
    interpolated linearly, and after the last frame they stay as they are.

    Args:
        x: excitation, (..., T), with T = frames · frame_period samples.
        a: gain and coefficients, (..., frames, M + 1): ``a[..., 0]`` is K, ``a[..., k]`` is :math:`a_k`. Any M ≥ 0.
            There may be one frame more than x has: the one that the last frame moves towards.
        frame_period: P, the number of samples from frame to frame.
        ignore_gain: leave the gain out, as if K were 1. Default: False.
        zi: outputs before the first, (..., M), newest first. Default: None, zeros.
        return_zf: also return the last M outputs. Default: False.

    Returns:
        y, (..., T), of the dtype of x (its complex counterpart if any argument is complex), contiguous; with return_zf
        ``(y, zf)``, zf (..., M) newest first, of at least the dtype of zi and at least float32. A signal is continued
        exactly, block by block, by zf and by the one frame more, which is the first of the next block.

    Raises:
        TypeError: an argument is not numeric, or frame_period is not an integer.
        ValueError: frame_period is less than 1, a is empty, T is not frames · frame_period (nor one frame_period less),
            zi does not hold M values, shapes do not broadcast, or devices differ.

    Note:
        The filter that is ``poledf`` in SPTK (K. Tokuda et al., SPTK: The Speech Signal Processing Toolkit, SSW 2023)
        and ``AllPoleDigitalFilter`` in diffsptk, whose numbers these are. Coefficients are interpolated inside the
        kernel: nothing of the size T · M is made, forwards or backwards. Between two stable frames the interpolated
        predictor coefficients need not be stable; where that matters, interpolate reflection coefficients or line
        spectral pairs, and give the coefficients of every sample to :func:`sample_wise_lpc`. Differentiable in x, a and
        zi to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.functional import all_pole_digital_filter
        >>> all_pole_digital_filter(torch.ones(4), torch.tensor([[1.0], [2.0]]), frame_period=2)
        tensor([1.0000, 1.5000, 2.0000, 2.0000])
        >>> x, a = torch.randn(40), torch.rand(4, 9) / 9
        >>> first, zf = all_pole_digital_filter(x[:20], a[:3], 10, return_zf=True)
        >>> rest = all_pole_digital_filter(x[20:], a[2:], 10, zi=zf)
        >>> torch.allclose(torch.cat([first, rest]), all_pole_digital_filter(x, a, 10))
        True
    """
    like = first_tensor(x, a, zi)
    x, a = as_signal(x, "x", like), as_coefficients(a, "a", like)
    zi = None if zi is None else as_coefficients(zi, "zi", like)
    period = whole_number(frame_period, "frame_period", 1)
    if a.dim() < 2 or a.shape[-1] == 0:
        raise ValueError(f"a must have the shape (..., frames, M + 1), the gain first, got a {list(a.shape)}")
    frames = a.shape[-2]
    if x.dim() and x.shape[-1] != frames * period:
        if x.shape[-1] != (frames - 1) * period:
            raise ValueError(
                f"x must have frames · frame_period = {frames} · {period} samples (or one frame_period less, if a has "
                f"the next frame too), got x {list(x.shape)}, a {list(a.shape)}"
            )
        if period == 1:
            a = a[..., :-1, :]  # nothing lies between the frames
    names = ("x", "a[..., :1]", "a[..., 1:]", "zx", "zi")
    y, zf = filtered(x, None if ignore_gain else a[..., :1], a[..., 1:], None, zi, period=period, names=names)
    return (y, zf) if return_zf else y


def linear_recurrence(a: ArrayLike, x: ArrayLike, h0: ArrayLike | None = None, dim: int = -1) -> Tensor:
    r"""A linear recurrence of order 1 along one dimension.

    .. math::
        h_t = a_t h_{t-1} + x_t

    Args:
        a: how much of the state is kept, (..., T); broadcasts with x, so that one value may hold for all times, all
            channels, or all.
        x: what is added, (..., T); broadcasts with a. Any T ≥ 0.
        h0: state before the first sample, of the shape of x without ``dim``, or what broadcasts with it. Default: None,
            zeros.
        dim: the dimension of x that is time. Default: the last.

    Returns:
        h, of the shape that all of them broadcast to, of the dtype of x (its complex counterpart if any argument is
        complex), contiguous. Its last entry along ``dim`` is the h0 of what follows.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: dim is out of range, shapes do not broadcast, or devices differ.

    Note:
        Computed in double precision inside. Where ``a`` has more dimensions than x, dim counts from the end, and stays
        there. Orders above 1 are :func:`sample_wise_lpc`'s. Differentiable in a, x and h0 to any order, forwards and
        backwards.

    Example:
        >>> import torch
        >>> from torch_iir.functional import linear_recurrence
        >>> linear_recurrence(0.5, torch.ones(4))
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
        >>> a, x = torch.rand(8, 100, 16), torch.randn(8, 100, 16)
        >>> linear_recurrence(a, x, h0=torch.ones(16), dim=1).shape
        torch.Size([8, 100, 16])
    """
    like = first_tensor(x, a, h0)
    x, a = as_signal(x, "x", like), as_coefficients(a, "a", like)
    h0 = None if h0 is None else as_signal(h0, "h0", like)
    axis = dim if dim == -1 else time_axis(x, dim, "dim")
    if torch.compiler.is_compiling():
        _check_recurrence(a, x, h0, axis)
    try:
        return _recurrence(a, x, h0, axis)
    except ValueError:
        _check_recurrence(a, x, h0, axis)
        raise


def _recurrence(a: Tensor, x: Tensor, h0: Tensor | None, axis: int) -> Tensor:
    if axis != -1:
        a = a[(None,) * (-axis - a.dim())]  # constant in time if it does not reach that far
        a, x = a.movedim(axis, -1), x.movedim(axis, -1)
    if x.shape[-1:] == (1,):
        x = x.expand(*x.shape[:-1], a.shape[-1])
    zi = None if h0 is None else h0.unsqueeze(-1)
    h, _ = filtered(x, None, -a.unsqueeze(-1), None, zi)
    return h if axis == -1 else h.movedim(-1, axis).contiguous()


def _check_recurrence(a: Tensor, x: Tensor, h0: Tensor | None, axis: int) -> None:
    """Raises for shapes that do not fit together, as the user gave them."""
    given, shapes = [("a", a), ("x", x)], [a.shape, x.shape]
    what = "a and x"
    if h0 is not None:
        given.append(("h0", h0))
        before = max(h0.dim() + axis + 1, 0)  # dimensions of h0 before the one that it lacks
        shapes.append(torch.Size((*h0.shape[:before], 1, *h0.shape[before:])))
        what = f"a, x and h0, which lacks the dimension {axis} of x,"
    if broadcast_shape(*shapes) is None:
        got = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in given)
        raise ValueError(f"{what} must broadcast together, got {got}")
