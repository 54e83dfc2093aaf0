"""Cascades of eight second-order sections, forwards, against scipy's; backwards for orientation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.signal

from bench.filters import SOSFilt, noise, stable_sections
from bench.lfilter_backward import Backward
from bench.question import Figure, Question, Target

DESIGNS = {
    "8 sections": stable_sections(8),
    "Butterworth of order 16": scipy.signal.butter(16, 0.2, output="sos"),  # b = 1, 2, 1
}

# rows, samples, at least, aim
CASES = ((1, 262_144, 7, 11), (32, 16_000, 11, 18))


def figures(quick: bool) -> Iterator[Figure]:
    for rows, samples, limit, aim in CASES:
        for design, sos in DESIGNS.items():
            job = SOSFilt.of(np.float32, sos, noise((rows, samples // 64 if quick else samples)))
            name = f"sosfilt, {design}, float32, [{rows}, {samples}]"
            calls = (job.ours(), job.scipy())
            yield Figure(name, calls, job.samples, job.bytes_moved, Target("speedup", limit, aim))
        backward = Backward(job, noise(job.signals[0].shape)[-1])
        yield Figure(
            f"sosfilt, {design}, forward + backward (x, sos), float32, [{rows}, {samples}]",
            (backward.ours(), job.scipy()),
            job.samples,
            5 * job.bytes_moved // 2,  # forwards x and y; backwards g, x and the gradient of x
            Target("speedup"),
            note="their forward alone",
        )


QUESTION = Question("speed", figures)
