"""lfilter, sosfilt and lfilter_tv under every transform of PyTorch, alone and composed, eager and compiled.

What a transform yields is compared with the same transform of a plain filter in torch ops, a loop over samples that
autograd, functorch and Dynamo know everything about.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from torch_iir import functional, signal

ALL = (0, 1, 2, 3)
PERIOD = 4  # samples from frame to frame of lfilter_tv


def plain(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Transposed direct form II, order 2, in torch ops."""
    b, a = b / a[..., :1], a / a[..., :1]
    z, w = zi.unbind(-1)
    ys = []
    for sample in x.unbind(-1):
        y = b[..., 0] * sample + z
        z, w = w + b[..., 1] * sample - a[..., 1] * y, b[..., 2] * sample - a[..., 2] * y
        ys.append(y)
    return torch.stack(ys, -1), torch.stack([z, w], -1)


def plain_sections(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    states = []
    for s in range(b.shape[-2]):
        x, zf = plain(b[..., s, :], a[..., s, :], x, zi[..., s, :])
        states.append(zf)
    return x, torch.stack(states, -2)


def sections(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of states first, as the op has them, so that they can be mapped with those of x."""
    y, zf = signal.sosfilt(torch.cat([b, a], -1), x, zi=zi.movedim(-2, 0))
    return y, zf.movedim(0, -2)


def plain_varying(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    """The difference equation of order 2, its coefficients between frames of PERIOD samples interpolated."""
    times, frames = (torch.arange(t.shape[-dim], dtype=x.dtype) for t, dim in ((x, 1), (b, 2)))
    weights = (1 - (times[:, None] / PERIOD - frames).abs()).clamp(min=0)
    y1, y2 = zi.unbind(-1)
    x1 = x2 = torch.zeros_like(x[..., 0])
    ys = []
    for x0, numerator, denominator in zip(
        x.unbind(-1), (weights @ b).unbind(-2), (weights @ a).unbind(-2), strict=True
    ):
        b0, b1, b2 = numerator.unbind(-1)
        a0, a1, a2 = denominator.unbind(-1)
        y1, y2 = (b0 * x0 + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2) / a0, y1
        x1, x2 = x0, x1
        ys.append(y1)
    return torch.stack(ys, -1), torch.stack([y1, y2], -1)


@dataclass(frozen=True)
class Filter:
    """A filter by its coefficients b and a, a signal and a state: ours, and a plain one."""

    op: str
    ours: Callable[..., tuple[Tensor, Tensor]]
    plain: Callable[..., tuple[Tensor, Tensor]]
    b: Any
    a: Any
    state: tuple[int, ...]  # the shape of zi
    masks: tuple[int, ...]  # of the gradients of each argument

    def arguments(self, requires_grad: bool = False) -> tuple[Tensor, ...]:
        b, a = torch.tensor(self.b), torch.tensor(self.a)
        x, zi = torch.randn(3, 9), torch.randn(3, *self.state)
        return tuple(t.double().requires_grad_(requires_grad) for t in (b, a, x, zi))

    def tangents(self) -> tuple[Tensor, ...]:
        return tuple(torch.randn_like(t) for t in self.arguments())


LFILTER = Filter(
    "lfilter",
    lambda b, a, x, zi: signal.lfilter(b, a, x, zi=zi),
    plain,
    [0.4, -0.3, 0.2],
    [1.5, -0.9, 0.4],
    (2,),
    (2, 4, 1, 8),
)
SOSFILT = Filter(
    "sosfilt",
    sections,
    plain_sections,
    [[0.4, -0.3, 0.2], [0.8, 0.5, -0.2]],
    [[1.5, -0.9, 0.4], [1.2, 0.6, 0.2]],
    (2, 2),
    (2, 2, 1, 4),
)
LFILTER_TV = Filter(
    "lfilter_tv",
    lambda b, a, x, zi: torch.ops.torch_iir.lfilter_tv(x, b, a, None, zi, 0, 0, PERIOD),
    plain_varying,
    [[0.4, -0.3, 0.2], [0.8, 0.5, -0.2], [0.1, 0.3, 0.6]],
    [[1.5, -0.9, 0.4], [1.2, 0.6, 0.2], [0.9, -0.2, 0.3]],
    (2,),
    (2, 4, 1, 16),
)
FILTERS = (LFILTER, SOSFILT, LFILTER_TV)
every_filter = pytest.mark.parametrize("f", FILTERS, ids=lambda f: f.op)


def loss_of(filtered: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """A loss that is curved in every argument, and depends on y and zf."""

    def loss(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> Tensor:
        y, zf = filtered(b, a, x, zi)
        return y.sin().sum() + (zf * zf).sum() * 0.5

    return loss


# Each takes a loss and gives a function of the four arguments.
TRANSFORMS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "grad": lambda f: grad(f, ALL),
    "vjp": lambda f: lambda *p: vjp(f, *p)[1](torch.ones((), dtype=torch.float64)),
    "jvp": lambda f: lambda *p: jvp(f, p, tuple(t.cos() for t in p)),
    "jvp of x": lambda f: lambda b, a, x, zi: jvp(lambda x: f(b, a, x, zi), (x,), (x.cos(),)),
    "jvp of b": lambda f: lambda b, a, x, zi: jvp(lambda b: f(b, a, x, zi), (b,), (b.cos(),)),
    "jvp of a": lambda f: lambda b, a, x, zi: jvp(lambda a: f(b, a, x, zi), (a,), (a.cos(),)),
    "jvp of zi": lambda f: lambda b, a, x, zi: jvp(lambda zi: f(b, a, x, zi), (zi,), (zi.cos(),)),
    "jacrev": lambda f: jacrev(f, ALL),
    "jacfwd": lambda f: jacfwd(f, ALL),
    "hessian": lambda f: hessian(f, ALL),
    "jacrev of jacrev": lambda f: jacrev(jacrev(f, (0, 1)), (0, 1)),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(f, (0, 1)), (0, 1)),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(f, (0, 1)), (0, 1)),
    "grad of grad": lambda f: grad(lambda *p: sum((g * g).sum() for g in grad(f, ALL)(*p)), ALL),
    "grad of jvp": lambda f: grad(lambda *p: jvp(f, p, tuple(t.cos() for t in p))[1], ALL),
    "jvp of grad": lambda f: lambda *p: jvp(grad(f, ALL), p, tuple(t.cos() for t in p)),
    "jvp of jvp": lambda f: (
        lambda *p: jvp(lambda *q: jvp(f, q, tuple(t.cos() for t in q))[1], p, tuple(t.sin() for t in p))
    ),
    "vmap": lambda f: vmap(f, (None, None, 0, 0)),
    "vmap of b": lambda f: lambda b, a, x, zi: vmap(f, (0, None, None, None))(torch.stack([b, 2 * b]), a, x, zi),
    "vmap of grad": lambda f: vmap(grad(f, ALL), (None, None, 0, 0)),
    "vmap of vmap": lambda f: (
        lambda b, a, x, zi: vmap(vmap(f, (None, None, 0, 0)), (0, 0, None, None))(
            torch.stack([b, 2 * b]), torch.stack([a, 2 * a]), x, zi
        )
    ),
    "vmap of jvp": lambda f: vmap(lambda *p: jvp(f, p, tuple(t.cos() for t in p)), (None, None, 0, 0)),
    "vmap of jacrev": lambda f: vmap(jacrev(f, (0, 1)), (None, None, 0, 0)),
    "vmap of hessian": lambda f: vmap(hessian(f, (0, 1)), (None, None, 0, 0)),
    "grad of vmap": lambda f: grad(lambda *p: vmap(f, (None, None, 0, 0))(*p).square().sum(), ALL),
    "jvp of vmap": lambda f: lambda *p: jvp(vmap(f, (None, None, 0, 0)), p, tuple(t.cos() for t in p)),
    "hessian of vmap": lambda f: hessian(lambda *p: vmap(f, (None, None, 0, 0))(*p).square().sum(), (0, 1)),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


@every_filter
@every_transform
def test_eager(name: str, f: Filter) -> None:
    transform = TRANSFORMS[name]
    args = f.arguments()
    assert_close(transform(loss_of(f.ours))(*args), transform(loss_of(f.plain))(*args))


# Defects of torch 2.11 … 2.15, which befall torch's own operators too.
COMPILER_DEFECTS = {
    ("vmap of hessian", False): "Dynamo: internal assert",
    ("vmap of hessian", True): "Dynamo: internal assert",
    ("jacrev of jacfwd", False): "Dynamo: internal assert",
    ("jacfwd", True): "zero tangents for several arguments",
    ("hessian", True): "zero tangents for several arguments",
    ("jacrev of jacfwd", True): "zero tangents for several arguments",
    ("jacfwd of jacfwd", True): "zero tangents for several arguments",
    ("hessian of vmap", True): "zero tangents for several arguments",
}


# What lfilter shows need not be shown three times: of the others, a few with dynamic shapes will do.
COMPILED = [
    pytest.param(f, name, dynamic, id=f"{f.op}-{name}-{'dynamic' if dynamic else 'static'}")
    for f in FILTERS
    for name in TRANSFORMS
    for dynamic in (False, True)
    if f is LFILTER or not dynamic or name in ("grad", "jvp", "vmap of jvp")
]


@pytest.mark.parametrize(("f", "name", "dynamic"), COMPILED)
def test_compiled(f: Filter, name: str, dynamic: bool) -> None:
    if (name, dynamic) in COMPILER_DEFECTS:
        pytest.skip(COMPILER_DEFECTS[name, dynamic])
    function = TRANSFORMS[name](loss_of(f.ours))
    args = f.arguments()
    assert_close(torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")(*args), function(*args))


@pytest.mark.parametrize("transform", [jacfwd, hessian])
@pytest.mark.parametrize("argument", ALL)
def test_compiled_forward_mode_with_dynamic_shapes(transform: Any, argument: int) -> None:
    function = transform(loss_of(LFILTER.ours), argument)
    args = LFILTER.arguments()
    assert_close(torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")(*args), function(*args))


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (LFILTER, "grad"),
        (LFILTER, "jvp"),
        (LFILTER, "vmap of grad"),
        (LFILTER, "hessian"),
        (SOSFILT, "grad"),
        (LFILTER_TV, "grad"),
    ],
    ids=lambda p: p if isinstance(p, str) else p.op,
)
def test_compiled_by_inductor(f: Filter, name: str) -> None:
    function = TRANSFORMS[name](loss_of(f.ours))
    args = f.arguments()
    assert_close(torch.compile(function, fullgraph=True)(*args), function(*args))


FACES: dict[str, Callable[..., Tensor]] = {
    "signal.lfilter": lambda b, a, x: signal.lfilter(b, a, x),
    "signal.lfilter along 0": lambda b, a, x: signal.lfilter(b, a, x, axis=0),
    "signal.lfilter of a list": lambda b, a, x: signal.lfilter([1.0, 2.0], 3, x),
    "signal.lfilter_zi": lambda b, a, x: signal.lfilter_zi(b, a),
    "signal.lfiltic": lambda b, a, x: signal.lfiltic(b, a, x, x),
    "signal.filtfilt": lambda b, a, x: signal.filtfilt(b, a, x),
    "signal.filtfilt gust": lambda b, a, x: signal.filtfilt(b, a, x, method="gust"),
    "signal.sosfilt": lambda b, a, x: signal.sosfilt(torch.stack([torch.cat([b, a]), torch.cat([b, 2 * a])]), x),
    "signal.sosfilt along 0": lambda b, a, x: signal.sosfilt(torch.cat([b, a])[None], x, 0, x.new_ones(1, 2, 1))[1],
    "signal.sosfilt_zi": lambda b, a, x: signal.sosfilt_zi(torch.stack([torch.cat([b, a]), torch.cat([b, 2 * a])])),
    "signal.sosfiltfilt": lambda b, a, x: signal.sosfiltfilt(torch.cat([b, a])[None], x),
    "functional.lfilter": lambda b, a, x: functional.lfilter(x, a, b),
    "functional.biquad": lambda b, a, x: functional.biquad(x, *b.unbind(), *a.unbind()),
    "functional.filtfilt": lambda b, a, x: functional.filtfilt(x, a, b),
}
every_face = pytest.mark.parametrize("name", FACES)


@every_face
@pytest.mark.parametrize("dynamic", [False, True])
def test_faces_trace_whole(name: str, dynamic: bool) -> None:
    face = FACES[name]
    b, a, x, _ = LFILTER.arguments(requires_grad=True)
    x = torch.randn(14, 15, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(face, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    results = [function(b, a, x) for function in (compiled, face)]
    assert_close(*results)
    gradients = [torch.autograd.grad(y.sin().sum(), (b, a, x), allow_unused=True) for y in results]
    assert_close(*gradients)
    if dynamic and "filtfilt" not in name:
        with torch.compiler.set_stance("fail_on_recompile"):
            longer = torch.randn(14, 23, dtype=torch.float64, requires_grad=True)
            assert_close(compiled(b, a, longer), face(b, a, longer))


@every_face
def test_faces_have_every_derivative(name: str) -> None:
    b, a, _, _ = LFILTER.arguments(requires_grad=True)
    x = torch.randn(2, 13, dtype=torch.float64, requires_grad=True) * 0.01  # within the clamp
    assert torch.autograd.gradcheck(FACES[name], (b, a, x.detach().requires_grad_()), check_forward_ad=True)


@every_face
def test_faces_vmap(name: str) -> None:
    b, a, _, _ = LFILTER.arguments()
    x = torch.randn(3, 14, 14, dtype=torch.float64)
    batched = vmap(FACES[name], (None, None, 0))(b, a, x)
    assert_close(batched, torch.stack([FACES[name](b, a, one) for one in x]))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = torch.nn.Parameter(torch.tensor([0.4, -0.3, 0.2]))
        self.a = torch.nn.Parameter(torch.tensor([1.5, -0.9, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return signal.lfilter(self.b, self.a, x)


def test_training_step_compiles_whole() -> None:
    model, x = Model(), torch.randn(4, 200)
    reference = copy.deepcopy(model)
    torch.compile(model, fullgraph=True)(x).square().mean().backward()
    reference(x).square().mean().backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    time = torch.export.Dim("time", min=4)
    program = torch.export.export(Model(), (torch.randn(2, 30),), dynamic_shapes={"x": {1: time}}, strict=strict)
    assert "torch_iir.lfilter.default" in {str(node.target) for node in program.graph.nodes}
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    x = torch.randn(2, 77)
    assert_close(torch.export.load(buffer).module()(x), Model()(x))


@every_filter
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode: str, f: Filter) -> None:
    function, args = grad(loss_of(f.ours), ALL), f.arguments()
    graph = make_fx(function, tracing_mode=mode)(*args)
    assert backward_of(f, graph)
    assert_close(graph(*args), function(*args))


def test_functional_call() -> None:
    model, x = Model(), torch.randn(2, 20)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (x,)).square().mean()

    gradients = grad(loss)(parameters)
    loss(parameters).backward()
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters()})


@every_filter
def test_linearize(f: Filter) -> None:
    args, along = f.arguments(), f.tangents()
    value, push = linearize(loss_of(f.ours), *args)
    assert_close((value, push(*along)), jvp(loss_of(f.plain), args, along))


@every_filter
def test_dual_numbers(f: Filter) -> None:
    args, along = f.arguments(), f.tangents()
    with forward_ad.dual_level():
        y, zf = f.ours(*(forward_ad.make_dual(p, t) for p, t in zip(args, along, strict=True)))
        results = [forward_ad.unpack_dual(t).tangent for t in (y, zf)]
    assert_close(tuple(results), jvp(f.plain, args, along)[1])


def test_compiled_dual_numbers() -> None:
    def tangent(x: Tensor, along: Tensor) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(functional.lfilter(forward_ad.make_dual(x, along), a, b)).tangent

    b, a, x, _ = LFILTER.arguments()
    along = torch.randn_like(x)
    compiled = torch.compile(tangent, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, along), tangent(x, along))


def test_dual_numbers_of_a_bank() -> None:
    """The tangent has the shape of the result also where the argument that moves is smaller."""
    x, a = torch.randn(5, 1, 9).double(), torch.tensor([1.0, -0.5]).double()
    b = torch.randn(3, 2).double()
    for primal, function in ((b, lambda b: signal.lfilter(b, a, x)), (a, lambda a: signal.lfilter(b, a, x))):
        y, tangent = jvp(function, (primal,), (torch.ones_like(primal),))
        assert tangent.shape == y.shape == (5, 3, 9)
        step = 1e-6
        assert_close(tangent, (function(primal + step) - function(primal - step)) / (2 * step), rtol=1e-6, atol=1e-7)


@every_filter
def test_autograd_beneath_and_above_torch_func(f: Filter) -> None:
    """Parameters that require grad, captured by a function that torch.func transforms, and the other way round."""
    args = f.arguments(requires_grad=True)
    along = f.tangents()

    def captured(filtered: Any) -> tuple[Tensor, ...]:
        b, a, x, zi = args
        values = vmap(lambda x, zi: grad(lambda x: loss_of(filtered)(b, a, x, zi))(x))(x, zi)
        push = jvp(lambda x: filtered(b, a, x, zi)[0], (x,), (along[2],))[1]
        return torch.autograd.grad(values.square().sum() + push.square().sum(), args)

    assert_close(captured(f.ours), captured(f.plain))


@every_filter
def test_double_backward_of_autograd(f: Filter) -> None:
    def twice(filtered: Any) -> tuple[Tensor, ...]:
        args = f.arguments(requires_grad=True)
        torch.manual_seed(0)
        first = torch.autograd.grad(loss_of(filtered)(*args), args, create_graph=True)
        return torch.autograd.grad(sum((g * g).sum() for g in first), args)

    torch.manual_seed(5)
    one = twice(f.ours)
    torch.manual_seed(5)
    assert_close(one, twice(f.plain))


@every_filter
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool, f: Filter) -> None:
    args = f.arguments(requires_grad=True)
    for function in (lambda *p: checkpoint(loss_of(f.ours), *p, use_reentrant=reentrant), loss_of(f.plain)):
        function(*args).backward()
    once = torch.autograd.grad(loss_of(f.plain)(*args), args)
    assert_close(tuple(p.grad for p in args), tuple(2 * g for g in once))


@every_filter
def test_saved_tensors_are_the_arguments_and_y(f: Filter) -> None:
    """Nothing the size of the signal is kept for backward beyond x and y, of sosfilt nothing beyond x."""
    kept: list[int] = []
    args = f.arguments(requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y, _ = f.ours(*args)
    b, a, x, zi = (p.numel() for p in args)
    assert sorted(kept) == sorted([b, a, x, zi, y.numel()] if f.op != "sosfilt" else [b + a, x, zi])


@every_filter
def test_an_unused_state_costs_nothing(f: Filter) -> None:
    """Backward gets None, not zeros, for zf."""
    args = f.arguments(requires_grad=True)
    graph = make_fx(lambda *args: torch.autograd.grad(f.ours(*args)[0].sum(), args))(*args)
    assert backward_of(f, graph).args[1] is None


@every_filter
def test_only_the_gradients_that_are_needed_are_computed(f: Filter) -> None:
    args = f.arguments()
    for index, mask in enumerate(f.masks):
        assert backward_of(f, make_fx(grad(loss_of(f.ours), index))(*args)).args[-1] == mask


def backward_of(f: Filter, graph: torch.fx.GraphModule) -> torch.fx.Node:
    (node,) = [node for node in graph.graph.nodes if str(node.target) == f"torch_iir.{f.op}_backward.default"]
    return node


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_autocast(narrow: torch.dtype) -> None:
    """Narrow signals and coefficients are computed, and come out, in float32; float64 stays float64."""
    x, b, a = torch.randn(2, 50), torch.tensor([0.5, 0.25]), torch.tensor([1.0, -0.5])
    leaves = tuple(t.to(narrow).requires_grad_() for t in (b, a, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = signal.lfilter(*leaves)
        assert y.dtype == torch.float32
        assert signal.lfilter(b, a, x).dtype == torch.float32
        assert signal.lfilter(b.double(), a, x.to(narrow)).dtype == torch.float32
        assert signal.lfilter(b, a, x.double()).dtype == torch.float64
        compiled = torch.compile(signal.lfilter, fullgraph=True, backend="aot_eager")(*leaves)
        sos = signal.sosfilt(torch.tensor([[0.5, 0.25, 0, 1, -0.5, 0]], dtype=narrow), x.to(narrow))
    assert_close(compiled, y)
    assert_close(y, signal.lfilter(*(t.float() for t in leaves)))
    assert_close(sos, y)
    y.sum().backward()
    assert [t.grad.dtype for t in leaves] == [narrow] * 3


@every_filter
def test_inference_mode_and_no_grad(f: Filter) -> None:
    args = f.arguments(requires_grad=True)
    expected = [t.detach() for t in f.ours(*args)]
    with torch.no_grad():
        results = f.ours(*args)
        assert not any(t.requires_grad for t in results)
        assert_close(list(results), expected)
    with torch.inference_mode():
        results = f.ours(*args)
        assert all(t.is_inference() for t in results)
        assert_close([t.clone() for t in results], expected)
        again, _ = f.ours(*args[:2], results[0], args[3])
    assert_close(again.clone(), f.ours(*args[:2], expected[0], args[3])[0].detach())


@every_filter
@pytest.mark.parametrize("grad_mode", [False, True])
def test_meta_tensors(grad_mode: bool, f: Filter) -> None:
    args = [t.to("meta").requires_grad_(grad_mode) for t in f.arguments()]
    y, zf = f.ours(*args)
    assert (y.shape, y.device.type, y.stride()) == ((3, 9), "meta", (9, 1))
    assert zf.shape == args[3].shape
    if grad_mode:
        (y.sum() + zf.sum()).backward()
        assert [t.grad.shape for t in args] == [t.shape for t in args]


def test_no_tracing_of_the_kernel_beside_a_graph_break(recwarn: pytest.WarningsRecorder) -> None:
    def broken(b: Tensor, a: Tensor, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return signal.lfilter(b, a, x).sum()

    b, a, x, _ = LFILTER.arguments(requires_grad=True)
    torch.compile(broken, backend="aot_eager")(b, a, x).backward()
    assert not [w for w in recwarn if "Dynamo" in str(w.message)]


def test_scripting_raises() -> None:
    with pytest.raises((RuntimeError, torch.jit.frontend.NotSupportedError)):
        torch.jit.script(signal.lfilter)
