"""What a function computes from the slices of sequences, computed for all slices at once.

A sequence has time in front. Of the functions listed here it is known that, given sequences, they compute the sequence
of what they compute from slices: functions of single elements, where dimensions of 1 stand behind time for those that a
slice lacks; and those that act along dimensions, where these are counted from the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node, map_arg
from torch.fx.node import map_aggregate

from torch_iir.compiler._calls import FORMS, Call, read
from torch_iir.compiler._graph import Builder, Refused, is_tensor, same_shape, tensor, tensors, title


@dataclass(frozen=True)
class Value:
    """A node of the graph that is being made, for a node of the graph for slices; timed if it is a sequence."""

    node: Any
    timed: bool = False

    @property
    def rank(self) -> int:
        """The number of dimensions of a slice."""
        return tensor(self.node).dim() - self.timed


class Slices:
    """Makes nodes for all slices at once; there are as many as in the sequence that is given."""

    def __init__(self, new: Builder, sequence: Node) -> None:
        self.new = new
        self.sequence = sequence

    @cached_property
    def samples(self) -> int | Node:
        """How many slices there are."""
        return self.size(self.sequence, 0)

    def size(self, node: Node, dim: int) -> int | Node:
        """A number, or the node that computes it."""
        size = tensor(node).shape[dim]
        return size if isinstance(size, int) else self.new("size", node, dim)

    def apply(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Value:
        """A function of single elements."""
        values = [value for value in _values([args, kwargs]) if is_tensor(value.node)]
        rank = max((value.rank for value in values), default=0)
        args, kwargs = _mapped([args, kwargs], lambda value: self._padded(value, rank))
        return Value(self.new(function, *args, **kwargs), any(value.timed for value in values))

    def whole(self, value: Value, like: Node | None = None) -> Value:
        """As a sequence; its slices get the shape of a tensor, if one is given."""
        if value.timed and (like is None or same_shape(tensor(value.node).shape[1:], tensor(like).shape)):
            return value
        if like is None:
            shape: list[int | Node] = [-1] * value.rank
        else:
            shape = [self.size(like, dim) for dim in range(tensor(like).dim())]
        return Value(self.new("expand", self._padded(value, len(shape)), self.samples, *shape), True)

    def time_last(self, value: Value, rank: int) -> Node:
        """(…, T) for slices of a rank; (…, 1) for what is no sequence."""
        if not value.timed:
            return self.new(torch.unsqueeze, value.node, -1)
        node: Node = self._padded(value, rank)
        return self.new(torch.movedim, node, 0, -1) if rank else node

    def slice(self, value: Value) -> Node:
        """The first of a sequence."""
        return self.new(torch.select, value.node, 0, 0) if value.timed else value.node

    def compute(self, node: Node, given: Mapping[Node, Value]) -> Value:
        """What a node computes from these values of its arguments."""
        try:
            made = self._computed(node, given)
        except (RuntimeError, TypeError, ValueError, IndexError):  # what a function says of shapes that do not suit it
            made = None
        if made is None:
            raise Refused(f"{title(node)} is not known to do to a sequence what it does to each of its slices")
        of_one, of_all = (list(tensors(one.meta["example_value"])) for one in (node, made.node))
        if len(of_one) != len(of_all) or any(
            one.dtype != all_of_them.dtype or not same_shape(one.shape, all_of_them.shape[made.timed :])
            for one, all_of_them in zip(of_one, of_all, strict=False)
        ):
            raise Refused(f"{title(node)} of a sequence has another shape or dtype than of its slices")
        return made

    def _padded(self, value: Value, rank: int) -> Any:
        """With dimensions of 1 behind time, for slices of a rank."""
        if not value.timed or value.rank >= rank:
            return value.node
        return self.new.item(value.node, (slice(None), *(None,) * (rank - value.rank)))

    # --- functions

    def _computed(self, node: Node, given: Mapping[Node, Value]) -> Value | None:
        """The call of a function that is listed, None if it is not."""
        args, kwargs = _looked_up([node.args, node.kwargs], given)
        call, name, target = read(node), title(node), node.target
        if name in ("clone", "contiguous") and isinstance(args[0], Value):
            return args[0]
        if node.op == "call_method" and name in _CASTS:
            of, *others = _mapped(args, lambda value: value.node)
            return Value(self.new(target, of, *others, **kwargs), args[0].timed)
        if _is_pointwise(node):
            return self.apply(target, *args, **kwargs)
        if not _is_listed(node, call):
            return None
        if not any(value.timed for value in _values([args, kwargs])):
            args, kwargs = _mapped([args, kwargs], lambda value: value.node)
            return Value(self.new(target, *args, **kwargs))
        if target is getattr:
            return self._attribute(*args)
        if call is None:
            return None
        arguments = {name: _looked_up(call[name], given) for name in FORMS[call.name].parameters}
        if name in _ALONG:
            return self._along(name, **arguments)
        structured: Callable[..., Value | None] = getattr(self, f"_{name}")
        return structured(**arguments)

    def _attribute(self, input: Value, name: str) -> Value | None:
        if name in ("T", "mT") and input.rank != 2:
            return None
        return Value(self.new(getattr, input.node, "mT" if name == "T" else name), True)

    def _along(self, name: str, input: Value, **others: Any) -> Value | None:
        rank = input.rank
        for parameter in _DIMS & others.keys():
            dims = _backwards(others[parameter], rank + (name == "unsqueeze"))
            if dims is None and name in _REDUCES:
                dims = tuple(range(-rank, 0))
            others[parameter] = dims
            if dims is None or (not rank and name != "unsqueeze"):
                return None
        if any(is_tensor(value.node) for value in _values(others)):
            return None
        others = _mapped(others, lambda value: value.node)
        return Value(self.new(getattr(torch, name), input.node, *others.values()), True)

    def _getitem(self, input: Value, index: Any) -> Value | None:
        if not is_tensor(input.node):
            return Value(self.new.item(input.node, index), True)
        indices = index if isinstance(index, tuple) else (index,)
        basic = all(item is None or item is Ellipsis or type(item) in (int, slice, Value) for item in indices)
        if not basic or any(is_tensor(value.node) for value in _values(indices)):
            return None
        return Value(self.new.item(input.node, (slice(None), *_mapped(indices, lambda value: value.node))), True)

    def _stack(self, tensors: Sequence[Value], dim: Any, more: int = 1) -> Value | None:
        rank = tensors[0].rank
        dim = _backwards(dim, rank + more)
        nodes = [self.whole(value).node for value in tensors]
        return None if dim is None else Value(self.new(torch.stack if more else torch.cat, nodes, dim), True)

    def _cat(self, tensors: Sequence[Value], dim: Any) -> Value | None:
        return self._stack(tensors, dim, 0) if tensors[0].rank else None

    def _expand(self, input: Value, shape: Sequence[Any]) -> Value | None:
        sizes = _sizes(shape)
        return (
            None
            if sizes is None
            else Value(self.new("expand", self._padded(input, len(sizes)), self.samples, *sizes), True)
        )

    def _reshape(self, input: Value, shape: Sequence[Any]) -> Value | None:
        sizes = _sizes(shape)
        return None if sizes is None else Value(self.new(torch.reshape, input.node, (self.samples, *sizes)), True)

    def _permute(self, input: Value, dims: Sequence[Any]) -> Value | None:
        back = _backwards(dims, input.rank)
        return None if back is None else Value(self.new(torch.permute, input.node, (0, *back)), True)

    def _flatten(self, input: Value, start_dim: Any, end_dim: Any) -> Value | None:
        dims = _backwards((start_dim, end_dim), input.rank)
        return Value(self.new(torch.flatten, input.node, *dims), True) if dims is not None and input.rank else None

    def _linear(self, input: Value, weight: Value, bias: Value | None) -> Value | None:
        if not input.rank or weight.timed or (bias is not None and bias.timed):
            return None
        return Value(self.new(F.linear, input.node, weight.node, None if bias is None else bias.node), True)

    def _matmul(self, input: Value, other: Value) -> Value | None:
        ranks = input.rank, other.rank
        if min(ranks) >= 2:
            return self.apply(torch.matmul, input, other)
        if not other.timed and ranks != (1, 1) and other.rank <= 2:  # rows, or matrices, by the same
            return Value(self.new(torch.matmul, input.node, other.node), True)
        if not input.timed and ranks == (2, 1):
            return Value(self.new(F.linear, other.node, input.node), True)
        return None

    def _einsum(self, equation: str, operands: Sequence[Value]) -> Value | None:
        if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
            operands = operands[0]
        terms, arrow, result = equation.replace(" ", "").partition("->")
        time = next((letter for letter in ascii_letters if letter not in equation), None)
        if not arrow or "." in equation or time is None:
            return None
        timed = [time * value.timed + term for value, term in zip(operands, terms.split(","), strict=True)]
        equation = f"{','.join(timed)}->{time}{result}"
        return Value(self.new(torch.einsum, equation, *(value.node for value in operands)), True)


def lenders(node: Node) -> set[Node]:
    """The arguments of which only the shape or the dtype matters."""
    name = title(node)
    lent = node.args[:1] if name in _LEND else node.args[1:] if name in ("to", "type_as") else ()
    others = [arg for arg in (*node.args, *node.kwargs.values()) if not any(arg is one for one in lent)]
    return {arg for arg in lent if isinstance(arg, Node)} - {arg for arg in others if isinstance(arg, Node)}


def _looked_up(tree: Any, given: Mapping[Node, Value]) -> Any:
    """With values in the place of nodes."""
    lookup: Any = given.__getitem__
    return map_arg(tree, lookup)


def _mapped(tree: Any, function: Callable[[Value], Any]) -> Any:
    return map_aggregate(tree, lambda leaf: function(leaf) if isinstance(leaf, Value) else leaf)


def _values(tree: Any) -> list[Value]:
    found: list[Value] = []
    _mapped(tree, found.append)
    return found


def _backwards(dims: Any, rank: int) -> Any:
    """Dimensions counted from the end, None if they are no numbers."""
    if isinstance(dims, (tuple, list)):
        back = tuple(_backwards(dim, rank) for dim in dims)
        return None if None in back else back
    if type(dims) is not int:
        return None
    return dims if dims < 0 else dims - rank


def _sizes(shape: Sequence[Any]) -> list[Any] | None:
    """Numbers, or nodes that compute them; None if the shape is given otherwise."""
    sizes = [size.node if isinstance(size, Value) else size for size in shape]
    numbers = (int, torch.SymInt)
    plain = all(isinstance(s.meta["example_value"] if isinstance(s, Node) else s, numbers) for s in sizes)
    return sizes if plain else None


# --- which functions


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


_POINTWISE = _names(
    "abs absolute acos acosh add addcdiv addcmul arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan",
    "atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max clamp_min clip conj copysign",
    "cos cosh deg2rad detach div divide elu eq erf erfc erfinv exp exp2 expit expm1 fix float_power floor floor_divide",
    "fmax fmin fmod frac ge gelu greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh hypot isfinite",
    "isinf isnan ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and",
    "logical_not logical_or logical_xor logit logsigmoid lt masked_fill maximum minimum mish mul multiply nan_to_num",
    "ne neg negative not_equal polar positive pow rad2deg reciprocal relu relu6 remainder round rsqrt rsub selu sgn",
    "sigmoid sign silu sin sinc sinh softplus softshrink softsign sqrt square sub subtract tan tanh tanhshrink",
    "threshold true_divide trunc where xlogy",
)
_OPERATORS = _names("abs add and_ eq floordiv ge gt invert le lt mod mul ne neg or_ pos pow sub truediv xor")
_FUNCTIONS = {getattr(operator, name) for name in _OPERATORS} | {
    function
    for module in (torch, torch.special, F)
    for name in _POINTWISE
    if callable(function := getattr(module, name, None))
}
_METHODS = _POINTWISE | {f"__{right}{name.strip('_')}__" for right in ("", "r") for name in _OPERATORS}
_CASTS = _names("to type_as float double half bfloat16 int long bool")
_LEND = _names("zeros_like ones_like full_like new_zeros new_ones new_full size aten.sym_size.int")
_CREATE = {getattr(torch, name) for name in _names("zeros ones full tensor arange linspace eye")}
_REDUCES = _names("sum mean amax amin")
_ALONG = _REDUCES | _names("select narrow unsqueeze squeeze transpose chunk split unbind flip softmax log_softmax")
_STRUCTURED = _names("getitem stack cat expand reshape permute flatten linear matmul einsum")
_DIMS = _names("dim dim0 dim1 dims")


def _is_pointwise(node: Node) -> bool:
    if node.kwargs.get("out") is not None or node.kwargs.get("inplace"):
        return False
    if node.op == "call_method":
        return node.target in _METHODS
    if node.target is torch.where:
        return len(node.args) == 3  # of a condition alone it gives indices
    return node.op == "call_function" and node.target in _FUNCTIONS


def _is_listed(node: Node, call: Call | None) -> bool:
    """Whether a function that is not of single elements is known to depend on nothing but its arguments."""
    if call is not None:
        return call.name in _ALONG | _STRUCTURED
    if node.target is getattr:
        return node.args[1] in ("T", "mT", "real", "imag")
    return node.target in _CREATE or title(node) in _LEND
