"""Filters, signals and adapters that the questions about lfilter share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
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
    generator = np.random.default_rng(SEED)

    def polynomial(low: float, high: float) -> Array:
        angles = np.pi * (np.arange(order // 2) + generator.uniform(0.25, 0.75, order // 2)) / (order // 2)
        roots = generator.uniform(low, high, order // 2) * np.exp(1j * angles)
        return np.poly(np.concatenate([roots, roots.conj()])).real

    a = polynomial(0.95, 0.99)
    return 0.5 * polynomial(0.8, 0.95), a


def noise(shape: tuple[int, ...]) -> list[Array]:
    generator = np.random.default_rng(SEED)
    return [generator.standard_normal(shape) for _ in range(INPUTS)]


@dataclass(frozen=True)
class Job:
    """One filter and the signals it is run on, for our functions and for NumPy's."""

    b: Array
    a: Array
    signals: Sequence[Array]

    @classmethod
    def of(cls, dtype: type[np.floating], b: Array, a: Array, signals: Sequence[Array]) -> Job:
        return cls(b.astype(dtype), a.astype(dtype), [x.astype(dtype) for x in signals])

    @property
    def samples(self) -> int:
        return self.signals[0].size

    @property
    def bytes_moved(self) -> int:
        return 2 * self.signals[0].nbytes

    @cached_property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        return torch.from_numpy(self.b), torch.from_numpy(self.a), [torch.from_numpy(x) for x in self.signals]

    def x(self, n: int) -> Array:
        return self.signals[n % len(self.signals)]

    def ours(self, name: str = "torch_iir", **options: Any) -> Call:
        b, a, signals = self.tensors
        count = len(signals)
        return Call(name, lambda n: torch_iir.signal.lfilter(b, a, signals[n % count]), self.expected, **options)

    def scipy(self, **options: Any) -> Call:
        b, a, signals = self.b, self.a, self.signals
        count = len(signals)

        def expected(n: int) -> Expected:
            return replace(self.expected(n), inside=b.dtype.type)

        return Call("scipy", lambda n: scipy.signal.lfilter(b, a, signals[n % count]), expected, **options)

    def numba(self) -> tuple[Call, ...]:
        """A biquad in Numba, where that is installed."""
        if find_spec("numba") is None or len(self.a) != 3:
            return ()
        biquad = numba_biquad()
        return (Call("numba", lambda n: biquad(self.b, self.a, self.x(n)), self.expected),)

    def expected(self, n: int) -> Expected:
        return self.references[n % len(self.signals)]

    @cached_property
    def references(self) -> list[Expected]:
        """scipy's, in double."""
        b, a = self.b.astype(np.float64), self.a.astype(np.float64)
        outputs = [scipy.signal.lfilter(b, a, x.astype(np.float64)) for x in self.signals]
        return [Expected((y,), (self.amplification(x, y),)) for x, y in zip(self.signals, outputs, strict=True)]

    def amplification(self, x: Array, y: Array) -> float:
        """2 (N + 1) terms a sample, bounded by those of the largest sample, each gained by at most Σ|h| of 1/A."""
        terms = np.abs(self.b).sum() * np.abs(x).max() + np.abs(self.a).sum() * np.abs(y).max()
        return 2 * len(self.a) * float(terms) * response_size(self.a)


def response_size(a: Array) -> float:
    """Σ|h| of 1/A."""
    impulse = np.zeros(65536)
    impulse[0] = 1
    return float(np.abs(scipy.signal.lfilter([1.0], a.astype(np.float64), impulse)).sum())


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
