"""verify=True: the first call of a graph that was changed runs both ways, and what comes out is compared.

The graph as it was runs op by op, with the other libraries' own functions where ours stand for them; then the compiled
one, both on copies of the inputs and with the same random numbers. Compared are the outputs, what is written into the
inputs, and, where gradients are recorded, those of Σ g y with one random g for both. If all are equal, the compiled
graph runs once more, on the inputs themselves. So the first call takes three forward passes and two backward passes,
and holds two copies of its inputs.

Equal is what differs by at most `TOLERANCE` of the largest value in its tensor. Rewrites are as exact as what they
replace, so what differs is rounding: some 1e-7 of the largest value in float32 where nothing amplifies it. A filter of
high gain does, and a sum of a million terms; a thousand times that much is allowed. In half precision, where Inductor
rounds less often than single operations do, it is a few roundings. A mistake is of the size of the values.

Some values are nothing but rounding, like the gradient of a bias in front of a normalisation; others amplify it without
bound, like filters of high order in direct form. Therefore, where a difference is too large, the graph as it was runs
once more on inputs that are changed by one rounding each, with the other libraries' functions in double precision, and
ten times what that changes is allowed, too. The log says so then, as a warning.

Inductor draws random numbers of its own, or in another order. So where the graph as it was draws some, what is compared
with it is the changed graph run op by op, and not what Inductor made of it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_map_only

from torch_iir.compiler._report import Report, where

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
ROUNDINGS = 10  # a difference may be as many times what one rounding of the inputs makes

_log = logging.getLogger("torch_iir.compiler")


class VerificationError(RuntimeError):
    """A compiled graph computes other values, or other gradients, than the model as it was."""


@dataclass
class Original:
    """A graph as it was; and once more, with the other libraries' functions in double precision."""

    graph: GraphModule
    exact: GraphModule

    def __post_init__(self) -> None:
        _with_theirs(self.graph)
        _with_theirs(self.exact, in_double=True)


def verified(
    compiled: Callable[..., Any], changed: GraphModule, original: Original, report: Report
) -> Callable[..., Any]:
    """`compiled`, which its first call compares with the original graph, and which raises if they differ.

    Raises:
        VerificationError: a value or a gradient differs by more than rounding.
    """
    graphs: tuple[GraphModule, Original] | None = changed, original

    def call(*args: Any) -> Any:
        nonlocal graphs
        if graphs is not None:
            _check(compiled, *graphs, report, args)
            graphs = None
        return compiled(*args)

    return call


def _check(
    compiled: Callable[..., Any], changed: GraphModule, original: Original, report: Report, args: Sequence[Any]
) -> None:
    names = _names(original.graph)
    try:
        expected = _run(original.graph.forward, args, names)
    except _NoGradients as error:
        _log.warning("gradients are not compared: those of the model as it was raise %s", error)
        expected = _run(original.graph.forward, args, names, gradients=False)
    gradients = expected.gradients is not None
    try:
        got = _run(changed.forward if expected.random else compiled, args, names, gradients=gradients)
    except _NoGradients as error:
        raise VerificationError(f"the gradients of the compiled graph raise {error}; the model's own do not") from error
    found = {what: each for what, each in _differences(got, expected).items() if not each.size <= each.allowed}
    if not found:
        return
    exact = _run(original.exact.forward, args, names, gradients=gradients, rounded=True)
    rounded = _differences(exact, expected)
    wrong = {}
    for what, each in found.items():
        noise = rounded[what].size if what in rounded else 0.0
        if each.size <= each.allowed + ROUNDINGS * noise:
            _log.warning("%s %s; that passes, since rounding alone makes %.2g", what, each.how, noise)
        else:
            wrong[what] = each
    if wrong:
        what, worst = max(wrong.items(), key=lambda item: item[1].size / max(item[1].allowed, 1e-300))
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        done = [f"{fired.rewrite} at {fired.where}" for fired in report.fired]
        done += [f"ours for {name}" for name in report.substituted]
        raise VerificationError(f"{what} {worst.how}{others}. Changed were: {', '.join(dict.fromkeys(done))}")


# --- what other libraries would have computed


@functools.cache
def beside(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """`ours`, leaving a mark in the graph that says what `theirs` was called with, for `Original`."""

    def mark(result: Any, args: Any, kwargs: Any) -> Any:
        return result

    mark.theirs = theirs  # type: ignore[attr-defined]
    torch.compiler.allow_in_graph(mark)  # type: ignore[no-untyped-call]

    def call(*args: Any, **kwargs: Any) -> Any:
        return mark(ours(*args, **kwargs), args, kwargs)

    return call


def _with_theirs(module: GraphModule, *, in_double: bool = False) -> None:
    """Puts the other libraries' own functions back in the place of what stands for them."""
    graph = module.graph
    for mark in _marks(graph):
        function: Any = mark.target.theirs  # type: ignore[union-attr]
        result, args, kwargs = mark.args
        with graph.inserting_before(mark):
            theirs = graph.call_function(_in_double(function) if in_double else function, args, kwargs)  # type: ignore[arg-type]
        theirs.stack_trace = mark.stack_trace
        mark.replace_all_uses_with(theirs)
        graph.erase_node(mark)
        unused: list[Any] = [*result] if isinstance(result, (tuple, list)) else [result]
        while unused:
            node = unused.pop()
            if isinstance(node, Node) and node.op in ("call_function", "call_method") and not node.users:
                unused += {*node.all_input_nodes} - {*unused}
                graph.erase_node(node)
    module.recompile()


def _in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes in double precision, and rounds what it returns to the dtype of its first tensor."""

    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = next(arg.dtype for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))
        args, kwargs = tree_map_only(Tensor, _double, (args, kwargs))
        return tree_map_only(Tensor, lambda result: result.to(dtype), function(*args, **kwargs))

    return call


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128) if x.dtype.is_complex else x.double() if x.dtype.is_floating_point else x


def without_marks(module: GraphModule) -> None:
    """Leaves only what stands for the other libraries' functions."""
    graph = module.graph
    for mark in _marks(graph):
        result: Any = mark.args[0]
        if isinstance(result, (tuple, list)):
            for item in list(mark.users):
                item.replace_all_uses_with(result[item.args[1]])  # type: ignore[index]
                graph.erase_node(item)
        else:
            mark.replace_all_uses_with(result)
        graph.erase_node(mark)
    module.recompile()


def _marks(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if hasattr(node.target, "theirs")]


# --- running


@dataclass
class _Run:
    values: dict[str, Any]
    gradients: dict[str, Tensor] | None  # None: not asked for
    random: bool  # whether random numbers were drawn


@dataclass(frozen=True)
class _Names:
    inputs: list[str]
    outputs: list[str]


def _names(graph: GraphModule) -> _Names:
    """What errors call the inputs and outputs."""
    *_, last = graph.graph.nodes
    outputs = [
        f"output {number} ({where(each)})" if isinstance(each, Node) else f"output {number}"
        for number, each in enumerate(last.args[0])
    ]
    return _Names([_plain(node.name) for node in graph.graph.find_nodes(op="placeholder")], outputs)


def _plain(name: str) -> str:
    """``self.bank.a`` of Dynamo's ``l_self_modules_bank_parameters_a_``."""
    for kind in ("_modules_", "_parameters_", "_buffers_"):
        name = name.replace(kind, ".")
    return name.removeprefix("l_").removeprefix("L_").removesuffix("_")


class _NoGradients(Exception):
    """A backward pass raised."""


def _run(
    function: Callable[..., Any],
    args: Sequence[Any],
    names: _Names,
    *,
    gradients: bool = True,
    rounded: bool = False,
) -> _Run:
    """Values and gradients of a call with copies of the arguments; random numbers go on from where they were."""
    devices = sorted({arg.get_device() for arg in args if isinstance(arg, Tensor) and arg.is_cuda})
    with torch.random.fork_rng(devices):
        states = _states(devices)
        copies, leaves = _copied(args, names, rounded)
        before = [copy._version if isinstance(copy, Tensor) else 0 for copy in copies]
        outputs = list(function(*copies))
        written = [isinstance(copy, Tensor) and copy._version != v for copy, v in zip(copies, before, strict=True)]
        values = dict(zip(names.outputs, outputs, strict=True))
        values |= {
            f"what is written into {name}": copy
            for name, copy, changed in zip(names.inputs, copies, written, strict=True)
            if changed
        }
        found = _gradients(list(values.values()), leaves) if gradients else None
        return _Run(values, found, not all(map(torch.equal, states, _states(devices))))


def _states(devices: Sequence[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]


def _gradients(outputs: Sequence[Any], leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of Σ g y by the leaves, with random g that are the same for the same shapes."""
    outputs = [out for out in outputs if isinstance(out, Tensor) and out.requires_grad]
    if not outputs or not leaves:
        return {}
    generator = torch.Generator().manual_seed(0)
    g = [torch.randn(out.shape, dtype=out.dtype, generator=generator).to(out.device) for out in outputs]
    try:
        found = torch.autograd.grad(outputs, list(leaves.values()), g, allow_unused=True)
    except RuntimeError as error:
        raise _NoGradients(error) from error
    return {
        f"the gradient of {name}": torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def _copied(args: Sequence[Any], names: _Names, rounded: bool) -> tuple[list[Any], dict[str, Tensor]]:
    """Copies with the strides that they have and memory in common where they have it, and what to differentiate by.

    That are not the copies, since a graph may write into them, but the memory that they are views of.
    """
    memory: dict[tuple[int, torch.dtype], Tensor] = {}
    leaves: dict[str, Tensor] = {}
    differentiable = not torch.is_inference_mode_enabled()

    def copied(arg: Any, name: str) -> Any:
        if not isinstance(arg, Tensor):
            return arg
        if arg.is_conj():
            return copied(arg.conj(), name).conj()
        if arg.is_neg():
            return torch._neg_view(copied(torch._neg_view(arg), name))
        if is_traceable_wrapper_subclass(arg):  # which has no memory itself
            copy = arg.detach().clone()
            if arg.requires_grad and differentiable:
                leaves[name] = copy.requires_grad_()
            return copy
        storage = arg.untyped_storage()
        key = storage._cdata, arg.dtype
        if key not in memory:
            flat = torch.empty(0, dtype=arg.dtype, device=arg.device)
            elements = storage.nbytes() // arg.element_size()
            flat.set_(storage.clone(), 0, (elements,), (1,))  # type: ignore[no-untyped-call]
            if rounded and (arg.dtype.is_floating_point or arg.dtype.is_complex):
                signs = torch.randint(2, flat.shape, generator=generator).to(flat.device) * 2 - 1
                flat *= 1 + torch.finfo(arg.dtype).eps * signs.to(flat.dtype)
            memory[key] = flat
        flat = memory[key]
        if arg.requires_grad and differentiable and not flat.requires_grad:
            leaves[name] = flat.requires_grad_()
            memory[key] = flat = flat.clone()
        copy = flat.as_strided(arg.shape, arg.stride(), arg.storage_offset())
        return copy if arg.requires_grad else copy.detach()

    generator = torch.Generator().manual_seed(1)
    with torch.enable_grad():
        return [copied(arg, name) for arg, name in zip(args, names.inputs, strict=True)], leaves


# --- comparing


@dataclass(frozen=True)
class _Difference:
    size: float
    allowed: float
    how: str


def _differences(got: _Run, expected: _Run) -> dict[str, _Difference]:
    """How much each value and each gradient differs."""
    values = expected.values.keys() | got.values.keys()
    found = {what: _difference(got.values.get(what), expected.values.get(what)) for what in sorted(values)}
    ours, theirs = got.gradients or {}, expected.gradients or {}
    return found | {what: _difference(ours[what], theirs[what]) for what in sorted(ours.keys() & theirs.keys())}


def _difference(got: Any, expected: Any) -> _Difference:
    kinds = _kind(got), _kind(expected)
    if kinds[0] != kinds[1]:
        return _Difference(torch.inf, 0.0, f"is {kinds[0]}, not {kinds[1]}")
    if not isinstance(expected, Tensor) or not expected.numel():
        return _Difference(0.0, 0.0, "is equal")
    got, expected = got.detach(), expected.detach()
    if not (expected.dtype.is_floating_point or expected.dtype.is_complex):
        share = float((got != expected).float().mean())
        return _Difference(share, TOLERANCE[torch.float32], f"differs in {share:.2g} of its elements")
    tolerance = TOLERANCE[expected.dtype.to_real()]
    if expected.dtype in (torch.float16, torch.bfloat16):
        got, expected = got.float(), expected.float()
    finite = expected.isfinite()
    if not torch.equal(got.isfinite(), finite):
        return _Difference(torch.inf, 0.0, "is not finite at other places than before")
    size = float((got - expected).abs().where(finite, 0).max())
    largest = float(expected.abs().where(finite, 0).max())
    how = f"differs by {size:.2g}, more than {tolerance:g} of its largest value, {largest:.2g}"
    return _Difference(size, tolerance * largest, how)


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    history = " with a gradient" if value.requires_grad else ""
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}{history}"
