"""A product of spectra that is transformed back becomes an operator from real numbers to real numbers.

    irfft(rfft(x, n) · rfft(h, n), n)                →  fftconvolve(x, h, 0, n, False, 0, 0)
    irfft(rfft(x, n) · rfft(b, n) / rfft(a, n), n)   →  lfilter_fsm(F.pad(x, (0, n − T)), b, a, n)

with the transforms of torch.fft or of torch_iir.fft, over the last dimension, in any order of factors, and with norms
that make up 1/n together. Several quotients are the sections of a cascade. Of a result that is only used cut to
[..., :T], for T samples of x, no more than that is computed.

Why it is equal: the transform of n points of a sequence that is not longer than n is that of the sequence with zeros
behind, and products of transforms belong to circular convolutions. With T + K − 1 ≤ n no sample of x * h, which has so
many, meets another one modulo n: the circular convolution is the linear one, with zeros behind. If n is less, the last
T + K − 1 − n of them are added to as many at the beginning. From there on the two are equal, which is enough where only
that is used. rfft(b, n) / rfft(a, n) at bin k is Σ b_m e^{−2πjkm/n} / Σ a_m e^{−2πjkm/n}, the response that lfilter_fsm
multiplies by, at those n points: for any poles, a0 and n. It computes the response in double.

What is saved are complex tensors, of which autograd keeps several, transforms of coefficients, and for a kernel much
shorter than the signal most of the transforms: fftconvolve goes through the signal in blocks. It does not fire where
a spectrum is used elsewhere too, where n is less than a sequence is long, or not known not to be, where the kernel is
nearly as long as the signal, or a numerator or denominator has more coefficients than a section of a filter has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, hint, known, tensor
from torch_iir.compiler.rewrites._time import (
    Piece,
    added_rows,
    is_last,
    piece,
    replace_used,
    size,
    total,
    value,
)

NAME = "spectral_product"

# Measured on one core, forwards and in training. The response of a section is evaluated as polynomials, which takes
# longer than an FFT from some 16 coefficients on. For a kernel that does not fit into the signal some times, blocks of
# the signal are no shorter than all of it.
LONGEST_SECTION = 16
SHORTER = 4

_RFFT, _IRFFT = ("rfft", "iir_rfft"), ("irfft", "iir_irfft")
_NORMS = {None: 0, "backward": 0, "ortho": 1, "forward": 2}  # the power of 1/√n


@dataclass(frozen=True)
class _Spectrum:
    """rfft(input, n) · n^{−norm / 2}, broadcast with others after dimensions of size 1 were added, one by one."""

    input: Node
    n: Any
    norm: int
    added: tuple[int, ...]

    @property
    def samples(self) -> Any:
        return tensor(self.input).shape[-1]


@dataclass
class _Product:
    """Π numerators / Π denominators; `inner` are the nodes on the way to them, `others` what no rfft made."""

    numerators: list[_Spectrum] = field(default_factory=list)
    denominators: list[_Spectrum] = field(default_factory=list)
    inner: list[Node] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)

    @property
    def spectra(self) -> list[_Spectrum]:
        return [*self.numerators, *self.denominators]


@dataclass(frozen=True)
class _Result:
    """irfft, of n points."""

    node: Node
    n: Any  # the argument, None for the default
    norm: int

    @property
    def points(self) -> Any:
        return tensor(self.node).shape[-1]


def rewrite(graph: Graph) -> None:
    """Looks at the product in front of every inverse transform."""
    for call in graph.calls(*_IRFFT):
        if not is_last(call.arguments.get("dim", -1), call["input"]) or tensor(call.node).device.type != "cpu":
            continue
        product = _Product()
        _factorise(product, call["input"])
        if len(product.spectra) < 2:
            continue
        result = _Result(call.node, call["n"], _norm(call, inverse=True))
        why = _why_not(product, result)
        if why:
            graph.missed(NAME, call.node, why)
        elif product.denominators:
            _sampled(graph, product, result)
        else:
            _convolved(graph, product, result)


def _factorise(product: _Product, node: Any, added: tuple[int, ...] = (), *, inverted: bool = False) -> None:
    """Collects what a node is a product of, with the dimensions that are added to it."""
    if isinstance(node, (int, float)) and node == 1:
        return
    call = read(node)
    if call is None:
        product.others.append(node)
        return
    product.inner.append(node)
    if call.name in ("mul", "div") and call.arguments.get("rounding_mode") is None:
        _factorise(product, call["input"], added, inverted=inverted)
        _factorise(product, call["other"], added, inverted=inverted ^ (call.name == "div"))
    elif (rows := added_rows(call)) is not None:
        _factorise(product, call["input"], (*rows, *added), inverted=inverted)
    elif call.name in _RFFT and is_last(call.arguments.get("dim", -1), call["input"]):
        spectrum = _Spectrum(call["input"], call["n"], _norm(call), added)
        (product.denominators if inverted else product.numerators).append(spectrum)
    else:
        product.others.append(node)


def _norm(call: Call, inverse: bool = False) -> int:
    """The power of 1/√n that a transform is multiplied by."""
    norm = call["norm"]
    if isinstance(norm, int):  # of our operators
        return norm
    return 2 - _NORMS[norm] if inverse else _NORMS[norm]


def _why_not(product: _Product, result: _Result) -> str | None:
    spectra, points = product.spectra, result.points
    if product.others:
        return "a factor is not the rfft of a signal"
    if any(len(node.users) > 1 for node in product.inner):
        return "a spectrum, or a product of some, is used elsewhere too"
    if any(tensor(spectrum.input).dtype not in (torch.float32, torch.float64) for spectrum in spectra):
        return "a signal is neither float32 nor float64"
    if not all(known(points == (s.samples if s.n is None else value(s.n))) for s in spectra):
        return "the transforms are not known to have the same number of points"
    if not all(known(s.samples <= points) for s in spectra):
        return "n is not known to be as large as the signals are long"
    norms = [sum(spectrum.norm for spectrum in some) for some in (product.numerators, product.denominators)]
    if norms[0] - norms[1] + result.norm != 2:
        return "the norms of the transforms do not make up 1/n"
    if len(product.numerators) > 2 and not product.denominators:
        return "more than two spectra are multiplied"
    return None


def _points(new: Builder, product: _Product, result: _Result) -> Any:
    """The number of points, as an argument."""
    given = [n for n in (result.n, *(spectrum.n for spectrum in product.spectra)) if n is not None]
    return given[0] if given else size(new, product.spectra[0].input)


def _signal(new: Builder, spectrum: _Spectrum) -> Node:
    node = spectrum.input
    for dim in spectrum.added:
        if -dim <= tensor(node).dim() + 1:  # else it is to the left of what there is
            node = new(torch.unsqueeze, node, dim)
    return node


def _longest(spectra: Sequence[_Spectrum]) -> _Spectrum:
    return max(spectra, key=lambda spectrum: hint(spectrum.samples))


def _cut(result: _Result) -> Piece | None:
    """The piece of the result that is used, if it is one."""
    if len(result.node.users) != 1:
        return None
    call = read(next(iter(result.node.users)))
    found = None if call is None else piece(call)
    return found if found is not None and found.is_of_all_rows() else None


# --- rfft(x) rfft(h)


def _convolved(graph: Graph, product: _Product, result: _Result) -> None:
    x = _longest(product.numerators)
    h = product.numerators[product.numerators[0] is x]
    cut, points = _cut(result), result.points
    start = 0 if cut is None or not known(value(*cut.start) >= 0) else value(*cut.start)
    if SHORTER * hint(h.samples) > hint(x.samples):
        return
    if not known(points + start >= x.samples + h.samples - 1):
        graph.missed(NAME, result.node, "the convolution wraps around: n is not known to be T + K − 1 or more")
        return

    def build(new: Builder, cut: Piece | None) -> Node:
        n = _points(new, product, result)
        start, length = (0, n) if cut is None else _span(new, cut, n)
        return new(
            torch.ops.torch_iir.fftconvolve.default, _signal(new, x), _signal(new, h), start, length, False, 0, 0
        )

    if (
        cut is None
        or not _is_inside(cut, points)
        or not replace_used(graph, NAME, cut.node, lambda new: build(new, cut))
    ):
        graph.replace(NAME, result.node, lambda new: build(new, None))


def _is_inside(cut: Piece, points: Any) -> bool:
    """Whether the ends of a piece are surely between 0 and n, so that they are not cut down to that."""
    ends = value(*cut.start), value(*cut.stop) if cut.stop else points
    return known(ends[0] >= 0) and known(ends[1] >= ends[0]) and known(ends[1] <= points)


def _span(new: Builder, cut: Piece, n: Any) -> tuple[Any, Any]:
    """Start and length of a piece, as arguments."""
    return total(new, cut.start), total(new, cut.stop or (n,), cut.start)


# --- rfft(x) rfft(b) / rfft(a)


def _sampled(graph: Graph, product: _Product, result: _Result) -> None:
    if not product.numerators:
        return
    x = _longest(product.numerators)
    b, a = [spectrum for spectrum in product.numerators if spectrum is not x], product.denominators
    if any(hint(spectrum.samples) > LONGEST_SECTION for spectrum in (*b, *a)):
        return

    def build(new: Builder, behind: bool) -> Node:
        n, signal = _points(new, product, result), _signal(new, x)
        if behind:
            signal = new(F.pad, signal, (0, total(new, (n,), (size(new, signal),))))
        sections = max(len(b), len(a))
        coefficients = [_cascade(new, some, sections, a[0].input) for some in (b, a)]
        return new(torch.ops.torch_iir.lfilter_fsm.default, signal, *coefficients, n)

    cut = _cut(result)
    behind = not known(x.samples == result.points)
    if (
        not behind
        or cut is None
        or not cut.starts_at_0()
        or not known(tensor(cut.node).shape[-1] == x.samples)
        or not replace_used(graph, NAME, cut.node, lambda new: build(new, behind=False))
    ):
        graph.replace(NAME, result.node, lambda new: build(new, behind))


def _cascade(new: Builder, spectra: Sequence[_Spectrum], sections: int, like: Node) -> Node:
    """The coefficients (..., sections, K), those of the sections that have none 1."""
    rows = [_signal(new, spectrum) for spectrum in spectra]
    rows += [new("new_ones", like, (1,)) for _ in range(sections - len(rows))]
    if sections == 1:
        return new(torch.unsqueeze, rows[0], -2)
    lengths = [tensor(row).shape[-1] for row in rows]
    if not all(isinstance(length, int) for length in lengths):
        raise Refused("the numbers of coefficients are not known")
    longest = max(lengths)
    padded = [new(F.pad, row, (0, longest - length)) for row, length in zip(rows, lengths, strict=True)]
    together = new(torch.broadcast_tensors, *padded)
    return new(torch.stack, [new.item(together, index) for index in range(sections)], -2)
