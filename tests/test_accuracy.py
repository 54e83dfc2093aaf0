"""The accuracy that DESIGN promises, against long double with the same coefficients. `pytest -s` prints the tables.

float32 signals: at most 1e-7 relative rms. float64: at most 1e-10 by default, and in the direct form at most twice the
error of scipy's. Both at poles where cheaper arithmetic fails.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import reference
import scipy.signal
import torch
from reference import Array

import torch_iir

lfilter = torch.ops.torch_iir.lfilter.default
lfilter_tv = torch.ops.torch_iir.lfilter_tv.default

pytestmark = pytest.mark.skipif(np.finfo(np.longdouble).eps >= np.finfo(float).eps, reason="no long double here")

SAMPLES = 4096


def resonators() -> tuple[Array, Array]:
    """All-pole, poles at r e^{±jθ} with r = .9999, at 104 angles: multiples of π/16 and of π/96, and both ends."""
    angles = np.unique(np.concatenate([np.pi * np.arange(1, 97) / 97, np.pi * np.arange(1, 9) / 16]))
    a = np.stack([np.ones_like(angles), -2 * 0.9999 * np.cos(angles), np.full_like(angles, 0.9999**2)], -1)
    assert len(angles) == 104
    return np.ones((len(angles), 1)), a


def cookbook(kind: str, frequency: float = 20.0, quality: float = 10.0, rate: float = 48000.0) -> tuple[Array, Array]:
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
    return np.array([b]), np.array([a])


FILTERS = {
    "r = .9999": resonators(),
    **{f"20 Hz {kind}": cookbook(kind) for kind in ("lowpass", "highpass", "notch", "peaking")},
}

# Filters as people design them, whose direct form loses digits itself: the others may lose ten times as many.
DESIGNS = {
    "butter(4, .01)": scipy.signal.butter(4, 0.01),
    "butter(6, .02)": scipy.signal.butter(6, 0.02),
    "butter(6, .2)": scipy.signal.butter(6, 0.2),
    "butter(8, .05)": scipy.signal.butter(8, 0.05),
    "butter(10, .05)": scipy.signal.butter(10, 0.05),
    "cheby1(5, 1, .05)": scipy.signal.cheby1(5, 1, 0.05),
    "ellip(6, 1, 60, .05)": scipy.signal.ellip(6, 1, 60, 0.05),
    "ellip(6, 1, 60, highpass .9)": scipy.signal.ellip(6, 1, 60, 0.9, "highpass"),
    "bandpass(3, .1-.12)": scipy.signal.butter(3, [0.1, 0.12], "bandpass"),
}


def relative_rms(y: Array, exact: Array) -> float:
    """The worst over the filters."""
    error = np.sqrt(((y - exact) ** 2).sum(-1) / (exact**2).sum(-1))
    return float(error.max())


def ours(x: Array, b: Array, a: Array, algorithm: str, rows: int) -> Array:
    """Filters alone or in batches of `rows`: both are regimes of their own."""
    x, b, a = (torch.from_numpy(np.ascontiguousarray(v)) for v in (x, b, a))
    with torch_iir.algorithm(algorithm):
        if rows == 1:
            return np.stack([lfilter(x, bi, ai)[0].numpy() for bi, ai in zip(b, a, strict=True)])
        return lfilter(x.expand(rows, 1, -1), b, a)[0][-1].numpy()


def noise() -> Array:
    return np.random.default_rng(0).standard_normal(SAMPLES)


@pytest.mark.parametrize("name", FILTERS)
def test_float32(name: str, algorithm: str) -> None:
    b, a = FILTERS[name]
    x = noise().astype(np.float32)
    exact, _ = reference.lfilter(x.astype(np.longdouble), b.astype(np.longdouble), a.astype(np.longdouble))
    for narrow in (False, True):  # float32 coefficients: another filter, met as exactly
        if narrow:
            b, a = b.astype(np.float32), a.astype(np.float32)
            exact, _ = reference.lfilter(x.astype(np.longdouble), b.astype(np.longdouble), a.astype(np.longdouble))
        if narrow and name.startswith("20 Hz") and np.abs(np.roots(a[0])).max() >= 1:
            continue  # rounding has made it unstable
        for rows in (1, 16):
            error = relative_rms(ours(x, b, a, algorithm, rows), exact)
            print(f"\nfloat32  {name:16} {algorithm:10} rows {rows:2}  {error:.1e}", end="")
            assert error <= 1e-7


@pytest.mark.parametrize("name", FILTERS)
def test_float64(name: str, algorithm: str) -> None:
    b, a = FILTERS[name]
    x = noise()
    exact, _ = reference.lfilter(x.astype(np.longdouble), b.astype(np.longdouble), a.astype(np.longdouble))
    scipys = relative_rms(np.stack([scipy.signal.lfilter(bi, ai, x) for bi, ai in zip(b, a, strict=True)]), exact)
    for rows in (1, 16):
        error = relative_rms(ours(x, b, a, algorithm, rows), exact)
        print(f"\nfloat64  {name:16} {algorithm:10} rows {rows:2}  {error:.1e}  scipy {scipys:.1e}", end="")
        assert error <= (2 * scipys if algorithm == "direct" else 1e-10)


@pytest.mark.parametrize("name", DESIGNS)
def test_designs(name: str) -> None:
    """What runs by default is as good as scipy, or as promised, or nearly as good as the direct form."""
    b, a = (c[None] for c in DESIGNS[name])
    for kind, promise in ((np.float64, 1e-10), (np.float32, 1e-7)):
        x = noise().astype(kind)
        exact, _ = reference.lfilter(x.astype(np.longdouble), b.astype(np.longdouble), a.astype(np.longdouble))
        scipys = relative_rms(scipy.signal.lfilter(b[0], a[0], x.astype(float)), exact)
        for rows in (1, 16):
            error = relative_rms(ours(x, b, a, "automatic", rows), exact)
            print(f"\n{kind.__name__}  {name:28} rows {rows:2}  {error:.1e}  scipy {scipys:.1e}", end="")
            assert error <= max(promise, 10 * scipys)


@pytest.mark.parametrize("name", ["r = .9999", "20 Hz peaking"])
def test_gradients_of_float32(name: str, algorithm: str) -> None:
    """As exact as the filter, given the y that was rounded."""
    b, a = (torch.from_numpy(c) for c in FILTERS[name])
    x = torch.from_numpy(noise()).float()
    gy = torch.from_numpy(np.random.default_rng(1).standard_normal((len(a), SAMPLES))).float()
    y, _ = lfilter(x, b, a)
    gradients = torch.ops.torch_iir.lfilter_backward.default(
        gy, None, x.expand(len(a), -1).contiguous(), b, a, None, y, 7
    )
    wide = [t.double().numpy().astype(np.longdouble) for t in (gy, x.expand(len(a), -1), b, a, y)]
    expected = reference.lfilter_backward(wide[0], None, wide[1], wide[2], wide[3], None, wide[4], 7)
    for gradient, target in zip(gradients[:3], expected[:3], strict=True):
        error = float(np.sqrt(((gradient.numpy() - target) ** 2).sum() / (target**2).sum()))
        print(f"\ngradient {name:16} {algorithm:10} {error:.1e}", end="")
        assert error <= 1e-7


# Resonators whose frequency goes up and down by three octaves, given for every sample or for every 64th.
SWEEPS = {"sweep": 1, "sweep by frames": 64}


def over_time(name: str) -> tuple[Array, Array, int]:
    """b and a, (filters, frames, K) with one frame where they stay the same, and the period of the frames."""
    if name in FILTERS:
        b, a = FILTERS[name]
        return b[:, None], a[:, None], 1
    period = SWEEPS[name]
    angle = np.geomspace(0.01, 1, 8)[:, None] * 2 ** (1.5 * np.sin(np.arange(0, SAMPLES, period) / 300))
    a = np.stack([np.ones_like(angle), -2 * 0.9999 * np.cos(angle), np.full_like(angle, 0.9999**2)], -1)
    return np.ones((len(a), 1, 1)), a, period


@cache
def exact_over_time(name: str, signal: type, coefficients: type, computed: type = np.longdouble) -> Array:
    """What the difference equation gives in long double, or computed plainly in another precision."""
    b, a, period = over_time(name)
    x, b, a = noise().astype(signal), b.astype(coefficients), a.astype(coefficients)
    y, _ = reference.lfilter_tv(*(v.astype(computed) for v in (x, b, a)), None, None, 0, 0, period)
    return y


def ours_over_time(x: Array, b: Array, a: Array, period: int, algorithm: str, rows: int) -> Array:
    """As ours. What stays the same is expanded over time, but for a filter by frames."""
    x, b, a = (torch.from_numpy(v) for v in (x, b, a))
    b, a = (c.expand(-1, SAMPLES, -1) if period == 1 else c for c in (b, a))
    with torch_iir.algorithm(algorithm):
        if rows == 1:
            each = [lfilter_tv(x, bi, ai, None, None, 0, 0, period)[0].numpy() for bi, ai in zip(b, a, strict=True)]
            return np.stack(each)
        return lfilter_tv(x.expand(rows, 1, -1), b, a, None, None, 0, 0, period)[0][-1].numpy()


@pytest.mark.parametrize("name", [*FILTERS, *SWEEPS])
def test_float32_over_time(name: str, algorithm: str) -> None:
    b, a, period = over_time(name)
    x = noise().astype(np.float32)
    for kind in (np.float64, np.float32):
        b, a = b.astype(kind), a.astype(kind)
        if kind is np.float32 and name.startswith("20 Hz") and np.abs(np.roots(a[0, 0])).max() >= 1:
            continue  # rounding has made it unstable
        exact = exact_over_time(name, np.float32, kind)
        for rows in (1, 16):
            error = relative_rms(ours_over_time(x, b, a, period, algorithm, rows), exact)
            print(f"\nfloat32 over time  {name:16} {algorithm:10} rows {rows:2}  {error:.1e}", end="")
            assert error <= 1e-7


@pytest.mark.parametrize("name", [*FILTERS, *SWEEPS])
def test_float64_over_time(name: str, algorithm: str) -> None:
    """Where scipy has no such filter, the direct form is held to the same recursion in NumPy."""
    b, a, period = over_time(name)
    exact = exact_over_time(name, np.float64, np.float64)
    if name in FILTERS:
        peer = np.stack([scipy.signal.lfilter(bi, ai, noise()) for bi, ai in zip(*FILTERS[name], strict=True)])
    else:
        peer = exact_over_time(name, np.float64, np.float64, np.float64)
    peers = relative_rms(peer, exact)
    for rows in (1, 16):
        error = relative_rms(ours_over_time(noise(), b, a, period, algorithm, rows), exact)
        print(f"\nfloat64 over time  {name:16} {algorithm:10} rows {rows:2}  {error:.1e}  peer {peers:.1e}", end="")
        assert error <= (2 * peers if algorithm == "direct" else 1e-10)
