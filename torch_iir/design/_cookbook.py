"""The formulas of the Audio EQ Cookbook, in the sine s and the cosine c of half the angle of the frequency.

So 1 − cos ω = 2s² and 1 + cos ω = 2c² keep all their digits at low and at high frequencies.
"""

from __future__ import annotations

from torch import Tensor

from torch_iir._arguments import ArrayLike
from torch_iir.design._parameters import Parameters, Value, cos, read_parameters, section, sin

LOW, HIGH = 1, -1  # sides of a shelf


def lowpass(sample_rate: ArrayLike, cutoff_freq: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a low-pass section.

    .. math::
        H(s) = \frac{1}{s^2 + s/Q + 1}, \qquad
        s = \frac{1}{\tan(\pi f / f_s)} \, \frac{1 - z^{-1}}{1 + z^{-1}}

    with :math:`f` the frequency of the section and :math:`f_s` the sample rate, here and in the functions below.

    Args:
        sample_rate: sample rate in Hz, a number or a tensor, as all parameters here.
        cutoff_freq: where the gain is Q, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive; 1/√2 is the Butterworth filter, −3.01 dB at the cutoff. Default: 0.707.

    Returns:
        The section b0, b1, b2, 1, a1, a2 in float64, (..., 1, 6), where (...) is what the parameters broadcast to, on
        the device of those that are tensors.

    Raises:
        TypeError: a parameter is not a real number.
        ValueError: a parameter that is not a tensor is out of range, parameters do not broadcast or differ in device.

    Note:
        The design runs in float64, whatever the dtypes. Tensors are not read, so that nothing waits for a device: a
        section is NaN where one of its parameters is out of range, and the gradient of that section is 0. A NumPy array
        under torch.compile or in a transform of torch.func counts as a tensor. Differentiable in every parameter to any
        order, forwards and backwards.

    Example:
        >>> import torch
        >>> from torch_iir.design import lowpass
        >>> lowpass(8000, 1000, Q=0.5)
        tensor([[ 0.0858,  0.1716,  0.0858,  1.0000, -0.8284,  0.1716]],
               dtype=torch.float64)
        >>> lowpass(16000, torch.tensor([100.0, 1000.0, 9000.0])).isnan().any(-1).squeeze()  # 9000 > 16000 / 2
        tensor([False, False,  True])
        >>> torch.cat([lowpass(16000, 1000.0, Q) for Q in (0.541, 1.307)], -2).shape  # a cascade: Butterworth, order 4
        torch.Size([2, 6])
    """
    p = read_parameters(sample_rate, "cutoff_freq", cutoff_freq, Q)
    s, _, cos_w, alpha = _terms(p)
    b1 = 2 * s * s
    return section((b1 / 2, b1, b1 / 2), _quadratic(cos_w, alpha), p)


def highpass(sample_rate: ArrayLike, cutoff_freq: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a high-pass section.

    .. math::
        H(s) = \frac{s^2}{s^2 + s/Q + 1}

    Args:
        sample_rate, cutoff_freq, Q: as for :func:`lowpass`.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import highpass
        >>> highpass(8000, 1000, Q=0.5)
        tensor([[ 0.5000, -1.0000,  0.5000,  1.0000, -0.8284,  0.1716]],
               dtype=torch.float64)
    """
    p = read_parameters(sample_rate, "cutoff_freq", cutoff_freq, Q)
    _, c, cos_w, alpha = _terms(p)
    b1 = -2 * c * c
    return section((-b1 / 2, b1, -b1 / 2), _quadratic(cos_w, alpha), p)


def bandpass(
    sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike = 0.707, const_skirt_gain: bool = False
) -> Tensor:
    r"""Designs a band-pass section.

    .. math::
        H(s) = \frac{g s}{s^2 + s/Q + 1}, \qquad g = 1/Q, \text{ or } 1 \text{ with const\_skirt\_gain}

    Args:
        sample_rate: sample rate in Hz.
        central_freq: where the gain is greatest, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: the centre over the bandwidth between the points at −3 dB. Default: 0.707.
        const_skirt_gain: the greatest gain is Q instead of 1, and does not change that far from the centre.
            Default: False.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import bandpass
        >>> bandpass(8000, 1000, Q=0.5)
        tensor([[ 0.4142,  0.0000, -0.4142,  1.0000, -0.8284,  0.1716]],
               dtype=torch.float64)
    """
    p = read_parameters(sample_rate, "central_freq", central_freq, Q)
    s, c, cos_w, alpha = _terms(p)
    b0 = s * c if const_skirt_gain else alpha
    return section((b0, 0.0, -b0), _quadratic(cos_w, alpha), p)


def bandreject(sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a band-reject (notch) section.

    .. math::
        H(s) = \frac{s^2 + 1}{s^2 + s/Q + 1}

    Args:
        sample_rate: sample rate in Hz.
        central_freq: where the gain is 0, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: the centre over the bandwidth between the points at −3 dB. Default: 0.707.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import bandreject
        >>> bandreject(8000, 1000, Q=0.5)
        tensor([[ 0.5858, -0.8284,  0.5858,  1.0000, -0.8284,  0.1716]],
               dtype=torch.float64)
    """
    p = read_parameters(sample_rate, "central_freq", central_freq, Q)
    _, _, cos_w, alpha = _terms(p)
    return section(_quadratic(cos_w, 0.0), _quadratic(cos_w, alpha), p)


def allpass(sample_rate: ArrayLike, central_freq: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs an all-pass section: gain 1 everywhere, the phase turns by 360°.

    .. math::
        H(s) = \frac{s^2 - s/Q + 1}{s^2 + s/Q + 1}

    Args:
        sample_rate: sample rate in Hz.
        central_freq: where the phase is 180°, in Hz, between 0 and half the sample rate.
        Q: quality factor, positive: how fast the phase turns. Default: 0.707.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import allpass
        >>> allpass(8000, 1000, Q=1.0)
        tensor([[ 0.4776, -1.0448,  1.0000,  1.0000, -1.0448,  0.4776]],
               dtype=torch.float64)
    """
    p = read_parameters(sample_rate, "central_freq", central_freq, Q)
    _, _, cos_w, alpha = _terms(p)
    return section(_quadratic(cos_w, -alpha), _quadratic(cos_w, alpha), p)


def peaking(sample_rate: ArrayLike, center_freq: ArrayLike, gain: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a peaking section: a gain around one frequency, 0 dB away from it.

    .. math::
        H(s) = \frac{s^2 + s A/Q + 1}{s^2 + s/(A Q) + 1}, \qquad A = 10^{gain/40}

    Args:
        sample_rate: sample rate in Hz.
        center_freq: where the peak is, in Hz, between 0 and half the sample rate.
        gain: gain there in dB, within ±6000 (a float64 holds no more); negative for a dip.
        Q: quality factor, positive: the centre over the bandwidth between the points at half the gain in dB.
            Default: 0.707.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> import torch
        >>> from torch_iir.design import peaking
        >>> peaking(8000, 1000, gain=6.0)
        tensor([[ 1.2602, -1.0445,  0.2169,  1.0000, -1.0445,  0.4771]],
               dtype=torch.float64)
        >>> gain = torch.zeros(8, 5)                                        # 8 equalizers of 5 bands
        >>> peaking(16000, torch.tensor([100.0, 300.0, 1e3, 3e3, 6e3]), gain).squeeze(-2).shape
        torch.Size([8, 5, 6])
    """
    p = read_parameters(sample_rate, "center_freq", center_freq, Q, gain)
    _, _, cos_w, alpha = _terms(p)
    A = _amplitude(p)
    return section(_quadratic(cos_w, alpha * A), _quadratic(cos_w, alpha / A), p)


def low_shelf(sample_rate: ArrayLike, cutoff_freq: ArrayLike, gain: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a low-shelf section: a gain below one frequency, 0 dB above it.

    .. math::
        H(s) = A \, \frac{s^2 + s \sqrt A / Q + A}{A s^2 + s \sqrt A / Q + 1}, \qquad A = 10^{gain/40}

    Args:
        sample_rate: sample rate in Hz.
        cutoff_freq: where half the gain in dB is reached, in Hz, between 0 and half the sample rate.
        gain: gain of the shelf in dB, within ±6000 (a float64 holds no more).
        Q: quality factor, positive; above 1/√2 the slope overshoots. The cookbook's slope S is the
            :math:`Q = 1/\sqrt{(A + 1/A)(1/S - 1) + 2}`. Default: 0.707.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import low_shelf
        >>> from torch_iir.signal import freqz_sos
        >>> _, h = freqz_sos(low_shelf(16000, 1000, gain=6.0), worN=[0.0, 1000.0], fs=16000)
        >>> 20 * h.abs().log10()
        tensor([6.0000, 3.0000], dtype=torch.float64)
    """
    return shelf(sample_rate, "cutoff_freq", cutoff_freq, gain, Q, LOW)


def high_shelf(sample_rate: ArrayLike, cutoff_freq: ArrayLike, gain: ArrayLike, Q: ArrayLike = 0.707) -> Tensor:
    r"""Designs a high-shelf section: a gain above one frequency, 0 dB below it.

    .. math::
        H(s) = A \, \frac{A s^2 + s \sqrt A / Q + 1}{s^2 + s \sqrt A / Q + A}, \qquad A = 10^{gain/40}

    Args:
        sample_rate, cutoff_freq, gain, Q: as for :func:`low_shelf`.

    Returns:
        The section, (..., 1, 6), as :func:`lowpass` does; so are errors and NaN.

    Example:
        >>> from torch_iir.design import high_shelf
        >>> from torch_iir.signal import freqz_sos
        >>> _, h = freqz_sos(high_shelf(16000, 1000, gain=6.0), worN=[1000.0, 8000.0], fs=16000)
        >>> 20 * h.abs().log10()
        tensor([3.0000, 6.0000], dtype=torch.float64)
    """
    return shelf(sample_rate, "cutoff_freq", cutoff_freq, gain, Q, HIGH)


def shelf(sample_rate: ArrayLike, freq_name: str, freq: ArrayLike, gain: ArrayLike, Q: ArrayLike, side: int) -> Tensor:
    """The low shelf; on the high side its mirror image z → −z."""
    p = read_parameters(sample_rate, freq_name, freq, Q, gain)
    _, _, cos_w, alpha = _terms(p)
    A = _amplitude(p)
    cos_w = side * cos_w
    slope = 2 * A**0.5 * alpha
    plus, minus = (A + 1) - (A - 1) * cos_w, (A + 1) + (A - 1) * cos_w
    b1 = 2 * side * A * ((A - 1) - (A + 1) * cos_w)
    a1 = -2 * side * ((A - 1) + (A + 1) * cos_w)
    return section((A * (plus + slope), b1, A * (plus - slope)), (minus + slope, a1, minus - slope), p)


def _terms(p: Parameters) -> tuple[Value, Value, Value, Value]:
    """s, c, cos ω and α = sin ω / 2Q."""
    s, c = sin(p.theta), cos(p.theta)
    return s, c, (c - s) * (c + s), s * c / p.Q


def _quadratic(cos_w: Value, alpha: Value) -> tuple[Value, Value, Value]:
    """What s² + s/Q + 1 becomes in z, for the α of this Q."""
    return 1 + alpha, -2 * cos_w, 1 - alpha


def _amplitude(p: Parameters) -> Value:
    amplitude: Value = 10 ** (p.gain / 40)
    return amplitude
