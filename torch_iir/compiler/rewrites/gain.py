"""A product in front of a filter, or behind it, with a gain that is the same at all times, goes into the numerator.

    lfilter(g · x, b, a)    →  lfilter(x, g b, a)
    g · lfilter(x, b, a)    →  lfilter(x, g b, a)

and quotients and negatives likewise. In a cascade the gain goes into the numerator of the first section. g is a number,
a tensor without dimensions, or one that has size 1 in the place of time, such as (channels, 1). One without dimensions
is also found beyond a change of layout, as it stands around a filter along another axis.

Why it is equal: y[t] = Σ b_k x[t−k] − Σ a_k y[t−k] is linear in b. In front, the drive Σ b_k g x[t−k] is the same, and
so are y and all states. Behind, g y obeys the recursion with g b, and its state is g times that of y: an initial state
is scaled along. The dimensions of g but the last are those of the rows, as the leading dimensions of b are, and
broadcast with them. The product with b is computed in double, as the filter is: nothing is rounded that was not before.

What is saved is to read and to write the signal once. It does not fire where the product, or the output of the filter,
is used elsewhere too; behind a filter, where the final state is used, where g would add rows to the filter's, or where
nothing but g needs a gradient (the product has it from a sum, the filter from another filter backwards); where a real
filter would become a complex one; and where there are half as many coefficients as samples, or more.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, hint, is_tensor, same_shape, tensor
from torch_iir.compiler.rewrites._elementwise import is_timeless
from torch_iir.compiler.rewrites._filters import FILTERS, wide

NAME = "gain"

_COEFFICIENTS = {"lfilter": ("b", "a"), "sosfilt": ("sos",)}

# What a product with one number commutes with.
_LAYOUT = ("movedim", "transpose", "unsqueeze", "squeeze", "contiguous", "flip")


@dataclass(frozen=True)
class _Product:
    """``signal * gain``, or ``signal / gain``; between it and a filter lies `path`, changes of layout in order."""

    node: Node
    signal: Node
    gain: Any
    divides: bool
    path: tuple[Node, ...] = ()


Misses = list[tuple[Node, str]]


def rewrite(graph: Graph) -> None:
    """Folds gains into the filters that they stand in front of, then what is left into those that they stand behind."""
    misses: Misses = []
    for fold in (_fold_in_front, _fold_behind):
        for call in graph.calls(*FILTERS):
            filter_: Call | None = call
            while filter_ is not None:
                filter_ = fold(graph, filter_, misses)
    for node, why in misses:
        if not node._erased:  # it went into the filter on its other side
            graph.missed(NAME, node, why)


def _fold_in_front(graph: Graph, filter_: Call, misses: Misses) -> Call | None:
    """The filter with a gain from in front of it, None if there is none that fits."""
    product = _in_front(filter_["x"])
    outputs = graph.outputs(filter_)
    if product is None or not outputs or -1 in outputs:
        return None
    why = _why_not(filter_, product)
    if why is None and any(len(node.users) > 1 for node in (product.node, *product.path)):
        why = "the product is used elsewhere too"
    if why:
        misses.append((product.node, why))
        return None
    used = sorted((node, index) for index, nodes in outputs.items() for node in nodes)
    result = filter_.node

    def build(new: Builder) -> Sequence[Node]:
        nonlocal result
        x = _laid_out(new, product.path, product.node, product.signal)
        result = new(FILTERS[filter_.name], x, *_coefficients(new, filter_, product), filter_["zi"])
        return [new.item(result, index) for _, index in used]

    return read(result) if graph.replace_all(NAME, [node for node, _ in used], build) else None


def _fold_behind(graph: Graph, filter_: Call, misses: Misses) -> Call | None:
    """The filter with a gain from behind it, None if there is none that fits."""
    outputs = graph.outputs(filter_)
    if 0 not in outputs:
        return None
    y = outputs[0][0]
    product = _behind(y)
    if product is None:
        return None
    why = _why_not(filter_, product)
    if why is None and 1 in outputs:
        why = "the final state of the filter is used too"
    if why is None and any(len(node.users) > 1 for node in (filter_.node, y, *product.path)):
        why = "the output of the filter is used elsewhere too"
    if why is None and tensor(product.node).requires_grad and not tensor(y).requires_grad:
        why = "only the gain needs a gradient, which a product has for less than a filter"
    if why is None and not same_shape(tensor(product.node).shape, tensor(product.signal).shape):
        why = "the gain has more rows than the filter, which would have to run for each of them"
    if why:
        misses.append((product.node, why))
        return None
    result = filter_.node

    def build(new: Builder) -> Node:
        nonlocal result
        zi = filter_["zi"]
        if zi is not None:
            zi = _times(new, zi, product, 2 if filter_.name == "sosfilt" else 1)
        result = new(FILTERS[filter_.name], filter_["x"], *_coefficients(new, filter_, product), zi)
        return _laid_out(new, product.path, y, new.item(result, 0))

    return read(result) if graph.replace(NAME, product.node, build) else None


def _in_front(x: Any) -> _Product | None:
    """The product that the input of a filter is."""
    path: list[Node] = []
    while (product := _product(x)) is None:
        call = read(x)
        if call is None or call.name not in _LAYOUT or not is_tensor(call["input"]):
            return None
        path.insert(0, x)
        x = call["input"]
    return replace(product, path=tuple(path))


def _behind(y: Node) -> _Product | None:
    """The product that the output of a filter goes into."""
    path: list[Node] = []
    while True:
        for user in y.users:
            if product := _product(user, y):
                return replace(product, path=tuple(path))
        call = read(next(iter(y.users))) if len(y.users) == 1 else None
        if call is None or call.name not in _LAYOUT or call["input"] is not y:
            return None
        y = call.node
        path.append(y)


def _product(node: Any, signal: Node | None = None) -> _Product | None:
    """Of a signal, of this one if it is given, and a gain; one that changes over time is found if there is no other."""
    call = read(node)
    if call is None or call.name not in ("mul", "div", "neg") or call.arguments.get("rounding_mode"):
        return None
    sides = [(call["input"], call.arguments.get("other", -1))]
    if call.name == "mul":
        sides.append((call["other"], call["input"]))
    products = [
        _Product(call.node, this, gain, divides=call.name == "div")
        for this, gain in sides
        if is_tensor(this) and tensor(this).dim() and this is not gain and (signal is None or this is signal)
    ]
    return next((product for product in products if is_timeless(product.gain)), products[0] if products else None)


def _why_not(filter_: Call, product: _Product) -> str | None:
    if not is_timeless(product.gain):
        return "the gain changes over time"
    dtype, given = tensor(product.node).dtype, tensor(product.signal).dtype
    if dtype != given:
        return f"the gain makes {dtype} of a signal of {given}"
    gain = product.gain.meta["example_value"] if isinstance(product.gain, Node) else product.gain
    is_complex = gain.is_complex() if isinstance(gain, Tensor) else isinstance(gain, complex)
    if is_complex and not any(tensor(filter_[name]).is_complex() for name in _COEFFICIENTS[filter_.name]):
        return "a complex gain would make a complex filter of a real one"
    if product.path and isinstance(gain, Tensor) and gain.dim():
        return "dimensions are moved between the filter and a gain that has dimensions"
    return None


def _coefficients(new: Builder, filter_: Call, product: _Product) -> list[Node]:
    """Those of the filter, with the gain in the numerator."""
    if filter_.name == "lfilter":
        scaled = _times(new, filter_["b"], product, 1)
        result = [scaled, filter_["a"]]
    else:
        scaled = _times(new, filter_["sos"], product, 2)
        others = wide(new, filter_["sos"])
        if tensor(scaled).dim() > tensor(others).dim() or not same_shape(tensor(scaled).shape, tensor(others).shape):
            others = new("expand_as", others, scaled)
        first, rest = slice(None, 1), slice(1, None)
        numerator = new.item(scaled, (..., first, slice(None, 3)))
        denominator = new.item(others, (..., first, slice(3, None)))
        section = new(torch.cat, [numerator, denominator], -1)
        result = [new(torch.cat, [section, new.item(others, (..., rest, slice(None)))], -2)]
    if 2 * hint(tensor(scaled).numel()) > hint(tensor(product.node).numel()):
        raise Refused("the coefficients are half as many as the samples or more")
    return result


def _times(new: Builder, values: Node, product: _Product, core: int) -> Node:
    """The values, with `core` dimensions below the batch, times the gain."""
    gain = product.gain
    if is_tensor(gain) and tensor(gain).dim() and core == 2:
        gain = new(torch.unsqueeze, gain, -1)
    return new(operator.truediv if product.divides else operator.mul, wide(new, values), gain)


def _laid_out(new: Builder, path: Sequence[Node], instead_of: Node, node: Node) -> Node:
    """A node after the changes of layout that another one goes through."""
    for step in path:
        node, instead_of = new.again(step, {instead_of: node}), step
    return node
