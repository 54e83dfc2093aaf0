"""Filters between two reversals, which become filters that run backwards: torch_iir.compiler.rewrites.reversal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from rewriting import Rewritten, cascade, compare, filters, randn, rewritten
from torch import Tensor
from torch.testing import assert_close

import torch_iir
from torch_iir import functional, signal
from torch_iir.signal import lfilter, sosfilt

T = 50
ONLY = ("reversal",)
STATE = "a filter between the reversals starts from a state"
ELSEWHERE = "a signal between the reversals is used elsewhere too"


def reversals(after: Rewritten) -> int:
    """How many are left."""
    return sum(report.after["flip"] for report in after.reports)


SPELLINGS: dict[str, Callable[..., Tensor]] = {
    "methods": lambda x, b, a: lfilter(b, a, x.flip(-1)).flip(-1),
    "functions": lambda x, b, a: torch.flip(lfilter(b, a, torch.flip(x, [-1])), dims=(-1,)),
    "from the front": lambda x, b, a: lfilter(b, a, x.flip(2)).flip(2),
    "functional": lambda x, b, a: functional.lfilter(x.flip(-1), a, b, clamp=False).flip(-1),
    "clamped": lambda x, b, a: functional.lfilter(x.flip(-1), a, b).flip(-1),
    "biquad": lambda x, b, a: functional.biquad(x.flip(-1), *b[:3], *a).flip(-1),
    "elementwise": lambda x, b, a: (1 - lfilter(b, a, 2 * x.flip(-1).tanh()).exp()).sigmoid().flip(-1),
    "two": lambda x, b, a: lfilter(b, a, lfilter(b[:2], a, x.flip(-1)) / 3).flip(-1),
    "another axis": lambda x, b, a: lfilter(b, a, x.mT.flip(1), axis=1).clamp(-1, 1).flip(1),
    "a channel": lambda x, b, a: lfilter(b, a, x.flip(-1)[:, None, 1:] / 3)[..., 0, 1:, :].flip(-1),
    "filtfilt": lambda x, b, a: functional.filtfilt(x, a, b),
    "twice": lambda x, b, a: functional.filtfilt(functional.filtfilt(x, a, b, clamp=False), a, b),
}


@pytest.mark.parametrize("dynamic", [False, True])
def test_spellings(dynamic: bool) -> None:
    def function(x: Tensor, b: Tensor, a: Tensor) -> list[Tensor]:
        return [spelling(x, b, a) for spelling in SPELLINGS.values()]

    after = compare(function, randn(2, 3, T), *filters(), only=ONLY, rtol=1e-13, dynamic=dynamic)
    assert after.fired == ["reversal"] * (len(SPELLINGS) + 1)
    assert not after.missed
    assert not reversals(after)
    signal, state = 2 * 3 * T, 2 * 3 * 3
    assert after.report.fired[0].bytes_saved == 2 * 8 * (2 * signal + state)  # two reversals and a state nobody uses


@pytest.mark.parametrize(
    ("dtype", "complex_filter"),
    [
        (torch.float32, False),
        (torch.float64, False),
        (torch.complex64, False),
        (torch.complex64, True),
        (torch.complex128, False),
        (torch.complex128, True),
    ],
)
def test_dtypes(dtype: torch.dtype, complex_filter: bool) -> None:
    wide = dtype in (torch.float64, torch.complex128)
    b, a = filters(dtype=torch.complex128 if complex_filter else torch.float64)  # wider than the signal, or as wide
    x = randn(2, T, dtype=dtype)
    after = compare(
        lambda x, b, a: lfilter(b, a, x.flip(-1)).flip(-1), x, b, a, only=ONLY, rtol=1e-13 if wide else 1e-6
    )
    assert after.fired == ["reversal"]
    exact = lfilter(b, a, x.to(torch.promote_types(dtype, torch.float64)).flip(-1)).flip(-1)
    error = (after.function(x, b, a) - exact).abs().square().mean().sqrt()
    rounding = 4 if wide else 0.5  # once, at the end, where the signal is narrower than what is computed in
    assert error <= rounding * torch.finfo(dtype).eps * exact.abs().square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    x, (b, a) = randn(2, T).to(dtype), filters()
    eps = torch.finfo(dtype).eps
    after = compare(lambda x, b, a: functional.filtfilt(x, a, b), x, b.to(dtype), a.to(dtype), only=ONLY, rtol=2 * eps)
    assert after.fired == ["reversal"]


SHAPES: list[tuple[Sequence[int], Sequence[int]]] = [  # of the signal and of the filters
    ((T,), ()),
    ((T,), (3,)),
    ((3, T), (3,)),
    ((2, 1, T), (3,)),
    ((2, 3, T), (3, 1, 1)),
    ((1, T), (2, 3)),
    ((2, 0, T), ()),
    ((2, 0), ()),
    ((2, 1), ()),
    ((2, 2), (2,)),
]


@pytest.mark.parametrize(("shape", "batch"), SHAPES, ids=str)
def test_filters_broadcast(shape: Sequence[int], batch: Sequence[int]) -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, one: Tensor) -> list[Tensor]:
        return [lfilter(b, denominator, x.flip(-1)).flip(-1) for denominator in (a, one)]

    after = compare(function, randn(*shape), *filters(*batch), filters()[1], only=ONLY, rtol=1e-12)
    assert after.fired == ["reversal"] * 2
    with torch.no_grad():
        after = compare(
            lambda x, sos: sosfilt(sos, x.flip(-1)).flip(-1), randn(*shape), cascade(*batch), only=ONLY, rtol=1e-12
        )
    assert after.fired == ["reversal"]
    assert not reversals(after)


def test_filtfilt_is_two_operators() -> None:
    after = compare(lambda x, b, a: functional.filtfilt(x, a, b), randn(2, T), *filters(), only=ONLY, rtol=1e-13)
    names = {name: count for name, count in after.report.after.items() if name not in ("getitem", "sym_max")}
    assert names == {"lfilter": 1, "torch_iir.lfilter_backward.default": 1, "clamp": 1}


def test_filtfilt_from_states() -> None:
    after = compare(lambda x, b, a: signal.filtfilt(b, a, x), randn(2, T), *filters(), only=ONLY)
    assert not after.fired
    assert after.missed == [("reversal", STATE)]
    assert not compare(lambda x, sos: signal.sosfiltfilt(sos, x), randn(2, T), cascade(), only=ONLY).fired


def test_gustafssons_filtfilt_starts_from_rest() -> None:
    after = compare(
        lambda x, b, a: signal.filtfilt(b, a, x, method="gust"), randn(2, T), *filters(), only=ONLY, rtol=1e-9
    )
    assert after.fired == ["reversal"] * 2


def test_a_cascade_that_learns() -> None:
    def function(x: Tensor, sos: Tensor) -> Tensor:
        return sosfilt(sos, x.flip(-1)).flip(-1)

    after = compare(function, randn(2, T), cascade(), only=ONLY)
    assert not after.fired
    assert after.missed == [
        ("reversal", "a cascade needs a gradient, and that of a reversed one is slower: it goes section by section")
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("batch", [(), (2,)])
def test_second_derivatives_and_forward_mode(batch: Sequence[int]) -> None:
    after = rewritten(lambda x, b, a: lfilter(b, a, x.flip(-1)).flip(-1), only=ONLY)
    args = [arg.requires_grad_() for arg in (randn(6), *filters(*batch))]
    assert torch.autograd.gradcheck(after.function, args)
    assert torch.autograd.gradgradcheck(after.function, args)
    assert after.fired == ["reversal"]
    (graph,) = after.graphs
    tangents = [torch.randn_like(arg) for arg in args]

    def derivative(function: Callable[..., Any]) -> Tensor:
        """Forwards; the graph takes its inputs in the order in which Dynamo found them, by name."""
        result: Tensor = torch.func.jvp(function, tuple(arg.detach() for arg in args), tuple(tangents))[1]
        return result

    order = [{"l_x_": 0, "l_b_": 1, "l_a_": 2}[node.name] for node in graph.graph.nodes if node.op == "placeholder"]
    forwards = derivative(lambda *args: graph(*[args[index] for index in order])[0])
    assert_close(forwards, derivative(lambda x, b, a: lfilter(b, a, x.flip(-1)).flip(-1)))


B, A = torch.tensor([0.5, 0.2, 0.1]), torch.tensor([1.5, -0.4, 0.3])
X = torch.linspace(-1, 1, 2 * T).reshape(2, T)


def with_mode(enter: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        y = x.flip(-1)
        with enter():
            z = lfilter(B, A, y).flip(-1)
        return z + x

    return function


def written(x: Tensor) -> Tensor:
    y = lfilter(B, A, x.flip(-1))
    z = y.flip(-1)
    y.detach().zero_()
    return z


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str | None]] = {
    "one reversal": (lambda x: lfilter(B, A, x).flip(-1) + lfilter(B, A, x.flip(-1)), None),
    "no filter": (lambda x: x.flip(-1).tanh().flip(-1), None),
    "other axis": (lambda x: lfilter(B, A, x.flip(0)).flip(0), None),
    "another axis": (lambda x: lfilter(B, A, x.flip(0)).flip(-1), None),
    "both axes": (
        lambda x: lfilter(B, A, x.flip(0, 1)).flip(0, 1),
        "the reversals are over other dimensions than time too",
    ),
    "over time": (lambda x: (lfilter(B, A, x.flip(-1)) * x).flip(-1), None),
    "mean": (lambda x: (lambda y: y - y.mean(-1, keepdim=True))(lfilter(B, A, x.flip(-1))).flip(-1), ELSEWHERE),
    "sum": (lambda x: lfilter(B, A, x.flip(-1)).cumsum(-1).flip(-1), None),
    "part": (
        lambda x: lfilter(B, A, x.flip(-1))[..., 3:-3].flip(-1),
        "only a part of the filtered signal is reversed back",
    ),
    "state": (lambda x: lfilter(B, A, x.flip(-1), zi=x[:, :2])[0].flip(-1), STATE),
    "final state": (
        lambda x: (lambda y: (y[0].flip(-1), y[1]))(torch.ops.torch_iir.lfilter(x.flip(-1), B, A)),
        "the final state of a filter between the reversals is used",
    ),
    "output used": (lambda x: (lambda y: y + y.flip(-1))(lfilter(B, A, x.flip(-1))), ELSEWHERE),
    "input used": (lambda x: (lambda y: y + lfilter(B, A, y).flip(-1))(x.flip(-1)), ELSEWHERE),
    "complex": (
        lambda x: lfilter(B + 0j, A, x.flip(-1)).flip(-1),
        "the coefficients are complex, and the signal is real",
    ),
    "written": (written, ELSEWHERE),
    "input written": (lambda x: x.mul_(2) * 0 + lfilter(B, A, x.flip(-1)).flip(-1), "a tensor is written to in place"),
    "no_grad": (with_mode(torch.no_grad), "a change of mode (autocast, gradients) lies between"),
    "autocast": (
        with_mode(lambda: torch.autocast("cpu", torch.bfloat16)),
        "a change of mode (autocast, gradients) lies between",
    ),
}


@pytest.mark.parametrize(("function", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(function: Callable[[Tensor], Any], why: str | None) -> None:
    in_place = function is written or why == "a tensor is written to in place"
    with torch.set_grad_enabled(not in_place):  # autograd refuses to write to leaves, and to what it saved
        after = compare(function, X, only=ONLY)
    assert not after.fired
    assert after.missed == ([("reversal", why)] if why else [])


@pytest.mark.parametrize("seed", range(10))
def test_random_programs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    steps: dict[str, Callable[..., Tensor]] = {
        "filter": lambda x, b, a, g: lfilter(b, a, x),
        "bank": lambda x, b, a, g: lfilter(torch.stack([b, b / 2, b]), a, x),
        "gain": lambda x, b, a, g: x / g,
        "clamp": lambda x, b, a, g: x.clamp(-1, 1),
        "tanh": lambda x, b, a, g: x.tanh(),
        "reversal": lambda x, b, a, g: x.flip(-1),
        "another reversal": lambda x, b, a, g: torch.flip(x, [2]),
        "of both": lambda x, b, a, g: x.flip(-1, -2),
        "residual": lambda x, b, a, g: x + lfilter(b, a, x).flip(-1),
        "layout": lambda x, b, a, g: x.movedim(0, 2).contiguous().movedim(2, 0),
        "start": lambda x, b, a, g: torch.ops.torch_iir.lfilter(x, b, a, x[..., :3])[0],
    }
    program = [list(steps)[draw(len(steps))] for _ in range(8)] + ["reversal", "filter", "reversal"]

    def function(x: Tensor, *args: Tensor) -> Tensor:
        for step in program:
            x = steps[step](x, *args)
        return x

    args = 0.1 * randn(2, 3, T), *filters(), randn(3, 1) + 3
    after = compare(function, *args, only=ONLY, rtol=1e-9, dynamic=bool(seed % 2))
    assert "reversal" in after.fired


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports Inductor
def test_compiled() -> None:
    b, a = (value.float().requires_grad_() for value in filters(3))
    x = randn(2, 3, T, dtype=torch.float32)

    def function(x: Tensor) -> Tensor:
        return functional.filtfilt(x.tanh(), a, b) - functional.filtfilt(x, a[0], b[0]) / 2

    expected = function(x)
    gradients = torch.autograd.grad(expected.square().sum(), [b, a])
    y = torch_iir.compile(function)(x)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y.square().sum(), [b, a]), gradients, rtol=1e-4, atol=1e-4)


def test_dimensions_that_are_known_only_when_it_runs() -> None:
    def function(x: Tensor, dim: int) -> Tensor:
        return signal.lfilter([1.0], [1.0, -0.5], x.flip(dim), axis=dim).flip(dim)

    compare(function, torch.randn(2, 3, 4, 5), 2, dynamic=True)
