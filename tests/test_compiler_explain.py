"""explain: what it finds and how it says it, and that it changes nothing."""

from __future__ import annotations

import doctest
import functools
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torch_iir
from torch_iir.compiler import _backend, _explain, _report
from torch_iir.compiler._explain import Explanation, GraphBreak
from torch_iir.compiler._graph import Graph
from torch_iir.compiler._report import Fired, Missed, Report
from torch_iir.signal import lfilter

Function = Callable[..., Any]
CALLS: list[str] = []  # of what was run, copies included


@pytest.fixture(autouse=True)
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only rewrite: 2 x becomes x + x, which nearly fits 3 x."""

    def rewrite(graph: Graph) -> None:
        for call in graph.calls("mul"):
            if call["other"] == 2:
                graph.replace("doubling", call.node, lambda new, x=call["input"]: new(torch.add, x, x))
            else:
                graph.missed("doubling", call.node, f"the factor is {call['other']}: make it 2")

    monkeypatch.setattr(_backend, "REWRITES", {"doubling": rewrite})
    CALLS.clear()


def line(function: Function, offset: int) -> str:
    code = function.__code__
    return f"test_compiler_explain.py:{code.co_firstlineno + offset} in {code.co_name}"


class Whole(nn.Module):
    def forward(self, x: Tensor, factor: float = 3.0) -> Tensor:
        CALLS.append("whole")
        y = lfilter([1.0], [1.0, -0.5], x * 2)
        y = self.last(y) * 2
        return y * factor

    def last(self, x: Tensor) -> Tensor:
        return x.abs() * 2


@torch.compiler.disable
def random_number() -> Tensor:
    return torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002


class Broken(nn.Module):
    """State of all kinds, and two graph breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        CALLS.append("broken")
        self.seen += 1
        y = self.norm(x) * 2
        if y.sum() > 1000:
            y = y + 1
        x.zero_()
        return nn.functional.dropout(y * random_number()) * 2


def test_whole_graph(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = torch_iir.explain(Whole(), torch.randn(2, 1000))
    (report,) = explanation.graphs
    assert report.fired == [
        Fired("doubling", line(Whole.forward, 2), 0),
        Fired("doubling", line(Whole.last, 1), 0),
        Fired("doubling", line(Whole.forward, 3), 0),
    ]
    assert report.missed == [Missed("doubling", line(Whole.forward, 4), "the factor is 3.0: make it 2")]
    assert report.before["lfilter"] == report.after["lfilter"] == 1
    assert (report.before["mul"], report.after["mul"], report.before["add"], report.after["add"]) == (4, 1, 0, 3)
    assert explanation.graph_breaks == ()
    assert capsys.readouterr().out == f"{explanation}\n"
    assert CALLS == []


def test_arguments_of_any_name() -> None:
    def f(*, model: Tensor, args: float) -> Tensor:
        return model * args

    (report,) = torch_iir.explain(f, model=torch.randn(3), args=2.0).graphs
    assert [fired.rewrite for fired in report.fired] == ["doubling"]


def test_graph_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = torch_iir.explain(Broken(), torch.randn(4, 3))
    assert [stop.where for stop in explanation.graph_breaks] == [line(Broken.forward, 4), line(Broken.forward, 7)]
    assert explanation.graph_breaks[0].reason == "Data-dependent branching"
    assert explanation.graph_breaks[1].reason.startswith("Skip calling `torch.compiler.disable()`d function: ")
    fired = [[each.where for each in report.fired] for report in explanation.graphs]
    assert fired == [[line(Broken.forward, 3)], [], [line(Broken.forward, 7)]]
    assert "3 graphs, 2 graph breaks" in capsys.readouterr().out


def in_a_loop(x: Tensor) -> Tensor:
    for _ in range(2):
        x = x + 1
        torch._dynamo.graph_break()
    return x


def of_another(x: Tensor) -> Tensor:
    return in_a_loop(x * 2) * 2


def of_a_number(x: Tensor) -> Tensor:
    return torch.zeros(int(x.sum().item()) + 4) + 1


@pytest.mark.parametrize(
    ("function", "why", "where", "graphs"),
    [
        (in_a_loop, "Call to `torch._dynamo.graph_break()`", line(in_a_loop, 3), 0),
        (of_another, "Call to `torch._dynamo.graph_break()`", line(in_a_loop, 3), 2),
        (of_a_number, "Unsupported Tensor.item() call", line(of_a_number, 1), 2),
    ],
)
def test_kinds_of_graph_breaks(function: Function, why: str, where: str, graphs: int) -> None:
    explanation = torch_iir.explain(function, torch.zeros(3))
    ((reason, place),) = explanation.graph_breaks
    assert reason.startswith(why)
    assert place == where
    assert len(explanation.graphs) == graphs


def test_nothing_to_compile() -> None:
    assert torch_iir.explain(lambda x: x, torch.zeros(3)) == Explanation((), ())


def test_errors_are_those_of_the_model() -> None:
    def f(x: Tensor) -> Tensor:
        return x @ x

    with pytest.raises(RuntimeError, match="reduction dim"):
        torch_iir.explain(f, torch.zeros(2, 3))


def test_substitutions(F: Any) -> None:
    def f(x: Tensor) -> Tensor:
        for frequency in (100.0, 200.0):
            x = F.lowpass_biquad(x, 16000, frequency)
        return F.lfilter(x, torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0]))

    explanation = torch_iir.explain(f, 0.1 * torch.randn(100))
    (report,) = explanation.graphs
    names = [f"torchaudio.functional.{name}" for name in ("lowpass_biquad", "lowpass_biquad", "lfilter")]
    assert report.substituted == names
    assert explanation.graph_breaks == ()
    assert f"  substituted   {names[0]} × 2\n                {names[2]}\n" in str(explanation)


# --- that it changes nothing


def snapshot(model: nn.Module, x: Tensor) -> list[Any]:
    tensors = [x, *model.state_dict().values()]
    return [
        [tensor.tolist() for tensor in tensors],
        [tensor._version for tensor in tensors],
        [parameter.grad for parameter in model.parameters()],
        {name: value for name, value in vars(model).items() if not name.startswith("_")},
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002
    ]


@pytest.mark.parametrize("training", [True, False])
def test_model_inputs_and_random_numbers(training: bool) -> None:
    model, x = Broken().train(training), torch.randn(4, 3)
    before = snapshot(model, x)
    assert len(torch_iir.explain(model, x).graphs) == 3
    assert CALLS == ["broken"]
    assert snapshot(model, x) == before


MODEL = Broken()


@pytest.mark.parametrize("call", ["global", "closure", "method", "partial", "enclosed function"])
def test_what_a_function_holds(call: str) -> None:
    model, x = MODEL, torch.randn(4, 3)

    def closure(x: Tensor) -> Any:
        return model(x)

    functions: dict[str, Function] = {
        "global": lambda x: MODEL(x),
        "closure": closure,
        "method": model.forward,
        "partial": functools.partial(model.forward, x),
        "enclosed function": lambda x: closure(x),
    }
    before = snapshot(model, x)
    explanation = torch_iir.explain(functions[call], *([] if call == "partial" else [x]))
    assert len(explanation.graphs) == 3
    assert snapshot(model, x) == before


def test_what_is_shared_stays_shared() -> None:
    def f(x: Tensor, y: list[Tensor]) -> Tensor:
        torch._dynamo.graph_break()
        x.add_(1)
        return y[0] * 3 if (y[0] == x).all() else y[0] * 2

    leaf = torch.zeros(3, requires_grad=True)
    x = leaf + 0  # with a history
    missed = [miss for report in torch_iir.explain(f, x, [x]).graphs for miss in report.missed]
    assert [miss.why for miss in missed] == ["the factor is 3: make it 2"]
    assert not x.any()
    assert x.grad_fn is not None


def test_what_cannot_be_copied() -> None:
    with pytest.raises(
        TypeError, match=r"^explain needs a model and inputs that copy.deepcopy can copy, got .*generator"
    ):
        torch_iir.explain(lambda x, y: x, torch.zeros(3), (i for i in range(3)))


class Counting:
    """A backend of somebody else."""

    def __init__(self) -> None:
        self.inputs: list[Sequence[Any]] = []

    def __call__(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Function:
        self.inputs.append(example_inputs)
        return gm.forward  # type: ignore[no-any-return]


class Clipped(nn.Module):
    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).clamp(max=self.limit)


def in_pieces(x: Tensor) -> Tensor:
    y = x * 2
    torch._dynamo.graph_break()
    return y * 3


@pytest.mark.parametrize("model", [lambda x: in_pieces(in_pieces(x)), Clipped(0.5).forward])
def test_other_compilations(model: Function) -> None:
    """Neither what was compiled is lost, nor does what was explained count."""
    backend = Counting()
    compiled = torch.compile(model, backend=backend)
    torch_iir.explain(model, torch.zeros(7))
    compiled(torch.zeros(3))
    graphs = len(backend.inputs)
    assert all(isinstance(each, Tensor) for inputs in backend.inputs for each in inputs)  # no sizes: 7 was not seen
    for size in range(20, 29):
        assert len(torch_iir.explain(model, torch.zeros(size)).graphs) == graphs
    compiled(torch.zeros(3))
    assert len(backend.inputs) == graphs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(torch.zeros(3, dtype=torch.float64))  # there is room for it
    assert len(backend.inputs) == 2 * graphs


def test_compiled_models_are_explained_as_they_were() -> None:
    x = torch.randn(2, 100)
    plain = torch_iir.explain(Whole(), x)
    assert torch_iir.explain(torch.compile(Whole()), x) == plain
    assert torch_iir.explain(torch_iir.compile(Whole()), x) == plain
    assert torch_iir.explain(torch_iir.compile(in_pieces), x) == torch_iir.explain(in_pieces, x)


# --- what it looks like


def test_text() -> None:
    report = Report(
        substituted=["torchaudio.functional.lfilter"] * 3 + ["torchlpc.sample_wise_lpc"],
        before=Counter({"lfilter": 128, "getitem": 256, "mul": 3, "abs": 1}),
        after=Counter({"lfilter": 1, "getitem": 2, "mul": 3, "abs": 1, "stack": 2}),
        fired=[
            Fired("bank", "model.py:12 in forward", 131_000_000),
            Fired("cascade", "model.py:9 in shape", 4_000),
            Fired("cascade", "model.py:9 in shape", 8_600),
            Fired("gain", "model.py:101 in forward", 0),
        ],
        missed=[Missed("cascade", "model.py:20 in forward", "the signal is clamped: " + "pass clamp=False " * 6)],
    )
    breaks = (GraphBreak("Data-dependent branching", "model.py:31 in forward"),)
    assert str(Explanation((report, Report(before=Counter(add=2), after=Counter(add=2))), breaks)) == (
        """\
2 graphs, 1 graph break, saves about 131 MB of writing and reading

graph 1: 388 operations → 9
  substituted   torchaudio.functional.lfilter × 3
                torchlpc.sample_wise_lpc
  rewritten     bank         at model.py:12 in forward   saves 131 MB
                cascade × 2  at model.py:9 in shape      saves 12.6 kB
                gain         at model.py:101 in forward
  nearly        cascade at model.py:20 in forward: the signal is clamped: pass clamp=False pass clamp=False pass
                  clamp=False pass clamp=False pass clamp=False pass clamp=False
  operations    lfilter  128  →  1
                getitem  256  →  2
                stack      0  →  2
                mul × 3, abs

graph 2: 2 operations, none rewritten
  operations    add × 2

graph breaks
  at model.py:31 in forward: Data-dependent branching"""
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (131_072_000, "131 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert _report.readable(count) == text


def test_places() -> None:
    """The innermost line that is the user's own."""
    node = torch.fx.Graph().placeholder("x")
    assert _report.where(node) == "x"
    frames = [
        ("/home/me, you/model.py", 12, "forward"),
        ("/home/me/torch_dynamo.py", 5, "torch_dynamo_resume_in_filter_at_3"),
        (nn.__file__, 100, "forward"),
        (torch_iir.__file__, 7, "lfilter"),
    ]

    def where(count: int) -> str:
        text = [f'  File "{file}", line {line}, in {name}\n    y = f(x)\n' for file, line, name in frames[:count]]
        node.meta["stack_trace"] = "".join(text)
        return _report.where(node)

    assert [where(count) for count in (1, 2, 3, 4)] == ["model.py:12 in forward", *["torch_dynamo.py:5 in filter"] * 3]
    frames[:] = frames[3:]
    assert where(1) == "__init__.py:7 in lfilter"
    frames[:] = [(torch_iir.__file__.replace("__init__", "demo/eq"), 3, "run"), *frames]
    assert where(2) == "eq.py:3 in run"


def test_examples() -> None:
    result = doctest.testmod(_explain)
    assert result.attempted > 0
    assert result.failed == 0
