"""The op lfilter_tv and its gradient: numbers, shapes, strides, dtypes, algorithms, instruction sets, errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from reference import Array, lfilter_tv_gain, lfilter_tv_tolerance, varying_taps
from torch import Tensor
from torch.testing import assert_close

import torch_iir

lfilter_tv = torch.ops.torch_iir.lfilter_tv.default
lfilter_tv_backward = torch.ops.torch_iir.lfilter_tv_backward.default

DTYPES = [torch.float32, torch.float64]
HALF = [torch.float16, torch.bfloat16]
COMPLEX = [torch.complex64, torch.complex128]
GX, EVERYTHING = 1, 31

Arguments = tuple[Any, ...]  # x, b, a, zx, zi, b_first, a_first, period


def numbers(generator: np.random.Generator, *shape: int) -> Tensor:
    """In double precision, without what float32 would round off."""
    return torch.from_numpy(generator.standard_normal(shape)).float().double()


def taps(order: int, frames: int, generator: np.random.Generator, *batch: int, divided: bool = False) -> Tensor:
    """Coefficients of a: those of a monic one, or with an a0 ≠ 1 in front."""
    a = torch.from_numpy(varying_taps(order, frames, generator, *batch)).float().double()
    if not divided:
        return a
    a0 = torch.from_numpy(generator.uniform(1, 2, (*batch, frames, 1))).float().double()
    return torch.cat([a0, a], -1)


def all_pole(order: int, samples: int, rows: int, generator: np.random.Generator) -> Arguments:
    """y from x itself by a monic a."""
    a = taps(order, samples, generator, rows)
    return numbers(generator, rows, samples), None, a, None, numbers(generator, rows, order), 0, 1, 1


def general(order: int, samples: int, rows: int, generator: np.random.Generator) -> Arguments:
    """With an a0, and a b that begins at lag 0 or 1."""
    length, first = 1 + order % 4, order % 2
    a = taps(order, samples, generator, rows, divided=True)
    x, b = numbers(generator, rows, samples), numbers(generator, rows, samples, length)
    return x, b, a, numbers(generator, rows, first + length - 1), numbers(generator, rows, order), first, 0, 1


KINDS = {"all-pole": all_pole, "general": general}
every_kind = pytest.mark.parametrize("kind", KINDS)


def narrowed(args: Arguments, sample: torch.dtype, coefficient: torch.dtype) -> Arguments:
    """The signal and the coefficients in their dtypes; states stay in double precision."""
    x, b, a, *rest = args
    return x.to(sample), None if b is None else b.to(coefficient), a.to(coefficient), *rest


def part(args: Arguments, rows: int, samples: int) -> Arguments:
    """The first rows and samples of signals and coefficients that each row and sample has of its own."""
    x, b, a, zx, zi, *shifts = args
    x, b, a = (None if t is None else t[:rows, :samples] for t in (x, b, a))
    return x, b, a, *(None if z is None else z[:rows] for z in (zx, zi)), *shifts


def assert_near(result: Tensor, expected: Array, bound: float) -> None:
    assert tuple(result.shape) == expected.shape
    assert np.abs(reference.array(result) - expected).max(initial=0) <= bound


def compare_forward(args: Arguments) -> tuple[Tensor, Tensor]:
    y, zf = lfilter_tv(*args)
    expected_y, expected_zf = reference.lfilter_tv(*args)
    assert_near(y, expected_y, lfilter_tv_tolerance(y.dtype, expected_y, *args))
    assert_near(zf, expected_zf, lfilter_tv_tolerance(zf.dtype, expected_y, *args) + eps_of(zf.dtype, expected_zf))
    return y, zf


def eps_of(dtype: torch.dtype, values: Array) -> float:
    return torch.finfo(dtype).eps * float(np.abs(values).max(initial=0))


def bounds_of(y: Array, args: Arguments) -> dict[torch.dtype, float]:
    """lfilter_tv_tolerance for results in single and in double precision."""
    double = lfilter_tv_tolerance(torch.float64, y, *args)
    return {torch.float64: double, torch.float32: double + eps_of(torch.float32, y)}


def gradient_bounds(args: Arguments, y: Tensor, gy: Tensor, gzf: Tensor, expected: Any) -> list[float]:
    """What rounding may do to each gradient: a sum of products with v, which the recursion gains."""
    x, b, a, zx, zi, _, a_first, period = args
    samples, products = y.shape[-1], y.numel() + 1
    rows = products // max(samples, 1)
    through_b, through_a = (1 if t is None else 1 + largest(t.abs().sum(-1)) for t in (b, a))
    v = lfilter_tv_gain(reference.array(a), samples, a_first, period) * through_a
    v *= largest(gy) + largest(gzf.abs().sum(-1))
    sizes = (
        through_b * rows,
        max(largest(x), largest(zx)) * products,
        max(largest(y), largest(zi)) * products,
        through_b * rows,
        through_a * rows,
    )
    bounds = []
    for target, argument, size in zip(expected, args[:5], sizes, strict=True):
        scale = np.abs(target).max(initial=0)
        inside = max(8 * (a.shape[-1] + 1) * np.finfo(np.float64).eps * v * size, 1e-10 * scale)
        bounds.append(0 if argument is None else torch.finfo(argument.dtype).eps * scale + inside)
    return bounds


def largest(tensor: Tensor | None) -> float:
    return 0 if tensor is None else float(np.abs(reference.array(tensor)).max(initial=0))


def compare_gradients(gradients: Any, expected: Any, bounds: Any, args: Arguments) -> None:
    for gradient, target, bound, argument in zip(gradients, expected, bounds, args[:5], strict=True):
        if argument is None:
            assert tuple(gradient.shape) == (0,)
            continue
        assert gradient.shape == argument.shape
        assert gradient.dtype == argument.dtype
        assert gradient.is_contiguous()
        assert_near(gradient, target, bound)


def compare_backward(args: Arguments, generator: np.random.Generator) -> None:
    y, zf = lfilter_tv(*args)
    gy, gzf = (numbers(generator, *t.shape).to(t.dtype) for t in (y, zf))
    call = (gy, gzf, *args[:5], y, *args[5:], EVERYTHING)
    expected = reference.lfilter_tv_backward(*call)
    compare_gradients(lfilter_tv_backward(*call), expected, gradient_bounds(args, y, gy, gzf, expected), args)


ORDERS = (0, 1, 2, 3, 4, 5, 6, 8, 9, 16, 17, 31, 32, 33)
BOUNDARIES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257)
LONG = (895, 896, 897, 1791, 1792, 1793, 1900, 1999, 2000, 4000)
STORAGE = [(torch.float32, torch.float32), (torch.float32, torch.float64), (torch.float64, torch.float64)]


@every_kind
@pytest.mark.parametrize("order", ORDERS)
def test_every_length_around_every_boundary(order: int, kind: str) -> None:
    """What comes after a sample has no part in it, so that one reference does for all lengths."""
    args = KINDS[kind](order, LONG[-1], 17, np.random.default_rng(order))
    expected, _ = reference.lfilter_tv(*args)
    bounds = bounds_of(expected, args)
    past = args[4].numpy()
    for sample, coefficient in STORAGE:
        case = narrowed(args, sample, coefficient)
        for samples in sorted({*BOUNDARIES, *LONG, max(order - 1, 0), order, order + 1}):
            for rows in (1, 3, 17) if samples < 300 else (1, 17):
                y, zf = lfilter_tv(*part(case, rows, samples))
                assert (y.dtype, y.shape, zf.dtype) == (sample, (rows, samples), torch.float64)
                assert_near(y, expected[:rows, :samples], bounds[sample])
                states = np.concatenate([expected[:rows, :samples][:, ::-1], past[:rows]], -1)[:, :order]
                assert_near(zf, states, bounds[torch.float64])


@every_kind
@pytest.mark.parametrize("order", ORDERS)
def test_gradients_of_every_length(order: int, kind: str) -> None:
    """Every row has coefficients of its own, so that one reference does for any number of rows."""
    for samples in sorted({*BOUNDARIES, max(order - 1, 0), order, order + 1}):
        generator = np.random.default_rng(order)
        args = KINDS[kind](order, samples, 17, generator)
        y = torch.from_numpy(reference.lfilter_tv(*args)[0]).float().double()
        gy, gzf = numbers(generator, *y.shape), numbers(generator, 17, order)
        expected = reference.lfilter_tv_backward(gy, gzf, *args[:5], y, *args[5:])
        for sample, coefficient in STORAGE:
            case = narrowed(args, sample, coefficient)
            bounds = gradient_bounds(case, y, gy, gzf, expected)
            for rows in (1, 17):
                some = part(case, rows, samples)
                call = (gy[:rows].to(sample), gzf[:rows], *some[:5], y[:rows].to(sample), *some[5:], EVERYTHING)
                compare_gradients(lfilter_tv_backward(*call), [e[:rows] for e in expected], bounds, some)


@pytest.mark.parametrize("period", [2, 3, 7, 16, 64, 80, 1000])
@pytest.mark.parametrize("order", [1, 2, 5, 12, 22])
def test_frames(order: int, period: int) -> None:
    """Coefficients in frames of a and b, then of one of them; with all the frames needed, and with one more."""
    generator = np.random.default_rng(order)
    for samples in sorted({1, 2, period - 1, period, period + 1, 3 * period - 1, 150} & set(range(1, 250))):
        frames = -(-samples // period)
        x, zx, zi = (numbers(generator, 17, n) for n in (samples, 1, order))
        for b_frames, a_frames, divided in ((frames, frames, True), (frames + 1, 1, False), (1, frames + 1, False)):
            a = taps(order, a_frames, generator, divided=divided)
            b = numbers(generator, 17, b_frames, 2)
            for sample, coefficient in STORAGE[::2]:
                args = narrowed((x, b, a, zx, zi, 0, 0 if divided else 1, period), sample, coefficient)
                compare_forward(args)
                compare_backward(args, generator)


SHAPES = [  # of x, b, a, zx, zi, and b_first, a_first, period
    ((4, 1, 30), (5, 30, 2), (30, 2), (1,), (5, 2), 0, 1, 1),  # a bank, all of it with one a
    ((30,), (2, 1, 1, 3), (3, 30, 3), (3,), (3, 2), 1, 0, 1),  # b constant in time
    ((3, 30), None, (1, 2), None, (2,), 0, 1, 1),  # a constant in time, for all rows
    ((30,), (1, 1), (30, 1), None, (3, 2, 1), 0, 1, 1),  # rows by zi alone
    ((20, 30), (30, 1), (20, 1, 5), None, None, 0, 1, 1),
    ((1, 30), (30, 2), (30, 2), (20, 2), None, 1, 0, 1),
    ((2, 1, 2, 1, 30), (2, 1, 1, 30, 2), (1, 2, 1, 1, 1, 3), (1,), (2, 3), 0, 1, 1),
    ((20, 30), (8, 2), (9, 3), (1,), (20, 3), 0, 1, 4),  # frames for all rows
    ((2, 30), (2, 30, 4), (30, 0), (3,), None, 0, 1, 1),  # no poles
    ((2, 30), (30, 0), (30, 2), None, (2, 2), 0, 1, 1),  # no drive
    ((2, 30), (30, 1), (2, 1, 1), None, (2, 0), 0, 0, 1),  # a0 alone
]


def of_shapes(shapes: Any, generator: np.random.Generator) -> Arguments:
    """Tensors of the shapes of SHAPES."""
    x, b, a, zx, zi, b_first, a_first, period = shapes
    signals = [None if shape is None else numbers(generator, *shape) for shape in (x, b, zx, zi)]
    order = a[-1] - (a_first == 0)
    denominator = taps(order, a[-2], generator, *a[:-2], divided=a_first == 0)
    return signals[0], signals[1], denominator, *signals[2:], b_first, a_first, period


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_broadcasting(shapes: Any) -> None:
    """Rows are those of all arguments; gradients are summed over the rows and samples that an argument is shared by."""
    generator = np.random.default_rng(4)
    args = of_shapes(shapes, generator)
    for sample, coefficient in STORAGE:
        compare_forward(narrowed(args, sample, coefficient))
        compare_backward(narrowed(args, sample, coefficient), generator)


def runs(order: int, name: str, complex_coefficients: bool = False) -> bool:
    """Whether the kernels promise this algorithm for this order."""
    if name in ("automatic", "direct"):
        return True
    if order == 0 or complex_coefficients:
        return False
    return order <= {"rows": 16, "segments": 2, "blocks": order}[name]


@cache
def known(kind: str, order: int, rows: int, samples: int) -> list[tuple[Any, ...]]:
    """For every storage: arguments, those of the gradient op, and what both give by the reference, with tolerances."""
    generator = np.random.default_rng(order)
    args = KINDS[kind](order, samples, rows, generator)
    expected, states = reference.lfilter_tv(*args)
    bounds = bounds_of(expected, args)
    y = torch.from_numpy(expected).float().double()
    gy, gzf = numbers(generator, *y.shape), numbers(generator, rows, order)
    gradients = reference.lfilter_tv_backward(gy, gzf, *args[:5], y, *args[5:])
    result = []
    for sample, coefficient in STORAGE:
        case = narrowed(args, sample, coefficient)
        call = (gy.to(sample), gzf, *case[:5], y.to(sample), *case[5:], EVERYTHING)
        results = [(expected, bounds[sample]), (states, bounds[torch.float64])]
        result.append((case, call, results, gradients, gradient_bounds(case, y, gy, gzf, gradients)))
    return result


@every_kind
@pytest.mark.parametrize("order", [0, 1, 2, 5, 12, 16, 20])
@pytest.mark.parametrize("rows", [1, 20])
def test_variants_agree_with_the_reference(isa: str, algorithm: str, order: int, rows: int, kind: str) -> None:
    """Every algorithm on every instruction set of this machine."""
    for samples in (1, 31, 400):
        for args, call, results, gradients, bounds in known(kind, order, rows, samples):
            if not runs(order, algorithm):
                with pytest.raises(
                    RuntimeError, match=f'algorithm "{algorithm}" is forced, and cannot run this filter'
                ):
                    lfilter_tv(*args)
                continue
            for result, (expected, bound) in zip(lfilter_tv(*args), results, strict=True):
                assert_near(result, expected, bound)
            compare_gradients(lfilter_tv_backward(*call), gradients, bounds, args)


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("order", [2, 5])
def test_variants_with_complex_numbers(algorithm: str, order: int, rows: int) -> None:
    """Complex signals go through real coefficients as two real ones; complex coefficients in the direct form only."""
    generator = np.random.default_rng(order)
    real, imaginary = (general(order, 150, rows, generator) for _ in range(2))
    x, b, a, zx, zi = (p + 1j * q for p, q in zip(real[:5], imaginary[:5], strict=True))
    for args in ((x, *real[1:]), (x, real[1], real[2], zx, zi, *real[5:])):
        if runs(order, algorithm):
            compare_forward(args)
            compare_backward(args, generator)
    args = (x, b, a / 2, zx, zi, *real[5:])
    if runs(order, algorithm, complex_coefficients=True):
        compare_forward(args)
        compare_backward(args, generator)
        return
    with pytest.raises(RuntimeError, match="is forced, and cannot run this filter"):
        lfilter_tv(*args)


def test_no_other_algorithm_runs() -> None:
    with torch_iir.algorithm("wavefront"), pytest.raises(RuntimeError, match='"wavefront" is forced, and cannot run'):
        lfilter_tv(*general(2, 20, 1, np.random.default_rng(0)))


@pytest.mark.parametrize("order", [1, 2, 5, 20])
@pytest.mark.parametrize("rows", [1, 18])
def test_strides_are_honoured(order: int, rows: int) -> None:
    generator = np.random.default_rng(order)
    x, b, a, zx, zi, *shifts = general(order, 300, rows, generator)
    spread = {  # values that stay the same in another layout
        "transposed": lambda t: t.mT.contiguous().mT,
        "every other row": lambda t: t.repeat_interleave(2, 0)[::2],
        "every other number": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "offset": lambda t: torch.cat([t, t], -1)[..., t.shape[-1] :],
        "of other samples": lambda t: t.repeat_interleave(3, -2)[..., ::3, :] if t.dim() == 3 else t,
    }
    shared = {  # values that are the same all over
        "one row": lambda t: t[:1].expand(t.shape),
        "one number": lambda t: t[..., :1].expand(t.shape),
        "one sample": lambda t: t[:, :1].expand(t.shape),
        "one sample for all": lambda t: t[:1, :1].expand(t.shape),
    }
    for name, view in (spread | shared).items():
        views = [view(t) for t in (x, b, a / 2, zx, zi)]  # of one number: a0 = 2, and Σ |a| may be 2 too
        if name == "one number":
            views[2] = (a / 2)[:1, :1].expand(a.shape)
        for dtypes in STORAGE:
            args = narrowed((*views, *shifts), *dtypes)
            copies = tuple(t.contiguous() if isinstance(t, Tensor) else t for t in args)
            y, zf = lfilter_tv(*args)
            copy_y, copy_zf = lfilter_tv(*copies)
            assert y.is_contiguous(), name
            assert zf.is_contiguous(), name
            assert_close(y, copy_y, rtol=1e-12, atol=1e-12, msg=name)
            assert_close(zf, copy_zf, rtol=1e-12, atol=1e-12, msg=name)
        compare_backward((*views, *shifts), generator)


def test_nothing_is_a_view_or_mutated() -> None:
    args = general(2, 30, 2, np.random.default_rng(0))
    tensors = [t for t in args if isinstance(t, Tensor)]
    before = [t.clone() for t in tensors]
    y, zf = lfilter_tv(*args)
    empty = part(args, 2, 0)
    outputs = [y, zf, *lfilter_tv(*empty), *lfilter_tv_backward(y, zf, *args[:5], y, *args[5:], EVERYTHING)]
    outputs += lfilter_tv_backward(None, zf, *empty[:5], y[:, :0], *empty[5:], EVERYTHING)
    assert all(torch.equal(t, old) for t, old in zip(tensors, before, strict=True))
    addresses = [t.untyped_storage().data_ptr() for t in [*tensors, *outputs] if t.numel()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("coefficient", [*HALF, *DTYPES, *COMPLEX], ids=str)
@pytest.mark.parametrize("sample", [*HALF, *DTYPES, *COMPLEX], ids=str)
def test_dtypes(sample: torch.dtype, coefficient: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    x, b, a, zx, zi, *shifts = general(3, 40, 2, generator)
    zx, zi = zx.float(), zi.float()
    if coefficient.is_complex:
        b, a = b * (0.6 + 0.8j), a * torch.from_numpy(np.exp(1j * generator.uniform(0, 3, a.shape)))
    args = (x.to(sample), b.to(coefficient), a.to(coefficient), zx, zi, *shifts)
    y, zf = lfilter_tv(*args)
    expected = {torch.float64: torch.complex128, torch.complex128: torch.complex128}.get(sample, torch.complex64)
    assert y.dtype == (expected if coefficient.is_complex or sample.is_complex else sample)
    assert zf.dtype == torch.promote_types(y.dtype, torch.float32)
    compare_forward(args)

    gy, gzf = torch.randn_like(y), torch.randn_like(zf)
    gradients = lfilter_tv_backward(gy, gzf, *args[:5], y, *shifts, EVERYTHING)
    targets = reference.lfilter_tv_backward(gy, gzf, *args[:5], y, *shifts)
    for gradient, target, argument in zip(gradients, targets, args[:5], strict=True):
        # y, rounded to its dtype, is what op and reference both correlate with.
        assert gradient.dtype == argument.dtype
        assert_near(
            gradient, target, eps_of(gradient.dtype, target) + 1e-13 * 40 * float(gy.abs().max() * y.abs().max())
        )


@pytest.mark.parametrize("which", ["zx", "zi"])
def test_a_complex_state_makes_the_result_complex(which: str) -> None:
    x, b, a, zx, zi, *shifts = general(2, 30, 2, np.random.default_rng(0))
    zx, zi = (z.to(torch.complex64 if which == name else torch.float32) for name, z in (("zx", zx), ("zi", zi)))
    args = (x.float(), b.float(), a.float(), zx * (1j if which == "zx" else 1), zi * (1j if which == "zi" else 1))
    y, zf = lfilter_tv(*args, *shifts)
    assert (y.dtype, zf.dtype) == (torch.complex64, torch.complex64)
    compare_forward((*args, *shifts))
    compare_backward((*args, *shifts), np.random.default_rng(1))


@pytest.mark.parametrize("rows", [1, 20])
def test_wide_coefficients_are_not_rounded(rows: int) -> None:
    """Poles so close to the unit circle that float32 would move them."""
    angle = torch.linspace(0.001, 0.003, 6000, dtype=torch.float64)
    a = torch.stack([-2 * 0.99999 * angle.cos(), torch.full_like(angle, 0.99999**2)], -1)
    x = torch.randn(rows, 6000)
    exact = torch.from_numpy(reference.lfilter_tv(x, None, a)[0])
    error, rounded = (float((lfilter_tv(x, None, c)[0].double() - exact).norm() / exact.norm()) for c in (a, a.float()))
    assert error < 1e-7 < 1e-3 < rounded


@pytest.mark.parametrize("order", [1, 2, 5, 20])
def test_a_signal_cut_anywhere_continues_exactly(order: int) -> None:
    x, b, a, zx, zi, *shifts = general(order, 48, 2, np.random.default_rng(order))
    y, zf = lfilter_tv(x, b, a, zx, zi, *shifts)
    bound = 2 * lfilter_tv_tolerance(torch.float64, y, x, b, a, zx, zi, *shifts)
    inputs = torch.cat([zx.flip(-1), x], -1)
    for cut in range(49):
        first, state = lfilter_tv(x[:, :cut], b[:, :cut], a[:, :cut], zx, zi, *shifts)
        past = inputs[:, cut : cut + zx.shape[-1]].flip(-1)
        second, last = lfilter_tv(x[:, cut:], b[:, cut:], a[:, cut:], past, state, *shifts)
        assert_close(torch.cat([first, second], -1), y, rtol=0, atol=bound)
        assert_close(last, zf, rtol=0, atol=bound)


@pytest.mark.parametrize("sample", DTYPES, ids=str)
def test_frames_continue_from_piece_to_piece(sample: torch.dtype) -> None:
    """Cut between frames; one frame more is what a piece moves towards. A float64 state carries on without rounding."""
    generator = np.random.default_rng(0)
    period, order = 16, 4
    x, a = numbers(generator, 3, 10 * period).to(sample), taps(order, 10, generator, 3)
    zi = numbers(generator, 3, order)
    y, zf = lfilter_tv(x, None, a, None, zi, 0, 1, period)
    pieces, state = [], zi
    for frame in range(10):
        piece = x[:, frame * period : (frame + 1) * period]
        piece, state = lfilter_tv(piece, None, a[:, frame : frame + 2], None, state, 0, 1, period)
        assert (piece.dtype, state.dtype) == (sample, torch.float64)
        pieces.append(piece)
    bound = 2 * lfilter_tv_tolerance(torch.float64, y, x, None, a, None, zi, 0, 1, period)
    # Two roundings of the same number to the dtype of x differ by at most one unit.
    rounding = torch.finfo(sample).eps * float(y.abs().max())
    assert_close(torch.cat(pieces, -1), y, rtol=0, atol=bound + rounding)
    assert_close(state, zf, rtol=0, atol=bound)


@pytest.mark.parametrize("modulus", [1.1, 2.0])
@pytest.mark.parametrize("rows", [1, 20])
def test_an_unstable_filter_grows_until_it_overflows(algorithm: str, modulus: float, rows: int) -> None:
    generator = np.random.default_rng(0)
    samples = int(750 / np.log(modulus)) + 100
    a = np.stack([-2 * modulus * np.cos(generator.uniform(0.2, 0.4, samples)), np.full(samples, modulus**2)], -1)
    x = torch.from_numpy(generator.standard_normal((rows, samples)))
    with np.errstate(all="ignore"):
        expected, _ = reference.lfilter_tv(x, None, a)
    y = lfilter_tv(x, None, torch.from_numpy(a))[0].numpy()
    finite = np.isfinite(expected)
    assert not finite.all()
    # The largest so far is the scale that an error has grown from; near overflow one may be finite and the other not.
    scale = np.maximum.accumulate(np.abs(np.where(finite, expected, 0)), -1)
    safe = finite & (scale < 1e300)
    assert np.isfinite(y[safe]).all()
    assert (np.abs(y[safe] - expected[safe]) <= 1e-10 * scale[safe]).all()
    assert not np.isfinite(y[:, -1]).any()


@pytest.mark.parametrize("order", [2, 6])
@pytest.mark.parametrize("rows", [1, 20])
def test_a_bad_number_never_changes_an_earlier_one(algorithm: str, order: int, rows: int) -> None:
    """Neither one of the signal nor one of the coefficients, nor do other rows see it."""
    if not runs(order, algorithm):
        return
    samples, row = 2000 if rows == 1 else 200, rows // 2
    x, b, a, *_ = general(order, samples, rows, np.random.default_rng(1))
    for dtypes in STORAGE[::2]:
        clean = narrowed((x, b, a), *dtypes)
        good, _ = lfilter_tv(*clean, None, None, 0, 0)
        for which, bad in ((0, torch.nan), (0, torch.inf), (1, -torch.inf), (2, torch.nan)):
            for at in (0, 15, 16, samples - 130, samples - 1):
                case = list(clean)
                case[which] = clean[which].clone()
                case[which][row, at] = bad
                y, _ = lfilter_tv(*case, None, None, 0, 0)
                assert torch.equal(y[:row], good[:row])
                assert torch.equal(y[row + 1 :], good[row + 1 :])
                assert_close(y[row, :at], good[row, :at])
                assert not y[row, at].isfinite()


def test_what_is_finite_after_a_bad_sample(algorithm: str) -> None:
    """No poles: the bad sample leaves with the last coefficient of b. Else it never does."""
    x, b, a, *_ = general(2, 400, 1, np.random.default_rng(1))
    x[0, 200] = torch.inf
    y, _ = lfilter_tv(x, b, a, None, None, 0, 0)
    assert torch.equal(y[0].isfinite(), torch.arange(400) < 200)
    if runs(0, algorithm):
        y, _ = lfilter_tv(x, b, a[..., :1], None, None, 0, 0)
        assert torch.equal(y[0].isfinite(), (torch.arange(400) < 200) | (torch.arange(400) > 202))


@pytest.mark.parametrize("order", [2, 6])
def test_a_bad_gradient_never_changes_a_later_one(algorithm: str, order: int) -> None:
    if not runs(order, algorithm):
        return
    for rows in (1, 20):
        args = all_pole(order, 400, rows, np.random.default_rng(1))
        y, _ = lfilter_tv(*args)
        gy = torch.ones_like(y)
        good = lfilter_tv_backward(gy, None, *args[:5], y, *args[5:], GX)[0]
        gy[0, 200] = torch.nan
        gx = lfilter_tv_backward(gy, None, *args[:5], y, *args[5:], GX)[0]
        assert_close(gx[0, 201:], good[0, 201:])
        assert torch.equal(gx[1:], good[1:])
        assert gx[0, :201].isnan().all()


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 20])
def test_an_a0_of_zero_raises_wherever_it_is(algorithm: str, order: int, rows: int) -> None:
    if not runs(order, algorithm):
        return
    args = general(order, 300, rows, np.random.default_rng(0))
    y, zf = lfilter_tv(*args)
    for at in (0, 17, 299):
        a = args[2].clone()
        a[rows // 2, at, 0] = 0
        case = (*args[:2], a, *args[3:])
        for call in (
            lambda case=case: lfilter_tv(*case),
            lambda case=case: lfilter_tv_backward(y, zf, *case[:5], y, *case[5:], EVERYTHING),
        ):
            with pytest.raises(RuntimeError, match=r"a\[\.\.\., 0\] must not be zero"):
                call()
    x = torch.ones(rows, 5)
    with pytest.raises(RuntimeError, match="must not be zero"):  # between frames
        lfilter_tv(x, None, torch.tensor([[1.0] * (order + 1), [-1.0] * (order + 1)]), None, None, 0, 0, 4)


def test_two_threads_at_once() -> None:
    generator = np.random.default_rng(5)
    jobs = [KINDS[kind](order, 3000, rows, generator) for kind in KINDS for order in (2, 5, 20) for rows in (1, 20)]

    def work(args: Arguments) -> list[Tensor]:
        y, zf = lfilter_tv(*args)
        return [y, zf, *lfilter_tv_backward(torch.ones_like(y), None, *args[:5], y, *args[5:], EVERYTHING)]

    expected = [work(job) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, jobs * 5))
    for index, result in enumerate(results):
        assert all(torch.equal(r, e) for r, e in zip(result, expected[index % len(jobs)], strict=True))


@pytest.mark.parametrize("order", [1, 5])
def test_thread_count_does_not_change_the_filter(order: int) -> None:
    args = general(order, 2000, 64, np.random.default_rng(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = lfilter_tv(*args)
        torch.set_num_threads(2)
        two = lfilter_tv(*args)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(p, q) for p, q in zip(one, two, strict=True))


def test_unwanted_gradients_are_empty() -> None:
    args = general(2, 9, 3, np.random.default_rng(0))
    y, zf = lfilter_tv(*args)
    full = lfilter_tv_backward(y, zf, *args[:5], y, *args[5:], EVERYTHING)
    for mask in range(EVERYTHING + 1):
        parts = lfilter_tv_backward(y, zf, *args[:5], y, *args[5:], mask)
        for bit, (some, whole) in enumerate(zip(parts, full, strict=True)):
            assert torch.equal(some, whole) if mask >> bit & 1 else tuple(some.shape) == (0,)


def test_everything_may_be_asked_for_where_arguments_lack() -> None:
    """The bits of absent arguments change nothing, also in derivatives."""
    x, _, a, *_ = all_pole(2, 6, 1, np.random.default_rng(0))
    y, zf = lfilter_tv(x, None, a)
    tensors = [t.requires_grad_() for t in (y, zf, x, a)]

    def gradients(gy: Tensor, gzf: Tensor, x: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        gx, gb, ga, gzx, gzi = lfilter_tv_backward(gy, gzf, x, None, a, None, None, gy, 0, 1, 1, EVERYTHING)
        assert [tuple(t.shape) for t in (gb, gzx, gzi)] == [(0,)] * 3
        return gx, ga, gb + 1, gzx, gzi

    assert torch.autograd.gradcheck(gradients, tensors, check_forward_ad=True)


X, B, A = torch.ones(2, 5), torch.ones(5, 2), torch.ones(1, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X.int(), B, A), "x must have a floating or complex dtype"),
        ((X, B.int(), A), "b must have a floating or complex dtype"),
        ((X, B, A, torch.ones(1).int()), "zx must have a floating or complex dtype"),
        ((X.sum(), B, A), "x must have"),
        ((X, B[0], A), "b must have at least 2 dimensions"),
        ((X, B, A[0]), "a must have at least 2 dimensions"),
        ((X, B[:4], A), "the dimension of b before the last must be 1 or the samples of x, 5, got"),
        ((X, None, B[:0]), "the dimension of a before the last must be 1 or the samples of x, 5, got"),
        ((X, None, B, None, None, 0, 1, 2), "a before the last must be 1 or the frames of x, or one more: 3, got"),
        ((X, B[:2], A, None, None, 0, 1, 2), "b before the last must be 1 or the frames of x, or one more: 3, got"),
        ((X, None, A[:, :0], None, None, 0, 0), "a must have at least one coefficient"),
        ((X, B, A, torch.ones(2)), "the last dimension of zx must be the largest lag of b, 1, got"),
        ((X, B, A, torch.ones(1), None, 1), "the last dimension of zx must be the largest lag of b, 2, got"),
        ((X, None, A, torch.ones(1)), "the last dimension of zx must be the largest lag of b, 0, got zx .*, b None"),
        ((X, B, A, None, torch.ones(3)), "the last dimension of zi must be the largest lag of a, 2, got"),
        ((X, B, A, None, torch.ones(2), 0, 0), "the last dimension of zi must be the largest lag of a, 1, got"),
        ((X, B, A, None, None, 2), "b_first must be 0 or 1, got 2"),
        ((X, B, A, None, None, 0, -1), "a_first must be 0 or 1, got -1"),
        ((X, B, A, None, None, 0, 1, 0), "period must be at least 1, got 0"),
        ((X, B.expand(3, 5, 2), A), "the dimensions before the last must broadcast together"),
        ((X, B, A.expand(3, 1, 2)), "the dimensions before the last must broadcast together"),
        ((X, B, A, torch.ones(3, 1)), "the dimensions before the last must broadcast together"),
        ((X, B, A, None, torch.ones(3, 2)), "the dimensions before the last must broadcast together"),
    ],
)
def test_wrong_arguments_raise(args: Arguments, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        lfilter_tv(*args)
    with pytest.raises((ValueError, TypeError), match=message):
        lfilter_tv(*(t.to("meta") if isinstance(t, Tensor) else t for t in args))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": torch.ones(5)}, "y must have the shape of the output of lfilter_tv"),
        ({"y": X.double()}, "y must have the dtype that lfilter_tv returned"),
        ({"gy": X[:1]}, "gy must have the shape of y"),
        ({"gy": X.double()}, "gy must have the dtype of y"),
        ({"gzf": torch.ones(2, 3)}, "gzf must have the shape of zf"),
    ],
)
def test_wrong_gradients_raise(wrong: dict[str, Tensor], message: str) -> None:
    tensors = {"gy": X, "gzf": None, "x": X, "b": B, "a": A, "zx": None, "zi": None, "y": X} | wrong
    with pytest.raises(RuntimeError, match=message):
        lfilter_tv_backward(*tensors.values(), 0, 1, 1, EVERYTHING)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    rows=st.integers(1, 20),
    samples=st.integers(0, 150),
    order=st.integers(1, 18),
    period=st.sampled_from([1, 1, 2, 5, 30]),
    seed=st.integers(0, 99),
)
def test_backward_is_the_adjoint(rows: int, samples: int, order: int, period: int, seed: int) -> None:
    """⟨g, y⟩ + ⟨γ, zf⟩ = ⟨gx, x⟩ + ⟨gzx, zx⟩ + ⟨gzi, zi⟩ for the linear map from (x, zx, zi) to (y, zf)."""
    generator = np.random.default_rng(seed)
    frames = -(-samples // period)
    x, zx, zi = (numbers(generator, rows, n) for n in (samples, 2, order))
    b, a = numbers(generator, rows, frames, 3), taps(order, frames, generator, divided=True)
    y, zf = lfilter_tv(x, b, a, zx, zi, 0, 0, period)
    gy, gzf = numbers(generator, *y.shape), numbers(generator, *zf.shape)
    gx, gb, ga, gzx, gzi = lfilter_tv_backward(gy, gzf, x, b, a, zx, zi, y, 0, 0, period, EVERYTHING)
    terms = [gy * y, gzf * zf, -gx * x, -gzx * zx, -gzi * zi]
    assert abs(sum(float(t.sum()) for t in terms)) <= 1e-12 * sum(float(t.abs().sum()) for t in terms) * (1 + order)
    # And of the gradients of b and a: both are what x and y were multiplied by, B x = A y.
    assert_close((gb * b).sum(), -(ga * a).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [100, 300])
@pytest.mark.parametrize("rows", [1, 9])
def test_high_orders(order: int, rows: int) -> None:
    """The past outlasts what the kernels compute at once."""
    generator = np.random.default_rng(order)
    for samples in (order // 2, 2 * order + 70):
        args = general(order, samples, rows, generator)
        compare_forward(args)
        compare_backward(args, generator)
