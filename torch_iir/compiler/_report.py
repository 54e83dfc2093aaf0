"""What a compilation did, for `explain` and for the log."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from torch.fx import Node

WIDTH = 120  # of a printed line, at most where it can be broken


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
    """One graph: Dynamo makes one for every piece between two graph breaks. ``str(report)`` is a table."""

    substituted: Sequence[str] = ()
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    fired: list[Fired] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)

    @property
    def bytes_saved(self) -> int:
        return sum(fired.bytes_saved for fired in self.fired)

    def __str__(self) -> str:
        before, after = self.before.total(), self.after.total()
        head = f"{counted(before, 'operation')}{f' → {after}' if self.fired else ', none rewritten'}"
        sections = {
            "substituted": [_times(name, count) for name, count in Counter(self.substituted).items()],
            "rewritten": table(self._rewritten()),
            "nearly": [line for miss in self.missed for line in wrapped(f"{miss.rewrite} at {miss.where}: {miss.why}")],
            "operations": self._operations(),
        }
        lines = (
            f"  {label if number == 0 else '':<{LABEL}}{line}"
            for label, section in sections.items()
            for number, line in enumerate(section)
        )
        return "\n".join([head, *lines])

    def _rewritten(self) -> Iterator[tuple[str, ...]]:
        """What was rewritten, a row for each line of the user's."""
        saved: dict[tuple[str, str], list[int]] = {}
        for fired in self.fired:
            saved.setdefault((fired.rewrite, fired.where), []).append(fired.bytes_saved)
        for (rewrite, place), each in saved.items():
            total = sum(each)
            yield _times(rewrite, len(each)), f"at {place}", f"saves {readable(total)}" if total > 0 else ""

    def _operations(self) -> list[str]:
        """How often the graph calls what: first what is called more or less often than before."""
        names = list(dict.fromkeys([*self.before, *self.after]))
        rows = [(name, str(self.before[name]), "→", str(self.after[name])) for name in names]
        changed = [row for row in rows if row[1] != row[3]]
        same = [_times(name, self.before[name]) for name in names if self.before[name] == self.after[name]]
        return [*table(changed, right=(1, 3)), *wrapped(", ".join(same))]


# --- text

LABEL = 14  # characters: where the columns of a report begin


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of aligned columns; those in `right` end together."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'>' if i in right else '<'}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def wrapped(text: str, indent: int = LABEL + 2) -> list[str]:
    """Lines that fit beside an indent."""
    return textwrap.wrap(text, WIDTH - indent, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def counted(count: int, what: str) -> str:
    """``1 graph``, ``2 graphs``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def readable(count: int) -> str:
    """Bytes in three digits: ``131 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def _times(name: str, count: int) -> str:
    return name if count == 1 else f"{name} × {count}"


# --- places


def where(node: Node) -> str:
    """The user's line that a node comes from: ``model.py:12 in forward``; the innermost that is known."""
    frames = _FRAME.findall(node.stack_trace or "")
    users = [frame for frame in frames if not _of_library(frame[0])]
    for file, line, function in reversed(users or frames):
        return place(file, int(line), function)
    return node.name


def place(file: str, line: int, function: str) -> str:
    """A line, as reports have it."""
    resumed = _RESUMED.fullmatch(function)
    return f"{os.path.basename(file)}:{line} in {resumed[1] if resumed else function}"


_FRAME = re.compile(r'^ *File "(.*)", line (\d+), in (.*)$', re.MULTILINE)
_RESUMED = re.compile(r"torch_dynamo_resume_in_(.*)_at_\d+")  # what Dynamo calls the rest of a function after a break


def _of_library(file: str) -> bool:
    """Whether a file is torch's, ours, or that of a library whose calls become ours; demonstrations are users."""
    for name in ("torch", "torch_iir", "torchaudio", "torchlpc"):
        folder = os.path.dirname(getattr(sys.modules.get(name), "__file__", None) or "")
        if folder and file.startswith(folder + os.sep):
            return not file.startswith(os.path.join(folder, "demo") + os.sep)
    return False
