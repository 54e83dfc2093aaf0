"""Modules between spectrograms and mel spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_signal
from torch_iir.functional._mel import melscale_fbanks


class MelScale(torch.nn.Module):
    r"""Turns a spectrogram into a mel spectrogram, by triangles that are evenly spaced in mels.

    .. math::
        M_{i,t} = \sum_k F_{k,i} S_{k,t}

    F is :func:`torch_iir.functional.melscale_fbanks`, kept as the buffer ``fb``, (n_stft, n_mels).

    Args:
        n_mels: number of triangles. Default: 128.
        sample_rate: in Hz. Default: 16000.
        f_min: where the first triangle begins, in Hz. Default: 0.
        f_max: where the last one ends, in Hz. Default: None, half the sample rate.
        n_stft: number of frequencies, n_fft // 2 + 1. Default: 201.
        norm: None, all triangles have height 1; or ``"slaney"``, area 1. Default: None.
        mel_scale: ``"htk"`` or ``"slaney"``. Default: ``"htk"``.

    Shape:
        specgram (..., n_stft, time) to (..., n_mels, time), contiguous, of the dtype of specgram. The sums are computed
        in the wider dtype of specgram and ``fb``: a spectrogram in half precision needs no module in half precision.

    Raises:
        TypeError: specgram is not numeric, or complex.
        ValueError: a number is out of range, or a name unknown; specgram has not n_stft frequencies, or is on another
            device than the module.

    Note:
        As ``torchaudio.transforms.MelScale``, with the same buffer in its ``state_dict``. torchaudio demands that
        specgram has the dtype of ``fb``, returns a transposed view, and makes NaN of ``f_max=0.0``, an error here.

    Example:
        >>> import torch
        >>> from torch_iir.transforms import MelScale
        >>> spectrogram = torch.rand(2, 513, 100)
        >>> MelScale(80, sample_rate=16000, n_stft=513)(spectrogram).shape
        torch.Size([2, 80, 100])
    """

    fb: Tensor

    def __init__(
        self,
        n_mels: int = 128,
        sample_rate: float = 16000,
        f_min: float = 0.0,
        f_max: float | None = None,
        n_stft: int = 201,
        norm: str | None = None,
        mel_scale: str = "htk",
    ) -> None:
        super().__init__()
        self.n_mels, self.sample_rate = n_mels, sample_rate
        self.f_min, self.f_max = f_min, sample_rate / 2 if f_max is None else f_max
        self.norm, self.mel_scale = norm, mel_scale
        self.register_buffer("fb", melscale_fbanks(n_stft, f_min, self.f_max, n_mels, sample_rate, norm, mel_scale))

    def forward(self, specgram: ArrayLike) -> Tensor:
        specgram = as_signal(specgram, "specgram", self.fb)
        if specgram.is_complex():
            raise TypeError(f"specgram must be real, magnitudes or powers, got {specgram.dtype}")
        if specgram.dim() < 2 or specgram.shape[-2] != self.fb.shape[0]:
            raise ValueError(
                f"specgram must have the shape (..., n_stft = {self.fb.shape[0]}, time), got {list(specgram.shape)}"
            )
        if specgram.device != self.fb.device:
            raise ValueError(
                f"specgram must be on the device of the module, got {specgram.device} and {self.fb.device}"
            )
        dtype = torch.promote_types(specgram.dtype, self.fb.dtype)
        return torch.matmul(self.fb.mT.to(dtype), specgram.to(dtype)).to(specgram.dtype).contiguous()

    def extra_repr(self) -> str:
        names = f"norm={self.norm!r}, mel_scale={self.mel_scale!r}"
        return f"{self.n_mels}, sample_rate={self.sample_rate:g}, f_min={self.f_min:g}, f_max={self.f_max:g}, {names}"
