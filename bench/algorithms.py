"""Each algorithm forced, over rows, samples and orders: where the automatic choice has to switch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch_iir_native

import torch_iir
from bench.filters import LFilter, noise, stable_filter
from bench.measure import Call
from bench.question import Figure, Question, Target

ALGORITHMS = ("direct", "rows", "segments", "blocks")
SHAPES = ((1, 64), (1, 1_024), (1, 16_384), (1, 262_144), (4, 16_384), (8, 16_384), (32, 64), (32, 16_384))


def figures(quick: bool) -> Iterator[Figure]:
    for order in (2, 4, 10, 32):
        for rows, samples in SHAPES[:1] if quick else SHAPES:
            job = LFilter.of(np.float32, *stable_filter(order), noise((rows, samples)))
            repeat = 1 if quick else max(1, 20_000 // job.samples)  # microseconds are too short for the clock
            calls = [job.ours("automatic", repeat=repeat)]
            for name in ALGORITHMS:
                forced = job.ours(name, repeat=repeat, context=partial(torch_iir.algorithm, name))
                if runs(forced):
                    calls.append(forced)
            yield Figure(
                f"order {order}, [{rows}, {samples}]",
                tuple(calls),
                job.samples,
                job.bytes_moved,
                Target("µs"),
                note=torch_iir_native.lfilter_algorithm(rows, samples, order),
            )


def runs(forced: Call) -> bool:
    """Whether the algorithm can compute this filter."""
    try:
        with forced.context():
            forced.run(0)
    except RuntimeError:
        return False
    return True


QUESTION = Question("algorithms", figures)
