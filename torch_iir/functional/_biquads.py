"""torchaudio's filters of order 2: a design, and one call of lfilter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from torch_iir import design
from torch_iir._arguments import ArrayLike, as_signal, broadcast_shape
from torch_iir.design._cookbook import HIGH, LOW, shelf
from torch_iir.design._parameters import cos, expm1, read_parameters, section, sin
from torch_iir.signal._lfilter import filtered


def lowpass_biquad(
    waveform: ArrayLike, sample_rate: ArrayLike, cutoff_freq: ArrayLike, Q: ArrayLike = 0.707, *, clamp: bool = True
) -> Tensor:
    r"""Filters a waveform with a low-pass filter of order 2, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{1}{s^2 + s/Q + 1}

    Designed by :func:`torch_iir.design.lowpass`.

    Args:
        waveform: (..., time).
        sample_rate: sample rate in Hz.
        cutoff_freq: where the gain is Q, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive. Default: 0.707.
        clamp: limit the result to [−1, 1]. Default: True.

    All parameters but clamp, here and in the functions below, are numbers or tensors, whose shapes broadcast with each
    other and with the (...) of the waveform, aligned at the right: a waveform (32, 1, time) with a cutoff_freq (128)
    gives (32, 128, time), 128 filters that share an input.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError: an argument is not numeric.
        ValueError: the waveform is a scalar, or complex where it is to be clamped; a parameter that is not a tensor is
            out of range; shapes do not broadcast. Tensors are not read, so that nothing waits for a device: where one
            is out of range the result is NaN.

    Note:
        As ``torchaudio.functional.lowpass_biquad``, whose parameters are single numbers, whose design runs in the dtype
        of the waveform (at bfloat16, coefficients some percent off), and which returns NaN for numbers out of range.
        Here the design runs in float64, its coefficients are used unrounded, and the gradient of every parameter is
        exact, forwards and backwards. Parameters on another device than the waveform are moved there, as in torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import lowpass_biquad
        >>> cutoff = torch.tensor([500.0, 1000.0, 2000.0], requires_grad=True)
        >>> y = lowpass_biquad(torch.randn(4, 1, 8000).clamp(-1, 1), 16000, cutoff)
        >>> y.shape
        torch.Size([4, 3, 8000])
        >>> y.square().mean().backward()
        >>> (cutoff.grad > 0).all()                                         # a higher cutoff lets more through
        tensor(True)
    """
    return _filtered(waveform, design.lowpass(sample_rate, cutoff_freq, Q), clamp)


def highpass_biquad(
    waveform: ArrayLike, sample_rate: ArrayLike, cutoff_freq: ArrayLike, Q: ArrayLike = 0.707, *, clamp: bool = True
) -> Tensor:
    r"""Filters a waveform with a high-pass filter of order 2, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{s^2}{s^2 + s/Q + 1}

    Designed by :func:`torch_iir.design.highpass`.

    Args:
        waveform, sample_rate, cutoff_freq, Q, clamp: as for :func:`lowpass_biquad`.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import highpass_biquad
        >>> highpass_biquad(torch.ones(8000), 16000, 1000)[-1].abs() < 1e-6  # nothing constant is left
        tensor(True)
    """
    return _filtered(waveform, design.highpass(sample_rate, cutoff_freq, Q), clamp)


def allpass_biquad(
    waveform: ArrayLike, sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike = 0.707, *, clamp: bool = True
) -> Tensor:
    r"""Filters a waveform with an all-pass filter of order 2, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{s^2 - s/Q + 1}{s^2 + s/Q + 1}

    Designed by :func:`torch_iir.design.allpass`.

    Args:
        waveform, sample_rate, Q, clamp: as for :func:`lowpass_biquad`.
        central_freq: where the phase is 180°, in Hz, between 0 and half the sample rate.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import allpass_biquad
        >>> click = torch.zeros(8000)
        >>> click[0] = 1
        >>> allpass_biquad(click, 16000, 1000).square().sum()                # no energy is lost
        tensor(1.0000)
    """
    return _filtered(waveform, design.allpass(sample_rate, central_freq, Q), clamp)


def bandreject_biquad(
    waveform: ArrayLike, sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike = 0.707, *, clamp: bool = True
) -> Tensor:
    r"""Filters a waveform with a band-reject (notch) filter of order 2, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{s^2 + 1}{s^2 + s/Q + 1}

    Designed by :func:`torch_iir.design.bandreject`.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        central_freq: where the gain is 0, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: the centre over the bandwidth. Default: 0.707.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import bandreject_biquad
        >>> hum = torch.sin(2 * torch.pi * 50 / 16000 * torch.arange(16000))
        >>> bandreject_biquad(hum, 16000, 50)[-1000:].abs().max() < 1e-3
        tensor(True)
    """
    return _filtered(waveform, design.bandreject(sample_rate, central_freq, Q), clamp)


def band_biquad(
    waveform: ArrayLike,
    sample_rate: ArrayLike,
    central_freq: ArrayLike,
    Q: ArrayLike = 0.707,
    noise: bool = False,
    *,
    clamp: bool = True,
) -> Tensor:
    r"""Filters a waveform with SoX's band filter, a resonance of two poles, and clamps the result to [−1, 1].

    .. math::
        H(z) = \frac{b_0}{1 + a_1 z^{-1} + a_2 z^{-2}}, \quad a_2 = e^{-2 \pi f / (Q f_s)}, \quad
        a_1 = -\frac{4 a_2}{1 + a_2} \cos\frac{2 \pi f}{f_s}

    with :math:`b_0` such that the gain at the centre f is 1, or with ``noise`` such that white noise keeps its power.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        central_freq: where the gain is greatest, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: the centre over the bandwidth. Default: 0.707.
        noise: SoX's mode for sounds without pitch, such as percussion. Default: False, for voice and instruments.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Note:
        Not the cookbook's band-pass, which is :func:`bandpass_biquad`. torchaudio is NaN where :math:`a_2` underflows,
        which in float32 it does for f = 7.9 kHz of 16 and Q = 0.02.

    Example:
        >>> import torch
        >>> from torch_iir.functional import band_biquad
        >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000))
        >>> band_biquad(tone, 16000, 1000)[-1000:].square().mean().sqrt()   # the tone passes as it is
        tensor(0.7071)
    """
    return _filtered(waveform, _sox_band(sample_rate, central_freq, Q, noise), clamp)


def bandpass_biquad(
    waveform: ArrayLike,
    sample_rate: ArrayLike,
    central_freq: ArrayLike,
    Q: ArrayLike = 0.707,
    const_skirt_gain: bool = False,
    *,
    clamp: bool = True,
) -> Tensor:
    r"""Filters a waveform with a band-pass filter of order 2, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{g s}{s^2 + s/Q + 1}, \quad g = 1/Q, \text{ or } 1 \text{ with const\_skirt\_gain}

    Designed by :func:`torch_iir.design.bandpass`.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        central_freq: where the gain is greatest, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: the centre over the bandwidth. Default: 0.707.
        const_skirt_gain: the greatest gain is Q instead of 1. Default: False.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import bandpass_biquad
        >>> bandpass_biquad(torch.tensor([1.0, 0.0, 0.0]), 8000, 1000, Q=0.5)
        tensor([ 0.4142,  0.3431, -0.2010])
    """
    return _filtered(waveform, design.bandpass(sample_rate, central_freq, Q, const_skirt_gain), clamp)


def bass_biquad(
    waveform: ArrayLike,
    sample_rate: ArrayLike,
    gain: ArrayLike,
    central_freq: ArrayLike = 100,
    Q: ArrayLike = 0.707,
    *,
    clamp: bool = True,
) -> Tensor:
    r"""Raises or lowers the bass of a waveform with a low shelf, and clamps the result to [−1, 1].

    .. math::
        H(s) = A \, \frac{s^2 + s \sqrt A / Q + A}{A s^2 + s \sqrt A / Q + 1}, \quad A = 10^{gain/40}

    Designed by :func:`torch_iir.design.low_shelf`.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        gain: gain of the bass in dB. Note that it comes before the frequency here.
        central_freq: where half the gain in dB is reached, in Hz, between 0 and half the sample rate. Default: 100.
        Q: quality factor, positive; above 1/√2 the slope overshoots. Default: 0.707.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import bass_biquad
        >>> bass_biquad(torch.full([16000], 0.2), 16000, gain=6.0206)[-1]
        tensor(0.4000)
    """
    return _filtered(waveform, shelf(sample_rate, "central_freq", central_freq, gain, Q, LOW), clamp)


def treble_biquad(
    waveform: ArrayLike,
    sample_rate: ArrayLike,
    gain: ArrayLike,
    central_freq: ArrayLike = 3000,
    Q: ArrayLike = 0.707,
    *,
    clamp: bool = True,
) -> Tensor:
    r"""Raises or lowers the treble of a waveform with a high shelf, and clamps the result to [−1, 1].

    .. math::
        H(s) = A \, \frac{A s^2 + s \sqrt A / Q + 1}{s^2 + s \sqrt A / Q + A}, \quad A = 10^{gain/40}

    Designed by :func:`torch_iir.design.high_shelf`.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        gain: gain of the treble in dB. Note that it comes before the frequency here.
        central_freq: where half the gain in dB is reached, in Hz, between 0 and half the sample rate. Default: 3000.
        Q: quality factor, positive; above 1/√2 the slope overshoots. Default: 0.707.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import treble_biquad
        >>> treble_biquad(torch.full([16000], 0.2), 16000, gain=6.0206)[-1]
        tensor(0.2000)
    """
    return _filtered(waveform, shelf(sample_rate, "central_freq", central_freq, gain, Q, HIGH), clamp)


def equalizer_biquad(
    waveform: ArrayLike,
    sample_rate: ArrayLike,
    center_freq: ArrayLike,
    gain: ArrayLike,
    Q: ArrayLike = 0.707,
    *,
    clamp: bool = True,
) -> Tensor:
    r"""Raises or lowers a band of a waveform with a peaking filter, and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{s^2 + s A/Q + 1}{s^2 + s/(A Q) + 1}, \quad A = 10^{gain/40}

    Designed by :func:`torch_iir.design.peaking`.

    Args:
        waveform, sample_rate, clamp: as for :func:`lowpass_biquad`.
        center_freq: where the peak is, in Hz, between 0 and half the sample rate.
        gain: gain there in dB. Note that it comes after the frequency here.
        Q: quality factor, positive: the centre over the bandwidth. Default: 0.707.

    Returns:
        The filtered waveform, as :func:`lowpass_biquad` does; so are errors, NaN, and what differs from torchaudio.

    Example:
        >>> import torch
        >>> from torch_iir.functional import equalizer_biquad
        >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000)) / 4
        >>> equalizer_biquad(tone, 16000, 1000, gain=6.0206)[-1000:].max()
        tensor(0.5000)
    """
    return _filtered(waveform, design.peaking(sample_rate, center_freq, gain, Q), clamp)


def deemph_biquad(waveform: ArrayLike, sample_rate: int, *, clamp: bool = True) -> Tensor:
    r"""Undoes the pre-emphasis of a compact disc (IEC 60908, 50/15 µs), and clamps the result to [−1, 1].

    .. math::
        H(s) = \frac{1 + 15\,\mu\mathrm{s} \cdot s}{1 + 50\,\mu\mathrm{s} \cdot s}

    approximated by a high shelf with the parameters of SoX, up to 20 kHz to 0.07 dB.

    Args:
        waveform, clamp: as for :func:`lowpass_biquad`.
        sample_rate: 44100 or 48000 Hz.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError, ValueError: as :func:`lowpass_biquad`; the sample rate is another.

    Example:
        >>> import torch
        >>> from torch_iir.functional import deemph_biquad
        >>> deemph_biquad(torch.full([1000], 0.5), 44100)[-1]
        tensor(0.5000)
    """
    frequency, slope, gain = _of_rate(_DEEMPHASIS, sample_rate)
    A = 10 ** (gain / 40)
    Q = 1 / math.sqrt((A + 1 / A) * (1 / slope - 1) + 2)
    return _filtered(waveform, design.high_shelf(sample_rate, frequency, gain, Q), clamp)


def riaa_biquad(waveform: ArrayLike, sample_rate: int, *, clamp: bool = True) -> Tensor:
    r"""Undoes the pre-emphasis of a vinyl record (RIAA), and clamps the result to [−1, 1].

    .. math::
        H(s) = g \, \frac{1 + 318\,\mu\mathrm{s} \cdot s}{(1 + 3180\,\mu\mathrm{s} \cdot s)
        (1 + 75\,\mu\mathrm{s} \cdot s)}, \qquad \text{0 dB at 1 kHz}

    approximated by two zeros and two poles, those of SoX, from 20 Hz to 20 kHz to 0.45 dB at 44100 Hz, 0.28 dB at 48000
    Hz, and 0.07 dB at the others.

    Args:
        waveform, clamp: as for :func:`lowpass_biquad`.
        sample_rate: 44100, 48000, 88200 or 96000 Hz.

    Returns:
        The filtered waveform, contiguous, of the dtype of waveform.

    Raises:
        TypeError, ValueError: as :func:`lowpass_biquad`; the sample rate is another.

    Example:
        >>> import torch
        >>> from torch_iir.functional import riaa_biquad
        >>> tone = torch.sin(2 * torch.pi * 1000 / 48000 * torch.arange(48000)) / 2
        >>> riaa_biquad(tone, 48000)[-4800:].square().mean().sqrt()         # 1 kHz passes as it is
        tensor(0.3536)
    """
    zeros, poles = _of_rate(_RIAA, sample_rate)
    cos_w = math.cos(2 * math.pi * 1000 / sample_rate)
    ratio = [(1 - 2 * p * cos_w + p * p) / (1 - 2 * z * cos_w + z * z) for z, p in zip(zeros, poles, strict=True)]
    gain = math.sqrt(ratio[0] * ratio[1])
    b, a = ((1.0, -(r[0] + r[1]), r[0] * r[1]) for r in (zeros, poles))
    return _filtered(waveform, torch.tensor([[*(gain * c for c in b), *a]], dtype=torch.float64), clamp)


_Row = TypeVar("_Row")

# SoX's: frequency of the shelf in Hz, slope S, gain in dB.
_DEEMPHASIS = {44100: (5283.0, 0.4845, -9.477), 48000: (5356.0, 0.479, -9.62)}

# SoX's: zeros and poles in the z plane.
_RIAA = {
    44100: ((-0.2014898, 0.9233820), (0.7083149, 0.9924091)),
    48000: ((-0.1766069, 0.9321590), (0.7396325, 0.9931330)),
    88200: ((-0.1168735, 0.9648312), (0.8590646, 0.9964002)),
    96000: ((-0.1141486, 0.9676817), (0.8699137, 0.9966946)),
}


def _of_rate(table: Mapping[int, _Row], sample_rate: int) -> _Row:
    try:
        return table[sample_rate]
    except (KeyError, TypeError):
        raise ValueError(f"sample_rate must be one of {list(table)}, got {sample_rate}") from None


def _sox_band(sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike, noise: bool) -> Tensor:
    """The section of band_biquad, in terms that do not cancel. With r = a2, D = (1 − r)², and s and c the sine and the
    cosine of half the angle of the frequency:

        1 − a1² / 4r = (D + 16 r s² c²) / (1 + r)²,      (1 + r)² − a1² = (D + 8 r s²) (D + 8 r c²) / (1 + r)²
    """
    p = read_parameters(sample_rate, "central_freq", central_freq, Q)
    s2, c2 = sin(p.theta) ** 2, cos(p.theta) ** 2
    minus = -expm1(-2 * p.theta / p.Q)  # 1 − r
    r = 1 - minus
    D, plus = minus**2, 1 + r
    if noise:  # the power of white noise stays
        b0 = ((D + 8 * r * s2) * (D + 8 * r * c2) * minus / plus) ** 0.5 / plus
    else:  # the gain at the centre is 1
        b0 = (D + 16 * r * s2 * c2) ** 0.5 * minus / plus
    return section((b0, 0.0, 0.0), (1.0, -4 * r / plus * (c2 - s2), r), p)


def _filtered(waveform: ArrayLike, sos: Tensor, clamp: bool) -> Tensor:
    """The waveform through one section, on the device of the waveform."""
    waveform = as_signal(waveform, "waveform", sos)
    if clamp and waveform.is_complex():
        raise ValueError("clamp must be False for a complex waveform: complex numbers have no order")
    if broadcast_shape(waveform.shape[:-1], sos.shape[:-2]) is None:
        raise ValueError(
            "the parameters must broadcast with the dimensions of waveform before the last, got "
            f"waveform {list(waveform.shape)} and parameters of shape {list(sos.shape[:-2])}"
        )
    row = sos.to(waveform.device).squeeze(-2)
    y, _ = filtered(waveform, row[..., :3], row[..., 3:], names=("waveform", "b", "a", "zi"))
    return y.clamp(-1, 1) if clamp else y
