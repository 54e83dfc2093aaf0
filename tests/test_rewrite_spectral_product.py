"""Products of spectra that are transformed back become operators from real numbers to real numbers."""

from __future__ import annotations

import random

import pytest
import torch
from rewriting import compare
from torch.fft import irfft, rfft

import torch_iir
from torch_iir import fft
from torch_iir.compiler.rewrites import spectral_product
from torch_iir.compiler.rewrites.spectral_product import NAME
from torch_iir.signal import lfilter

CONVOLUTION, SAMPLED = "torch_iir.fftconvolve.default", "torch_iir.lfilter_fsm.default"
ELSEWHERE = "a spectrum, or a product of some, is used elsewhere too"
POINTS = "the transforms are not known to have the same number of points"
WRAPS = "the convolution wraps around: n is not known to be T + K − 1 or more"
TRANSFORMS = {"rfft", "irfft", "iir_rfft", "iir_irfft"}


def signal(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype)


def denominator(*shape, dtype=torch.float32):
    """Nowhere small."""
    a = torch.randn(shape, dtype=dtype) * (0.6 / shape[-1])
    a[..., 0] = 1.5
    return a


PRODUCTS = {  # of x (2, 900) and h (2, 60)
    "plain": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024), 1024),
    "names": lambda x, h: irfft(torch.mul(rfft(h, n=960, dim=-1), rfft(x, n=960, dim=1)), n=960, dim=-1),
    "odd": lambda x, h: irfft(rfft(x, 959) * rfft(h, 959), n=959),
    "default of the inverse": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024)),
    "ortho": lambda x, h: irfft(rfft(x, 1024, norm="ortho") * rfft(h, 1024), 1024, norm="ortho"),
    "forward": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024, -1, "forward"), 1024, -1, "forward"),
    "ours": lambda x, h: fft.irfft(fft.rfft(x, 1024, norm="ortho") * fft.rfft(h, 1024), 1024, norm="ortho"),
    "ours and torch's": lambda x, h: irfft(fft.rfft(x, 1024) * rfft(h, 1024), 1024),
    "as long as needed": lambda x, h: irfft(rfft(x, n := x.shape[-1] + h.shape[-1] - 1) * rfft(h, n), n),
    "twice as long": lambda x, h: irfft(rfft(x, n := 2 * x.shape[-1]) * rfft(h, n), n)[..., : x.shape[-1]],
    "cut": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024), 1024)[:, :900].tanh(),
    "cut at both ends": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024), 1024)[..., 30:930] + x,
    "narrowed": lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024), 1024).narrow(-1, 59, 900 - 59) * 2,
    "wraps where it is not used": lambda x, h: irfft(rfft(x) * rfft(h, 900), 900)[..., h.shape[-1] - 1 :].square(),
    "one row": lambda x, h: irfft(rfft(x[0], 1024) * rfft(h[0], 1024), 1024)[:900],
    "rows added": lambda x, h: irfft(rfft(x, 1024).unsqueeze(1) * rfft(h, 1024)[None, ..., None, :], 1024),
    "rows added to both": lambda x, h: irfft((rfft(x, 1024) * rfft(h, 1024))[None], 1024),
    "one signal": lambda x, h: irfft((spectrum := rfft(x, 2048)) * spectrum, 2048)[..., :900] * h[:, :1],
}


@pytest.mark.parametrize("spelling", PRODUCTS)
def test_convolutions(spelling, monkeypatch):
    monkeypatch.setattr(spectral_product, "SHORTER", 1)
    after = compare(PRODUCTS[spelling], signal(2, 900), signal(2, 60))
    assert after.fired == [NAME]
    assert not after.missed
    assert after.report.after[CONVOLUTION] == 1
    assert not TRANSFORMS & after.report.after.keys()


QUOTIENTS = {  # of x (2, 300), b (3) and a (3)
    "(X B) / A": lambda x, b, a: irfft(rfft(x, 640) * rfft(b, 640) / rfft(a, 640), 640)[..., :300],
    "X (B / A)": lambda x, b, a: irfft(rfft(x, 640) * (rfft(b, 640) / rfft(a, 640)), 640)[..., :300].tanh(),
    "(B / A) X": lambda x, b, a: irfft(torch.mul(rfft(b, 640).div(rfft(a, 640)), rfft(x, 640)), 640)[..., :300] * 2,
    "(X / A) B": lambda x, b, a: irfft(rfft(x, 640) / rfft(a, 640) * rfft(b, 640), 640),
    "X / (A / B)": lambda x, b, a: irfft(rfft(x, 640) / (rfft(a, 640) / rfft(b, 640)), 640)[:, :200],
    "X / A": lambda x, b, a: irfft(rfft(x, 640) / rfft(a, 640), 640)[..., :300] + b[0],
    "(1 / A) X": lambda x, b, a: irfft(1 / rfft(a, 640) * rfft(x, 640), 640)[..., :300] * b[0],
    "B1 / A1 B2 / A2": lambda x, b, a: irfft(
        rfft(x, 640) * (rfft(b, 640) / rfft(a, 640)) * (rfft(b[1:], 640) / rfft(a.tanh(), 640)), 640
    ),
    "B1 B2 / A": lambda x, b, a: irfft(rfft(x, 640) * rfft(b, 640) * rfft(b[:2], 640) / rfft(a, 640), 640),
    "B / (A1 A2)": lambda x, b, a: irfft(rfft(x, 640) * rfft(b, 640) / (rfft(a, 640) * rfft(a[:2], 640)), 640),
    "as many points as samples": lambda x, b, a: irfft(rfft(x) * rfft(b, 300) / rfft(a, 300), 300),
    "an odd number": lambda x, b, a: irfft(rfft(x, 301) * rfft(b, 301) / rfft(a, 301), 301),
    "norms": lambda x, b, a: irfft(rfft(x, 640) * rfft(b, 640, norm="ortho") / rfft(a, 640, norm="ortho"), 640),
    "ours": lambda x, b, a: fft.irfft(fft.rfft(x, 640) * (fft.rfft(b, 640) / fft.rfft(a, 640)), 640)[..., :300],
    "a bank": lambda x, b, a: irfft(rfft(x, 640)[:, None] * (rfft(b * x[:2, :1], 640) / rfft(a, 640))[None], 640)[
        ..., :300
    ].relu(),
    "a cascade of a bank": lambda x, b, a: irfft(
        rfft(x, 640) * rfft(b * x[:2, :1], 640) / rfft(a, 640) / rfft(a[:2], 640), 640
    ),
    "into a filter": lambda x, b, a: lfilter(b, a, irfft(rfft(x, 640) * (rfft(b, 640) / rfft(a, 640)), 640)[..., :300]),
}


@pytest.mark.parametrize("spelling", QUOTIENTS)
def test_sampled_filters(spelling):
    after = compare(QUOTIENTS[spelling], signal(2, 300), signal(3), denominator(3))
    assert after.fired == [NAME]
    assert not after.missed
    assert after.report.after[SAMPLED] == 1
    assert not TRANSFORMS & after.report.after.keys()


@pytest.mark.parametrize("spelling", ["as long as needed", "cut", "(X / A) B", "(B / A) X"])
def test_double_precision(spelling):
    if spelling in PRODUCTS:
        given = PRODUCTS[spelling], signal(2, 900, dtype=torch.float64), signal(60, dtype=torch.float64)
    else:
        coefficients = signal(3, dtype=torch.float64), denominator(3, dtype=torch.float64)
        given = QUOTIENTS[spelling], signal(2, 300, dtype=torch.float64), *coefficients
    assert compare(*given, rtol=1e-12).fired == [NAME]


def test_coefficients_of_another_precision():
    x, b, a = signal(2, 300, dtype=torch.float64), signal(3), denominator(3)
    after = compare(QUOTIENTS["(X / A) B"], x, b, a)
    assert after.fired == [NAME]
    exact = QUOTIENTS["(X / A) B"](x, b.double(), a.double())
    torch.testing.assert_close(after.function(x, b, a), exact, rtol=1e-12, atol=1e-12)

    after = compare(QUOTIENTS["(X / A) B"], x.float(), b.double(), a.double())
    assert not after.fired
    assert after.missed == [(NAME, "the dtype would be torch.float32, not torch.float64")]


@pytest.mark.parametrize("spelling", ["as long as needed", "wraps where it is not used"])
def test_convolutions_of_any_length(spelling):
    def function(x, h):
        n = x.shape[-1]
        return irfft(rfft(x, n) * rfft(h, n), n)[..., h.shape[-1] - 1 :].square()

    function = PRODUCTS[spelling] if spelling == "as long as needed" else function
    after = compare(function, signal(2, 900), signal(2, 60), dynamic=True)
    assert after.fired == [NAME]
    x, h = signal(3, 1201).requires_grad_(), signal(3, 70).requires_grad_()
    torch.testing.assert_close(after.function(x, h), function(x, h), rtol=1e-5, atol=1e-4)
    assert len(after.reports) == 1  # not traced again


@pytest.mark.parametrize("used", ["cut", "cut and used", "all"])
def test_sampled_filters_of_any_length(used):
    def function(x, b, a):
        n = 2 * x.shape[-1]
        y = irfft(rfft(x, n) * (rfft(b, n) / rfft(a, n)), n)
        return y if used == "all" else y[..., : x.shape[-1]] if used == "cut" else y[..., : x.shape[-1]].tanh()

    after = compare(function, signal(2, 300), signal(4), denominator(3), dynamic=True)
    assert after.fired == [NAME]
    assert after.report.after["pad"] == (used != "cut and used")
    x, b, a = signal(4, 500).requires_grad_(), signal(5).requires_grad_(), denominator(2).requires_grad_()
    torch.testing.assert_close(after.function(x, b, a), function(x, b, a), rtol=1e-5, atol=1e-5)
    assert len(after.reports) == 1


def test_what_is_used_twice_is_computed_whole():
    def function(x, h):
        y = irfft(rfft(x, 1024) * rfft(h, 1024), 1024)[..., :900]
        return y.tanh(), y.abs().amax(-1)

    after = compare(function, signal(2, 900), signal(60))
    assert after.fired == [NAME]
    assert after.report.after["getitem"] == 1


def test_of_other_operations_around_it():
    def function(x, h, b, a):
        room = irfft(rfft(x.tanh(), 1024) * rfft(h, 1024), 1024)[..., :900]
        low = irfft(rfft(room, 2048) * (rfft(b, 2048) / rfft(a, 2048)), 2048)[..., :900]
        level = rfft(low).abs().mean(-1, keepdim=True)
        return low / (1 + level), irfft(rfft(low, 1024) * rfft(h.square(), 1024), 1024)

    after = compare(function, signal(2, 900), signal(60), signal(3), denominator(3))
    assert after.fired == [NAME] * 3


@pytest.mark.parametrize("seed", range(6))
def test_random_pieces_of_convolutions(seed):
    rng = random.Random(seed)
    samples, taps = rng.randint(400, 900), rng.randint(1, 99)
    n = rng.randint(samples, samples + taps + 20)
    wrapped = max(samples + taps - 1 - n, 0)
    start = rng.choice([0, rng.randint(0, 120)])
    stop = rng.randint(start, n)

    def function(x, h, gain):
        y = irfft(rfft(x * gain, n) * rfft(h.tanh(), n), n)[..., start:stop]
        return y * gain if seed % 2 else y

    after = compare(function, signal(2, samples), signal(taps), signal(2, 1))
    assert (after.fired, after.missed) == (([], [(NAME, WRAPS)]) if start < wrapped else ([NAME], []))


def test_torchaudio(torchaudio):
    after = compare(torchaudio.transforms.FFTConvolve("valid"), signal(2, 3, 900), signal(2, 3, 60), dynamic=True)
    assert after.fired == [NAME]


# --- where it does not fire


def elsewhere(x, h):
    spectrum = rfft(x, 1024)
    return irfft(spectrum * rfft(h, 1024), 1024), spectrum.abs()


def one_spectrum_for_two_filters(x, h):
    spectrum = rfft(x, 1024)
    return irfft(spectrum * rfft(h, 1024), 1024), irfft(spectrum * rfft(h.tanh(), 1024), 1024)


def product_used(x, h):
    product = rfft(x, 1024) * rfft(h, 1024)
    return irfft(product, 1024), product.abs()


def written_to(x, h):
    h = h.clone()
    h[0] += 1
    return irfft(rfft(x, 1024) * rfft(h, 1024), 1024)


def without_gradients(x, h):
    with torch.no_grad():
        response = rfft(h, 1024)
    return irfft(rfft(x, 1024) * response, 1024)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (elsewhere, ELSEWHERE),
        (one_spectrum_for_two_filters, ELSEWHERE),
        (product_used, ELSEWHERE),
        (written_to, "a tensor is written to in place"),
        (without_gradients, "a change of mode (autocast, gradients) lies between"),
        (lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1025), 1024), POINTS),
        (lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024), 1000), POINTS),
        (lambda x, h: irfft(rfft(x[..., :899]) * rfft(h, 899)), POINTS),
        (lambda x, h: irfft(rfft(x, 958) * rfft(h, 958), 958), WRAPS),
        (lambda x, h: irfft(rfft(x, 900) * rfft(h, 900), 900)[..., 58:], WRAPS),
        (lambda x, h: irfft(rfft(x, 900) * rfft(h, 900), 900)[..., -800:], WRAPS),
        (lambda x, h: irfft(rfft(x, 800) * rfft(h, 800), 800), "n is not known to be as large as the signals are long"),
        (
            lambda x, h: irfft(rfft(x, 1024, norm="ortho") * rfft(h, 1024), 1024),
            "the norms of the transforms do not make up 1/n",
        ),
        (
            lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024) * rfft(h, 1024), 1024),
            "more than two spectra are multiplied",
        ),
        (lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024) * 2, 1024), "a factor is not the rfft of a signal"),
        (lambda x, h: irfft(rfft(x, 1024) * rfft(h, 1024).conj(), 1024), None),
        (lambda x, h: irfft(rfft(x.long(), 1024) * rfft(h, 1024), 1024), "a signal is neither float32 nor float64"),
    ],
)
def test_it_nearly_fits(function, why):
    after = compare(function, signal(2, 900), signal(60))
    assert not after.fired
    assert set(after.missed) == ({(NAME, why)} if why else set())


@pytest.mark.parametrize(
    "function",
    [
        lambda x, h: irfft(rfft(x, 1024), 1024),
        lambda x, h: irfft(rfft(x, 1024) * h[0], 1024),
        lambda x, h: irfft(rfft(x, 1024) / rfft(h, 1024), 1024),  # of too many coefficients
        lambda x, h: irfft(rfft(x[..., :200], 512) * rfft(h, 512), 512),  # of about the same length
        lambda x, h: irfft(rfft(x, 64, dim=0) * rfft(h[:, None], 64, dim=0), 64, dim=0),
        lambda x, h: irfft(rfft(x, 1024) + rfft(h, 1024), 1024),
        lambda x, h: torch.fft.ifft(torch.fft.fft(x, 1024) * torch.fft.fft(h, 1024), 1024),
        lambda x, h: irfft(1 / rfft(x, 1024) / rfft(h, 1024), 1024),
    ],
)
def test_it_is_something_else(function):
    x = signal(2, 900)
    x[..., 0] += 100  # so that its spectrum is nowhere 0
    h = 0.1 * signal(60)
    h[0] += 2
    after = compare(function, x, h)
    assert not after.fired
    assert not after.missed


def test_lengths_that_are_not_known_to_fit():
    after = compare(PRODUCTS["plain"], signal(2, 900), signal(2, 60), dynamic=True)
    assert not after.fired
    assert after.missed == [(NAME, WRAPS)]


def test_through_inductor():
    function = QUOTIENTS["X (B / A)"]
    x, b, a = signal(2, 300), signal(3), denominator(3).requires_grad_()
    compiled, expected = torch_iir.compile(function)(x, b, a), function(x, b, a)
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(y.square().sum(), a) for y in (compiled, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
