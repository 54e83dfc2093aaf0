"""Non-negative least squares: the ops nnls and nnls_derivative, and torch_iir.nnls."""

from __future__ import annotations

import doctest
import itertools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import reference
import scipy.optimize
import torch
from reference import Array
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import torch_iir._nnls
from torch_iir import nnls
from torch_iir._nnls import regularization
from torch_iir.functional import melscale_fbanks
from torch_iir.ops.nnls import ENTROPY, FAILED, SOLVED

op = torch.ops.torch_iir.nnls.default
derivative = torch.ops.torch_iir.nnls_derivative.default

AUTO, NEWTON, GRADIENT = range(3)
STEPS = 5000
DTYPES = [torch.float32, torch.float64]
HALF = [torch.float16, torch.bfloat16]
EPS = torch.finfo(torch.float64).eps


def bank(m: int, n: int, generator: np.random.Generator, *batch: int) -> Tensor:
    """Triangles of random heights, n columns spread evenly over m rows."""
    distance = np.linspace(0, m - 1, n) - np.arange(m)[:, None]
    weights = generator.uniform(0.5, 1.5, (*batch, m, n)) * np.maximum(1 - np.abs(distance), 0)
    return torch.from_numpy(weights)


def normal(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape))


def uniform(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(generator.uniform(0.1, 1, shape))


def kkt(a: Tensor, b: Tensor, x: Tensor) -> Array:
    """How far every column is from a solution: max |min(L x, gradient)| / max Aᵀ|b|."""
    a, b, x = (t.detach().double() for t in (a, b, x))
    step = torch.linalg.matrix_norm(a, 2)[..., None, None] ** 2 * x
    slope = a.mT @ (a @ x - b)
    return (torch.minimum(step, slope).abs().amax(-2) / (a.mT.abs() @ b.abs()).amax(-2)).numpy()


def compare(
    b: Tensor,
    a: Tensor,
    mu: Tensor,
    prior: Tensor | None = None,
    solver: int = AUTO,
    exact: tuple[Array, ...] | None = None,
) -> tuple[Tensor, ...]:
    """With the reference: up to one rounding, and 1e-9 of what is largest in the column."""
    results = op(b, a, mu, prior, solver, 1e-13, STEPS)
    exact = reference.nnls(b, a, mu, prior) if exact is None else exact
    assert [t.dtype for t in results] == [b.dtype, torch.float64, torch.int32]
    for result, target in zip(results, exact, strict=True):
        assert result.shape == target.shape
        assert result.is_contiguous()
        if result.is_floating_point():
            bound = torch.finfo(result.dtype).eps * np.abs(target)
            bound += 1e-9 * np.abs(target).max(-2, keepdims=True, initial=0)
            assert (np.abs(reference.array(result) - target) <= bound).all()
        else:
            np.testing.assert_array_equal(result, target)
    return results


BANKS = [(1, 1), (1, 5), (2, 2), (2, 9), (3, 2), (5, 12), (8, 40), (17, 33), (30, 15)]
DENSE = [(1, 1), (3, 5), (6, 3), (12, 12), (40, 15), (15, 40)]
COLUMNS = (1, 2, 3, 7, 8, 9, 17, 33)


@cache
def problem(kind: str, size: tuple[int, int], mu: float) -> tuple[Any, ...]:
    """The most columns, and their solutions; fewer are some of these. float32 holds them."""
    generator = np.random.default_rng(size[0])
    m, n, k = *size, COLUMNS[-1]
    a = normal(generator, m, n) if kind == "dense" else bank(m, n, generator)
    b, prior = normal(generator, m, k), None
    if kind != "dense":  # every other column inside the cone, where there are solutions
        b[:, ::2] = (a @ uniform(generator, n, k))[:, ::2]
    if kind == "entropy":
        b, prior = a @ uniform(generator, n, k), uniform(generator, n, k).float()
        if n > 2 * m:  # what it keeps at 0 is not all that a row reaches
            prior[0, ::3] = 0
    weights = torch.full((k,), mu).double()
    return b.float(), a, weights, prior, reference.nnls(b.float(), a, weights, prior)


def compare_problem(kind: str, size: tuple[int, int], mu: float, solver: int) -> None:
    b, a, weights, prior, exact = problem(kind, size, mu)
    for k in COLUMNS:
        for dtype in DTYPES:
            given = None if prior is None else prior[:, :k].to(dtype)
            compare(b[:, :k].to(dtype), a, weights[:k], given, solver, tuple(t[..., :k] for t in exact))


@pytest.mark.parametrize("size", BANKS, ids=str)
@pytest.mark.parametrize("kind", ["bank", "entropy"])
@pytest.mark.parametrize("solver", [AUTO, NEWTON])
def test_newton_equals_the_reference(isa: str, kind: str, size: tuple[int, int], solver: int) -> None:
    for mu in (1e-6, 0.1):
        compare_problem(kind, size, mu, solver)


@pytest.mark.parametrize("size", DENSE, ids=str)
@pytest.mark.parametrize("solver", [AUTO, GRADIENT])
def test_projected_gradient_equals_the_reference(isa: str, size: tuple[int, int], solver: int) -> None:
    """With a μ that makes x unique."""
    compare_problem("dense", size, 0.5, solver)


@pytest.mark.parametrize("solver", [NEWTON, GRADIENT])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_solvers_agree_on_banks(solver: int, dtype: torch.dtype) -> None:
    """A x is unique, x itself is not."""
    generator = np.random.default_rng(0)
    a = bank(12, 60, generator)
    b = normal(generator, 12, 40).abs().to(dtype)
    mu = regularization(a).expand(40)
    x, _, outcome = op(b, a, mu, None, solver, 1e-9, STEPS)
    exact, _, _ = reference.nnls(b, a, mu)
    assert not outcome.any()
    scale = float((a.T @ b.double()).max() / a.max())
    np.testing.assert_allclose(a @ x.double(), a.numpy() @ exact, rtol=0, atol=1e-5 * scale)


def residuals(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Relative to the columns of b."""
    a, b, x = (t.double() for t in (a, b, x))
    return (torch.linalg.norm(a @ x - b, dim=0) / torch.linalg.norm(b, dim=0)).nan_to_num()


def scipys(a: Tensor, b: Tensor) -> Tensor:
    """Its x: the residuals that it reports are not always those of it."""
    a, b = a.double(), b.double()
    return torch.from_numpy(np.stack([scipy.optimize.nnls(a.numpy(), column)[0] for column in b.numpy().T], -1))


@pytest.mark.parametrize("size", DENSE, ids=str)
@pytest.mark.parametrize(("dtype", "promised"), [(torch.float32, 1e-5), (torch.float64, 1e-8)], ids=str)
def test_as_good_as_scipy(size: tuple[int, int], dtype: torch.dtype, promised: float) -> None:
    generator = np.random.default_rng(size[0])
    a, b = normal(generator, *size).to(dtype), normal(generator, size[0], 20).to(dtype)
    x = nnls(a, b)
    assert (x >= 0).all()
    assert kkt(a, b, x).max() <= promised
    assert (residuals(a, b, x) <= residuals(a, b, scipys(a, b)) + 10 * promised).all()


def mel_frames(rate: int, n_fft: int, n_mels: int) -> tuple[Tensor, Tensor]:
    """A filterbank, and the power of glides and noise through it."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(rate, dtype=torch.float64) / rate
    sweep = sum(torch.sin(2 * torch.pi * h * (80 * t + 60 * t**2)) / h for h in range(1, 12))
    sound = sweep + 0.05 * torch.randn(rate, generator=generator, dtype=torch.float64) * (t % 0.25 < 0.1)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    power = torch.stft(sound, n_fft, n_fft // 4, window=window, return_complex=True).abs().square()
    fb = melscale_fbanks(n_fft // 2 + 1, 0.0, rate / 2, n_mels, rate).mT
    return fb, fb.double() @ power


@pytest.mark.filterwarnings("ignore:.*mel filters")
@pytest.mark.parametrize("settings", [(44100, 2048, 128), (16000, 1024, 80), (16000, 400, 80)], ids=str)
@pytest.mark.parametrize(("dtype", "promised"), [(torch.float32, 1e-5), (torch.float64, 1e-8)], ids=str)
def test_every_mel_frame_is_solved(settings: tuple[int, int, int], dtype: torch.dtype, promised: float) -> None:
    fb, mel = mel_frames(*settings)
    x, outcome = nnls(fb, mel.to(dtype), return_outcome=True)
    assert not outcome.any()
    assert (x >= 0).all()
    assert kkt(fb, mel.to(dtype), x).max() <= promised
    noise = torch.exp(0.2 * torch.randn(mel.shape, dtype=torch.float64))
    smooth = torch.nn.functional.avg_pool1d(mel.T[:, None], 3, 1, 1)[:, 0].T
    for perturbed in (mel * noise, smooth, torch.where(torch.rand(mel.shape) < 0.02, -0.1 * mel, mel)):
        b = perturbed.to(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            x = nnls(fb, b)
        assert kkt(fb, b, x).max() <= 1e-4
        b, x = b[:, ::16], x[:, ::16]
        assert (residuals(fb, b, x) <= residuals(fb, b, scipys(fb, b)) + 1e-5).all()


def stalling() -> list[Any]:
    """Columns far from any A x, with a μ that is too small for entropy in a part of them."""
    generator = np.random.default_rng(0)
    mu = torch.full((200,), 1e-12).double()
    return [normal(generator, 6, 200), bank(6, 20, generator), mu, uniform(generator, 20, 200), AUTO, 1e-9, STEPS]


def test_entropy_that_stalls_is_least_squares() -> None:
    b, a, mu, prior, *settings = stalling()
    x, dual, outcome = op(b, a, mu, prior, *settings)
    stalled, reached = outcome == SOLVED, outcome == ENTROPY
    assert stalled.sum() > 20
    assert reached.sum() > 20
    assert (stalled | reached).all()
    expected, expected_dual, _ = op(b, a, mu, None, *settings)
    assert_close(x[:, stalled], expected[:, stalled], rtol=0, atol=0)
    assert_close(dual[:, stalled], expected_dual[:, stalled], rtol=0, atol=0)
    assert_close(x[:, reached], (prior * torch.exp(a.T @ dual))[:, reached], rtol=1e-6, atol=1e-9)
    assert_close((a @ x + mu * dual)[:, reached], b[:, reached], rtol=0, atol=1e-5)


def test_a_row_that_only_zeros_of_the_prior_reach() -> None:
    """Its λ grows like 1/μ, and with it the exponential that meets the 0."""
    b, a = torch.ones(2, 3).double(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    prior = torch.tensor([[0.0], [1.0]]).double().expand(2, 3)
    x, dual, outcome = op(b, a, torch.tensor([0.1, 1e-6, 1e-9]).double(), prior, AUTO, 1e-9, STEPS)
    assert (outcome == ENTROPY).all()
    assert_close(x, b * prior, rtol=1e-6, atol=0)
    assert_close(dual[0], torch.tensor([10.0, 1e6, 1e9]).double())


def test_gradients_where_some_columns_stall() -> None:
    """Those of least squares for these, of entropy for the others."""
    b, a, mu, prior, *settings = stalling()
    outcome = op(b, a, mu, prior, *settings)[2]
    g = normal(np.random.default_rng(1), 20, 200)

    def gradients(prior: Tensor | None) -> tuple[Tensor, ...]:
        inputs = [b.clone().requires_grad_()] if prior is None else [t.clone().requires_grad_() for t in (b, prior)]
        x, _, _ = op(inputs[0], a, mu, None if prior is None else inputs[1], *settings)
        return torch.autograd.grad(x, inputs, g)

    both, (least_squares,) = gradients(prior), gradients(None)
    stalled = outcome == SOLVED
    assert_close(both[0][:, stalled], least_squares[:, stalled], rtol=1e-9, atol=0)
    assert not both[1][:, stalled].any()
    x, _, _ = op(b, a, mu, prior, *settings)
    u, p = derivative(g, None, x, a, mu, False, AUTO, True)
    assert_close(both[0][:, ~stalled], u[:, ~stalled], rtol=1e-9, atol=0)
    assert_close(both[1][:, ~stalled], (p / prior)[:, ~stalled], rtol=1e-9, atol=0)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("matrix", [*HALF, *DTYPES], ids=str)
@pytest.mark.parametrize("sample", [*HALF, *DTYPES], ids=str)
def test_dtypes(sample: torch.dtype, matrix: torch.dtype, prior: bool) -> None:
    generator = np.random.default_rng(0)
    a = bank(4, 9, generator).to(matrix)
    b = (a.double() @ uniform(generator, 9, 11)).to(sample)
    mu = torch.full((11,), 0.125, dtype=matrix)
    x, dual, _ = compare(b, a, mu, uniform(generator, 9, 11).to(sample) if prior else None)
    g, h = normal(generator, 9, 11).to(sample), normal(generator, 4, 11)
    compare_derivative(g, h, x, a, mu, not prior)
    assert dual.dtype == torch.float64


def compare_derivative(
    g: Tensor | None,
    h: Tensor | None,
    w: Tensor,
    a: Tensor,
    mu: Tensor,
    support: bool,
    solver: int = AUTO,
    exact: tuple[Array, ...] | None = None,
) -> None:
    u, p = derivative(g, h, w, a, mu, support, solver, True)
    exact = reference.nnls_derivative(g, h, w, a, mu, support) if exact is None else exact
    assert (u.dtype, p.dtype) == (torch.float64, w.dtype)
    for result, target in zip((u, p), exact, strict=True):
        assert result.shape == target.shape
        assert result.is_contiguous()
        bound = torch.finfo(result.dtype).eps * np.abs(target)
        bound += 1e-10 * np.abs(target).max(-2, keepdims=True, initial=0)
        assert (np.abs(reference.array(result) - target) <= bound).all()
    alone, nothing = derivative(g, h, w, a, mu, support, solver, False)
    assert torch.equal(alone, u)
    assert (nothing.shape, nothing.dtype) == ((0,), w.dtype)


@cache
def system(dense: bool, size: tuple[int, int]) -> tuple[Any, ...]:
    """As problem; the solutions for support and not, and with one of g and h alone."""
    generator = np.random.default_rng(size[0])
    m, n, k = *size, COLUMNS[-1]
    a = normal(generator, m, n) if dense else bank(m, n, generator)
    w, g = normal(generator, n, k).clamp_min(0).float(), normal(generator, n, k).float()
    h, mu = normal(generator, m, k), uniform(generator, k) / 8
    exact = {
        (bool(along), bool(across), support): reference.nnls_derivative(
            g if along else None, h if across else None, w, a, mu, support
        )
        for along, across in ((1, 1), (1, 0), (0, 1))
        for support in (True, False)
    }
    return g, h, w, a, mu, exact


SYSTEMS = [
    *((False, size, solver) for size in BANKS for solver in (AUTO, NEWTON, GRADIENT)),
    *((True, size, solver) for size in DENSE for solver in (AUTO, GRADIENT)),
]


@pytest.mark.parametrize(("dense", "size", "solver"), SYSTEMS, ids=str)
def test_derivative_equals_the_reference(isa: str, dense: bool, size: tuple[int, int], solver: int) -> None:
    g, h, w, a, mu, exact = system(dense, size)
    for (along, across, support), target in exact.items():
        for k in COLUMNS:
            for dtype in DTYPES:
                compare_derivative(
                    g[:, :k].to(dtype) if along else None,
                    h[:, :k] if across else None,
                    w[:, :k].to(dtype),
                    a,
                    mu[:k],
                    support,
                    solver,
                    tuple(t[..., :k] for t in target),
                )


def test_strides_are_honoured() -> None:
    generator = np.random.default_rng(3)
    a = bank(6, 15, generator, 4)
    b, prior, mu = (uniform(generator, 4, 6, 10), uniform(generator, 4, 15, 10), uniform(generator, 4, 10))
    g, h = normal(generator, 4, 15, 10), normal(generator, 4, 6, 10)
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 2 else t,
        "batch last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
        "steps": lambda t: torch.stack([t, -t], -1).flatten(-2)[..., ::2],
        "offset": lambda t: torch.cat([torch.full_like(t, torch.nan), t])[len(t) :],
        "reversed rows": lambda t: t[..., ::2, :].repeat_interleave(2, -2)[..., : t.shape[-2], :] if t is b else t,
    }
    for solver, matrix in ((NEWTON, a), (GRADIENT, normal(generator, 4, 6, 15))):
        for prior_ in (None, prior) if solver == NEWTON else (None,):
            for name, view in views.items():
                strided = [None if t is None else view(t) for t in (b, matrix, mu, prior_)]
                plain = [None if t is None else t.contiguous() for t in strided]
                results = op(*strided, solver, 1e-9, STEPS), op(*plain, solver, 1e-9, STEPS)
                assert all(torch.equal(r, e) for r, e in zip(*results, strict=True)), name
                w = results[0][0]
                strided, plain = ([view(t) for t in (g, h, w, matrix, mu)], [g, h, w, matrix, mu])
                results = (derivative(*arguments, True, solver, True) for arguments in (strided, plain))
                assert all(torch.equal(r, e) for r, e in zip(*results, strict=True)), name


def test_stride_0() -> None:
    generator = np.random.default_rng(3)
    a, b = bank(4, 9, generator), uniform(generator, 4, 1)
    prior, mu = uniform(generator, 9, 1), uniform(generator, 1)
    for given in (None, prior):
        one = op(b, a, mu, given, AUTO, 1e-9, STEPS)
        many = op(
            b.expand(3, 4, 20),
            a.expand(3, 4, 9),
            mu.expand(3, 20),
            None if given is None else given.expand(3, 9, 20),
            *(AUTO, 1e-9, STEPS),
        )
        assert all(torch.equal(r, e.expand(r.shape)) for r, e in zip(many, one, strict=True))
    g, w = (torch.ones(1).expand(9, 20).double(), op(b, a, mu, None, AUTO, 1e-9, STEPS)[0].expand(9, 20))
    results = derivative(g, None, w, a, mu.expand(20), True, AUTO, True)
    expected = derivative(g.contiguous(), None, w.contiguous(), a, mu.repeat(20), True, AUTO, True)
    assert all(torch.equal(r, e) for r, e in zip(results, expected, strict=True))


@pytest.mark.parametrize("solver", [NEWTON, GRADIENT])
@pytest.mark.parametrize(
    ("b", "a", "mu", "prior"),
    [
        ((4,), (), (), None),
        ((), (4,), (), None),
        ((2, 1), (3,), (2, 3), None),
        ((), (2, 1), (3,), (2, 3)),
        ((1, 2, 1), (2, 1, 3), (), (1,)),
    ],
    ids=str,
)
def test_broadcasting_equals_a_loop(solver: int, b: Any, a: Any, mu: Any, prior: Any) -> None:
    generator = np.random.default_rng(4)
    if solver == GRADIENT:
        prior = None
    matrices = bank(4, 9, generator, *a) if solver == NEWTON else normal(generator, *a, 4, 9)
    right, weights = normal(generator, *b, 4, 5).abs(), uniform(generator, *mu, 5)
    given = None if prior is None else uniform(generator, *prior, 9, 5)
    outputs = op(right, matrices, weights, given, solver, 1e-9, STEPS)
    batch = np.broadcast_shapes(*(shape for shape in (b, a, mu, prior) if shape is not None))
    assert [t.shape for t in outputs] == [(*batch, 9, 5), (*batch, 4, 5), (*batch, 5)]
    g, h = normal(generator, *batch, 9, 5), normal(generator, *a, 4, 5)
    u, p = derivative(g, h, outputs[0], matrices, weights, True, solver, True)
    wide = [
        right.expand(*batch, 4, 5),
        matrices.expand(*batch, 4, 9),
        weights.expand(*batch, 5),
        None if given is None else given.expand(*batch, 9, 5),
    ]
    for index in np.ndindex(*batch):
        one = [None if t is None else t[index] for t in wide]
        expected = op(*one, solver, 1e-9, STEPS)
        assert all(torch.equal(t[index], e) for t, e in zip(outputs, expected, strict=True))
        d = derivative(g[index], h.expand(*batch, 4, 5)[index], expected[0], one[1], one[2], True, solver, True)
        assert all(torch.equal(t[index], e) for t, e in zip((u, p), d, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, *DTYPES], ids=str)
def test_nothing_to_solve(dtype: torch.dtype) -> None:
    a = bank(4, 9, np.random.default_rng(0)).to(dtype)
    for solver in (AUTO, NEWTON, GRADIENT):
        for b, matrix in (
            (torch.ones(4, 0), a),
            (torch.ones(0, 4, 3), a),
            (torch.ones(2, 4, 3), a[:, :0]),
            (torch.ones(0, 3), a[:0]),
            (torch.ones(0, 0), a[:0, :0]),
            (torch.ones(2, 4, 3), a.expand(0, 1, 4, 9)),
        ):
            b = b.to(dtype)
            batch = np.broadcast_shapes(b.shape[:-2], matrix.shape[:-2])
            x, dual, outcome = op(b, matrix, torch.ones(b.shape[-1]), None, solver, 1e-9, STEPS)
            assert x.shape == (*batch, matrix.shape[-1], b.shape[-1])
            assert not x.any()
            assert_close(dual, b.double().expand(dual.shape))  # what is left, by μ = 1
            assert not outcome.any()
            g = torch.ones(*batch, matrix.shape[-1], b.shape[-1], dtype=dtype)
            u, p = derivative(g, None, x, matrix, torch.ones(b.shape[-1]), True, solver, True)
            assert not u.any()
            assert not p.any()
            assert (u.shape, p.shape) == (dual.shape, x.shape)


@pytest.mark.parametrize("solver", [NEWTON, GRADIENT])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_and_negative_columns(solver: int, dtype: torch.dtype) -> None:
    a = bank(5, 11, np.random.default_rng(0)).to(dtype)
    b = torch.tensor([[0.0, -1.0]], dtype=dtype).expand(5, 2)
    x, dual, outcome = op(b, a, torch.ones(2), None, solver, 1e-9, STEPS)
    assert not x.any()
    assert not outcome.any()
    assert torch.equal(dual, b.double())


@pytest.mark.parametrize("solver", [NEWTON, GRADIENT])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_a_column_that_is_not_finite_fails_alone(solver: int, bad: float) -> None:
    generator = np.random.default_rng(0)
    a = bank(5, 11, generator)
    for dtype in (torch.float16, *DTYPES):
        for k in (1, 3, 8, 20):
            clean = uniform(generator, 5, k).to(dtype)
            mu = torch.full((k,), 0.1)
            expected = op(clean, a, mu, None, solver, 1e-7, STEPS)
            b = clean.clone()
            b[2, k // 2] = bad
            results = op(b, a, mu, None, solver, 1e-7, STEPS)
            others = torch.arange(k) != k // 2
            assert all(torch.equal(r[..., others], e[..., others]) for r, e in zip(results, expected, strict=True))
            x, dual, outcome = (t[..., k // 2] for t in results)
            assert x.isnan().all()
            assert dual.isnan().all()
            assert outcome == FAILED
    for mu in (torch.tensor([1.0, 0.0, -1.0, torch.nan, torch.inf]), torch.full((5,), torch.inf)):
        x, _, outcome = op(uniform(generator, 5, 5), a, mu, None, solver, 1e-7, STEPS)
        right = torch.tensor([0 < value < np.inf for value in mu.tolist()])
        assert torch.equal(outcome == FAILED, ~right)
        assert torch.equal(x.isnan(), ~right.expand(11, 5))


def test_a_bad_matrix_or_prior_fails() -> None:
    generator = np.random.default_rng(0)
    b, mu = uniform(generator, 2, 5, 3), torch.ones(3)
    for bad in (np.nan, np.inf):
        a = bank(5, 11, generator, 2)
        a[1, 2, 4] = bad
        x, _, outcome = op(b, a, mu, None, AUTO, 1e-9, STEPS)
        assert outcome.tolist() == [[SOLVED] * 3, [FAILED] * 3]
        assert x[0].isfinite().all()
        assert x[1].isnan().all()
        prior = uniform(generator, 11, 3)
        prior[3, 1], prior[3, 2] = bad, -1.0
        x, _, outcome = op(b[0], a[0], mu, prior, AUTO, 1e-9, STEPS)
        assert (outcome == ENTROPY).tolist() == [True, False, False]


def test_nothing_is_a_view_or_mutated() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator), uniform(generator, 4, 5)
    mu, prior = uniform(generator, 5), uniform(generator, 9, 5)
    before = [t.clone() for t in (a, b, mu, prior)]
    x, dual, outcome = op(b, a, mu, prior, AUTO, 1e-9, STEPS)
    outputs = [x, dual, outcome, *derivative(x, dual, x, a, mu, True, AUTO, True)]
    assert all(torch.equal(t, old) for t, old in zip((a, b, mu, prior), before, strict=True))
    inputs = {t.untyped_storage().data_ptr() for t in (a, b, mu, prior)}
    pointers = [t.untyped_storage().data_ptr() for t in outputs]
    assert len({*pointers}) == len(outputs)
    assert not inputs & {*pointers}


JOBS = [(AUTO, False), (AUTO, True), (GRADIENT, False)]


def job(solver: int, prior: bool, k: int = 300) -> list[Any]:
    generator = np.random.default_rng(k)
    a = bank(9, 30, generator) if solver == AUTO else normal(generator, 9, 30)
    b = normal(generator, 9, k).abs()
    return [b, a, uniform(generator, k), uniform(generator, 30, k) if prior else None, solver, 1e-9, STEPS]


def solve(arguments: list[Any]) -> list[Tensor]:
    x, dual, outcome = op(*arguments)
    _, a, mu, _, solver, *_ = arguments
    return [x, dual, outcome, *derivative(x, dual, x, a, mu, True, solver, True)]


@pytest.mark.parametrize(("solver", "prior"), JOBS)
def test_any_split_of_the_columns_gives_the_same_bits(solver: int, prior: bool) -> None:
    b, a, mu, given, *settings = job(solver, prior)
    whole = solve([b, a, mu, given, *settings])
    for size in (1, 2, 7, 8, 9, 150):
        pieces = []
        for start in range(0, 40 if size < 100 else 300, size):
            part = slice(start, start + size)
            pieces.append(solve([b[:, part], a, mu[part], None if given is None else given[:, part], *settings]))
        for results, expected in zip(zip(*pieces, strict=True), whole, strict=True):
            joined = torch.cat(results, -1)
            assert torch.equal(joined, expected[..., : joined.shape[-1]])


def test_two_threads_at_once() -> None:
    jobs = [job(solver, prior, k) for solver, prior in JOBS for k in (3, 300)]
    expected = [solve(arguments) for arguments in jobs]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(solve, jobs * 5))
    for index, result in enumerate(results):
        assert all(torch.equal(r, e) for r, e in zip(result, expected[index % len(jobs)], strict=True))


@pytest.mark.parametrize(("solver", "prior"), JOBS)
def test_thread_count_does_not_change_the_bits(solver: int, prior: bool) -> None:
    arguments = job(solver, prior, 1000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, again = solve(arguments), solve(arguments)
        torch.set_num_threads(2)
        two = solve(arguments)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(p, q) and torch.equal(p, r) for p, q, r in zip(one, two, again, strict=True))


@pytest.mark.parametrize("solver", ["newton", "projected_gradient"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_scale_of_b_does_not_matter(solver: str, scale: float) -> None:
    generator = np.random.default_rng(0)
    a, b = bank(6, 20, generator), normal(generator, 6, 30).abs()
    for dtype in DTYPES:
        x = nnls(a, (scale * b).to(dtype).double(), solver=solver)
        assert_close(x / scale, nnls(a, (scale * b).to(dtype).double() / scale, solver=solver), rtol=1e-6, atol=1e-9)
        assert nnls(a.to(dtype), (scale * b).to(dtype), solver=solver).isfinite().all()


B, A, MU = torch.ones(3, 2), bank(3, 5, np.random.default_rng(0)).float(), torch.ones(2)
DENSE_A = torch.ones(3, 5)

WRONG_ARGUMENTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "rows of b": ((torch.ones(4, 2), A, MU, None, 0, 1e-9, STEPS), r"b must have the shape \(\.\.\., 3, 2\)"),
    "columns of mu": ((B, A, torch.ones(3), None, 0, 1e-9, STEPS), r"mu must have the shape \(\.\.\., 2\)"),
    "rows of prior": ((B, A, MU, torch.ones(3, 2), 0, 1e-9, STEPS), r"prior must have the shape \(\.\.\., 5, 2\)"),
    "columns of prior": ((B, A, MU, torch.ones(5, 1), 0, 1e-9, STEPS), r"prior must have the shape \(\.\.\., 5, 2\)"),
    "batches": ((torch.ones(4, 3, 2), A.expand(3, 3, 5), MU, None, 0, 1e-9, STEPS), "must broadcast together"),
    "vector b": ((B[:, 0], A, MU, None, 0, 1e-9, STEPS), "b must have at least 2 dimensions"),
    "vector a": ((B, A[0], MU, None, 0, 1e-9, STEPS), "a must have at least 2 dimensions"),
    "scalar mu": ((B, A, MU[0], None, 0, 1e-9, STEPS), "mu must have at least one dimension"),
    "complex b": ((B + 0j, A, MU, None, 0, 1e-9, STEPS), "b must be real"),
    "integer a": ((B, A.int(), MU, None, 0, 1e-9, STEPS), "a must have a floating or complex dtype"),
    "dense": ((B, DENSE_A, MU, None, NEWTON, 1e-9, STEPS), "newton"),
    "dense prior": ((B, DENSE_A, MU, torch.ones(5, 2), AUTO, 1e-9, STEPS), "newton"),
    "gradient with a prior": ((B, A, MU, torch.ones(5, 2), GRADIENT, 1e-9, STEPS), "prior"),
    "solver": ((B, A, MU, None, 3, 1e-9, STEPS), "solver"),
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_wrong_arguments_of_the_op(name: str) -> None:
    args, message = WRONG_ARGUMENTS[name]
    argument = message.split()[0]
    with pytest.raises(RuntimeError, match=f"{message}|{argument} must|fit together: {argument} "):
        op(*args)
    if "must" in message:
        with pytest.raises((ValueError, TypeError), match=message):
            op(*(arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args))


W = torch.ones(5, 2)

WRONG_DERIVATIVES: dict[str, tuple[tuple[Any, ...], str]] = {
    "shape of g": ((torch.ones(4, 2), None, W, A, MU), r"g must have the shape \(\.\.\., 5, 2\)"),
    "shape of h": ((None, torch.ones(4, 2).double(), W, A, MU), r"h must have the shape \(\.\.\., 3, 2\)"),
    "shape of w": ((W, None, W[:4], A, MU), r"w must have the shape \(\.\.\., 5, 2\)"),
    "shape of mu": ((W, None, W, A, MU[:1]), r"mu must have the shape \(\.\.\., 2\)"),
    "dtype of g": ((W.double(), None, W, A, MU), "g must have the dtype of w"),
    "dtype of h": ((None, B, W, A, MU), "h must have the dtype of u, torch.float64"),
    "batches": ((W.expand(2, 5, 2), None, W.expand(3, 5, 2), A, MU), "must broadcast together"),
}


@pytest.mark.parametrize("name", WRONG_DERIVATIVES)
def test_wrong_arguments_of_the_derivative(name: str) -> None:
    args, message = WRONG_DERIVATIVES[name]
    argument = message.split()[0]
    with pytest.raises(RuntimeError, match=f"{message}|{argument} must|fit together: {argument} "):
        derivative(*args, True, AUTO, True)
    with pytest.raises((ValueError, TypeError), match=message):
        derivative(*(arg if arg is None else arg.to("meta") for arg in args), True, AUTO, True)


# --- the face


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir._nnls)
    assert result.attempted > 0
    assert result.failed == 0


def test_shapes() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator), uniform(generator, 4, 6)
    x = nnls(a, b)
    assert x.shape == (9, 6)
    assert torch.equal(nnls(a, b[:, 0]), x[:, 0])
    assert nnls(a, b[:, 0]).is_contiguous()
    assert torch.equal(nnls(a.expand(3, 4, 9), b[:, 0]), x[:, 0].expand(3, 9))
    assert torch.equal(nnls(a, b.expand(2, 1, 4, 6)), x.expand(2, 1, 9, 6))
    assert nnls(a.expand(3, 4, 9), b.expand(2, 1, 4, 6)).shape == (2, 3, 9, 6)
    for right, shape in ((b[:, 0], ()), (b, (6,)), (b.expand(5, 4, 6), (5, 6))):
        x, outcome = nnls(a, right, return_outcome=True)
        assert (outcome.shape, outcome.dtype) == (shape, torch.int32)
        assert not outcome.any()


def test_arguments_may_be_arrays_lists_and_integers() -> None:
    expected = torch.tensor([0.0, 1.0, 1.5])
    for a in ([[1, 1, 0], [0, 1, 2]], np.array([[1.0, 1, 0], [0, 1, 2]]), torch.tensor([[1, 1, 0], [0, 1, 2]])):
        for b in ([1, 4], np.array([1.0, 4.0]), torch.tensor([1, 4])):
            x = nnls(a, b)
            both = isinstance(a, Tensor) and isinstance(b, Tensor)
            assert x.dtype == (torch.float32 if both else torch.float64)
            assert_close(torch.tensor([[1.0, 1, 0], [0, 1, 2]]) @ x.float(), torch.tensor([1.0, 4.0]))
            assert (x - expected).abs().max() < 0.2


@pytest.mark.parametrize("matrix", [*HALF, *DTYPES], ids=str)
@pytest.mark.parametrize("sample", [*HALF, *DTYPES], ids=str)
def test_the_result_has_the_wider_dtype(sample: torch.dtype, matrix: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    a, b = (bank(4, 9, generator).to(matrix).requires_grad_(), uniform(generator, 4, 6).to(sample).requires_grad_())
    x = nnls(a, b)
    assert x.dtype == torch.promote_types(sample, matrix)
    exact = nnls(a.detach().double(), b.detach().double())
    assert_close(x.double(), exact, rtol=2 * torch.finfo(x.dtype).eps, atol=1e-6)
    x.square().sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (matrix, sample)


def test_a_matrix_of_zeros_and_rows_of_zeros() -> None:
    assert not nnls(torch.zeros(3, 4), torch.ones(3, 2)).any()
    assert not nnls(torch.zeros(3, 4), torch.ones(3, 2), solver="projected_gradient").any()
    assert nnls(torch.zeros(0, 4), torch.ones(0, 2)).shape == (4, 2)
    a = bank(4, 9, np.random.default_rng(0))
    a[1] = 0
    a[:, 4] = 0
    x = nnls(a, torch.ones(4, 2).double())
    keep = [0, 2, 3]
    assert_close((a @ x)[keep], torch.ones(3, 2).double(), rtol=1e-6, atol=0)
    assert not x[4].any()


def test_newton_gives_the_solution_of_least_norm() -> None:
    generator = np.random.default_rng(0)
    a = bank(5, 30, generator)
    b = a @ (1 + uniform(generator, 30, 8))
    x = nnls(a, b)
    assert_close(a @ x, b, rtol=1e-7, atol=0)
    assert (x > 0).all()  # then it is the pseudo-inverse
    assert_close(x, torch.linalg.pinv(a) @ b, rtol=1e-6, atol=0)


def test_failed_columns_are_counted() -> None:
    a, b = (bank(6, 20, np.random.default_rng(0)), normal(np.random.default_rng(1), 2, 6, 7))
    b[0, 0, 3] = torch.nan
    b[1, 2, 5] = torch.inf
    with pytest.warns(RuntimeWarning, match="2 of 14 columns") as caught:
        x, outcome = nnls(a, b, return_outcome=True)
    assert caught[0].filename == __file__
    assert int((outcome == FAILED).sum()) == 2
    assert x.isnan().all(-2).sum() == 2
    with pytest.warns(RuntimeWarning, match="1 of 1 columns"):
        nnls(a, b[0, :, 3])
    for solver in ("newton", "projected_gradient"):
        with pytest.warns(RuntimeWarning, match="columns did not reach the tolerance 1e-15"):
            x, outcome = nnls(a, b[1, :, :2], solver=solver, tol=1e-15, max_iter=1, return_outcome=True)
        assert (outcome == FAILED).any()
        assert x.isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nnls(a, b[1, :, :2])


WRONG_CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "text": (lambda: nnls("A", B), TypeError, "A must be a tensor"),
    "complex A": (lambda: nnls(A + 0j, B), TypeError, "A must be real"),
    "complex B": (lambda: nnls(A, B + 0j), TypeError, "B must be real"),
    "vector A": (lambda: nnls(A[0], B), ValueError, "A must have at least 2 dimensions"),
    "scalar A": (lambda: nnls(3.0, B), ValueError, "A must have at least one dimension"),
    "scalar B": (lambda: nnls(A, 3.0), ValueError, "B must have at least one dimension"),
    "rows": (lambda: nnls(A, torch.ones(4, 2)), ValueError, r"B must have the shape \(\.\.\., 3, 2\), got A \[3, 5\]"),
    "vector of rows": (
        lambda: nnls(A, torch.ones(4)),
        ValueError,
        r"B as \(m, 1\) must have the shape \(\.\.\., 3, 1\), got A \[3, 5\], B as \(m, 1\) \[4, 1\]",
    ),
    "batches": (lambda: nnls(A.expand(2, 3, 5), B.expand(3, 3, 2)), ValueError, "must broadcast together"),
    "devices": (lambda: nnls(A, B.to("meta")), ValueError, "B must be on the device of A"),
    "solver": (lambda: nnls(A, B, solver="lu"), ValueError, "solver must be one of auto, newton, projected_gradient"),
    "newton": (lambda: nnls(DENSE_A, B, solver="newton"), ValueError, "solver must be 'auto' or 'projected_gradient'"),
    "negative entries": (lambda: nnls(-A, B, solver="newton"), ValueError, "solver must be"),
    "tol 0": (lambda: nnls(A, B, tol=0.0), ValueError, "tol must be positive and finite, got 0"),
    "tol NaN": (lambda: nnls(A, B, tol=float("nan")), ValueError, "tol must be positive and finite"),
    "max_iter 0": (lambda: nnls(A, B, max_iter=0), ValueError, "max_iter must be at least 1, got 0"),
    "max_iter 1.5": (lambda: nnls(A, B, max_iter=1.5), TypeError, "max_iter must be an integer"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", [name for name in WRONG_CALLS if name not in ("newton", "negative entries")])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(Exception, match=message) as caught:
        torch.compile(call, backend="aot_eager")()
    assert isinstance(caught.value, kind)


# --- gradients of the face


def masked(function: Callable[..., Any], a: Tensor) -> Callable[..., Any]:
    """Finite differences must leave a matrix banded."""
    return lambda matrix, b: function(matrix * (a != 0), b)


def problems() -> dict[str, tuple[Tensor, Tensor, str]]:
    generator = np.random.default_rng(0)
    a = bank(4, 9, generator)
    tall = normal(generator, 6, 3)
    return {
        "inside the cone": (a, a @ (1 + uniform(generator, 9, 2)), "newton"),
        "outside": (a, normal(generator, 2, 4, 2), "newton"),
        "tall bank": (bank(5, 3, generator), uniform(generator, 5, 2), "newton"),
        "tall": (tall, normal(generator, 6, 3), "auto"),
        "tall in batches": (normal(generator, 2, 5, 2), normal(generator, 5, 1), "projected_gradient"),
        "vector": (tall, normal(generator, 6), "auto"),
    }


PROBLEMS = problems()


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients(name: str) -> None:
    a, b, solver = PROBLEMS[name]

    def function(matrix: Tensor, b: Tensor) -> Tensor:
        return nnls(matrix, b, solver=solver, tol=1e-13)

    inputs = (a.clone().requires_grad_(), b.clone().requires_grad_())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.autograd.gradcheck(masked(function, a), inputs, check_forward_ad=True, check_batched_grad=True)
        torch.autograd.gradgradcheck(masked(function, a), inputs, check_fwd_over_rev=True, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", PROBLEMS)
def test_hessian_is_symmetric_and_forward_mode_agrees(name: str) -> None:
    a, b, solver = PROBLEMS[name]

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return nnls(a, b, solver=solver, tol=1e-12).pow(3).sum()

    hessian = torch.func.hessian(loss, (0, 1))(a, b)
    reverse = torch.func.jacrev(torch.func.jacrev(loss, (0, 1)), (0, 1))(a, b)
    for i, j in itertools.product(range(2), repeat=2):
        scale = float(hessian[i][j].abs().max())
        assert_close(hessian[i][j], reverse[i][j], rtol=0, atol=1e-5 * scale)
        size = (a, b)[i].numel(), (a, b)[j].numel()
        assert_close(hessian[i][j].reshape(size), hessian[j][i].reshape(size[::-1]).T, rtol=0, atol=1e-5 * scale)


def test_newton_and_projected_gradient_have_the_same_gradients() -> None:
    """Also by the entries of A that are 0, which finite differences cannot reach with Newton's method."""
    generator = np.random.default_rng(0)
    a, b = bank(9, 4, generator), uniform(generator, 9, 6)
    gradients = []
    for solver in ("newton", "projected_gradient"):
        inputs = a.clone().requires_grad_(), b.clone().requires_grad_()
        x = nnls(*inputs, solver=solver, tol=1e-13)
        gradients.append(torch.autograd.grad(x.pow(3).sum(), inputs))
    assert (gradients[0][0][a == 0] != 0).any()
    assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_what_is_not_needed_has_no_gradient() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator), uniform(generator, 4, 6)
    for wanted in ((True, False), (False, True)):
        inputs = (a.clone().requires_grad_(wanted[0]), b.clone().requires_grad_(wanted[1]))
        x, outcome = nnls(*inputs, return_outcome=True)
        assert x.requires_grad
        assert not outcome.requires_grad
        x.sum().backward()
        assert [t.grad is not None for t in inputs] == [*wanted]
    x, _ = nnls(a, b, return_outcome=True)
    assert not x.requires_grad


class Recorded(TorchDispatchMode):
    """The last argument, needs_p, of every call of nnls_derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.needs_p: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is derivative:
            self.needs_p.append(args[-1])
        return func(*args, **(kwargs or {}))


def test_p_is_computed_only_where_it_is_needed() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator), normal(generator, 4, 6)
    for wanted, needs_p in (((False, True), False), ((True, False), True)):
        inputs = a.clone().requires_grad_(wanted[0]), b.clone().requires_grad_(wanted[1])
        x = nnls(*inputs)
        with Recorded() as recorded:
            x.sum().backward()
        assert recorded.needs_p == [needs_p]


def test_a_bad_column_spares_the_gradients_of_others() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator), normal(generator, 4, 6)
    b[1, 2] = torch.nan
    gradients = []
    for k in (slice(None), [0, 1, 3, 4, 5]):
        part = b[:, k].clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            nnls(a, part).square().nansum().backward()
        gradients.append(part.grad)
    assert torch.equal(gradients[0][:, [0, 1, 3, 4, 5]], gradients[1])


def test_gradients_in_half_precision() -> None:
    """Of a matrix with more rows than columns p is as small as μ, which float16 does not have."""
    generator = np.random.default_rng(0)
    a, b = normal(generator, 8, 3), normal(generator, 8, 5)
    for dtype in HALF:
        half = a.to(dtype), b.to(dtype)
        wide = half[0].double(), half[1].double()
        results = []
        for pair in (half, wide):
            inputs = [t.clone().requires_grad_() for t in pair]
            gradients = torch.autograd.grad(nnls(*inputs).sum(), inputs)
            _, tangent = torch.func.jvp(nnls, pair, (pair[0] / 2, pair[1]))
            results.append([t.double() for t in (*gradients, tangent)])
        for result, exact in zip(*results, strict=True):
            assert_close(result, exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-3)


def test_gradient_of_a_shared_matrix_is_a_sum() -> None:
    generator = np.random.default_rng(0)
    a = bank(4, 9, generator)
    for shape in ((3, 4, 6), (2, 3, 4, 6)):
        b = normal(generator, *shape).abs()
        shared = a.clone().requires_grad_()
        own = a.expand(*shape[:-2], 4, 9).contiguous().requires_grad_()
        for matrix in (shared, own):
            nnls(matrix, b).square().sum().backward()
        assert_close(shared.grad, own.grad.sum(tuple(range(len(shape) - 2))))
    part = a.expand(3, 1, 4, 9).contiguous().requires_grad_()
    nnls(part, b.transpose(0, 1)).square().sum().backward()
    assert_close(part.grad.sum((0, 1)), shared.grad)


# --- under torch's transforms


def batch() -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    return bank(4, 9, generator), uniform(generator, 3, 4, 6)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("solver", ["auto", "projected_gradient"])
def test_compiled(backend: str, dynamic: bool, solver: str) -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return nnls(a, b, solver=solver, tol=1e-12, return_outcome=True)

    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=dynamic)
    a, b = batch()
    for right in (b, b[..., :5], b[:2]) if dynamic else (b,):  # without dynamic shapes each is compiled by itself
        inputs = [t.clone().requires_grad_() for t in (a, right)]
        x, outcome = function(*inputs)
        y, compiled_outcome = compiled(*inputs)
        assert torch.equal(x, y)
        assert torch.equal(outcome, compiled_outcome)
        expected = torch.autograd.grad(x.pow(2).sum(), inputs)
        assert_close(torch.autograd.grad(y.pow(2).sum(), inputs), expected)


def test_compiled_transforms() -> None:
    a, b = batch()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return nnls(a, b, tol=1e-12).square().sum()

    def directional(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(loss, (a, b), (a / 2, b.square()))

    def gradients(a: Tensor, b: Tensor) -> Any:
        return torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, 0))(a, b)

    for function in (directional, gradients):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        assert_close(compiled(a, b), function(a, b))


def test_no_warning_is_compiled() -> None:
    compiled = torch.compile(nnls, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert compiled(A, torch.full((3, 1), torch.nan)).isnan().all()


class Solve(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(batch()[0])

    def forward(self, b: Tensor) -> Tensor:
        return nnls(self.a, b)


@pytest.mark.parametrize("strict", [False, True])
def test_exported(strict: bool) -> None:
    module, (_, b) = Solve(), batch()
    columns = torch.export.Dim("columns", min=2)
    program = torch.export.export(module, (b,), dynamic_shapes={"b": {2: columns}}, strict=strict)
    for right in (b, b[..., :4], torch.cat([b, b], -1)):
        assert torch.equal(program.module()(right), module(right))


def test_vmap() -> None:
    generator = np.random.default_rng(0)
    a, b = bank(4, 9, generator, 5), uniform(generator, 5, 4, 6)
    expected = nnls(a, b)
    assert torch.equal(torch.vmap(nnls)(a, b), expected)
    assert torch.equal(torch.vmap(nnls, (1, 2), 1)(a.movedim(0, 1), b.movedim(0, 2)), expected.movedim(0, 1))
    assert torch.equal(torch.vmap(nnls, (None, 0))(a[0], b), nnls(a[0], b))
    assert torch.equal(torch.vmap(nnls, (0, None))(a, b[0]), nnls(a, b[0]))
    assert torch.equal(torch.vmap(nnls, (0, None))(a, b[0, :, 0]), nnls(a, b[0, :, :1]).squeeze(-1))
    nested = torch.vmap(torch.vmap(nnls, (None, 0)), (0, None))(a, b)
    assert torch.equal(nested, nnls(a[:, None], b))
    _, outcome = torch.vmap(lambda a, b: nnls(a, b, return_outcome=True))(a, b)
    assert outcome.shape == (5, 6)


def test_jacobians_agree() -> None:
    a, b = batch()
    b = b[0, :, 0]
    forward, reverse = (jacobian(nnls, (0, 1))(a, b) for jacobian in (torch.func.jacfwd, torch.func.jacrev))
    classic = torch.autograd.functional.jacobian(nnls, (a, b), vectorize=True)
    for f, r, c in zip(forward, reverse, classic, strict=True):
        assert_close(f, r)
        assert_close(f, c)


def test_inference_mode_and_no_grad() -> None:
    a, b = batch()
    expected = nnls(a, b)
    with torch.inference_mode():
        assert torch.equal(nnls(a, b), expected)
        assert torch.equal(nnls(a.clone(), b.clone()), expected)
    with torch.no_grad():
        x = nnls(a.requires_grad_(), b)
    assert not x.requires_grad
    assert torch.equal(x, expected)


def test_autocast() -> None:
    a, b = batch()
    single = nnls(a.float(), b.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        x = nnls(a.float(), b.bfloat16())
        assert x.dtype == torch.float32
        assert nnls(a, b).dtype == torch.float64
    assert_close(x, single)


def test_checkpoint() -> None:
    a, b = (t.requires_grad_() for t in batch())
    expected = torch.autograd.grad(nnls(a, b).square().sum(), (a, b))
    x = torch.utils.checkpoint.checkpoint(nnls, a, b, use_reentrant=False)
    assert_close(torch.autograd.grad(x.square().sum(), (a, b)), expected, rtol=0, atol=0)


def test_meta_tensors() -> None:
    a, b = (t.to("meta") for t in batch())
    x, outcome = nnls(a, b, return_outcome=True)
    assert (x.shape, x.dtype, x.device.type) == ((3, 9, 6), torch.float64, "meta")
    assert (outcome.shape, outcome.dtype) == ((3, 6), torch.int32)
