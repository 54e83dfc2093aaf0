"""Zero-phase filtering: forwards, then backwards in time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_coefficients, as_signal, check_lfilter, first_tensor, time_axis
from torch_iir.signal._lfilter import lfilter, lfilter_zi


def filtfilt(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    axis: int = -1,
    padtype: str | None = "odd",
    padlen: int | None = None,
    method: str = "pad",
    irlen: int | None = None,
) -> Tensor:
    r"""Filters a signal forwards and then backwards in time: no phase shift, the squared magnitude response.

    .. math::
        y = R F R F x, \qquad F = B / A, \quad R \text{ reverses time}

    Args:
        b: numerator coefficients, (..., Kb).
        a: denominator coefficients, (..., Ka), ``a[..., 0]`` not 0.
        x: signal, (..., T); its other dimensions broadcast with the leading dimensions of b and a.
        axis: the dimension of x that is time. Default: the last.
        padtype: how the ends are extended for ``method="pad"``: "odd" (the signal turned by 180° about its end), "even"
            (mirrored), "constant" (the end held) or None (not at all). Default: "odd".
        padlen: samples of extension at each end. Default: None, 3 · max(Kb, Ka).
        method: "pad" extends the signal and starts each pass in the steady state of its first sample; "gust" chooses
            the initial states so that filtering forwards and backwards equals filtering backwards and forwards.
        irlen: for "gust", samples after which the impulse response is negligible: costs less than the default None,
            all of T.

    Returns:
        y, of the shape of x (broadcast with the coefficients), its dtype (complex if any argument is), contiguous.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: padtype, method or axis is unknown, T ≤ padlen, the filter has a pole at z = 1 (method "pad"), or
            b, a, x are wrong as for :func:`lfilter`.

    Note:
        The numbers of ``scipy.signal.filtfilt``, for batches of filters, and differentiable.
        ``torchaudio.functional.filtfilt`` neither extends the signal nor sets the state, and rings at the ends; its
        numbers are those of :func:`torch_iir.functional.filtfilt`. "gust" follows F. Gustafsson, "Determining the
        initial states in forward-backward filtering", IEEE Trans. Signal Processing 44 (1996).

    Example:
        >>> import torch
        >>> from torch_iir.signal import filtfilt
        >>> click = torch.eye(81)[40]
        >>> y = filtfilt([0.2, 0.2], [1.0, -0.6], click)
        >>> torch.allclose(y, y.flip(-1), atol=1e-6)
        True
    """
    if method not in ("pad", "gust"):
        raise ValueError(f'method must be "pad" or "gust", got {method!r}')
    like = first_tensor(x, b, a)
    x, b, a = as_signal(x, "x", like), as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    check_lfilter(x, b, a)
    axis = time_axis(x, axis)
    x = x.movedim(axis, -1)
    if method == "gust":
        y = _gustafsson(b, a, x, irlen)
    else:
        zi = lfilter_zi(b, a)
        edge = 3 * max(b.shape[-1], a.shape[-1]) if padlen is None else padlen
        y = forwards_and_backwards(lambda x: lfilter(b, a, x, zi=zi * x[..., :1])[0], x, edge, padtype)
    return y.movedim(-1, axis).contiguous()


def forwards_and_backwards(
    one_pass: Callable[[Tensor], Tensor], x: Tensor, padlen: int, padtype: str | None, spare: Tensor | None = None
) -> Tensor:
    """Runs the filter over the extended signal and, reversed, over what comes out; time is last.

    Each pass starts in the steady state of its first sample. A filter with `spare` samples to spare wants an extension
    that is shorter by so many: they are held at the value of the next, which keeps the steady state.
    """
    if padtype not in ("odd", "even", "constant", None):
        raise ValueError(f'padtype must be "odd", "even", "constant" or None, got {padtype!r}')
    samples = x.shape[-1]
    edge = 0 if padtype is None else padlen
    if edge < 0:
        raise ValueError(f"padlen must not be negative, got {padlen}")
    if samples <= edge:
        raise ValueError(f"x must be longer than padlen = {edge}, got {samples} samples (x {list(x.shape)})")
    if edge > 0:
        x = _extended(x, edge, padtype)
    else:
        spare = None
    forward = one_pass(_held(x, spare))
    backward = one_pass(_held(forward.flip(-1), spare))
    return backward[..., edge : edge + samples].flip(-1)


def _held(x: Tensor, spare: Tensor | None) -> Tensor:
    """The first and the last `spare` samples replaced by the one that is next to them."""
    if spare is None:
        return x
    last, spare = x.shape[-1] - 1, spare.unsqueeze(-1)
    nearest = torch.arange(x.shape[-1], device=x.device).minimum(last - spare).maximum(spare)
    x, nearest = torch.broadcast_tensors(x, nearest)  # type: ignore[no-untyped-call]
    return x.gather(-1, nearest)


def _extended(x: Tensor, edge: int, padtype: str | None) -> Tensor:
    first, last = x[..., :1], x[..., -1:]
    if padtype == "constant":
        shape = (*x.shape[:-1], edge)
        return torch.cat([first.expand(shape), x, last.expand(shape)], -1)
    before, after = x[..., 1 : edge + 1].flip(-1), x[..., -edge - 1 : -1].flip(-1)
    if padtype == "odd":
        before, after = 2 * first - before, 2 * last - after
    return torch.cat([before, x, after], -1)


def _gustafsson(b: Tensor, a: Tensor, x: Tensor, irlen: int | None) -> Tensor:
    """Initial states p (forwards) and q (backwards) that bring R F R F x and F R F R x closest.

    A pass from state p adds O p to its output, O the response to unit states. So with S = F R O the two results are
    R F R F x + R S p + R O q and F R F R x + O p + S q: linear least squares in p and q.
    """
    dtype = x.dtype
    x, b, a = (t.to(torch.promote_types(t.dtype, torch.float64)) for t in (x, b, a))
    samples, order = x.shape[-1], max(b.shape[-1], a.shape[-1]) - 1
    if samples == 0:
        raise ValueError("x must have at least one sample")
    if irlen is not None and irlen <= 0:
        raise ValueError(f"irlen must be positive, got {irlen}")
    forward_backward = lfilter(b, a, lfilter(b, a, x).flip(-1)).flip(-1)
    y = forward_backward
    if order > 0:
        difference = lfilter(b, a, lfilter(b, a, x.flip(-1)).flip(-1)) - forward_backward
        length = samples if irlen is None or samples <= 2 * irlen else irlen
        unit_states = torch.eye(order, dtype=b.dtype, device=b.device)
        rows_b, rows_a = b.unsqueeze(-2), a.unsqueeze(-2)
        o, _ = lfilter(rows_b, rows_a, b.new_zeros(length), zi=unit_states)
        s = lfilter(rows_b, rows_a, o.flip(-1))
        ro, rs = o.flip(-1), s.flip(-1)
        if length == samples:
            p_and_q = _least_squares(torch.cat([rs - o, ro - s], -2), difference)
            y = y + _combine(torch.cat([rs, ro], -2), p_and_q)
        else:  # the two ends do not reach each other
            p = _least_squares(rs - o, difference[..., :length])
            q = _least_squares(ro - s, difference[..., -length:])
            rest = y.new_zeros(()).expand(*y.shape[:-1], samples - length)
            y = y + torch.cat([_combine(rs, p), rest], -1) + torch.cat([rest, _combine(ro, q)], -1)
    return y.to(torch.promote_types(dtype, torch.complex64) if y.is_complex() else dtype)


def _least_squares(rows: Tensor, target: Tensor) -> Tensor:
    """The c of least norm that minimises |Σ_i c_i rows_i − target|."""
    pseudoinverse = torch.linalg.pinv(rows.mT)
    weights: Tensor = pseudoinverse @ target.unsqueeze(-1)
    return weights.squeeze(-1)


def _combine(rows: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-2) @ rows).squeeze(-2)
