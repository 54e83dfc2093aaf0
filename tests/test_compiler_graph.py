"""What rewrites see of a graph, and what they may do to it: torch_iir.compiler._calls and _graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from torch_iir import fft
from torch_iir.compiler._calls import FORMS, Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, hint, known, rewrite_all, same_shape, tensor
from torch_iir.compiler._report import Report
from torch_iir.signal import lfilter, sosfilt

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def traced(
    look: Callable[[Graph], None], function: Callable[..., Any], *args: Any, dynamic: bool | None = None
) -> tuple[Report, Any]:
    """What a look at the graph, which may change it, leaves in the report, and what the function returns then."""
    reports = []

    def backend(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        reports.append(Report())
        rewrite_all(gm, reports[-1], [look])
        return gm.forward

    result = torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)(*args)
    (report,) = reports
    return report, result


# --- calls

Spellings = tuple[str, dict[str, Any], Callable[..., Any]]

SPELLINGS: list[Spellings] = [
    (
        "lfilter",
        {"x": "x", "b": "w", "a": "w", "zi": None},
        lambda x, w: [
            lfilter(w, w, x),
            torch.ops.torch_iir.lfilter(x, w, w)[0],
            torch.ops.torch_iir.lfilter.default(x, w, a=w, zi=None)[0],
        ],
    ),
    (
        "sosfilt",
        {"x": "x", "sos": "w", "zi": None},
        lambda x, w: [sosfilt(w, x), torch.ops.torch_iir.sosfilt(x, sos=w)[0]],
    ),
    ("getitem", {"input": "x", "index": (slice(None), 1)}, lambda x: [x[:, 1], x.__getitem__((slice(None), 1))]),
    (
        "select",
        {"input": "x", "dim": 0, "index": 1},
        lambda x: [x.select(0, 1), torch.select(x, 0, 1), torch.select(x, dim=0, index=1)],
    ),
    (
        "unbind",
        {"input": "x", "dim": 0},
        lambda x: [x.unbind(), torch.unbind(x), torch.unbind(x, dim=0), x.unbind(dim=0)],
    ),
    (
        "narrow",
        {"input": "x", "dim": 0, "start": 1, "length": 2},
        lambda x: [x.narrow(0, 1, 2), torch.narrow(x, 0, 1, 2), x.narrow(0, start=1, length=2)],
    ),
    ("stack", {"tensors": ["x", "w"], "dim": 0}, lambda x, w: [torch.stack([x, w]), torch.stack([x, w], dim=0)]),
    (
        "stack",
        {"tensors": ("x", "w"), "dim": 1},
        lambda x, w: [torch.stack((x, w), 1), torch.stack(tensors=(x, w), dim=1)],
    ),
    (
        "cat",
        {"tensors": ["x", "w"], "dim": 1},
        lambda x, w: [
            torch.cat([x, w], 1),
            torch.concat([x, w], dim=1),
            torch.concatenate([x, w], axis=1),
            torch.cat(tensors=[x, w], dim=1),
        ],
    ),
    (
        "flip",
        {"input": "x", "dims": (-1,)},
        lambda x: [
            x.flip(-1),
            x.flip([-1]),
            x.flip((-1,)),
            x.flip(dims=(-1,)),
            torch.flip(x, [-1]),
            torch.flip(x, dims=(-1,)),
            torch.flip(input=x, dims=[-1]),
        ],
    ),
    ("flip", {"input": "x", "dims": (0, 1)}, lambda x: [x.flip(0, 1), x.flip((0, 1)), torch.flip(x, [0, 1])]),
    (
        "movedim",
        {"input": "x", "source": 0, "destination": 1},
        lambda x: [x.movedim(0, 1), torch.movedim(x, 0, 1), x.moveaxis(0, destination=1), torch.moveaxis(x, 0, 1)],
    ),
    (
        "transpose",
        {"input": "x", "dim0": 0, "dim1": 1},
        lambda x: [
            x.transpose(0, 1),
            torch.transpose(x, dim0=0, dim1=1),
            x.swapaxes(0, 1),
            torch.swapaxes(x, axis0=0, axis1=1),
            x.swapdims(0, 1),
            torch.swapdims(x, 0, 1),
        ],
    ),
    ("unsqueeze", {"input": "x", "dim": 1}, lambda x: [x.unsqueeze(1), torch.unsqueeze(x, dim=1)]),
    ("squeeze", {"input": "x", "dim": None}, lambda x: [x.squeeze(), torch.squeeze(x)]),
    ("squeeze", {"input": "x", "dim": 1}, lambda x: [x.squeeze(1), torch.squeeze(x, dim=1)]),
    (
        "reshape",
        {"input": "x", "shape": (2, 12)},
        lambda x: [
            x.reshape(2, 12),
            x.reshape((2, 12)),
            x.reshape(shape=[2, 12]),
            torch.reshape(x, (2, 12)),
            x.view(2, 12),
            x.view([2, 12]),
            x.view(size=(2, 12)),
        ],
    ),
    ("contiguous", {"input": "x"}, lambda x: [x.contiguous()]),
    (
        "mul",
        {"input": "x", "other": "w"},
        lambda x, w: [
            x * w,
            torch.mul(x, w),
            torch.multiply(input=x, other=w),
            x.mul(w),
            x.multiply(other=w),
            x.__mul__(w),
            torch.mul(x1=x, x2=w),
        ],
    ),
    ("mul", {"input": 2, "other": "x"}, lambda x: [2 * x]),
    (
        "div",
        {"input": "x", "other": 3, "rounding_mode": None},
        lambda x: [x / 3, torch.div(x, 3), torch.divide(x, 3), torch.true_divide(x, 3), x.div(3), x.divide(3)],
    ),
    (
        "div",
        {"input": "x", "other": 3, "rounding_mode": "floor"},
        lambda x: [x.div(3, rounding_mode="floor"), torch.div(x, 3, rounding_mode="floor")],
    ),
    (
        "add",
        {"input": "x", "other": "w", "alpha": 1},
        lambda x, w: [x + w, torch.add(x, w), x.add(w), x.__add__(w), torch.add(x, other=w, alpha=1)],
    ),
    ("sub", {"input": "x", "other": "w", "alpha": 2}, lambda x, w: [x.sub(w, alpha=2), torch.subtract(x, w, alpha=2)]),
    ("neg", {"input": "x"}, lambda x: [-x, torch.neg(x), torch.negative(x), x.neg(), x.negative(), x.__neg__()]),
    ("abs", {"input": "x"}, lambda x: [abs(x), torch.abs(x), torch.absolute(x), x.abs(), x.absolute()]),
    ("exp", {"input": "x"}, lambda x: [torch.exp(x), x.exp()]),
    ("log", {"input": "x"}, lambda x: [torch.log(x), x.log()]),
    ("tanh", {"input": "x"}, lambda x: [torch.tanh(x), x.tanh(), F.tanh(x)]),
    ("sigmoid", {"input": "x"}, lambda x: [torch.sigmoid(x), x.sigmoid(), F.sigmoid(x)]),
    (
        "relu",
        {"input": "x", "inplace": False},
        lambda x: [torch.relu(x), F.relu(x), F.relu(x, inplace=False), x.relu()],
    ),
    ("square", {"input": "x"}, lambda x: [torch.square(x), x.square()]),
    ("sqrt", {"input": "x"}, lambda x: [torch.sqrt(x), x.sqrt()]),
    ("pow", {"input": "x", "exponent": 3}, lambda x: [x**3, torch.pow(x, 3), x.pow(3), x.pow(exponent=3)]),
    (
        "clamp",
        {"input": "x", "min": -1, "max": 1},
        lambda x: [x.clamp(-1, 1), torch.clamp(x, -1, max=1), torch.clip(x, min=-1, max=1), x.clip(-1, 1)],
    ),
    ("clamp", {"input": "x", "min": None, "max": 1}, lambda x: [x.clamp(max=1), torch.clamp(x, max=1)]),
    (
        "pad",
        {"input": "x", "pad": (1, 0), "mode": "constant", "value": 0.0},
        lambda x: [F.pad(x, (1, 0), value=0.0), F.pad(x, pad=(1, 0), mode="constant", value=0.0)],
    ),
    (
        "conv1d",
        {"input": "x", "weight": "w", "bias": None, "stride": 2, "padding": 1, "dilation": 1, "groups": 1},
        lambda x, w: [F.conv1d(x, w, None, 2, 1), torch.conv1d(x, w, stride=2, padding=1)],
    ),
    (
        "rfft",
        {"input": "x", "n": 8, "dim": -1, "norm": None},
        lambda x: [torch.fft.rfft(x, 8), torch.fft.rfft(x, n=8, dim=-1)],
    ),
    ("irfft", {"input": "x", "n": 8, "dim": 0, "norm": "ortho"}, lambda x: [torch.fft.irfft(x, 8, 0, "ortho")]),
    (
        "iir_rfft",
        {"input": "x", "n": 8, "norm": 0},
        lambda x: [fft.rfft(x, 8), torch.ops.torch_iir.rfft(x, n=8, norm=0)],
    ),
    ("iir_irfft", {"input": "x", "n": 8, "norm": 2}, lambda x: [fft.irfft(x, n=8)]),
    ("clone", {"input": "x", "memory_format": None}, lambda x: [x.clone(), torch.clone(x)]),
    ("where", {"condition": "x", "input": "w", "other": 0}, lambda x, w: [torch.where(x, w, 0)]),
    (
        "masked_fill",
        {"input": "w", "mask": "x", "value": 0},
        lambda x, w: [w.masked_fill(x, 0), torch.masked_fill(w, x, value=0)],
    ),
    (
        "lerp",
        {"input": "x", "end": "w", "weight": 0.5},
        lambda x, w: [x.lerp(w, 0.5), torch.lerp(x, w, weight=0.5)],
    ),
    (
        "addcmul",
        {"input": "x", "tensor1": "w", "tensor2": "w", "value": 2},
        lambda x, w: [x.addcmul(w, w, value=2), torch.addcmul(x, w, w, value=2)],
    ),
    ("linear", {"input": "x", "weight": "w", "bias": None}, lambda x, w: [F.linear(x, w), F.linear(x, weight=w)]),
    ("matmul", {"input": "x", "other": "w"}, lambda x, w: [x @ w, torch.matmul(x, w), x.matmul(w)]),
    (
        "einsum",
        {"equation": "ij,ij->i", "operands": ("x", "w")},
        lambda x, w: [torch.einsum("ij,ij->i", x, w), torch.einsum("ij,ij->i", [x, w])],
    ),
    (
        "expand",
        {"input": "x", "shape": (2, 4, 6)},
        lambda x: [x.expand(2, 4, 6), x.expand((2, 4, 6)), torch.broadcast_to(x, (2, 4, 6)), x.broadcast_to((2, 4, 6))],
    ),
    (
        "permute",
        {"input": "x", "dims": (1, 0)},
        lambda x: [x.permute(1, 0), x.permute((1, 0)), torch.permute(x, (1, 0))],
    ),
    (
        "flatten",
        {"input": "x", "start_dim": 0, "end_dim": -1},
        lambda x: [x.flatten(), torch.flatten(x), x.flatten(0, end_dim=-1)],
    ),
    ("chunk", {"input": "x", "chunks": 2, "dim": 0}, lambda x: [x.chunk(2), torch.chunk(x, 2, dim=0)]),
    ("split", {"input": "x", "split_size": 2, "dim": 0}, lambda x: [x.split(2), torch.split(x, 2, dim=0)]),
    *[
        (
            name,
            {"input": "x", "dim": -1, "keepdim": True},
            lambda x, name=name: [
                getattr(x, name)(-1, True),
                getattr(x, name)(dim=-1, keepdim=True),
                getattr(torch, name)(x, -1, keepdim=True),
            ],
        )
        for name in ("sum", "mean", "amax", "amin")
    ],
    *[
        (
            name,
            {"input": "x", "dim": -1},
            lambda x, name=name: [
                getattr(x, name)(-1),
                getattr(torch, name)(x, dim=-1),
                getattr(F, name)(x, -1),
            ],
        )
        for name in ("softmax", "log_softmax")
    ],
]


def described(value: Any) -> Any:
    """Inputs of the graph by the names of the function's parameters."""
    if isinstance(value, Node):
        return value.name.removeprefix("l_").removesuffix("_")
    if isinstance(value, (tuple, list)):
        return type(value)(map(described, value))
    return value


@pytest.mark.parametrize(("name", "arguments", "function"), SPELLINGS, ids=[row[0] for row in SPELLINGS])
def test_spellings_of_a_call(name: str, arguments: dict[str, Any], function: Callable[..., Any]) -> None:
    x = X > 0 if name in ("where", "masked_fill") else X
    shapes = {"sosfilt": (2, 6), "lfilter": (3,), "conv1d": (2, 4, 3), "matmul": (6, 4)}
    w = torch.ones(shapes.get(name, X.shape))
    found: list[Call] = []
    args = (x, w) if function.__code__.co_argcount > 1 and function.__defaults__ is None else (x,)
    _, result = traced(lambda graph: found.extend(graph.calls(name)), function, *args)
    assert len(found) == len(result)
    for call in found:
        assert call.node.target in FORMS[name].functions + FORMS[name].methods
        assert {key: described(value) for key, value in call.arguments.items()} == arguments


def test_every_form_has_spellings() -> None:
    assert {name for name, _, _ in SPELLINGS} == FORMS.keys()


OTHERS: dict[str, Callable[[Tensor], Any]] = {
    "view of another dtype": lambda x: x.view(torch.int32),
    "in place": lambda x: x.clone().mul_(2).add_(1).clamp_(0, 1).relu_(),
    "augmented": lambda x: operator.imul(x.clone(), 2),
    "out=": lambda x: torch.mul(x, 2, out=torch.empty_like(x)),
    "inplace=": lambda x: F.relu(x.clone(), inplace=True),
    "dtype=": lambda x: (x.sum(-1, dtype=torch.float64), x.softmax(-1, dtype=torch.float64)),
    "memory_format=": lambda x: x.contiguous(memory_format=torch.contiguous_format),
    "order of long ago": lambda x: torch.add(x, 2, x),
}


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.filterwarnings("ignore:This overload of add is deprecated")
def test_other_operations_are_not_misread(function: Callable[[Tensor], Any]) -> None:
    found: list[Call] = []
    traced(lambda graph: found.extend(graph.calls(*FORMS.keys() - {"clone"})), function, X)
    assert not found


# --- replacing


def negations(build: Callable[[Builder, Call], Node]) -> Callable[[Graph], None]:
    """A rewrite of every negation."""

    def rewrite(graph: Graph) -> None:
        for call in graph.calls("neg"):
            graph.replace("negation", call.node, lambda new, call=call: build(new, call))  # type: ignore[misc]

    return rewrite


def as_product(new: Builder, call: Call) -> Node:
    return new(operator.mul, call["input"], -1)


def fires(function: Callable[..., Any], *args: Any, build: Any = as_product, **options: Any) -> Report:
    """Asserts that negations are replaced and nothing else changes."""
    expected = function(*[arg.clone() for arg in args])
    report, result = traced(negations(build), function, *[arg.clone() for arg in args], **options)
    assert_close(result, expected)
    assert report.fired
    assert not report.missed
    assert "neg" not in report.after
    return report


def is_refused(function: Callable[..., Any], *args: Any, build: Any = as_product, **options: Any) -> str:
    """Asserts that the graph stays as it was; returns why."""
    expected = function(*[arg.clone() for arg in args])
    report, result = traced(negations(build), function, *[arg.clone() for arg in args], **options)
    assert_close(result, expected)
    assert not report.fired
    assert report.after == report.before
    (missed,) = report.missed
    return missed.why


def test_what_nothing_uses_any_more_goes() -> None:
    def without_exp(new: Builder, call: Call) -> Node:
        exp = read(call["input"])
        assert exp is not None
        return new(operator.sub, 0, new("exp", exp["input"]))

    report = fires(lambda x: -(x.exp()), X, build=without_exp)
    assert report.before == {"exp": 1, "neg": 1}
    assert report.after == {"exp": 1, "sub": 1}
    report = fires(lambda x: (y := x.exp(), -y), X, build=without_exp)
    assert report.after == {"exp": 2, "sub": 1}


def test_a_call_of_other_values() -> None:
    def of_exp(new: Builder, call: Call) -> Node:
        exp = read(call["input"])
        assert exp is not None
        opposite = new(operator.truediv, 1, new("exp", new("mul", exp["input"], -1)))
        return new.again(call.node, {call["input"]: opposite})

    def rewrite(graph: Graph) -> None:
        (call,) = graph.calls("neg")
        graph.replace("negation", call.node, lambda new: of_exp(new, call))

    report, result = traced(rewrite, lambda x: torch.neg(input=x.exp()), X)
    assert_close(result, -(X.exp()))
    assert report.after == {"mul": 1, "exp": 1, "div": 1, "neg": 1}


@torch.library.custom_op("torch_iir_tests::double_", mutates_args=("x",))
def double_(x: Tensor) -> None:
    x.mul_(2)


def set_first(x: Tensor) -> None:
    x[0] = 1.0


def written_in_checkpoint(x: Tensor) -> Tensor:
    x.mul_(2)
    return x + 1


def through(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """-x.exp(), and between the two something is done to what is negated."""

    def between(x: Tensor) -> Tensor:
        y = x.exp()
        z = -y
        function(y)
        return z + y

    return between


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "method": through(lambda y: y.mul_(2)),
    "operator": through(lambda y: operator.iadd(y, 1)),
    "setitem": through(set_first),
    "view": through(lambda y: y[0].zero_()),
    "view of a view": through(lambda y: y.T.reshape(2, 3, 4)[1:].unsqueeze(0).copy_(torch.ones(()))),
    "detached": through(lambda y: y.detach().add_(1)),
    "data": through(lambda y: y.data.add_(1)),
    "out=": through(lambda y: torch.mul(y, 2, out=y)),
    "inplace=": through(lambda y: F.relu(y - 1, inplace=True) + F.relu_(y)),
    "shape": through(lambda y: y.squeeze_()),
    "custom operator": through(double_),
    "checkpoint": through(lambda y: checkpoint(written_in_checkpoint, y, use_reentrant=False)),
    "input": lambda x: x.mul_(2) + -x,
    "input of another view": lambda x: x[:2].mul_(2).sum() + -x,
    "result": lambda x: (-x).mul_(2),
    "view of the result": lambda x: (y := -x, y[0].mul_(2))[0],
}


@pytest.mark.parametrize("function", WRITES.values(), ids=WRITES.keys())
def test_what_is_written_to_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert is_refused(function, X) == "a tensor is written to in place"


def mixed(enter: Callable[[], Any]) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """-x.exp() with both operations in a mode, and with only the second."""

    def within(x: Tensor) -> Tensor:
        with enter():
            z = -(x.exp())
        return z + x

    def across(x: Tensor) -> Tensor:
        y = x.exp()
        with enter():
            z = -y
        return z + x

    return within, across


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}


@pytest.mark.parametrize("enter", MODES.values(), ids=MODES.keys())
def test_nothing_is_moved_from_one_mode_to_another(enter: Callable[[], Any]) -> None:
    def build(new: Builder, call: Call) -> Node:
        exp = read(call["input"])
        assert exp is not None
        return new(operator.mul, new("exp", exp["input"]), -1)

    within, across = mixed(enter)
    x = X.clone().requires_grad_()
    fires(within, x, build=build)
    assert is_refused(across, x, build=build) == "a change of mode (autocast, gradients) lies between"


def test_what_is_made_is_computed_in_the_modes_of_its_place() -> None:
    def in_both(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            y = -(x @ x.mT)
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                return y - (-(x @ x.mT))

    def build(new: Builder, call: Call) -> Node:
        product = read(call["input"])
        assert product is not None
        return new(torch.matmul, new(operator.mul, product["input"], -1), product["other"])

    report = fires(in_both, X.clone().requires_grad_(), build=build)
    assert len(report.fired) == 2
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fires(lambda x: -(x @ x.mT), X.clone().requires_grad_(), build=build)


def test_writes_and_checks_are_no_change_of_mode() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.exp()
        z = torch.zeros(2, *x.shape)
        z[0] = x
        torch._assert_async((x < 100).all())
        z[1] = -y
        return z

    def build(new: Builder, call: Call) -> Node:
        exp = read(call["input"])
        assert exp is not None
        return new(operator.mul, new("exp", exp["input"]), -1)

    fires(function, X, build=build)


OTHER_RESULTS: dict[str, tuple[Any, str]] = {
    "dtype": (lambda new, call: new(torch.neg, new("double", call["input"])), "the dtype would be torch.float64, not"),
    "shape": (lambda new, call: new(torch.neg, new.item(call["input"], 0)), "the shape would be [6], not [4, 6]"),
    "strides": (
        lambda new, call: new("t", new(torch.neg, new("contiguous", new("t", call["input"])))),
        "the strides would be [1, 4], not [6, 1]",
    ),
    "device": (lambda new, call: new("to", call["input"], "meta"), "the device would be meta, not cpu"),
    "requires_grad": (
        lambda new, call: new(torch.neg, new("detach", call["input"])),
        "the requires_grad would be False",
    ),
    "memory": (
        lambda new, call: new("view_as", call["input"], call["input"]),
        "the result would share its memory with",
    ),
    "itself": (lambda new, call: call["input"], "the result would share its memory with another tensor than before"),
}


@pytest.mark.parametrize(("build", "why"), OTHER_RESULTS.values(), ids=OTHER_RESULTS.keys())
def test_the_result_is_like_the_one_before(build: Any, why: str) -> None:
    assert is_refused(lambda x: -x, X.clone().requires_grad_(), build=build).startswith(why)


def test_views_of_what_is_replaced_do_not_hinder_it() -> None:
    fires(lambda x: (y := -x, y[0], y.T), X)


def test_a_rewrite_may_refuse_while_it_builds() -> None:
    def build(new: Builder, call: Call) -> Node:
        new("exp", new(operator.mul, call["input"], -1))
        raise Refused("it is Monday")

    assert is_refused(lambda x: -x, X, build=build) == "it is Monday"


def test_sizes_that_are_known_later_are_refused() -> None:
    def build(new: Builder, call: Call) -> Node:
        return new.item(new("chunk", call["input"], 2), 0)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        why = is_refused(lambda x: -(x[x > 0]), X, build=build)
        fires(lambda x: -(x[x > 0]), X)
    assert why.startswith("a size is known only when the graph runs:")


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "vmap": torch.vmap(torch.neg),
    "grad": torch.func.grad(lambda x: (-x).square().sum()),
    "jvp": lambda x: torch.func.jvp(torch.neg, (x,), (x,))[1],
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch calls it itself
@pytest.mark.parametrize("function", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_transforms_of_torch_func_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    assert is_refused(function, X) == "a transform of torch.func (vmap, grad, jvp) is at work"


def test_several_are_replaced_together_or_not_at_all() -> None:
    def rewrite(graph: Graph) -> None:
        first, second = (call.node for call in graph.calls("exp"))

        def build(new: Builder) -> Sequence[Node]:
            both = new(torch.stack, [first.args[0], second.args[0]])
            each = new("unbind", new("exp", both))
            return [new("clone", new.item(each, index)) for index in range(2)]

        graph.replace_all("exponentials", [first, second], build)

    def exponentials(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), w.exp()

    report, result = traced(rewrite, exponentials, X, X + 1)
    assert_close(result, exponentials(X, X + 1))
    assert report.after == {"stack": 1, "exp": 1, "unbind": 1, "getitem": 2, "clone": 2}
    report, result = traced(rewrite, lambda x, w: (x.exp(), w.exp().mul_(2)), X, X + 1)
    assert_close(result[1], 2 * (X + 1).exp())
    assert report.after == report.before == {"exp": 2, "mul_": 1}
    assert [missed.why for missed in report.missed] == ["a tensor is written to in place"]


# --- the report


@pytest.mark.parametrize("dynamic", [False, True])
def test_bytes_are_of_what_is_not_written_and_read_any_more(dynamic: bool) -> None:
    def in_one(new: Builder, call: Call) -> Node:
        exp = read(call["input"])
        assert exp is not None
        return new(torch.nn.functional.threshold, exp["input"], 100.0, 0.0)

    samples = X.numel() * 4
    report, _ = traced(negations(in_one), lambda x: -(x.exp()), X, dynamic=dynamic)
    assert report.bytes_saved == 2 * samples
    report, _ = traced(negations(in_one), lambda x: -(x[:3].exp()), X, dynamic=dynamic)  # a view is no bytes
    assert report.bytes_saved == 2 * samples * 3 / 4
    report, _ = traced(negations(as_product), lambda x: -x, X, dynamic=dynamic)
    assert report.fired
    assert report.bytes_saved == 0
    report, _ = traced(
        negations(lambda new, call: new(operator.mul, new("clone", call["input"]), -1)),
        lambda x: -x,
        X,
        dynamic=dynamic,
    )
    assert report.bytes_saved == -2 * samples


def test_a_miss_is_told_once() -> None:
    def build(new: Builder, call: Call) -> Node:
        raise Refused("no")

    def loop(x: Tensor) -> Tensor:
        for _ in range(3):
            x = -x
        return x

    def lines(x: Tensor) -> Tensor:
        x = -x
        return -x

    report, _ = traced(negations(build), loop, X)
    assert len(report.missed) == 1
    report, _ = traced(negations(build), lines, X)
    assert len(report.missed) == 2
    assert len({missed.where for missed in report.missed}) == 2


# --- values


def test_what_is_provably_the_same() -> None:
    def function(x: Tensor, w: Tensor) -> list[Tensor]:
        written = w.clone()
        before = written.flip(-1)
        written.mul_(2)
        same = [(x, x), (x[1:, ::2], x[1:, ::2]), (x.flip(-1) * 2, torch.flip(x, [-1]) * 2)]
        other = [(x, w), (x[1:], x[:3]), (x * 2, x * 2.0), (x * w, w * x), (before, written.flip(-1))]
        random = torch.rand_like(x), torch.rand_like(x)
        return [torch.stack(pair) for pair in (*same, *other, random)]

    found: list[bool] = []

    def look(graph: Graph) -> None:
        found.extend(graph.same(*call["tensors"]) for call in graph.calls("stack"))

    traced(look, function, X, X + 1)
    assert found == [True] * 3 + [False] * 6


def test_outputs_of_an_operator() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, zf = lfilter([1.0], [1.0, -0.5], x, zi=torch.zeros(1))
        return lfilter([1.0], [1.0, -0.5], y), zf, y

    def look(graph: Graph) -> None:
        first, second = graph.calls("lfilter")
        outputs = graph.outputs(first)
        assert {index: len(nodes) for index, nodes in outputs.items()} == {0: 1, 1: 1}
        assert [*graph.outputs(second)] == [0]
        (y,) = outputs[0]
        for node, index, name in ((y, 1, "lfilter"), (y, 0, "sosfilt"), (first.node, 0, "lfilter")):
            assert graph.output(node, index, name) is None
        found = graph.output(second["x"], 0, "lfilter")
        assert found is not None
        assert found.node is first.node

    traced(look, function, X)


def test_sizes_are_compared_without_guards() -> None:
    def look(graph: Graph) -> None:
        x, w = (tensor(node) for node in graph.nodes if node.op == "placeholder" and not node.target.startswith("s"))
        guards = len(x.fake_mode.shape_env.guards)
        assert known(x.shape[0] == x.shape[0])
        assert same_shape(x.shape, (x * 2).shape)
        assert not known(x.shape[0] == w.shape[0])
        assert not known(x.shape[0] != w.shape[0])
        assert not same_shape(x.shape, w.shape)
        assert not same_shape(x.shape, x.shape[:1])
        assert hint(x.shape[0]) == 4
        assert hint(x.shape[0] * x.shape[1]) == 24
        assert hint(3) == 3
        assert len(x.fake_mode.shape_env.guards) == guards

    traced(look, lambda x, w: (x + 1, w + 1), X, torch.zeros(5, 7), dynamic=True)

    def look_later(graph: Graph) -> None:
        (call,) = graph.calls("neg")
        assert hint(tensor(call.node).shape[0]) == 8192

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        traced(look_later, lambda x: -(x[x > 0]), X)
