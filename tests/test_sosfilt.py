"""The op sosfilt and its gradient: numbers, shapes, strides, dtypes, algorithms, instruction sets, errors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import scipy.signal
import torch
from hypothesis import given, settings
from reference import Array, sos_tolerance, stable_sections
from torch import Tensor

import torch_iir
from torch_iir._algorithm import NAMES

sosfilt = torch.ops.torch_iir.sosfilt.default
sosfilt_backward = torch.ops.torch_iir.sosfilt_backward.default

DTYPES = [torch.float32, torch.float64]
EVERYTHING = 7


def signal(generator: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def sections(count: int, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(stable_sections(count, generator))


def runs(name: str, x: Tensor, sos: Tensor) -> bool:
    """Whether an algorithm takes this filter."""
    try:
        with torch_iir.algorithm(name):
            sosfilt(x, sos)
    except RuntimeError as error:
        if f'algorithm "{name}" is forced, and cannot run this filter' in str(error):
            return False
        raise
    return True


# Those that take some cascade; the others are of lfilter alone.
SHAPES = [(torch.ones(rows, 600), torch.from_numpy(scipy.signal.butter(8, 0.3, output="sos"))) for rows in (1, 64)]
ALGORITHMS = [name for name in NAMES if any(runs(name, *shape) for shape in SHAPES)]
assert {"automatic", "direct"} <= set(ALGORITHMS)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Iterator[str]:
    with torch_iir.algorithm(request.param):
        yield request.param


def skip_unless(name: str, x: Tensor, sos: Tensor) -> None:
    if not runs(name, x, sos):
        pytest.skip(f"{name} does not take {list(x.shape)} through {list(sos.shape)}")


def compare_forward(x: Tensor, sos: Tensor, zi: Tensor | None = None) -> tuple[Tensor, Tensor]:
    y, zf = sosfilt(x, sos, zi)
    expected_y, expected_zf = reference.sosfilt(x, sos, zi)
    xn, sn, zn = (reference.array(value) for value in (x, sos, zi))
    np.testing.assert_allclose(reference.array(y), expected_y, rtol=0, atol=sos_tolerance(y.dtype, xn, sn, zn))
    np.testing.assert_allclose(reference.array(zf), expected_zf, **state_tolerance(zf.dtype, xn, sn, zn))
    return y, zf


def state_tolerance(dtype: torch.dtype, x: Array, sos: Array, zi: Array | None) -> dict[str, float]:
    """A state is a sum of up to 4 products of coefficients with samples in front of and behind its section."""
    products = max(np.abs(u).max(initial=0) for u in reference.inner_signals(x, sos, zi)[0])
    products *= np.abs(sos / sos[..., 3:4]).max()
    return {"rtol": torch.finfo(dtype).eps, "atol": 1e-10 * float(products) + sos_tolerance(torch.float64, x, sos, zi)}


def compare_backward(x: Tensor, sos: Tensor, zi: Tensor | None, generator: np.random.Generator) -> None:
    y, zf = sosfilt(x, sos, zi)
    gy, gzf = signal(generator, *y.shape, dtype=y.dtype), signal(generator, *zf.shape, dtype=zf.dtype)
    gradients = sosfilt_backward(gy, gzf, x, sos, zi, EVERYTHING)
    expected = reference.sosfilt_backward(gy, gzf, x, sos, zi)
    for gradient, target, argument in zip(gradients, expected, (x, sos, zi), strict=True):
        compare_gradient(gradient, target, argument)


def compare_gradient(gradient: Tensor, target: Array, argument: Tensor | None) -> None:
    """Up to one rounding, and 1e-10 of what is largest of the same kind: what is promised of the results.

    The gradients of one section are of one kind; those of another may be larger by any factor.
    """
    if argument is None:
        assert tuple(gradient.shape) == (0,)
        return
    assert gradient.shape == argument.shape
    assert gradient.dtype == argument.dtype
    assert gradient.is_contiguous()
    scale = np.abs(target).max(-1, keepdims=True, initial=0)
    bound = (torch.finfo(gradient.dtype).eps + 1e-10) * scale + 1e-14
    assert (np.abs(reference.array(gradient) - target) <= bound).all()


LENGTHS = (0, 1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1025)
ROWS = (1, 2, 3, 11, 12, 13, 16, 17, 33)


@cache
def longest(count: int) -> tuple[Any, ...]:
    """A filter with the longest signal in the most rows, what it puts out, and its states after every length.

    Shorter signals are beginnings of it, fewer rows some of its rows.
    """
    generator = np.random.default_rng(count)
    sos = sections(count, generator)
    x, zi = signal(generator, ROWS[-1], LENGTHS[-1], dtype=torch.float32), signal(generator, ROWS[-1], count, 2)
    y, state, states = [], zi, {0: zi.numpy()}
    for start, stop in pairwise(LENGTHS):
        part, state = reference.sosfilt(x[:, start:stop], sos, state)
        y.append(part)
        states[stop] = state
    arrays = x.double().numpy(), sos.numpy(), zi.numpy()
    bounds = {dtype: sos_tolerance(dtype, *arrays) for dtype in DTYPES}
    return x, sos, zi, np.concatenate(y, -1), bounds, states, state_tolerance(torch.float64, *arrays)


@pytest.mark.parametrize("count", [*range(1, 10), 16, 17])
def test_every_length_and_number_of_rows(count: int, algorithm: str) -> None:
    x, sos, zi, expected, bounds, states, state_bound = longest(count)
    for rows in ROWS:
        for samples in LENGTHS:
            if not runs(algorithm, x[:rows, :samples], sos):
                continue
            for dtype in DTYPES:
                y, zf = sosfilt(x[:rows, :samples].to(dtype), sos, zi[:rows])
                where = f"{rows} rows of {samples}"
                np.testing.assert_allclose(y, expected[:rows, :samples], rtol=0, atol=bounds[dtype], err_msg=where)
                np.testing.assert_allclose(zf, states[samples][:rows], **state_bound, err_msg=where)
    compare_forward(x[0, :300], sos)


@cache
def gradients_of_rows(count: int, samples: int) -> tuple[Any, ...]:
    """Each row alone: the gradients of what rows share are sums."""
    generator, rows = np.random.default_rng(count), 17
    sos = sections(count, generator)
    x, gy = (signal(generator, rows, samples, dtype=torch.float32) for _ in range(2))
    zi, gzf = (signal(generator, rows, count, 2) for _ in range(2))
    return x, sos, zi, gy, gzf, reference.sosfilt_backward(gy, gzf, x, sos.expand(rows, count, 6), zi)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 9, 17])
def test_gradients_of_every_length_and_number_of_rows(count: int, algorithm: str) -> None:
    for samples in LENGTHS if count < 9 else LENGTHS[:9]:
        x, sos, zi, gy, gzf, alone = gradients_of_rows(count, samples)
        for rows in (1, 3, 12, 17):
            if not runs(algorithm, x[:rows], sos):
                continue
            for dtype in DTYPES:
                part = x[:rows].to(dtype)
                gx, gsos, gzi = sosfilt_backward(gy[:rows].to(dtype), gzf[:rows], part, sos, zi[:rows], EVERYTHING)
                compare_gradient(gx, alone[0][:rows], part)
                compare_gradient(gsos, alone[1][:rows].sum(0), sos)
                compare_gradient(gzi, alone[2][:rows], zi[:rows])
    generator = np.random.default_rng(count)
    compare_backward(signal(generator, 300), sections(count, generator), None, generator)


DESIGNS = {
    "butter 16": scipy.signal.butter(16, 0.2, output="sos"),
    "butter 5": scipy.signal.butter(5, 0.2, output="sos"),
    "ellip 8 highpass": scipy.signal.ellip(8, 1, 60, 0.7, "highpass", output="sos"),
    "cheby 6 bandstop": scipy.signal.cheby1(6, 1, [0.3, 0.4], "bandstop", output="sos"),
    "butter 3 bandpass": scipy.signal.butter(3, [0.1, 0.12], "bandpass", output="sos"),
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("rows", [1, 20])
def test_equals_scipy(name: str, rows: int, algorithm: str) -> None:
    sos = DESIGNS[name]
    generator = np.random.default_rng(0)
    x, zi = signal(generator, rows, 700), signal(generator, rows, len(sos), 2)
    skip_unless(algorithm, x, torch.from_numpy(sos))
    expected_y, expected_zf = scipy.signal.sosfilt(sos, x.numpy(), zi=zi.movedim(-2, 0).numpy())
    for dtype in DTYPES:
        y, zf = sosfilt(x.to(dtype), torch.from_numpy(sos), zi)
        # A float32 signal is another signal; the filters gain its rounding by no more than Σ|h|.
        gain = np.abs(scipy.signal.sosfilt(sos, np.eye(1, 700)[0])).sum()
        rounding = float(torch.finfo(dtype).eps * gain * x.abs().max())
        bound = sos_tolerance(dtype, x.numpy(), sos, zi.numpy()) + rounding
        np.testing.assert_allclose(y, expected_y, rtol=0, atol=bound)
        if dtype == torch.float64:
            bound = state_tolerance(dtype, x.numpy(), sos, zi.numpy())
            np.testing.assert_allclose(zf.movedim(-2, 0), expected_zf, **bound)


@pytest.mark.parametrize("count", [1, 2, 8, 9])
@pytest.mark.parametrize("rows", [1, 20])
def test_variants_agree_with_the_reference(isa: str, algorithm: str, count: int, rows: int) -> None:
    """Every algorithm on every instruction set of this machine."""
    generator = np.random.default_rng(count)
    sos = sections(count, generator)
    x, zi = signal(generator, rows, 150), signal(generator, rows, count, 2)
    skip_unless(algorithm, x, sos)
    for samples in (1, 31, 150):
        for dtype in DTYPES:
            part = x[:, :samples].to(dtype)
            if runs(algorithm, part, sos):
                compare_forward(part, sos, zi)
                compare_backward(part, sos, zi, generator)
    compare_forward(x[:, ::2], sos, zi)
    compare_forward(x.t().contiguous().t(), sos, zi)


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
def test_algorithms_agree_with_the_direct_form(count: int, rows: int, algorithm: str) -> None:
    """Also where a row of T samples is cut into tiles several times."""
    generator = np.random.default_rng(count)
    sos, x, zi = sections(count, generator), signal(generator, rows, 9000), signal(generator, rows, count, 2)
    skip_unless(algorithm, x, sos)
    gy, gzf = signal(generator, rows, 9000), signal(generator, rows, count, 2)

    def run() -> tuple[Tensor, ...]:
        return *sosfilt(x, sos, zi), *sosfilt_backward(gy, gzf, x, sos, zi, EVERYTHING)

    results = run()
    with torch_iir.algorithm("direct"):
        expected = run()
    for result, target in zip(results, expected, strict=True):
        scale = target.abs().amax(-1, keepdim=True) if target is expected[3] else target.abs().max()
        assert ((result - target).abs() <= 1e-10 * scale).all()


def test_strides_are_honoured(algorithm: str) -> None:
    generator = np.random.default_rng(3)
    sos = sections(3, generator)
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
        if not runs(algorithm, x, sos):
            continue
        for output, target in zip(sosfilt(x, sos), sosfilt(x.contiguous(), sos), strict=True):
            assert output.is_contiguous(), name
            assert torch.equal(output, target), name
        compare_backward(x, sos, None, generator)
    wide = torch.from_numpy(np.stack([stable_sections(4, generator) for _ in range(6)]))
    states = signal(generator, 6, 2, 4, 3)
    for rows, zi in (
        (wide.permute(0, 2, 1).contiguous().permute(0, 2, 1), states[..., 0].mT),
        (wide[:, ::2].expand(6, 2, 6), states[:, :, :2, 1]),
        (wide[::6, 1:2].expand(1, 3, 6), states[:1, :1, :1, 0].expand(6, 3, 2)),
    ):
        if not runs(algorithm, base[0], rows):
            continue
        outputs = sosfilt(base[0], rows, zi), sosfilt(base[0], rows.contiguous(), zi.contiguous())
        assert all(torch.equal(output, target) for output, target in zip(*outputs, strict=True))
        compare_backward(base[0], rows, zi, generator)


def test_strided_gradients() -> None:
    generator = np.random.default_rng(0)
    sos, x, zi = sections(2, generator), signal(generator, 5, 30), signal(generator, 5, 2, 2)
    gy, gzf = signal(generator, 30, 5).t(), signal(generator, 2, 2, 5).permute(2, 1, 0)
    for g, h in ((gy, gzf), (gy[:, :1].expand(5, 30), gzf[:1, :1, :1].expand(5, 2, 2))):
        results = sosfilt_backward(g, h, x, sos, zi, EVERYTHING)
        expected = sosfilt_backward(g.contiguous(), h.contiguous(), x, sos, zi, EVERYTHING)
        assert all(torch.equal(result, target) for result, target in zip(results, expected, strict=True))


def test_nothing_is_a_view_or_mutated() -> None:
    x, sos, zi = torch.ones(2, 5), torch.tensor([[1.0, 0, 0, 2.0, 0.5, 0]]), torch.zeros(2, 1, 2)
    before = [t.clone() for t in (x, sos, zi)]
    outputs = [*sosfilt(x, sos, zi), *sosfilt(x[:, :0], sos, zi), *sosfilt_backward(x, zi, x, sos, zi, EVERYTHING)]
    assert all(torch.equal(t, old) for t, old in zip((x, sos, zi), before, strict=True))
    inputs = {t.untyped_storage().data_ptr() for t in (x, sos, zi)}
    assert all(t.untyped_storage().data_ptr() not in inputs for t in outputs if t.numel())


@pytest.mark.parametrize(
    ("x", "sos", "zi"),
    [
        ((4, 1, 30), (5,), (5,)),
        ((30,), (3, 1), None),
        ((3, 30), (2, 1), (2, 3)),
        ((30,), (), (3, 2)),
        ((1, 1, 30), (1, 3), (4, 1)),
        ((20, 1, 30), (17,), None),
        ((2, 1, 2, 1, 2, 30), (2, 1, 2, 1), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 3])
def test_broadcasting_equals_a_loop(x: Any, sos: Any, zi: Any, count: int) -> None:
    generator = np.random.default_rng(4)
    signals = signal(generator, *x)
    rows = np.stack([stable_sections(count, generator) for _ in range(int(np.prod(sos)))])
    filters = torch.from_numpy(rows.reshape(*sos, count, 6))
    states = None if zi is None else signal(generator, *zi, count, 2)
    y, zf = sosfilt(signals, filters, states)
    batch = y.shape[:-1]
    zeros = torch.zeros(count, 2).double() if states is None else states
    expanded = signals.expand(*batch, 30), filters.expand(*batch, count, 6), zeros.expand(*batch, count, 2)
    for index in np.ndindex(*batch):
        one_y, one_zf = sosfilt(*(t[index] for t in expanded))
        torch.testing.assert_close(y[index], one_y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(zf[index], one_zf, rtol=1e-12, atol=1e-12)
    compare_backward(signals, filters, states, generator)


HALF = [torch.float16, torch.bfloat16]
COMPLEX = [torch.complex64, torch.complex128]


@pytest.mark.parametrize("coefficient", [*HALF, *DTYPES, *COMPLEX], ids=str)
@pytest.mark.parametrize("sample", [*HALF, *DTYPES, *COMPLEX], ids=str)
def test_dtypes(sample: torch.dtype, coefficient: torch.dtype) -> None:
    for rows in (2, 20):
        x, zi = torch.randn(rows, 40, dtype=sample), torch.randn(rows, 2, 2, dtype=torch.float32)
        sos = torch.tensor([[0.5, 0.25, -0.125, 1, -0.75, 0.5], [0, 1, 0.5, 2, 1, 0.25]], dtype=coefficient)
        if coefficient.is_complex:
            sos[:, 3:] = sos[:, 3:] * torch.tensor([1, 0.8 + 0.6j, 1j], dtype=coefficient)
        y, zf = sosfilt(x, sos, zi)
        expected = {torch.float64: torch.complex128, torch.complex128: torch.complex128}.get(sample, torch.complex64)
        assert y.dtype == (expected if coefficient.is_complex or sample.is_complex else sample)
        assert zf.dtype == torch.promote_types(y.dtype, torch.float32)
        compare_forward(x, sos, zi)
        compare_backward(x, sos, zi, np.random.default_rng(rows))


def test_a_complex_state_makes_the_result_complex() -> None:
    x, sos, zi = (
        torch.randn(30),
        torch.tensor([[1, 0.5, 0, 1, -0.5, 0]]),
        torch.tensor([[1j, 0]], dtype=torch.complex64),
    )
    y, zf = sosfilt(x, sos, zi)
    assert (y.dtype, zf.dtype) == (torch.complex64, torch.complex64)
    compare_forward(x, sos, zi)


def relative_rms(y: Array, exact: Array) -> float:
    """The worst over the filters."""
    error = np.sqrt(((y - exact) ** 2).sum(-1) / (exact**2).sum(-1))
    return float(error.max())


def cookbook(kind: str, frequency: float, quality: float, rate: float = 48000.0) -> Array:
    """Bilinear transforms of second-order prototypes."""
    w = 2 * np.pi * frequency / rate
    alpha, cos = np.sin(w) / (2 * quality), np.cos(w)
    boost = 10 ** (6 / 40)
    b, a = {
        "lowpass": ([(1 - cos) / 2, 1 - cos, (1 - cos) / 2], [1 + alpha, -2 * cos, 1 - alpha]),
        "highpass": ([(1 + cos) / 2, -(1 + cos), (1 + cos) / 2], [1 + alpha, -2 * cos, 1 - alpha]),
        "notch": ([1, -2 * cos, 1], [1 + alpha, -2 * cos, 1 - alpha]),
        "peaking": (
            [1 + alpha * boost, -2 * cos, 1 - alpha * boost],
            [1 + alpha / boost, -2 * cos, 1 - alpha / boost],
        ),
    }[kind]
    return np.array([*b, *a])


def resonances(count: int, filters: int = 16) -> Array:
    """Filters whose poles and zeros lie at r e^{±jθ} with r = .9999, the zeros a little beside the poles."""
    angles = np.linspace(0.02, np.pi - 0.02, filters * count).reshape(filters, count)
    one = np.ones_like(angles)
    b = [one, -2 * 0.9999 * np.cos(angles + 0.01), 0.9999**2 * one]
    a = [one, -2 * 0.9999 * np.cos(angles), 0.9999**2 * one]
    return np.stack([*b, *a], -1)


CLOSE = {
    "r = .9999": resonances(4),
    **{f"20 Hz {kind}": cookbook(kind, 20, 10)[None, None] for kind in ("lowpass", "highpass", "notch", "peaking")},
    "20 Hz, four of them": np.stack([cookbook(k, 20, 10) for k in ("highpass", "peaking", "notch", "peaking")])[None],
    "20 Hz Butterworth 8": scipy.signal.butter(8, 20, output="sos", fs=48000)[None],
    "ten peaks": np.stack([cookbook("peaking", 20 * 2.0**k, 1.4) for k in range(10)])[None],
}
no_long_double = pytest.mark.skipif(np.finfo(np.longdouble).eps >= np.finfo(float).eps, reason="no long double here")


def noise(dtype: type[np.floating]) -> Array:
    return np.random.default_rng(0).standard_normal(4096).astype(dtype)


def ours(x: Array, sos: Array, rows: int) -> Array:
    """Filters alone or in batches of `rows`: both are regimes of their own."""
    signals, filters = torch.from_numpy(x), torch.from_numpy(sos)
    if rows == 1:
        return np.stack([sosfilt(signals, one)[0].numpy() for one in filters])
    return sosfilt(signals.expand(rows, 1, -1), filters)[0][-1].numpy()


@cache
def exact_output(name: str, dtype: type[np.floating]) -> Array:
    y, _ = reference.sosfilt(noise(dtype).astype(np.longdouble), CLOSE[name].astype(np.longdouble))
    return y


@cache
def exact_gradients(name: str, rows: int) -> tuple[Any, ...]:
    sos = torch.from_numpy(CLOSE[name])
    x = torch.from_numpy(noise(np.float32)).expand(rows, 1, -1).contiguous()
    gy = torch.from_numpy(np.random.default_rng(1).standard_normal((rows, len(sos), 4096))).float()
    gy_wide, x_wide, sos_wide = (t.double().numpy().astype(np.longdouble) for t in (gy, x, sos))
    return x, sos, gy, reference.sosfilt_backward(gy_wide, None, x_wide, sos_wide, None)[:2]


@no_long_double
@pytest.mark.parametrize("name", CLOSE)
def test_accuracy_of_float32(name: str, algorithm: str) -> None:
    """At most 1e-7 relative rms, against long double with the same coefficients. `pytest -s` prints the table."""
    sos, x, exact = CLOSE[name], noise(np.float32), exact_output(name, np.float32)
    for rows in (1, 16):
        if runs(algorithm, torch.ones(rows, 4096), torch.from_numpy(sos[0])):
            error = relative_rms(ours(x, sos, rows), exact)
            print(f"\nfloat32  {name:20} {algorithm:10} rows {rows:2}  {error:.1e}", end="")
            assert error <= 1e-7


@no_long_double
@pytest.mark.parametrize("name", CLOSE)
def test_accuracy_of_float64(name: str, algorithm: str) -> None:
    """At most 1e-10, in the direct form at most twice the error of scipy's; ten times where that misses 1e-10 too."""
    sos, x, exact = CLOSE[name], noise(np.float64), exact_output(name, np.float64)
    normal = sos / sos[..., 3:4]  # scipy's takes no other
    scipys = relative_rms(np.stack([scipy.signal.sosfilt(one, x) for one in normal]), exact)
    for rows in (1, 16):
        if runs(algorithm, torch.ones(rows, 4096), torch.from_numpy(sos[0])):
            error = relative_rms(ours(x, sos, rows), exact)
            print(f"\nfloat64  {name:20} {algorithm:10} rows {rows:2}  {error:.1e}  scipy {scipys:.1e}", end="")
            assert error <= (2 * scipys if algorithm == "direct" else max(1e-10, 10 * scipys))


@no_long_double
@pytest.mark.parametrize("name", ["r = .9999", "20 Hz, four of them"])
def test_accuracy_of_gradients_of_float32(name: str, algorithm: str) -> None:
    for rows in (1, 8):
        x, sos, gy, expected = exact_gradients(name, rows)
        if not runs(algorithm, x[:, 0], sos[0]):
            continue
        for gradient, target in zip(sosfilt_backward(gy, None, x, sos, None, 3), expected, strict=False):
            error = float(np.sqrt(((gradient.numpy() - target) ** 2).sum() / (target**2).sum()))
            print(f"\ngradient {name:20} {algorithm:10} rows {rows:2}  {error:.1e}", end="")
            assert error <= 1e-7


def test_wide_coefficients_are_not_rounded() -> None:
    """A 20 Hz filter whose coefficients lose 4e-3 when rounded to float32."""
    sos = cookbook("peaking", 20, 10)[None]
    x = torch.randn(20000)
    exact, _ = reference.lfilter(x, sos[0, :3], sos[0, 3:])
    coefficients = torch.from_numpy(sos)
    error, rounded = (relative_rms(sosfilt(x, c)[0].numpy(), exact) for c in (coefficients, coefficients.float()))
    assert error < 1e-7 < 1e-4 < rounded


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_signal_cut_anywhere_continues_exactly(count: int, algorithm: str) -> None:
    generator = np.random.default_rng(count)
    sos, x, zi = sections(count, generator), signal(generator, 2, 48), signal(generator, 2, count, 2)
    skip_unless(algorithm, x, sos)
    y, zf = sosfilt(x, sos, zi)
    arrays = x.numpy(), sos.numpy(), zi.numpy()
    bound = 2 * sos_tolerance(torch.float64, *arrays)
    state_bound = 2 * state_tolerance(torch.float64, *arrays)["atol"]
    for cut in range(49):
        if not (runs(algorithm, x[:, :cut], sos) and runs(algorithm, x[:, cut:], sos)):
            continue
        first, state = sosfilt(x[:, :cut], sos, zi)
        second, last = sosfilt(x[:, cut:], sos, state)
        torch.testing.assert_close(torch.cat([first, second], -1), y, rtol=0, atol=bound)
        torch.testing.assert_close(last, zf, rtol=0, atol=state_bound)


def test_a_float64_state_carries_a_float32_signal_exactly() -> None:
    sos = torch.from_numpy(CLOSE["20 Hz, four of them"][0])
    x = torch.randn(4096)
    whole, _ = sosfilt(x, sos, None)
    state, pieces = torch.zeros(4, 2, dtype=torch.float64), []
    for piece in x.split(64):
        y, state = sosfilt(piece, sos, state)
        assert (y.dtype, state.dtype) == (torch.float32, torch.float64)
        pieces.append(y)
    # Two roundings of the same number to float32 differ by at most one unit.
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=2e-7, atol=1e-7 * float(whole.abs().max()))


@pytest.mark.parametrize("modulus", [1.1, 2.0])
@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_unstable_section_grows_until_it_overflows(algorithm: str, modulus: float, rows: int, at: int) -> None:
    sos = np.repeat(cookbook("peaking", 5000, 2)[None], 3, 0)
    sos /= sos[:, 3:4]
    sos[at] = [1, 0, 0, 1, -2 * modulus * np.cos(0.3), modulus**2]
    samples = int(750 / np.log(modulus)) + 100
    x = np.random.default_rng(0).standard_normal((rows, samples))
    skip_unless(algorithm, torch.from_numpy(x), torch.from_numpy(sos))
    with np.errstate(all="ignore"):
        expected = scipy.signal.sosfilt(sos, x)
    y = sosfilt(torch.from_numpy(x), torch.from_numpy(sos), None)[0].numpy()
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
@pytest.mark.parametrize("count", [2, 8])
def test_a_bad_sample_never_changes_an_earlier_one(algorithm: str, bad: float, rows: int, count: int) -> None:
    sos = sections(count, np.random.default_rng(1))
    clean = signal(np.random.default_rng(2), rows, 700)
    skip_unless(algorithm, clean, sos)
    normal = (sos / sos[:, 3:4]).numpy()
    for dtype in DTYPES:
        good, _ = sosfilt(clean.to(dtype), sos, None)
        for at in (0, 1, 15, 16, 100, 511, 699):
            x = clean.to(dtype).clone()
            x[rows // 2, at] = bad
            y, _ = sosfilt(x, sos, None)
            others = torch.arange(rows) != rows // 2
            assert torch.equal(y[others], good[others])
            torch.testing.assert_close(y[rows // 2, :at], good[rows // 2, :at])
            with np.errstate(all="ignore"):
                expected = scipy.signal.sosfilt(normal, x[rows // 2].double().numpy())
            np.testing.assert_array_equal(np.isfinite(y[rows // 2].numpy()), np.isfinite(expected))


@pytest.mark.parametrize("rows", [1, 20])
def test_a_bad_gradient_never_changes_a_later_one(algorithm: str, rows: int) -> None:
    sos = torch.from_numpy(DESIGNS["butter 5"])
    x = signal(np.random.default_rng(2), rows, 400)
    skip_unless(algorithm, x, sos)
    gy = torch.ones_like(x)
    good = sosfilt_backward(gy, None, x, sos, None, 1)[0]
    gy[0, 200] = torch.nan
    gx = sosfilt_backward(gy, None, x, sos, None, 1)[0]
    torch.testing.assert_close(gx[0, 201:], good[0, 201:])
    assert gx[0, :201].isnan().all()
    assert torch.equal(gx[1:], good[1:])


@pytest.mark.parametrize("rows", [1, 20])
def test_a_bad_first_gradient_spares_the_coefficients_of_delayed_samples(algorithm: str, rows: int) -> None:
    """b1, b2, a1, a2 act on samples before: what is wrong with y[0] does not concern them."""
    sos = torch.from_numpy(DESIGNS["butter 5"])
    x = signal(np.random.default_rng(2), rows, 400)
    skip_unless(algorithm, x, sos)
    gy = torch.ones_like(x)
    gy[0, 0] = torch.nan
    _, gsos, _ = sosfilt_backward(gy, None, x, sos, None, 2)
    finite = gsos.isfinite()
    assert finite[-1].tolist() == [False, True, True, False, True, True]  # of the last section; a0 has b0 in it


@pytest.mark.parametrize("filters", [1, 5, 16, 20])
def test_an_infinite_gradient_stays_infinite_in_a_sum(algorithm: str, filters: int) -> None:
    butter = torch.from_numpy(DESIGNS["butter 5"])
    sos = butter.expand(filters, *butter.shape)
    x = signal(np.random.default_rng(2), 1, 100)
    skip_unless(algorithm, x, sos)
    gy = torch.ones(filters, 100, dtype=x.dtype)
    gy[-1, 99] = torch.inf
    gx = sosfilt_backward(gy, None, x, sos, None, 1)[0]
    assert gx[0, 99].isinf()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 20])
def test_a_tail_ends_in_zeros_not_in_subnormal_numbers(algorithm: str, rows: int, dtype: torch.dtype) -> None:
    sos = torch.tensor([[1.0, 0.5, 0, 1, -1.2, 0.5], [1, 0, 0.25, 1, 0.3, 0.6]], dtype=torch.float64)
    x = torch.zeros(rows, 6000, dtype=dtype)
    x[:, 0] = 1
    skip_unless(algorithm, x, sos)
    y, zf = sosfilt(x, sos)
    tiny = torch.finfo(dtype).tiny
    assert ((y == 0) | (y.abs() >= tiny)).all()
    assert (y[:, 300:] != 0).any(-1).all() or dtype == torch.float32
    assert not y[:, 4000:].any()
    assert not zf.any()


def test_two_threads_at_once() -> None:
    generator = np.random.default_rng(5)
    jobs = [
        (signal(generator, rows, 3000), sections(count, generator), signal(generator, rows, count, 2))
        for count in (2, 8)
        for rows in (1, 40)
    ]

    def work(job: Any) -> list[Tensor]:
        y, zf = sosfilt(*job)
        return [y, zf, *sosfilt_backward(torch.ones_like(y), None, *job, EVERYTHING)]

    expected = [work(job) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, jobs * 10))
    for index, result in enumerate(results):
        assert all(torch.equal(r, e) for r, e in zip(result, expected[index % len(jobs)], strict=True))


def test_thread_count_does_not_change_the_filter() -> None:
    generator = np.random.default_rng(0)
    x, sos = torch.randn(64, 2000), sections(3, generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = sosfilt(x, sos, None)
        torch.set_num_threads(2)
        two = sosfilt(x, sos, None)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(p, q) for p, q in zip(one, two, strict=True))


def test_unwanted_gradients_are_empty() -> None:
    x, zi = torch.randn(3, 9), torch.zeros(2, 2)
    sos = sections(2, np.random.default_rng(0))
    y, zf = sosfilt(x, sos, zi)
    full = sosfilt_backward(y, zf, x, sos, zi, EVERYTHING)
    for mask in range(8):
        parts = sosfilt_backward(y, zf, x, sos, zi, mask)
        for bit, (part, whole) in enumerate(zip(parts, full, strict=True)):
            if mask >> bit & 1:
                torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)
            else:
                assert tuple(part.shape) == (0,)


def test_absent_gradients_count_as_zero() -> None:
    generator = np.random.default_rng(0)
    x, sos, zi = signal(generator, 3, 20), sections(2, generator), signal(generator, 3, 2, 2)
    gy, gzf = signal(generator, 3, 20), signal(generator, 3, 2, 2)
    for g, h in ((gy, None), (None, gzf), (None, None)):
        zeros = (torch.zeros_like(gy) if g is None else g, torch.zeros_like(gzf) if h is None else h)
        results, expected = (sosfilt_backward(*pair, x, sos, zi, EVERYTHING) for pair in ((g, h), zeros))
        torch.testing.assert_close(results, expected, rtol=1e-12, atol=1e-12)


X = torch.ones(2, 5)
SOS = torch.tensor([[1.0, 0, 0, 1, 0, 0]])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X, SOS[:0]), r"sos must have the shape \(\.\.\., S, 6\) with S at least 1"),
        ((X, SOS[:, :5]), r"sos must have the shape \(\.\.\., S, 6\) with S at least 1"),
        ((X, SOS[0]), r"sos must have the shape \(\.\.\., S, 6\) with S at least 1"),
        ((X, SOS * 0), r"must not be zero: the filter is divided by it"),
        ((X, torch.stack([SOS, SOS * 0])[:, None]), r"must not be zero: the filter is divided by it"),
        ((X, SOS.expand(3, 1, 6)), "must broadcast together"),
        ((X, SOS, torch.ones(2)), "the last two dimensions of zi must be the sections of sos and 2: 1 x 2"),
        ((X, SOS, torch.ones(1, 3)), "the last two dimensions of zi must be the sections of sos and 2: 1 x 2"),
        ((X, SOS, torch.ones(2, 2)), "the last two dimensions of zi must be the sections of sos and 2: 1 x 2"),
        ((X, SOS, torch.ones(3, 1, 2)), "must broadcast together"),
        ((X.int(), SOS), "x must have a floating or complex dtype"),
        ((X, SOS.int()), "sos must have a floating or complex dtype"),
        ((X, SOS, torch.ones(1, 2).int()), "zi must have a floating or complex dtype"),
        ((X.sum(), SOS), "x must have"),
        ((X, SOS.sum()), "sos must have"),
    ],
)
def test_wrong_arguments_raise(args: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        sosfilt(*args)


@pytest.mark.parametrize(
    ("gy", "gzf", "message"),
    [
        (torch.ones(2, 4), None, "gy must have the shape"),
        (torch.ones(5), None, "gy must have the shape"),
        (X.double(), None, "gy must have the dtype of y"),
        (X, torch.ones(2, 2), "gzf must have the shape"),
        (X, torch.ones(2, 2, 2), "gzf must have the shape"),
        (X, torch.ones(2), "gzf must have the shape"),
    ],
)
def test_wrong_gradients_raise(gy: Tensor, gzf: Tensor | None, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        sosfilt_backward(gy, gzf, X, SOS, None, EVERYTHING)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    count=st.integers(1, 6),
    samples=st.integers(0, 150),
    rows=st.integers(1, 20),
    cut=st.floats(0, 1),
    delay=st.integers(0, 40),
    scale=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_linear_and_time_invariant(
    count: int, samples: int, rows: int, cut: float, delay: int, scale: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    sos = sections(count, generator)
    x, w = signal(generator, rows, samples), signal(generator, rows, samples)
    zi, wi = signal(generator, rows, count, 2), signal(generator, rows, count, 2)
    (y, zf), (v, vf) = sosfilt(x, sos, zi), sosfilt(w, sos, wi)
    sizes = (x.abs() + 3 * w.abs()).numpy(), sos.numpy(), (zi.abs() + 3 * wi.abs()).numpy()
    positive = np.abs(sizes[1])  # its response to what is positive bounds that of sos, but for the poles
    positive[:, 4:] = sizes[1][:, 4:]
    bound = 8 * state_tolerance(torch.float64, sizes[0], positive, sizes[2])["atol"]

    both, both_f = sosfilt(x + scale * w, sos, zi + scale * wi)
    torch.testing.assert_close(both, y + scale * v, rtol=0, atol=bound)
    torch.testing.assert_close(both_f, zf + scale * vf, rtol=0, atol=bound)

    at = int(cut * samples)
    first, state = sosfilt(x[:, :at], sos, zi)
    second, last = sosfilt(x[:, at:], sos, state)
    torch.testing.assert_close(torch.cat([first, second], -1), y, rtol=0, atol=bound)
    torch.testing.assert_close(last, zf, rtol=0, atol=bound)

    late, _ = sosfilt(torch.nn.functional.pad(x, (delay, 0)), sos, None)
    assert not late[:, :delay].any()
    torch.testing.assert_close(late[:, delay:], sosfilt(x, sos, None)[0], rtol=0, atol=bound)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(rows=st.integers(1, 20), samples=st.integers(1, 60), count=st.integers(1, 9), seed=st.integers(0, 99))
def test_backward_is_the_adjoint(rows: int, samples: int, count: int, seed: int) -> None:
    """⟨g, L x⟩ + ⟨γ, zf⟩ = ⟨gx, x⟩ + ⟨gzi, zi⟩ for the linear map from (x, zi) to (y, zf)."""
    generator = np.random.default_rng(seed)
    sos, x, zi = sections(count, generator), signal(generator, rows, samples), signal(generator, rows, count, 2)
    y, zf = sosfilt(x, sos, zi)
    gy, gzf = signal(generator, *y.shape), signal(generator, *zf.shape)
    gx, _, gzi = sosfilt_backward(gy, gzf, x, sos, zi, 5)
    terms = [gy * y, gzf * zf, -gx * x, -gzi * zi]
    assert abs(sum(float(t.sum()) for t in terms)) <= 1e-12 * sum(float(t.abs().sum()) for t in terms) * (1 + 2 * count)
