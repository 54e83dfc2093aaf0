"""The backend as a whole: how it is found and told what to do, and that Inductor gets it all."""

from __future__ import annotations

import copy
import doctest
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.testing import assert_close

import torch_iir
from torch_iir.compiler import _compile
from torch_iir.compiler._backend import backend
from torch_iir.compiler._options import Options
from torch_iir.compiler.rewrites import REWRITES
from torch_iir.signal import lfilter

Function = Callable[..., Any]


class Bank(nn.Module):
    """As a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.poles = nn.Parameter(torch.linspace(-0.9, 0.9, 4))
        self.scale = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([lfilter([1.0], torch.stack([torch.ones(()), -pole]), x) for pole in self.poles], -1)
        z: Tensor = self.scale(y)
        return z


class Inductor:
    """Takes the place of Inductor, and keeps what it was given."""

    def __init__(self) -> None:
        self.graphs: list[str] = []
        self.inputs: list[Sequence[Any]] = []
        self.options: list[dict[str, Any]] = []

    def __call__(
        self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any], config_patches: dict[str, Any]
    ) -> Function:
        self.graphs.append(str(gm.graph))
        self.inputs.append(example_inputs)
        self.options.append(config_patches)
        return gm.forward  # type: ignore[no-any-return]


@pytest.fixture
def inductor(monkeypatch: pytest.MonkeyPatch) -> Inductor:
    result = Inductor()
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", result)
    return result


def python(*lines: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.split()


# --- how it is found


def test_entry_point() -> None:
    (found,) = entry_points(group="torch_dynamo_backends", name="torch_iir")
    assert found.load() is backend


def test_no_import_is_needed() -> None:
    assert python(
        "import sys, torch",
        "print('torch_iir' in torch._dynamo.list_backends(), 'torch_iir' in sys.modules)",
        "f = torch.compile(lambda x: x * 2, backend='torch_iir')",
        "print(*f(torch.ones(2)).tolist(), 'torch_iir' in sys.modules)",
    ) == ["True", "False", "2.0", "2.0", "True"]


def test_importing_the_package_imports_no_compiler() -> None:
    assert (
        python(
            "import sys, torch_iir",
            "torch_iir.compile, torch_iir.explain, torch_iir.compiler.VerificationError",
            "print(*sorted({'torch._dynamo', 'torch._inductor'} & sys.modules.keys()))",
        )
        == []
    )


# --- through Inductor


def test_training() -> None:
    """Of a module, as eager has it."""
    model, x = Bank(), torch.randn(3, 200)
    expected = copy.deepcopy(model)
    compiled = torch_iir.compile(model)
    for module in (expected, compiled):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    assert compiled._orig_mod is model
    assert_close(model.state_dict(), expected.state_dict())
    assert not torch.equal(model.poles, Bank().poles)


def test_inference_of_any_size() -> None:
    model = Bank().eval()
    graphs = []

    def counting(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **options: Any) -> Function:
        graphs.append(example_inputs)
        return backend(gm, example_inputs, **options)

    compiled = torch.compile(model, backend=counting, dynamic=True)
    with torch.inference_mode():
        for shape in ((3, 200), (2, 300)):
            x = torch.randn(shape)
            assert_close(compiled(x), model(x))
    assert len(graphs) == 1


def test_unknown_option_of_inductor() -> None:
    with pytest.raises(BackendCompilerFailed, match="no_such_option"):
        torch_iir.compile(torch.sin, options={"no_such_option": 1})(torch.ones(3))


def test_examples() -> None:
    (test,) = [test for test in doctest.DocTestFinder().find(_compile) if test.examples]
    result = doctest.DocTestRunner().run(test, clear_globs=False)  # Dynamo has put names there, and takes them back
    assert result.failed == 0


# --- what it is told


@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_modes_and_options(mode: str | None, inductor: Inductor) -> None:
    known = torch._inductor.list_mode_options()
    options = {"epilogue_fusion": False, "max_autotune": False}
    torch_iir.compile(torch.sin, mode=mode, options=options)(torch.ones(3))
    assert inductor.options == [{**known.get(mode, {}), **options}]
    torch._dynamo.reset()
    torch.compile(torch.sin, backend="torch_iir", mode=mode)(torch.ones(3))
    assert inductor.options[1:] == [known.get(mode, {})]


def test_unknown_mode() -> None:
    message = "mode must be among default, .*max-autotune.*, got 'fastest'"
    with pytest.raises(ValueError, match=message):
        torch_iir.compile(torch.sin, mode="fastest")


def test_dynamic_and_fullgraph(inductor: Inductor) -> None:
    torch_iir.compile(torch.sin, dynamic=True)(torch.ones(3))
    assert isinstance(inductor.inputs[0][0], torch.SymInt)

    def broken(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x.sin()

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch_iir.compile(broken, fullgraph=True)(torch.ones(3))
    torch_iir.compile(broken)(torch.ones(3))


def test_decorator(inductor: Inductor) -> None:
    @torch_iir.compile
    def sine(x: Tensor) -> Tensor:
        return x.sin()

    @torch_iir.compile(options={"max_autotune": True}, rewrite=False)
    def cosine(x: Tensor) -> Tensor:
        return x.cos()

    x = torch.randn(3)
    assert_close(sine(x), x.sin())
    assert_close(cosine(x), x.cos())
    assert (sine.__name__, cosine.__name__) == ("sine", "cosine")
    assert inductor.options == [{}, {"max_autotune": True}]


def bank(x: Tensor) -> Tensor:
    return torch.stack([lfilter([1.0], [1.0, -pole], x) for pole in (0.1, 0.5, 0.9)])


def graph_of(function: Function, x: Tensor) -> str:
    """As Dynamo traces it."""
    graphs: list[str] = []

    def keep(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Function:
        graphs.append(str(gm.graph))
        return gm.forward  # type: ignore[no-any-return]

    torch._dynamo.reset()
    torch.compile(function, backend=keep)(x)
    torch._dynamo.reset()
    (graph,) = graphs
    return graph


def test_compilations_with_different_options_share_nothing(inductor: Inductor) -> None:
    x = torch.randn(2, 50)
    plain = graph_of(bank, x)
    for _ in range(2):
        for options in ({}, {"rewrite": False}, {"rewrite": ["bank"]}, {"rewrite": ["gain"]}):
            assert_close(torch_iir.compile(bank, **options)(x), bank(x))  # type: ignore[call-overload]
    assert len(inductor.graphs) == 4
    assert [graph == plain for graph in inductor.graphs] == [False, True, False, True]


@pytest.mark.parametrize("verify", [False, True])
def test_dry_mode(verify: bool, inductor: Inductor, caplog: pytest.LogCaptureFixture) -> None:
    """The graph stays as it is; the log has what would have become of it."""
    x = torch.randn(2, 50)
    plain = graph_of(bank, x)
    caplog.set_level(logging.INFO, "torch_iir.compiler")
    assert_close(torch_iir.compile(bank, dry=True, verify=verify)(x), bank(x))
    assert inductor.graphs == [plain]
    (message,) = [record.message for record in caplog.records if record.name == "torch_iir.compiler"]
    assert f"bank  at test_compiler_backend.py:{bank.__code__.co_firstlineno + 1} in bank" in message
    assert message == str(torch_iir.explain(bank, x).graphs[0])


def test_options_travel() -> None:
    every = Options(substitute=False, inverse_mel=True, rewrite=frozenset({"bank"}), verify=True, dry=True)
    packed = every.packed()
    assert all(name.startswith("torch_iir.") for name in packed)
    assert Options.parse({**packed, "max_autotune": True}) == (every, {"max_autotune": True})
    assert Options().packed() == {}
    assert Options.parse(None) == (Options(), {})
    assert Options.parse({"torch_iir.rewrite": ["gain", "bank"]})[0].rewrite == {"bank", "gain"}


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"verify": 1}, TypeError, "verify must be True or False, got 1"),
        ({"substitute": None}, TypeError, "substitute must be True or False, got None"),
        ({"rewrite": "bank"}, TypeError, "rewrite must be True, False or a collection of names, got 'bank'"),
        ({"rewrite": 1}, TypeError, "rewrite must be True, False or a collection of names, got 1"),
        ({"rewrite": ["bank", "tank"]}, ValueError, f"rewrite must be among {', '.join(REWRITES)}, got tank"),
    ],
)
def test_wrong_options(option: dict[str, Any], error: type[Exception], message: str, inductor: Inductor) -> None:
    """Are found when something is compiled, whichever way they come."""
    with pytest.raises(error) as found:
        torch_iir.compile(torch.sin, **option)
    assert str(found.value) == message
    options = {f"torch_iir.{name}": value for name, value in option.items()}
    with pytest.raises(BackendCompilerFailed) as failed:
        torch.compile(torch.sin, backend="torch_iir", options=options)(torch.ones(3))
    assert type(failed.value.inner_exception) is error
    assert message in str(failed.value)


def test_unknown_option(inductor: Inductor) -> None:
    options = {"torch_iir.check": True}
    with pytest.raises(
        BackendCompilerFailed, match=r"options must be among torch_iir.substitute, .* got torch_iir.check"
    ):
        torch.compile(torch.sin, backend="torch_iir", options=options)(torch.ones(3))
