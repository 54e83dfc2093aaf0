"""Recursive filters through their sampled frequency response: one FFT there, one back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import (
    ArrayLike,
    as_coefficients,
    as_signal,
    check_lfilter,
    check_sosfilt,
    fast_length,
    first_tensor,
    has_zero_a0,
    time_axis,
    whole_number,
    zero_a0,
)
from torch_iir._registration import concrete
from torch_iir.ops.lfilter_fsm import lfilter_fsm as _lfilter_fsm
from torch_iir.signal._lfilter import lfilter
from torch_iir.signal._sosfilt import sosfilt

LONGEST_DECAY = 2**26  # samples: a longer response is not sampled unless asked for


@overload
def lfilter_fsm(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: Literal[False] = False,
) -> Tensor: ...
@overload
def lfilter_fsm(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def lfilter_fsm(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Filters a signal along one axis by samples of the filter's frequency response.

    .. math::
        y = \mathrm{irfft}\bigl(\mathrm{rfft}(x, n) \odot H\bigr)_{0 \le t < T}, \qquad
        H_k = \frac{\sum_m b_m e^{-2 \pi j k m / n}}{\sum_m a_m e^{-2 \pi j k m / n}}, \qquad n = n\_fft

    Samples of a response belong to an impulse response that is wrapped around a circle of n samples,
    :math:`\tilde h_m = \sum_{i \ge 0} h_{m + i n}`: what the filter, h, still answers after n samples is added to the
    beginning of its answer, and what it answers to the end of the signal after n − T samples and more is added to the
    beginning of y. But for this wrap, y is that of :func:`lfilter`. How many points there are decides how much wraps:

    - n_fft is given: that many.
    - b and a are numbers, or tensors on the CPU whose values can be read (not under torch.compile or torch.func
      transforms): T + L, where L is Kb − 1 and the samples in which the slowest pole, of modulus r, decays to the
      tolerance, :math:`r^{L - (K_b - 1)} \le tolerance`. An FIR has L = Kb − 1, and nothing wraps.
    - else: 2 T, whatever the poles. No value is waited for, and a graph does not break.

    The last two are rounded up to an even number without prime factors above 5.

    Args:
        b: numerator coefficients, (..., Kb), real.
        a: denominator coefficients, (..., Ka), real; ``a[..., 0]`` must not be 0.
        x: signal, (..., T), real; its other dimensions broadcast with the leading dimensions of b and a. Any T ≥ 0.
        n_fft: points of the transforms, at least T and 1; any number, fast if its prime factors are small. Default:
            None, chosen as above.
        axis: the dimension of x that is time. Default: the last.
        tolerance: what the slowest pole has to decay to where n_fft is chosen from it, between 0 and 1; about the wrap
            relative to the largest gain of the filter, Σ|h|. Default: None, the epsilon of float64 (2.2e-16) for a
            float64 signal, that of float32 (1.2e-7) for others.
        return_bound: also return how far the wrap can change y. Default: False.

    Returns:
        ``y`` of the dtype of x, contiguous, or ``(y, bound)``. bound, float64, has the shape of y without time:
        rounding apart, no sample of y differs by more from that of :func:`lfilter`, and some signal of the same maximum
        makes one differ by as much,

        .. math::
            bound = \max_t |x_t| \cdot \max_t \Bigl(\sum_{m=0}^{t} |\tilde h_m - h_m| +
            \sum_{m=n-T+1+t}^{n-1} |\tilde h_m|\Bigr)

    Raises:
        TypeError: an argument is not numeric, or is complex; n_fft is no integer.
        ValueError: b or a is empty, n_fft is less than T or 1, tolerance is not between 0 and 1, axis is out of range,
            shapes do not broadcast, or devices differ. Where values can be read: ``a[..., 0]`` is 0, or n_fft is to be
            chosen for a pole that is not inside the unit circle, or so close to it that it takes more than 2²⁶ samples
            to decay. (With n_fft given, and elsewhere, the samples are those of a stable filter with the same
            poles, one that is not causal where they lie outside the circle.)

    Note:
        scipy and torchaudio have no such function. Real numbers go in and come out, so torch.compile takes it
        whole and warns of nothing. The response is evaluated in double precision, and not stored for the
        gradient. The recurrence, :func:`lfilter`, is the faster one on the CPU up to some 30 sections (the
        README has a table), and where poles near the unit circle make n_fft large, and always the more
        accurate: nothing wraps, unstable filters run, and every sample is rounded by its own size, while an FFT
        rounds by that of the largest of a row. A NaN in x spoils its row. Poles of filters of order 3 and more
        are found as eigenvalues, in every call: give n_fft where that matters. The bound takes two calls more,
        and one of :func:`lfilter`, for impulses of T samples. Differentiable in b, a and x, bound too (what
        wraps can be a penalty), to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.signal import lfilter, lfilter_fsm
        >>> b, a, x = [1.0, 0.5], [1.0, -0.9], torch.ones(100, dtype=torch.float64)
        >>> torch.allclose(lfilter_fsm(b, a, x), lfilter(b, a, x))
        True
        >>> y, bound = lfilter_fsm(b, a, x, n_fft=120, return_bound=True)
        >>> (y - lfilter(b, a, x)).abs().max(), bound  # much has not decayed after 20 samples more, and wraps
        (tensor(1.7020, dtype=torch.float64), tensor(1.7020, dtype=torch.float64))
    """
    like = first_tensor(x, b, a)
    on_host = as_coefficients(b, "b"), as_coefficients(a, "a")  # numbers stay there, where they can be read
    x, b, a = as_signal(x, "x", like), as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    for name, tensor in (("x", x), ("b", b), ("a", a)):
        _check_real(name, tensor, "lfilter")
    if axis != -1:
        axis = time_axis(x, axis)
        x = x.movedim(axis, -1)
    check_lfilter(x, b, a)
    of_b, of_a = (c.unsqueeze(-2) for c in on_host)
    n_fft = _points(x, of_b, of_a, n_fft, tolerance, ("a", "a[..., 0]", "lfilter"))
    b_row, a_row = b.unsqueeze(-2), a.unsqueeze(-2)  # a cascade of one
    return _sampled(x, b_row, a_row, n_fft, axis, lambda click: lfilter(b, a, click), return_bound)


@overload
def sosfilt_fsm(
    sos: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: Literal[False] = False,
) -> Tensor: ...
@overload
def sosfilt_fsm(
    sos: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def sosfilt_fsm(
    sos: ArrayLike,
    x: ArrayLike,
    n_fft: int | None = None,
    *,
    axis: int = -1,
    tolerance: float | None = None,
    return_bound: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Filters a signal along one axis by samples of the frequency response of a cascade of second-order sections.

    .. math::
        y = \mathrm{irfft}\bigl(\mathrm{rfft}(x, n) \odot H\bigr)_{0 \le t < T}, \qquad
        H_k = \prod_s \frac{b_{s0} + b_{s1} z_k^{-1} + b_{s2} z_k^{-2}}{a_{s0} + a_{s1} z_k^{-1} + a_{s2} z_k^{-2}},
        \qquad z_k = e^{2 \pi j k / n}, \quad n = n\_fft

    Args:
        sos: sections, (..., S, 6) with S ≥ 1, real; each row is b0, b1, b2, a0, a1, a2, and a0 must not be 0.
        x: signal, (..., T), real; its other dimensions broadcast with the leading dimensions of sos. Any T ≥ 0.
        n_fft, axis, tolerance, return_bound: as for :func:`lfilter_fsm`, with :math:`r^{L - 2 S} \le tolerance`.

    Returns:
        ``y`` or ``(y, bound)``, as :func:`lfilter_fsm` does; the bound is on the difference from :func:`sosfilt`.

    Raises:
        TypeError, ValueError: as :func:`lfilter_fsm`; sos has another shape, or no section.

    Note:
        See :func:`lfilter_fsm` for how n_fft is chosen, what wraps around, and when :func:`sosfilt` is better. No
        section's response or output is stored.

    Example:
        >>> import torch
        >>> from torch_iir import design
        >>> from torch_iir.signal import sosfilt, sosfilt_fsm
        >>> cascade = torch.cat([design.peaking(16000, 1000, 6.0), design.high_shelf(16000, 4000, -3.0)], -2)
        >>> x = torch.randn(3, 1000)
        >>> torch.allclose(sosfilt_fsm(cascade, x), sosfilt(cascade, x), atol=1e-5)
        True
    """
    like = first_tensor(x, sos)
    on_host = as_coefficients(sos, "sos")  # numbers stay there, where they can be read
    x, sos = as_signal(x, "x", like), as_coefficients(sos, "sos", like)
    for name, tensor in (("x", x), ("sos", sos)):
        _check_real(name, tensor, "sosfilt")
    if axis != -1:
        axis = time_axis(x, axis)
        x = x.movedim(axis, -1)
    check_sosfilt(x, sos)
    parts = on_host[..., :3], on_host[..., 3:]
    n_fft = _points(x, *parts, n_fft, tolerance, ("sos", "sos[..., 3]", "sosfilt"))
    return _sampled(x, sos[..., :3], sos[..., 3:], n_fft, axis, lambda click: sosfilt(sos, click), return_bound)


def _sampled(
    x: Tensor,
    b: Tensor,
    a: Tensor,
    n_fft: int,
    axis: int,
    recurrence: Callable[[Tensor], Tensor],
    return_bound: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """What both return, of time in the last dimension, for a cascade."""
    y: Tensor = _lfilter_fsm(x, b, a, n_fft).movedim(-1, axis).contiguous()
    return (y, _wrap_bound(x, b, a, n_fft, recurrence)) if return_bound else y


def _check_real(name: str, tensor: Tensor, recurrence: str) -> None:
    if tensor.is_complex():
        raise TypeError(
            f"{name} must be real, got {tensor.dtype}: {recurrence} takes complex numbers; "
            f"of a complex signal, the real and the imaginary part can be filtered apart"
        )


def _points(
    x: Tensor, b: Tensor, a: Tensor, n_fft: int | None, tolerance: float | None, names: tuple[str, str, str]
) -> int:
    """n_fft for the op, of sections (..., S, K); 0 leaves it to the op, which knows T alone."""
    name, name_of_a0, recurrence = names
    tolerance = _checked_tolerance(tolerance, x.dtype)
    samples = x.shape[-1]
    if n_fft is not None:
        n_fft = whole_number(n_fft, "n_fft", 1)
        if n_fft < samples:
            raise ValueError(f"n_fft must be at least the number of samples of x, T, got n_fft {n_fft}, T {samples}")
    if not (a.device.type == "cpu" and concrete(b, a)):
        return n_fft or 0
    if has_zero_a0(a):
        raise zero_a0(name_of_a0)
    if n_fft is not None or samples == 0 or not a.isfinite().all():
        return n_fft or 0
    radius = _slowest_pole(a)
    advice = f"use {recurrence}, the recurrence, or give n_fft"
    if radius >= 1:
        raise ValueError(f"{name} must be stable for n_fft to be chosen, got a pole of modulus {radius}: {advice}")
    decay = math.ceil(math.log(tolerance) / math.log(radius)) if radius > 0 else 0
    if decay > LONGEST_DECAY:
        raise ValueError(
            f"{name} must decay to {tolerance} within 2**26 samples for n_fft to be chosen, "
            f"got a pole of modulus {radius}: {advice}"
        )
    return fast_length(samples + b.shape[-2] * (b.shape[-1] - 1) + decay)


def _checked_tolerance(tolerance: float | None, dtype: torch.dtype) -> float:
    if tolerance is None:
        return torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    if not isinstance(tolerance, (int, float, np.integer, np.floating)):
        raise TypeError(f"tolerance must be a number, got {tolerance!r}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
    return float(tolerance)


def _slowest_pole(a: Tensor) -> float:
    """The largest modulus of a root of any of the denominators (..., K), a0 not 0; 0 where there is none."""
    with torch.no_grad():
        a = a.to(torch.float64).flatten(0, -2) if a.dim() > 1 else a.to(torch.float64).unsqueeze(0)
        used = (a != 0).any(0).nonzero()
        order = int(used.max()) if used.numel() else 0  # without zeros at the end
        if order == 0:
            return 0.0
        a = a[:, 1 : order + 1] / a[:, :1]
        if order == 1:
            moduli = a.abs()
        elif order == 2:
            a1, a2 = a.abs().unbind(-1)
            square = a1 * a1 - 4 * a[:, 1]  # below 0: a conjugate pair, whose product is a2
            moduli = torch.where(square < 0, a2.sqrt(), (a1 + square.clamp(min=0).sqrt()) / 2)
        else:
            companion = torch.cat([-a.unsqueeze(-2), torch.eye(order, dtype=a.dtype)[:-1].expand(len(a), -1, -1)], -2)
            moduli = torch.linalg.eigvals(companion).abs()
        return float(moduli.max())


def _wrap_bound(x: Tensor, b: Tensor, a: Tensor, n_fft: int, recurrence: Callable[[Tensor], Tensor]) -> Tensor:
    """How far the wrap can change a sample of y; see lfilter_fsm.

    Sampled, an impulse at the first of T samples gives h̃_0, …, h̃_{T−1}, and one at the last h̃_{n−T+1}, …, h̃_{n−1}, h̃_0:
    n itself need not be known, which the op may have chosen.
    """
    t = torch.arange(x.shape[-1], device=x.device)
    inside = t < x.shape[-1] - 1
    first, last = (t == 0).to(torch.float64), torch.logical_not(inside).to(torch.float64)
    early = (_lfilter_fsm(first, b, a, n_fft) - recurrence(first)).abs()
    late = _lfilter_fsm(last, b, a, n_fft).abs() * inside
    return _largest(x.abs()) * _largest(early.cumsum(-1) + late.flip(-1).cumsum(-1).flip(-1))


def _largest(levels: Tensor) -> Tensor:
    """The maximum over time, 0 of no samples."""
    return pad(levels, (0, 1)).amax(-1).to(torch.float64)
