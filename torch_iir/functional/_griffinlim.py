"""Griffin and Lim's iterations with torchaudio's signature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from torch_iir._arguments import ArrayLike, as_signal, broadcast_shape, whole_number
from torch_iir._registration import concrete

_BLOCK = 1 << 17  # samples of the frames that a thread transforms at a time


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
    check_window(window, win_length, "specgram", S)
    if S.dim() < 2 or S.shape[-2] != n_fft // 2 + 1:
        raise ValueError(
            f"specgram must have the shape (..., n_fft // 2 + 1 = {n_fft // 2 + 1}, frames), got {list(S.shape)}"
        )
    samples = check_length(length, "specgram", S.shape[-1], n_fft, hop_length, n_iter)
    phase = None
    if init_phase is not None:
        phase = check_phase(as_signal(init_phase, "init_phase", S), "specgram", S, S.shape)
    dtype = torch.promote_types(S.dtype, torch.float32)
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    if 0 in S.shape[:-2]:  # not every library of FFTs takes an empty batch
        return S.sum((-2, -1)).unsqueeze(-1).expand((*S.shape[:-2], samples))
    blockwise = S.device.type == "cpu" and _only_values(S, window, phase)
    # (..., frames, frequencies): every frame lies in one piece
    magnitude = _root(S.mT.to(dtype), power, not blockwise).contiguous()
    if phase is not None:
        angle = phase.mT.to(dtype)
        unit = torch.polar(torch.ones_like(angle), angle)
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
    # Only phases are taken from what is analysed. So much louder, no bin is subnormal: its sgn would be infinite.
    analysis = padded * (2 / torch.finfo(dtype).eps)
    # t_n − α / (1 + α) t_{n−1} is the transform of that difference of signals, which are smaller than spectrograms.
    lag = momentum / (1 + momentum)

    if blockwise:
        return _in_blocks(magnitude, unit, padded, analysis, gain, hop_length, n_iter, lag).to(S.dtype)
    magnitude = magnitude.to(complex_dtype)  # the product would convert it every time

    def inverse(spectrum: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum, n_fft) * padded
        return _overlap_add(frames, hop_length, begin, samples) * gain

    previous = None
    spectrum = magnitude * unit
    for _ in range(n_iter):
        y = inverse(spectrum)
        y = torch.cat([y[..., 1 : begin + 1].flip(-1), y, y[..., -begin - 1 : -1].flip(-1)], -1)
        ahead = y if previous is None else y.sub(previous, alpha=lag)
        spectrum = magnitude * torch.fft.rfft(ahead.unfold(-1, n_fft, hop_length) * analysis).sgn()
        previous = y
    return inverse(spectrum).to(S.dtype)


def _only_values(*tensors: Tensor | None) -> bool:
    """True when nothing is traced or differentiated."""
    given = [tensor for tensor in tensors if tensor is not None]
    if not concrete(*given) or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)):
        return False
    return all(unpack_dual(tensor).tangent is None for tensor in given)  # type: ignore[no-untyped-call]


def _in_blocks(
    magnitude: Tensor,
    unit: Tensor,
    window: Tensor,
    analysis: Tensor,
    gain: Tensor,
    hop_length: int,
    n_iter: int,
    lag: float,
) -> Tensor:
    """The iterations in place, from so few frames to the next that their spectra stay in the cache.

    magnitude is (..., frames, frequencies), and unit broadcasts with it.
    """
    frames, n_fft, samples = magnitude.shape[-2], window.shape[0], gain.shape[0]
    begin, corners = n_fft // 2, range(0, n_fft, hop_length)
    units = unit.expand(magnitude.shape).reshape(-1, *magnitude.shape[-2:])
    magnitudes = magnitude.reshape(units.shape)
    block = max(_BLOCK * torch.get_num_threads() // n_fft, 4 * len(corners))  # the sum is a call for every corner
    rows = min(max(1, block // frames), len(units))
    hops = max(frames - 1 + len(corners), -(-(begin + samples) // hop_length))
    result = gain.new_empty((len(units), samples))
    for row in range(0, len(units), rows):
        at, m, y = units[row : row + rows], magnitudes[row : row + rows], result[row : row + rows]
        total = y.new_zeros((len(y), hops, hop_length))
        before, now, ahead = (y.new_zeros((len(y), samples + 2 * begin)) for _ in range(3))
        for step in range(n_iter + 1):
            for first in range(0, frames, block):
                some = slice(first, first + block)
                if step:
                    spectrum = torch.fft.rfft(ahead.unfold(-1, n_fft, hop_length)[:, some] * analysis)
                    spectrum = spectrum.sgn_().mul_(m[:, some])
                else:
                    spectrum = at[:, some] * m[:, some]
                segments = torch.fft.irfft(spectrum, n_fft)
                for hop, corner in enumerate(corners, first):
                    piece, slope = (t[..., corner : corner + hop_length] for t in (segments, window))
                    total[:, hop : hop + piece.shape[1], : len(slope)].addcmul_(piece, slope)
            signal = total.flatten(1)[:, begin : begin + samples]
            if step == n_iter:
                torch.mul(signal, gain, out=y)
                break
            torch.mul(signal, gain, out=now[:, begin : begin + samples])
            now[:, :begin] = now[:, begin + 1 : 2 * begin + 1].flip(-1)
            now[:, begin + samples :] = now[:, samples - 1 : begin + samples - 1].flip(-1)
            torch.sub(now, before, alpha=lag, out=ahead)
            before, now = now, before
            total.zero_()
    return result.reshape(*magnitude.shape[:-2], samples)


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


def check_window(window: Tensor, win_length: int, name: str, like: Tensor) -> None:
    """Raises unless it fits `like`, the argument of this name."""
    for argument, tensor in ((name, like), ("window", window)):
        if not tensor.is_floating_point():
            raise TypeError(f"{argument} must have a real floating dtype, got {tensor.dtype}")
    if window.device != like.device:
        raise ValueError(f"window must be on the device of {name}, got {window.device} and {like.device}")
    if window.shape != (win_length,):
        raise ValueError(f"window must have the shape (win_length = {win_length}), got {list(window.shape)}")


def check_length(length: int | None, name: str, frames: int, n_fft: int, hop_length: int, n_iter: int) -> int:
    """The samples of the result from the argument of this name, which has so many frames."""
    shortest = _shortest(frames, n_fft, hop_length)
    least = n_fft // 2 if n_iter else 0  # a reflection needs one sample more
    samples = shortest if length is None else whole_number(length, "length", 1)
    if not shortest <= samples < shortest + hop_length:
        raise ValueError(
            f"length must have the {frames} frames of {name}: {shortest} to {shortest + hop_length - 1}, got {length}"
        )
    if samples <= least:
        needed = 2 + least // hop_length
        raise ValueError(f"{name} must have at least {needed} frames of hop_length {hop_length}, got {frames}")
    return samples


def check_phase(phase: Tensor, name: str, like: Tensor, shape: Sequence[int]) -> Tensor:
    """The phase, expanded to the shape of a spectrogram."""
    if not phase.is_floating_point():
        raise TypeError(f"init_phase must be real, in radians, got {phase.dtype}")
    if phase.device != like.device:
        raise ValueError(f"init_phase must be on the device of {name}, got {phase.device} and {like.device}")
    if broadcast_shape(phase.shape, shape) != tuple(shape):
        raise ValueError(
            f"init_phase must broadcast to the shape of the spectrogram, got {list(phase.shape)} and {list(shape)}"
        )
    return phase.expand(shape)


def _shortest(frames: int, n_fft: int, hop_length: int) -> int:
    """The fewest samples that have these frames, centred and reflected."""
    return (frames - 1) * hop_length + n_fft % 2


def _root(specgram: Tensor, power: float, differentiable: bool) -> Tensor:
    """specgram^(1/power), whose derivative is 0 where specgram is."""
    if power == 1:
        return specgram
    if power < 1 or not differentiable:  # no derivative is infinite
        return specgram.pow(1 / power)
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
