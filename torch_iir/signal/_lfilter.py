"""lfilter and the initial states that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import (
    LFILTER_NAMES,
    ArrayLike,
    as_coefficients,
    as_signal,
    broadcast_batch,
    check_lfilter,
    explain_lfilter,
    filter_order,
    first_tensor,
    has_zero_a0,
    state_dtype,
    time_axis,
    zero_a0,
)
from torch_iir._registration import concrete
from torch_iir.ops.lfilter import lfilter as _lfilter


@overload
def lfilter(b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int = -1, zi: None = None) -> Tensor: ...
@overload
def lfilter(b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int = -1, *, zi: ArrayLike) -> tuple[Tensor, Tensor]: ...
@overload
def lfilter(b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int, zi: ArrayLike) -> tuple[Tensor, Tensor]: ...


def lfilter(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int = -1, zi: ArrayLike | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Filters a signal along one axis with a recursive (IIR) or non-recursive (FIR) filter.

    .. math::
        a_0 y_t = \sum_{k=0}^{K_b-1} b_k x_{t-k} - \sum_{k=1}^{K_a-1} a_k y_{t-k}

    The state is that of the transposed direct form II of the filter normalised to :math:`a_0 = 1`: ``zi[j]`` is added
    to ``y[j]``, ``zf[j]`` is what is still to be added to ``y[T + j]``.

    Args:
        b: numerator coefficients, (..., Kb).
        a: denominator coefficients, (..., Ka); ``a[..., 0]`` is divided out and must not be 0.
        x: signal, (..., T); its other dimensions broadcast with the leading dimensions of b and a. Any T ≥ 0.
        axis: the dimension of x that is time. Default: the last.
        zi: state before the first sample, (..., N) with N = max(Kb, Ka) − 1 values on ``axis``; its other dimensions
            broadcast with those of the result. Default: None, a filter at rest.

    Returns:
        ``y`` of the dtype of x (its complex counterpart if any argument is complex), contiguous, or ``(y, zf)`` if zi
        is given. ``zf`` continues the signal exactly; it has at least the dtype of zi, so a float64 state carries a
        float32 signal on without rounding.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: b or a is empty, a[..., 0] is 0 (found on the CPU only; elsewhere the result is inf or nan), zi does
            not hold N values, axis is out of range, shapes do not broadcast, or devices differ.

    Note:
        As ``scipy.signal.lfilter``, except that b and a may have leading dimensions (a bank of filters: ``x`` of shape
        (32, 1, T) with ``b, a`` of shape (128, 3) gives (32, 128, T)), that integer signals become the default floating
        dtype, and that the coefficients do not widen the result: a float32 signal stays float32 under float64
        coefficients, which are used unrounded. ``torchaudio.functional.lfilter`` takes a before b and clamps; see
        :func:`torch_iir.functional.lfilter`. Differentiable in b, a, x and zi to any order, forwards and backwards.

        A filter without recursion, a = [1], of 192 coefficients or more is convolved by FFT, in double, where that is
        faster. Of recursive filters, :func:`lfilter_fsm` multiplies samples of the response into the spectrum. On the
        CPU that was 2 to 10 times slower than the recurrence for 1 to 8 sections, and faster, 1.5 times, for cascades
        of 32 sections on 32 rows of 16000 samples, forwards and backwards; it is less accurate, in float32 2e-7 of the
        output (rms) against 2.5e-8, and exact only up to what wraps around.

    Example:
        >>> import torch
        >>> from torch_iir.signal import lfilter
        >>> lfilter([1.0], [1.0, -0.5], torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([1.0000, 0.5000, 0.2500, 0.1250])
        >>> y, zf = lfilter([1.0], [1.0, -0.5], torch.ones(2, 3), zi=torch.zeros(1))
        >>> y.shape, zf.shape
        (torch.Size([2, 3]), torch.Size([2, 1]))
    """
    if not (
        isinstance(x, Tensor)
        and isinstance(b, Tensor)
        and isinstance(a, Tensor)
        and x.is_floating_point()
        and b.is_floating_point()
        and a.is_floating_point()
        and b.dim()
        and a.dim()
        and (zi is None or isinstance(zi, Tensor))
    ):
        like = first_tensor(x, b, a)
        x, b, a = as_signal(x, "x", like), as_coefficients(b, "b", like), as_coefficients(a, "a", like)
        zi = None if zi is None else as_coefficients(zi, "zi", like)
    if axis != -1:
        return along(lfilter, b, a, x, axis, zi)
    y, zf = filtered(x, b, a, zi)
    return y if zi is None else (y, zf)


def filtered(
    x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None = None, names: Sequence[str] = LFILTER_NAMES
) -> tuple[Tensor, Tensor]:
    """The op, with errors in the names of the public function."""
    if torch.compiler.is_compiling():  # what the op raises in a trace is not what the user would see
        check_lfilter(x, b, a, zi, names)
    try:
        y_and_zf: tuple[Tensor, Tensor] = _lfilter(x, b, a, zi)
        return y_and_zf
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_lfilter(error, x, b, a, zi, names) from None


def along(
    lfilter: Callable[..., Any], b: Tensor, a: Tensor, x: Tensor, axis: int, zi: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    """What a function like lfilter gives where time is another axis than the last."""
    axis = time_axis(x, axis)
    if zi is not None:
        if zi.dim() < -axis:
            raise ValueError(
                f"zi must hold its values on axis {axis} and so have at least {-axis} dimensions, got {list(zi.shape)}"
            )
        y, zf = lfilter(b, a, x.movedim(axis, -1), zi=zi.movedim(axis, -1))
        return y.movedim(-1, axis).contiguous(), zf.movedim(-1, axis).contiguous()
    y = lfilter(b, a, x.movedim(axis, -1))
    result: Tensor = y.movedim(-1, axis).contiguous()
    return result


def lfilter_zi(b: ArrayLike, a: ArrayLike) -> Tensor:
    r"""The state in which a filter answers a constant input of 1 with a constant output, from the first sample on.

    .. math::
        zi_j = \sum_{k>j} (\hat b_k - G \hat a_k), \qquad G = \sum_k b_k / \sum_k a_k, \quad \hat b = b / a_0,
        \quad \hat a = a / a_0

    Args:
        b: numerator coefficients, (..., Kb).
        a: denominator coefficients, (..., Ka), ``a[..., 0]`` not 0; the leading dimensions of b and a broadcast.

    Returns:
        zi, (..., max(Kb, Ka) − 1), of the wider dtype of b and a. Scale it by the first sample to start there without
        a transient: ``lfilter(b, a, x, zi=lfilter_zi(b, a) * x[..., :1])``.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: b or a is empty, shapes do not broadcast, devices differ, ``a[..., 0]`` is 0, or the filter has a
            pole at z = 1, where no such state exists. The last two are found only where values can be read at once: on
            the CPU, outside torch.compile and torch.func transforms. Elsewhere the result is then inf or nan.

    Note:
        As ``scipy.signal.lfilter_zi``, for batches of filters, and differentiable. scipy drops leading zeros of a
        first; here ``a[..., 0] = 0`` is an error, as it is in :func:`lfilter`.

    Example:
        >>> import torch
        >>> from torch_iir.signal import lfilter, lfilter_zi
        >>> b, a = [0.5, 0.5], [1.0, -0.5]
        >>> y, _ = lfilter(b, a, torch.ones(4), zi=lfilter_zi(b, a))
        >>> y
        tensor([2., 2., 2., 2.])
    """
    like = first_tensor(b, a)
    b, a = as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    check_lfilter(b, b, a)
    return steady_state(b, a).to(torch.promote_types(b.dtype, a.dtype))


def steady_state(b: Tensor, a: Tensor, name: str = "a", name_of_a0: str = "a[..., 0]") -> Tensor:
    """lfilter_zi in double precision."""
    dtype = torch.promote_types(torch.promote_types(b.dtype, a.dtype), torch.float64)
    b, a = b.to(dtype), a.to(dtype)
    a_sum = a.sum(-1, keepdim=True)
    if b.device.type == "cpu" and concrete(b, a):
        if has_zero_a0(a):
            raise zero_a0(name_of_a0)
        if bool((a_sum.abs() <= 4 * torch.finfo(dtype).eps * a.abs().sum(-1, keepdim=True)).any()):
            raise ValueError(
                f"{name} must have no pole at z = 1 (its coefficients sum to 0): no constant response exists"
            )
    order = filter_order(b, a)
    b, a0, a = pad(b, (0, order + 1 - b.shape[-1])), a[..., :1], pad(a, (0, order + 1 - a.shape[-1]))
    gain = b.sum(-1, keepdim=True) / a_sum
    tail: Tensor = ((b - gain * a) / a0)[..., 1:]
    return tail.flip(-1).cumsum(-1).flip(-1)


def lfiltic(b: ArrayLike, a: ArrayLike, y: ArrayLike, x: ArrayLike | None = None) -> Tensor:
    r"""The state of a filter from its past outputs and inputs, newest first.

    .. math::
        zi_j = \frac{1}{a_0} \Bigl(\sum_{k>j} b_k x_{j-k} - \sum_{k>j} a_k y_{j-k}\Bigr)

    Args:
        b: numerator coefficients, (..., Kb).
        a: denominator coefficients, (..., Ka), ``a[..., 0]`` not 0.
        y: past outputs, (..., L), ``y[..., 0]`` the latest; missing ones are 0, more than Ka − 1 are ignored.
        x: past inputs, likewise. Default: None, zeros.

    Returns:
        zi, (..., max(Kb, Ka) − 1), of the widest dtype of the arguments; all leading dimensions broadcast.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: b or a is empty, shapes do not broadcast, devices differ, or ``a[..., 0]`` is 0 (found on the CPU,
            outside torch.compile and torch.func transforms; elsewhere the result is inf or nan).

    Note:
        As ``scipy.signal.lfiltic``, for batches of filters and signals, and differentiable.

    Example:
        >>> import torch
        >>> from torch_iir.signal import lfilter, lfiltic
        >>> b, a, x = [1.0], [1.0, -0.5, 0.25], torch.arange(6, dtype=torch.float64)
        >>> y = lfilter(b, a, x)
        >>> rest, _ = lfilter(b, a, x[3:], zi=lfiltic(b, a, y[:3].flip(-1), x[:3].flip(-1)))
        >>> torch.allclose(rest, y[3:])
        True
    """
    like = first_tensor(y, b, a, x)
    b, a, y = as_coefficients(b, "b", like), as_coefficients(a, "a", like), as_coefficients(y, "y", like)
    x = None if x is None else as_coefficients(x, "x", like)
    check_lfilter(y, b, a, names=("y", "b", "a", "zi"))
    given = [("b", b), ("a", a), ("y", y)]
    if x is not None:
        check_lfilter(x, b, a)
        given.append(("x", x))
    batch = broadcast_batch(given)
    if a.device.type == "cpu" and concrete(a) and has_zero_a0(a):
        raise zero_a0()
    order = filter_order(b, a)
    zi: Tensor = -_future(a, y, order)
    if x is not None:
        zi = zi + _future(b, x, order)
    zi = (zi / a[..., :1]).expand(*batch, order)
    return zi.to(state_dtype(torch.promote_types(zi.dtype, b.dtype), None))


def _future(c: Tensor, past: Tensor, order: int) -> Tensor:
    """Σ_{k>j} c_k past[k−j−1] for j < order: what the past still adds to the outputs to come."""
    reach = c.shape[-1] - 1
    past = pad(past[..., :reach], (0, max(reach - past.shape[-1], 0)))
    if reach == 0:
        return past.new_zeros((*past.shape[:-1], order)) * c[..., :1]
    # Row j of the Hankel matrix of c_1, c_2, …, 0, 0 is c_{j+1}, c_{j+2}, …
    hankel = pad(c[..., 1:], (0, reach - 1)).unfold(-1, reach, 1)
    return pad((hankel * past[..., None, :]).sum(-1), (0, order - reach))
