"""Elementwise operations: which of their arguments is the signal, and which has no time."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_iir.compiler._calls import Call
from torch_iir.compiler._graph import is_tensor, known, tensor

NAMES = (
    *("mul", "div", "add", "sub", "neg", "abs", "exp", "log", "tanh"),
    *("sigmoid", "relu", "square", "sqrt", "pow", "clamp"),
)


def signal(call: Call) -> Node | None:
    """What an elementwise operation is applied to, if all its other arguments are the same at all times."""
    if call.name not in NAMES or not is_tensor(call.node):
        return None
    tensors = list(dict.fromkeys(value for value in call.arguments.values() if is_tensor(value)))
    signals = tensors if len(tensors) == 1 else [value for value in tensors if not is_timeless(value)]
    return signals[0] if len(signals) == 1 else None


def is_timeless(argument: Any) -> bool:
    """Whether an argument is a number, or a tensor without time: 0-dimensional, or of size 1 in the last dimension."""
    if is_tensor(argument):
        return tensor(argument).dim() == 0 or known(tensor(argument).shape[-1] == 1)
    value = argument.meta.get("example_value") if isinstance(argument, Node) else argument
    return isinstance(value, (int, float, complex, torch.SymInt, torch.SymFloat))
