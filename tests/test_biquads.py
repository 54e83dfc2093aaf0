"""torch_iir.functional's biquads: torchaudio's signatures and numbers."""

from __future__ import annotations

import doctest
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from test_design import reference
from torch import Tensor
from torch.func import jvp, vmap
from torch.testing import assert_close

import torch_iir.functional._biquads
from torch_iir import functional
from torch_iir.functional import lowpass_biquad

EPS = torch.finfo(torch.float64).eps

# Per function: what follows waveform in torchaudio, with its defaults, and values to test with.
SIGNATURES: dict[str, tuple[str, dict[str, float]]] = {
    "lowpass_biquad": ("sample_rate, cutoff_freq, Q=0.707", {"cutoff_freq": 900.0, "Q": 0.6}),
    "highpass_biquad": ("sample_rate, cutoff_freq, Q=0.707", {"cutoff_freq": 900.0, "Q": 0.6}),
    "allpass_biquad": ("sample_rate, central_freq, Q=0.707", {"central_freq": 900.0, "Q": 0.6}),
    "bandreject_biquad": ("sample_rate, central_freq, Q=0.707", {"central_freq": 900.0, "Q": 0.6}),
    "band_biquad": ("sample_rate, central_freq, Q=0.707, noise=False", {"central_freq": 900.0, "Q": 0.6}),
    "bandpass_biquad": ("sample_rate, central_freq, Q=0.707, const_skirt_gain=False", {"central_freq": 900.0, "Q": 2}),
    "bass_biquad": ("sample_rate, gain, central_freq=100, Q=0.707", {"gain": 5.0, "central_freq": 300.0, "Q": 0.6}),
    "treble_biquad": ("sample_rate, gain, central_freq=3000, Q=0.707", {"gain": -5.0, "central_freq": 2e3, "Q": 0.6}),
    "equalizer_biquad": ("sample_rate, center_freq, gain, Q=0.707", {"center_freq": 900.0, "gain": 5.0, "Q": 2.0}),
    "deemph_biquad": ("sample_rate", {}),
    "riaa_biquad": ("sample_rate", {}),
}
WITH_PARAMETERS = {name: values for name, (_, values) in SIGNATURES.items() if values}
every_biquad = pytest.mark.parametrize("name", SIGNATURES)
every_parametric = pytest.mark.parametrize("name", WITH_PARAMETERS)
RATE = 44100

COOKBOOK = {
    "lowpass_biquad": "lowpass",
    "highpass_biquad": "highpass",
    "allpass_biquad": "allpass",
    "bandreject_biquad": "bandreject",
    "bandpass_biquad": "bandpass",
    "bass_biquad": "low_shelf",
    "treble_biquad": "high_shelf",
    "equalizer_biquad": "peaking",
}


def waveform(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-scale, scale, shape))


def biquad(name: str, x: Tensor, rate: Any = RATE, clamp: bool = True, **changes: Any) -> Tensor:
    values = WITH_PARAMETERS.get(name, {})
    return getattr(functional, name)(x, rate, **{**values, **changes}, clamp=clamp)


def response(name: str, rate: int, **changes: Any) -> np.ndarray:
    """A second of the impulse response."""
    click = torch.zeros(rate, dtype=torch.float64)
    click[0] = 1
    return biquad(name, click, rate, clamp=False, **changes).numpy()


def gain(impulse: np.ndarray, freq: np.ndarray, rate: int) -> np.ndarray:
    """In dB, by the sum of the definition."""
    powers = np.exp(-2j * np.pi * np.outer(freq, np.arange(len(impulse))) / rate)
    return 20 * np.log10(np.abs(powers @ impulse))


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.functional._biquads)
    assert result.attempted > 30
    assert result.failed == 0


@every_biquad
def test_signature_is_that_of_torchaudio(name: str) -> None:
    parameters = inspect.signature(getattr(functional, name)).parameters
    shown = [str(p.replace(annotation=p.empty)) for p in parameters.values()]
    assert shown == ["waveform", *SIGNATURES[name][0].split(", "), "clamp=True"]
    assert parameters["clamp"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", COOKBOOK)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_cookbook_filters(name: str, rate: int) -> None:
    """Poles of radius below 0.99 make an error of some eps in the coefficients a thousand times as great."""
    values = dict(WITH_PARAMETERS[name])
    arguments = {"freq" if key.endswith("freq") else key: value for key, value in values.items()}
    section = reference(COOKBOOK[name], rate, **arguments)
    x = waveform(2, 500)
    expected = torch.from_numpy(scipy.signal.lfilter(section[:3], section[3:], x.numpy()))
    assert_close(biquad(name, x, rate, clamp=False), expected, rtol=0, atol=1e-12)
    assert_close(biquad(name, 9 * x, rate), (9 * expected).clamp(-1, 1), rtol=0, atol=1e-11)


def test_the_other_modes() -> None:
    x, rate, freq, Q = waveform(300), 16000, 1200.0, 3.0
    section = reference("bandpass, skirt", rate, freq, Q)
    y = functional.bandpass_biquad(x, rate, freq, Q, True, clamp=False)
    assert_close(y.numpy(), scipy.signal.lfilter(section[:3], section[3:], x.numpy()), rtol=0, atol=1e-12)
    for noise in (False, True):
        a2 = math.exp(-2 * math.pi * freq / Q / rate)
        a1 = -4 * a2 / (1 + a2) * math.cos(2 * math.pi * freq / rate)
        b0 = math.sqrt(1 - a1 * a1 / (4 * a2)) * (1 - a2)
        if noise:
            b0 *= math.sqrt(((1 + a2) ** 2 - a1 * a1) * (1 - a2) / (1 + a2)) / b0
        y = functional.band_biquad(x, rate, freq, Q, noise, clamp=False)
        assert_close(y.numpy(), scipy.signal.lfilter([b0], [1, a1, a2], x.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("Q", [0.02, 0.707, 10.0])
@pytest.mark.parametrize("freq", [100.0, 3000.0, 7900.0])
def test_band_has_the_gain_and_the_power_that_define_it(freq: float, Q: float) -> None:
    """At 7900 Hz and Q = 0.02, a2 is e^−155, which is 0 in float32: torchaudio is NaN there."""
    rate = 16000
    pitched = response("band_biquad", rate, central_freq=freq, Q=Q)
    assert gain(pitched, np.array([freq]), rate) == pytest.approx(0, abs=1e-9)
    around = gain(pitched, np.array([0.97, 1.03]) * freq, rate)
    assert (around <= 1e-9).all()
    noise = response("band_biquad", rate, central_freq=freq, Q=Q, noise=True)
    assert (noise**2).sum() == pytest.approx(1, rel=1e-9)
    assert_close(noise / noise[0], pitched / pitched[0], rtol=0, atol=1e4 * EPS)  # it rings for some 1e3 samples


@pytest.mark.parametrize(("rate", "tolerance"), [(44100, 0.07), (48000, 0.07)])
def test_deemphasis_follows_its_curve(rate: int, tolerance: float) -> None:
    """IEC 60908: 50 and 15 µs, −10 dB towards high frequencies; the tolerance in dB is the shelf's."""
    impulse = response("deemph_biquad", rate)
    assert gain(impulse, np.array([0.0]), rate) == pytest.approx(0, abs=1e-9)
    freq = np.geomspace(20, 20000, 100)
    s = 2j * np.pi * freq
    curve = 20 * np.log10(np.abs((1 + 15e-6 * s) / (1 + 50e-6 * s)))
    np.testing.assert_allclose(gain(impulse, freq, rate), curve, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("rate", "tolerance"), [(44100, 0.45), (48000, 0.28), (88200, 0.07), (96000, 0.07)])
def test_riaa_follows_its_curve(rate: int, tolerance: float) -> None:
    """Time constants of 3180, 318 and 75 µs, 0 dB at 1 kHz; the tolerances in dB are those of SoX's zeros and poles."""
    impulse = response("riaa_biquad", rate)
    assert gain(impulse, np.array([1000.0]), rate) == pytest.approx(0, abs=1e-9)
    freq = np.geomspace(20, 20000, 100)

    def curve(freq: np.ndarray) -> np.ndarray:
        s = 2j * np.pi * freq
        return 20 * np.log10(np.abs((1 + 318e-6 * s) / (1 + 3180e-6 * s) / (1 + 75e-6 * s)))

    expected = curve(freq) - curve(np.array([1000.0]))
    np.testing.assert_allclose(gain(impulse, freq, rate), expected, rtol=0, atol=tolerance)


def test_published_points_of_riaa() -> None:
    """The table of the standard: 20 Hz +19.274 dB, 100 Hz +13.088, 500 Hz +2.648, 10 kHz −13.734, 20 kHz −19.620."""
    points = gain(response("riaa_biquad", 96000), np.array([20.0, 100.0, 500.0, 10000.0, 20000.0]), 96000)
    np.testing.assert_allclose(points, [19.274, 13.088, 2.648, -13.734, -19.620], rtol=0, atol=0.07)


def test_a_bank_shares_its_input() -> None:
    x, cutoff, Q = waveform(4, 1, 200), torch.linspace(100, 7000, 8), torch.tensor([[[0.5]], [[0.7]]])
    y = lowpass_biquad(x, 16000, cutoff)
    assert y.shape == (4, 8, 200)
    assert lowpass_biquad(x, 16000, cutoff, Q).shape == (2, 4, 8, 200)
    for i, f in enumerate(cutoff.tolist()):
        assert_close(y[:, i], lowpass_biquad(x[:, 0], 16000, f), rtol=0, atol=1e-13)
    assert lowpass_biquad(x[0, 0], 16000, cutoff).shape == (8, 200)
    each = lowpass_biquad(x, 16000, cutoff[:4, None])  # a cutoff for each item
    assert_close(each[3, 0], y[3, 3], rtol=0, atol=1e-13)
    assert each.shape == (4, 1, 200)


def test_the_gradient_of_the_cutoff() -> None:
    cutoff = torch.tensor(1000.0, requires_grad=True)
    lowpass_biquad(waveform(2, 400).float(), 16000, cutoff).square().mean().backward()
    assert cutoff.grad is not None
    assert cutoff.grad.dtype == torch.float32

    def loss(f: float) -> float:
        return lowpass_biquad(waveform(2, 400).float().double(), 16000, f).square().mean().item()

    assert cutoff.grad.item() == pytest.approx((loss(1001.0) - loss(999.0)) / 2, rel=1e-4)  # the step's square


@every_parametric
def test_derivatives(name: str) -> None:
    """By the waveform and every parameter; frequencies in kHz, as the steps of gradcheck want it."""
    values = WITH_PARAMETERS[name]
    scales = {key: 1000.0 if key.endswith("freq") else 1.0 for key in values}

    def function(x: Tensor, rate: Tensor, *given: Tensor) -> Tensor:
        changes = {key: scales[key] * value for key, value in zip(values, given, strict=True)}
        return biquad(name, x, 1000 * rate, **changes)

    parameters = [torch.tensor([v / scales[key], 1.1 * v / scales[key]]) for key, v in values.items()]
    inputs = (waveform(2, 1, 12, scale=0.1), torch.tensor(16.0), *parameters)
    leaves = tuple(t.double().requires_grad_() for t in inputs)
    assert function(*leaves).abs().max() < 1  # within the clamp
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("noise", [False, True])
def test_derivatives_of_band(noise: bool) -> None:
    def function(freq: Tensor, Q: Tensor) -> Tensor:
        return functional.band_biquad(waveform(10), 16, freq, Q, noise)

    leaves = tuple(torch.tensor([v, 1.1 * v]).double()[:, None].requires_grad_() for v in (1.5, 0.7))
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True)


def calls(name: str) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """A function of a waveform and the parameters as tensors, and three of each along the first dimension."""
    values = WITH_PARAMETERS.get(name, {})

    def function(x: Tensor, *given: Tensor) -> Tensor:
        return biquad(name, x, **dict(zip(values, given, strict=True)))

    spread = torch.tensor([0.9, 1.0, 1.2], dtype=torch.float64)
    return function, (waveform(3, 50), *(v * spread for v in values.values()))


@every_biquad
def test_transforms(name: str) -> None:
    function, inputs = calls(name)
    y = function(*inputs)
    assert (y.shape, y.is_contiguous()) == ((3, 50), True)
    assert_close(vmap(function)(*inputs), y, rtol=0, atol=1e-13)
    assert_close(torch.stack([function(*p) for p in zip(*inputs, strict=True)]), y, rtol=0, atol=1e-13)
    tangents = tuple(torch.randn_like(p) for p in inputs)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs), y, rtol=0, atol=1e-13)
    assert_close(
        torch.compile(lambda *p: jvp(function, p, tangents), fullgraph=True, backend="aot_eager")(*inputs),
        jvp(function, inputs, tangents),
    )


@every_biquad
def test_compiled_with_numbers(name: str) -> None:
    x = waveform(2, 40)
    for dynamic in (False, True):
        compiled = torch.compile(
            lambda x, q: biquad(name, x, **q), fullgraph=True, backend="aot_eager", dynamic=dynamic
        )
        for Q in (0.5, 0.8) if dynamic else (0.5,):  # another number is another graph
            changes = {"Q": Q} if name in WITH_PARAMETERS else {}
            assert_close(compiled(x, changes), biquad(name, x, **changes), rtol=0, atol=1e-13)


def test_a_step_of_training_by_inductor() -> None:
    x = waveform(1, 100).float()

    def loss(cutoff: Tensor) -> Tensor:
        return lowpass_biquad(x, 16000, cutoff).square().mean()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        cutoff = torch.tensor([500.0, 2000.0], requires_grad=True)
        function(cutoff).backward()
        results.append(cutoff.grad)
    assert_close(results[1], results[0])


@every_biquad
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_waveforms_meet_an_exact_filter(name: str, dtype: torch.dtype) -> None:
    """The result is that of the same samples in float64, rounded; a design in the dtype would be some percent off."""
    x = waveform(3, 300, scale=0.5).to(dtype)
    y = biquad(name, x)
    assert y.dtype == dtype
    rounding = torch.finfo(dtype).eps * (0.5 if dtype != torch.float32 else 1) + torch.finfo(torch.float32).eps
    assert_close(y.double(), biquad(name, x.double()), rtol=rounding, atol=rounding / 64)
    narrow = {key: torch.tensor(value, dtype=dtype) for key, value in WITH_PARAMETERS.get(name, {}).items()}
    wide = {key: value.double() for key, value in narrow.items()}
    assert_close(biquad(name, x, **narrow), biquad(name, x, **wide), rtol=0, atol=0)


def test_what_is_not_a_tensor() -> None:
    x = waveform(2, 30)
    expected = lowpass_biquad(x, 16000, torch.tensor([500.0, 800.0]).double())
    for cutoff in ([500, 800], (500.0, 800.0), np.array([500, 800])):
        assert_close(lowpass_biquad(x, np.int64(16000), cutoff), expected)
    assert_close(lowpass_biquad(x.numpy(), 16000, [500, 800]), expected)
    assert_close(lowpass_biquad(x.tolist(), 16000.0, [500, 800]), expected)
    assert lowpass_biquad(torch.ones(5, dtype=torch.int32), 16000, 500).dtype == torch.float32
    z = torch.complex(x, -x)
    assert_close(lowpass_biquad(z, 16000, 500, clamp=False).imag, -lowpass_biquad(x, 16000, 500, clamp=False))
    assert lowpass_biquad(x[:, :0], 16000, 500).shape == (2, 0)


def test_a_tensor_out_of_range_is_nan_alone() -> None:
    cutoff = torch.tensor([500.0, 9000.0, -1.0, 800.0], requires_grad=True)
    Q = torch.tensor(0.7, requires_grad=True)
    y = lowpass_biquad(waveform(1, 30), 16000, cutoff, Q)
    assert y.isnan().all(-1).tolist() == [False, True, True, False]
    y[[0, 3]].sum().backward()
    assert cutoff.grad is not None
    assert Q.grad is not None
    assert (cutoff.grad[[0, 3]] != 0).all()
    assert cutoff.grad.isfinite().all()
    assert Q.grad.isfinite()


def test_devices() -> None:
    """Parameters go where the waveform is, unread."""
    x = torch.ones(2, 1, 8, device="meta")
    for cutoff in (500, [500.0, 600.0, 700.0], torch.ones(3), torch.ones(3, device="meta")):
        y = lowpass_biquad(x, 16000, cutoff)
        assert y.device.type == "meta"
        assert y.shape[-1] == 8


X = torch.ones(2, 8)

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "above Nyquist": (
        lambda: functional.lowpass_biquad(X, 16000, 8000),
        ValueError,
        "cutoff_freq must lie below half of sample_rate, got cutoff_freq 8000, sample_rate 16000",
    ),
    "negative": (lambda: functional.highpass_biquad(X, 16000, -5), ValueError, "cutoff_freq must be positive"),
    "central": (lambda: functional.allpass_biquad(X, 16000, 0.0), ValueError, "central_freq must be positive"),
    "NaN": (lambda: functional.band_biquad(X, 16000, math.nan), ValueError, "central_freq must be positive"),
    "infinite": (lambda: functional.bandpass_biquad(X, 16000, math.inf), ValueError, "central_freq must be positive"),
    "default": (lambda: functional.treble_biquad(X, 4000, 3.0), ValueError, "central_freq must lie below half"),
    "Q": (lambda: functional.bandreject_biquad(X, 16000, 100, 0), ValueError, "Q must be positive and finite"),
    "Q of band": (lambda: functional.band_biquad(X, 16000, 100, -1), ValueError, "Q must be positive and finite"),
    "gain": (lambda: functional.bass_biquad(X, 16000, math.inf), ValueError, "gain must lie within ±6000 dB"),
    "gain second": (lambda: functional.equalizer_biquad(X, 16000, 100, -1e5), ValueError, "gain must lie within"),
    "rate": (lambda: functional.lowpass_biquad(X, 0, 100), ValueError, "sample_rate must be positive and finite"),
    "deemph": (
        lambda: functional.deemph_biquad(X, 16000),
        ValueError,
        r"sample_rate must be one of \[44100, 48000\], got 16000",
    ),
    "riaa": (
        lambda: functional.riaa_biquad(X, 22050),
        ValueError,
        r"sample_rate must be one of \[44100, 48000, 88200, 96000\], got 22050",
    ),
    "rates": (lambda: functional.riaa_biquad(X, [44100]), ValueError, "sample_rate must be one of"),
    "rate as a tensor": (lambda: functional.deemph_biquad(X, torch.tensor(44100)), ValueError, "must be one of"),
    "scalar": (
        lambda: functional.lowpass_biquad(X.sum(), 16000, 100),
        ValueError,
        "waveform must have at least one dimension",
    ),
    "string": (lambda: functional.lowpass_biquad("x", 16000, 100), TypeError, "waveform must be a tensor"),
    "string cutoff": (lambda: functional.lowpass_biquad(X, 16000, "a"), TypeError, "cutoff_freq must be a tensor"),
    "None": (lambda: functional.lowpass_biquad(X, 16000, None), TypeError, "cutoff_freq must be a tensor"),
    "complex": (lambda: functional.lowpass_biquad(X, 16000, 100, 1j), TypeError, "Q must be real"),
    "clamp": (lambda: functional.lowpass_biquad(X + 0j, 16000, 100), ValueError, "clamp must be False for a complex"),
    "clamp by position": (lambda: functional.lowpass_biquad(X, 16000, 100, 0.7, False), TypeError, "positional"),
    "batch": (
        lambda: functional.lowpass_biquad(X, 16000, torch.full((3,), 100.0)),
        ValueError,
        r"must broadcast with .* waveform \[2, 8\] and parameters of shape \[3\]",
    ),
    "parameters": (
        lambda: functional.lowpass_biquad(X, 16000, torch.full((3,), 100.0), torch.ones(2)),
        ValueError,
        r"must broadcast together, got cutoff_freq \[3\], Q \[2\]",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["above Nyquist", "riaa", "scalar", "string", "clamp", "batch"])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
