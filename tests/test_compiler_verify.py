"""verify=True: what a rewrite or a substitution changes is found, and nothing else is changed by looking."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor

import torch_iir
from torch_iir.compiler import VerificationError, _backend, _dynamo, _verify
from torch_iir.compiler._graph import Builder, Graph

Function = Callable[..., Any]
Build = Callable[[Builder, Any], Any]


class Compiled:
    """What stands for Inductor here: it runs op by op, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.strides: list[Any] = []

    def inductor(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any], mode: Any, options: Any) -> Function:
        def call(*args: Any) -> Any:
            self.calls += 1
            self.strides.append([arg.stride() for arg in args if isinstance(arg, Tensor)])
            return gm.forward(*args)

        return call


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    result = Compiled()
    monkeypatch.setattr(_backend, "inductor", result.inductor)
    return result


def set_rewrite(monkeypatch: pytest.MonkeyPatch, build: Build) -> None:
    """The only rewrite from now on: of products, by what `build` makes of the first factor."""

    def rewrite(graph: Graph) -> None:
        for call in graph.calls("mul"):
            graph.replace("product", call.node, lambda new, x=call["input"]: build(new, x))

    monkeypatch.setattr(_backend, "REWRITES", {"product": rewrite})


def right(new: Builder, x: Any) -> Any:
    return new(torch.add, x, x)


def wrong_values(new: Builder, x: Any) -> Any:
    return new(torch.add, x, x, alpha=1.001)


def wrong_gradients(new: Builder, x: Any) -> Any:
    """2 x, with the gradient of 3 x."""
    return new(torch.sub, new(torch.add, x, x, alpha=2), new(torch.detach, x))


def rounded(new: Builder, x: Any) -> Any:
    """2 x, rounded otherwise."""
    return new(torch.sub, new(torch.add, x, x, alpha=2.3), new(torch.div, x, 1 / 1.3))


def twice(x: Tensor) -> Tensor:
    return (x * 2).tanh()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log of the backend has of them."""
    records = [record for record in caplog.records if record.name == "torch_iir.compiler"]
    return [record.message for record in records if record.levelno == logging.WARNING]


def verified(function: Function, **options: Any) -> Function:
    torch._dynamo.reset()
    return torch_iir.compile(function, verify=True, fullgraph=True, **options)


@pytest.mark.parametrize("build", [right, rounded])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64])
def test_what_is_right_passes(
    build: Build, dtype: torch.dtype, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rewrite(monkeypatch, build)
    x = torch.randn(50, dtype=dtype, requires_grad=True)
    y = verified(twice)(x)
    assert_close(y, twice(x))
    assert compiled.calls == 2


def test_wrong_values_are_found(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, wrong_values)
    line = twice.__code__.co_firstlineno + 1
    function = verified(twice)
    for _ in range(2):  # and found again
        with pytest.raises(VerificationError) as error:
            function(torch.randn(50))
        text = str(error.value)
        assert text.startswith(f"output 0 (test_compiler_verify.py:{line} in twice) differs by ")
        assert text.endswith(f"Changed were: product at test_compiler_verify.py:{line} in twice")


def test_wrong_gradients_are_found_where_they_are_recorded(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, wrong_gradients)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bank = torch.nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return twice(self.bank(x))

    model, x = Model(), torch.randn(5, 3)
    function = verified(model)
    with pytest.raises(
        VerificationError, match=r"^the gradient of self.bank.(weight|bias) differs by .*\(and 1 more\)"
    ):
        function(x)
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        function(x)


def test_later_calls_cost_nothing(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, right)
    runs = []
    run = _verify._run
    monkeypatch.setattr(_verify, "_run", lambda *args, **kwargs: runs.append(1) or run(*args, **kwargs))
    function = verified(twice, dynamic=True)
    for calls, size in enumerate((50, 50, 60), start=2):
        function(torch.randn(size))
        assert (len(runs), compiled.calls) == (2, calls)


def test_graph_without_changes_is_not_run_twice(compiled: Compiled) -> None:
    verified(torch.sin)(torch.randn(50))
    assert compiled.calls == 1


def test_what_is_written_is_written_once(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, right)
    model = torch.nn.BatchNorm1d(3)
    state = torch.zeros(3)

    def f(x: Tensor) -> Tensor:
        state.add_(1)
        return model(x * 2)

    verified(f)(torch.randn(5, 3))
    assert int(model.num_batches_tracked) == 1
    assert state.tolist() == [1, 1, 1]


def test_wrong_writes_are_found(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, wrong_values)
    state = torch.zeros(5)

    def f(x: Tensor) -> Tensor:
        state.copy_(x * 2)
        return x + 1

    with pytest.raises(VerificationError, match=r"^what is written into .*state differs by"):
        verified(f)(torch.randn(5))
    assert not state.any()


def test_inputs_with_a_history_may_be_written(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, right)

    def f(x: Tensor) -> Tensor:
        return x.mul_(2) * 2  # the first is no product that could be replaced

    leaf = torch.randn(5, requires_grad=True)
    (gradient,) = torch.autograd.grad(verified(f)(leaf + 0).sum(), leaf)
    assert gradient.tolist() == [4] * 5


def test_random_numbers(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is compared with the same ones, and they go on as if it had run once."""

    def f(x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x * 2) + torch.rand_like(x)

    set_rewrite(monkeypatch, right)
    x = torch.randn(50, requires_grad=True)
    torch.manual_seed(0)
    expected, after = f(x), torch.rand(3)
    torch.manual_seed(0)
    assert_close(verified(f)(x), expected)
    assert_close(torch.rand(3), after)
    assert compiled.calls == 1  # op by op otherwise, for Inductor draws others
    set_rewrite(monkeypatch, wrong_values)
    with pytest.raises(VerificationError):
        verified(f)(x)


def test_copies_are_laid_out_as_the_inputs(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, right)
    base = torch.randn(6, 8)
    inputs = [base.T, base[1:5, ::3], base[0].expand(3, 8), torch.randn(4, dtype=torch.complex64).conj(), base[:0]]
    inputs.append(torch.view_as_real(inputs[3].conj().clone()).mT.detach().requires_grad_())
    verified(lambda *xs: [x * 2 for x in xs])(*inputs)
    assert compiled.strides[0] == compiled.strides[1] == [x.stride() for x in inputs]


def test_inputs_that_are_made_of_tensors(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), twice(y)

    inputs = TwoTensor(torch.randn(5), torch.randn(5)).requires_grad_(), torch.randn(5, requires_grad=True)
    set_rewrite(monkeypatch, right)
    x, y = verified(f)(*inputs)
    assert_close((x.a, x.b, y), (inputs[0].a.sin(), inputs[0].b.sin(), twice(inputs[1])))
    assert compiled.calls == 2
    set_rewrite(monkeypatch, wrong_gradients)
    with pytest.raises(VerificationError, match=r"^the gradient of y"):
        verified(f)(*inputs)


def test_inputs_that_share_memory(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rewrite(monkeypatch, right)

    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x.add_(1)
        return y * 2, x + y

    base = torch.zeros(8)
    got = verified(f)(base[:6], base[2:])
    assert base.tolist() == [1] * 6 + [0] * 2
    assert [each.tolist() for each in got] == [[2.0] * 4 + [0] * 2, [2.0] * 4 + [1] * 2]


def test_what_is_rounding_only_passes(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The gradient of the bias is 0, but for rounding, of which every way has its own."""
    set_rewrite(monkeypatch, rounded)

    def f(x: Tensor, bias: Tensor) -> Tensor:
        y = (x + bias) * 2
        y = y - y.mean()
        return y / y.square().mean().sqrt()

    bias = torch.zeros(1, requires_grad=True)
    verified(f)(torch.randn(3000), bias)
    (warning,) = warnings(caplog)
    assert warning.startswith("the gradient of bias differs by ")


def test_what_is_not_finite(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([1.0, torch.inf, torch.nan, -3.0])
    set_rewrite(monkeypatch, right)
    verified(lambda x: x * 2)(x)
    set_rewrite(monkeypatch, lambda new, x: new(torch.add, new(torch.log, new(torch.exp, x)), x))
    verified(lambda x: x * 2)(x)
    with pytest.raises(VerificationError, match="is not finite at other places"):
        verified(lambda x: x * 2)(1000 * x)


def test_what_is_not_a_number(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, int]:
        y = x * 2
        return (y > 1), (1e3 * y).long(), y.shape[0] + 1

    x = torch.randn(20)
    set_rewrite(monkeypatch, right)
    verified(f, dynamic=True)(x)
    set_rewrite(monkeypatch, wrong_values)
    with pytest.raises(VerificationError, match=r"^output 1 .* differs in .* of its elements"):
        verified(f, dynamic=True)(x)


# --- what stands for other libraries' functions


def exact(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return x.cumsum(-1) + shift, x.sin()


def library(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return torch.stack([x[:i].sum() for i in range(1, len(x) + 1)]) + shift, x.sin()


def coarse(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """As a library that is good in double precision only."""
    return x.cumsum(-1) + shift, x.sin() * (1 + 20000 * torch.finfo(x.dtype).eps)


def other(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return x.cumsum(-1) + shift, x.cos()


def without_gradient(x: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return x.cumsum(-1) + shift, _NoGradient.apply(x)  # type: ignore[no-untyped-call]


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("no gradients here")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    for theirs in (library, coarse, other, without_gradient):

        def decide(tx: Any, args: Sequence[Any], kwargs: dict[str, Any], theirs: Function = theirs) -> Function:
            options = _dynamo.options_of(tx)
            assert options is not None
            return _verify.beside(theirs, exact) if options.verify else exact

        _dynamo.register(theirs, decide, theirs.__name__)


def calls(theirs: Function, x: Tensor) -> Tensor:
    first, second = theirs(x)
    first, second = theirs(first, shift=0.5) if theirs is library else (first, second)
    return first + second


@pytest.mark.parametrize("dynamic", [False, True])
def test_substitution_is_compared_with_what_it_stands_for(dynamic: bool, compiled: Compiled) -> None:
    x = torch.randn(20, requires_grad=True)
    y = verified(lambda x: calls(library, x), dynamic=dynamic)(x)
    assert_close(y, calls(library, x))
    assert compiled.calls == 2


def test_wrong_substitution_is_found(compiled: Compiled) -> None:
    with pytest.raises(VerificationError, match=r"^output 0 .* differs by .*Changed were: ours for other$"):
        verified(lambda x: calls(other, x))(torch.randn(20))


def test_what_only_they_round_passes(compiled: Compiled, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(20, requires_grad=True)
    y = verified(lambda x: calls(coarse, x))(x)
    assert_close(y, calls(exact, x))
    assert [warning.split(" differs ")[0] for warning in warnings(caplog)] == [
        f"output 0 (test_compiler_verify.py:{calls.__code__.co_firstlineno + 3} in calls)",
        "the gradient of x",
    ]


def test_their_gradients_may_be_missing(compiled: Compiled, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(20, requires_grad=True)
    verified(lambda x: calls(without_gradient, x))(x).sum().backward()
    assert warnings(caplog) == ["gradients are not compared: those of the model as it was raise no gradients here"]


@pytest.mark.parametrize(
    ("function", "arguments"), [("lowpass_biquad", (16000, 30.0)), ("filtfilt", ([1.0, -0.9], [1.0, 0.5]))]
)
def test_torchaudio(function: str, arguments: Any, compiled: Compiled, F: Any) -> None:
    """Its low pass is off by some 1e-4 at so low a frequency, in single precision, which is not ours to be."""
    theirs = getattr(F, function)
    arguments = [torch.tensor(each) if isinstance(each, list) else each for each in arguments]
    x = 0.1 * torch.randn(2, 400)
    y = verified(lambda x: theirs(x, *arguments))(x)
    exact = theirs(x.double(), *[each.double() if isinstance(each, Tensor) else each for each in arguments])
    assert_close(y.double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))
    assert compiled.calls == 2


def test_through_inductor() -> None:
    """A bank in the place of a loop, trained."""

    def f(x: Tensor, a: Tensor) -> Tensor:
        return torch.stack([torch_iir.signal.lfilter([1.0], a[i], x) for i in range(3)])

    x = torch.randn(2, 100, requires_grad=True)
    a = torch.tensor([[1.0, -0.5], [1.0, -0.9], [1.0, 0.3]], requires_grad=True)
    function = verified(f)
    for _ in range(2):
        y = function(x, a)
        expected = f(x, a)
        assert_close(y, expected)
        for ours, theirs in zip(
            torch.autograd.grad(y.sum(), (x, a)), torch.autograd.grad(expected.sum(), (x, a)), strict=True
        ):
            assert_close(ours, theirs)
