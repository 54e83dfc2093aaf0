"""A tail that decays through the subnormal numbers into silence, against the same filter on noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.filters import LFilter, noise
from bench.measure import INPUTS
from bench.question import Figure, Question, Target

RADIUS = 0.999  # subnormal from sample 87 000 on in float32, from 708 000 on in double


def figures(quick: bool) -> Iterator[Figure]:
    b, a = np.array([1.0, 0.5, 0.25]), np.array([1.0, -2 * RADIUS * np.cos(0.1), RADIUS**2])
    samples = 10_000 if quick else 1_000_000
    clicks = []
    for n in range(INPUTS):
        click = np.zeros((1, samples + 1))
        click[0, 0] = 1 + n
        clicks.append(click)
    for dtype in (np.float32, np.float64):
        job, on_noise = (LFilter.of(dtype, b, a, signals) for signals in (clicks, noise((1, samples + 1))))

        yield Figure(
            f"lfilter order 2, {dtype.__name__}, 10⁶ zeros after a click",
            (job.ours(), on_noise.ours("on noise")),
            job.samples,
            job.bytes_moved,
            Target("slowdown", 1.1, 1.0),
        )


QUESTION = Question("limits", figures)
