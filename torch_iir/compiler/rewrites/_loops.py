"""What a loop took apart, or made one by one, as one tensor again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torch_iir.compiler._calls import read
from torch_iir.compiler._graph import Builder, is_tensor, known, tensor


def together(new: Builder, nodes: Sequence[Node], after: int, joined: bool = False) -> Node:
    """The values of the nodes in one tensor, in a new dimension with `after` dimensions behind it.

    Where the values have fewer dimensions, they get more of size 1. If `joined`, the dimension is not a new one but one
    that they have, of size 1, unless they have too few.
    """
    found = whole(new, nodes, after, joined)
    if found is not None:
        return found
    at, joined = _place(nodes[0], after, joined)
    return _aligned(new, new(torch.cat if joined else torch.stack, list(nodes), at), nodes[0], after)


def whole(new: Builder, nodes: Sequence[Node], after: int, joined: bool = False) -> Node | None:
    """As `together`, of ``x[0]``, ``x[1]``, … or the like, which is x; None if the nodes are something else."""
    at, joined = _place(nodes[0], after, joined)
    taken = [entry for node in nodes if (entry := _taken(node)) is not None]
    if len(taken) < len(nodes) or len(nodes) < 2:
        return None
    (source, indices), (_, others) = taken[:2]
    varying = [dim for dim, (one, other) in enumerate(zip(indices, others, strict=False)) if one != other]
    if len(varying) != 1:
        return None
    dim, first = varying[0], _start(indices[varying[0]], joined)
    before = sum(isinstance(entry, slice) for entry in indices[:dim])
    if first is None or (joined and before != at):
        return None
    for step, (other, others) in enumerate(taken, first):
        expected = [*indices[:dim], slice(step, step + 1) if joined else step, *indices[dim + 1 :]]
        if others != expected or not new.graph.same(source, other):
            return None
    rest = [*indices[:dim], slice(None), *indices[dim + 1 :]]
    found = source if all(entry == slice(None) for entry in rest) else new.item(source, tuple(rest))
    if first or not known(tensor(found).shape[before] == len(nodes)):
        found = new(torch.narrow, found, before, first, len(nodes))
    if before != at:
        found = new(torch.movedim, found, before, at)
    return _aligned(new, found, nodes[0], after)


def entries(node: Node, index: Any) -> list[Any]:
    """What ``node[index]`` takes of each dimension, and None for each new one."""
    found = list(index) if isinstance(index, tuple) else [index]
    missing = tensor(node).dim() - sum(entry is not None and entry is not Ellipsis for entry in found)
    at = next((at for at, entry in enumerate(found) if entry is Ellipsis), len(found))
    found[at : at + 1] = [slice(None)] * missing
    return found


def _taken(node: Node) -> tuple[Node, list[Any]] | None:
    """What a node is a part of, and the number or the slice that it takes of each dimension."""
    call = read(node)
    if call is None or call.name not in ("select", "narrow", "getitem"):
        return None
    source, dim, index = call["input"], call.arguments.get("dim"), call.arguments.get("index")
    if call.name == "narrow":
        start, length = call["start"], call["length"]
        index = slice(start, start + length) if type(start) is int and type(length) is int else None
    if call.name == "getitem" and (unbound := read(source)) is not None and unbound.name == "unbind":
        source, dim = unbound["input"], unbound["dim"]
    if not is_tensor(source) or type(dim) not in (int, type(None)):
        return None
    found = entries(source, index) if dim is None else [slice(None)] * tensor(source).dim()
    if dim is not None:
        found[dim] = index
    found = [_plain(entry) for entry in found]
    return (source, found) if all(type(entry) in (int, slice) for entry in found) else None


def _plain(entry: Any) -> Any:
    """Slices that are the same are equal then."""
    if not isinstance(entry, slice) or entry == slice(None):
        return entry
    return slice(0 if entry.start is None else entry.start, entry.stop, None if entry.step == 1 else entry.step)


def _start(entry: Any, kept: bool) -> int | None:
    """The number that is taken, or sliced if the dimension is kept; None if it is none, or counts from the end."""
    start = entry.start if kept and isinstance(entry, slice) else entry
    return start if type(start) is int and start >= 0 else None


def _place(node: Node, after: int, joined: bool) -> tuple[int, bool]:
    """Where the dimension goes, and whether it is one that the value has."""
    before = tensor(node).dim() - after
    joined = joined and before > 0
    return max(before - joined, 0), joined


def _aligned(new: Builder, found: Node, node: Node, after: int) -> Node:
    missing = after - tensor(node).dim()
    return new.item(found, (slice(None), *[None] * missing)) if missing > 0 else found
