"""What a compilation did, for `explain` and for the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import Node


@dataclass(frozen=True)
class Fired:
    """A rewrite that was done, at a line of the user's, and the bytes that are no longer written and read."""

    rewrite: str
    where: str
    bytes_saved: int


@dataclass(frozen=True)
class Missed:
    """A place that a rewrite nearly fits, and why not."""

    rewrite: str
    where: str
    why: str


@dataclass
class Report:
    """One graph: Dynamo makes one for every piece between two graph breaks."""

    substituted: Sequence[str] = ()
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    fired: list[Fired] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)

    @property
    def bytes_saved(self) -> int:
        return sum(fired.bytes_saved for fired in self.fired)


def where(node: Node) -> str:
    """The user's line that a node comes from: ``model.py:12 in forward``; the innermost that is known."""
    trace = node.stack_trace or ""
    lines = [line.strip() for line in trace.splitlines() if line.lstrip().startswith("File ")]
    if not lines:
        return node.name
    file, line, *function = lines[-1].removeprefix("File ").split(", ")
    name = file.strip('"').rsplit("/", 1)[-1]
    return " ".join([f"{name}:{line.removeprefix('line ')}", *function])
