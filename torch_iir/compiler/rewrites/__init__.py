"""The rewrites, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Callable

from torch_iir.compiler._graph import Graph
from torch_iir.compiler.rewrites import bank, cascade, gain, reversal, scan

REWRITES: dict[str, Callable[[Graph], None]] = {
    scan.NAME: scan.rewrite,  # what it makes may be of a bank or a cascade
    bank.NAME: bank.rewrite,
    reversal.NAME: reversal.rewrite,
    gain.NAME: gain.rewrite,
    cascade.NAME: cascade.rewrite,
}
