"""How good the inversion of a mel spectrogram is, frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

DYNAMIC_RANGE = 80.0  # dB below the loudest: what is softer counts as silence


def kkt_error(A: Tensor, B: Tensor, X: Tensor) -> Tensor:
    """How far each column of X, (n, k), is from the best non-negative solution of A X = B, in double.

    max |min(L x, Aᵀ(A x − b))| / max Aᵀ|b|, with L the largest eigenvalue of AᵀA, for A ≥ 0. It is 0 where the
    conditions of Karush, Kuhn and Tucker hold. A column b = 0 counts absolutely.
    """
    A, B, X = A.double(), B.double(), X.double()
    scale = (A.mT @ B.abs()).amax(-2)
    gradient = A.mT @ (A @ X - B)
    error = torch.minimum(torch.linalg.matrix_norm(A, 2) ** 2 * X, gradient).abs().amax(-2)
    return error / torch.where(scale == 0, 1, scale)


def residual(A: Tensor, B: Tensor, X: Tensor) -> float:
    """|A X − B| / |B|, in double."""
    A, B, X = A.double(), B.double(), X.double()
    return float(torch.linalg.norm(A @ X - B) / torch.linalg.norm(B))


def power_spectra(sound: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """(frequencies, frames), by a Hann window."""
    window = torch.hann_window(n_fft, dtype=sound.dtype)
    return torch.stft(sound, n_fft, hop_length, window=window, return_complex=True).abs().square()


def levels(power: Tensor, loudest: Tensor | float) -> Tensor:
    """Powers in dB of the loudest, from −DYNAMIC_RANGE on."""
    return (10 * (power.double() / loudest).log10()).clamp(min=-DYNAMIC_RANGE)


def log_spectral_distance(true: Tensor, found: Tensor) -> float:
    """The rms over frequencies of the difference in dB between power spectra (n, k), averaged over frames.

    Powers further than DYNAMIC_RANGE below the loudest of the true ones count as this, and frames that have only such
    do not count.
    """
    loudest = true.double().max()
    expected, actual = levels(true, loudest), levels(found, loudest)
    heard = expected.amax(0) > -DYNAMIC_RANGE
    return float((expected - actual)[:, heard].square().mean(0).sqrt().mean())
