"""A filter between two reversals in time becomes the filter that runs backwards, without the reversals.

    lfilter(x.flip(-1), b, a).flip(-1)  →  lfilter_backward(x, None, x, b, a, None, x, GX)[0]

and `sosfilt` likewise. Several filters in a row, elementwise operations between the reversals, such as the clamping of
`functional.lfilter`, and changes of layout, as they stand around a filter along another axis, are taken along.

Why it is equal: a filter from rest is y = F x with a lower triangular Toeplitz matrix, and with R, which reverses time,
R F R = Fᵀ. That is what the gradient of the filter multiplies by: gx = Fᴴ gy, for Fᵀ with the conjugate coefficients.
With output_mask GX, its arguments x and y only tell the shape of gx. Elementwise operations commute with R. The
gradient of the filter is an operator like any other, differentiable to any order and in both directions.

What is saved is to read and to write the signal twice. It does not fire where a signal in between, or a final state, is
used elsewhere too, where a filter starts from a state, where the reversals are over other dimensions too, and where a
cascade between them needs a gradient: the second derivatives of `sosfilt` are computed section by section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, is_tensor, same_shape, tensor
from torch_iir.compiler.rewrites._elementwise import signal
from torch_iir.compiler.rewrites._filters import FILTERS
from torch_iir.compiler.rewrites._loops import entries
from torch_iir.ops.lfilter import GX
from torch_iir.ops.sosfilt import FOR_X

NAME = "reversal"

_lfilter_backward = torch.ops.torch_iir.lfilter_backward.default
_sosfilt_backward = torch.ops.torch_iir.sosfilt_backward.default


_LAYOUT = ("movedim", "transpose", "permute", "unsqueeze")


@dataclass(frozen=True)
class _Step:
    """What computes `node` from `input` between the reversals, by a filter if there is one; `why` it must not be."""

    node: Node
    input: Node
    filter: Call | None = None
    why: str | None = None


def rewrite(graph: Graph) -> None:
    """Looks from every reversal for another one in front of it, with filters in between."""
    for last in graph.calls("flip"):
        found = _between(graph, last)
        if found is None:
            continue
        first, steps = found
        if why := _why_not(graph, first, last, steps):
            graph.missed(NAME, last.node, why)
        else:
            graph.replace(NAME, last.node, partial(_built, first["input"], steps, last.node))


def _between(graph: Graph, last: Call) -> tuple[Call, list[_Step]] | None:
    """The reversal over the same axis before this one, and the steps from there to here, with a filter among them."""
    steps: list[_Step] = []
    node, axis = last["input"], _axis(last)
    while axis is not None:
        call = read(node)
        if call is not None and call.name == "flip":
            filtered = any(step.filter for step in steps)
            return (call, steps[::-1]) if filtered and _axis(call) == axis else None
        filter_ = graph.output(node, 0, *FILTERS)
        if filter_ is not None and axis == -1:
            step = _Step(node, filter_["x"], filter_)
        elif call is not None and (commuting := _commuting(call, axis)):
            step, axis = commuting
        else:
            return None
        steps.append(step)
        node = step.input
    return None


def _axis(flip: Call) -> int | None:
    """The dimension that is reversed, counted from the end; of several the last, which is a filter's time."""
    dims = tensor(flip.node).dim()
    axes = {axis % dims - dims for axis in flip["dims"]}
    return -1 if -1 in axes else axes.pop() if len(axes) == 1 else None


def _commuting(call: Call, axis: int) -> tuple[_Step, int | None] | None:
    """The step of an operation that commutes with reversals, and which axis of its input is this one of its output."""
    if not is_tensor(call.node):
        return None
    if call.name in _LAYOUT:
        return _Step(call.node, call["input"]), _axis_before(call, axis)
    if call.name == "contiguous":
        return _Step(call.node, call["input"]), axis
    if call.name == "getitem" and is_tensor(call["input"]):
        return _indexing(call, axis)
    found = signal(call)
    others = [value for value in call.arguments.values() if is_tensor(value) and value is not found]
    if found is None or (axis != -1 and any(tensor(other).dim() for other in others)):
        return None
    return _Step(call.node, found), axis


def _indexing(call: Call, axis: int) -> tuple[_Step, int | None] | None:
    """As _commuting; what is taken of other dimensions than the axis does not matter."""
    index = call["index"] if isinstance(call["index"], tuple) else (call["index"],)
    if not all(entry is None or entry is Ellipsis or isinstance(entry, (int, slice)) for entry in index):
        return None
    kept: list[tuple[int | None, Any]] = []  # of each dimension of the output: that of the input, and what is taken
    dim = -tensor(call["input"]).dim()
    for entry in entries(call["input"], index):
        if not isinstance(entry, int):
            kept.append((None if entry is None else dim, entry))
        dim += entry is not None
    before, taken = kept[axis]
    why = None if taken == slice(None) else "only a part of the filtered signal is reversed back"
    return None if before is None else (_Step(call.node, call["input"], why=why), before)


def _axis_before(call: Call, axis: int) -> int | None:
    """Where the axis of the output was before a change of layout: dimensions of different sizes are sent through it."""
    dims = tensor(call["input"]).dim()
    arguments = {name: value for name, value in call.arguments.items() if name != "input"}
    sizes = getattr(torch, call.name)(torch.empty(*range(2, dims + 2), device="meta"), **arguments).shape
    return None if sizes[axis] == 1 else sizes[axis] - 2 - dims


def _why_not(graph: Graph, first: Call, last: Call, steps: Sequence[_Step]) -> str | None:
    filters = [step.filter for step in steps if step.filter]
    if any(filter_["zi"] is not None for filter_ in filters):
        return "a filter between the reversals starts from a state"
    if any(len(set(flip["dims"])) > 1 for flip in (first, last)):
        return "the reversals are over other dimensions than time too"
    if why := next((step.why for step in steps if step.why), None):
        return why
    if any(1 in graph.outputs(filter_) for filter_ in filters):
        return "the final state of a filter between the reversals is used"
    if any(len(node.users) > 1 for node in (first.node, *(step.node for step in steps), *(f.node for f in filters))):
        return "a signal between the reversals is used elsewhere too"
    if tensor(last.node).requires_grad and any(filter_.name == "sosfilt" for filter_ in filters):
        return "a cascade needs a gradient, and that of a reversed one is slower: it goes section by section"
    return None


def _built(x: Node, steps: Sequence[_Step], last: Node, new: Builder) -> Node:
    """All steps on the signal as it was before the reversals."""
    for step in steps:
        x = _reversed(new, step.node, step.filter, x) if step.filter else new.again(step.node, {step.input: x})
    # Where the reversal made a copy of a part of the filters' outputs, this is a view of it.
    if not same_shape(tensor(x).stride(), tensor(last).stride()):
        x = new("contiguous", x)
    return x


def _reversed(new: Builder, y: Node, filter_: Call, x: Node) -> Node:
    """The filter, whose output was y, run backwards over x."""
    if tensor(x).dtype != tensor(y).dtype:
        raise Refused("the coefficients are complex, and the signal is real")
    cascade = filter_.name == "sosfilt"
    given = [filter_["sos"]] if cascade else [filter_["b"], filter_["a"]]
    coefficients = [new(torch.conj_physical, node) if tensor(node).is_complex() else node for node in given]
    if not same_shape(tensor(x).shape, tensor(y).shape):  # the result has that of x, over which it would be summed
        samples = (..., 0, slice(None, 1)) if cascade else (..., slice(None, 1))
        x = new.item(new(torch.broadcast_tensors, x, *(new.item(node, samples) for node in coefficients)), 0)
    if cascade:
        return new.item(new(_sosfilt_backward, x, None, x, *coefficients, None, FOR_X), 0)
    return new.item(new(_lfilter_backward, x, None, x, *coefficients, None, x, GX), 0)
