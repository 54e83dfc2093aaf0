"""Frequency responses of many cascades and their gradient, against the same in torch's own operators.

The spectra of the numerators and denominators are FFTs of the coefficients, padded with zeros; beside it, products of
the coefficients with a matrix of powers of z. Both hold the response of each section in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log2, sqrt

import numpy as np
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import stable_sections
from bench.machine import SEED
from bench.measure import INPUTS, Call, peaks
from bench.question import Figure, Question, Target

FILTERS, SECTIONS, ANGLES = 128, 8, 16_385


def figures(quick: bool) -> Iterator[Figure]:
    job = Cascades.of(4, 257) if quick else Cascades.of(FILTERS, ANGLES)
    name = f"freqz_sos, {FILTERS} × {SECTIONS} sections × {ANGLES} angles, float32"
    written = job.g.nbytes
    calls, beside = job.calls(backward=True)
    name_backward = f"{name}, forward + backward (sos)"
    # Forwards h; backwards its gradient.
    yield Figure(name_backward, calls, job.g.numel(), 2 * written, Target("speedup", 5, 10), beside, peaks(*calls))
    calls, beside = job.calls(backward=False)
    yield Figure(name, calls, job.g.numel(), written, Target("speedup"), beside)


@dataclass(frozen=True)
class Cascades:
    """Cascades (filters, SECTIONS, 6), for every run others, at the angles of an FFT."""

    sections: list[Array]
    angles: int

    @classmethod
    def of(cls, filters: int, angles: int) -> Cascades:
        """Each with poles all over the circle."""
        sections = stable_sections(filters * SECTIONS).astype(np.float32)
        turned = [np.roll(sections, n * len(sections) // INPUTS, 0) for n in range(INPUTS)]
        return cls([t.reshape(SECTIONS, filters, 6).swapaxes(0, 1).copy() for t in turned], angles)

    @property
    def n_fft(self) -> int:
        return 2 * (self.angles - 1)

    @cached_property
    def w(self) -> Tensor:
        return torch.arange(self.angles, dtype=torch.float64) * (2 * torch.pi / self.n_fft)

    @cached_property
    def g(self) -> Tensor:
        """What the gradients are of: Re Σ conj(g) h."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.randn(len(self.sections[0]), self.angles, dtype=torch.complex64, generator=generator)

    @cached_property
    def powers(self) -> Tensor:
        """z^−k, k = 0, 1, 2."""
        return torch.polar(torch.ones(()).double(), -self.w * torch.arange(3).double()[:, None])

    def calls(self, backward: bool) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
        """Ours against FFTs, and what is beside."""

        def fft(sos: Tensor) -> Tensor:
            spectra = torch.fft.rfft(sos.unflatten(-1, (2, 3)), self.n_fft)
            numerator, denominator = spectra.prod(-3).unbind(-2)
            return numerator / denominator

        powers = self.powers.to(torch.complex64)

        def product(sos: Tensor) -> Tensor:
            spectra = sos.unflatten(-1, (2, 3)).to(torch.complex64) @ powers
            numerator, denominator = spectra.prod(-3).unbind(-2)
            return numerator / denominator

        def ours(sos: Tensor) -> Tensor:
            return torch_iir.signal.freqz_sos(sos, self.w)[1]

        return (
            (self.call("torch_iir", ours, backward, np.float64), self.call("torch.fft", fft, backward, np.float32)),
            (self.call("powers of z", product, backward, np.float32),),
        )

    def call(self, name: str, response: Callable[[Tensor], Tensor], backward: bool, inside: type[np.floating]) -> Call:
        leaves = [torch.from_numpy(sos).requires_grad_(backward) for sos in self.sections]

        def forwards(n: int) -> Tensor:
            return response(leaves[n % INPUTS])

        def forwards_and_backwards(n: int) -> tuple[Tensor, ...]:
            sos = leaves[n % INPUTS]
            h = response(sos)
            return h, *torch.autograd.grad(h, sos, self.g)

        def expected(n: int) -> Expected:
            count = 2 if backward else 1
            whole = self.references[n]
            return Expected(whole.values[:count], whole.amplification[:count], inside)

        return Call(name, forwards_and_backwards if backward else forwards, expected)

    @cached_property
    def references(self) -> list[Expected]:
        return [self.reference(sos.astype(np.float64)) for sos in self.sections]

    def reference(self, sos: Array) -> Expected:
        """Filter by filter, by powers of z in double.

        What rounds in a section's polynomial is relative to the sum of its coefficients' magnitudes; an FFT does so in
        each of its stages. Stages and angles round independently of each other: their errors add up like a walk.
        """
        powers, g = self.powers.numpy(), self.g.numpy()
        h, gsos = np.empty(g.shape, np.complex128), np.empty(sos.shape)
        roundings, h_size, g_size = 2 * sqrt(log2(self.n_fft)), 0.0, 0.0
        for i, halves in enumerate(sos.reshape(len(sos), SECTIONS, 2, 3)):
            spectra = halves @ powers
            numerators, denominators = spectra[:, 0], spectra[:, 1]
            h[i] = (numerators / denominators).prod(0)
            of_b, of_a = h[i] / numerators, -h[i] / denominators
            for k, each in enumerate((of_b, of_a)):
                gsos[i, :, 3 * k : 3 * k + 3] = ((g[i] * each.conj()) @ powers.conj().T).real
            cancelled = (np.abs(halves).sum(-1)[..., None] / np.abs(spectra)).sum((0, 1))
            rounded = roundings * cancelled * np.abs(h[i])
            h_size = max(h_size, float(rounded.max()))
            terms = 2 * np.abs(g[i]) * rounded / np.abs(np.concatenate([numerators, denominators]))
            g_size = max(g_size, float(np.sqrt((terms**2).sum(-1)).max()))
        return Expected((h, gsos), (h_size, g_size))


QUESTION = Question("speed", figures)
