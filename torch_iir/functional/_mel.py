"""Mel filterbanks with torchaudio's signature."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from torch_iir._arguments import whole_number
from torch_iir._registration import concrete

# Slaney's scale: linear up to 1000 Hz, three mels for 200 Hz; logarithmic above, 27 mels for a factor of 6.4.
_BREAK_HZ, _BREAK_MEL, _PER_MEL = 1000.0, 15.0, math.log(6.4) / 27


def _hertz_to_slaney(f: float) -> float:
    return 3 * f / 200 if f < _BREAK_HZ else _BREAK_MEL + math.log(f / _BREAK_HZ) / _PER_MEL


def _slaney_to_hertz(m: float) -> float:
    return 200 * m / 3 if m < _BREAK_MEL else _BREAK_HZ * math.exp(_PER_MEL * (m - _BREAK_MEL))


# From Hz to mels and back.
SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "htk": (lambda f: 2595 * math.log10(1 + f / 700), lambda m: 700 * (10 ** (m / 2595) - 1)),
    "slaney": (_hertz_to_slaney, _slaney_to_hertz),
}


def melscale_fbanks(
    n_freqs: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: float,
    norm: str | None = None,
    mel_scale: str = "htk",
) -> Tensor:
    r"""The triangles that turn a spectrum into a mel spectrum.

    .. math::
        F_{k,i} = g_i \max\!\left(0, \min\!\left(
        \frac{f_k - e_i}{e_{i+1} - e_i}, \frac{e_{i+2} - f_k}{e_{i+2} - e_{i+1}}\right)\right), \qquad
        f_k = \frac{k}{n_\text{freqs} - 1} \cdot \frac{\text{sample\_rate}}{2}

    The edges e are evenly spaced in mels, from f_min to f_max. A frequency lies in two triangles at most.

    Args:
        n_freqs: number of frequencies, n_fft // 2 + 1; at least 2.
        f_min: where the first triangle begins, in Hz, 0 or above.
        f_max: where the last one ends, in Hz, above f_min. Beyond half the sample rate there is nothing to weigh.
        n_mels: number of triangles, at least 1.
        sample_rate: in Hz.
        norm: None, all triangles have height 1 (g = 1); or ``"slaney"``, area 1 over Hz: g = 2 / (e_{i+2} − e_i).
            Default: None.
        mel_scale: ``"htk"``, 2595 log₁₀(1 + f/700); or ``"slaney"``, linear up to 1000 Hz, logarithmic above.
            Default: ``"htk"``.

    Returns:
        The weights F, (n_freqs, n_mels), computed in float64 and rounded once to the default dtype. A warning says when
        a triangle fell between two frequencies, and is empty.

    Raises:
        TypeError: n_freqs or n_mels is not an integer.
        ValueError: a number is out of its range, a name is unknown, or float64 cannot tell n_mels triangles between
            f_min and f_max apart.

    Note:
        The numbers of ``torchaudio.functional.melscale_fbanks``, whose single precision is off by some 1e-5, and, with
        ``"slaney"`` twice and transposed, of ``librosa.filters.mel``. For an odd sample rate torchaudio shifts all
        frequencies, because it rounds half of the rate down; here, as in librosa, it is not rounded.

    Example:
        >>> from torch_iir.functional import melscale_fbanks
        >>> fb = melscale_fbanks(513, f_min=0.0, f_max=8000.0, n_mels=80, sample_rate=16000)
        >>> fb.shape
        torch.Size([513, 80])
        >>> int((fb > 0).sum(1).max())
        2
    """
    n_freqs, n_mels = whole_number(n_freqs, "n_freqs", 2), whole_number(n_mels, "n_mels", 1)
    if not 0 < sample_rate < math.inf:
        raise ValueError(f"sample_rate must be positive and finite, got {sample_rate}")
    if not 0 <= f_min < f_max < math.inf:
        raise ValueError(f"f_min and f_max must rise from 0 or above, got f_min {f_min}, f_max {f_max}")
    if norm not in (None, "slaney"):
        raise ValueError(f"norm must be None or 'slaney', got {norm!r}")
    if mel_scale not in SCALES:
        raise ValueError(f"mel_scale must be one of {', '.join(SCALES)}; got {mel_scale!r}")
    to_mel, to_hertz = SCALES[mel_scale]
    low, high = to_mel(f_min), to_mel(f_max)
    inner = (to_hertz(low + (high - low) * i / (n_mels + 1)) for i in range(1, n_mels + 1))
    points = [float(f_min), *inner, float(f_max)]  # the ends unrounded: what lies there has weight 0
    if any(lower >= upper for lower, upper in itertools.pairwise(points)):
        raise ValueError(
            f"f_min and f_max must leave room for n_mels, got f_min {f_min}, f_max {f_max}, n_mels {n_mels}"
        )
    edges = torch.tensor(points, dtype=torch.float64, device="cpu")
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    f = torch.linspace(0, sample_rate / 2, n_freqs, dtype=torch.float64, device="cpu").unsqueeze(-1)
    fb = torch.minimum((f - left) / (middle - left), (right - f) / (right - middle)).clamp_min(0)
    if norm is not None:
        fb = fb * (2 / (right - left))
    if concrete(fb) and (empty := int((fb == 0).all(0).sum())):
        warnings.warn(
            f"{empty} of {n_mels} mel filters contain no frequency and are empty: "
            f"n_mels ({n_mels}) is too high, n_freqs ({n_freqs}) too low, or f_max beyond half of sample_rate",
            stacklevel=2,
        )
    return fb.to(torch.empty(0))  # of the default device and dtype
