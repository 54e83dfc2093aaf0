"""How the mathematics of an op, declared once, becomes a PyTorch operator. All of torch's private names stand here.

The schemas and the CPU and CUDA kernels are registered in C++ (`native/ops`). `register` adds what torch needs in order
to trace and to transform them: a fake, an Autograd kernel, a vmap rule, an autocast rule.

The Autograd kernel is our own because `torch.library.register_autograd` knows no forward mode: under it
`torch.func.jvp` returns zero tangents without a word, and a public `autograd.Function` with a `jvp` is refused by
Dynamo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._C._dynamo import eval_frame as _eval_frame
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_library = torch.library.Library("torch_iir", "FRAGMENT")  # type: ignore[no-untyped-call]
_below_autograd = torch._C._AutoDispatchBelowAutograd
_after_autograd = torch._C._after_autograd_keyset
_any_requires_grad = torch._C._any_requires_grad
_transforms_active = torch._C._are_functorch_transforms_active
_modes_active = torch._C._len_torch_dispatch_stack
_set_forward_ad = torch.autograd.forward_ad._set_fwd_grad_enabled

Tensors = Sequence[Any]  # tensors, None where an optional one is absent


class Op:
    """The declaration of one op; subclasses fill in the mathematics, `register` makes the operator of it.

    `core` names the tensor arguments in the order of the schema, each with its number of dimensions below the batch;
    arguments that are not tensors come after them. All batch dimensions broadcast. `keeps` are the outputs that the
    derivatives need beside the arguments. `like` is for an op that returns gradients, summed to the shape of its
    arguments: which argument each output resembles. `real` is for an op that complex numbers have no meaning for.
    `sparse` names the arguments whose zeros are a structure that the op may rely on. `linear` are groups of arguments:
    the outputs are linear in each group, jointly, where the others are fixed; one that is absent stands for zeros.
    `independent` names the arguments whose last dimension is one of things that do not touch each other, columns or
    frequencies, as it is that of the outputs. An output that was not asked for has the shape [0], and one of integers
    has no derivative. Where the schema returns one tensor, the functions below
    still deal in tuples.
    """

    declared: ClassVar[dict[str, type[Op]]] = {}

    name: ClassVar[str]
    core: ClassVar[dict[str, int]]
    keeps: ClassVar[tuple[int, ...]] = ()
    like: ClassVar[tuple[str, ...]] = ()
    real: ClassVar[bool] = False
    sparse: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[tuple[tuple[str, ...], ...]] = ()
    independent: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, name: str) -> None:
        cls.name = name
        Op.declared[name] = cls

    fake: ClassVar[Callable[..., tuple[Tensor, ...]]]
    """fake(*arguments): empty outputs of the right shape and dtype, fresh and contiguous as the kernel's are."""

    backward: ClassVar[Callable[..., tuple[Tensor | None, ...]]]
    """backward(needed, saved, gradients): a gradient, or None, for every tensor argument, from registered ops only."""

    jvp: ClassVar[Callable[..., tuple[Tensor | None, ...]]]
    """jvp(saved, tangents): a tangent, or None where it is zero, for every output, from registered ops only."""

    samples: ClassVar[Callable[[], Iterator[tuple[Any, ...]]]]
    """samples(): argument tuples for opcheck and gradcheck: strided, expanded, empty, shorter than the order."""


def register(op: type[Op]) -> None:
    """Installs the fake, the Autograd kernel and the vmap and autocast rules of an op whose schema exists."""
    qualified = f"torch_iir::{op.name}"
    overload = getattr(torch.ops.torch_iir, op.name).default
    torch.library.register_fake(qualified, _fake(op, overload), lib=_library)
    kernel = _autograd_kernel(op, overload)
    _library.impl(op.name, kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    torch.library.register_vmap(qualified, _vmap_rule(op, overload), lib=_library)
    for device in ("cpu", "cuda"):  # float64 stays as it is, narrower types are computed in float32
        torch.library.register_autocast(qualified, device, torch.float32, lib=_library)


def concrete(*tensors: Tensor) -> bool:
    """True when the tensors' values can be read: not traced, not fake, not inside a transform."""
    return not (
        torch.compiler.is_compiling()
        or _transforms_active()
        or _modes_active()
        or any(tensor.is_meta or type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors)
    )


def _has_one_output(overload: Any) -> bool:
    """Whether the operator returns a tensor where the declaration has a tuple of one."""
    return len(overload._schema.returns) == 1


def _fake(op: type[Op], overload: Any) -> Callable[..., Any]:
    declared = op.fake
    return (lambda *args, **kwargs: declared(*args, **kwargs)[0]) if _has_one_output(overload) else declared


def _autograd_kernel(op: type[Op], overload: Any) -> Callable[..., Any]:
    tensors = len(op.core)
    arguments = len(overload._schema.arguments)
    defaults = tuple(argument.default_value for argument in overload._schema.arguments)
    keeps = op.keeps
    constants = (None,) * (arguments - tensors)
    formula, pushforward = op.backward, op.jvp
    redispatch = overload._handle.redispatch_boxed

    class Derivative(_SingleLevelFunction):
        @staticmethod
        def forward(*args: Any) -> Any:
            if not _transforms_active():
                with _below_autograd():
                    return overload(*args)
            # The next level of torch.func, or the plain autograd beneath them all, differentiates too; apply() has
            # switched that off.
            with torch.enable_grad(), _set_forward_ad(True), _below_autograd():
                return overload(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            saved = (*inputs[:tensors], *[output[index] for index in keeps])
            ctx.save_for_backward(*saved)
            if forward_ad._current_level >= 0 or _transforms_active() or _modes_active():
                ctx.save_for_forward(*saved)
            ctx.constants = inputs[tensors:]
            ctx.set_materialize_grads(False)  # an output that nobody used costs nothing

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Any:
            for gradient in gradients:
                if gradient is not None:
                    break
            else:
                return (None,) * arguments
            needed, saved = ctx.needs_input_grad, ctx.saved_tensors + ctx.constants
            if torch.is_grad_enabled() or forward_ad._current_level >= 0 or _transforms_active() or _modes_active():
                return formula(needed, saved, gradients) + constants
            if type(gradient) is not Tensor:  # what is composite is taken apart with autograd, before DTensor sees it
                return formula(needed, saved, gradients) + constants
            with _below_autograd():  # nobody differentiates this
                return formula(needed, saved, gradients) + constants

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            saved = ctx.saved_tensors
            if not _transforms_active():
                return pushed(saved + ctx.constants, tangents)
            # An outer torch.func.jvp differentiates this; torch has switched that off. Of this level only the values
            # are meant.
            with _set_forward_ad(True):
                values = [None if tensor is None else _primal(tensor) for tensor in saved]
                return pushed((*values, *ctx.constants), tangents)

    def pushed(saved: tuple[Any, ...], tangents: Tensors) -> tuple[Tensor | None, ...]:
        result: tuple[Any, ...] = pushforward(saved, tangents)
        if all(tangent is not None for tangent in result):
            return result
        outputs = op.fake(*saved[:tensors], *saved[tensors + len(keeps) :])
        return tuple(  # torch wants zeros written out, except for integers
            torch.zeros_like(output) if tangent is None and _has_derivatives(output) else tangent
            for tangent, output in zip(result, outputs, strict=True)
        )

    class OneOutput(Derivative):
        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # type: ignore[override]
            Derivative.setup_context(ctx, inputs, (output,))

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            return Derivative.jvp(ctx, *tangents)[0]

    base: Any = OneOutput if _has_one_output(overload) else Derivative
    derivative = type(base)(op.__name__, (base,), {})  # what a grad_fn is called by is made with the class
    apply: Callable[..., Any] = getattr(derivative, "apply")  # noqa: B009  (it comes from C++, untyped)

    def kernel(keyset: Any, *args: Any) -> Any:
        if _transforms_active():
            with enable_single_level_autograd_function():
                return apply(*args, *defaults[len(args) :])
        # A graph captured by Dynamo enters a dual level behind the back of forward_ad; it is traced under a mode.
        if forward_ad._current_level >= 0 or _modes_active() or (torch.is_grad_enabled() and _any_requires_grad(*args)):
            return apply(*args, *defaults[len(args) :])  # the dispatcher drops trailing defaults
        with _below_autograd():
            return redispatch(keyset & _after_autograd, *args)

    for cls in {Derivative, base}:
        for method in (cls.forward, cls.setup_context, cls.backward, cls.jvp):
            _hide_from_dynamo(method)
    _hide_from_dynamo(kernel)
    return kernel


def _has_derivatives(output: Tensor) -> bool:
    """Whether an output is of numbers that have derivatives."""
    return output.is_floating_point() or output.is_complex()


def _primal(tensor: Tensor) -> Tensor:
    """The value without its tangent; the level is named because forward_ad may not know that it was entered."""
    primal: Tensor = torch._VF._unpack_dual(tensor, level=0)[0]
    return primal


def _hide_from_dynamo(function: Any) -> None:
    """The dispatcher calls this function: Dynamo, which sees the op whole, shall not look for graphs within.

    It would, and warn, wherever the op runs beside a graph break. torch.compiler.disable does the same at a cost per
    call, and imports Dynamo.
    """
    skip = _eval_frame._FrameAction.SKIP
    _eval_frame.set_code_exec_strategy(function.__code__, _eval_frame._FrameExecStrategy(skip, skip))


def _vmap_rule(op: type[Op], overload: Any) -> Callable[..., Any]:
    cores = tuple(op.core.values())
    like = tuple(list(op.core).index(name) for name in op.like)
    one_output = _has_one_output(overload)

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        # The mapped dimension goes in front; dimensions of size 1 behind it align the batch dimensions of all.
        operands = list(zip(args, in_dims, cores, strict=False))  # a trailing default is dropped
        ranks = [0 if t is None else t.dim() - core - (dim is not None) for t, dim, core in operands]
        missing = [max(ranks) - rank for rank in ranks]
        aligned = list(args)
        for index, (tensor, dim, _) in enumerate(operands):
            if tensor is None or (dim is None and not like):
                continue
            # A gradient is wanted for every element of the mapped dimension, also of what is the same in all.
            front = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            aligned[index] = front[(slice(None), *(None,) * missing[index])]
        outputs = overload(*aligned)
        if one_output:
            outputs = (outputs,)
        out_dims = tuple(0 if output.dim() > 1 else None for output in outputs)  # not asked for: [0]
        if like:
            outputs = tuple(
                output if dim is None else output.squeeze(tuple(range(1, 1 + missing[index])))
                for output, dim, index in zip(outputs, out_dims, like, strict=True)
            )
        return (outputs[0], out_dims[0]) if one_output else (outputs, out_dims)

    _hide_from_dynamo(rule)
    return rule
