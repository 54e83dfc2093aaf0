"""Convolution with long impulse responses, against what is written with torch.fft by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import noise
from bench.machine import SEED
from bench.measure import INPUTS, Call
from bench.question import Figure, Question, Target

# rows, samples, taps
CASES = ((1, 262_144, 4_096), (32, 16_000, 1_024))

PEAK = 6  # of noise, over its root mean square


def figures(quick: bool) -> Iterator[Figure]:
    for rows, samples, taps in CASES:
        job = Convolution.of(rows, samples // 64, taps // 64) if quick else Convolution.of(rows, samples, taps)
        name = f"fftconvolve, {taps} taps, float32, [{rows}, {samples}]"
        read, written = job.signals[0].nbytes + job.taps.nbytes, job.g.nbytes
        calls = (job.ours(), job.by_hand())
        yield Figure(name, calls, job.g.numel(), read + written, Target("speedup"), job.beside())
        # Forwards the inputs and y; backwards these and g instead of y, and the gradients of the inputs.
        moved = 3 * read + 2 * written
        calls = (job.ours(backward=True), job.by_hand(backward=True))
        yield Figure(f"{name}, forward + backward (x, h)", calls, job.g.numel(), moved, Target("speedup"))


@dataclass(frozen=True)
class Convolution:
    """Signals [rows, T], each with the same taps [K]; whole convolutions, [rows, T + K − 1]."""

    signals: list[Array]
    taps: Array

    @classmethod
    def of(cls, rows: int, samples: int, taps: int) -> Convolution:
        """A room: noise that decays."""
        response = np.random.default_rng(SEED).standard_normal(taps) * np.exp(-6 * np.arange(taps) / taps)
        return cls([x.astype(np.float32) for x in noise((rows, samples))], response.astype(np.float32))

    @property
    def length(self) -> int:
        return self.signals[0].shape[-1] + len(self.taps) - 1

    @cached_property
    def g(self) -> Tensor:
        """What the gradients are of: Σ g y."""
        return torch.from_numpy(noise((len(self.signals[0]), self.length))[-1].astype(np.float32))

    def ours(self, backward: bool = False) -> Call:
        return self.call("torch_iir", lambda x, h: torch_iir.signal.fftconvolve(x, h, axes=-1), backward)

    def by_hand(self, backward: bool = False) -> Call:
        n_fft = scipy.fft.next_fast_len(self.length, real=True)

        def convolved(x: Tensor, h: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(x, n_fft) * torch.fft.rfft(h, n_fft), n_fft)[..., : self.length]

        return self.call("torch.fft", convolved, backward)

    def beside(self) -> tuple[Call, ...]:
        """scipy's two, and torchaudio where that is installed."""
        h, signals = self.taps[None], self.signals

        def scipy_call(name: str) -> Call:
            function = getattr(scipy.signal, name)
            return Call(
                f"scipy {name}", lambda n: function(signals[n % INPUTS], h, axes=-1), partial(self.reference, False)
            )

        calls = (scipy_call("fftconvolve"), scipy_call("oaconvolve"))
        if find_spec("torchaudio") is None:
            return calls
        functional = import_module("torchaudio.functional")
        return *calls, self.call("torchaudio", lambda x, h: functional.fftconvolve(x, h[None].expand(len(x), -1)))

    def call(self, name: str, function: Callable[[Tensor, Tensor], Any], backward: bool = False) -> Call:
        xs = [torch.from_numpy(x).requires_grad_(backward) for x in self.signals]
        h = torch.from_numpy(self.taps).requires_grad_(backward)

        def forwards(n: int) -> Tensor:
            y: Tensor = function(xs[n % INPUTS], h)
            return y

        def forwards_and_backwards(n: int) -> tuple[Tensor, ...]:
            x = xs[n % INPUTS]
            y: Tensor = function(x, h)
            return y, *torch.autograd.grad(y, (x, h), self.g)

        return Call(name, forwards_and_backwards if backward else forwards, partial(self.reference, backward))

    def reference(self, backward: bool, n: int) -> Expected:
        """scipy's, in double. What FFTs round is relative to the norms of what they take, and spreads like noise."""
        x, h, g = self.signals[n].astype(np.float64), self.taps.astype(np.float64), self.g.numpy().astype(np.float64)
        stages = 3 * np.log2(2 * self.length)  # of three FFTs
        peak = PEAK * stages / np.sqrt(self.length)
        norm = {name: np.sqrt((u**2).sum(-1)) for name, u in (("x", x), ("h", h), ("g", g))}
        y = scipy.signal.fftconvolve(x, h[None], axes=-1)
        y_size = float(peak * (norm["x"] * norm["h"]).max())
        if not backward:
            return Expected((y,), (y_size,), np.float32)
        gx = scipy.signal.fftconvolve(g, h[None, ::-1], mode="valid", axes=-1)
        gh = scipy.signal.fftconvolve(g, x[:, ::-1], mode="valid", axes=-1).sum(0)
        gx_size, gh_size = (norm["g"] * norm["h"]).max(), (norm["g"] * norm["x"]).sum()
        return Expected((y, gx, gh), (y_size, float(peak * gx_size), float(peak * gh_size)), np.float32)


QUESTION = Question("speed", figures)
