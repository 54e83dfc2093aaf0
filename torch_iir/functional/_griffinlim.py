"""Griffin and Lim's iterations with torchaudio's signature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal, whole_number
from torch_iir._registration import concrete


def griffinlim(
    specgram: ArrayLike,
    window: Tensor,
    n_fft: int,
    hop_length: int,
    win_length: int,
    power: float,
    n_iter: int,
    momentum: float,
    length: int | None,
    rand_init: bool,
    *,
    init_phase: ArrayLike | None = None,
) -> Tensor:
    r"""A signal whose spectrogram is close to a given one, by the fast Griffin-Lim algorithm.

    .. math::
        t_n = \mathrm{STFT}(\mathrm{ISTFT}(S^{1/p} \, e^{i \varphi_{n-1}})), \qquad
        \varphi_n = \arg\left(t_n - \frac{\alpha}{1 + \alpha} t_{n-1}\right), \qquad
        y = \mathrm{ISTFT}(S^{1/p} \, e^{i \varphi_N})

    p is ``power``, α the momentum, N ``n_iter``, t₀ = 0; the argument is that of (1 + α) t_n − α t_{n−1}. The
    transforms are those of `torch.stft` with its default ``center=True``, unnormalised.

    Args:
        specgram: (..., n_fft // 2 + 1, frames), not negative.
        window: (win_length), padded with zeros to n_fft on both sides.
        n_fft: samples of a transform.
        hop_length: samples from frame to frame, at most win_length.
        win_length: samples of the window, at most n_fft.
        power: exponent of the spectrogram: 1 for magnitudes, 2 for powers. Positive.
        n_iter: number of iterations, 0 or more.
        momentum: in [0, 1); 0 is Griffin and Lim's algorithm, 0.99 usually gets closer in as many iterations.
        length: samples of the result; it must have as many frames as specgram. None: the fewest, (frames − 1) ·
            hop_length, and one more for an odd n_fft.
        rand_init: whether to start from random numbers, real and imaginary parts uniform in [0, 1), or from 1.
            `torch.manual_seed` governs them.
        init_phase: phases φ₀ to start from in place of both, in radians; it broadcasts with specgram. Default: None.

    Returns:
        The signal, (..., length), contiguous, of the dtype of specgram. Half precision is computed in float32.

    Raises:
        TypeError: an argument is not numeric, or complex, or not an integer where it must be.
        ValueError: a number is out of range, shapes do not match, devices differ; specgram has too few frames for the
            signal to be reflected at its ends; or the windows leave samples without weight (found on the CPU only:
            they are 0 elsewhere).

    Note:
        The numbers of ``torchaudio.functional.griffinlim``, from the same seed. torchaudio divides by magnitudes +
        1e-16, and so loses what is as soft as that; its gradient is NaN where a bin is 0, and a length of other frames
        fails within its transforms. ``librosa.griffinlim`` starts from uniform phases, as
        ``init_phase=2 * torch.pi * torch.rand_like(specgram)`` does, and extends the signal with zeros.

        It is differentiable, backwards and forwards, through all iterations: each keeps a few spectrograms. Where a bin
        is 0 the root has no finite derivative, and where a phase is undefined it has none: both count as 0.

        Perraudin, Balazs and Søndergaard, A fast Griffin-Lim algorithm, WASPAA 2013. Griffin and Lim, IEEE Trans. ASSP
        32 (1984).

    Example:
        >>> import torch
        >>> from torch_iir.functional import griffinlim
        >>> tone = torch.sin(0.3 * torch.arange(4000))
        >>> window = torch.hann_window(256)
        >>> power = torch.stft(tone, 256, 64, window=window, return_complex=True).abs().square()
        >>> y = griffinlim(power, window, 256, 64, 256, 2.0, n_iter=32, momentum=0.99, length=4000, rand_init=True)
        >>> y.shape
        torch.Size([4000])
    """
    n_fft, hop_length, win_length, n_iter = check_griffinlim(n_fft, hop_length, win_length, power, n_iter, momentum)
    S = as_signal(specgram, "specgram", window)
    samples = _check_tensors(S, window, n_fft, hop_length, win_length, n_iter, length)
    dtype = torch.promote_types(S.dtype, torch.float32)
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    if 0 in S.shape[:-2]:  # not every library of FFTs takes an empty batch
        return S.sum((-2, -1)).unsqueeze(-1).expand((*S.shape[:-2], samples))
    # (..., frames, frequencies): every frame lies in one piece. Complex, for the product would convert it every time.
    magnitude = _root(S.mT.to(dtype), power).contiguous().to(complex_dtype)
    if init_phase is not None:
        phase = _check_phase(as_signal(init_phase, "init_phase", S), S).mT.to(dtype)
        unit = torch.polar(torch.ones_like(phase), phase)
    elif rand_init:
        unit = torch.rand(S.shape, dtype=complex_dtype, device=S.device).mT
    else:
        unit = torch.ones((), dtype=complex_dtype, device=S.device)

    left = (n_fft - win_length) // 2
    padded = F.pad(window.to(dtype), (left, n_fft - win_length - left))
    begin = n_fft // 2
    weight = _overlap_add(padded.square().expand(S.shape[-1], n_fft), hop_length, begin, samples)
    covered = weight > 1e-11 * padded.square().max()  # what torch.istft demands of a window of height 1
    shortest = _shortest(S.shape[-1], n_fft, hop_length)
    if window.device.type == "cpu" and concrete(window) and not bool(covered[:shortest].all()):
        raise ValueError(
            "the windows must overlap so that every sample has a weight, got "
            f"hop_length {hop_length}, win_length {win_length} and a window that leaves gaps"
        )
    gain = torch.where(covered, weight, torch.inf).reciprocal()

    def inverse(spectrum: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum, n_fft) * padded
        return _overlap_add(frames, hop_length, begin, samples) * gain

    # Only phases are taken from what is analysed. So much louder, no bin is subnormal: its sgn would be infinite.
    analysis = padded * (2 / torch.finfo(dtype).eps)
    previous = None
    for _ in range(n_iter):
        y = inverse(magnitude * unit)
        y = torch.cat([y[..., 1 : begin + 1].flip(-1), y, y[..., -begin - 1 : -1].flip(-1)], -1)
        rebuilt = torch.fft.rfft(y.unfold(-1, n_fft, hop_length) * analysis)
        ahead = rebuilt if previous is None else rebuilt.sub(previous, alpha=momentum / (1 + momentum))
        unit, previous = ahead.sgn(), rebuilt
    return inverse(magnitude * unit).to(S.dtype)


def check_griffinlim(
    n_fft: int, hop_length: int, win_length: int, power: float, n_iter: int, momentum: float
) -> tuple[int, int, int, int]:
    """Raises for the first wrong number; returns the integers."""
    n_fft = whole_number(n_fft, "n_fft", 1)
    hop_length = whole_number(hop_length, "hop_length", 1)
    win_length = whole_number(win_length, "win_length", 1)
    if not hop_length <= win_length <= n_fft:
        raise ValueError(
            "hop_length, win_length and n_fft must not fall, "
            f"got hop_length {hop_length}, win_length {win_length}, n_fft {n_fft}"
        )
    if not 0 < power < math.inf:
        raise ValueError(f"power must be positive and finite, got {power}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    return n_fft, hop_length, win_length, whole_number(n_iter, "n_iter", 0)


def _check_tensors(
    specgram: Tensor, window: Tensor, n_fft: int, hop_length: int, win_length: int, n_iter: int, length: int | None
) -> int:
    """The samples of the result."""
    for name, tensor in (("specgram", specgram), ("window", window)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must have a real floating dtype, got {tensor.dtype}")
    if window.device != specgram.device:
        raise ValueError(f"window must be on the device of specgram, got {window.device} and {specgram.device}")
    if window.shape != (win_length,):
        raise ValueError(f"window must have the shape (win_length = {win_length}), got {list(window.shape)}")
    if specgram.dim() < 2 or specgram.shape[-2] != n_fft // 2 + 1:
        raise ValueError(
            f"specgram must have the shape (..., n_fft // 2 + 1 = {n_fft // 2 + 1}, frames), got {list(specgram.shape)}"
        )
    frames = specgram.shape[-1]
    shortest = _shortest(frames, n_fft, hop_length)
    least = n_fft // 2 if n_iter else 0  # a reflection needs one sample more
    samples = shortest if length is None else whole_number(length, "length", 1)
    if not shortest <= samples < shortest + hop_length:
        raise ValueError(
            f"length must have the {frames} frames of specgram: {shortest} to {shortest + hop_length - 1}, got {length}"
        )
    if samples <= least:
        needed = 2 + least // hop_length
        raise ValueError(f"specgram must have at least {needed} frames of hop_length {hop_length}, got {frames}")
    return samples


def _check_phase(phase: Tensor, specgram: Tensor) -> Tensor:
    if not phase.is_floating_point():
        raise TypeError(f"init_phase must be real, in radians, got {phase.dtype}")
    if phase.device != specgram.device:
        raise ValueError(f"init_phase must be on the device of specgram, got {phase.device} and {specgram.device}")
    try:
        return phase.expand(specgram.shape)
    except RuntimeError:
        raise ValueError(
            f"init_phase must broadcast to the shape of specgram, got {list(phase.shape)} and {list(specgram.shape)}"
        ) from None


def _shortest(frames: int, n_fft: int, hop_length: int) -> int:
    """The fewest samples that have these frames, centred and reflected."""
    return (frames - 1) * hop_length + n_fft % 2


def _root(specgram: Tensor, power: float) -> Tensor:
    """specgram^(1/power), whose derivative is 0 where specgram is."""
    if power <= 1:  # no derivative is infinite
        return specgram if power == 1 else specgram.pow(1 / power)
    zero = specgram == 0
    return specgram.masked_fill(zero, 1).pow(1 / power).masked_fill(zero, 0)


def _overlap_add(frames: Tensor, hop_length: int, begin: int, samples: int) -> Tensor:
    """Sums frames (..., frames, n_fft), each hop_length after the one before: samples of the sum from `begin` on."""
    pieces = -(-frames.shape[-1] // hop_length)
    blocks = F.pad(frames, (0, pieces * hop_length - frames.shape[-1])).reshape(*frames.shape[:-1], pieces, hop_length)
    total = F.pad(blocks[..., 0, :], (0, 0, 0, pieces - 1))
    for piece in range(1, pieces):
        total = total + F.pad(blocks[..., piece, :], (0, 0, piece, pieces - 1 - piece))
    signal = total.flatten(-2)
    return F.pad(signal, (0, max(0, begin + samples - signal.shape[-1])))[..., begin : begin + samples]
