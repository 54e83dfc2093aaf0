"""Times that compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter


def interleaved(
    candidates: Mapping[str, Callable[[], object]], turns: int = 20, turn: float = 0.02
) -> dict[str, float]:
    """The median time of a call of each, in seconds.

    They take turns, so that a busy machine slows all of them alike. A turn is as many calls as fit into its seconds,
    after one that is not counted and brings the caches back to what they are when nothing else runs.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(turns):
        for name, call in candidates.items():
            call()
            calls, start = 0, perf_counter()
            while calls == 0 or perf_counter() - start < turn:
                call()
                calls += 1
            times[name].append((perf_counter() - start) / calls)
    return {name: median(each) for name, each in times.items()}


def readable(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
