"""torch_iir_native: the kernels and the plans on NumPy arrays, without torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import torch_iir_native
from scipy import signal
from torch_iir_native import InverseMelPlan, LFilterPlan, LFilterTVPlan, SOSFiltPlan, _native, melscale_fbanks

import torch_iir.functional
from torch_iir.transforms import InverseMelScale

DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
BLOCKS = [5, 0, 1, 64, 2, 1, 100, 27]  # longer and shorter than any order here
SAMPLES = sum(BLOCKS)


def printed_by(code: str) -> str:
    """What a new process prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent,  # not where the sources would be taken for the installed package
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def in_blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for length in BLOCKS:
        yield x[..., start : start + length]
        start += length


def close(y: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(_native)
    assert result.attempted > 20
    assert result.failed == 0


def test_no_torch() -> None:
    code = """
        import sys, numpy, torch_iir_native
        torch_iir_native.LFilterPlan([1.0], [1.0, -0.5]).run(numpy.ones(3, numpy.float32))
        print([name for name in sys.modules if name.split('.')[0] == 'torch'])
    """
    assert printed_by(code) == "[]"


# --- functions


@every_dtype
def test_lfilter(dtype: type) -> None:
    rng = np.random.default_rng(0)
    b, a = signal.butter(3, 0.2)
    memory = rng.standard_normal((4, 3, 200)).astype(dtype)
    zi = rng.standard_normal((4, 1, 3))
    for x in (memory, memory[:, :, ::-2], memory.transpose(1, 2, 0), memory[1:1], memory[..., :1], memory[0, 0]):
        state = zi if x.shape[0] == 4 and x.ndim == 3 else None
        y, zf = _native.lfilter(x, b, a, state)
        assert y.dtype == dtype
        assert zf.dtype == np.float64
        if x.size == 0:
            assert y.shape == x.shape
            continue
        start = np.zeros((*x.shape[:-1], 3)) if state is None else np.broadcast_to(zi, (*x.shape[:-1], 3))
        expected, expected_zf = signal.lfilter(b, a, x.astype(np.float64), zi=start)
        np.testing.assert_allclose(y, expected, rtol=0, atol=4 * np.finfo(dtype).eps * abs(expected).max())
        np.testing.assert_allclose(zf, expected_zf, rtol=0, atol=1e-14 * abs(expected).max())


def records(samples: int, dtype: type = np.float64) -> np.ndarray:
    """Numbers inside of records, which are not aligned."""
    values = np.zeros(samples, dtype=np.dtype([("flag", "i1"), ("x", dtype)]))
    values["x"] = np.random.default_rng(0).standard_normal(samples)
    return values["x"]


def test_lfilter_unaligned() -> None:
    x = records(50)
    y, _ = _native.lfilter(x, [1.0, 0.5], [1.0, -0.5])
    np.testing.assert_allclose(y, signal.lfilter([1.0, 0.5], [1.0, -0.5], x), atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), [], [1.0]), "b must have at least one coefficient"),
        ((np.ones(3), [1.0], []), "a must have at least one coefficient"),
        ((np.ones(3), [1.0], [0.0, 1.0]), "must not be zero"),
        ((np.ones(3), 1.0, [1.0]), "b must have 1 to 64 dimensions"),
        ((np.ones((2, 3)), np.ones((3, 2)), [1.0]), "must broadcast together"),
        ((np.ones(3), [1.0], [1.0, 1.0], [1.0, 2.0]), "last dimension of zi"),
    ],
)
def test_lfilter_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.lfilter(*arguments)


def test_algorithms() -> None:
    assert _native.lfilter_algorithm(1, 3, 2) == "direct"
    with pytest.raises(ValueError, match="algorithm must be"):
        _native.lfilter(np.ones(3), [1.0], [1.0], algorithm="fastest")
    with pytest.raises(ValueError, match='"wavefront" cannot run this filter'):
        _native.lfilter(np.ones(3), [1.0], [1.0], algorithm="wavefront")


@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize(
    "size", [(201, 0.0, 8000.0, 40, 16000), (300, 125.5, 5512.5, 23, 11025), (64, 100, 900, 1, 2000)]
)
def test_melscale_fbanks(size: tuple, scale: str, norm: str | None) -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        expected = torch_iir.functional.melscale_fbanks(*size, norm, scale).numpy()
    finally:
        torch.set_default_dtype(default)
    fb = melscale_fbanks(*size, norm, scale)
    assert fb.dtype == np.float64
    close(fb, expected, 1e-11 * expected.max())  # edges are rounded, and differences of edges are divided by


def test_melscale_fbanks_warns_of_empty_filters() -> None:
    size = (65, 0.0, 8000.0, 80, 16000)
    sentence = "mel filters contain no frequency and are empty"
    with pytest.warns(UserWarning, match=sentence) as given:
        melscale_fbanks(*size)
    with pytest.warns(UserWarning, match=sentence) as expected:
        torch_iir.functional.melscale_fbanks(*size)
    assert str(given[0].message) == str(expected[0].message)
    assert given[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1, 0.0, 8000.0, 40, 16000), ValueError),
        ((201, 0.0, 8000.0, 0, 16000), ValueError),
        ((2.5, 0.0, 8000.0, 40, 16000), TypeError),
        ((201, 0.0, 8000.0, 40, 0), ValueError),
        ((201, 0.0, 8000.0, 40, float("inf")), ValueError),
        ((201, 8000, 10.0, 40, 16000), ValueError),
        ((201, -1.0, 8000.0, 40, 16000), ValueError),
        ((201, 0.0, float("nan"), 40, 16000), ValueError),
        ((201, 0.0, 8000.0, 40, 16000, "l1"), ValueError),
        ((201, 100.0, 100.00000000000001, 40, 16000), ValueError),
    ],
)
def test_melscale_fbanks_errors(arguments: tuple, error: type[Exception]) -> None:
    with pytest.raises(error) as expected:
        torch_iir.functional.melscale_fbanks(*arguments)
    with pytest.raises(error) as given:
        melscale_fbanks(*arguments)
    assert str(given.value) == str(expected.value)
    with pytest.raises(ValueError, match='mel_scale must be one of htk, slaney; got "bark"'):
        melscale_fbanks(201, 0.0, 8000.0, 40, 16000, mel_scale="bark")  # type: ignore[arg-type]


# --- filters


def signals(channels: tuple[int, ...], dtype: type) -> Iterator[list[np.ndarray]]:
    """Signals (*channels, SAMPLES), each as it may lie in memory in several ways."""
    shape = (*channels, SAMPLES)
    values = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    interleaved = np.empty((SAMPLES, *reversed(channels)), dtype).T
    backwards = np.empty(shape, dtype)[..., ::-1]
    every_third = np.empty((*channels, 3 * SAMPLES), dtype)[..., 1::3]
    for x in (interleaved, backwards, every_third):
        x[...] = values
    yield [values, interleaved, backwards, every_third]
    yield [np.broadcast_to(values[..., :1], shape)]
    if channels and channels[0] > 1:
        yield [np.broadcast_to(values[0], shape)]


LFILTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    # the leading dimensions: channels, of b, of a, outputs
    "one signal": ((), (), (), ()),
    "one filter": ((2, 3), (), (), (2, 3)),
    "a filter each": ((3,), (3,), (3,), (3,)),
    "bank": ((2, 1), (5,), (), (2, 5)),
    "bank of all": ((), (4, 1), (3,), (4, 3)),
    "no channel": ((0,), (), (), (0,)),
}


def filters(order: int, b_batch: tuple[int, ...], a_batch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(order)
    b = np.empty((*b_batch, order + 1))
    a = np.empty((*a_batch, order + 1))
    for index in np.ndindex(b_batch):
        b[index] = reference.stable_filter(order, rng)[0]
    for index in np.ndindex(a_batch):
        a[index] = reference.stable_filter(order, rng)[1] * 1.5  # a[0] is not 1
    return b, a


@every_dtype
@pytest.mark.parametrize("order", [0, 2, 5])
@pytest.mark.parametrize("case", LFILTERS)
def test_lfilter_plan(case: str, order: int, dtype: type) -> None:
    channels, b_batch, a_batch, outputs = LFILTERS[case]
    b, a = filters(order, b_batch, a_batch)
    zi = np.random.default_rng(2).standard_normal((*outputs[-1:], order))
    for layouts in signals(channels, dtype):
        expected, zf = reference.lfilter(layouts[0], b, a, zi)
        tolerance = reference.tolerance(DTYPES[dtype], expected, layouts[0], b, a, zi) if expected.size else 0
        for x in layouts:
            plan = LFilterPlan(b, a, channels, dtype=dtype)
            assert plan.channels == channels
            assert plan.outputs == outputs
            assert plan.order == order
            plan.state = zi
            close(plan.state, np.broadcast_to(zi, (*outputs, order)), 1e-12)
            y = np.concatenate([plan.run(block) for block in in_blocks(x)], -1)
            assert y.dtype == dtype
            close(y, expected, tolerance)
            close(plan.state, zf, 1e-9 * np.abs(zf).max(initial=1))


def test_lfilter_plan_is_scipy_s_filter() -> None:
    b, a = signal.butter(4, 0.2)
    x = np.random.default_rng(0).standard_normal((2, SAMPLES))
    plan = LFilterPlan(list(b), a, (2,), dtype="float64")
    expected, zf = signal.lfilter(b, a, x, zi=np.zeros((2, 4)))
    close(plan.run(x), expected, 1e-12)
    close(plan.state, zf, 1e-12)


SOS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    # the leading dimensions: channels, of sos, outputs
    "one signal": ((), (), ()),
    "one cascade": ((2, 3), (), (2, 3)),
    "a cascade each": ((3,), (3,), (3,)),
    "bank": ((2, 1), (5,), (2, 5)),
    "no channel": ((0,), (), (0,)),
}


@every_dtype
@pytest.mark.parametrize("sections", [1, 5])
@pytest.mark.parametrize("case", SOS)
def test_sosfilt_plan(case: str, sections: int, dtype: type) -> None:
    channels, batch, outputs = SOS[case]
    rng = np.random.default_rng(sections)
    sos = np.empty((*batch, sections, 6))
    for index in np.ndindex(batch):
        sos[index] = reference.stable_sections(sections, rng)
    zi = rng.standard_normal((*outputs[-1:], sections, 2))
    for layouts in signals(channels, dtype):
        expected, zf = reference.sosfilt(layouts[0], sos, zi)
        tolerance = reference.sos_tolerance(DTYPES[dtype], layouts[0], sos, zi) if expected.size else 0
        for x in layouts:
            plan = SOSFiltPlan(sos, channels, dtype=dtype)
            assert plan.outputs == outputs
            assert plan.sections == sections
            plan.state = zi
            close(plan.state, np.broadcast_to(zi, (*outputs, sections, 2)), 1e-12)
            y = np.concatenate([plan.run(block) for block in in_blocks(x)], -1)
            assert y.dtype == dtype
            close(y, expected, tolerance)
            close(plan.state, zf, 1e-9 * np.abs(zf).max(initial=1))


@every_dtype
@pytest.mark.parametrize("period", [1, 4])
@pytest.mark.parametrize(("a_first", "b_length"), [(1, 0), (0, 0), (1, 3), (0, 2)])
@pytest.mark.parametrize(("channels", "batch"), [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2,), (1,))], ids=str)
def test_lfilter_tv_plan(
    channels: tuple[int, ...], batch: tuple[int, ...], a_first: int, b_length: int, period: int, dtype: type
) -> None:
    rng = np.random.default_rng(3)
    order = 4
    blocks = [8, 0, 4, 64, 4, 100, 3]  # whole periods
    samples = sum(blocks)
    frames = -(-samples // period) + (1 if period > 1 else 0)
    a = reference.varying_taps(order, frames, rng, *batch)
    if a_first == 0:
        a = np.concatenate([rng.uniform(1, 2, (*a.shape[:-1], 1)), a], -1)
    a = a.astype(dtype)
    b = rng.standard_normal((*batch, frames, b_length)).astype(dtype) if b_length else None
    x = rng.standard_normal((*channels, samples)).astype(dtype)
    plan = LFilterTVPlan(channels, a_length=a.shape[-1], a_first=a_first, b_length=b_length, period=period, dtype=dtype)
    assert plan.order == order
    zx = rng.standard_normal((*channels, max(b_length - 1, 0)))
    zi = rng.standard_normal(order)
    plan.state = zx, zi
    outputs, start = [], 0
    for length in blocks:
        taps = slice(start // period, -(-(start + length) // period) + (1 if period > 1 else 0))
        outputs.append(
            plan.run(x[..., start : start + length], a[..., taps, :], None if b is None else b[..., taps, :])
        )
        start += length
    y = np.concatenate(outputs, -1)
    assert y.dtype == dtype
    arguments = x, b, a, zx if b_length else None, zi, 0, a_first, period
    expected, zf = reference.lfilter_tv(*arguments)
    tolerance = reference.lfilter_tv_tolerance(DTYPES[dtype], expected, *arguments)
    close(y, expected, tolerance)
    close(plan.state[1], zf, 2 * tolerance)
    np.testing.assert_array_equal(plan.state[0], x.astype(np.float64)[..., :-b_length:-1] if b_length else zx)


def test_lfilter_tv_plan_of_constant_filters() -> None:
    x = np.random.default_rng(0).standard_normal(SAMPLES).astype(np.float32)
    plan = LFilterTVPlan(a_length=2, b_length=2)
    expected = signal.lfilter([0.5, 0.25], [1, -0.5, 0.25], x.astype(np.float64))
    y = np.concatenate([plan.run(block, [[-0.5, 0.25]], [[0.5, 0.25]]) for block in in_blocks(x)])
    close(y, expected, 1e-6 * np.abs(expected).max())
    without = LFilterTVPlan((1,), a_length=0, b_length=1)  # a gain
    close(without.run(x[None], b=x[:, None]), x[None] ** 2, 1e-6 * np.max(x**2))


@pytest.mark.parametrize("algorithm", ["automatic", "direct", "rows", "segments", "blocks"])
def test_algorithms_of_lfilter_plan(algorithm: Any, isa: str) -> None:
    b, a = signal.butter(2, 0.2)
    x = np.random.default_rng(0).standard_normal((20, SAMPLES))
    plan = LFilterPlan(b, a, (20,), dtype=np.float64, algorithm=algorithm)
    assert plan.algorithm == ("rows" if algorithm == "automatic" else algorithm)
    assert plan.isa == isa
    close(np.concatenate([plan.run(block) for block in in_blocks(x)], -1), signal.lfilter(b, a, x), 1e-11)


@pytest.mark.parametrize("algorithm", ["automatic", "direct", "rows", "wavefront", "segments"])
def test_algorithms_of_sosfilt_plan(algorithm: Any, isa: str) -> None:
    sos = signal.butter(8, 0.2, output="sos")
    x = np.random.default_rng(0).standard_normal((20, SAMPLES))
    plan = SOSFiltPlan(sos, (20,), dtype=np.float64, algorithm=algorithm)
    assert plan.algorithm == ("rows" if algorithm == "automatic" else algorithm)
    assert plan.isa == isa
    close(np.concatenate([plan.run(block) for block in in_blocks(x)], -1), signal.sosfilt(sos, x), 1e-11)


@pytest.mark.parametrize("algorithm", ["automatic", "direct", "rows", "segments", "blocks"])
def test_algorithms_of_lfilter_tv_plan(algorithm: Any, isa: str) -> None:
    rng = np.random.default_rng(0)
    a = reference.varying_taps(2, SAMPLES, rng, 20)
    x = rng.standard_normal((20, SAMPLES))
    plan = LFilterTVPlan((20,), a_length=2, dtype=np.float64, algorithm=algorithm)
    assert plan.algorithm == ("rows" if algorithm == "automatic" else algorithm)
    assert plan.isa == isa
    close(plan.run(x, a), reference.lfilter_tv(x, None, a)[0], 1e-11)


def test_shorter_than_the_order() -> None:
    b, a = reference.stable_filter(40, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal(120)
    plan = LFilterPlan(b, a, dtype=np.float64)
    y = np.concatenate([plan.run(x[start : start + 3]) for start in range(0, 120, 3)])
    close(y, reference.lfilter(x, b, a)[0], reference.tolerance(torch.float64, y, x, b, a))


# --- state and coefficients

Made = Callable[..., Any]  # makes a plan for two channels, with further arguments
TAPS = np.random.default_rng(0).uniform(-0.4, 0.4, (500, 2))
EQUALISER = signal.butter(4, 0.3, output="sos")
PLANS: dict[str, Made] = {
    "lfilter": lambda **more: LFilterPlan([0.5, 0.2], [1.0, -0.9, 0.5], (2,), **more),
    "sosfilt": lambda **more: SOSFiltPlan(EQUALISER, (2,), **more),
    "lfilter_tv": lambda **more: LFilterTVPlan((2,), a_length=2, **more),
}
every_plan = pytest.mark.parametrize("kind", PLANS)


def run(plan: Any, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    if isinstance(plan, LFilterTVPlan):
        return plan.run(x, TAPS[:1].astype(x.dtype), out=out)
    return plan.run(x, out)  # type: ignore[no-any-return]


@every_plan
def test_reset_and_state(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 50))
    plan = PLANS[kind](dtype=np.float64)
    first = run(plan, x)
    kept = plan.state
    second = run(plan, x)
    assert not np.array_equal(first, second)
    plan.reset()
    np.testing.assert_array_equal(run(plan, x), first)
    plan.state = kept
    close(run(plan, x), second, 1e-13)
    plan.state = tuple(np.zeros_like(part) for part in kept) if kind == "lfilter_tv" else np.zeros_like(kept)
    np.testing.assert_array_equal(run(plan, x), first)
    run(plan, x[:, :0])
    np.testing.assert_array_equal(run(plan, x), run_twice(PLANS[kind](dtype=np.float64), x))


def run_twice(plan: Any, x: np.ndarray) -> np.ndarray:
    run(plan, x)
    return run(plan, x)


def test_set_coefficients() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, SAMPLES))
    (b, a), (other_b, other_a) = (reference.stable_filter(3, rng) for _ in range(2))
    plan = LFilterPlan(b, a, (2,), dtype=np.float64)
    first, zf = signal.lfilter(b, a, x, zi=np.zeros((2, 3)))
    close(plan.run(x), first, 1e-11)
    plan.set_coefficients(other_b, other_a)
    close(plan.run(x), signal.lfilter(other_b, other_a, x, zi=zf)[0], 1e-11)
    sos, other = reference.stable_sections(4, rng), reference.stable_sections(4, rng)
    cascade = SOSFiltPlan(sos, (2,), dtype=np.float64)
    first, zf = reference.sosfilt(x, sos)
    close(cascade.run(x), first, 1e-10)
    cascade.set_coefficients(other.tolist())
    close(cascade.run(x), reference.sosfilt(x, other, zf)[0], 1e-10)
    before = cascade.run(x[:, :1])
    with pytest.raises(
        ValueError, match=r"sos must have the shape that the plan was made with, \(4, 6\), got \(3, 6\)"
    ):
        cascade.set_coefficients(sos[:3])
    with pytest.raises(ValueError, match=r"sos\[\.\.\., 3\] must not be zero"):
        cascade.set_coefficients(np.zeros((4, 6)))
    with pytest.raises(ValueError, match=r"made with, \(4,\) and \(4,\), got b \(4,\), a \(3,\)"):
        plan.set_coefficients(b, a[:3])
    with pytest.raises(ValueError, match=r"a\[\.\.\., 0\] must not be zero"):
        plan.set_coefficients(b, 0 * a)
    again = SOSFiltPlan(other, (2,), dtype=np.float64)
    again.state = reference.sosfilt(x, other, zf)[1]
    close(before, again.run(x[:, :1]), 1e-10)


# --- where samples lie


@every_plan
@every_dtype
def test_in_place_and_out(kind: str, dtype: type) -> None:
    frames = np.random.default_rng(0).standard_normal((300, 4)).astype(dtype)
    expected = run(PLANS[kind](dtype=dtype), frames[:, :2].T)
    out = np.full((2, 900), 7, dtype)
    given = out[:, 2::3]
    assert run(PLANS[kind](dtype=dtype), frames[:, :2].T, given) is given
    np.testing.assert_array_equal(given, expected)
    assert (out[:, ::3] == 7).all()
    assert (out[:, 1::3] == 7).all()
    beside = frames[:, 2:].T  # between the input's samples, and none of them
    np.testing.assert_array_equal(run(PLANS[kind](dtype=dtype), frames[:, :2].T, beside), expected)
    same = frames[:, :2].T
    assert run(PLANS[kind](dtype=dtype), same, frames[:, :2].T) is not same
    np.testing.assert_array_equal(same, expected)


@every_plan
def test_nothing_is_copied(kind: str) -> None:
    frames = np.ones((200_000, 3), np.float32)
    x, out = frames[:, :2].T, np.empty((2, 200_000), np.float32)
    plan = PLANS[kind]()
    run(plan, x, out)
    tracemalloc.start()
    try:
        run(plan, x, out)
        assert tracemalloc.get_traced_memory()[1] < 10_000
        run(plan, x)
        assert out.nbytes <= tracemalloc.get_traced_memory()[1] < out.nbytes + 10_000
    finally:
        tracemalloc.stop()


def overlapping(kind: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.zeros((2, 101), np.float32)
    return {
        "shifted": (x[:, 1:], x[:, :-1]),
        "reversed": (x, x[:, ::-1]),
        "channels swapped": (x, x[::-1]),
        "one channel more": (np.broadcast_to(x[0], (2, 101)), x),
    }[kind]


@every_plan
@pytest.mark.parametrize("kind_of_overlap", ["shifted", "reversed", "channels swapped", "one channel more"])
def test_overlap_is_refused(kind: str, kind_of_overlap: str) -> None:
    x, out = overlapping(kind_of_overlap)
    with pytest.raises(ValueError, match="out must not overlap x, unless it is the very same array"):
        run(PLANS[kind](), x, out)


def test_overlap_of_outputs_that_share_an_input_is_refused() -> None:
    x = np.zeros((2, 1, 50), np.float32)
    out = np.lib.stride_tricks.as_strided(x, (2, 3, 50), (200, 0, 4))
    with pytest.raises(ValueError, match="out must not overlap itself"):
        LFilterPlan(np.ones((3, 2)), [1.0], (2, 1)).run(x, out)


def test_overlap_with_coefficients_is_refused() -> None:
    plan = LFilterTVPlan(a_length=1, b_length=1)
    x, a, b = np.zeros(9, np.float32), np.zeros((9, 1), np.float32), np.zeros((9, 1), np.float32)
    with pytest.raises(ValueError, match=r"out must not overlap x$"):
        plan.run(x, a, b, x)
    with pytest.raises(ValueError, match="out must not overlap a"):
        plan.run(x, a, b, a[:, 0])
    with pytest.raises(ValueError, match="out must not overlap b"):
        plan.run(x, a, b, b[:, 0])


# --- mel spectra

BANK = melscale_fbanks(201, 0.0, 8000.0, 40, 16000)


def mels(frames: int, dtype: type) -> np.ndarray:
    spectra = np.random.default_rng(0).gamma(0.5, size=(201, frames))
    return (BANK.T @ spectra).astype(dtype)


@every_dtype
@pytest.mark.parametrize("tie_break", ["min_norm", "entropy"])
def test_inverse_mel_plan(tie_break: Any, dtype: type) -> None:
    mel = mels(30, dtype)
    module = InverseMelScale(201, 40, tie_break=tie_break).to(DTYPES[dtype])
    expected, outcome = (part.numpy() for part in module(torch.from_numpy(mel), return_outcome=True))
    plan = InverseMelPlan(module.fb.numpy(), 30, dtype=dtype, tie_break=tie_break)
    tolerance = 16 * np.finfo(dtype).eps * np.abs(expected).max()  # one solver; the prior is rounded in another order
    interleaved = np.ascontiguousarray(mel.T).T
    for x in (mel, interleaved, mel[:, ::-1]):
        spectrum = plan.run(x)
        assert spectrum.dtype == dtype
        close(spectrum, expected if np.array_equal(x, mel) else expected[:, ::-1], tolerance)
        assert plan.failed == 0
    assert plan.outcome.dtype == np.int32
    np.testing.assert_array_equal(plan.outcome, outcome[::-1])
    out = np.empty((30, 201), dtype).T[:, :7]
    assert plan.run(mel[:, :7], out) is out
    np.testing.assert_array_equal(out, plan.run(mel[:, :7]))
    assert plan.outcome.shape == (7,)
    assert plan.run(mel[:, :0]).shape == (201, 0)
    assert plan.outcome.shape == (0,)


def test_frames_that_fail() -> None:
    mel = mels(5, np.float64)
    mel[3, 1] = np.nan
    plan = InverseMelPlan(BANK, 5, dtype=np.float64)
    spectrum = plan.run(mel)
    assert plan.failed == 1
    np.testing.assert_array_equal(plan.outcome, [0, 2, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(spectrum).all(0), plan.outcome == 2)
    strict = InverseMelPlan(BANK, 5, dtype=np.float64, tolerance=1e-15, max_iterations=1)
    strict.run(mel)
    assert strict.failed > 1


# --- threads

THREADED: dict[str, Callable[[int], tuple[Any, tuple[np.ndarray, ...]]]] = {
    "lfilter": lambda threads: (LFilterPlan([0.5, 0.2], [1.0, -0.9, 0.5], (64,), threads=threads), (NOISE,)),
    "sosfilt": lambda threads: (SOSFiltPlan(EQUALISER, (64,), threads=threads), (NOISE,)),
    "lfilter_tv": lambda threads: (LFilterTVPlan((64,), a_length=2, threads=threads), (NOISE, TAPS[:1].astype("f"))),
    "inverse_mel": lambda threads: (InverseMelPlan(BANK, 200, threads=threads), (mels(200, np.float32),)),
}
NOISE = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)


@pytest.mark.parametrize("kind", THREADED)
def test_threads_give_the_same_bits(kind: str) -> None:
    plan, arguments = THREADED[kind](1)
    expected = [plan.run(*arguments) for _ in range(2)]
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir())) if tasks.exists() else 0
    for threads in (2, 5):
        plan, arguments = THREADED[kind](threads)
        assert plan.threads == threads
        if tasks.exists():
            assert len(list(tasks.iterdir())) == before + threads - 1
        for y in expected:
            np.testing.assert_array_equal(plan.run(*arguments), y)
        del plan
    if tasks.exists():
        assert len(list(tasks.iterdir())) == before


def test_a_forked_child_runs_plans_of_threads() -> None:
    code = """
        import os, numpy as np
        from torch_iir_native import LFilterPlan
        x = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
        plan = LFilterPlan([0.5, 0.2], [1.0, -0.9, 0.5], (64,), threads=3)
        y = plan.run(x)
        plan.reset()
        child = os.fork()
        if child == 0:
            same = np.array_equal(plan.run(x), y)
            del plan
            own = LFilterPlan([0.5, 0.2], [1.0, -0.9, 0.5], (64,), threads=3)
            os._exit(0 if same and np.array_equal(own.run(x), y) else 1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), np.array_equal(plan.run(x), y))
    """
    assert printed_by(code) == "0 True"


@pytest.fixture
def gil_is_kept_unless_released() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("gil_is_kept_unless_released")
@pytest.mark.parametrize("kind", THREADED)
def test_other_threads_go_on_meanwhile(kind: str) -> None:
    plan, arguments = THREADED[kind](1)
    out = plan.run(*arguments)
    begin, done = threading.Event(), []

    def work() -> None:
        begin.wait()
        done.append(True)

    worker = threading.Thread(target=work)
    worker.start()
    begin.set()
    deadline = time.monotonic() + 30
    while not done and time.monotonic() < deadline:
        plan.run(*arguments, out=out)
    assert done
    worker.join()


def test_a_plan_is_used_by_one_thread_at_a_time() -> None:
    plan, _ = THREADED["lfilter"](2)
    expected = plan.run(NOISE)
    refused = []
    deadline = time.monotonic() + 30

    def work() -> None:
        out = np.empty_like(NOISE)
        while not refused and time.monotonic() < deadline:
            try:
                plan.run(NOISE, out)
                plan.reset()
                plan.set_coefficients([0.5, 0.2], [1.0, -0.9, 0.5])
            except RuntimeError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert "in use by another thread" in refused[0]
    plan.reset()
    np.testing.assert_array_equal(plan.run(NOISE), expected)


# --- what a plan says of itself, and wrong calls


def test_repr() -> None:
    plan = LFilterPlan([1.0], [1.0, -0.5], (2, 1), algorithm="direct")
    isa = torch_iir_native.build_info()["isa"]
    assert repr(plan) == (
        "LFilterPlan(order=1, outputs=(2, 1), channels=(2, 1), dtype=float32, algorithm='direct', "
        f"isa='{isa}', threads=1)"
    )
    assert repr(SOSFiltPlan(EQUALISER, 3)).startswith("SOSFiltPlan(sections=2, outputs=(3,), channels=(3,), dtype=")
    assert repr(LFilterTVPlan(a_length=2, period=80, dtype=np.float64)).startswith(
        "LFilterTVPlan(a_length=2, a_first=1, b_length=0, b_first=0, period=80, channels=(), dtype=float64, algorithm="
    )
    assert repr(InverseMelPlan(BANK, 9, tie_break="entropy")) == (
        "InverseMelPlan(n_freqs=201, n_mels=40, max_frames=9, dtype=float32, tie_break='entropy', threads=1)"
    )
    assert plan.dtype == np.float32
    assert LFilterPlan[np.float32].__origin__ is LFilterPlan  # type: ignore[attr-defined]


ONES = np.ones((2, 9), np.float32)
READ_ONLY = np.broadcast_to(np.zeros((2, 9), np.float32), (2, 9))
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: LFilterPlan([], [1.0]), ValueError, r"at least one coefficient.*got b \(0,\), a \(1,\), channels \(\)"),
    (lambda: LFilterPlan([1.0], [0.0, 1.0]), ValueError, r"a\[\.\.\., 0\] must not be zero: the filter is divided by"),
    (lambda: LFilterPlan(1.0, [1.0]), ValueError, r"must have the shapes .* got b \(\)"),
    (lambda: LFilterPlan(np.ones((3, 2)), [1.0], (2,)), ValueError, r"broadcast .* got b \(3, 2\), .*channels \(2,\)"),
    (lambda: LFilterPlan([1j], [1.0]), TypeError, "b must be an array of real numbers, got complex128"),
    (lambda: LFilterPlan("b", [1.0]), TypeError, "b must be an array of real numbers"),
    (lambda: LFilterPlan([1.0], [[1.0], [1.0, 2.0]]), TypeError, "a must be an array of real numbers, got list"),
    (lambda: LFilterPlan([1.0], [1.0], (-1,)), ValueError, r"must not be negative, got channels \(-1,\)"),
    (lambda: LFilterPlan([1.0], [1.0], block=-1), ValueError, "must not be negative, .* block -1"),
    (lambda: LFilterPlan([1.0], [1.0], (1,) * 8), ValueError, "channels must have at most 7 dimensions, got 8"),
    (lambda: LFilterPlan(np.ones((1,) * 9), [1.0]), ValueError, "b must have at most 8 dimensions, got 9"),
    (lambda: LFilterPlan([1.0], [1.0], dtype=np.int32), TypeError, "dtype must be float32 or float64, got int32"),
    (lambda: LFilterPlan([1.0], [1.0], dtype=">f4"), TypeError, "dtype must be float32 or float64, got >f4"),
    (lambda: LFilterPlan([1.0], [1.0], threads=0), ValueError, "threads must be at least 1, got 0"),
    (lambda: LFilterPlan([1.0], [1.0], algorithm="fastest"), ValueError, 'algorithm must be one of .*"fastest"'),
    (lambda: LFilterPlan([1.0], [1.0], algorithm="fft"), ValueError, 'algorithm "fft" cannot run this filter'),
    (lambda: SOSFiltPlan(np.ones((2, 5))), ValueError, r"sos must have the shape \(\.\.\., S, 6\).* got sos \(2, 5\)"),
    (lambda: SOSFiltPlan(np.ones((0, 6))), ValueError, "S at least 1"),
    (lambda: SOSFiltPlan(np.zeros((1, 6))), ValueError, r"sos\[\.\.\., 3\] must not be zero"),
    (lambda: SOSFiltPlan(EQUALISER, algorithm="blocks"), ValueError, "cannot run this filter"),
    (lambda: LFilterTVPlan(a_length=-1), ValueError, "must not be negative, .* got a_length=-1"),
    (lambda: LFilterTVPlan(a_length=1, a_first=2), ValueError, "a_first and b_first must be 0 or 1"),
    (lambda: LFilterTVPlan(a_length=1, period=0), ValueError, "period at least 1, got .*period=0"),
    (lambda: PLANS["lfilter"]().run(ONES[0]), ValueError, r"x must have the shape \(2, T\), got \(9,\)"),
    (lambda: PLANS["lfilter"]().run(ONES[:1]), ValueError, r"x must have the shape \(2, T\), got \(1, 9\)"),
    (lambda: LFilterPlan([1.0], [1.0]).run(ONES), ValueError, r"x must have the shape \(T,\), got \(2, 9\)"),
    (
        lambda: PLANS["sosfilt"]().run(ONES.astype(np.float64)),
        TypeError,
        "x must be a NumPy array of the plan's dtype, float32, got float64",
    ),
    (lambda: PLANS["sosfilt"]().run(ONES.tolist()), TypeError, "x must be a NumPy array .* got list"),
    (lambda: PLANS["sosfilt"]().run(ONES.astype(">f4")), TypeError, "float32, got >f4"),
    (lambda: LFilterPlan([1.0], [1.0]).run(records(9, np.float32)), ValueError, r"x must be aligned .* x\.copy\(\)"),
    (lambda: PLANS["lfilter"]().run(ONES, ONES[:, :8].copy()), ValueError, r"out .* \(2, 9\), got \(2, 8\)"),
    (lambda: PLANS["lfilter"]().run(ONES, np.ones((2, 9))), TypeError, "out must .* float32, got float64"),
    (lambda: PLANS["lfilter"]().run(ONES, READ_ONLY), ValueError, "out must be writeable"),
    (lambda: setattr(PLANS["lfilter"](), "state", [1.0]), ValueError, r"broadcasts to \(2, 2\) .* got \(1,\)"),
    (lambda: setattr(PLANS["sosfilt"](), "state", [0.0, 1.0]), ValueError, r"broadcasts to \(2, 2, 2\) .*got \(2,\)"),
    (lambda: setattr(PLANS["lfilter_tv"](), "state", 0.0), TypeError, r"state must be the pair \(zx, zi\)"),
    (lambda: setattr(PLANS["lfilter_tv"](), "state", ([], [1.0])), ValueError, r"\(2, 0\) and \(2, 2\) .* zi \(1,\)"),
    (lambda: PLANS["lfilter_tv"]().run(ONES), ValueError, "a must be given: a_length is 2"),
    (lambda: PLANS["lfilter_tv"]().run(ONES, TAPS, TAPS), TypeError, "a must be .* float32, got float64"),
    (lambda: PLANS["lfilter_tv"]().run(ONES, [[0.0, 0.0]], [1.0]), ValueError, "b must be None: b_length is 0"),
    (
        lambda: PLANS["lfilter_tv"]().run(ONES, TAPS[:8].astype(np.float32)),
        ValueError,
        r"coefficients must be a \(\.\.\., frames, 2\) with 1 or 9 frames for 9 samples, .* got period 1, a \(8, 2\)",
    ),
    (
        lambda: LFilterTVPlan(a_length=1, a_first=0).run(ONES[0], np.zeros((9, 1), np.float32)),
        ValueError,
        r"a\[\.\.\., 0\] must not be zero",
    ),
    (lambda: InverseMelPlan(BANK[0], 3), ValueError, r"fb must have the shape \(n_freqs, n_mels\), got \(40,\)"),
    (lambda: InverseMelPlan(np.ones((9, 3)), 3), ValueError, "fb must be a bank of mel filters"),
    (lambda: InverseMelPlan(BANK, 0), ValueError, "max_frames and max_iterations must be at least 1, got 0 and 1000"),
    (lambda: InverseMelPlan(BANK, 3, tolerance=0.0), ValueError, r"tolerance must be positive and finite, got 0\.0"),
    (lambda: InverseMelPlan(BANK, 3, tie_break="first"), ValueError, 'tie_break must be one of min_norm, .*"first"'),
    (
        lambda: InverseMelPlan(BANK, 3).run(mels(4, np.float32)),
        ValueError,
        r"mel must have the shape \(40, frames\) with at most 3 frames, got \(40, 4\)",
    ),
    (
        lambda: InverseMelPlan(np.eye(2), 9).run(ONES, ONES),
        ValueError,
        "out must not overlap mel",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[case[2] for case in WRONG])
def test_wrong_calls(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_refused_run_leaves_state_and_output_alone() -> None:
    for kind, make in PLANS.items():
        plan = make()
        run(plan, ONES)
        before, out = plan.state, np.full((2, 9), 7, np.float32)
        for wrong in (ONES[:1], ONES.astype(np.float64)):
            with pytest.raises((ValueError, TypeError)):
                run(plan, wrong, out)
        np.testing.assert_array_equal(np.hstack(plan.state), np.hstack(before), kind)
        assert (out == 7).all()
