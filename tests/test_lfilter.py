"""The op lfilter and its gradient: numbers, shapes, strides, dtypes, algorithms, instruction sets, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import scipy.signal
import torch
from hypothesis import given, settings
from reference import stable_filter, tolerance
from torch import Tensor

import torch_iir

lfilter = torch.ops.torch_iir.lfilter.default
lfilter_backward = torch.ops.torch_iir.lfilter_backward.default

DTYPES = [torch.float32, torch.float64]
EVERYTHING = 15


def signal(generator: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def runs(order: int, name: str) -> bool:
    """Whether the kernels promise this algorithm for this order."""
    return 1 <= order <= 6 if name == "segments" else True


def compare_forward(x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
    y, zf = lfilter(x, b, a, zi)
    expected_y, expected_zf = reference.lfilter(x, b, a, zi)
    xn, bn, an, zn = (reference.array(value) for value in (x, b, a, zi))
    bound = tolerance(y.dtype, expected_y, xn, bn, an, zn)
    np.testing.assert_allclose(reference.array(y), expected_y, rtol=0, atol=bound)
    # A state is a sum of up to 2 (N + 1) products of coefficients and samples.
    state_bound = tolerance(zf.dtype, expected_zf, xn, bn, an, zn)
    state_bound += bound * float(np.abs(an / an[..., :1]).sum(-1).max()) if y.dtype == torch.float64 else 0
    np.testing.assert_allclose(reference.array(zf), expected_zf, rtol=0, atol=state_bound)
    return y, zf


def compare_backward(x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None, generator: np.random.Generator) -> None:
    y, zf = lfilter(x, b, a, zi)
    gy, gzf = signal(generator, *y.shape, dtype=y.dtype), signal(generator, *zf.shape, dtype=zf.dtype)
    gradients = lfilter_backward(gy, gzf, x, b, a, zi, y, EVERYTHING)
    expected = reference.lfilter_backward(gy, gzf, x, b, a, zi, y)
    # Every gradient is a sum of products; the same sums over absolute values, gained by 1/A, bound its rounding.
    an, bn = reference.array(a), reference.array(b)
    impulse = np.eye(1, max(x.shape[-1], 1))[0]
    gain = np.abs(reference.lfilter(impulse, np.ones(1), an)[0]).sum(-1).max() * max(1, np.abs(1 / an[..., 0]).max())
    v = gain * (float(gy.abs().max()) if gy.numel() else 0) + gain * (
        float(gzf.abs().sum(-1).max()) if gzf.numel() else 0
    )
    samples, rows = x.shape[-1] + 1, y.numel() // max(y.shape[-1], 1)
    largest = max(float(t.abs().max()) if t.numel() else 0 for t in (x, y))
    sizes = (
        v * np.abs(bn).sum(-1).max() * rows,
        v * largest * samples * rows,
        v * largest * samples * rows * (1 + np.abs(bn).sum(-1).max() + np.abs(an).sum(-1).max()),
        v * rows,
    )
    order = max(b.shape[-1], a.shape[-1]) - 1
    for gradient, target, argument, size in zip(gradients, expected, (x, b, a, zi), sizes, strict=True):
        if argument is None:
            assert tuple(gradient.shape) == (0,)
            continue
        assert gradient.shape == argument.shape
        assert gradient.dtype == argument.dtype
        assert gradient.is_contiguous()
        eps = torch.finfo(gradient.dtype).eps
        scale = np.abs(target).max(initial=0)
        bound = eps * scale + max(8 * (order + 1) * np.finfo(np.float64).eps * size, 1e-10 * scale)
        np.testing.assert_allclose(reference.array(gradient), target, rtol=0, atol=bound)


BOUNDARIES = (0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 6, 7, 10, 16, 31, 32, 33, 64])
def test_every_length_around_every_boundary(order: int, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(order)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator, 0.8 if order > 32 else 0.9))
    for samples in sorted({*BOUNDARIES, max(order - 1, 0), order, order + 1}):
        for rows in (1, 3, 17):
            x = signal(generator, rows, samples, dtype=dtype)
            compare_forward(x, b, a, signal(generator, rows, order))
    compare_forward(signal(generator, 4097, dtype=dtype), b, a, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", [0, 1, 2, 3, 6, 7, 16, 33])
def test_gradients_of_every_length(order: int, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(order)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator, 0.8))
    for samples in sorted({*BOUNDARIES[:-4], max(order - 1, 0), order, order + 1}):
        for rows in (1, 3, 17):
            x = signal(generator, rows, samples, dtype=dtype)
            compare_backward(x, b, a, signal(generator, rows, order), generator)
    compare_backward(signal(generator, 1000, dtype=dtype), b, a, None, generator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_scipy(dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    b, a = scipy.signal.butter(6, 0.2)
    x, zi = signal(generator, 3, 500, dtype=dtype), signal(generator, 3, 6)
    y, zf = lfilter(x, torch.from_numpy(b), torch.from_numpy(a), zi)
    expected_y, expected_zf = scipy.signal.lfilter(b, a, x.double().numpy(), zi=zi.numpy())
    bound = tolerance(dtype, expected_y, x.double().numpy(), b, a, zi.numpy())
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=bound)
    np.testing.assert_allclose(zf, expected_zf, rtol=0, atol=bound)


@pytest.mark.parametrize("order", [1, 2, 5, 12])
@pytest.mark.parametrize("rows", [1, 20])
def test_variants_agree_with_the_reference(isa: str, algorithm: str, order: int, rows: int) -> None:
    """Every algorithm on every instruction set of this machine."""
    generator = np.random.default_rng(order)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator))
    x, zi = signal(generator, rows, 300), signal(generator, rows, order)
    if not runs(order, algorithm):
        with pytest.raises(RuntimeError, match=f'algorithm "{algorithm}" is forced, and cannot run this filter'):
            lfilter(x, b, a, zi)
        return
    for samples in (1, order, 31, 300):
        for dtype in DTYPES:
            part = x[:, :samples].to(dtype)
            compare_forward(part, b, a, zi)
            compare_backward(part, b, a, zi, generator)
    compare_forward(x[:, ::2], b, a, zi)
    compare_forward(x.t().contiguous().t(), b, a, zi)


def test_a_forced_isa_and_algorithm_from_the_environment() -> None:
    code = "import torch_iir, torch; print(torch_iir.build_info()['isa'], torch.ops.torch_iir._force_algorithm(0))"
    environment = {**os.environ, "TORCH_IIR_ISA": "baseline", "TORCH_IIR_ALGORITHM": "rows"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["baseline", "2"]


def assert_equal(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...], name: str) -> None:
    for output, target in zip(outputs, expected, strict=True):
        assert output.is_contiguous(), name
        assert torch.equal(output, target), name


def test_strides_are_honoured() -> None:
    generator = np.random.default_rng(3)
    b, a = (torch.from_numpy(c) for c in stable_filter(3, generator))
    base = signal(generator, 40, 6, 60)
    views = {
        "transposed": base[0].t(),
        "time first": base.permute(1, 2, 0),
        "every other sample": base[..., ::2],
        "every other row": base[::3],
        "offset": base.flatten()[7:-3].unfold(0, 50, 41),
        "expanded": base[0, 0].expand(4, 60),
        "expanded in time": base[:, :, :1].expand(40, 6, 30),
        "one element": base[0, 0, :1],
    }
    for name, x in views.items():
        y, zf = lfilter(x, b, a, None)
        copy_y, copy_zf = lfilter(x.contiguous(), b, a, None)
        assert_equal((y, zf), (copy_y, copy_zf), name)
        compare_backward(x, b, a, None, generator)
    wide = signal(generator, 3, 8)
    strided = (base[0], wide.t()[::2, 0] + torch.eye(4, dtype=torch.float64)[0] * 9, base[1, :, ::20][:, :3])
    assert torch.equal(lfilter(*strided)[0], lfilter(*(t.contiguous() for t in strided))[0])


def test_nothing_is_a_view_or_mutated() -> None:
    x, b, a, zi = torch.ones(2, 5), torch.tensor([1.0]), torch.tensor([2.0, 0.5]), torch.zeros(2, 1)
    before = [t.clone() for t in (x, b, a, zi)]
    outputs = lfilter(x, b, a, zi) + lfilter(x[:, :0], b, a, zi)
    assert all(torch.equal(t, old) for t, old in zip((x, b, a, zi), before, strict=True))
    inputs = {t.untyped_storage().data_ptr() for t in (x, b, a, zi)}
    assert all(t.untyped_storage().data_ptr() not in inputs for t in outputs if t.numel())


@pytest.mark.parametrize(
    ("x", "b", "a", "zi"),
    [
        ((4, 1, 30), (5, 3), (5, 3), (5, 2)),
        ((30,), (2, 3), (3, 1, 4), None),
        ((3, 30), (3,), (2, 1, 2), (2, 3, 2)),
        ((30,), (1,), (2,), (3, 2, 1)),
        ((1, 1, 30), (20, 3), (1, 3), (4, 1, 2)),
        ((2, 1, 2, 1, 2, 30), (2, 1, 2, 1, 3), (2,), None),
    ],
    ids=str,
)
def test_broadcasting_equals_a_loop(x: Any, b: Any, a: Any, zi: Any) -> None:
    generator = np.random.default_rng(4)
    signals, numerators = signal(generator, *x), signal(generator, *b)
    denominators = signal(generator, *a) * 0.2
    denominators[..., 0] += 2
    states = None if zi is None else signal(generator, *zi)
    y, zf = lfilter(signals, numerators, denominators, states)
    batch = y.shape[:-1]
    order = max(b[-1], a[-1]) - 1
    rows = [
        t.expand(*batch, t.shape[-1])
        for t in (signals, numerators, denominators, torch.zeros(order).double() if states is None else states)
    ]
    for index in np.ndindex(*batch):
        one_y, one_zf = lfilter(*(t[index] for t in rows))
        torch.testing.assert_close(y[index], one_y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(zf[index], one_zf, rtol=1e-12, atol=1e-12)
    compare_backward(signals, numerators, denominators, states, generator)


HALF = [torch.float16, torch.bfloat16]
COMPLEX = [torch.complex64, torch.complex128]


@pytest.mark.parametrize("coefficient", [torch.float16, torch.bfloat16, *DTYPES, *COMPLEX], ids=str)
@pytest.mark.parametrize("sample", [*HALF, *DTYPES, *COMPLEX], ids=str)
def test_dtypes(sample: torch.dtype, coefficient: torch.dtype) -> None:
    x, zi = torch.randn(2, 40, dtype=sample), torch.randn(2, 2, dtype=torch.float32)
    b = torch.tensor([0.5, 0.25, -0.125], dtype=coefficient)
    a = torch.tensor([1.0, -0.75, 0.5], dtype=coefficient)
    if coefficient.is_complex:
        a = a * torch.tensor([1, 0.8 + 0.6j, 1j], dtype=coefficient)
    y, zf = lfilter(x, b, a, zi)
    expected = {torch.float64: torch.complex128, torch.complex128: torch.complex128}.get(sample, torch.complex64)
    assert y.dtype == (expected if coefficient.is_complex or sample.is_complex else sample)
    assert zf.dtype == torch.promote_types(y.dtype, torch.float32)
    compare_forward(x, b, a, zi)

    gy, gzf = torch.randn_like(y), torch.randn_like(zf)
    gradients = lfilter_backward(gy, gzf, x, b, a, zi, y, EVERYTHING)
    targets = reference.lfilter_backward(gy, gzf, x, b, a, zi, y)
    for gradient, target, argument in zip(gradients, targets, (x, b, a, zi), strict=True):
        assert gradient.dtype == argument.dtype
        # y, rounded to its dtype, is what op and reference both correlate with.
        eps = torch.finfo(gradient.dtype).eps
        bound = eps * np.abs(target).max() + 1e-13 * 40 * float(gy.abs().max() * y.abs().max())
        np.testing.assert_allclose(reference.array(gradient), target, rtol=0, atol=bound)


def test_a_complex_state_makes_the_result_complex() -> None:
    x, b, a = torch.randn(30), torch.tensor([1.0, 0.5]), torch.tensor([1.0, -0.5])
    y, zf = lfilter(x, b, a, torch.tensor([1j], dtype=torch.complex64))
    assert (y.dtype, zf.dtype) == (torch.complex64, torch.complex64)
    compare_forward(x, b, a, torch.tensor([1j], dtype=torch.complex64))


def test_wide_coefficients_are_not_rounded() -> None:
    """A 20 Hz filter whose coefficients lose 4e-3 when rounded to float32."""
    b, a = (torch.from_numpy(c) for c in scipy.signal.iirpeak(20, 10, fs=48000))
    x = torch.randn(20000)
    exact = torch.from_numpy(scipy.signal.lfilter(b.numpy(), a.numpy(), x.double().numpy()))
    error, rounded = (relative_rms(lfilter(x, *c)[0], exact) for c in ((b, a), (b.float(), a.float())))
    assert error < 1e-7 < 1e-4 < rounded


def relative_rms(y: Tensor, exact: Tensor) -> float:
    return float((y.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("order", [1, 2, 5, 20])
def test_a_signal_cut_anywhere_continues_exactly(order: int) -> None:
    generator = np.random.default_rng(order)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator))
    x, zi = signal(generator, 2, 48), signal(generator, 2, order)
    y, zf = lfilter(x, b, a, zi)
    bound = 2 * tolerance(torch.float64, y.numpy(), x.numpy(), b.numpy(), a.numpy(), zi.numpy())
    for cut in range(49):
        first, state = lfilter(x[:, :cut], b, a, zi)
        second, last = lfilter(x[:, cut:], b, a, state)
        torch.testing.assert_close(torch.cat([first, second], -1), y, rtol=0, atol=bound)
        torch.testing.assert_close(last, zf, rtol=0, atol=10 * bound)


def test_a_float64_state_carries_a_float32_signal_exactly() -> None:
    b, a = (torch.from_numpy(c) for c in scipy.signal.iirpeak(20, 10, fs=48000))
    x = torch.randn(4096)
    whole, _ = lfilter(x, b, a, None)
    state, pieces = torch.zeros(2, dtype=torch.float64), []
    for piece in x.split(64):
        y, state = lfilter(piece, b, a, state)
        assert (y.dtype, state.dtype) == (torch.float32, torch.float64)
        pieces.append(y)
    # Two roundings of the same number to float32 differ by at most one unit.
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=2e-7, atol=1e-7 * float(whole.abs().max()))


@pytest.mark.parametrize("modulus", [1.1, 2.0])
@pytest.mark.parametrize("rows", [1, 20])
def test_an_unstable_filter_grows_until_it_overflows(algorithm: str, modulus: float, rows: int) -> None:
    b, a = np.ones(1), np.array([1, -2 * modulus * np.cos(0.3), modulus**2])
    samples = int(750 / np.log(modulus)) + 100
    x = np.random.default_rng(0).standard_normal((rows, samples))
    with np.errstate(all="ignore"):
        expected = scipy.signal.lfilter(b, a, x)
    y = lfilter(torch.from_numpy(x), torch.from_numpy(b), torch.from_numpy(a), None)[0].numpy()
    finite = np.isfinite(expected)
    assert not finite.all()
    # The largest so far is the scale that an error has grown from; near overflow one may be finite and the other not.
    scale = np.maximum.accumulate(np.abs(np.where(finite, expected, 0)), -1)
    safe = finite & (scale < 1e300)
    assert np.isfinite(y[safe]).all()
    assert (np.abs(y[safe] - expected[safe]) <= 1e-10 * scale[safe]).all()
    assert not np.isfinite(y[:, -1]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("rows", [1, 20])
def test_a_bad_sample_never_changes_an_earlier_one(algorithm: str, bad: float, rows: int) -> None:
    b, a = (torch.from_numpy(c) for c in stable_filter(4, np.random.default_rng(1)))
    clean = signal(np.random.default_rng(2), rows, 700)
    for dtype in DTYPES:
        good, _ = lfilter(clean.to(dtype), b, a, None)
        for at in (0, 1, 15, 16, 100, 511, 699):
            x = clean.to(dtype).clone()
            x[rows // 2, at] = bad
            y, _ = lfilter(x, b, a, None)
            others = torch.arange(rows) != rows // 2
            assert torch.equal(y[others], good[others])
            torch.testing.assert_close(y[rows // 2, :at], good[rows // 2, :at])
            with np.errstate(all="ignore"):
                expected = scipy.signal.lfilter(b.numpy(), a.numpy(), x[rows // 2].double().numpy())
            np.testing.assert_array_equal(np.isfinite(y[rows // 2].numpy()), np.isfinite(expected))


def test_a_bad_gradient_never_changes_a_later_one(algorithm: str) -> None:
    b, a = (torch.from_numpy(c) for c in stable_filter(4, np.random.default_rng(1)))
    x = signal(np.random.default_rng(2), 1, 400)
    y, _ = lfilter(x, b, a, None)
    gy = torch.ones_like(y)
    good = lfilter_backward(gy, None, x, b, a, None, y, 1)[0]
    gy[0, 200] = torch.nan
    gx = lfilter_backward(gy, None, x, b, a, None, y, 1)[0]
    torch.testing.assert_close(gx[0, 201:], good[0, 201:])
    assert gx[0, :201].isnan().all()


def test_two_threads_at_once() -> None:
    generator = np.random.default_rng(5)
    jobs = []
    for order in (2, 5, 10):
        b, a = (torch.from_numpy(c) for c in stable_filter(order, generator))
        for rows in (1, 40):
            jobs.append((signal(generator, rows, 5000), b, a, signal(generator, rows, order)))

    def work(job: Any) -> list[Tensor]:
        y, zf = lfilter(*job)
        return [y, zf, *lfilter_backward(torch.ones_like(y), None, *job, y, EVERYTHING)]

    expected = [work(job) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, jobs * 20))
    for index, result in enumerate(results):
        assert all(torch.equal(r, e) for r, e in zip(result, expected[index % len(jobs)], strict=True))


def test_thread_count_does_not_change_the_filter() -> None:
    x, b, a = torch.randn(64, 2000), torch.tensor([0.3, 0.2]), torch.tensor([1.0, -0.8, 0.3])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = lfilter(x, b, a, None)
        torch.set_num_threads(2)
        two = lfilter(x, b, a, None)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(p, q) for p, q in zip(one, two, strict=True))


def test_unwanted_gradients_are_empty() -> None:
    x, b, a, zi = torch.randn(3, 9), torch.randn(2), torch.tensor([2.0, 0.5]), torch.zeros(1)
    y, zf = lfilter(x, b, a, zi)
    full = lfilter_backward(y, zf, x, b, a, zi, y, EVERYTHING)
    for mask in range(16):
        parts = lfilter_backward(y, zf, x, b, a, zi, y, mask)
        for bit, (part, whole) in enumerate(zip(parts, full, strict=True)):
            assert torch.equal(part, whole) if mask >> bit & 1 else tuple(part.shape) == (0,)


ONE = torch.ones(1)
X = torch.ones(2, 5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X, ONE[:0], ONE), "b must have at least one coefficient"),
        ((X, ONE, ONE[:0]), "a must have at least one coefficient"),
        ((X, ONE, ONE * 0), r"a\[\.\.\., 0\] must not be zero"),
        ((X, ONE, torch.tensor([[1.0], [0.0]])), r"a\[\.\.\., 0\] must not be zero"),
        ((X, ONE.expand(3, 1), ONE), "the dimensions before the last must broadcast together"),
        ((X, ONE, torch.ones(2), torch.ones(3)), "the last dimension of zi must be"),
        ((X, ONE, torch.ones(2), torch.ones(3, 1)), "the dimensions before the last must broadcast together"),
        ((X.int(), ONE, ONE), "x must have a floating or complex dtype"),
        ((X, ONE.int(), ONE), "b must have a floating or complex dtype"),
        ((X.sum(), ONE, ONE), "x must have"),
        ((X, ONE.sum(), ONE), "b must have"),
    ],
)
def test_wrong_arguments_raise(args: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        lfilter(*args)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    order=st.integers(0, 12),
    samples=st.integers(0, 150),
    rows=st.integers(1, 20),
    cut=st.floats(0, 1),
    delay=st.integers(0, 40),
    scale=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_linear_and_time_invariant(
    order: int, samples: int, rows: int, cut: float, delay: int, scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator))
    x, w = signal(generator, rows, samples), signal(generator, rows, samples)
    zi, wi = signal(generator, rows, order), signal(generator, rows, order)
    (y, zf), (v, vf) = lfilter(x, b, a, zi), lfilter(w, b, a, wi)
    drive = reference.array(x.abs() + w.abs() * abs(scale))
    bound = 4 * tolerance(torch.float64, drive, drive, b.numpy(), a.numpy(), reference.array(zi.abs() + 3 * wi.abs()))
    bound *= float(1 + b.abs().sum() + a.abs().sum())

    both, both_f = lfilter(x + scale * w, b, a, zi + scale * wi)
    torch.testing.assert_close(both, y + scale * v, rtol=0, atol=bound)
    torch.testing.assert_close(both_f, zf + scale * vf, rtol=0, atol=bound)

    at = int(cut * samples)
    first, state = lfilter(x[:, :at], b, a, zi)
    second, last = lfilter(x[:, at:], b, a, state)
    torch.testing.assert_close(torch.cat([first, second], -1), y, rtol=0, atol=bound)
    torch.testing.assert_close(last, zf, rtol=0, atol=bound)

    late, _ = lfilter(torch.nn.functional.pad(x, (delay, 0)), b, a, None)
    assert not late[:, :delay].any()
    torch.testing.assert_close(late[:, delay:], lfilter(x, b, a, None)[0], rtol=0, atol=bound)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(rows=st.integers(1, 6), samples=st.integers(1, 60), order=st.integers(1, 8), seed=st.integers(0, 99))
def test_backward_is_the_adjoint(rows: int, samples: int, order: int, seed: int) -> None:
    """⟨g, L x⟩ + ⟨γ, zf⟩ = ⟨gx, x⟩ + ⟨gzi, zi⟩ for the linear map from (x, zi) to (y, zf)."""
    generator = np.random.default_rng(seed)
    b, a = (torch.from_numpy(c) for c in stable_filter(order, generator))
    x, zi = signal(generator, rows, samples), signal(generator, rows, order)
    y, zf = lfilter(x, b, a, zi)
    gy, gzf = signal(generator, *y.shape), signal(generator, *zf.shape)
    gx, _, _, gzi = lfilter_backward(gy, gzf, x, b, a, zi, y, 9)
    terms = [gy * y, gzf * zf, -gx * x, -gzi * zi]
    assert abs(sum(float(t.sum()) for t in terms)) <= 1e-12 * sum(float(t.abs().sum()) for t in terms) * (1 + order)


@pytest.mark.parametrize("order", [500, 504, 505, 700, 1024])
@pytest.mark.parametrize("rows", [1, 12])
def test_orders_beyond_a_chunk(order: int, rows: int) -> None:
    """The initial state outlasts what the kernels compute at once; forward and backward equal the direct form."""
    generator = torch.Generator().manual_seed(order)
    x, zi = (torch.randn(rows, n, dtype=torch.float64, generator=generator) for n in (3000, order))
    b, a = (torch.randn(order + 1, dtype=torch.float64, generator=generator) / (4 * order) for _ in range(2))
    a[0] = 1.0
    arguments = [t.requires_grad_() for t in (x, b, a, zi)]

    def run() -> list[torch.Tensor]:
        y, zf = torch.ops.torch_iir.lfilter(*arguments)
        return [y, zf, *torch.autograd.grad(y.square().sum() + zf.square().sum(), arguments)]

    with torch_iir.algorithm("direct"):
        exact = run()
    for result, expected in zip(run(), exact, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))
