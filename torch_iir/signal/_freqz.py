"""Frequency responses of filters."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_coefficients, check_lfilter, check_sosfilt, first_tensor
from torch_iir._sharding import numbers
from torch_iir.ops.freqz import freqz as _freqz


def freqz(
    b: ArrayLike,
    a: ArrayLike = 1,
    worN: ArrayLike | None = 512,
    whole: bool = False,
    fs: float = 2 * math.pi,
    include_nyquist: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The frequency response of a filter.

    .. math::
        H(e^{j\omega}) = \frac{\sum_k b_k e^{-j\omega k}}{\sum_k a_k e^{-j\omega k}}, \qquad \omega = 2 \pi w / fs

    Args:
        b: numerator coefficients, (..., Kb).
        a: denominator coefficients, (..., Ka). Default: 1.
        worN: a number of frequencies W, which divide [0, fs/2) evenly; or the frequencies themselves, (W) or (..., W),
            in the unit of fs. Default, also for None: 512.
        whole: divide [0, fs) instead. Default: False.
        fs: sample rate, positive. Default: 2π, so that w is in radians per sample.
        include_nyquist: with a number of frequencies, end with fs/2, unless whole. Default: False.

    Returns:
        ``(w, h)``: the frequencies, and the complex response (..., W), where (...) is what the leading dimensions
        broadcast to. h is complex64 if those of b and a that are tensors have at most float32, otherwise complex128; w
        has its precision.

    Raises:
        TypeError: an argument is not numeric, fs is not a number.
        ValueError: b or a is empty, shapes do not broadcast, devices differ, worN is negative, fs is not positive.

    Note:
        As ``scipy.signal.freqz``, except that coefficients lie along the last dimension, as in :func:`lfilter` (scipy:
        the first). There is no plot. Evaluated in double precision whatever the dtype, because the sums cancel where a
        pole or a zero is near; then rounded. Inf or NaN where the denominator is 0. torch.compile takes it whole; of
        what a graph then computes with the complex h, ``h.abs()`` for example, Inductor warns, but not of
        ``torch.view_as_real(h)``. Differentiable in b, a, and frequencies, to any order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.signal import freqz
        >>> w, h = freqz([0.5, 0.5], worN=4, fs=8000)
        >>> w
        tensor([   0., 1000., 2000., 3000.], dtype=torch.float64)
        >>> h.abs()
        tensor([1.0000, 0.9239, 0.7071, 0.3827], dtype=torch.float64)
        >>> freqz(torch.randn(8, 1, 3), torch.tensor([1.0, -0.5]), worN=torch.rand(5, 100))[1].shape
        torch.Size([8, 5, 100])
    """
    like = first_tensor(b, a, worN)
    dtype = _response_dtype(b, a)
    b, a = as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    w, omega = _frequencies(worN, whole, fs, include_nyquist, b)
    check_lfilter(w, b, a, names=("worN", "b", "a", "zi"))
    return _response(b.unsqueeze(-2), a.unsqueeze(-2), w, omega, dtype)


def freqz_sos(
    sos: ArrayLike, worN: ArrayLike | None = 512, whole: bool = False, fs: float = 2 * math.pi
) -> tuple[Tensor, Tensor]:
    r"""The frequency response of a cascade of second-order sections.

    .. math::
        H(e^{j\omega}) = \prod_s \frac{b_{s0} + b_{s1} e^{-j\omega} + b_{s2} e^{-2j\omega}}
        {a_{s0} + a_{s1} e^{-j\omega} + a_{s2} e^{-2j\omega}}, \qquad \omega = 2 \pi w / fs

    Args:
        sos: sections, (..., S, 6), a row being b0, b1, b2, a0, a1, a2.
        worN, whole, fs: as for :func:`freqz`.

    Returns:
        ``(w, h)``, as :func:`freqz` does.

    Raises:
        TypeError, ValueError: as :func:`freqz`; sos has another shape, or no section.

    Note:
        As ``scipy.signal.freqz_sos``, for batches of filters; a0 need not be 1. No section's response is stored.

    Example:
        >>> import torch
        >>> from torch_iir import design
        >>> from torch_iir.signal import freqz_sos
        >>> cascade = torch.cat([design.peaking(16000, 1000, 6.0), design.high_shelf(16000, 4000, -3.0)], -2)
        >>> w, h = freqz_sos(cascade, worN=[1000.0, 7999.0], fs=16000)
        >>> 20 * h.abs().log10()
        tensor([ 5.9952, -3.0000], dtype=torch.float64)
    """
    dtype = _response_dtype(sos)
    sos = as_coefficients(sos, "sos", first_tensor(sos, worN))
    w, omega = _frequencies(worN, whole, fs, False, sos)
    check_sosfilt(w, sos, names=("worN", "sos", "zi"))
    return _response(sos[..., :3], sos[..., 3:], w, omega, dtype)


def _response_dtype(*coefficients: ArrayLike) -> torch.dtype:
    """What is not a floating tensor widens nothing, as numbers in PyTorch do not."""
    dtypes = [c.dtype for c in coefficients if isinstance(c, Tensor) and (c.is_floating_point() or c.is_complex())]
    return functools.reduce(torch.promote_types, dtypes, torch.complex64) if dtypes else torch.complex128


def _frequencies(
    worN: ArrayLike | None, whole: bool, fs: float, include_nyquist: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The frequencies in the unit of fs, and as angles."""
    if not isinstance(fs, (int, float, np.integer, np.floating)):
        raise TypeError(f"fs must be a number, got {fs!r}")
    fs = float(fs)  # one of NumPy with 32 bits would round what it meets
    if not 0 < fs < math.inf:
        raise ValueError(f"fs must be positive and finite, got {fs}")
    worN = 512 if worN is None else worN
    if _is_count(worN):
        count = int(worN)
        if count < 0:
            raise ValueError(f"worN must not be negative, got {count}")
        intervals = count - 1 if include_nyquist and not whole else count
        step = fs * (1.0 if whole else 0.5) / max(intervals, 1)
        w = numbers(count, like) * step
    else:
        w = as_coefficients(worN, "worN", like)
        if w.is_complex():
            raise TypeError(f"worN must be real, got {w.dtype}")
        w = w.to(torch.float64)
    return w, (2 * math.pi / fs) * w


def _is_count(worN: ArrayLike) -> bool:
    """A single integer, of Python, NumPy or PyTorch."""
    if isinstance(worN, Tensor):
        return worN.dim() == 0 and not (worN.is_floating_point() or worN.is_complex())
    if isinstance(worN, (np.ndarray, np.generic)):
        return worN.ndim == 0 and worN.dtype.kind in "iu"
    return isinstance(worN, int)


def _response(b: Tensor, a: Tensor, w: Tensor, omega: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The frequencies and the response of sections (..., S, K), in the precision of dtype."""
    wide = dtype == torch.complex128
    return w.to(torch.float64 if wide else torch.float32), _freqz(b, a, omega, wide)
