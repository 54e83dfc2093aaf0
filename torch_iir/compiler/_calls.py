"""The many spellings of one operation in a graph that Dynamo made, read as one.

``x.flip(-1)``, ``torch.flip(x, [-1])`` and ``torch.flip(x, dims=(-1,))`` are the same call: Call("flip", {"input": x,
"dims": (-1,)}). Only what the rewrites look for is listed. In-place and ``out=`` forms are not listed: they are other
operations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node
from torch.fx.node import Argument

_REQUIRED = object()


@dataclass(frozen=True)
class Form:
    """An operation: the parameters with their defaults, in order; the functions and the methods that it is called by.

    ``gathers`` names the parameter that takes numbers one by one as well as in a sequence, as in ``x.flip(0, 1)``.
    Of the parameters, those in ``keywords`` are only given by name.
    """

    parameters: dict[str, Any]
    functions: tuple[Any, ...]
    methods: tuple[str, ...] = ()
    gathers: str = ""
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A node, read: ``call.name``, and the arguments by their names, defaults filled in."""

    node: Node
    name: str
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


def _form(
    parameters: str, *functions: Any, methods: str = "", gathers: str = "", keywords: str = "", **defaults: Any
) -> Form:
    """The parameters and the methods in one string each; those in keywords come after the others."""
    names = (*parameters.split(), *keywords.split())
    return Form(
        {name: defaults.get(name, _REQUIRED) for name in names},
        functions,
        tuple(methods.split()),
        gathers,
        tuple(keywords.split()),
    )


_ops = torch.ops.torch_iir
_pad: Any = torch._C._nn.pad  # what F.pad is in a graph

FORMS: dict[str, Form] = {
    "lfilter": _form("x b a zi", _ops.lfilter, _ops.lfilter.default, zi=None),
    "sosfilt": _form("x sos zi", _ops.sosfilt, _ops.sosfilt.default, zi=None),
    "getitem": _form("input index", operator.getitem, methods="__getitem__"),
    "select": _form("input dim index", torch.select, methods="select"),
    "unbind": _form("input dim", torch.unbind, methods="unbind", dim=0),
    "narrow": _form("input dim start length", torch.narrow, methods="narrow"),
    "stack": _form("tensors dim", torch.stack, dim=0),
    "cat": _form("tensors dim", torch.cat, torch.concat, torch.concatenate, dim=0),
    "flip": _form("input dims", torch.flip, methods="flip", gathers="dims"),
    "movedim": _form("input source destination", torch.movedim, torch.moveaxis, methods="movedim moveaxis"),
    "transpose": _form(
        "input dim0 dim1", torch.transpose, torch.swapaxes, torch.swapdims, methods="transpose swapaxes swapdims"
    ),
    "unsqueeze": _form("input dim", torch.unsqueeze, methods="unsqueeze"),
    "squeeze": _form("input dim", torch.squeeze, methods="squeeze", dim=None),
    "reshape": _form("input shape", torch.reshape, methods="reshape view", gathers="shape"),
    "contiguous": _form("input", methods="contiguous"),
    "mul": _form("input other", operator.mul, torch.mul, torch.multiply, methods="mul multiply __mul__ __rmul__"),
    "div": _form(
        "input other",
        operator.truediv,
        torch.div,
        torch.divide,
        torch.true_divide,
        methods="div divide true_divide __truediv__",
        keywords="rounding_mode",
        rounding_mode=None,
    ),
    "add": _form("input other", operator.add, torch.add, methods="add __add__ __radd__", keywords="alpha", alpha=1),
    "sub": _form(
        "input other",
        operator.sub,
        torch.sub,
        torch.subtract,
        methods="sub subtract __sub__",
        keywords="alpha",
        alpha=1,
    ),
    "neg": _form("input", operator.neg, torch.neg, torch.negative, methods="neg negative __neg__"),
    "abs": _form("input", operator.abs, torch.abs, torch.absolute, methods="abs absolute __abs__"),
    "exp": _form("input", torch.exp, methods="exp"),
    "log": _form("input", torch.log, methods="log"),
    "tanh": _form("input", torch.tanh, F.tanh, methods="tanh"),
    "sigmoid": _form("input", torch.sigmoid, F.sigmoid, methods="sigmoid"),
    "relu": _form("input inplace", torch.relu, F.relu, methods="relu", inplace=False),
    "square": _form("input", torch.square, methods="square"),
    "sqrt": _form("input", torch.sqrt, methods="sqrt"),
    "pow": _form("input exponent", operator.pow, torch.pow, methods="pow __pow__"),
    "clamp": _form("input min max", torch.clamp, torch.clip, methods="clamp clip", min=None, max=None),
    "pad": _form("input pad mode value", F.pad, _pad, mode="constant", value=None),
    "conv1d": _form(
        "input weight bias stride padding dilation groups",
        torch.conv1d,
        F.conv1d,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
    ),
    "rfft": _form("input n dim norm", torch.fft.rfft, n=None, dim=-1, norm=None),
    "irfft": _form("input n dim norm", torch.fft.irfft, n=None, dim=-1, norm=None),
    "iir_rfft": _form("input n norm", _ops.rfft, _ops.rfft.default),
    "iir_irfft": _form("input n norm", _ops.irfft, _ops.irfft.default),
    "clone": _form("input", torch.clone, methods="clone", keywords="memory_format", memory_format=None),
    "where": _form("condition input other", torch.where),
    "masked_fill": _form("input mask value", torch.masked_fill, methods="masked_fill"),
    "lerp": _form("input end weight", torch.lerp, methods="lerp"),
    "addcmul": _form("input tensor1 tensor2", torch.addcmul, methods="addcmul", keywords="value", value=1),
    "linear": _form("input weight bias", F.linear, bias=None),
    "matmul": _form("input other", operator.matmul, torch.matmul, methods="matmul"),
    "einsum": _form("equation operands", torch.einsum, gathers="operands"),
    "expand": _form("input shape", torch.broadcast_to, methods="expand broadcast_to", gathers="shape"),
    "permute": _form("input dims", torch.permute, methods="permute", gathers="dims"),
    "flatten": _form("input start_dim end_dim", torch.flatten, methods="flatten", start_dim=0, end_dim=-1),
    "chunk": _form("input chunks dim", torch.chunk, methods="chunk", dim=0),
    "split": _form("input split_size dim", torch.split, methods="split", dim=0),
    "sum": _form("input dim keepdim", torch.sum, methods="sum", dim=None, keepdim=False),
    "mean": _form("input dim keepdim", torch.mean, methods="mean", dim=None, keepdim=False),
    "amax": _form("input dim keepdim", torch.amax, methods="amax", dim=None, keepdim=False),
    "amin": _form("input dim keepdim", torch.amin, methods="amin", dim=None, keepdim=False),
    "softmax": _form("input dim", torch.softmax, F.softmax, methods="softmax"),
    "log_softmax": _form("input dim", torch.log_softmax, F.log_softmax, methods="log_softmax"),
}

_BY_FUNCTION = {function: name for name, form in FORMS.items() for function in form.functions}
_BY_METHOD = {method: name for name, form in FORMS.items() for method in form.methods}


def read(node: Any) -> Call | None:
    """The call that a node makes, None when it is none of the listed forms."""
    if not isinstance(node, Node):
        return None
    if node.op == "call_function":
        name = _BY_FUNCTION.get(node.target) if _hashable(node.target) else None
    else:
        name = _BY_METHOD.get(str(node.target)) if node.op == "call_method" else None
    if name is None or not (arguments := _bound(FORMS[name], node.args, node.kwargs)):
        return None
    if arguments.get("inplace"):
        return None
    return Call(node, name, arguments)


def reads(nodes: Iterator[Node], *names: str) -> Iterator[Call]:
    """The calls of these names among the nodes."""
    for node in nodes:
        call = read(node)
        if call is not None and call.name in names:
            yield call


def _bound(form: Form, args: tuple[Argument, ...], kwargs: dict[str, Argument]) -> dict[str, Any] | None:
    names = list(form.parameters)
    positional = list(args)
    if form.gathers and len(positional) >= len(names):
        at = names.index(form.gathers)
        if not isinstance(positional[at], (tuple, list)):
            positional[at:] = [tuple(positional[at:])]
    if len(positional) > len(names) - len(form.keywords):
        return None  # as it was long ago: add(x, alpha, y)
    if any(_ALIASES.get(name, name) not in names for name in kwargs):
        return None  # out=, dtype= and the like
    arguments = {name: default for name, default in form.parameters.items() if default is not _REQUIRED}
    arguments.update(zip(names, positional, strict=False))
    arguments.update((_ALIASES.get(name, name), value) for name, value in kwargs.items())
    if form.gathers and not _gather(arguments, form.gathers):
        return None
    if any(isinstance(number, Node) for name in _DIMENSIONS for number in _several(arguments.get(name))):
        return None  # a dimension that is known only when it runs
    return arguments if len(arguments) == len(names) else None


def _several(argument: Any) -> Sequence[Any]:
    return argument if isinstance(argument, (tuple, list)) else (argument,)


def _gather(arguments: dict[str, Any], name: str) -> bool:
    """Makes a tuple of the numbers; False where it is something else, as in ``x.view(torch.int32)``."""
    numbers = arguments.get(name, ())
    arguments[name] = tuple(numbers) if isinstance(numbers, (tuple, list)) else (numbers,)
    return not any(isinstance(number, torch.dtype) for number in arguments[name])


# Parameters that are dimensions.
_DIMENSIONS = ("dim", "dims", "dim0", "dim1", "source", "destination")

# Other names of the same parameters.
_ALIASES = {"x1": "input", "x2": "other", "axis": "dim", "size": "shape", "axis0": "dim0", "axis1": "dim1"}


def _hashable(target: Callable[..., Any] | str) -> bool:
    try:
        hash(target)
    except TypeError:
        return False
    return True
