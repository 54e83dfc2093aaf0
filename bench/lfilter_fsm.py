"""Frequency-sampled cascades, forwards and backwards, against the usual formulation in complex tensors.

That is an FFT of the signal and of each section's coefficients, the product over the sections, and an FFT back; each
section's response is held in memory for the gradient. Both sample the response at the same 2 T points. Once, both are
compiled: of complex numbers torch.compile makes calls of torch's own operators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import noise, stable_sections
from bench.machine import SEED
from bench.measure import INPUTS, Call, peak_bytes
from bench.question import Figure, Question, Target

RATE = 16_000
PEAK = 6  # of noise, over its root mean square


def figures(quick: bool) -> Iterator[Figure]:
    samples = 500 if quick else 16_000
    job = Sampled.of((32, samples), equaliser(32, 8))
    name = "sosfilt_fsm, an equaliser of 8 sections for each row, float32, [32, 16000]"
    yield job.figure(f"{name}, forward + backward (x, sos)")
    # Inductor takes long to compile, and there is nothing for it to fuse that a short signal would show.
    yield job.figure(f"{name}, forward + backward (x, sos), compiled", backend="aot_eager" if quick else "inductor")
    bank = stable_sections(256).reshape(128, 2, 6)[:: 32 if quick else 1]
    job = Sampled.of((4, 1, samples), bank)
    yield job.figure("sosfilt_fsm, 128 filters of 2 sections, float32, [4, 16000], forward + backward (x, sos)")


def equaliser(rows: int, sections: int) -> Array:
    """(rows, sections, 6): peaks of up to 6 dB up and down, at frequencies from 200 Hz to 7 kHz."""
    generator = np.random.default_rng(SEED)
    frequencies = np.geomspace(200, 7_000, sections) * generator.uniform(0.95, 1.05, (rows, sections))
    gains, qs = generator.uniform(-6, 6, (rows, sections)), generator.uniform(0.7, 1.4, (rows, sections))
    return torch_iir.design.peaking(RATE, *map(torch.from_numpy, (frequencies, gains, qs))).squeeze(-2).numpy()


@dataclass(frozen=True)
class Sampled:
    """Signals (…, T) and the sections (…, S, 6) they go through, whose leading dimensions broadcast."""

    signals: Sequence[Array]
    sos: Array

    @classmethod
    def of(cls, shape: tuple[int, ...], sos: Array) -> Sampled:
        return cls([x.astype(np.float32) for x in noise(shape)], sos.astype(np.float32))

    @property
    def samples(self) -> int:
        return self.signals[0].shape[-1]

    @property
    def n_fft(self) -> int:
        return 2 * self.samples

    @cached_property
    def g(self) -> Tensor:
        """What the gradients are of: Σ g y."""
        shape = (*np.broadcast_shapes(self.signals[0].shape[:-1], self.sos.shape[:-2]), self.samples)
        return torch.from_numpy(np.random.default_rng(SEED + 1).standard_normal(shape).astype(np.float32))

    @property
    def bytes_moved(self) -> int:
        """Forwards x and y; backwards g, x and the gradient of x."""
        return 3 * self.signals[0].nbytes + 2 * self.g.nbytes

    def figure(self, name: str, backend: str | None = None) -> Figure:
        calls = self.ours(n_fft=self.n_fft, backend=backend), self.by_hand(backend)
        peaks = [peak_bytes(call) for call in calls]
        note = f"peak memory {' and '.join('?' if peak is None else f'{peak / 1e6:.3g}' for peak in peaks)} MB"
        return Figure(name, calls, self.g.numel(), self.bytes_moved, Target("speedup"), note=note)

    def ours(self, name: str = "torch_iir", n_fft: int | None = None, **options: Any) -> Call:
        return self.call(name, lambda x, sos: torch_iir.signal.sosfilt_fsm(sos, x, n_fft), **options)

    def recurrence(self, name: str, **options: Any) -> Call:
        return self.call(name, lambda x, sos: torch_iir.signal.sosfilt(sos, x), **options)

    def by_hand(self, backend: str | None = None) -> Call:
        return self.call("torch.fft", partial(by_hand, n_fft=self.n_fft), backend)

    def call(
        self, name: str, function: Callable[[Tensor, Tensor], Tensor], backend: str | None = None, **options: Any
    ) -> Call:
        xs = [torch.from_numpy(x).requires_grad_() for x in self.signals]
        sos = torch.from_numpy(self.sos).requires_grad_()
        if backend is not None:
            function = torch.compile(function, fullgraph=True, backend=backend)

        def run(n: int) -> tuple[Tensor, ...]:
            x = xs[n % INPUTS]
            y = function(x, sos)
            return y, *torch.autograd.grad(y, (x, sos), self.g)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of complex numbers, where they are compiled
            if backend is not None:
                run(0)
        return Call(name, run, lambda n: self.references[n % INPUTS], **options)

    @cached_property
    def references(self) -> list[Expected]:
        return [self.reference(x) for x in self.signals]

    def reference(self, signal: Array) -> Expected:
        """By hand in double.

        Rounding is relative to what an FFT takes and, in a section's polynomial, to the sum of its coefficients'
        magnitudes. It is noise: one bin rounds independently of another, and what an FFT makes of that spreads evenly.
        """
        arrays = signal, self.sos, self.g.numpy()
        x, sos, g = (torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in arrays)
        y = by_hand(x, sos, self.n_fft)
        values = y, *torch.autograd.grad(y, (x, sos), g)
        with torch.no_grad():
            sections = sos.unflatten(-1, (2, 3))
            spectra = torch.fft.rfft(sections, self.n_fft).abs()
            numerators, denominators = spectra.unbind(-2)
            roundings = 2 * log2(self.n_fft) + (sections.abs().sum(-1)[..., None] / spectra).sum((-3, -2))
            errors = roundings * (numerators / denominators).prod(-2)  # of a response, (…, bins)
            into, back = (torch.fft.rfft(u, self.n_fft).abs() for u in (x, g))
            of_y, of_x = (PEAK * norm(u * errors) / self.samples for u in (into, back))
            of_sos = norm(into * back * errors / spectra.amin((-3, -2))) / self.samples
            # What several filters or rows share is summed.
            sums = of_y, of_x.sum_to_size(x.shape[:-1]), of_sos.sum_to_size(sos.shape[:-2])
            amplification = tuple(float(each.max()) for each in sums)
        return Expected(tuple(value.detach().numpy() for value in values), amplification, np.float32)


def by_hand(x: Tensor, sos: Tensor, n_fft: int) -> Tensor:
    spectra = torch.fft.rfft(sos.unflatten(-1, (2, 3)), n_fft)
    numerator, denominator = spectra.prod(-3).unbind(-2)
    return torch.fft.irfft(torch.fft.rfft(x, n_fft) * (numerator / denominator), n_fft)[..., : x.shape[-1]]


def norm(values: Tensor) -> Tensor:
    """Of the last dimension."""
    return torch.linalg.vector_norm(values, dim=-1)


QUESTION = Question("speed", figures)
