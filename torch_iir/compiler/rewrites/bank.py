"""A loop of filters over one input, their outputs stacked, becomes one bank of filters.

    torch.stack([lfilter(x, b_i, a_i) for i in range(n)], dim)  →  lfilter(x′, b′, a′)

where x′ is x with a dimension of size 1 in the place of the stack's, and b′, a′ are the coefficients stacked there (the
tensor itself, where they are b[0], b[1], …). `sosfilt` and `cat` along a dimension of size 1 likewise. The inputs may
also be the channels of one signal in order, and filters themselves, so that a loop of chains becomes a chain of banks.
Between the filters and after them may stand the same elementwise operations, and reversals in time, for each filter.

Why it is equal: the leading dimensions of the ops broadcast, and row i of the result is the filter of row i of each
argument, L(x′, b′, a′)[…, i, …] = L(x′_i, b′_i, a′_i) = L(x, b_i, a_i). Positions counted from the end stay the same
under broadcasting, so that the dimension is put into every argument at the stack's distance from the end. Elementwise
operations and reversals commute with stacking. Coefficients that are shorter than others get zeros at their ends, which
add nothing to the sums of the recursion. With an input that is not finite they do, 0 · ∞, but what a recursive filter
makes of it is not finite anyway, from there on; filters without recursion are not filled up.

It does not fire where the output of a filter is used elsewhere too, its final state is used or it starts from a state,
the inputs differ otherwise, or what follows the filters does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, is_tensor, known, same_shape, tensor
from torch_iir.compiler.rewrites import _elementwise as elementwise
from torch_iir.compiler.rewrites._filters import FILTERS
from torch_iir.compiler.rewrites._loops import entries, together, whole

NAME = "bank"

# The tensor arguments of the filters, and their dimensions below the batch.
_CORES = {"lfilter": {"x": 1, "b": 1, "a": 1}, "sosfilt": {"x": 1, "sos": 2}}


def rewrite(graph: Graph) -> None:
    """Makes banks of what is stacked, or concatenated."""
    for call in graph.calls("stack", "cat"):
        if not _is_list(call):
            continue
        opened = [inner for node in call["tensors"] if (inner := _opened(call, node)) is not None]
        nodes = opened if len(opened) == len(call["tensors"]) else call["tensors"]
        joined = call.name == "cat" and nodes is not opened
        if joined and _behind(call) == 0:
            continue  # one signal after another in time
        if sum(_filter(graph, node) is not None for node in nodes) > 1:
            graph.replace(NAME, call.node, partial(_bank, graph, call, nodes, joined))


def _bank(graph: Graph, call: Call, nodes: Sequence[Node], joined: bool, new: Builder) -> Node:
    for index, node in enumerate(nodes):
        if _filter(graph, node) is None:
            raise Refused(f"tensor {index} of the {call.name} is not the output of a filter")
    after = _behind(call)
    if joined and not all(known(tensor(node).shape[-1 - after] == 1) for node in nodes):
        raise Refused("the outputs do not all have size 1 along the dimension of the cat: stack them")
    in_time = after == 0  # the dimension comes after time
    loop = _Loop(graph, new, 1 if in_time else after, joined)
    if call.name == "cat":
        loop.claim(call["tensors"])
    result = loop.signals(nodes, "the filters are followed by different operations")
    if result is None:
        raise Refused("the filters are all the same: one is enough")
    return new("contiguous", new(torch.transpose, result, -2, -1)) if in_time else result


class _Loop:
    """What was done for each filter, done for all of them.

    A list of nodes has one for each filter. The methods return the node that has them all, in a dimension with `after`
    dimensions behind it, time included, or None where all are one value.
    """

    def __init__(self, graph: Graph, new: Builder, after: int, joined: bool) -> None:
        self.graph = graph
        self.new = new
        self.after = after
        self.joined = joined

    def signals(self, nodes: Sequence[Node], otherwise: str) -> Node | None:
        """Of outputs of filters, and their inputs; `otherwise` is what is wrong where they have nothing in common."""
        if all(node is nodes[0] for node in nodes):
            return None
        filters = [call for node in nodes if (call := self.graph.output(node, 0, *_CORES))]
        if len(filters) == len(nodes):
            return self._filters(nodes, filters)
        small = all(map(elementwise.is_timeless, nodes)) and _filter(self.graph, nodes[0]) is None
        steps = [call for node in nodes if (call := read(node)) and _signal(call) is not None]
        if len(steps) == len(nodes) and len({call.name for call in steps}) == 1 and not small:
            return self._steps(nodes, steps, otherwise)
        if self._same(nodes):
            return None
        if small and self._alike(nodes, 0):
            return together(self.new, nodes, self.after, self.joined)
        found = whole(self.new, nodes, self.after, self.joined)
        if found is None:
            raise Refused(otherwise)
        return found

    def claim(self, nodes: Sequence[Node]) -> None:
        """Raises unless the nodes are used for the stack alone."""
        if len(set(nodes)) < len(nodes):
            raise Refused("the output of one filter is used for several")
        for index, node in enumerate(nodes):
            if len(node.users) != 1:
                raise Refused(f"the output of filter {index} is used elsewhere too")

    def _filters(self, nodes: Sequence[Node], calls: Sequence[Call]) -> Node | None:
        name = calls[0].name
        if any(call.name != name for call in calls):
            raise Refused("some of the filters are lfilter, some sosfilt")
        for index, call in enumerate(calls):
            if call["zi"] is not None:
                raise Refused(f"filter {index} starts from a state")
        forever = name == "lfilter" and all(known(tensor(call["a"]).shape[-1] > 1) for call in calls)
        cores = _CORES[name]
        varying = {"x": self.signals([call["x"] for call in calls], "the filters have different inputs")}
        for argument in list(cores)[1:]:
            given = [call[argument] for call in calls]
            varying[argument] = self._coefficients(given, cores[argument], forever)
        if not any(varying.values()):
            return None
        self.claim(nodes)
        for index, call in enumerate(calls):
            if len(call.node.users) != 1:
                raise Refused(f"filter {index} is used elsewhere too: its output, or its final state")
        arguments = [varying[name] or self._shared(calls[0][name], core) for name, core in cores.items()]
        result = self.new.item(self.new(FILTERS[name], *arguments, None), 0)
        return self._checked(result, nodes)

    def _steps(self, nodes: Sequence[Node], calls: Sequence[Call], otherwise: str) -> Node | None:
        """Of what elementwise operations, or reversals, make of signals and numbers."""
        first = calls[0]
        everything: dict[Node, Node] = {}
        for name, value in first.arguments.items():
            given = [call[name] for call in calls]
            if not is_tensor(value):
                if not self._same(given):
                    raise Refused(otherwise)
            elif not all(map(is_tensor, given)):
                raise Refused(otherwise)
            elif (varying := self.signals(given, otherwise)) is not None:
                everything[value] = varying
        if not everything:
            return None
        if _filter(self.graph, nodes[0]) is not None:
            self.claim(nodes)
        tensors = [value for value in first.arguments.values() if is_tensor(value)]
        if len({tensor(value).device for value in tensors}) > 1:
            raise Refused("a number that the filters are scaled by is on another device")
        for value in tensors:
            if value not in everything:
                everything[value] = self._shared(value, 1)
        if first.name == "flip":
            return self.new(torch.flip, everything[first["input"]], (-1,))
        return self._checked(self.new.again(first.node, everything), nodes)

    def _coefficients(self, nodes: Sequence[Node], core: int, may_pad: bool) -> Node | None:
        if self._same(nodes):
            return None
        if not self._alike(nodes, core):
            raise Refused("the coefficients of the filters have different batch dimensions")
        lengths = [tensor(node).shape[-core:] for node in nodes]
        if not all(same_shape(length, lengths[0]) for length in lengths):
            if core > 1:
                raise Refused("the filters have different numbers of sections")
            if not may_pad or not all(isinstance(length[0], int) for length in lengths):
                raise Refused("the coefficients of the filters have different lengths: append zeros")
            longest = max(length[0] for length in lengths)
            nodes = [
                node if length[0] == longest else self.new(F.pad, node, (0, longest - length[0]))
                for node, length in zip(nodes, lengths, strict=True)
            ]
        return together(self.new, nodes, self.after - 1 + core, self.joined)

    def _shared(self, node: Node, core: int) -> Node:
        """A value of all filters, so that it broadcasts with those that each has its own of."""
        before = tensor(node).dim() - (self.after - 1 + core)
        return node if self.joined or before <= 0 else self.new(torch.unsqueeze, node, before)

    def _same(self, values: Sequence[Any]) -> bool:
        return all(self.graph.same(values[0], value) for value in values)

    def _alike(self, nodes: Sequence[Node], core: int) -> bool:
        """Whether all shapes are the same, apart from the last dimensions."""
        shapes = [tensor(node).shape[: tensor(node).dim() - core] for node in nodes]
        return all(same_shape(shape, shapes[0]) for shape in shapes)

    def _checked(self, result: Node, nodes: Sequence[Node]) -> Node:
        for node in nodes:
            if tensor(node).dtype != tensor(result).dtype:
                raise Refused(f"the outputs would be {tensor(result).dtype}, not {tensor(node).dtype}")
        return result


def _filter(graph: Graph, node: Any) -> Call | None:
    """The filter that a node comes from, by elementwise operations and reversals."""
    while isinstance(node, Node):
        if call := graph.output(node, 0, *_CORES):
            return call
        node = _signal(read(node))
    return None


def _signal(call: Call | None) -> Node | None:
    """What an elementwise operation, or a reversal in time, is applied to; the other arguments are numbers."""
    if call is None:
        return None
    if call.name == "flip":
        return call["input"] if call["dims"] in ((-1,), (tensor(call.node).dim() - 1,)) else None
    return elementwise.signal(call)


def _opened(call: Call, node: Node) -> Node | None:
    """What of a cat has got its dimension only for it, as by unsqueeze; a stack of that is the same."""
    item = read(node)
    if call.name != "cat" or item is None or not is_tensor(item.arguments.get("input")):
        return None
    rank, behind = tensor(node).dim(), _behind(call)
    if item.name == "unsqueeze":
        fits = type(item["dim"]) is int and item["dim"] % rank == rank - 1 - behind
    else:
        added = [slice(None)] * (rank - 1 - behind) + [None] + [slice(None)] * behind
        fits = item.name == "getitem" and entries(item["input"], item["index"]) == added
    return item["input"] if fits else None


def _is_list(call: Call) -> bool:
    """Whether a stack, or a cat, is of tensors of as many dimensions, along a dimension that is known."""
    nodes = call["tensors"]
    return (
        isinstance(nodes, (tuple, list))
        and all(map(is_tensor, [call.node, *nodes]))
        and len({tensor(node).dim() for node in nodes}) == 1
        and type(call["dim"]) is int
    )


def _behind(call: Call) -> int:
    """How many dimensions of a stack, or of a cat, come after its own."""
    rank = tensor(call.node).dim()
    behind: int = rank - 1 - call["dim"] % rank
    return behind
