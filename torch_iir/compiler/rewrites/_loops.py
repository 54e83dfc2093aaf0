"""What a loop took apart, or made one by one, as one tensor again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from torch_iir.compiler._calls import read
from torch_iir.compiler._graph import Builder, is_tensor, known, tensor


@dataclass(frozen=True)
class Part:
    """``whole.select(dim, index)``; where the dimension is kept, ``whole.narrow(dim, index, 1)``."""

    whole: Node
    dim: int
    index: int
    kept: bool


def part(node: Any) -> Part | None:
    """Which part of a tensor a node takes, None if it does something else."""
    call = read(node)
    if call is None:
        return None
    if call.name == "select":
        return _part(call["input"], call["dim"], call["index"])
    if call.name == "narrow" and call["length"] == 1:
        return _part(call["input"], call["dim"], call["start"], kept=True)
    if call.name != "getitem":
        return None
    source = read(call["input"])
    if source is not None and source.name == "unbind":
        return _part(source["input"], source["dim"], call["index"])
    return _indexed(call["input"], call["index"]) if is_tensor(call["input"]) else None


def _indexed(whole: Node, index: Any) -> Part | None:
    """``whole[:, 3]`` and ``whole[:, 3:4]``."""
    taken = [(dim, entry) for dim, entry in enumerate(entries(whole, index)) if entry != slice(None)]
    if len(taken) != 1:
        return None
    dim, entry = taken[0]
    if not isinstance(entry, slice):
        return _part(whole, dim, entry)
    start = 0 if entry.start is None else entry.start
    single = type(start) is int and type(entry.stop) is int and entry.stop == start + 1 and entry.step in (None, 1)
    return _part(whole, dim, start, kept=True) if single else None


def entries(node: Node, index: Any) -> list[Any]:
    """What ``node[index]`` takes of each dimension, and None for each new one."""
    found = list(index) if isinstance(index, tuple) else [index]
    missing = tensor(node).dim() - sum(entry is not None and entry is not Ellipsis for entry in found)
    at = next((at for at, entry in enumerate(found) if entry is Ellipsis), len(found))
    found[at : at + 1] = [slice(None)] * missing
    return found


def _part(whole: Any, dim: Any, index: Any, kept: bool = False) -> Part | None:
    if not is_tensor(whole) or type(dim) is not int or type(index) is not int or index < 0:
        return None
    return Part(whole, dim % tensor(whole).dim(), index, kept)


def whole(new: Builder, nodes: Sequence[Node], after: int, joined: bool = False) -> Node | None:
    """As `together`, of nodes that are neighbouring parts of one tensor, in order; None if they are not."""
    at, joined = _place(nodes[0], after, joined)
    first = part(nodes[0])
    if first is None or first.kept is not joined or (joined and first.dim != at):
        return None
    for step, node in enumerate(nodes):
        if part(node) != Part(first.whole, first.dim, first.index + step, first.kept):
            return None
    found = first.whole
    if first.index or not known(tensor(found).shape[first.dim] == len(nodes)):
        found = new(torch.narrow, found, first.dim, first.index, len(nodes))
    if first.dim != at:
        found = new(torch.movedim, found, first.dim, at)
    return _aligned(new, found, nodes[0], after)


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


def _place(node: Node, after: int, joined: bool) -> tuple[int, bool]:
    """Where the dimension goes, and whether it is one that the value has."""
    before = tensor(node).dim() - after
    joined = joined and before > 0
    return max(before - joined, 0), joined


def _aligned(new: Builder, found: Node, node: Node, after: int) -> Node:
    missing = after - tensor(node).dim()
    return new.item(found, (slice(None), *[None] * missing)) if missing > 0 else found
