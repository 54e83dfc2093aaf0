"""What one writes without torch_iir, for comparison.

Those of lfilter take (b, a, x) of one filter and one signal, those of all_pole_digital_filter its arguments (x, a,
frame_period) for one signal, those of InverseMelScale its filterbank and mel spectra.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor
from torch.nn.functional import pad


def lfilter_loop(b: Tensor, a: Tensor, x: Tensor) -> Tensor:
    """The transposed direct form II, sample by sample in torch operators; a and b have one length, a[..., 0] is 1.

    The only one that takes many filters and signals: leading dimensions broadcast.
    """
    b, a = b.to(x.dtype), a.to(x.dtype)
    state = x.new_zeros(b.shape[-1])  # one place more than the order: a zero moves in from behind
    y = []
    for sample in x.unsqueeze(-1).unbind(-2):
        output = state[..., :1] + b[..., :1] * sample
        state = pad((state + b * sample - a * output)[..., 1:], (0, 1))
        y.append(output)
    return torch.cat(y, -1)


class _ScipyLFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, a: Tensor, x: Tensor) -> Tensor:
        y = torch.from_numpy(scipy.signal.lfilter(b.detach().numpy(), a.detach().numpy(), x.detach().numpy()))
        ctx.save_for_backward(b, a, x, y)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # With v = (1/A)ᵀ g, filtered backwards in time: ∂/∂x = Bᵀ v, ∂/∂b_k = Σ v[t] x[t−k], ∂/∂a_k = −Σ v[t] y[t−k].
        b, a, x, y = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        v = scipy.signal.lfilter([1.0], a, gradients[0].numpy()[::-1])[::-1]
        of_b = np.array([v[k:] @ x[: len(x) - k] for k in range(len(b))])
        of_a = np.array([-(v[k:] @ y[: len(y) - k]) for k in range(len(a))])
        of_x = None
        if ctx.needs_input_grad[2]:
            of_x = torch.from_numpy(scipy.signal.lfilter(b, [1.0], v[::-1])[::-1].astype(x.dtype))
        return torch.from_numpy(of_b.astype(b.dtype)), torch.from_numpy(of_a.astype(a.dtype)), of_x


def lfilter_scipy(b: Tensor, a: Tensor, x: Tensor) -> Tensor:
    """scipy.signal.lfilter with hand-written gradients for b, a and x."""
    y: Tensor = _ScipyLFilter.apply(b, a, x)  # type: ignore[no-untyped-call]
    return y


def sosfilt_loop(sos: Tensor, x: Tensor) -> Tensor:
    """Section by section through lfilter_loop."""
    for section in sos.unbind(-2):
        x = lfilter_loop(section[..., :3], section[..., 3:], x)
    return x


def interpolated(a: Tensor, frame_period: int) -> Tensor:
    """(..., frames, K) to (..., frames · frame_period, K), linearly from frame to frame; the last one is held."""
    following = torch.cat([a[..., 1:, :], a[..., -1:, :]], -2)
    weight = torch.arange(frame_period, dtype=a.dtype) / frame_period
    return torch.lerp(a[..., None, :], following[..., None, :], weight[:, None]).flatten(-3, -2)


def all_pole_loop(x: Tensor, a: Tensor, frame_period: int) -> Tensor:
    """Sample by sample in torch operators, with coefficients that are interpolated before."""
    a = interpolated(a, frame_period).to(x.dtype)
    past = x.new_zeros(a.shape[-1] - 1)  # the newest first
    y: list[Tensor] = []
    for drive, coefficients in zip((a[:, 0] * x).unbind(), a[:, 1:].unbind(), strict=True):
        y.append(drive - coefficients @ past)
        past = torch.cat([y[-1][None], past[:-1]])
    return torch.stack(y)


def all_pole_torchlpc(x: Tensor, a: Tensor, frame_period: int) -> Tensor:
    """torchlpc's filter, with coefficients that are interpolated before."""
    a = interpolated(a, frame_period).to(x.dtype)
    y: Tensor = import_module("torchlpc").sample_wise_lpc((a[:, 0] * x)[None], a[None, :, 1:])[0]
    return y


def inverse_mel_lstsq(fb: Tensor, mel: Tensor) -> Tensor:
    """As torchaudio's InverseMelScale: the least squares solution, what is negative cut off.

    The driver is the one that torchaudio takes; where it fails, because mels depend on each other, the one that its
    message recommends.
    """
    try:
        x: Tensor = torch.linalg.lstsq(fb.mT, mel, driver="gels").solution
    except RuntimeError:
        x = torch.linalg.lstsq(fb.mT, mel, driver="gelsd").solution
    return x.relu()


def inverse_mel_librosa(fb: Tensor, mel: Tensor) -> Tensor:
    """librosa's non-negative least squares: L-BFGS-B, for blocks of frames at once."""
    return torch.from_numpy(import_module("librosa").util.nnls(fb.mT.numpy(), mel.numpy()))
