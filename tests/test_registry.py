"""Every op is declared completely. Walks the declarations and the dispatcher, so that a new op cannot be forgotten."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emulated
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import torch_iir
from torch_iir._registration import Op
from torch_iir.ops import OPS

every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def overload(op: type[Op]) -> Any:
    return getattr(torch.ops.torch_iir, op.name).default


def outputs_of(results: Any) -> tuple[Any, ...]:
    """What an op or its reference returns, as a tuple also where it is one output."""
    return results if isinstance(results, tuple) else (results,)


def samples(op: type[Op]) -> Iterator[Any]:
    for index, args in enumerate(op.samples()):
        yield pytest.param(op, args, id=f"{op.name}-{index}")


every_sample = pytest.mark.parametrize(("op", "args"), [sample for op in OPS for sample in samples(op)])


def test_every_schema_is_declared() -> None:
    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("torch_iir::")}
    public = {name.removeprefix("torch_iir::") for name in names if not name.startswith("torch_iir::_")}
    assert public == {op.name for op in OPS} == set(Op.declared)


@every_op
def test_declaration_is_complete(op: type[Op]) -> None:
    for part in ("core", "fake", "backward", "jvp", "samples"):
        assert part in vars(op), f"{op.name} declares no {part}"
    tensors = [argument.name for argument in overload(op)._schema.arguments if "Tensor" in str(argument.type)]
    assert list(op.core) == tensors
    assert hasattr(reference, op.name), f"tests/reference.py has no {op.name}"
    stem = Path(inspect.getfile(op)).stem
    assert (Path(__file__).parent / f"test_{stem}.py").exists()


@every_op
@pytest.mark.parametrize("key", ["CPU", "Meta", "Autograd", "FuncTorchBatched", "AutocastCPU", "AutocastCUDA"])
def test_dispatcher_has_the_kernel(op: type[Op], key: str) -> None:
    name = f"torch_iir::{op.name}"
    if key == "CPU":  # registered for it, or for every device
        assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, key)
    else:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


@every_op
def test_samples_cover_what_opcheck_needs(op: type[Op]) -> None:
    tensors = [[arg for arg in args if isinstance(arg, Tensor)] for args in op.samples()]
    flat = [tensor for args in tensors for tensor in args]
    assert any(tensor.numel() == 0 for tensor in flat)
    assert any(0 in tensor.stride() and tensor.numel() > 1 for tensor in flat)
    assert any(not tensor.is_contiguous() and 0 not in tensor.stride() for tensor in flat)
    assert any(tensor.is_complex() for tensor in flat) != op.real


@every_op
def test_has_a_sharding_strategy(op: type[Op]) -> None:
    tensor = pytest.importorskip("torch.distributed.tensor")
    assert overload(op) in tensor.DTensor._op_dispatcher.sharding_propagator.op_strategy_funcs
    assert {*itertools.chain(*op.linear), *op.independent} <= set(op.core)


LATER = """
import importlib.util, sys, torch_iir, torch
assert "torch.distributed.tensor" not in sys.modules
finders = len(sys.meta_path)
assert importlib.util.find_spec("torch.distributed.tensor") is not None
assert "torch.distributed.tensor" not in sys.modules
from torch.distributed.tensor import DTensor
assert torch.ops.torch_iir.lfilter.default in DTensor._op_dispatcher.sharding_propagator.op_strategy_funcs
assert len(sys.meta_path) == finders - 1
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_sharding_strategies_come_when_dtensor_is_imported() -> None:
    """Which torch_iir does not import; ranks.run has imported it before torch_iir."""
    subprocess.run([sys.executable, "-c", LATER], check=True)


@pytest.mark.parametrize("op", [op for op in OPS if op.real], ids=lambda op: op.name)
def test_real_ops_refuse_complex_arguments(op: type[Op]) -> None:
    args = next(op.samples())
    for index, arg in enumerate(args):
        if isinstance(arg, Tensor):
            imaginary = arg.to(torch.complex128)
            with pytest.raises(RuntimeError, match="must be real"):
                overload(op)(*args[:index], imaginary, *args[index + 1 :])
            with pytest.raises(TypeError, match="must be real"):
                overload(op)(*args[:index], imaginary.to("meta"), *args[index + 1 :])


@every_sample
def test_equals_its_reference(op: type[Op], args: tuple[Any, ...]) -> None:
    results = outputs_of(overload(op)(*args))
    expected = outputs_of(getattr(reference, op.name)(*args))
    for result, target in zip(results, expected, strict=True):
        assert tuple(result.shape) == target.shape
        if not result.dtype.is_floating_point and not result.is_complex():
            np.testing.assert_array_equal(result.numpy(), target)
            continue
        scale = max(float(np.abs(target).max(initial=0)), 1)
        np.testing.assert_allclose(result.numpy(), target, rtol=0, atol=1e3 * torch.finfo(result.dtype).eps * scale)


@every_sample
def test_opcheck(op: type[Op], args: tuple[Any, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about non-leaf tensors
        torch.library.opcheck(overload(op), tuple(leaf(arg) for arg in args))


@every_sample
def test_schema_and_fake(op: type[Op], args: tuple[Any, ...]) -> None:
    """Without gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(overload(op), args, test_utils=("test_schema", "test_faketensor"))


@every_sample
def test_gradients(op: type[Op], args: tuple[Any, ...]) -> None:
    """Reverse, forward, batched, and with undefined gradients. On the emulator along random directions: it is slow."""
    args = differentiable(args)
    torch.autograd.gradcheck(
        wanted_outputs(op, args),
        args,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=True,
        fast_mode=emulated.ASKED_FOR,
    )


@every_sample
def test_gradients_of_gradients(op: type[Op], args: tuple[Any, ...]) -> None:
    """Reverse over reverse, and forward over reverse. For the backward op these are third derivatives.

    Along random directions where there are many elements, or where these derivatives are an op of their own, which
    test_gradients looks at element by element.
    """
    args = differentiable(args)
    elements = sum(arg.numel() for arg in args if isinstance(arg, Tensor))
    has_own = f"{op.name}_backward" in {other.name for other in OPS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.autograd.gradgradcheck(
            wanted_outputs(op, args),
            args,
            check_fwd_over_rev=True,
            check_rev_over_rev=True,
            atol=1e-4,
            fast_mode=elements > 12 or has_own,
        )


def leaf(arg: Any) -> Any:
    """A leaf that requires grad with the strides of arg."""
    return arg.detach().requires_grad_() if isinstance(arg, Tensor) else arg


def differentiable(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Finite differences need elements that do not overlap."""
    return tuple(
        arg.detach().clone(memory_format=torch.contiguous_format).requires_grad_() if isinstance(arg, Tensor) else arg
        for arg in args
    )


def wanted_outputs(op: type[Op], samples: tuple[Any, ...]) -> Any:
    """The op as a function for finite differences, which must not step on a structure of zeros."""
    names = [argument.name for argument in overload(op)._schema.arguments]
    masks = [(sample != 0) if name in op.sparse else None for name, sample in zip(names, samples, strict=False)]

    def function(*args: Any) -> tuple[Tensor, ...]:
        args = tuple(arg if mask is None else arg * mask for arg, mask in itertools.zip_longest(args, masks))
        outputs = outputs_of(overload(op)(*args))
        # What was not asked for has the shape [0]; integers have no derivatives.
        return tuple(out for out in outputs if out.shape != (0,) and (out.is_floating_point() or out.is_complex()))

    return function


def test_algorithm_names_are_checked() -> None:
    with pytest.raises(ValueError, match="algorithm must be one of"), torch_iir.algorithm("fastest"):
        pass
