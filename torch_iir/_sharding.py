"""How DTensor may split the arguments of the ops: what each declares, as strategies of torch.distributed.tensor.

A strategy places the outputs and the arguments on one dimension of a mesh so that every rank runs the op on what it
holds, and nothing is sent. An op has these:

    everything replicated
    a batch dimension, sharded wherever it is; an output that is summed over it is partial
    a group of arguments in which the op is linear, all partial: so are the outputs
    a last dimension of independent columns or frequencies, sharded; a gradient of what they share is partial

DTensor makes those of a mesh of several dimensions of them, and moves data where none fits.

They are registered when torch.distributed.tensor is imported, by whomever: importing it here would double the time that
`import torch_iir` takes. What is private to DTensor stands in this file only.
"""

from __future__ import annotations

import importlib.abc
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_iir._registration import Op

_DTENSOR = "torch.distributed.tensor"

Strategy = tuple[list[Any], list[Any]]  # placements of the outputs, and of the arguments, None for what is no tensor


def register_when_imported(ops: Sequence[type[Op]]) -> None:
    """Registers the strategies of the ops with DTensor: now, if it is imported, otherwise as soon as it is."""
    if _DTENSOR in sys.modules:
        _try_to_register(ops)
    else:
        sys.meta_path.insert(0, _AfterImport(_DTENSOR, lambda: _try_to_register(ops)))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function when a module has been imported, which the finders after this one find."""

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self._name, self._function = name, function

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                break
        else:
            return None
        loader: Any = spec.loader  # each spec has one of its own, and whoever asks sees what it is
        execute = loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            execute(module)
            # Some ask for a spec and import nothing, and an import may fail: this is done only now.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._function()

        loader.exec_module = execute_and_call
        return spec


def numbers(count: int, like: Tensor) -> Tensor:
    """0, 1, … count − 1 in float64 where another tensor is: on its device, and on its mesh if it is a DTensor."""
    if isinstance(like, _distributed):
        return like.new_ones(count, dtype=torch.float64).cumsum(0) - 1
    return torch.arange(count, dtype=torch.float64, device=like.device)


_distributed: tuple[type, ...] = ()  # DTensor, once it is imported


def _try_to_register(ops: Sequence[type[Op]]) -> None:
    try:
        _register(ops)
    except (ImportError, AttributeError, TypeError) as error:  # torch.compile imports DTensor, and shall not break
        warnings.warn(
            f"the operators of torch_iir take no DTensors of torch {torch.__version__}: {error}", stacklevel=2
        )


def _register(ops: Sequence[type[Op]]) -> None:
    global _distributed
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._op_schema import OpSchema, OpStrategy, RuntimeSchemaInfo
    from torch.distributed.tensor._ops.utils import expand_to_full_mesh_op_strategy

    _distributed = (DTensor,)

    def registered(op: type[Op], overload: Any) -> None:
        strategies, outputs = _strategies(op), len(overload._schema.returns)

        def on_mesh(schema: OpSchema) -> OpStrategy:
            args = schema.args_schema
            mesh = next(arg.mesh for arg in args if isinstance(arg, OpStrategy))
            given = [arg.strategies[0].output_spec if isinstance(arg, OpStrategy) else arg for arg in args]
            each = [placed + arguments for placed, arguments in strategies(*given)]
            return expand_to_full_mesh_op_strategy(mesh, schema, each, input_index=outputs)

        propagator = DTensor._op_dispatcher.sharding_propagator
        propagator.register_op_strategy(overload, on_mesh, RuntimeSchemaInfo(static_argnum=0))

    # The public register_sharding is this, but for two things: it remembers strategies by the arguments from the first
    # int on, and it takes a bool before that to tell the dtype of a result, or which of two tensors of one shape is
    # absent; and in torch 2.11 it wants the first argument to be there.
    for op in ops:
        registered(op, getattr(torch.ops.torch_iir, op.name).default)


class _Described(NamedTuple):
    """A tensor of which no values are known; outputs have the name of the argument that they are like, if of any."""

    name: str | None
    core: int
    shape: tuple[int, ...]


def _strategies(op: type[Op]) -> Callable[..., list[Strategy]]:
    """What DTensor asks for the strategies: a function of the arguments, with descriptions in the place of tensors."""
    from torch.distributed.tensor import Partial, Placement, Replicate, Shard

    def strategies(*args: Any) -> list[Strategy]:
        arguments = [  # a trailing default is dropped
            None if arg is None else _Described(name, core, tuple(arg.shape))
            for (name, core), arg in zip(op.core.items(), args, strict=False)
        ]
        batch = max(len(argument.shape) - argument.core for argument in arguments if argument is not None)
        shapes = [tuple(output.shape) for output in op.fake(*_meta(op, args))]
        outputs = (
            [_Described(name, op.core[name], shape) for name, shape in zip(op.like, shapes, strict=True)]
            if op.like
            else [_Described(None, len(shape) - batch, shape) for shape in shapes]
        )

        def strategy(place: Callable[[_Described], Placement | None]) -> Strategy:
            """From where a tensor is placed; the other arguments are replicated, and the other outputs partial."""
            return (
                [Replicate() if output.shape == (0,) else place(output) or Partial() for output in outputs],
                [None if argument is None else place(argument) or Replicate() for argument in arguments],
            )

        def by_batch(back: int) -> Strategy:
            def place(tensor: _Described) -> Placement | None:
                dim = len(tensor.shape) - tensor.core - back
                return Shard(dim) if dim >= 0 and tensor.shape[dim] != 1 else None

            return strategy(place)

        def by_linearity(group: tuple[str, ...]) -> Strategy:
            return strategy(lambda tensor: Partial() if tensor.name in group else None)

        def by_independence(tensor: _Described) -> Placement | None:
            own = tensor.name is None or tensor.name in op.independent
            return Shard(len(tensor.shape) - 1) if own else None

        batches = (by_batch(back) for back in range(1, batch + 1))
        return [
            strategy(lambda _: Replicate()),
            # What has the size 1 in all of them cannot be sharded, nor is it summed over.
            *(found for found in batches if any(isinstance(placement, Shard) for placement in found[1])),
            *map(by_linearity, op.linear),
            *([strategy(by_independence)] if op.independent else ()),
        ]

    return strategies


def _meta(op: type[Op], args: Sequence[Any]) -> list[Any]:
    """The arguments with tensors in the place of their descriptions."""
    return [
        arg
        if index >= len(op.core) or arg is None
        else torch.empty(arg.shape, dtype=arg.tensor_meta.dtype, device="meta")
        for index, arg in enumerate(args)
    ]
