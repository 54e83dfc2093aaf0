"""Gains that go into the numerator: torch_iir.compiler.rewrites.gain."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from rewriting import Rewritten, cascade, compare, filters, randn, rewritten
from torch import Tensor
from torch.testing import assert_close

import torch_iir
from torch_iir import functional
from torch_iir.compiler._calls import reads
from torch_iir.compiler._graph import hint, tensor
from torch_iir.signal import lfilter, sosfilt

T = 60
ops = torch.ops.torch_iir
ONLY = ("gain",)


def long_products(after: Rewritten) -> list[str]:
    """Products of signals that are still there."""
    return [
        str(call.node)
        for graph in after.graphs
        for call in reads(iter(graph.graph.nodes), "mul", "div", "neg")
        if hint(tensor(call.node).shape[-1]) == T
    ]


SPELLINGS: dict[str, Callable[..., Tensor]] = {
    "g * y": lambda x, b, a, g: g * lfilter(b, a, x),
    "y * g": lambda x, b, a, g: lfilter(b, a, x) * g,
    "y / g": lambda x, b, a, g: lfilter(b, a, x) / g,
    "-y": lambda x, b, a, g: -lfilter(b, a, x),
    "2 * y": lambda x, b, a, g: 2 * lfilter(b, a, x),
    "y / 3": lambda x, b, a, g: lfilter(b, a, x) / 3,
    "torch.mul": lambda x, b, a, g: torch.mul(lfilter(b, a, x), g),
    "torch.multiply": lambda x, b, a, g: torch.multiply(input=g, other=lfilter(b, a, x)),
    "torch.divide": lambda x, b, a, g: torch.divide(lfilter(b, a, x), g),
    "torch.negative": lambda x, b, a, g: torch.negative(lfilter(b, a, x)),
    "y.mul": lambda x, b, a, g: lfilter(b, a, x).mul(g),
    "y.div": lambda x, b, a, g: lfilter(b, a, x).div(other=g),
    "y.neg": lambda x, b, a, g: lfilter(b, a, x).neg(),
    "g * x": lambda x, b, a, g: lfilter(b, a, g * x),
    "x / g": lambda x, b, a, g: lfilter(b, a, x / g),
    "-x": lambda x, b, a, g: lfilter(b, a, -x),
    "x.mul": lambda x, b, a, g: lfilter(b, a, x.mul(0.1)),
    "operator": lambda x, b, a, g: operator.mul(ops.lfilter(x, b, a)[0], g),
    "functional": lambda x, b, a, g: 3 * functional.lfilter(x, a, b, clamp=False),
    "clamped": lambda x, b, a, g: functional.lfilter(g * x, a, b),
    "biquad": lambda x, b, a, g: g * functional.biquad(x, *b[:3], *a, clamp=False),
}


@pytest.mark.parametrize("dynamic", [False, True])
def test_spellings(dynamic: bool) -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, g: Tensor) -> list[Tensor]:
        return [spelling(x, b, a, g) for spelling in SPELLINGS.values()]

    after = compare(function, randn(2, T), *filters(), torch.tensor(0.7), only=ONLY, rtol=1e-13, dynamic=dynamic)
    assert after.fired == ["gain"] * len(SPELLINGS)
    assert not after.missed
    assert not long_products(after)
    assert all(fired.bytes_saved > 0 for fired in after.report.fired)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_several_on_both_sides(dtype: torch.dtype, dynamic: bool) -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, sos: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return -(h * lfilter(b, a, x * g)) * 0.5, g * sosfilt(sos, -(0.3 * x)) / h

    real = torch.float64 if dtype.itemsize > 8 or dtype == torch.float64 else torch.float32
    x, (b, a), sos = randn(4, 3, T, dtype=dtype), filters(dtype=dtype), cascade(dtype=real)
    g, h = randn(3, 1, dtype=real) + 2, randn(dtype=real) + 2
    after = compare(
        function, x, b, a, sos, g, h, only=ONLY, dynamic=dynamic, rtol=1e-12 if real == torch.float64 else 1e-5
    )
    assert after.fired == ["gain"] * 8
    assert not after.missed
    assert not long_products(after)


SHAPES: list[tuple[Sequence[int], Sequence[int], Sequence[int]]] = [  # of the signal, the filters, the gain
    ((T,), (), ()),
    ((T,), (), (1,)),
    ((3, T), (), (3, 1)),
    ((2, 3, T), (), (3, 1)),
    ((2, 3, T), (3,), (2, 1, 1)),
    ((2, 1, T), (3,), (2, 3, 1)),
    ((2, 1, T), (3,), (1, 1, 1)),
    ((T,), (2, 3), (3, 1)),
]


@pytest.mark.parametrize(("signal", "batch", "gain"), SHAPES, ids=str)
@pytest.mark.parametrize("section", [False, True])
def test_gains_broadcast(signal: Sequence[int], batch: Sequence[int], gain: Sequence[int], section: bool) -> None:
    x, g, h = randn(*signal), randn(*gain) + 3, randn(*gain) - 3
    if section:
        args: tuple[Tensor, ...] = (x, cascade(*batch), g, h)
        after = compare(lambda x, sos, g, h: g * sosfilt(sos, x / h), *args, only=ONLY, rtol=1e-12)
    else:
        args = (x, *filters(*batch), g, h)
        after = compare(lambda x, b, a, g, h: g * lfilter(b, a, x / h), *args, only=ONLY, rtol=1e-12)
    assert after.fired == ["gain"] * 2
    assert not long_products(after)


def test_a_gain_in_front_may_make_rows() -> None:
    """They are filtered one by one before, too; the signal is read through stride 0."""
    after = compare(lambda x, b, a, g: lfilter(b, a, x * g), randn(T), *filters(), randn(3, 1), only=ONLY, rtol=1e-12)
    assert after.fired == ["gain"]
    assert not long_products(after)


def test_states() -> None:
    b, a, sos, x, g = *filters(), cascade(), randn(2, 3, T), randn(3, 1)
    zi, zs = randn(3, 3), randn(3, 2, 2)

    def in_front(x: Tensor, b: Tensor, a: Tensor, sos: Tensor, g: Tensor, zi: Tensor, zs: Tensor) -> tuple[Tensor, ...]:
        return *lfilter(b, a, g * x, zi=zi), *ops.sosfilt(g * x, sos, zs), ops.lfilter(-x, b, a)[1]

    def behind(x: Tensor, b: Tensor, a: Tensor, sos: Tensor, g: Tensor, zi: Tensor, zs: Tensor) -> tuple[Tensor, ...]:
        return g * lfilter(b, a, x, zi=zi)[0], ops.sosfilt(x, sos, zs)[0] / g

    for function, count in ((in_front, 3), (behind, 2)):
        after = compare(function, x, b, a, sos, g, zi, zs, only=ONLY, rtol=1e-12)
        assert after.fired == ["gain"] * count
        assert not long_products(after)
    after = compare(lambda x, b, a, zi: (lambda y, zf: (2 * y, zf))(*lfilter(b, a, x, zi=zi)), x, b, a, zi, only=ONLY)
    assert after.missed == [("gain", "the final state of the filter is used too")]


def test_a_gain_between_two_filters_goes_into_one() -> None:
    after = compare(lambda x, b, a: lfilter(b, a, 2 * lfilter(b, a, x)), randn(T), *filters(), only=ONLY, rtol=1e-12)
    assert after.fired == ["gain"]
    after = compare(  # the second has no room for it
        lambda x, b, a: (lambda y: (lfilter(b, a, y), y.exp()))(2 * lfilter(b, a, x)), randn(T), *filters(), only=ONLY
    )
    assert after.fired == ["gain"]
    assert not after.missed


def test_along_another_axis() -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, g: Tensor) -> Tensor:
        return 2 * lfilter(b, a, g * x, axis=0)

    after = compare(function, randn(T, 3), *filters(), torch.tensor(0.7), only=ONLY, rtol=1e-12)
    assert after.fired == ["gain", "gain"]
    assert not after.missed
    after = compare(function, randn(T, 3), *filters(), randn(1, 1), only=ONLY, rtol=1e-12)
    assert after.fired == ["gain"]
    assert after.missed == [("gain", "dimensions are moved between the filter and a gain that has dimensions")]
    after = compare(
        lambda x, b, a: functional.lfilter(-x, a, b, clamp=False, batching=False), randn(T), *filters(2), only=ONLY
    )
    assert after.fired == ["gain"]


@pytest.mark.parametrize(
    "gain", [2, 0.3, True, torch.tensor(0.3), torch.tensor(3), torch.tensor(0.3, dtype=torch.float64)]
)
def test_kinds_of_gains(gain: Any) -> None:
    x, (b, a) = randn(2, T, dtype=torch.float32), filters()
    exact = gain * lfilter(b, a, x.double())
    after = compare(lambda x, b, a: gain * lfilter(b, a, x), x, b, a, only=ONLY)
    assert after.fired == ["gain"]
    y = after.function(x, b, a)
    assert y.dtype == torch.float32
    assert_close(y.double(), exact, rtol=0, atol=float(exact.abs().max()) * torch.finfo(torch.float32).eps)
    assert compare(lambda x, b, a: lfilter(b, a, x * gain), x, b, a, only=ONLY).fired == ["gain"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, (b, a) = randn(2, T).to(dtype), filters()
    b, a = b.to(dtype), a.to(dtype)
    exact = 0.3 * lfilter(b.double(), a.double(), 0.7 * x.double())
    eps = torch.finfo(dtype).eps
    after = compare(lambda x, b, a: 0.3 * lfilter(b, a, 0.7 * x), x, b, a, only=ONLY, rtol=8 * eps)
    assert after.fired == ["gain", "gain"]
    error = (after.function(x, b, a).double() - exact).abs()
    assert bool((error <= eps / 2 * exact.abs() + torch.finfo(dtype).tiny).all())


def test_complex_gains() -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, g: Tensor) -> Tensor:
        return g * lfilter(b, a, x) * 1j

    x, g = randn(2, T, dtype=torch.complex128), randn(dtype=torch.complex128)
    b, a = filters(dtype=torch.complex128)
    assert compare(function, x, b, a, g, only=ONLY, rtol=1e-12).fired == ["gain"] * 2
    after = compare(function, x, b.real.clone(), a.real.clone(), g, only=ONLY, rtol=1e-12)
    assert not after.fired
    assert after.missed == [("gain", "a complex gain would make a complex filter of a real one")]
    after = compare(function, x.real.clone(), b.real.clone(), a.real.clone(), g, only=ONLY, rtol=1e-12)
    assert after.missed == [("gain", "the gain makes torch.complex128 of a signal of torch.float64")]
    assert compare(lambda x, b, a, g: g * lfilter(b, a, x), x.real.clone(), b, a, g, only=ONLY).fired == ["gain"]


def test_second_derivatives() -> None:
    def function(x: Tensor, b: Tensor, a: Tensor, g: Tensor) -> Tensor:
        return g * lfilter(b, a, x * 0.5)

    after = rewritten(function, only=ONLY)
    args = randn(2, 9), randn(2), torch.tensor([1.5, 0.4, 0.2]).double(), randn(2, 1)
    assert torch.autograd.gradgradcheck(after.function, [arg.requires_grad_() for arg in args])
    assert after.fired == ["gain", "gain"]


def test_without_gradients() -> None:
    with torch.no_grad():
        after = compare(lambda x, b, a, g: g * lfilter(b, a, x), randn(2, T), *filters(), randn(2, 1), only=ONLY)
    assert after.fired == ["gain"]


B, A = torch.tensor([0.5, 0.2, 0.1]), torch.tensor([1.5, -0.4, 0.3])
X, G = torch.linspace(-1, 1, 2 * T).reshape(2, T), torch.tensor(0.7)


def with_mode(enter: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        y = lfilter(B, A, x)
        with enter():
            z = 2 * y
        return z + x

    return function


def written(x: Tensor) -> Tensor:
    y = lfilter(B, A, x)
    z = 2 * y
    y.add_(1)
    return z


def written_gain(x: Tensor) -> Tensor:
    g = x[:, :1].exp()
    y = g * lfilter(B, A, x)
    g.mul_(2)
    return y


REFUSED: dict[str, tuple[Callable[..., Any], Sequence[Any], str | None]] = {
    "over time": (lambda x, w: w * lfilter(B, A, x), (X, X.abs()), "the gain changes over time"),
    "over time, in front": (lambda x, w: lfilter(B, A, x * w), (X, X.abs()), "the gain changes over time"),
    "square": (lambda x: (lambda y: y * y)(lfilter(B, A, x)), (X,), None),
    "reciprocal": (lambda x: 2 / lfilter(B, A, x + 3), (X,), None),
    "floor": (lambda x: lfilter(B, A, x).div(0.1, rounding_mode="floor"), (X,), None),
    "clamp": (lambda x: 2 * functional.lfilter(x, A, B), (X,), None),
    "augmented": (lambda x: operator.imul(lfilter(B, A, x), 2), (X,), None),
    "output used": (
        lambda x: (lambda y: 2 * y + y)(lfilter(B, A, x)),
        (X,),
        "the output of the filter is used elsewhere too",
    ),
    "product used": (lambda x: (lambda z: lfilter(B, A, z) + z)(2 * x), (X,), "the product is used elsewhere too"),
    "written": (written, (X,), "the output of the filter is used elsewhere too"),
    "gain written": (written_gain, (X,), "a tensor is written to in place"),
    "no_grad": (with_mode(torch.no_grad), (X,), "a change of mode (autocast, gradients) lies between"),
    "autocast": (
        with_mode(lambda: torch.autocast("cpu", torch.bfloat16)),
        (X,),
        "a change of mode (autocast, gradients) lies between",
    ),
    "rows": (
        lambda x, g: g * lfilter(B, A, x),
        (X[0], torch.tensor([[1.0], [2.0]])),
        "the gain has more rows than the filter, which would have to run for each of them",
    ),
    "dtype": (
        lambda x, g: g * lfilter(B, A, x),
        (X, torch.ones(2, 1, dtype=torch.float64)),
        "the gain makes torch.float64 of a signal of torch.float32",
    ),
    "only the gain learns": (
        lambda g: g * lfilter(B, A, X),
        (G,),
        "only the gain needs a gradient, which a product has for less than a filter",
    ),
    "long": (
        lambda x, b: 2 * lfilter(b, A, x),
        (X, X[:, 1:]),
        "the coefficients are half as many as the samples or more",
    ),
    "no time": (
        lambda x: 2 * lfilter(B, A, x),
        (X[:, :0],),
        "the coefficients are half as many as the samples or more",
    ),
}


@pytest.mark.parametrize(("function", "args", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(function: Callable[..., Any], args: Sequence[Any], why: str | None) -> None:
    in_place = function in (written, written_gain) or why is None
    with torch.set_grad_enabled(not in_place):  # autograd refuses to write to what it saved
        after = compare(function, *args, only=ONLY)
    assert not after.fired
    assert after.missed == ([("gain", why)] if why else [])


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    steps: dict[str, Callable[..., Tensor]] = {
        "filter": lambda x, b, a, sos, g, h: lfilter(b, a, x),
        "bank": lambda x, b, a, sos, g, h: lfilter(torch.stack([b, b + 1, b]), a, x),
        "cascade": lambda x, b, a, sos, g, h: sosfilt(sos, x),
        "number": lambda x, b, a, sos, g, h: 0.6 * x,
        "scalar": lambda x, b, a, sos, g, h: x * h,
        "channels": lambda x, b, a, sos, g, h: x / g,
        "neg": lambda x, b, a, sos, g, h: -x,
        "clamp": lambda x, b, a, sos, g, h: x.clamp(-1, 1),
        "residual": lambda x, b, a, sos, g, h: x + 0.5 * lfilter(b, a, x),
        "twice": lambda x, b, a, sos, g, h: x * lfilter(b, a, x),
        "view": lambda x, b, a, sos, g, h: x.transpose(0, 1).contiguous().transpose(0, 1),
    }
    program = [list(steps)[draw(len(steps))] for _ in range(8)] + ["filter", "number"]

    def function(x: Tensor, *args: Tensor) -> Tensor:
        for step in program:
            x = steps[step](x, *args)
        return x

    b, a = filters()
    args = 0.1 * randn(2, 3, T), b, a, cascade(), randn(3, 1) + 3, randn() + 2
    after = compare(function, *args, only=ONLY, rtol=1e-9, dynamic=bool(seed % 2))
    assert after.fired


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports Inductor
def test_compiled() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b, self.a = (torch.nn.Parameter(value.float()) for value in filters(3))
            self.gain = torch.nn.Parameter(torch.rand(3, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * lfilter(self.b, self.a, -x).tanh() - lfilter(self.b, self.a, x) / self.gain

    model, x = Model(), randn(2, 3, T, dtype=torch.float32)
    expected = model(x)
    gradients = torch.autograd.grad(expected.square().sum(), [*model.parameters()])
    y = torch_iir.compile(model)(x)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y.square().sum(), [*model.parameters()]), gradients, rtol=1e-4, atol=1e-4)
