"""From a mel spectrogram to a signal in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal
from torch_iir.functional._griffinlim import check_griffinlim, check_length, check_phase, check_window, griffinlim
from torch_iir.functional._mel import melscale_fbanks
from torch_iir.transforms._mel import check_inversion, inverted


def mel_to_audio(
    mel: ArrayLike,
    *,
    sample_rate: float,
    n_fft: int,
    win_length: int | None = None,
    hop_length: int | None = None,
    window: Tensor | None = None,
    power: float = 2.0,
    f_min: float = 0.0,
    f_max: float | None = None,
    norm: str | None = None,
    mel_scale: str = "htk",
    n_iter: int = 32,
    momentum: float = 0.99,
    length: int | None = None,
    rand_init: bool = True,
    init_phase: ArrayLike | None = None,
    solver: str = "auto",
    tie_break: str = "min_norm",
    tol: float | None = None,
) -> Tensor:
    r"""A signal whose mel spectrogram is close to a given one.

    .. math::
        y = \mathrm{GriffinLim}(S), \qquad S = \mathrm{InverseMelScale}(M)

    It is :class:`torch_iir.transforms.InverseMelScale` and then :func:`torch_iir.functional.griffinlim`. How the mel
    spectrogram was made has to be said; the defaults are those of torchaudio.

    Args:
        mel: M, (..., n_mels, frames), not negative.
        sample_rate: of the signal, in Hz.
        n_fft: samples of a transform.
        win_length: samples of the window. Default: None, n_fft.
        hop_length: samples from frame to frame. Default: None, win_length // 2.
        window: (win_length). Default: None, `torch.hann_window`.
        power: exponent of the spectrogram: 1 for magnitudes, 2 for powers. Default: 2.
        f_min: where the first triangle begins, in Hz. Default: 0.
        f_max: where the last one ends, in Hz. Default: None, half the sample rate.
        norm: None, all triangles have height 1; or ``"slaney"``, area 1. Default: None.
        mel_scale: ``"htk"`` or ``"slaney"``. Default: ``"htk"``.
        n_iter: number of iterations. Default: 32.
        momentum: of the iterations, in [0, 1). Default: 0.99.
        length: samples of the result. Default: None, the fewest that have the frames of mel.
        rand_init: whether to start from random phases, which `torch.manual_seed` governs. Default: True.
        init_phase: phases to start from instead, in radians; they broadcast to (..., n_fft // 2 + 1, frames). Default:
            None.
        solver, tie_break, tol: those of :class:`torch_iir.transforms.InverseMelScale`.

    Returns:
        The signal, (..., length), contiguous, of the dtype of mel. Half precision is computed in float32.

    Raises:
        TypeError, ValueError: as the module and the function.

    Warns:
        RuntimeWarning: frames could not be inverted, and how many.

    Note:
        The defaults are those of ``torchaudio.transforms.MelSpectrogram``, ``InverseMelScale`` and ``GriffinLim``, but
        for sample_rate and n_fft, which have none here. For a mel spectrogram of librosa's: ``norm="slaney",
        mel_scale="slaney", hop_length=n_fft // 4``, which are the defaults of ``librosa.feature.inverse.mel_to_audio``.
        Its ``sr``, ``fmin``, ``fmax`` and ``htk=True`` are sample_rate, f_min, f_max and ``mel_scale="htk"`` here. It
        extends the signal with zeros at its ends, not with its reflection: the first and the last frames differ.

        ``tie_break="entropy"`` is the better start, but the iterations make up for much of that: the log spectra of
        speech stay closer by 0.2 to 1 dB, those of music may be closer with either.

        Differentiable in mel and window, backwards and forwards.

    Example:
        >>> import torch
        >>> import torch_iir
        >>> from torch_iir.transforms import MelScale
        >>> tone = torch.sin(0.3 * torch.arange(8000))
        >>> window = torch.hann_window(512)
        >>> power = torch.stft(tone, 512, 128, window=window, return_complex=True).abs().square()
        >>> mel = MelScale(40, sample_rate=16000, n_stft=257)(power)
        >>> y = torch_iir.mel_to_audio(mel, sample_rate=16000, n_fft=512, hop_length=128, length=8000)
        >>> y.shape
        torch.Size([8000])
    """
    win_length = n_fft if win_length is None else win_length
    hop_length = win_length // 2 if hop_length is None else hop_length
    n_fft, hop_length, win_length, n_iter = check_griffinlim(n_fft, hop_length, win_length, power, n_iter, momentum)
    check_inversion(solver, tie_break, tol)
    M = as_signal(mel, "mel", window)
    if M.is_complex():
        raise TypeError(f"mel must be real, magnitudes or powers, got {M.dtype}")
    if M.dim() < 2 or M.shape[-2] == 0:
        raise ValueError(f"mel must have the shape (..., n_mels, frames), got {list(M.shape)}")
    dtype = torch.promote_types(M.dtype, torch.float32)
    if window is None:
        window = torch.hann_window(win_length, dtype=dtype, device=M.device)
    check_window(window, win_length, "mel", M)
    n_stft, frames = n_fft // 2 + 1, M.shape[-1]
    length = check_length(length, "mel", frames, n_fft, hop_length, n_iter)
    if init_phase is not None:
        init_phase = check_phase(as_signal(init_phase, "init_phase", M), "mel", M, (*M.shape[:-2], n_stft, frames))
    f_max = sample_rate / 2 if f_max is None else f_max
    fb = melscale_fbanks(n_stft, f_min, f_max, M.shape[-2], sample_rate, norm, mel_scale).to(M.device)
    S, _ = inverted(M.to(dtype), fb, solver, tie_break, tol, names=("mel", "fb"), stacklevel=2)
    y = griffinlim(
        S,
        window,
        n_fft,
        hop_length,
        win_length,
        power,
        n_iter,
        momentum,
        length,
        rand_init,
        init_phase=init_phase,
    )
    return y.to(M.dtype)
