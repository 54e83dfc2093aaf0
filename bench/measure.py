"""Times of calls that take turns in one process, and of a copy of the same bytes.

The estimator is the median over rounds. In a round each function runs once, ours, theirs, ours, theirs …, so that what
else the machine does meets all of them alike, and every run takes the next input, so that none finds its numbers in the
caches because another has just read them. What a call returns is freed before its clock stops: fresh memory belongs to
its price.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any

import torch

from bench.compare import Judge
from torch_iir.demo import timing

INPUTS = 7  # that the runs cycle through; prime, so that each of several calls taking turns gets all of them


@dataclass(frozen=True)
class Call:
    """One adapter: a function as its user calls it.

    Args:
        name: of the library, or of the variant of ours.
        run: computes the result for the n-th input; any n.
        expected: the reference for the n-th input. None for a yardstick, which is only timed.
        inputs: that are different. Where one is more than the caches hold, it can be the same in all runs.
        repeat: runs between two readings of the clock, for those that last a few microseconds.
        share: of the work that a run does; the time of all of it is extrapolated.
        once: too slow to take turns: it runs once, for the 0-th input, and that is both compared and timed.
        context: entered around the runs, outside the clock.
        clock: that shows its time, where other processes do the work.
    """

    name: str
    run: Callable[[int], Any]
    expected: Callable[[int], Judge] | None = None
    inputs: int = INPUTS
    repeat: int = 1
    share: float = 1.0
    once: bool = False
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    clock: Callable[[], float] | None = None


@dataclass(frozen=True)
class Plan:
    """How many rounds: as many as fit into ``seconds``, within ``fewest`` and ``most``; 3 where a run is slow."""

    warmup: int = 3
    fewest: int = 20
    most: int = 200
    seconds: float = 1.0
    slow: float = 5.0

    def rounds(self, times: Sequence[float]) -> int:
        if max(times) > self.slow:
            return min(self.fewest, 3)
        return max(self.fewest, min(self.most, int(self.seconds / max(sum(times), 1e-9))))


FULL = Plan()
QUICK = Plan(warmup=1, fewest=2, most=2)


@dataclass(frozen=True)
class Times:
    """Seconds of a call: the median and the quartiles over the rounds."""

    median: float
    quartiles: tuple[float, float]
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        low, _, high = quantiles(seconds, method="inclusive")
        return cls(median(seconds), (low, high), len(seconds))


def interleaved(
    calls: Sequence[Call], plan: Plan = FULL, clock: Callable[[], float] = time.perf_counter
) -> list[Times]:
    """The times of each call, the calls taking turns."""
    with no_collection():
        turns = count()
        for _ in range(plan.warmup):
            first = [timed(call, next(turns), clock) * call.repeat * call.share for call in calls]
        seconds = [[timed(call, next(turns), clock) for call in calls] for _ in range(plan.rounds(first))]
    return [Times.of(column) for column in zip(*seconds, strict=True)]


def single(call: Call, clock: Callable[[], float] = time.perf_counter) -> tuple[Times, Any]:
    """The time of one run, and what it returned."""
    with no_collection(), call.context():
        start = clock()
        result = call.run(0)
        seconds = (clock() - start) / call.share
    return Times(seconds, (seconds, seconds), 1), result


def timed(call: Call, turn: int, clock: Callable[[], float]) -> float:
    """Seconds per run, of all the work."""
    run, clock = call.run, call.clock or clock
    inputs = range(turn, turn + call.repeat)
    with call.context():
        start = clock()
        for i in inputs:
            run(i)
        return (clock() - start) / (call.repeat * call.share)


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def copy_of(bytes_moved: int, like: Call) -> Call:
    """A copy that moves so many bytes, half of them read and half written into a buffer that is there already."""
    # Not zeros: untouched, they would all be read from the one page of zeros that the system has.
    sources = [torch.full((bytes_moved // 2,), n, dtype=torch.uint8) for n in range(like.inputs)]
    target = torch.full_like(sources[0], INPUTS)
    return Call("copy", lambda n: target.copy_(sources[n % like.inputs]), repeat=like.repeat, context=like.context)


def peak_bytes(call: Call) -> int | None:
    """By how much a run raises the resident memory of the process at its highest. None if others do the work."""
    if call.clock is not None:
        return None
    turns = count()
    with call.context():
        return timing.peak_bytes(lambda: call.run(next(turns)))


def peaks(ours: Call, theirs: Call, at_most: float | None = None) -> str:
    """The peak memory of both, for the note of a figure, and whether ours is at most such a share of theirs."""
    mine, other = peak_bytes(ours), peak_bytes(theirs)
    if not mine or not other:
        return ""
    text = f"peak memory {timing.megabytes(mine)} and {timing.megabytes(other)}, 1/{other / mine:.3g}"
    if at_most is None:
        return text
    return f"{text} (at most 1/{1 / at_most:.3g} {'yes' if mine <= at_most * other else '**no**'})"
