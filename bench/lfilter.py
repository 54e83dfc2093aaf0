"""The recursive filter, forwards, against scipy's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.signal

from bench.compare import Array
from bench.filters import LFilter, noise, stable_filter
from bench.measure import INPUTS
from bench.question import Figure, Question, Target

# order, rows, samples, dtype, at least, aim
CASES = (
    (2, 1, 262_144, np.float32, 12, 18),
    (2, 1, 2_600_000, np.float32, 12, 18),
    (2, 1, 262_144, np.float64, 12, 18),
    (2, 32, 16_000, np.float32, 20, 35),
    (4, 32, 16_000, np.float32, 16, 30),
    (10, 32, 16_000, np.float32, 14, 25),
    (32, 32, 16_000, np.float32, 14, 25),
    (4, 1, 262_144, np.float32, 8, 15),
    (10, 1, 262_144, np.float32, 8, 15),
    (32, 1, 262_144, np.float32, 8, 15),
)


def figures(quick: bool) -> Iterator[Figure]:
    for order, rows, samples, dtype, limit, aim in CASES:
        job = LFilter.of(dtype, *stable_filter(order), noise((rows, samples // 64 if quick else samples)))
        yield figure(f"lfilter order {order}, {dtype.__name__}, [{rows}, {samples}]", job, limit, aim)
    lowpass = scipy.signal.butter(2, 500, fs=16_000)
    yield figure(
        "lfilter order 2, float64, a chirp of 32000", LFilter.of(np.float64, *lowpass, signals=chirps()), 8, 12
    )


def figure(name: str, job: LFilter, limit: float, aim: float) -> Figure:
    calls = (job.ours(), job.scipy())
    return Figure(name, calls, job.samples, job.bytes_moved, Target("speedup", limit, aim), beside=job.numba())


def chirps() -> list[Array]:
    """1 → 1000 Hz in 2 s at 16 kHz, at several phases."""
    time = np.arange(32_000) / 16_000
    return [scipy.signal.chirp(time, 1, 2, 1000, phi=360 * n / INPUTS) for n in range(INPUTS)]


QUESTION = Question("speed", figures)
