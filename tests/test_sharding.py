"""Ops on DTensors: every strategy of every op on two ranks, against the op on the whole tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor

from torch_iir import _sharding
from torch_iir._registration import Op
from torch_iir.ops import OPS

distributed = pytest.importorskip("torch.distributed.tensor")
debug = pytest.importorskip("torch.distributed.tensor.debug")
DTensor, Partial, Replicate, Shard = (getattr(distributed, n) for n in ("DTensor", "Partial", "Replicate", "Shard"))


def mesh_of(*shape: int) -> Any:
    return torch.distributed.device_mesh.init_device_mesh("cpu", shape)


def placed(tensor: Tensor, mesh: Any, *placements: Any) -> Any:
    """The tensor distributed, without a word between the ranks. The terms of a partial one are not equal."""
    if not isinstance(placements[0], Partial):
        return distributed.distribute_tensor(tensor, mesh, placements, src_data_rank=None)
    local = tensor - 1 if mesh.get_local_rank() else torch.ones_like(tensor)
    return DTensor.from_local(local, mesh, placements, run_check=False)


def overload(op: type[Op]) -> Any:
    return getattr(torch.ops.torch_iir, op.name).default


def outputs_of(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def strategies(op: type[Op], args: tuple[Any, ...], mesh: Any) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """Placements of the outputs and the arguments, and the arguments so placed, where each rank has a part of them."""
    tensors = range(len(op.core))
    described = [placed(arg, mesh, Replicate())._spec if isinstance(arg, Tensor) else arg for arg in args]
    found = _sharding._strategies(op)(*described)
    batch = max(args[i].dim() - core for i, core in zip(tensors, op.core.values(), strict=True) if args[i] is not None)
    assert len(found) <= 1 + batch + len(op.linear) + bool(op.independent)
    for outputs, inputs in found:
        pairs = [(args[i], inputs[i]) for i in tensors]
        if all(not isinstance(placement, Shard) or arg.shape[placement.dim] > 1 for arg, placement in pairs):
            here = [None if arg is None else placed(arg, mesh, placement) for arg, placement in pairs]
            yield outputs, inputs, [*here, *args[len(pairs) :]]


def close(result: Any, target: Tensor | None, case: str) -> None:
    if target is not None:
        torch.testing.assert_close(result.full_tensor(), target, msg=lambda message: f"{case}: {message}")


def run_every_strategy() -> set[str]:
    """Nothing is sent, and results are the parts of those of whole tensors that they claim to be."""
    mesh, kinds = mesh_of(2), set()
    for op in OPS:
        for args in op.samples():
            expected = outputs_of(overload(op)(*args))
            for outputs, inputs, arguments in strategies(op, args, mesh):
                with debug.CommDebugMode() as sent:
                    results = outputs_of(overload(op)(*arguments))
                case = f"{op.name} {inputs} -> {outputs}"
                assert sent.get_total_counts() == 0, case
                assert [result.placements for result in results] == [(placement,) for placement in outputs], case
                for result, target in zip(results, expected, strict=True):
                    close(result, target, case)
                kinds.update(f"{op.name} {type(placement).__name__}" for placement in inputs)
    return kinds


def test_every_strategy_of_every_op() -> None:
    kinds = ranks.run(run_every_strategy, 2)[0]
    assert kinds >= {f"{op.name} Shard" for op in OPS} | {f"{op.name} Partial" for op in OPS if op.linear}


def squares(outputs: Any) -> Any:
    """A function of all outputs that have derivatives and were asked for."""
    terms = [output.abs().square().sum() for output in outputs_of(outputs) if output.dtype != torch.int32]
    return torch.stack(terms).sum()


def run_derivatives() -> None:
    mesh = mesh_of(2)
    for op in OPS:
        samples = [args for args in op.samples() if all(arg.numel() for arg in args if isinstance(arg, Tensor))]
        sharded = [[case for case in strategies(op, args, mesh) if Shard in map(type, case[1])] for args in samples]
        args, cases = max(zip(samples, sharded, strict=True), key=lambda sample: len(sample[1]))
        whole = [arg.detach().clone().requires_grad_() if isinstance(arg, Tensor) else arg for arg in args]
        squares(overload(op)(*whole)).backward()
        for _, inputs, arguments in cases:
            leaves = [arg.detach().requires_grad_() if isinstance(arg, DTensor) else arg for arg in arguments]
            squares(overload(op)(*leaves)).backward()
            for leaf, target in zip(leaves, whole, strict=True):
                if isinstance(leaf, DTensor):
                    assert (leaf.grad is None) == (target.grad is None)
                    close(leaf.grad, target.grad, f"gradients of {op.name} {inputs}")


def test_derivatives() -> None:
    """Of every op, without create_graph; of the ops that are gradients themselves they are second derivatives."""
    ranks.run(run_derivatives, 2)
