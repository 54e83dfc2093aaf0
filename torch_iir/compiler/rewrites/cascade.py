"""A chain of filters of order 2 or less becomes one cascade of second-order sections.

    lfilter(… lfilter(lfilter(x, b_1, a_1), b_2, a_2) …, b_S, a_S)  →  sosfilt(x, sos),  sos_s = [b_s, a_s]

with b_s and a_s filled up with zeros to three coefficients. Calls of `sosfilt` in the chain bring their sections along.
The longest chain is taken at once. What stands in front of a bank stays apart: it runs once for all its filters.

Why it is equal: both run u_s = (B_s/A_s) u_{s−1} from rest, one section after the other, with leading dimensions that
broadcast; a zero coefficient adds nothing to a recursion. Coefficients keep their dtype or are widened. The signals in
between are no longer written, nor rounded to the dtype of the signal as the chain rounds them after every filter: with
float16 or bfloat16 that is seen, and the result is closer to the exact one. From the first sample on that is not
finite, no output of a recursive filter is; so that this holds in both, one filter of the chain must be recursive.

It does not fire where a signal in between or a final state is used elsewhere too, where a filter starts from a state,
or where an operation stands between the filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, known, same_shape, tensor
from torch_iir.compiler.rewrites._filters import FILTERS
from torch_iir.compiler.rewrites._loops import together

NAME = "cascade"


def rewrite(graph: Graph) -> None:
    """Makes cascades of chains, each from its last filter on."""
    for last in reversed(list(graph.calls(*FILTERS))):
        if last.node._erased:
            continue
        chain = [last]
        while before := _before(graph, chain[0]):
            chain.insert(0, before)
        output = _output(graph, last)
        if output is not None and len(chain) > 1 and any(map(_is_recursive, chain)):
            graph.replace(NAME, output, partial(_cascade, chain))


def _before(graph: Graph, call: Call) -> Call | None:
    """The filter in front of one, if they can be sections of one cascade."""
    signal, output = call["x"], _output(graph, call)
    before = graph.output(signal, 0, *FILTERS)
    if before is None:
        clamp = read(signal)
        if clamp is not None and clamp.name == "clamp" and graph.output(clamp["input"], 0, *FILTERS):
            graph.missed(NAME, call.node, "the signal is clamped between the filters: pass clamp=False")
        return None
    if output is None or not same_shape(tensor(signal).shape, tensor(output).shape):
        return None
    why = _why_not(graph, call) or _why_not(graph, before) or graph.why_not([before.node, call.node])
    if why is None and (len(signal.users) > 1 or len(before.node.users) > 1):
        why = "the signal between the filters is used elsewhere too"
    if why is None and tensor(signal).dtype != tensor(output).dtype:
        why = "the signal becomes complex between the filters"
    if why is None:
        return before
    graph.missed(NAME, call.node, why)
    return None


def _why_not(graph: Graph, call: Call) -> str | None:
    """Why a filter cannot be sections of a cascade, None if it can."""
    if call["zi"] is not None:
        return "a filter starts from a state: let one sosfilt have the sections and their states"
    if graph.outputs(call).keys() != {0}:
        return "the final state of a filter is used: let one sosfilt have the sections and their states"
    if call.name == "sosfilt":
        return None
    lengths = [tensor(call[name]).shape[-1] for name in ("b", "a")]
    if any(known(length > 3) for length in lengths):
        return "a filter has an order above 2: design it as second-order sections"
    if not all(any(known(length == number) for number in (1, 2, 3)) for length in lengths):
        return "the number of coefficients is not known when it is compiled"
    return None


def _is_recursive(call: Call) -> bool:
    return call.name == "sosfilt" or known(tensor(call["a"]).shape[-1] > 1)


def _output(graph: Graph, call: Call) -> Node | None:
    """The node that takes the signal from a filter, if it is one."""
    nodes = graph.outputs(call).get(0, [])
    return nodes[0] if len(nodes) == 1 else None


def _cascade(chain: Sequence[Call], new: Builder) -> Node:
    blocks: list[Node] = []
    for name, group in groupby(chain, lambda call: call.name):
        calls = list(group)
        if name == "sosfilt":
            blocks += [call["sos"] for call in calls]
        else:
            halves = [_rows(new, [call[name] for call in calls]) for name in ("b", "a")]
            blocks.append(new(torch.cat, _broadcast(new, halves), -1))
    sos = blocks[0] if len(blocks) == 1 else _appended(new, blocks)
    return new.item(new(FILTERS["sosfilt"], chain[0]["x"], sos, None), 0)


def _rows(new: Builder, coefficients: Sequence[Node]) -> Node:
    """(..., S, 3) of S times (..., K), K ≤ 3."""
    length = tensor(coefficients[0]).shape[-1]
    if not all(known(tensor(node).shape[-1] == length) for node in coefficients):
        coefficients = [_filled(new, node) for node in coefficients]
    return _filled(new, together(new, _broadcast(new, coefficients), 1))


def _filled(new: Builder, coefficients: Node) -> Node:
    """With zeros up to three."""
    length = tensor(coefficients).shape[-1]
    missing = next(number for number in range(3) if known(length == 3 - number))
    return new(F.pad, coefficients, (0, missing)) if missing else coefficients


def _appended(new: Builder, blocks: Sequence[Node]) -> Node:
    """Sections (..., S, 6) after sections; their leading dimensions broadcast."""
    batches = [tensor(block).shape[:-2] for block in blocks]
    if all(same_shape(batch, batches[0]) for batch in batches):
        return new(torch.cat, list(blocks), -2)
    sections = [tensor(block).shape[-2] for block in blocks]
    if not all(isinstance(count, int) for count in sections):
        raise Refused("the number of sections is not known when it is compiled")
    unbound = [(new(torch.unbind, block, -2), count) for block, count in zip(blocks, sections, strict=True)]
    rows = [new.item(block, index) for block, count in unbound for index in range(count)]
    return new(torch.stack, _broadcast(new, rows), -2)


def _broadcast(new: Builder, nodes: Sequence[Node]) -> list[Node]:
    """Of one shape; sizes of the graph's own are not needed for that."""
    shape = tensor(nodes[0]).shape
    if all(same_shape(tensor(node).shape, shape) for node in nodes):
        return list(nodes)
    everything = new(torch.broadcast_tensors, *nodes)
    return [new.item(everything, index) for index in range(len(nodes))]
