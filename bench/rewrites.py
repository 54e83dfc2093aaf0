"""What each rewrite of the backend gains: training steps of small models that it fires in, against Inductor alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan

import torch_iir
from bench.backend import PLAIN, Model, Training
from bench.compare import Array
from bench.filters import noise, stable_filter
from bench.question import Figure, Question, Target

ROWS, SAMPLES = 32, 16_000
STEPS = 1_000  # of a scan: Inductor alone takes them one by one


def figures(quick: bool) -> Iterator[Figure]:
    models = list(MODELS.items())
    for name, (written, taps, order, samples) in models[-1:] if quick else models:  # compiled twice, each of them
        x = noise((ROWS, samples // 8 if quick else samples))
        b, a = stable_filter(order)
        b = decaying(taps) if taps else b
        training = Training.of(f"{name}, [{ROWS}, {samples}]", written, torch_iir.functional, b, a, x)
        ours = training.call("torch_iir", torch_iir.compile(training.model, fullgraph=True))
        plain = training.call("Inductor alone", torch.compile(training.model, backend=PLAIN, fullgraph=True))
        moved = 3 * training.signals[0].nbytes + 2 * training.g.nbytes
        yield Figure(training.name, (ours, plain), training.g.numel(), moved, Target("speedup"))


def decaying(taps: int) -> Array:
    return noise((taps,))[0] * 0.5 ** (torch.arange(taps).numpy() * 8 / taps) / taps**0.5


def reversal(library: Any) -> Model:
    return lambda x, b, a: library.lfilter(x.flip(-1), a, b, clamp=False).flip(-1)


def gain(library: Any) -> Model:
    return lambda x, b, a: 0.5 * library.lfilter(x, a, b, clamp=False)


def causal(x: Tensor, taps: Tensor) -> Tensor:
    """Convolved by conv1d."""
    length = taps.shape[0]
    return F.conv1d(F.pad(x[:, None], (length - 1, 0)), taps.flip(-1)[None, None])[:, 0]


def conv1d_all_pole(library: Any) -> Model:
    return lambda x, b, a: library.lfilter(causal(x, b), a, torch.ones(1), clamp=False)


def fir(_: Any) -> Model:
    return lambda x, b, a: causal(x, b) * a[0]


def spectral_product(_: Any) -> Model:
    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        n = x.shape[-1] + b.shape[-1]
        spectrum = torch.fft.rfft(x, n) * torch.fft.rfft(b, n)
        return torch.fft.irfft(spectrum, n)[..., : x.shape[-1]] * a[0]

    return model


def spectral_quotient(_: Any) -> Model:
    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        n = 2 * x.shape[-1]
        spectrum = torch.fft.rfft(x, n) * (torch.fft.rfft(b, n) / torch.fft.rfft(a, n))
        return torch.fft.irfft(spectrum, n)[..., : x.shape[-1]]

    return model


def recurrence(_: Any) -> Model:
    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        # Compiled by Inductor alone, scan has wrong gradients of what its body closes over (torch 2.13).
        pole, drive = -a[1].detach(), (b[0] * x).t()

        def body(h: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
            h = pole * h + sample
            return h, h.clone()

        y: Tensor = scan(body, torch.zeros_like(drive[0]), drive)[1]
        return y.t().tanh() * a[0]

    return model


# The rewrite and what it does; how the model is written, its taps (0: those of the filter), order and samples.
MODELS: dict[str, tuple[Callable[[Any], Model], int, int, int]] = {
    "reversal: filter between flips, order 4": (reversal, 0, 4, SAMPLES),
    "gain: filter times a number, order 2": (gain, 0, 2, SAMPLES),
    "conv1d_all_pole: conv1d of 32 taps, then order 4": (conv1d_all_pole, 32, 4, SAMPLES),
    "fir: conv1d of 512 taps": (fir, 512, 2, SAMPLES),
    "spectral_product: irfft(rfft(x)·rfft(h)), 512 taps": (spectral_product, 512, 2, SAMPLES),
    "spectral_product: irfft(rfft(x)·rfft(b)/rfft(a)), order 2": (spectral_quotient, 0, 2, SAMPLES),
    "scan: linear in the carry": (recurrence, 0, 2, STEPS),
}


QUESTION = Question("algorithms", figures)
