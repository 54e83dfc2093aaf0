"""A cascade by samples of its response and by its recurrence, forwards and backwards: which one when.

What matters is how long the signal is, how many sections it passes, and how many rows there are; and for the sampled
form, how long the slowest pole takes to decay: here, some 500 samples.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.lfilter_fsm import Sampled, equaliser
from bench.question import Figure, Question, Target

SHAPES = ((1, 1_000), (32, 1_000), (32, 16_000), (1, 262_144))


def figures(quick: bool) -> Iterator[Figure]:
    for sections in (1, 8, 32):
        for rows, samples in SHAPES[:1] if quick else SHAPES:
            job = Sampled.of((rows, samples), equaliser(1, sections)[0])
            repeat = 1 if quick else max(1, 10_000 // job.g.numel())  # microseconds are too short for the clock
            calls = job.ours("sosfilt_fsm", repeat=repeat), job.recurrence("sosfilt", repeat=repeat)
            name = f"{sections} sections, forward + backward (x, sos), [{rows}, {samples}]"
            yield Figure(name, calls, job.g.numel(), job.bytes_moved, Target("speedup"))


QUESTION = Question("algorithms", figures)
