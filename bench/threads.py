"""Two threads against one, many rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from bench.filters import LFilter, noise, stable_filter
from bench.question import Figure, Question, Target


def figures(quick: bool) -> Iterator[Figure]:
    if len(os.sched_getaffinity(0)) < 2:
        return
    job = LFilter.of(np.float32, *stable_filter(2), noise((64, 1_000 if quick else 48_000)))
    calls = (job.ours("2 threads", context=threads(2)), job.ours("1 thread", context=threads(1)))
    name = "lfilter order 2, float32, [64, 48000], 2 threads"
    yield Figure(name, calls, job.samples, job.bytes_moved, Target("scaling", 1.7, 1.95))


def threads(count: int) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def context() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return context


QUESTION = Question("speed", figures)
