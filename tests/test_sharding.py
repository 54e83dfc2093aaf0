"""Ops on DTensors: every strategy of every op on two ranks, against the op on the whole tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor

from torch_iir import _sharding, signal
from torch_iir._registration import Op
from torch_iir.fft import rfft
from torch_iir.nn import BiquadBank, LFilter, ParametricEQ, SOSFilter
from torch_iir.ops import OPS
from torch_iir.ops.freqz import Freqz
from torch_iir.ops.lfilter_tv import LFilterTV

if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.experimental import implicit_replication


def mesh_of(*shape: int) -> Any:
    return init_device_mesh("cpu", shape)


def placed(tensor: Tensor, mesh: Any, *placements: Any) -> Any:
    """The tensor distributed, without a word between the ranks. The terms of a partial one are not equal."""
    if not isinstance(placements[0], Partial):
        return distribute_tensor(tensor, mesh, placements, src_data_rank=None)
    local = tensor - 1 if mesh.get_local_rank() else torch.ones_like(tensor)
    return DTensor.from_local(local, mesh, placements, run_check=False)


def overload(op: type[Op]) -> Any:
    return getattr(torch.ops.torch_iir, op.name).default


def has_flip(mesh: Any) -> bool:
    """Whether DTensor has it, as that of torch 2.11 has not."""
    try:
        placed(torch.ones(2), mesh, Replicate()).flip(-1)
    except NotImplementedError:
        return False
    return True


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
        seen = set()
        for args in op.samples():
            expected = outputs_of(overload(op)(*args))
            imaginary = any(isinstance(arg, Tensor) and arg.is_complex() for arg in args)
            for outputs, inputs, arguments in strategies(op, args, mesh):
                kind = str(inputs), str(outputs), imaginary
                if kind in seen:
                    continue
                seen.add(kind)
                with CommDebugMode() as sent:
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
        if op.name.startswith(("nnls", "freqz_", "lfilter_fsm_")) and not has_flip(mesh):
            cases = []  # nor has it matrix products that are sharded in any batch dimension, or remembers how it pads
        for _, inputs, arguments in cases[:1] if op.like else cases:  # second derivatives are many calls
            leaves = [arg.detach().requires_grad_() if isinstance(arg, DTensor) else arg for arg in arguments]
            squares(overload(op)(*leaves)).backward()
            for leaf, target in zip(leaves, whole, strict=True):
                if isinstance(leaf, DTensor):
                    assert (leaf.grad is None) == (target.grad is None)
                    close(leaf.grad, target.grad, f"gradients of {op.name} {inputs}")


def test_derivatives() -> None:
    """Of every op, without create_graph; of the ops that are gradients themselves they are second derivatives."""
    ranks.run(run_derivatives, 2)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


B = torch.tensor([0.2, 0.3, 0.1], dtype=torch.float64)
A = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
SOS = torch.cat([B, A]).expand(2, 6)


def on(mesh: Any, placement: Any, *tensors: Tensor) -> list[Any]:
    return [placed(tensor, mesh, placement).requires_grad_() for tensor in tensors]


def filter_both(b: Tensor, a: Tensor, sos: Tensor, x: Tensor) -> Tensor:
    y: Tensor = signal.sosfilt(sos, signal.lfilter(b, a, x))
    return y


def run_public() -> None:
    mesh = mesh_of(2)
    x = numbers(3, 20)  # two rows for one rank, one for the other
    whole = [tensor.clone().requires_grad_() for tensor in (B, A, SOS, x)]
    leaves = [*on(mesh, Replicate(), B, A, SOS), *on(mesh, Shard(0), x)]

    target, y = filter_both(*whole), filter_both(*leaves)
    assert y.placements == (Shard(0),)
    close(y, target, "filters")
    firsts = torch.autograd.grad(target.square().sum(), whole, create_graph=True)
    gradients = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    assert [gradient.placements for gradient in gradients] == [(Partial(),)] * 3 + [(Shard(0),)]
    squares(firsts).backward()
    squares(gradients).backward()
    for leaf, of_whole, gradient, first in zip(leaves, whole, gradients, firsts, strict=True):
        close(gradient, first, "gradients")
        close(leaf.grad, of_whole.grad, "second derivatives")
    with torch.inference_mode():
        close(filter_both(*leaves), target, "inference")

    compiled = torch.compile(filter_both, backend="aot_eager", fullgraph=True)
    y = compiled(*leaves)
    again = torch.autograd.grad(y.square().sum(), leaves)
    assert (y.placements, [gradient.placements for gradient in again]) == (
        (Shard(0),),
        [gradient.placements for gradient in gradients],
    )
    for result, expected in zip((y, *again), (target, *firsts), strict=True):
        close(result, expected, "compiled")

    # No strategy fits, and DTensor moves data.
    in_time = placed(x, mesh, Shard(1))
    close(filter_both(*leaves[:3], in_time), target, "time")
    b = placed(B, mesh, Shard(0))
    close(filter_both(b, *leaves[1:]), target, "taps")
    row = placed(x[:1], mesh, Shard(0))  # none for the second rank
    close(filter_both(*leaves[:3], row), target[:1], "one row")


def test_public_functions() -> None:
    """Uneven parts; derivatives, partial where parameters are shared; compiled; and what has to be redistributed."""
    ranks.run(run_public, 2)


def run_calls_apart() -> None:
    mesh = mesh_of(2)
    x, b, a = numbers(4, 8), numbers(8, 3), numbers(8, 2) / 4
    states = numbers(2, seed=1), numbers(2, seed=2)
    rows, in_time = placed(x, mesh, Shard(0)), placed(x, mesh, Shard(1))
    section, frequencies, taps, poles = (placed(t, mesh, Replicate()) for t in (B.expand(1, 3), numbers(5), b, a))
    for wide in (True, False):
        response = overload(Freqz)(section, section, frequencies, wide)
        assert response.dtype == response.to_local().dtype == (torch.complex128 if wide else torch.complex64)
    for n in (8, 7, 9):
        close(rfft(rows, n), rfft(x, n), "lengths")
    for there in ((True, False), (False, True)):  # it is also remembered how each argument was moved
        given = [state if is_there else None for state, is_there in zip(states, there, strict=True)]
        of_mesh = [None if state is None else placed(state, mesh, Replicate()) for state in given]
        results = overload(LFilterTV)(in_time, taps, poles, *of_mesh, 0, 1, 1)
        for result, target in zip(results, overload(LFilterTV)(x, b, a, *given, 0, 1, 1), strict=True):
            close(result, target, "states")


def test_calls_that_differ_in_little() -> None:
    """DTensor remembers strategies, and the shapes and dtypes of results: by every argument."""
    ranks.run(run_calls_apart, 2)


def run_modules_and_lists() -> None:
    mesh = mesh_of(2)
    x = numbers(4, 20)
    rows = placed(x, mesh, Shard(0))
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        signal.lfilter([0.5], [1.0, -0.5], rows)
    with implicit_replication():
        y = signal.lfilter([0.5], [1.0, -0.5], rows)
    assert y.placements == (Shard(0),)
    close(y, signal.lfilter([0.5], [1.0, -0.5], x), "lists")
    for module in (ParametricEQ(16000.0), BiquadBank(3), SOSFilter(2), LFilter(3)):
        target = module(x)
        target.square().sum().backward()
        with implicit_replication():
            close(module(rows), target, "a module as it is")
        if not isinstance(module, ParametricEQ) and not has_flip(mesh):
            continue
        moved = distribute_module(copy.deepcopy(module), mesh)
        moved.zero_grad()
        y = moved(rows)
        assert y.placements == (Shard(0),)
        close(y, target, "a distributed module")
        y.square().sum().backward()
        for parameter, whole in zip(moved.parameters(), module.parameters(), strict=True):
            close(parameter.grad, whole.grad, "gradients of a distributed module")


def test_modules_and_lists() -> None:
    ranks.run(run_modules_and_lists, 2)


def run_wrong_arguments() -> None:
    b, a, x = (placed(tensor, mesh_of(1), Replicate()) for tensor in (B, A, numbers(4, 20)))
    with pytest.raises(ValueError, match=r"last dimension of zi .* = 2, got zi \[3\]"):
        signal.lfilter(b, a, x, zi=a)
    with pytest.raises(ValueError, match=r"a\[..., 0\] must not be zero"):
        signal.lfilter(b, 0 * a, x)
    with pytest.raises(ValueError, match=r"sos\[..., 3\] must not be zero"):
        signal.sosfilt(torch.cat([b, 0 * a]).expand(1, 6), x)
    with pytest.raises(ValueError, match=r"sos must have the shape \(..., S, 6\)"):
        signal.sosfilt(b, x)


def test_wrong_arguments() -> None:
    ranks.run(run_wrong_arguments, 1)


def test_an_unknown_dtensor_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.tensor._op_schema.RuntimeSchemaInfo", None)
    with pytest.warns(UserWarning, match="take no DTensors"):
        _sharding.register_when_imported(OPS)


def run_two_dimensions() -> None:
    """Rows over one dimension of the mesh, filters over the other."""
    mesh = mesh_of(2, 2)
    x, b, a = numbers(3, 1, 20), numbers(2, 3), A.expand(2, 3).contiguous()
    target = [tensor.clone().requires_grad_() for tensor in (x, b, a)]
    leaves = [
        placed(x, mesh, Shard(0), Replicate()).requires_grad_(),
        *(placed(tensor, mesh, Replicate(), Shard(0)).requires_grad_() for tensor in (b, a)),
    ]
    expected = signal.lfilter(target[1], target[2], target[0])
    y = signal.lfilter(leaves[1], leaves[2], leaves[0])
    assert y.placements == (Shard(0), Shard(1))
    close(y, expected, "a bank")
    squares(expected).backward()
    squares(y).backward()
    placements = [leaf.grad.placements for leaf in leaves]
    assert placements == [(Shard(0), Partial()), (Partial(), Shard(0)), (Partial(), Shard(0))]
    for leaf, whole in zip(leaves, target, strict=True):
        close(leaf.grad, whole.grad, "gradients of a bank")


def test_two_dimensions_of_a_mesh() -> None:
    ranks.run(run_two_dimensions, 4)


def run_inductor() -> None:
    mesh = mesh_of(1)
    leaves = [*on(mesh, Replicate(), B, A, SOS), *on(mesh, Shard(0), numbers(3, 20))]
    y, expected = torch.compile(filter_both, fullgraph=True)(*leaves), filter_both(*leaves)
    assert y.placements == (Shard(0),)
    torch.testing.assert_close(y, expected)
    gradients, targets = (torch.autograd.grad(z.square().sum(), leaves) for z in (y, expected))
    torch.testing.assert_close(gradients, targets)


def test_compiled_by_inductor() -> None:
    ranks.run(run_inductor, 1)
