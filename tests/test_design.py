"""torch_iir.design against the analog prototypes, brought into z by scipy."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap
from torch.testing import assert_close

import torch_iir.design._cookbook
from torch_iir import design
from torch_iir.signal import freqz_sos

RATES = (8000, 16000, 44100, 96000)
EPS = torch.finfo(torch.float64).eps


def prototype(name: str, Q: float, gain: float = 0.0) -> tuple[list[float], list[float]]:
    """H(s) for a frequency of 1: coefficients of s², s and 1."""
    A = 10 ** (gain / 40)
    resonance = [1.0, 1 / Q, 1.0]
    slope = math.sqrt(A) / Q
    return {
        "lowpass": ([0.0, 0.0, 1.0], resonance),
        "highpass": ([1.0, 0.0, 0.0], resonance),
        "bandpass": ([0.0, 1 / Q, 0.0], resonance),
        "bandpass, skirt": ([0.0, 1.0, 0.0], resonance),
        "bandreject": ([1.0, 0.0, 1.0], resonance),
        "allpass": ([1.0, -1 / Q, 1.0], resonance),
        "peaking": ([1.0, A / Q, 1.0], [1.0, 1 / (A * Q), 1.0]),
        "low_shelf": ([A, A * slope, A * A], [A, slope, 1.0]),
        "high_shelf": ([A * A, A * slope, A], [1.0, slope, A]),
    }[name]


def reference(name: str, rate: float, freq: float, Q: float, gain: float = 0.0) -> np.ndarray:
    """The section b0, b1, b2, 1, a1, a2 by the bilinear transform, prewarped so that 1 meets the frequency."""
    warped = 2 * rate * math.tan(math.pi * freq / rate)
    b, a = (np.array(c) / [warped**2, warped, 1] for c in prototype(name, Q, gain))
    b, a = scipy.signal.bilinear(np.trim_zeros(b, "f"), a, rate)
    return np.concatenate([np.pad(b, (3 - len(b), 0)), a])


def designed(name: str, rate: Any, freq: Any, Q: Any, gain: Any = 3.0) -> Tensor:
    if name == "bandpass, skirt":
        return design.bandpass(rate, freq, Q, const_skirt_gain=True)
    return getattr(design, name)(rate, freq, *((gain,) if name in WITH_GAIN else ()), Q)


WITH_GAIN = ("peaking", "low_shelf", "high_shelf")
DESIGNS = (*design.__all__, "bandpass, skirt")
every_design = pytest.mark.parametrize("name", DESIGNS)
GAINS = {name: (-20.0, 0.0, 12.0) if name in WITH_GAIN else (0.0,) for name in DESIGNS}


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.design._cookbook)
    assert result.attempted > 20
    assert result.failed == 0


@every_design
@pytest.mark.parametrize("rate", RATES)
def test_sections_are_the_bilinear_transform_of_the_prototypes(name: str, rate: int) -> None:
    """A coefficient is a sum of a few terms, none much larger than a0 and the largest b: a few eps of these."""
    freqs, Qs = [20.0, 997.0, 0.25 * rate, 0.49 * rate], [0.1, 0.707, 20.0]
    shape = (torch.tensor(freqs, dtype=torch.float64), torch.tensor(Qs, dtype=torch.float64)[:, None])
    for gain in GAINS[name]:
        sos = designed(name, rate, *shape, gain)
        assert (sos.shape, sos.dtype) == ((3, 4, 1, 6), torch.float64)
        assert (sos[..., 3] == 1).all()
        for i, Q in enumerate(Qs):
            for j, freq in enumerate(freqs):
                expected = torch.from_numpy(reference(name, rate, freq, Q, gain))
                assert_close(sos[i, j, 0], expected, rtol=0, atol=64 * EPS * expected.abs().max().item())
                assert_close(designed(name, rate, freq, Q, gain)[0], sos[i, j, 0], rtol=0, atol=4 * EPS)


@every_design
@pytest.mark.parametrize("rate", RATES)
def test_gain_at_characteristic_points(name: str, rate: int) -> None:
    """At 0, at the frequency and at the Nyquist frequency; the sums cancel to ω², here 4e-3, of their terms."""
    for Q in (0.5, math.sqrt(0.5), 4.0):
        for gain in GAINS[name]:
            A = 10 ** (gain / 40)
            freq = 0.01 * rate
            expected = {
                "lowpass": (1.0, Q, 0.0),
                "highpass": (0.0, Q, 1.0),
                "bandpass": (0.0, 1.0, 0.0),
                "bandpass, skirt": (0.0, Q, 0.0),
                "bandreject": (1.0, 0.0, 1.0),
                "allpass": (1.0, 1.0, 1.0),
                "peaking": (1.0, A * A, 1.0),
                "low_shelf": (A * A, A, 1.0),
                "high_shelf": (1.0, A, A * A),
            }[name]
            _, h = freqz_sos(designed(name, rate, freq, Q, gain), [0.0, freq, rate / 2], fs=rate)
            assert_close(h.abs(), torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-11)
            if name == "allpass":
                assert abs(h[1].angle().item()) == pytest.approx(math.pi, rel=1e-9)


@pytest.mark.parametrize("name", ["bandpass", "bandreject", "peaking"])
def test_bandwidth(name: str) -> None:
    """Centre / Q between the points at −3 dB, or at half the gain in dB, on the warped axis of frequency."""
    rate, freq, Q, gain = 16000, 3000.0, 2.0, 9.0
    edges = [math.sqrt(1 + 1 / (4 * Q * Q)) + side / (2 * Q) for side in (-1, 1)]
    assert edges[1] - edges[0] == pytest.approx(1 / Q)
    warped = [math.atan(math.tan(math.pi * freq / rate) * edge) * rate / math.pi for edge in edges]
    _, h = freqz_sos(designed(name, rate, freq, Q, gain), warped, fs=rate)
    level = 10 ** (gain / 40) if name == "peaking" else math.sqrt(0.5)
    assert_close(h.abs(), torch.full((2,), level, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["lowpass", "highpass"])
def test_small_coefficients_keep_their_digits(name: str) -> None:
    """1 ∓ cos ω would lose ten of them here."""
    rate, distance = 96000, 0.2
    freq = distance if name == "lowpass" else rate / 2 - distance
    b0 = designed(name, rate, freq, 0.5)[0, 0].item()
    angle = 2 * math.pi * distance / rate
    expected = angle**2 / 4 * (1 - angle**2 / 12) / (1 + angle * (1 - angle**2 / 6))  # rest: angle⁴, 1e-20
    # The angle of a frequency next to the Nyquist frequency is itself known to eps / angle only.
    assert b0 == pytest.approx(expected, rel=8 * EPS if name == "lowpass" else 8 * EPS / angle, abs=0)


def test_high_shelf_undoes_low_shelf() -> None:
    """Both together are a gain: the shelves meet at one frequency."""
    low, high = design.low_shelf(16000, 900.0, 7.0), design.high_shelf(16000, 900.0, 7.0)
    _, h = freqz_sos(torch.cat([low, high], -2), 64, fs=16000)
    assert_close(h, torch.full_like(h, 10 ** (7 / 20)), rtol=1e-11, atol=1e-11)


def test_sections_make_a_cascade() -> None:
    gains = torch.tensor([[3.0, -2.0, 5.0]] * 4, dtype=torch.float64)
    sos = design.peaking(16000, torch.tensor([100.0, 1000.0, 5000.0]).double(), gains).squeeze(-2)  # 4 filters of 3
    _, h = freqz_sos(torch.cat([sos, design.lowpass(16000, 7000).expand(4, 1, 6)], -2), [1000.0], fs=16000)
    parts = [
        freqz_sos(design.peaking(16000, f, g), [1000.0], fs=16000)[1] for f, g in ((100, 3), (1000, -2), (5000, 5))
    ]
    expected = parts[0] * parts[1] * parts[2] * freqz_sos(design.lowpass(16000, 7000), [1000.0], fs=16000)[1]
    assert_close(h, expected.expand(4, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_the_design_runs_in_float64(dtype: torch.dtype) -> None:
    freq, Q = torch.tensor([1003, 2007], dtype=dtype), torch.tensor(3, dtype=dtype)
    exact = design.lowpass(16000, freq.double(), Q.double())
    assert_close(design.lowpass(16000, freq, Q), exact, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(design.lowpass(16000, freq, Q), exact, rtol=0, atol=0)
    if dtype.is_floating_point:
        freq.requires_grad_()
        design.lowpass(16000, freq, Q)[..., 0].sum().backward()
        assert freq.grad is not None
        assert freq.grad.dtype == dtype


def test_every_kind_of_number() -> None:
    expected = design.lowpass(torch.tensor([8000.0, 16000.0]).double(), 1000.0, 2.0)
    rates = ([8000, 16000], (8000.0, 16000.0), np.array([8000, 16000]), torch.tensor([8000, 16000]))
    for rate in rates:
        assert_close(design.lowpass(rate, np.float32(1000), torch.tensor(2)), expected, rtol=0, atol=4 * EPS)
    assert_close(design.lowpass(np.int64(16000), [torch.tensor(1000.0)], np.array(2.0)), expected[1:], rtol=0, atol=0)
    assert design.lowpass(16000, torch.ones(3, 0)).shape == (3, 0, 1, 6)


def leaves(name: str) -> tuple[Tensor, ...]:
    """Rates, frequencies, Q and gain of shapes that broadcast to (2, 3)."""
    values = ([16000.0], [[900.0], [6000.0]], [0.5, 0.707, 3.0], [[4.0], [-3.0]])
    tensors = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values)
    return tensors if name in WITH_GAIN else tensors[:3]


@every_design
def test_derivatives(name: str) -> None:
    """The frequencies are in Hz: a step for gradcheck has to be a good part of one."""

    def scaled(rate: Tensor, freq: Tensor, *others: Tensor) -> Tensor:
        return designed(name, 1000 * rate, 1000 * freq, *others)

    inputs = leaves(name)
    inputs = (*((p / 1000).detach().requires_grad_() for p in inputs[:2]), *inputs[2:])
    assert torch.autograd.gradcheck(scaled, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(scaled, inputs, check_fwd_over_rev=True)


@every_design
def test_transforms(name: str) -> None:
    inputs = tuple(p.detach() for p in leaves(name))
    sos = designed(name, *inputs)
    mapped = vmap(vmap(lambda *p: designed(name, *p)))(*(p.expand(2, 3) for p in inputs))
    assert_close(mapped, sos, rtol=0, atol=4 * EPS)
    arguments = tuple(range(len(inputs)))

    def of(*p: Tensor) -> Tensor:
        return designed(name, *p)

    assert_close(jacfwd(of, arguments)(*inputs), jacrev(of, arguments)(*inputs))
    assert all(h.isfinite().all() for row in hessian(of, arguments)(*inputs) for h in row)
    assert_close(torch.compile(of, fullgraph=True, backend="aot_eager")(*inputs), sos, rtol=0, atol=4 * EPS)


def test_compiled_with_numbers() -> None:
    compiled = torch.compile(design.peaking, fullgraph=True, backend="aot_eager", dynamic=True)
    for freq in (100.0, 250.0, 4000.0):
        for gain in (-3.0, 4.0):
            assert_close(compiled(16000, freq, gain, 1.5), design.peaking(16000, freq, gain, 1.5))
    assert compiled(16000, [100.0, 200.0], 3.0).shape == (2, 1, 6)


def test_compiled_by_inductor() -> None:
    compiled = torch.compile(design.high_shelf, fullgraph=True)
    inputs = tuple(p.detach() for p in leaves("high_shelf"))
    rate, freq, Q, gain = inputs
    assert_close(compiled(rate, freq, gain, Q), design.high_shelf(rate, freq, gain, Q), rtol=1e-13, atol=1e-13)


WRONG = (0.0, -1.0, math.inf, -math.inf, math.nan)
WRONG_TENSORS = {
    "rate": WRONG,
    "freq": (*WRONG, 8000.0, 9000.0),
    "Q": WRONG,
    "gain": (math.inf, -math.inf, math.nan, 6001.0),
}


@pytest.mark.parametrize(
    ("name", "which"), [(n, w) for n in DESIGNS for w in WRONG_TENSORS if w != "gain" or n in WITH_GAIN]
)
def test_a_tensor_out_of_range_is_nan_and_spoils_no_gradient(name: str, which: str) -> None:
    right = {"rate": 16000.0, "freq": 900.0, "Q": 0.8, "gain": 4.0}

    def gradients(values: list[float]) -> tuple[Tensor, list[Tensor]]:
        given = {key: torch.tensor(value, dtype=torch.float64) for key, value in right.items()}
        given[which] = torch.tensor(values, dtype=torch.float64)
        inputs = [p.requires_grad_() for p in given.values()]
        sos = designed(name, *inputs)
        sos[:1].square().sum().backward()
        return sos, [p.grad for p in inputs if p.grad is not None]

    sos, after = gradients([right[which], *WRONG_TENSORS[which]])
    expected, before = gradients([right[which]])
    assert_close(sos[:1], expected)
    assert sos[1:].isnan().all()
    for ours, alone in zip(after, before, strict=True):
        assert_close(ours if ours.shape == alone.shape else ours[:1], alone)
        assert ours.isfinite().all()


def test_tensors_are_not_read() -> None:
    """A meta tensor has no values to read: what works with it waits for no device."""
    rate, freq, Q, gain = (p.detach().to("meta") for p in leaves("peaking"))
    assert design.peaking(rate, freq, gain, Q).device.type == "meta"
    assert design.peaking(16000, freq, 3.0, [0.5, 0.7, 0.9]).shape == (2, 3, 1, 6)


ONE, TWO, THREE = (torch.full((n,), 100.0) for n in (1, 2, 3))

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "above Nyquist": (
        lambda: design.lowpass(16000, 8000),
        ValueError,
        "cutoff_freq must lie below half of sample_rate, got cutoff_freq 8000, sample_rate 16000",
    ),
    "negative": (
        lambda: design.highpass(16000, -1.0),
        ValueError,
        "cutoff_freq must be positive and finite, got .* -1",
    ),
    "zero": (lambda: design.bandpass(16000, 0), ValueError, "central_freq must be positive"),
    "NaN": (lambda: design.bandreject(16000, math.nan), ValueError, "central_freq must be positive and finite"),
    "beside a tensor": (lambda: design.allpass(16000 * ONE, -3), ValueError, "central_freq must be positive"),
    "in an array": (
        lambda: design.peaking(16000, np.array([100.0, 9000.0]), 3.0),
        ValueError,
        "center_freq must lie below half of sample_rate",
    ),
    "in a sequence": (lambda: design.low_shelf(16000, [100.0, -2.0], 3.0), ValueError, "cutoff_freq must be positive"),
    "Q": (lambda: design.lowpass(16000, 100, 0), ValueError, "Q must be positive and finite, got Q 0"),
    "infinite Q": (
        lambda: design.lowpass(16000, ONE, math.inf),
        ValueError,
        "Q must be positive and finite, got Q inf",
    ),
    "Qs": (lambda: design.lowpass(16000, 100, [1.0, -1.0]), ValueError, "Q must be positive and finite"),
    "gain": (lambda: design.peaking(16000, 100, math.nan), ValueError, "gain must lie within ±6000 dB, got gain nan"),
    "great gain": (lambda: design.high_shelf(16000, 100, -7000), ValueError, "gain must lie within ±6000 dB"),
    "rate": (lambda: design.lowpass(0, 100), ValueError, "sample_rate must be positive and finite, got sample_rate 0"),
    "negative rate": (lambda: design.lowpass(-8000, ONE), ValueError, "sample_rate must be positive"),
    "long rate": (lambda: design.lowpass(10**400, 100), ValueError, "sample_rate must be positive and finite"),
    "rates": (lambda: design.lowpass([8000, math.inf], 100), ValueError, "sample_rate must be positive and finite"),
    "string": (lambda: design.lowpass(16000, "100"), TypeError, "cutoff_freq must be a tensor, a number, .* got '100'"),
    "None": (lambda: design.lowpass(None, 100), TypeError, "sample_rate must be a tensor, .* got NoneType"),
    "complex": (lambda: design.lowpass(16000, 100, 1j), TypeError, "Q must be real, got torch.complex128"),
    "complex tensor": (lambda: design.lowpass(16000, ONE + 0j), TypeError, "cutoff_freq must be real"),
    "shapes": (
        lambda: design.peaking(16000, TWO, THREE, ONE),
        ValueError,
        r"must broadcast together, got center_freq \[2\], gain \[3\], Q \[1\]",
    ),
    "devices": (
        lambda: design.lowpass(ONE.to("meta"), ONE),
        ValueError,
        "must share a device, got sample_rate meta, cutoff_freq cpu",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["above Nyquist", "Q", "gain", "string", "shapes", "devices"])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=kind.__name__):
        torch.compile(call, backend="aot_eager", fullgraph=True)()


def test_extremes_within_range_are_finite() -> None:
    for name in DESIGNS:
        for gain in (-6000.0, 6000.0) if name in WITH_GAIN else (0.0,):
            for freq in (1e-3, 7999.999):
                for Q in (1e-6, 1e6):
                    assert designed(name, 16000, freq, Q, gain).isfinite().all()
