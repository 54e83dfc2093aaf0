"""Filters whose coefficients change from sample to sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from torch_iir._arguments import (
    LFILTER_TV_NAMES,
    ArrayLike,
    as_coefficients,
    as_signal,
    check_lfilter_tv,
    explain_lfilter_tv,
    first_tensor,
    state_dtype,
)
from torch_iir.ops.lfilter_tv import lfilter_tv as _lfilter_tv

NAMES = ("x", "b", "a", "zi[0]", "zi[1]")

Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


@overload
def lfilter_tv(b: ArrayLike, a: ArrayLike, x: ArrayLike, zi: None = None) -> Tensor: ...
@overload
def lfilter_tv(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, zi: Sequence[ArrayLike | None]
) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...


def lfilter_tv(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, zi: Sequence[ArrayLike | None] | None = None
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    r"""Filters a signal with a filter whose coefficients change from sample to sample.

    .. math::
        a_{t,0} y_t = \sum_{k=0}^{K_b-1} b_{t,k} x_{t-k} - \sum_{k=1}^{K_a-1} a_{t,k} y_{t-k}

    This is the difference equation itself, "direct form I", and its state is what it looks back on: the past samples of
    x and of y. The same coefficients in another form, transposed or with sections in cascade, are another filter as
    soon as they change.

    Args:
        b: numerator coefficients, (..., T, Kb), row t for the sample t; (..., 1, Kb), or just (Kb,), is constant in
            time.
        a: denominator coefficients, (..., T, Ka), (..., 1, Ka) or (Ka,); ``a[..., 0]`` is divided out and must not be
            0.
        x: signal, (..., T); its other dimensions broadcast with the leading dimensions of b and a. Any T ≥ 0.
        zi: state before the first sample, the pair (past x, past y), (..., Kb − 1) and (..., Ka − 1), newest first:
            ``zi[1][..., 0]`` is the sample before ``y[..., 0]``. None in the place of one is a past of zeros. Leading
            dimensions broadcast with those of the result. Default: None, a filter at rest.

    Returns:
        ``y`` of the dtype of x (its complex counterpart if any argument is complex), contiguous, or ``(y, zf)`` if zi
        is given. ``zf`` is the pair (past x, past y) after the last sample, with the leading dimensions of y, and
        continues the signal exactly, also where T is less than Kb − 1 or Ka − 1. Each has at least the dtype of its
        counterpart in zi, and at least float32.

    Raises:
        TypeError: an argument is not numeric, or zi is not a pair.
        ValueError: b or a is empty or has neither T nor 1 rows, some a[..., 0] is 0 (found on the CPU only; elsewhere
            the result is inf or nan), zi does not hold Kb − 1 and Ka − 1 values, shapes do not broadcast, or devices
            differ.

    Note:
        scipy and torchaudio have no such function. A bank of constant filters has a dimension of 1 for time, (F, 1, K),
        where :func:`lfilter` takes (F, K). With coefficients that are constant the outputs are those of
        :func:`lfilter`, whose state is another one (:func:`lfiltic` makes it from past samples). That every row is a
        stable filter does not make the sequence stable. Coefficients may be wider than the signal and are used
        unrounded. Differentiable in b, a, x and zi to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.signal import lfilter_tv
        >>> a = torch.tensor([[1.0, -0.5], [1.0, -0.5], [2.0, -0.5], [1.0, 0.0]])
        >>> lfilter_tv([1.0], a, torch.ones(4))
        tensor([1.0000, 1.5000, 0.8750, 1.0000])
        >>> x, b, a = torch.randn(3, 8), torch.rand(8, 2), torch.tensor([1.0, -0.5, 0.25])
        >>> first, state = lfilter_tv(b[:5], a, x[:, :5], zi=(None, None))
        >>> rest, _ = lfilter_tv(b[5:], a, x[:, 5:], zi=state)
        >>> torch.allclose(torch.cat([first, rest], -1), lfilter_tv(b, a, x))
        True
    """
    zx, zy = (None, None) if zi is None else pair(zi)
    if not (
        isinstance(x, Tensor)
        and isinstance(b, Tensor)
        and isinstance(a, Tensor)
        and x.is_floating_point()
        and b.is_floating_point()
        and a.is_floating_point()
        and b.dim()
        and a.dim()
        and (zx is None or isinstance(zx, Tensor))
        and (zy is None or isinstance(zy, Tensor))
    ):
        b, a, x, zx, zy = as_tensors(b, a, x, zx, zy)
    b, a = with_rows(b, a)
    y, zf = filtered(x, b, a, zx, zy, a_first=0, names=NAMES)
    return y if zi is None else (y, (_past(x, zx, b.shape[-1] - 1, y.shape[:-1]), zf))


def filtered(
    x: Tensor,
    b: Tensor | None,
    a: Tensor,
    zx: Tensor | None = None,
    zi: Tensor | None = None,
    *,
    b_first: int = 0,
    a_first: int = 1,
    period: int = 1,
    names: Sequence[str] = LFILTER_TV_NAMES,
) -> tuple[Tensor, Tensor]:
    """The op, with errors in the names of the public function."""
    if torch.compiler.is_compiling():  # what the op raises in a trace is not what the user would see
        check_lfilter_tv(x, b, a, zx, zi, b_first, a_first, period, names)
    try:
        y_and_zf: tuple[Tensor, Tensor] = _lfilter_tv(x, b, a, zx, zi, b_first, a_first, period)
        return y_and_zf
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_lfilter_tv(error, x, b, a, zx, zi, b_first, a_first, period, names) from None


def as_tensors(b: ArrayLike, a: ArrayLike, x: ArrayLike, zx: ArrayLike | None, zy: ArrayLike | None) -> Tensors:
    """What was given, as floating tensors; a state that is None stays so."""
    like = first_tensor(x, b, a, zx, zy)
    b, a, x = as_coefficients(b, "b", like), as_coefficients(a, "a", like), as_signal(x, "x", like)
    zx = None if zx is None else as_coefficients(zx, "zi[0]", like)
    zy = None if zy is None else as_coefficients(zy, "zi[1]", like)
    return b, a, x, zx, zy


def with_rows(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients for all times become one row for all."""
    b = b if b.dim() > 1 else b.unsqueeze(0)
    a = a if a.dim() > 1 else a.unsqueeze(0)
    if not b.shape[-1]:  # the op takes it as zero
        raise ValueError(f"b must have at least one coefficient, got b {list(b.shape)}")
    return b, a


def pair(zi: Sequence[ArrayLike | None]) -> Sequence[ArrayLike | None]:
    if not isinstance(zi, (tuple, list)):
        raise TypeError(f"zi must be a pair (past x, past y), got {type(zi).__name__}")
    if len(zi) != 2:
        raise ValueError(f"zi must be a pair (past x, past y), got {len(zi)} values")
    return zi


def _past(x: Tensor, zx: Tensor | None, length: int, batch: Sequence[int]) -> Tensor:
    """The last samples of x, newest first, and behind them those of zx; the op has no need to return them."""
    dtype, samples = state_dtype(x.dtype, zx), x.shape[-1]
    inside = length if samples >= length else samples
    past = x[..., samples - inside :].flip(-1).to(dtype).expand(*batch, inside)
    if inside < length:
        older = x.new_zeros(length, dtype=dtype) if zx is None else zx.to(dtype)
        past = torch.cat([past, older[..., : length - inside].expand(*batch, length - inside)], -1)
    return past.contiguous()
