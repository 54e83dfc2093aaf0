"""Filters, signals and adapters that the questions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.signal
import torch

import torch_iir
from bench.compare import Array, Expected
from bench.machine import SEED
from bench.measure import INPUTS, Call


def stable_filter(order: int) -> tuple[Array, Array]:
    """(b, a) of an even order whose poles, spread over all angles, lie at radius 0.95 to 0.99."""
    b, a = (np.poly(np.concatenate([roots, roots.conj()])).real for roots in zeros_and_poles(order // 2))
    return 0.5 * b, a


def stable_sections(count: int) -> Array:
    """The same poles and zeros, a pair of each in a section: all coefficients are general."""
    halves = [np.stack([np.ones(count), -2 * roots.real, np.abs(roots) ** 2], -1) for roots in zeros_and_poles(count)]
    return np.concatenate([0.9 * halves[0], halves[1]], -1)


def zeros_and_poles(pairs: int) -> tuple[Array, Array]:
    """One of each pair, by rising angle."""
    generator = np.random.default_rng(SEED)

    def roots(low: float, high: float) -> Array:
        angles = np.pi * (np.arange(pairs) + generator.uniform(0.25, 0.75, pairs)) / pairs
        return generator.uniform(low, high, pairs) * np.exp(1j * angles)

    poles = roots(0.95, 0.99)
    return roots(0.8, 0.95), poles


def moving_filter(order: int, samples: int) -> tuple[Array, Array]:
    """b (samples, 3) and a (samples, order + 1) of an even order, each row another filter.

    The poles, spread over all angles as above, wander in angle and between the radii 0.95 and 0.99; one turn of that
    takes thousands of samples, so that what is stable in every row is stable. The zeros wander, too.
    """
    generator = np.random.default_rng(SEED)
    time = np.arange(samples)

    def wandering(low: float, high: float) -> Array:
        turns = time / generator.uniform(3_000, 9_000) + generator.uniform()
        return (low + high) / 2 + (high - low) / 2 * np.sin(2 * np.pi * turns)

    def section(low: float, high: float, radii: tuple[float, float]) -> Array:
        radius, angle = wandering(*radii), wandering(low, high)
        return np.stack([np.ones(samples), -2 * radius * np.cos(angle), radius**2])

    pairs = order // 2
    a = np.ones((1, samples))
    for pair in range(pairs):
        p = section(np.pi * (pair + 0.25) / pairs, np.pi * (pair + 0.75) / pairs, (0.95, 0.99))
        a = sum(np.pad(p[k] * a, ((k, 2 - k), (0, 0))) for k in range(3))
    b = 0.5 * section(np.pi * 0.2, np.pi * 0.8, (0.8, 0.95))
    return np.ascontiguousarray(b.T), np.ascontiguousarray(a.T)


def noise(shape: tuple[int, ...], count: int = INPUTS) -> list[Array]:
    generator = np.random.default_rng(SEED)
    return [generator.standard_normal(shape) for _ in range(count)]


@dataclass(frozen=True)
class Filtering:
    """A filter and the signals it is run on, for our function and for scipy's: both take coefficients, then a signal.

    Args:
        function: its name in torch_iir.signal and in scipy.signal.
        coefficients: its arguments before the signal, in the dtype of the signals.
    """

    function: str
    coefficients: tuple[Array, ...]
    signals: Sequence[Array]

    @property
    def samples(self) -> int:
        return self.signals[0].size

    @property
    def bytes_moved(self) -> int:
        return 2 * self.signals[0].nbytes

    @property
    def sections(self) -> list[tuple[Array, Array]]:
        """(b, a) of what is run one after the other, in double."""
        raise NotImplementedError

    def packed(self, gradients: Sequence[tuple[Array, Array]]) -> tuple[Array, ...]:
        """Those of the sections' b and a as gradients of the coefficients."""
        raise NotImplementedError

    @cached_property
    def tensors(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [torch.from_numpy(c) for c in self.coefficients], [torch.from_numpy(x) for x in self.signals]

    def ours(self, name: str = "torch_iir", face: Any = torch_iir.signal, **options: Any) -> Call:
        coefficients, signals = self.tensors
        run, count = partial(getattr(face, self.function), *coefficients), len(signals)
        return Call(name, lambda n: run(signals[n % count]), self.expected, count, **options)

    def scipy(self, **options: Any) -> Call:
        signals = self.signals
        run, count = partial(getattr(scipy.signal, self.function), *self.coefficients), len(signals)
        return Call("scipy", lambda n: run(signals[n % count]), self.expected_in_storage, count, **options)

    def expected(self, n: int) -> Expected:
        return self.references[n % len(self.signals)]

    def expected_in_storage(self, n: int) -> Expected:
        """Of a library that computes in the dtype of what it is given."""
        return replace(self.expected(n), inside=self.coefficients[0].dtype.type)

    @cached_property
    def references(self) -> list[Expected]:
        return [self.reference(x) for x in self.signals]

    def reference(self, x: Array) -> Expected:
        """scipy's, in double."""
        u = inner_signals(self.sections, x)
        return Expected((u[-1],), (amplification(self.sections, u),))


class LFilter(Filtering):
    @classmethod
    def of(cls, dtype: type[np.floating], b: Array, a: Array, signals: Sequence[Array]) -> LFilter:
        return cls("lfilter", (b.astype(dtype), a.astype(dtype)), [x.astype(dtype) for x in signals])

    @property
    def sections(self) -> list[tuple[Array, Array]]:
        b, a = self.coefficients
        return [(b.astype(np.float64), a.astype(np.float64))]

    def packed(self, gradients: Sequence[tuple[Array, Array]]) -> tuple[Array, ...]:
        return gradients[0]

    def numba(self) -> tuple[Call, ...]:
        """A biquad in Numba, where that is installed."""
        b, a = self.coefficients
        if find_spec("numba") is None or len(a) != 3:
            return ()
        biquad, signals = numba_biquad(), self.signals
        return (Call("numba", lambda n: biquad(b, a, signals[n % len(signals)]), self.expected),)


class SOSFilt(Filtering):
    @classmethod
    def of(cls, dtype: type[np.floating], sos: Array, signals: Sequence[Array]) -> SOSFilt:
        return cls("sosfilt", (sos.astype(dtype),), [x.astype(dtype) for x in signals])

    @property
    def sections(self) -> list[tuple[Array, Array]]:
        return [(row[:3], row[3:]) for row in self.coefficients[0].astype(np.float64)]

    def packed(self, gradients: Sequence[tuple[Array, Array]]) -> tuple[Array, ...]:
        return (np.stack([np.concatenate(halves) for halves in gradients]),)


def inner_signals(sections: Sequence[tuple[Array, Array]], x: Array) -> list[Array]:
    """What goes into each section, and what comes out of the last, in double."""
    u = [x.astype(np.float64)]
    for b, a in sections:
        u.append(scipy.signal.lfilter(b, a, u[-1]))
    return u


def amplification(sections: Sequence[tuple[Array, Array]], u: Sequence[Array]) -> float:
    """2 (N + 1) terms a sample and section, bounded by those of the largest sample, each gained by at most Σ|h|.

    h is the response from where the term is added to the output: that of the section's 1/A and the sections after it.
    """
    total = 0.0
    for s, (b, a) in enumerate(sections):
        terms = np.abs(b).sum() * np.abs(u[s]).max() + np.abs(a).sum() * np.abs(u[s + 1]).max()
        total += 2 * len(a) * float(terms) * response_size([(np.ones(1), a), *sections[s + 1 :]])
    return total


def response_size(sections: Sequence[tuple[Array, Array]]) -> float:
    """Σ|h|."""
    impulse = np.zeros(65536)
    impulse[0] = 1
    return float(np.abs(inner_signals(sections, impulse)[-1]).sum())


@cache
def numba_biquad() -> Callable[[Array, Array, Array], Array]:
    """Transposed direct form II in double, rows one after another."""
    import numba

    @numba.njit
    def rows(b, a, x, y):  # type: ignore[no-untyped-def]
        b0, b1, b2 = np.float64(b[0]), np.float64(b[1]), np.float64(b[2])  # float() would leave them float32
        a1, a2 = np.float64(a[1]), np.float64(a[2])
        for row in range(x.shape[0]):
            z0 = z1 = 0.0
            for t in range(x.shape[1]):
                v = np.float64(x[row, t])
                out = b0 * v + z0
                z0 = b1 * v - a1 * out + z1
                z1 = b2 * v - a2 * out
                y[row, t] = out

    def biquad(b: Array, a: Array, x: Array) -> Array:
        y = np.empty_like(x)
        rows(b, a, np.atleast_2d(x), np.atleast_2d(y))
        return y

    return biquad
