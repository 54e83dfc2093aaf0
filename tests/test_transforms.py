"""lfilter under every transform of PyTorch, alone and composed, eager and compiled.

What a transform yields is compared with the same transform of a plain filter in torch ops, a loop over samples that
autograd, functorch and Dynamo know everything about.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
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


def loss_of(filtered: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """A loss that is curved in every argument, and depends on y and zf."""

    def loss(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> Tensor:
        y, zf = filtered(b, a, x, zi)
        return y.sin().sum() + (zf * zf).sum() * 0.5

    return loss


def ours(b: Tensor, a: Tensor, x: Tensor, zi: Tensor) -> tuple[Tensor, Tensor]:
    return signal.lfilter(b, a, x, zi=zi)


def arguments(requires_grad: bool = False) -> tuple[Tensor, ...]:
    b, a = torch.tensor([0.4, -0.3, 0.2]), torch.tensor([1.5, -0.9, 0.4])
    x, zi = torch.randn(3, 9), torch.randn(3, 2)
    return tuple(t.double().requires_grad_(requires_grad) for t in (b, a, x, zi))


def tangents() -> tuple[Tensor, ...]:
    return tuple(torch.randn_like(t) for t in arguments())


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


@every_transform
def test_eager(name: str) -> None:
    transform = TRANSFORMS[name]
    args = arguments()
    assert_close(transform(loss_of(ours))(*args), transform(loss_of(plain))(*args))


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


@every_transform
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(name: str, dynamic: bool) -> None:
    if (name, dynamic) in COMPILER_DEFECTS:
        pytest.skip(COMPILER_DEFECTS[name, dynamic])
    function = TRANSFORMS[name](loss_of(ours))
    args = arguments()
    assert_close(torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")(*args), function(*args))


@pytest.mark.parametrize("transform", [jacfwd, hessian])
@pytest.mark.parametrize("argument", ALL)
def test_compiled_forward_mode_with_dynamic_shapes(transform: Any, argument: int) -> None:
    function = transform(loss_of(ours), argument)
    args = arguments()
    assert_close(torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")(*args), function(*args))


@pytest.mark.parametrize("name", ["grad", "jvp", "vmap of grad", "hessian"])
def test_compiled_by_inductor(name: str) -> None:
    function = TRANSFORMS[name](loss_of(ours))
    args = arguments()
    assert_close(torch.compile(function, fullgraph=True)(*args), function(*args))


FACES: dict[str, Callable[..., Tensor]] = {
    "signal.lfilter": lambda b, a, x: signal.lfilter(b, a, x),
    "signal.lfilter along 0": lambda b, a, x: signal.lfilter(b, a, x, axis=0),
    "signal.lfilter of a list": lambda b, a, x: signal.lfilter([1.0, 2.0], 3, x),
    "signal.lfilter_zi": lambda b, a, x: signal.lfilter_zi(b, a),
    "signal.lfiltic": lambda b, a, x: signal.lfiltic(b, a, x, x),
    "signal.filtfilt": lambda b, a, x: signal.filtfilt(b, a, x),
    "signal.filtfilt gust": lambda b, a, x: signal.filtfilt(b, a, x, method="gust"),
    "functional.lfilter": lambda b, a, x: functional.lfilter(x, a, b),
    "functional.biquad": lambda b, a, x: functional.biquad(x, *b.unbind(), *a.unbind()),
    "functional.filtfilt": lambda b, a, x: functional.filtfilt(x, a, b),
}
every_face = pytest.mark.parametrize("name", FACES)


@every_face
@pytest.mark.parametrize("dynamic", [False, True])
def test_faces_trace_whole(name: str, dynamic: bool) -> None:
    face = FACES[name]
    b, a, x, _ = arguments(requires_grad=True)
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
    b, a, _, _ = arguments(requires_grad=True)
    x = torch.randn(2, 13, dtype=torch.float64, requires_grad=True) * 0.01  # within the clamp
    assert torch.autograd.gradcheck(FACES[name], (b, a, x.detach().requires_grad_()), check_forward_ad=True)


@every_face
def test_faces_vmap(name: str) -> None:
    b, a, _, _ = arguments()
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


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode: str) -> None:
    function, args = grad(loss_of(ours), ALL), arguments()
    graph = make_fx(function, tracing_mode=mode)(*args)
    assert "torch_iir.lfilter_backward.default" in {str(node.target) for node in graph.graph.nodes}
    assert_close(graph(*args), function(*args))


def test_functional_call_and_linearize() -> None:
    model, x = Model(), torch.randn(2, 20)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (x,)).square().mean()

    gradients = grad(loss)(parameters)
    loss(parameters).backward()
    assert_close(gradients, {name: p.grad for name, p in model.named_parameters()})
    args, along = arguments(), tangents()
    value, push = linearize(loss_of(ours), *args)
    assert_close((value, push(*along)), jvp(loss_of(plain), args, along))


def test_dual_numbers() -> None:
    args, along = arguments(), tangents()
    with forward_ad.dual_level():
        y, zf = ours(*(forward_ad.make_dual(p, t) for p, t in zip(args, along, strict=True)))
        results = [forward_ad.unpack_dual(t).tangent for t in (y, zf)]
    assert_close(tuple(results), jvp(plain, args, along)[1])


def test_compiled_dual_numbers() -> None:
    def tangent(x: Tensor, along: Tensor) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(functional.lfilter(forward_ad.make_dual(x, along), a, b)).tangent

    b, a, x, _ = arguments()
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


def test_autograd_beneath_and_above_torch_func() -> None:
    """Parameters that require grad, captured by a function that torch.func transforms, and the other way round."""
    args = arguments(requires_grad=True)
    along = tangents()

    def captured(filtered: Any) -> tuple[Tensor, ...]:
        b, a, x, zi = args
        values = vmap(lambda x, zi: grad(lambda x: loss_of(filtered)(b, a, x, zi))(x))(x, zi)
        push = jvp(lambda x: filtered(b, a, x, zi)[0], (x,), (along[2],))[1]
        return torch.autograd.grad(values.square().sum() + push.square().sum(), args)

    assert_close(captured(ours), captured(plain))


def test_double_backward_of_autograd() -> None:
    def twice(filtered: Any) -> tuple[Tensor, ...]:
        args = arguments(requires_grad=True)
        torch.manual_seed(0)
        first = torch.autograd.grad(loss_of(filtered)(*args), args, create_graph=True)
        return torch.autograd.grad(sum((g * g).sum() for g in first), args)

    torch.manual_seed(5)
    one = twice(ours)
    torch.manual_seed(5)
    assert_close(one, twice(plain))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    args = arguments(requires_grad=True)
    for function in (lambda *p: checkpoint(loss_of(ours), *p, use_reentrant=reentrant), loss_of(plain)):
        function(*args).backward()
    once = torch.autograd.grad(loss_of(plain)(*args), args)
    assert_close(tuple(p.grad for p in args), tuple(2 * g for g in once))


def test_saved_tensors_are_the_arguments_and_y() -> None:
    """Nothing the size of the signal is kept for backward beyond x and y."""
    kept: list[int] = []
    args = arguments(requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y, _ = ours(*args)
    assert sorted(kept) == sorted([*(p.numel() for p in args), y.numel()])


def test_an_unused_state_costs_nothing() -> None:
    """Backward gets None, not zeros, for zf."""
    b, a, x, _ = arguments(requires_grad=True)
    graph = make_fx(lambda b, a, x: torch.autograd.grad(signal.lfilter(b, a, x).sum(), (b, a, x)))(b, a, x)
    (node,) = [node for node in graph.graph.nodes if str(node.target) == "torch_iir.lfilter_backward.default"]
    assert node.args[1] is None


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    b, a, x, zi = arguments()
    for index, mask in ((0, 2), (1, 4), (2, 1), (3, 8)):
        graph = make_fx(grad(loss_of(ours), index))(b, a, x, zi)
        (node,) = [node for node in graph.graph.nodes if str(node.target) == "torch_iir.lfilter_backward.default"]
        assert node.args[7] == mask


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
    assert_close(compiled, y)
    assert_close(y, signal.lfilter(*(t.float() for t in leaves)))
    y.sum().backward()
    assert [t.grad.dtype for t in leaves] == [narrow] * 3


def test_inference_mode_and_no_grad() -> None:
    args = arguments(requires_grad=True)
    expected = [t.detach() for t in ours(*args)]
    with torch.no_grad():
        results = ours(*args)
        assert not any(t.requires_grad for t in results)
        assert_close(list(results), expected)
    with torch.inference_mode():
        results = ours(*args)
        assert all(t.is_inference() for t in results)
        assert_close([t.clone() for t in results], expected)
        again = signal.lfilter(args[0], args[1], results[0])
    assert_close(again.clone(), ours(*args[:2], expected[0], torch.zeros(2).double())[0].detach())


@pytest.mark.parametrize("grad_mode", [False, True])
def test_meta_tensors(grad_mode: bool) -> None:
    args = [t.to("meta").requires_grad_(grad_mode) for t in arguments()]
    y, zf = ours(*args)
    assert (y.shape, y.device.type, y.stride()) == ((3, 9), "meta", (9, 1))
    assert zf.shape == (3, 2)
    if grad_mode:
        (y.sum() + zf.sum()).backward()
        assert [t.grad.shape for t in args] == [t.shape for t in args]


def test_no_tracing_of_the_kernel_beside_a_graph_break(recwarn: pytest.WarningsRecorder) -> None:
    def broken(b: Tensor, a: Tensor, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return signal.lfilter(b, a, x).sum()

    b, a, x, _ = arguments(requires_grad=True)
    torch.compile(broken, backend="aot_eager")(b, a, x).backward()
    assert not [w for w in recwarn if "Dynamo" in str(w.message)]


def test_scripting_raises() -> None:
    with pytest.raises((RuntimeError, torch.jit.frontend.NotSupportedError)):
        torch.jit.script(signal.lfilter)
