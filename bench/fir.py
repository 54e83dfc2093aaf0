"""Filters without feedback, from tens to thousands of taps: each algorithm forced, and scipy's for long ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.signal
import torch
import torch_iir_native

import torch_iir
from bench.algorithms import runs
from bench.compare import Array, Expected
from bench.fftconvolve import PEAK
from bench.filters import LFilter, noise
from bench.machine import SEED
from bench.measure import Call
from bench.question import Figure, Question, Target

ALGORITHMS = ("direct", "rows", "blocks", "fft")
SHAPES = ((1, 262_144), (32, 16_000))
TAPS = (64, 256, 1_024, 4_096)


def figures(quick: bool) -> Iterator[Figure]:
    for rows, samples in SHAPES:
        signals = noise((rows, samples // 64 if quick else samples))
        for taps in TAPS[:1] if quick else TAPS:
            job = FIR.of(np.float32, decaying(taps), np.ones(1), signals)
            forced = filter(runs, [job.forced(name) for name in ALGORITHMS])
            calls = (job.ours("automatic"), *forced, job.oaconvolve())
            name = f"FIR of {taps} taps, [{rows}, {samples}]"
            yield Figure(name, calls, job.samples, job.bytes_moved, Target("µs"), note=job.chosen())


def decaying(taps: int) -> Array:
    return np.random.default_rng(SEED).standard_normal(taps) * np.exp(-6 * np.arange(taps) / taps)


class FIR(LFilter):
    """Signals [rows, T] through b with a = [1]."""

    def forced(self, name: str) -> Call:
        return self.ours(name, context=partial(torch_iir.algorithm, name))

    def oaconvolve(self) -> Call:
        taps, count = self.coefficients[0][None], len(self.signals)

        def run(n: int) -> Array:
            x = self.signals[n % count]
            y: Array = scipy.signal.oaconvolve(x, taps, axes=-1)[..., : x.shape[-1]]
            return y

        return Call("scipy oaconvolve", run, self.expected_in_storage)

    def chosen(self) -> str:
        """The automatic choice, which is the same for every dtype: in double, an FFT shows in the last bits."""
        b, x = (torch.from_numpy(array.astype(np.float64)) for array in (self.coefficients[0], self.signals[0]))
        outputs = []
        for name in ("automatic", "fft"):
            with torch_iir.algorithm(name):
                outputs.append(torch_iir.signal.lfilter(b, [1.0], x))
        if torch.equal(*outputs):
            return "fft"
        return str(torch_iir_native.lfilter_algorithm(*x.shape, len(b) - 1))

    def reference(self, x: Array) -> Expected:
        """scipy's, in double. What FFTs round is relative to the norms of what they take, and spreads like noise."""
        b = self.coefficients[0].astype(np.float64)
        y = scipy.signal.oaconvolve(x.astype(np.float64), b[None], axes=-1)[..., : x.shape[-1]]
        peak = PEAK * 3 * np.log2(x.shape[-1] + len(b)) / np.sqrt(x.shape[-1])
        norms = np.sqrt((b**2).sum() * (x.astype(np.float64) ** 2).sum(-1).max())
        return Expected((y,), (float(peak * norms),))


QUESTION = Question("algorithms", figures)
