"""What the backend can be told, and how it travels: among the ``options`` that torch.compile has for Inductor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "torch_iir."


@dataclass(frozen=True)
class Options:
    """The options of the backend; in torch.compile's ``options`` each has the prefix ``torch_iir.``.

    Args:
        substitute: put our operators in the place of other libraries' calls.
        inverse_mel: of these also torchaudio's InverseMelScale, whose numbers change.
        rewrite: True for all rewrites of the graph, False for none, or the names of those to do.
        verify: run the first call both ways, and compare.
        dry: change nothing, only report.
    """

    substitute: bool = True
    inverse_mel: bool = False
    rewrite: bool | frozenset[str] = True
    verify: bool = False
    dry: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "rewrite" and not isinstance(value, bool):
                object.__setattr__(self, "rewrite", _rewrites(value))
            elif not isinstance(value, bool):
                raise TypeError(f"{field.name} must be True or False, got {value!r}")

    @staticmethod
    def parse(options: Mapping[str, Any] | None) -> tuple[Options, dict[str, Any]]:
        """Ours, and what is left for Inductor."""
        options = options or {}
        ours = {key.removeprefix(PREFIX): value for key, value in options.items() if key.startswith(PREFIX)}
        known = [field.name for field in fields(Options)]
        for name in ours:
            if name not in known:
                names = ", ".join(PREFIX + field for field in known)
                raise ValueError(f"options must be among {names}, or Inductor's, got {PREFIX}{name}")
        return Options(**ours), {key: value for key, value in options.items() if not key.startswith(PREFIX)}

    def packed(self) -> dict[str, Any]:
        """As torch.compile's ``options`` have them: what is not the default."""
        return {
            PREFIX + field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def _rewrites(names: Iterable[str]) -> frozenset[str]:
    from torch_iir.compiler.rewrites import REWRITES

    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"rewrite must be True, False or a collection of names, got {names!r}")
    names = frozenset(names)
    if unknown := names - REWRITES.keys():
        raise ValueError(f"rewrite must be among {', '.join(REWRITES)}, got {', '.join(sorted(map(str, unknown)))}")
    return names
