"""What a question consists of, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench import machine
from bench.measure import FULL, QUICK, Call, Times, copy_of, interleaved, peak_bytes, single

Record = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What a figure has to reach.

    Args:
        kind: ``"speedup"``, their time over ours, of which AVX2 is held to half; ``"scaling"``, the same with ourselves
            in their place, the same for every instruction set; ``"slowdown"``, our time over theirs, and ``"µs"``, our
            time, where less is better.
        limit: at least this, or at most.
        aim: what we would like.
    """

    kind: Literal["speedup", "scaling", "slowdown", "µs"]
    limit: float | None = None
    aim: float | None = None

    def value(self, seconds: Sequence[float]) -> float:
        if self.kind == "µs":
            return seconds[0] * 1e6
        return seconds[0] / seconds[1] if self.kind == "slowdown" else seconds[1] / seconds[0]

    def bounds(self, isa: str) -> tuple[float | None, float | None]:
        """The limit and the aim on this instruction set."""
        share = {"avx512": 1.0, "avx2": 0.5}.get(isa) if self.kind == "speedup" else 1.0
        limit, aim = (None if share is None or bound is None else share * bound for bound in (self.limit, self.aim))
        return limit, aim

    def reached(self, value: float, bound: float | None) -> bool | None:
        if bound is None:
            return None
        return value >= bound if self.kind in ("speedup", "scaling") else value <= bound


@dataclass(frozen=True)
class Figure:
    """One row of a table.

    Args:
        name: what is computed, with its shape and dtype.
        calls: that take turns, ours first; a ratio is against the second.
        samples: that ours puts out.
        bytes_moved: what it has to read and write at least.
        target: what ours has to reach.
        beside: competitors for orientation, timed afterwards: in the rounds they would cool the caches for ours alone.
        note: for the table, which also shows there what the comparisons say of the outputs.
    """

    name: str
    calls: tuple[Call, ...]
    samples: int
    bytes_moved: int
    target: Target
    beside: tuple[Call, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Question:
    """One file of the folder. ``figures(quick)`` makes its rows, on short signals if quick.

    The table is ``"speed"`` for figures against another, ``"limits"`` for those that stand alone, ``"algorithms"`` for
    variants of ours beside each other, ``"ranks"`` for those on several processes, ``"peers"`` for figures against
    torchaudio, which has an environment of its own.
    """

    table: Literal["speed", "limits", "algorithms", "ranks", "peers"]
    figures: Callable[[bool], Iterator[Figure]]


def answer(figure: Figure, quick: bool = False) -> Record:
    """Compares every output with the reference, then times the calls in turns, and what is beside them, and a copy."""
    times: dict[str, Times] = {}
    remarks: dict[str, str] = {}
    for call in (*figure.calls, *figure.beside):
        if call.once:
            times[call.name], result = single(call)
        if call.expected is None:
            continue
        for n, output in enumerate([result] if call.once else outputs(call)):
            remarks[call.name] = call.expected(n).compare(call.name, output)

    ours, target = figure.calls[0], figure.target
    plan = QUICK if quick else FULL
    alone = (*figure.beside, copy_of(figure.bytes_moved, ours))
    calls = (*figure.calls, *alone)
    for turns in (figure.calls, *((call,) for call in alone)):
        if often := [call for call in turns if not call.once]:
            times |= zip((call.name for call in often), interleaved(often, plan), strict=True)
    seconds = [times[call.name].median for call in calls]
    value = float(f"{target.value(seconds):.3g}")  # what the tables show is what is judged
    limit, aim = target.bounds(machine.isa())
    return {
        "figure": figure.name,
        "kind": target.kind,
        "against": "" if target.kind == "µs" else figure.calls[1].name,
        "value": value,
        "limit": limit,
        "limit_reached": target.reached(value, limit),
        "aim": aim,
        "aim_reached": target.reached(value, aim),
        "samples_per_second": figure.samples / seconds[0],
        "bytes_moved": figure.bytes_moved,
        "share_of_copy": seconds[-1] / seconds[0],
        "peak_bytes": peak_bytes(ours),
        "rounds": times[ours.name].rounds,
        "note": ", ".join(filter(None, [figure.note, *remarks.values()])),
        "samples": figure.samples,
        "seconds": {call.name: times[call.name].median for call in calls},
        "quartiles": {call.name: times[call.name].quartiles for call in calls},
    }


def outputs(call: Call) -> Iterator[Any]:
    for n in range(call.inputs):
        with call.context():
            output = call.run(n)
        yield output
