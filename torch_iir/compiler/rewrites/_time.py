"""What is taken of the last dimension, and what is done to the dimensions before it; sizes as arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, is_tensor, known, same_shape, tensor
from torch_iir.compiler.rewrites._filters import FILTERS
from torch_iir.compiler.rewrites._loops import entries

# --- sizes


def value(*terms: Any) -> Any:
    """The sum of numbers, and of nodes that compute them."""
    return sum(term.meta["example_value"] if isinstance(term, Node) else term for term in terms)


def total(new: Builder, plus: Sequence[Any], minus: Sequence[Any] = ()) -> Any:
    """The same sum, less others, as an argument: a number if it is one, else a node."""
    numbers = sum(term for term in plus if not isinstance(term, Node))
    result: Any = numbers - sum(term for term in minus if not isinstance(term, Node))
    for term in plus:
        if isinstance(term, Node):
            result = new(operator.add, term, result) if result else term
    for term in minus:
        if isinstance(term, Node):
            result = new(operator.sub, result, term)
    return result


def size(new: Builder, node: Node, dim: int = -1) -> Any:
    """The size of a tensor, as an argument."""
    known_size = tensor(node).shape[dim]
    return known_size if isinstance(known_size, int) else new("size", node, dim)


# --- time


@dataclass(frozen=True)
class Piece:
    """``input[*rows, start:stop]``; start and stop are sums of their terms, and without terms the ends."""

    node: Node
    input: Node
    rows: tuple[Any, ...]
    start: tuple[Any, ...]
    stop: tuple[Any, ...]

    def starts_at_0(self) -> bool:
        return known(value(*self.start) == 0)

    def is_of_all_time(self) -> bool:
        return self.starts_at_0() and not self.stop

    def is_of_all_rows(self) -> bool:
        return all(map(is_whole, self.rows))


def piece(call: Call) -> Piece | None:
    """What a call takes of the last dimension of a tensor, None if it does something else."""
    if call.name == "narrow" and is_last(call["dim"], call["input"]):
        whole = (slice(None),) * (tensor(call["input"]).dim() - 1)
        return Piece(call.node, call["input"], whole, (call["start"],), (call["start"], call["length"]))
    if call.name != "getitem" or not is_tensor(call["input"]) or not tensor(call["input"]).dim():
        return None
    index = call["index"] if isinstance(call["index"], tuple) else (call["index"],)
    if not all(entry is None or entry is Ellipsis or type(entry) in (int, slice) for entry in index):
        return None
    *rows, time = entries(call["input"], index)
    if not isinstance(time, slice) or time.step not in (None, 1):
        return None
    start, stop = (() if end is None else (end,) for end in (time.start, time.stop))
    return Piece(call.node, call["input"], tuple(rows), start, stop)


def is_last(dim: Any, node: Any) -> bool:
    """Whether this is a number of the last dimension of a node's tensor."""
    return type(dim) is int and is_tensor(node) and dim in (-1, tensor(node).dim() - 1)


def is_whole(entry: Any) -> bool:
    """Whether an index takes all of a dimension, in order."""
    return isinstance(entry, slice) and entry.start in (None, 0) and entry.stop is None and entry.step in (None, 1)


# --- the dimensions before time


def changes_rows(call: Call) -> bool:
    """Whether a call only changes dimensions before the last, or takes a piece of the last, or both."""
    if call.name in ("squeeze", "select"):
        dims = call["dim"] if isinstance(call["dim"], (tuple, list)) else (call["dim"],)
        return all(type(dim) is int and not is_last(dim, call["input"]) for dim in dims)
    if call.name in ("reshape", "flatten"):
        samples = [tensor(node).shape[-1:] for node in (call["input"], call.node)]
        return min(map(len, samples)) == 1 and same_shape(*samples)
    return added_rows(call) is not None or piece(call) is not None


def added_rows(call: Call) -> tuple[int, ...] | None:
    """Where a call puts dimensions of size 1 before the last, from the last to the first; None if it does otherwise.

    They are counted from the end, as they are in tensors that this one is to be broadcast with.
    """
    if call.name == "unsqueeze":
        dim, dims = call["dim"], tensor(call.node).dim()
        return (dim % dims - dims,) if type(dim) is int and not is_last(dim, call.node) else None
    part = piece(call)
    if part is None or not part.is_of_all_time() or not all(row is None or is_whole(row) for row in part.rows):
        return None
    return tuple(-2 - back for back, row in enumerate(reversed(part.rows)) if row is None)


def repeated(new: Builder, calls: Sequence[Call], node: Node) -> Node:
    """A node after what these calls, in order, do to the rows of the input of the first; all of its time."""
    for call in calls:
        part = piece(call)
        if call.name == "reshape":
            node = new(torch.reshape, node, (*call["shape"][:-1], size(new, node)))
        elif part is None:
            node = new.again(call.node, {call["input"]: node})
        elif not part.is_of_all_rows():
            node = new.item(node, (*part.rows, slice(None)))
    return node


# --- what follows


def replace_used(graph: Graph, rewrite: str, old: Node, build: Callable[[Builder], Node]) -> bool:
    """As graph.replace, of what may have other strides, where the only operation that uses it gives the same then."""
    if tensor(old).dim() == 1:
        return graph.replace(rewrite, old, build) is not None
    if len(old.users) != 1 or not (results := _results(graph, old)):
        return False
    (user,) = old.users

    def build_user(new: Builder) -> Sequence[Node]:
        again = new.again(user, {old: build(new)})
        if results == [user]:
            return [again]
        return [new.item(again, item["index"]) for result in results if (item := read(result))]

    return graph.replace_all(rewrite, results, build_user) is not None


def _results(graph: Graph, node: Node) -> list[Node]:
    """The results of the operation that uses a node, if they are the same for any strides of the node.

    A view's are not, and nothing is known about the strides that the caller of the graph wants.
    """
    (user,) = node.users
    if is_tensor(user):
        shared = tensor(user).untyped_storage()._cdata == tensor(node).untyped_storage()._cdata
        return [] if shared else [user]
    call = read(user)
    outputs = {} if call is None or call.name not in FILTERS else graph.outputs(call)
    return [] if -1 in outputs else sorted(result for results in outputs.values() for result in results)
