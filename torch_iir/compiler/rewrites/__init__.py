"""The rewrites, in the order in which they are done."""

from __future__ import annotations

from collections.abc import Callable

from torch_iir.compiler._graph import Graph
from torch_iir.compiler.rewrites import bank, cascade, conv1d_all_pole, fir, gain, reversal, scan, spectral_product

REWRITES: dict[str, Callable[[Graph], None]] = {
    scan.NAME: scan.rewrite,  # what it makes may be of a bank or a cascade
    bank.NAME: bank.rewrite,
    conv1d_all_pole.NAME: conv1d_all_pole.rewrite,
    spectral_product.NAME: spectral_product.rewrite,
    reversal.NAME: reversal.rewrite,
    gain.NAME: gain.rewrite,
    cascade.NAME: cascade.rewrite,
    fir.NAME: fir.rewrite,
}
