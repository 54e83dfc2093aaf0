"""What a call of the public function costs where there is next to nothing to filter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch

from bench.filters import LFilter, noise, stable_filter
from bench.lfilter_backward import Backward
from bench.question import Figure, Question, Target


def figures(quick: bool) -> Iterator[Figure]:
    job = LFilter.of(np.float32, *stable_filter(2), noise((64,)))
    repeat = 2 if quick else 200
    modes = (
        ("inference mode", torch.inference_mode, Target("µs", 6, 3.5)),
        ("no grad", torch.no_grad, Target("µs", 8, 6)),
        ("grad mode, no input requires it", nullcontext, Target("µs")),
    )
    for name, context, target in modes:
        ours, scipy = job.ours(repeat=repeat, context=context), job.scipy(repeat=repeat)
        yield Figure(f"lfilter, T = 64, {name}", (ours,), job.samples, job.bytes_moved, target, beside=(scipy,))
    backward = Backward(job, noise((64,))[-1])
    yield Figure(
        "lfilter, T = 64, forward + backward",
        (backward.ours(repeat=repeat),),
        job.samples,
        3 * job.bytes_moved,
        Target("µs", 65, 48),
    )


QUESTION = Question("limits", figures)
