"""Times and memory that compare."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

import torch_iir


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


def peak_bytes(call: Callable[[], object]) -> int | None:
    """By how much a call raises the resident memory of the process at its highest, to some 4 KiB pages.

    The least of three calls: the kernel counts pages in batches. None where Linux does not tell.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def kibibytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    rises = []
    try:
        for _ in range(3):
            torch_iir.empty_cache()  # or it would find the pages of an earlier call
            ctypes.CDLL(None).malloc_trim(0)
            reset.write_text("5")
            before = kibibytes("VmRSS")
            result = call()
            rises.append(max(kibibytes("VmHWM") - before, 0))
            del result
        return 1024 * min(rises)
    except (OSError, AttributeError):
        return None


def compare(
    what: str, candidates: Mapping[str, tuple[int, Callable[[], object]]], turns: int = 20
) -> dict[str, tuple[float, int | None]]:
    """Prints and returns the seconds and bytes of each: calls, with how many samples they work on.

    The first is what the rest is held to. What works on fewer samples than it is extrapolated, and marked so.
    """
    times = interleaved({name: call for name, (_, call) in candidates.items()}, turns)
    peaks = {name: peak_bytes(call) for name, (_, call) in candidates.items()}
    first = next(iter(candidates))
    total = candidates[first][0]
    notes = []
    found = {}
    print(f"{what} of {total} samples, median of interleaved runs, and peak memory")
    for name, (samples, _) in candidates.items():
        factor, star = total / samples, " "
        if samples < total:
            star = "*"
            notes.append(f"* extrapolated from {samples} samples: {readable(times[name])}, {megabytes(peaks[name])}")
        seconds, peak = factor * times[name], peaks[name]
        peak = None if peak is None else round(factor * peak)
        found[name] = seconds, peak
        ratio = seconds / times[first]
        held = "" if name == first else f"{ratio:7,.{0 if ratio > 100 else 1}f} × the time"
        print(f"{'':10}{name:<32}{readable(seconds):>8}{star}{megabytes(peak):>12}{star}{held}")
    print("".join(f"{'':10}{note}\n" for note in notes))
    return found


def readable(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def megabytes(count: int | None) -> str:
    return "? MB" if count is None else f"{count / 1e6:,.{1 if count < 1e8 else 0}f} MB"
