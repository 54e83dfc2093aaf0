"""The rewrites, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Callable

from torch_iir.compiler._graph import Graph
from torch_iir.compiler.rewrites import bank, cascade

REWRITES: dict[str, Callable[[Graph], None]] = {
    bank.NAME: bank.rewrite,
    cascade.NAME: cascade.rewrite,
}
