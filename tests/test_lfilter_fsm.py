"""lfilter_fsm and sosfilt_fsm against the recurrence, against NumPy's transforms, and a user's wrong calls."""

from __future__ import annotations

import doctest
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

import torch_iir
import torch_iir.signal._lfilter_fsm
from torch_iir._arguments import fast_length
from torch_iir.signal import lfilter, lfilter_fsm, sosfilt, sosfilt_fsm

Array = NDArray[np.float64]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FILTERS = {
    "butter 4": scipy.signal.butter(4, 0.2),
    "cheby 5": scipy.signal.cheby1(5, 1, 0.3),
    "order 1": ([1.0, 0.5], [2.0, -1.8]),
    "two real poles": ([1.0], [1.0, -1.7, 0.72]),
    "near the circle": scipy.signal.butter(2, 0.01),
    "b longer": (np.hanning(40), [1.0, -0.5, 0.5]),
    "FIR": (scipy.signal.firwin(30, 0.3), [2.0]),
    "FIR with zeros in a": ([1.0, 2.0, 3.0], [1.0, 0.0, 0.0]),
    "a number": (3.0, 2.0),
}
CASCADES = {
    "butter 5": scipy.signal.butter(5, 0.2, output="sos"),
    "elliptic": scipy.signal.ellip(8, 1, 60, 0.3, output="sos"),
    "random": reference.stable_sections(4, np.random.default_rng(1)),
    "FIR": np.array([[1.0, 2, 3, 2, 0, 0], [1, -1, 0, 1, 0, 0]]),
}
every_filter = pytest.mark.parametrize("name", [*FILTERS, *(f"sos {name}" for name in CASCADES)])


def faces(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two functions of a signal: sampled in frequency, and the recurrence."""
    if name.startswith("sos "):
        sos = torch.from_numpy(CASCADES[name.removeprefix("sos ")])
        return lambda x, *n, **options: sosfilt_fsm(sos, x, *n, **options), lambda x, **axis: sosfilt(sos, x, **axis)
    b, a = (torch.from_numpy(c[0]) for c in sections(name))
    return lambda x, *n, **options: lfilter_fsm(b, a, x, *n, **options), lambda x, **axis: lfilter(b, a, x, **axis)


def sections(name: str) -> tuple[Array, Array]:
    """b and a, (S, K)."""
    if name.startswith("sos "):
        sos = CASCADES[name.removeprefix("sos ")]
        return sos[:, :3], sos[:, 3:]
    b, a = (np.atleast_2d(np.asarray(c, np.float64)) for c in FILTERS[name])
    return b, a


def angles(points: int) -> Array:
    return 2 * np.pi * np.arange(points // 2 + 1) / points


def rounding(x: Tensor, y: Tensor, b: Array, a: Array, points: int) -> Tensor:
    """What rounding may do, row by row.

    The transforms round in the dtype of x, at least float32: by some epsilons of the row's norm, times the largest |H|.
    The response is computed in double: each sum of coefficients is off by an epsilon of their magnitudes. The result is
    rounded to its dtype.
    """
    over, under = (np.abs(reference.polynomials(c, angles(points))) for c in (b, a))
    response = (over / under).prod(-2)
    errors = response * (np.abs(a).sum(-1, keepdims=True) / under).sum(-2)
    for s, row in enumerate(b):
        errors = errors + np.abs(row).sum() * np.delete(over, s, 0).prod(0) / under.prod(0)
    double = torch.finfo(torch.float64).eps
    inside = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    level = 4 * inside * response.max() + double * errors.max()
    return level * x.double().norm(dim=-1) + torch.finfo(x.dtype).eps * largest(y) + double


def largest(values: Tensor) -> Tensor:
    """Of every row; 0 where it is empty."""
    return torch.nn.functional.pad(values.double().abs(), (0, 1)).amax(-1)


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.signal._lfilter_fsm)
    assert result.attempted > 8
    assert result.failed == 0


@every_filter
@pytest.mark.parametrize("samples", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_recurrence(name: str, samples: int, dtype: torch.dtype) -> None:
    """The tolerance is epsilon, and so is about what wraps, relative to what the filter can gain."""
    sampled, recurrence = faces(name)
    gain = recurrence((torch.arange(4096) == 0).double()).abs().sum()
    x = torch.randn(3, samples).to(dtype)
    y, bound = sampled(x, return_bound=True)
    assert (y.dtype, y.shape, bound.dtype, bound.shape) == (dtype, x.shape, torch.float64, (3,))
    assert y.is_contiguous()
    expected = recurrence(x.double())
    slack = rounding(x, expected, *sections(name), 4096)
    tolerance = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert (bound <= 100 * tolerance * gain * largest(x) + slack).all()
    assert (largest(y.double() - expected) <= bound + slack).all()


@every_filter
@pytest.mark.parametrize("points", [16, 17, 18, 31, 32, 97, 100])
def test_wraps_as_numpy_does(name: str, points: int) -> None:
    sampled, _ = faces(name)
    x = torch.randn(2, 16).double()
    b, a = sections(name)
    h = reference.freqz(b, a, angles(points))
    expected = np.fft.irfft(np.fft.rfft(x.numpy(), points) * h, points)[:, :16]
    for n_fft in (points, np.int64(points), torch.tensor(points)):
        y = sampled(x, n_fft)
        assert (largest(y - torch.from_numpy(expected)) <= 2 * rounding(x, y, b, a, points)).all()


@every_filter
@pytest.mark.parametrize("extra", [0, 1, 5, 40])
def test_the_bound_is_attained(name: str, extra: int) -> None:
    """By the signal of the signs of the worst sample's differences."""
    sampled, recurrence = faces(name)
    samples = 25
    clicks = torch.eye(samples).double()
    differences = sampled(clicks, samples + extra) - recurrence(clicks)  # of one input a row, of one output a column
    worst = differences[:, differences.abs().sum(0).argmax()].sign()
    y, bound = sampled(3 * worst, samples + extra, return_bound=True)
    slack = 2 * rounding(3 * worst, y, *sections(name), samples + extra)
    assert_close(largest(y - recurrence(3 * worst)), bound, rtol=1e-12, atol=float(slack))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    order=st.integers(0, 8),
    samples=st.integers(1, 60),
    extra=st.integers(0, 100),
    radius=st.floats(0.1, 0.999),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 999),
)
def test_the_bound_holds(order: int, samples: int, extra: int, radius: float, dtype: torch.dtype, seed: int) -> None:
    generator = np.random.default_rng(seed)
    b, a = reference.stable_filter(order, generator, radius)
    x = torch.from_numpy(generator.standard_normal((4, samples))).to(dtype)
    x[1], x[2] = x[1].sign(), 0
    y, bound = lfilter_fsm(b, a, x, samples + extra, return_bound=True)
    expected = lfilter(b, a, x.double())
    slack = rounding(x, y, b[None], a[None], samples + extra)
    assert (largest(y.double() - expected) <= bound + slack).all()
    if order == 0:  # a sum over what is not exactly 0
        assert (bound <= samples * slack).all()


def test_bounds_broadcast() -> None:
    x, sos = torch.randn(3, 1, 20), torch.from_numpy(np.stack([CASCADES["butter 5"], CASCADES["elliptic"][:3]]))
    y, bound = sosfilt_fsm(sos, x, 30, return_bound=True)
    assert (y.shape, bound.shape) == ((3, 2, 20), (3, 2))
    for row in range(3):
        for filter in range(2):
            one = sosfilt_fsm(sos[filter], x[row, 0], 30, return_bound=True)[1]
            assert_close(bound[row, filter], one, rtol=1e-12, atol=1e-14)
    y, bound = sosfilt_fsm(sos, x.movedim(-1, 0), 30, axis=0, return_bound=True)
    assert (y.shape, bound.shape) == ((20, 3, 2), (3, 2))
    assert lfilter_fsm([1.0], [1.0, -0.5], torch.ones(0, 4), return_bound=True)[1].shape == (0,)
    assert lfilter_fsm([1.0], [1.0, -0.5], torch.ones(2, 0), return_bound=True)[1].tolist() == [0, 0]


# n_fft from the poles


@pytest.mark.parametrize("order", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("rows", [1, 20])
def test_slowest_pole(order: int, rows: int) -> None:
    generator = np.random.default_rng(order)
    a = np.stack([reference.stable_filter(order, generator, 0.99)[1] * generator.uniform(0.5, 2) for _ in range(rows)])
    a = np.pad(a, ((0, 0), (0, 2)))  # zeros at the end are no poles
    expected = max(np.abs(np.roots(row)).max() for row in a)
    given = torch.from_numpy(a).reshape(rows, 1, order + 3)
    assert torch_iir.signal._lfilter_fsm._slowest_pole(given) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("a", "modulus"),
    [
        ([2.0, -1.0], 0.5),
        ([1.0, 0.0, 0.81], 0.9),
        ([1.0, 0.0, -0.81], 0.9),
        ([1.0, -1.7, 0.72], 0.9),
        ([1.0, 1.7, 0.72], 0.9),
        ([1.0, -1.8, 0.81], 0.9),
        ([1.0, 0.0, 0.0, 0.0, 0.0, -(0.9**5)], 0.9),
        ([1.0, 0.0, 0.0], 0.0),
        ([5.0], 0.0),
    ],
    ids=str,
)
def test_slowest_pole_of(a: list[float], modulus: float) -> None:
    assert torch_iir.signal._lfilter_fsm._slowest_pole(torch.tensor(a, dtype=torch.float64)) == pytest.approx(
        modulus, rel=1e-7
    )


def points(samples: int, b: Any, a: Any, tolerance: float | None = None, dtype: torch.dtype = torch.float64) -> int:
    """n_fft that the function chooses, as the op sees it."""
    seen = []

    def op(x: Tensor, b: Tensor, a: Tensor, n_fft: int) -> Tensor:
        seen.append(n_fft)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_iir.signal._lfilter_fsm, "_lfilter_fsm", op)
        lfilter_fsm(b, a, torch.zeros(samples, dtype=dtype), tolerance=tolerance)
    (n_fft,) = seen
    return n_fft


def test_points_from_poles() -> None:
    """r^L is at most the tolerance, r^(L−1) is not; a numerator adds its length; an FIR needs nothing else."""
    for radius in (0.2, 0.9, 0.999):
        for tolerance in (1e-3, 1e-9):
            decay = math.ceil(math.log(tolerance) / math.log(radius))
            assert radius**decay <= tolerance < radius ** (decay - 1)
            a = [1.0, -2 * radius * math.cos(1), radius**2]
            assert points(50, [1.0], a, tolerance) == fast_length(50 + decay)
            assert points(50, np.ones(8), a, tolerance) == fast_length(50 + 7 + decay)
    assert points(50, np.ones(31), 1.0) == fast_length(80) == 80
    assert points(50, [1.0, 2.0], [1.0, 0.0, 0.0]) == fast_length(51) == 54
    assert points(50, 1.0, 1.0) == 50
    one_pole = [1.0, -0.5]  # 2^−52 is epsilon of float64, 2^−23 that of float32
    assert points(100, 1.0, one_pole) == fast_length(152)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert points(100, 1.0, one_pole, dtype=dtype) == fast_length(123)
    bank = torch.tensor([[1.0, -0.5], [1.0, -0.25]])
    assert points(100, 1.0, bank) == fast_length(152)
    assert points(100, 1.0, bank.requires_grad_()) == fast_length(152)
    assert points(0, 1.0, one_pole) == 0
    assert points(8, 1.0, bank[:0]) == 8
    assert points(8, 1.0, [1.0, math.nan]) == 0


def test_sections_add_their_numerators() -> None:
    sos = np.array([[1.0, 1, 1, 1, 0, 0]] * 5)
    x = torch.randn(20).double()
    assert torch.equal(sosfilt_fsm(sos, x), sosfilt_fsm(sos, x, 30))
    sos[3, 4] = -0.5
    assert torch.equal(sosfilt_fsm(sos, x), sosfilt_fsm(sos, x, fast_length(20 + 10 + 52)))


def test_fast_length() -> None:
    smooth = [n for n in range(2, 3000, 2) if all(n % prime for prime in range(7, n + 1, 2) if _is_prime(prime))]
    for n in range(2900):
        assert fast_length(n) == next(length for length in smooth if length >= n)


def _is_prime(n: int) -> bool:
    return all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


def test_points_from_the_length_alone_where_values_cannot_be_read() -> None:
    """In a trace and in a transform; and what wraps then is what the bound says."""
    b, a, x = torch.tensor([1.0]).double(), torch.tensor([1.0, -0.99]).double(), torch.randn(50).double()
    expected = lfilter_fsm(b, a, x, 100, return_bound=True)
    assert expected[1] > 0.1
    for result in (
        torch.compile(lambda *args: lfilter_fsm(*args, return_bound=True), backend="aot_eager", fullgraph=True)(
            b, a, x
        ),
        [value[0] for value in torch.vmap(lambda x: lfilter_fsm(b, a, x, return_bound=True))(x[None])],
        torch.func.vjp(lambda *args: lfilter_fsm(*args, return_bound=True), b, a, x)[0],
    ):
        for value, target in zip(result, expected, strict=True):
            assert_close(value, target, rtol=1e-12, atol=1e-12)


# arguments


def test_takes_what_lfilter_takes() -> None:
    b, a, x = [1, 2], [2, -1], np.arange(12.0).reshape(2, 6)
    expected = lfilter(b, a, torch.from_numpy(x))
    for numerator in (b, tuple(b), np.array(b), np.array([2, 1])[::-1], torch.tensor(b), [torch.tensor(1), 2.0]):
        assert_close(lfilter_fsm(numerator, a, torch.from_numpy(x)), expected)
    assert_close(lfilter_fsm(b, a, x), expected)
    assert_close(lfilter_fsm(b, a, x.tolist()), expected)
    assert_close(lfilter_fsm(b, a, torch.from_numpy(x).int()), expected.float())
    assert_close(lfilter_fsm(2, 4.0, torch.from_numpy(x)), torch.from_numpy(x) / 2)
    assert lfilter_fsm(b, a, x.astype(np.float32)).dtype == torch.float32
    sos = [[1, 2, 0, 2, -1, 0]]
    for cascade in (sos, np.array(sos), torch.tensor(sos), [torch.tensor(row) for row in sos]):
        assert_close(sosfilt_fsm(cascade, x), expected)


def test_wide_coefficients_are_not_rounded() -> None:
    """Poles so close to the unit circle that float32 would move them."""
    sos = torch.from_numpy(scipy.signal.butter(2, 0.0005, output="sos"))
    x = torch.randn(3000)
    exact = sosfilt(sos, x.double())
    assert float((sosfilt_fsm(sos, x) - exact).norm() / exact.norm()) < 1e-5
    assert float((sosfilt_fsm(sos.float(), x) - exact).norm() / exact.norm()) > 1e-3


@every_filter
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_along_every_axis(name: str, axis: int) -> None:
    sampled, recurrence = faces(name)
    x = torch.randn(6, 7, 8).double()
    y, bound = sampled(x, 64, axis=axis, return_bound=True)
    assert y.is_contiguous()
    assert list(bound.shape) == [n for d, n in enumerate(x.shape) if d != axis % 3]
    alone = sampled(x.movedim(axis, -1), 64).movedim(-1, axis)
    assert_close(y, alone, rtol=0, atol=0)
    assert_close(sampled(x, axis=axis), recurrence(x, axis=axis), rtol=1e-10, atol=1e-10)


def test_layouts() -> None:
    """Banks, strided and expanded arguments, and no rows."""
    b, a = torch.randn(4, 1, 3).double(), torch.randn(5, 2).double() * 0.2 + torch.tensor([2.0, 0.0]).double()
    for x in (
        torch.randn(20).double(),
        torch.randn(20, 5).double().mT,
        torch.randn(40).double()[::2],
        torch.randn(1, 20).double().expand(4, 5, 20),
        torch.randn(2, 4, 1, 20).double(),
        torch.randn(1).double().expand(20),
        torch.randn(0, 1, 1, 20).double(),
    ):
        assert_close(lfilter_fsm(b, a, x), lfilter(b, a, x))
        assert_close(lfilter_fsm(b.expand(4, 5, 3), a.mT.contiguous().mT, x), lfilter(b, a, x))
    sos = torch.cat([b.expand(4, 5, 3), torch.nn.functional.pad(a, (0, 1)).expand(4, 5, 3)], -1)
    x = torch.randn(3, 1, 12).double()
    assert_close(sosfilt_fsm(sos, x), sosfilt(sos, x))
    assert_close(sosfilt_fsm(sos.mT.contiguous().mT[:, ::2], x), sosfilt(sos[:, ::2], x))
    assert lfilter_fsm(b[:0], a, torch.ones(20)).shape == (0, 5, 20)


def test_unstable_filters_are_sampled_if_asked_for() -> None:
    """The response is that of the noncausal filter with the same poles, which runs backwards from the end."""
    y = lfilter_fsm([1.0], [1.0, -2.0], torch.eye(64)[0].double(), 64)
    expected = torch.zeros(64).double()
    expected[1:] = -(2.0 ** -torch.arange(1, 64).flip(0).double())
    expected[0] = -(2.0**-64)
    assert_close(y, expected, rtol=0, atol=1e-15)


def test_nan_spoils_its_row() -> None:
    x = torch.randn(2, 30)
    x[1, 20] = torch.nan
    y, bound = lfilter_fsm([1.0], [1.0, -0.5], x, return_bound=True)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()
    assert bound.isnan().tolist() == [False, True]
    assert lfilter_fsm([1.0], [1.0, torch.nan], x).isnan().all()


# derivatives and transforms


def complex_formula(b: Tensor, a: Tensor, x: Tensor, n_fft: int) -> Tensor:
    """The usual way, in complex tensors of torch."""
    omega = 2 * math.pi * torch.arange(n_fft // 2 + 1, dtype=torch.float64) / n_fft

    def polynomial(c: Tensor) -> Tensor:
        angle = torch.arange(c.shape[-1])[:, None] * omega
        return c.to(torch.complex128) @ torch.polar(torch.ones_like(angle), -angle)

    h = (polynomial(b) / polynomial(a)).prod(-2)
    return torch.fft.irfft(torch.fft.rfft(x, n_fft) * h, n_fft)[..., : x.shape[-1]]


def leaves(*, of: str = "lfilter") -> list[Tensor]:
    x = torch.randn(2, 1, 5).double()
    if of == "lfilter":
        inputs = [torch.randn(2, 3), torch.randn(2) * 0.3 + torch.tensor([1.5, 0.0]), x]
    else:
        inputs = [torch.randn(2, 6) * 0.3 + torch.tensor([1.0, 0, 0, 1.5, 0, 0]), x]
    return [t.double().requires_grad_() for t in inputs]


@pytest.mark.parametrize("n_fft", [5, 8, 9, 30])
def test_gradients_are_those_of_the_complex_formula(n_fft: int) -> None:
    inputs, sections = leaves(), leaves(of="sosfilt")
    for function, formula, args in (
        (lfilter_fsm, lambda b, a, x: complex_formula(b.unsqueeze(-2), a.unsqueeze(-2), x, n_fft), inputs),
        (sosfilt_fsm, lambda sos, x: complex_formula(sos[..., :3], sos[..., 3:], x, n_fft), sections),
    ):
        y, expected = function(*args, n_fft), formula(*args)
        assert_close(y, expected)
        g = torch.randn_like(y)
        for gradient, target in zip(
            torch.autograd.grad(y, args, g), torch.autograd.grad(expected, args, g), strict=True
        ):
            assert_close(gradient, target)


@pytest.mark.parametrize("n_fft", [None, 5])
@pytest.mark.parametrize("face", [lfilter_fsm, sosfilt_fsm])
def test_derivatives(n_fft: int | None, face: Callable[..., Tensor]) -> None:
    def function(*inputs: Tensor) -> Tensor:
        return face(*inputs, n_fft)

    inputs = leaves(of="sosfilt" if face is sosfilt_fsm else "lfilter")
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True, fast_mode=True)


def test_the_bound_has_derivatives() -> None:
    """What wraps can be a penalty."""
    inputs = leaves()
    assert torch.autograd.gradcheck(lambda *p: lfilter_fsm(*p, 7, return_bound=True)[1], inputs, check_forward_ad=True)


def test_transforms() -> None:
    b, a, x = (t.detach() for t in leaves())
    n = 9
    assert_close(torch.vmap(lambda b: lfilter_fsm(b, a, x[0, 0], n))(b), lfilter_fsm(b, a, x[0, 0], n))
    assert_close(torch.vmap(lambda x: lfilter_fsm(b, a, x, n), 1)(x.movedim(0, 1)), lfilter_fsm(b, a, x, n))
    assert_close(torch.vmap(lambda x: lfilter_fsm(b, a, x))(x), lfilter_fsm(b, a, x, 10))
    sos = torch.randn(4, 2, 6).double() * 0.2 + torch.tensor([1.0, 0, 0, 1.5, 0, 0]).double()
    assert_close(torch.vmap(lambda sos: sosfilt_fsm(sos, x[0], n))(sos)[:, 0], sosfilt_fsm(sos, x[0], n))
    y, bound = torch.vmap(lambda x: lfilter_fsm(b, a, x, n, return_bound=True))(x)
    for value, expected in zip((y, bound), lfilter_fsm(b, a, x, n, return_bound=True), strict=True):
        assert_close(value, expected)

    tangents = tuple(torch.randn_like(t) for t in (b, a, x))
    _, tangent = torch.func.jvp(lambda *p: lfilter_fsm(*p, n), (b, a, x), tangents)
    _, expected = torch.func.jvp(
        lambda b, a, x: complex_formula(b.unsqueeze(-2), a.unsqueeze(-2), x, n), (b, a, x), tangents
    )
    assert_close(tangent, expected)
    forward, reverse = (
        transform(lambda *p: lfilter_fsm(*p, n), (0, 1, 2))(b, a, x)
        for transform in (torch.func.jacfwd, torch.func.jacrev)
    )
    assert_close(forward, reverse)


def test_autocast_computes_in_float32() -> None:
    x = torch.randn(3, 40).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = lfilter_fsm([1.0], [1.0, -0.5], x)
    assert y.dtype == torch.float32
    assert_close(y, lfilter([1.0], [1.0, -0.5], x.float()), rtol=1e-5, atol=1e-5)


CALLS: dict[str, Callable[..., Any]] = {
    "lfilter_fsm": lfilter_fsm,
    "37 points": lambda b, a, x: lfilter_fsm(b, a, x, 37),
    "numbers": lambda b, a, x: lfilter_fsm([1.0, 0.5], [1.0, -0.5], x),
    "bound": lambda b, a, x: torch.cat([t.flatten() for t in lfilter_fsm(b, a, x, return_bound=True)]),
    "axis": lambda b, a, x: lfilter_fsm(b, a, x.mT, axis=0),
    "sosfilt_fsm": lambda b, a, x: sosfilt_fsm(torch.cat([b, a], -1).unsqueeze(-2), x),
}


def real_inputs(samples: int = 30) -> tuple[Tensor, ...]:
    b, a = torch.randn(3, 3), torch.randn(3, 3) * 0.2 + torch.tensor([1.5, 0.0, 0.0])
    return b, a, torch.randn(3, samples)


def with_gradients(function: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    def values(*inputs: Tensor) -> list[Tensor]:
        inputs = tuple(t.clone().requires_grad_() for t in inputs)
        y = function(*inputs)
        gradients = torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)
        return [y, *(gradient for gradient in gradients if gradient is not None)]

    return values


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "aot_eager") for name in CALLS), ("lfilter_fsm", "inductor"), ("bound", "inductor")],
)
def test_compiled(name: str, backend: str) -> None:
    """Whole, without a warning: no complex number in the graph, and no break at n_fft."""
    function = CALLS[name]
    inputs = real_inputs()
    with pytest.MonkeyPatch.context() as patch:  # compiled, n_fft comes from T alone
        patch.setattr(torch_iir.signal._lfilter_fsm, "concrete", lambda *tensors: False)
        expected = with_gradients(function)(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch's own, as it imports Inductor
        results = with_gradients(torch.compile(function, fullgraph=True, backend=backend))(*inputs)
    for result, target in zip(results, expected, strict=True):
        assert_close(result, target)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_compiled_once_for_all_lengths(given: bool, bound: bool) -> None:
    """T and n_fft stay symbols, where the bound is wanted too."""
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        nonlocal graphs
        graphs += 1
        return graph

    def function(b: Tensor, a: Tensor, x: Tensor, n_fft: int | None) -> Any:
        return lfilter_fsm(b, a, x, n_fft, return_bound=bound)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for samples in (30, 31, 70):
        inputs = real_inputs(samples)
        n_fft = 2 * samples + 7 if given else None
        expected = function(*inputs, n_fft or fast_length(2 * samples))
        assert_close(compiled(*inputs, n_fft), expected)
    assert graphs == 1


@pytest.mark.parametrize("bound", [False, True])
def test_exported(bound: bool) -> None:
    class Module(torch.nn.Module):
        def forward(self, b: Tensor, a: Tensor, x: Tensor) -> Any:
            return lfilter_fsm(b, a, x, return_bound=bound)

    samples = torch.export.Dim("samples", min=2)
    program = torch.export.export(Module(), real_inputs(), dynamic_shapes=(None, None, {1: samples}))
    assert any("lfilter_fsm" in str(node.target) for node in program.graph.nodes)
    for length in (30, 51):
        inputs = real_inputs(length)
        assert_close(program.module()(*inputs), lfilter_fsm(*inputs, fast_length(2 * length), return_bound=bound))


def test_is_public() -> None:
    for name in ("lfilter_fsm", "sosfilt_fsm"):
        assert name in torch_iir.signal.__all__
        documentation = inspect.getdoc(getattr(torch_iir.signal, name))
        assert all(part in documentation for part in ("Args:", "Returns:", "Raises:", "Note:", "Example:"))


B, A, X = torch.tensor([1.0, 0.5]), torch.tensor([1.0, -0.5]), torch.ones(2, 8)
SOS = torch.tensor([[1.0, 0.5, 0, 1, -0.5, 0]])

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "n_fft": (
        lambda: lfilter_fsm(B, A, X, 7),
        ValueError,
        "n_fft must be at least the number of samples of x, T, got n_fft 7, T 8",
    ),
    "n_fft 0": (lambda: lfilter_fsm(B, A, X, 0), ValueError, "n_fft must be at least 1, got 0"),
    "n_fft of nothing": (lambda: sosfilt_fsm(SOS, X[:, :0], 0), ValueError, "n_fft must be at least 1, got 0"),
    "n_fft type": (lambda: lfilter_fsm(B, A, X, 16.0), TypeError, "n_fft must be an integer, got 16.0"),
    "unstable": (
        lambda: lfilter_fsm(B, [1.0, -1.25], X),
        ValueError,
        r"a must be stable for n_fft to be chosen, got a pole of modulus 1.25: use lfilter, .* or give n_fft",
    ),
    "on the circle": (lambda: lfilter_fsm(B, [1.0, 0.0, 1.0], X), ValueError, "got a pole of modulus 1.0: use lfilter"),
    "unstable of order 3": (lambda: lfilter_fsm(B, [1.0, 0, 0, 8.0], X), ValueError, "a pole of modulus (2.0|1.99)"),
    "unstable in a bank": (
        lambda: lfilter_fsm(B, torch.tensor([[1.0, -0.5], [1.0, 2.0]]), X),
        ValueError,
        "got a pole of modulus 2.0",
    ),
    "unstable section": (
        lambda: sosfilt_fsm([[1.0, 0, 0, 1, -0.5, 0], [1, 0, 0, 1, 0, 4]], X),
        ValueError,
        "sos must be stable for n_fft to be chosen, got a pole of modulus 2.0: use sosfilt, .* or give n_fft",
    ),
    "slow": (
        lambda: lfilter_fsm(B, [1.0, -0.99999999], X),
        ValueError,
        r"a must decay to 1.19.*e-07 within 2\*\*26 samples .* got a pole of modulus 0.99999999: use lfilter",
    ),
    "tolerance": (lambda: lfilter_fsm(B, A, X, tolerance=0), ValueError, "tolerance must lie between 0 and 1, got 0"),
    "tolerance 1": (lambda: sosfilt_fsm(SOS, X, tolerance=1.0), ValueError, "tolerance must lie between 0 and 1"),
    "tolerance nan": (lambda: lfilter_fsm(B, A, X, tolerance=math.nan), ValueError, "tolerance must lie .* got nan"),
    "tolerance type": (lambda: lfilter_fsm(B, A, X, tolerance="1"), TypeError, "tolerance must be a number, got '1'"),
    "complex x": (
        lambda: lfilter_fsm(B, A, X * 1j),
        TypeError,
        "x must be real, got torch.complex64: lfilter takes complex numbers; of a complex signal, the real and the",
    ),
    "complex b": (lambda: lfilter_fsm([1j], A, X), TypeError, "b must be real, got torch.complex128: lfilter takes"),
    "complex a": (lambda: lfilter_fsm(B, [1, 1j], X), TypeError, "a must be real"),
    "complex sos": (
        lambda: sosfilt_fsm(SOS * 1j, X),
        TypeError,
        "sos must be real, got torch.complex64: sosfilt takes",
    ),
    "a0": (lambda: lfilter_fsm(B, [0.0, 1.0], X), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "a0 beside n_fft": (lambda: lfilter_fsm(B, [0.0, 1.0], X, 9), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "sos a0": (lambda: sosfilt_fsm(SOS * 0, X), ValueError, r"sos\[\.\.\., 3\] must not be zero"),
    "axis": (lambda: lfilter_fsm(B, A, X, axis=2), ValueError, r"axis must lie in \[-2, 2\)"),
    "axis type": (lambda: sosfilt_fsm(SOS, X, axis=0.5), TypeError, "axis must be an integer"),
    "scalar x": (lambda: lfilter_fsm(B, A, X.sum()), ValueError, "x must have at least one dimension"),
    "batches": (
        lambda: lfilter_fsm(torch.ones(3, 2), A, X),
        ValueError,
        r"must broadcast together, got x \[2, 8\], b \[3, 2\], a \[2\]",
    ),
    "sos batches": (
        lambda: sosfilt_fsm(SOS.expand(3, 1, 6), X),
        ValueError,
        r"must broadcast together, got x \[2, 8\], sos \[3, 1, 6\]",
    ),
    "empty b": (lambda: lfilter_fsm(B[:0], A, X), ValueError, "b must have at least one coefficient"),
    "empty a": (lambda: lfilter_fsm(B, [], X), ValueError, "a must have at least one coefficient"),
    "sos shape": (lambda: sosfilt_fsm(SOS[:, :5], X), ValueError, r"sos must have the shape \(\.\.\., S, 6\)"),
    "sos vector": (lambda: sosfilt_fsm(SOS[0], X), ValueError, "sos must have the shape"),
    "no sections": (lambda: sosfilt_fsm(SOS[:0], X), ValueError, "with S at least 1"),
    "sos number": (lambda: sosfilt_fsm(1.0, X), ValueError, "sos must have the shape"),
    "string": (lambda: lfilter_fsm("ba", A, X), TypeError, "b must be a tensor, a number, .* got 'ba'"),
    "string x": (lambda: sosfilt_fsm(SOS, "x"), TypeError, "x must be a tensor"),
    "None": (lambda: lfilter_fsm(B, None, X), TypeError, "a must be a tensor.* got NoneType"),
    "devices": (lambda: lfilter_fsm(B.to("meta"), A, X), ValueError, "b must be on the device of x: x is on cpu"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    "name", ["n_fft", "n_fft type", "tolerance", "complex x", "batches", "axis", "string", "sos shape"]
)
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=kind.__name__):
        torch.compile(call, backend="aot_eager", fullgraph=True)()
