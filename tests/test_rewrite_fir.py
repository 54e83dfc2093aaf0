"""Long convolutions of single channels become filters."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from rewriting import compare, rewritten

import torch_iir
from torch_iir.compiler.rewrites.fir import NAME


def signal(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype)


def kernel(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype) / shape[-1] ** 0.5


SPELLINGS = {  # with a kernel of 65
    "none": lambda x, w: torch.conv1d(x, w),
    "valid": lambda x, w: F.conv1d(x, w, padding="valid"),
    "same": lambda x, w: F.conv1d(x, w, padding="same"),
    "some": lambda x, w: F.conv1d(x, w, padding=10),
    "all, of a tuple": lambda x, w: F.conv1d(x, w, None, (1,), (w.shape[-1] - 1,), (1,), 1),
    "more than the kernel": lambda x, w: F.conv1d(x, w, padding=100),
    "causal": lambda x, w: F.conv1d(F.pad(x, (w.shape[-1] - 1, 0)), w),
    "causal, cut": lambda x, w: F.conv1d(x, w, padding=w.shape[-1] - 1)[..., : x.shape[-1]],
    "twice": lambda x, w: F.conv1d(F.pad(x, (5, 7, 0, 0), value=0.0), w, padding=3),
    "behind": lambda x, w: F.conv1d(F.pad(x, (0, 70)), w),
    "reflected": lambda x, w: F.conv1d(F.pad(x, (32, 32), mode="reflect"), w),
    "not zeros": lambda x, w: F.conv1d(F.pad(x, (9, 0), value=1.0), w),
    "cut": lambda x, w: F.conv1d(F.pad(x, (-9, 3)), w, padding=4),
    "rows": lambda x, w: F.conv1d(F.pad(x, (9, 9, 0, 0, 1, 1)), w),
    "reversed": lambda x, w: F.conv1d(x, w.flip(-1), padding=10),
    "bias": lambda x, w: F.conv1d(x, w, w[:, 0, 0]),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_fires(spelling):
    after = compare(SPELLINGS[spelling], signal(2, 1, 6000), kernel(1, 1, 65))
    assert after.fired == [NAME]
    assert not after.missed


@pytest.mark.parametrize("spelling", ["none", "same", "more than the kernel", "causal, cut", "twice", "cut"])
def test_it_fires_on_signals_of_any_length(spelling):
    def function(x, w):
        return SPELLINGS[spelling](x, w.view(1, 1, 65))

    after = compare(function, signal(2, 1, 6000), kernel(65), dynamic=True)
    assert after.fired == [NAME]
    x, w = signal(2, 1, 7001).requires_grad_(), kernel(65).requires_grad_()
    torch.testing.assert_close(after.function(x, w), function(x, w), rtol=1e-5, atol=1e-5)
    assert len(after.reports) == 1  # not traced again


def test_modules():
    layer = torch.nn.Conv1d(3, 3, 41, padding=20, groups=3)
    after = compare(lambda x: layer(x), signal(2, 3, 6000), dynamic=True)
    assert after.fired == [NAME]


def test_zeros_in_front_are_not_put_there():
    after = compare(SPELLINGS["causal"], signal(2, 1, 6000), kernel(1, 1, 65))
    assert after.report.after.keys() == {"flip", "squeeze", "ones", "lfilter", "getitem"}


def test_zeros_that_are_used_elsewhere_stay():
    def function(x, w):
        padded = F.pad(x, (64, 0))
        return F.conv1d(padded, w), padded.abs()

    after = compare(function, signal(2, 1, 6000), kernel(1, 1, 65))
    assert after.fired == [NAME]
    assert after.report.after["pad"] == 1


def test_a_reversed_kernel_is_not_reversed_twice():
    after = compare(SPELLINGS["reversed"], signal(2, 1, 6000), kernel(1, 1, 65))
    assert after.report.after["flip"] == 0


@pytest.mark.parametrize(
    ("shape", "weight", "groups"),
    [
        ((3, 2, 4000), (2, 1, 50), 2),  # one filter for each channel
        ((2, 2, 4000), (6, 1, 300), 2),  # three
        ((8, 1, 1000), (3, 1, 300), 1),  # a bank
        ((2, 4000), (2, 1, 70), 2),  # without batch
        ((1, 9000), (1, 1, 70), 1),
        ((2, 4000), (4, 1, 300), 2),
    ],
)
def test_channels(shape, weight, groups):
    def function(x, w, bias):
        return F.conv1d(x, w, bias, padding=20, groups=groups)

    after = compare(function, signal(*shape), kernel(*weight), signal(weight[0]))
    assert after.fired == [NAME]


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_dtypes(dtype, rtol):
    after = compare(SPELLINGS["some"], signal(2, 1, 6000, dtype=dtype), kernel(1, 1, 65, dtype=dtype), rtol=rtol)
    assert after.fired == [NAME]


def test_it_is_closer_than_the_convolution_where_most_of_the_signal_is_taken_away():
    t = torch.arange(20000, dtype=torch.float64)
    x = (torch.cos(2.9 * t) + 1e-3 * torch.randn(20000)).float()[None, None]
    w = torch.hann_window(1024)[None, None] / 1024
    after = rewritten(lambda x, w: F.conv1d(x, w))
    exact = F.conv1d(x.double(), w.double())
    ours, theirs = (float((y - exact).abs().max()) for y in (after.function(x, w), F.conv1d(x, w)))
    assert after.fired == [NAME]
    assert ours < theirs
    assert ours < 2 * torch.finfo(torch.float32).eps * float(exact.abs().max())


def test_of_other_operations_around_it():
    def function(x, w, gain):
        low = F.conv1d(x * gain, torch.tanh(w), padding=31)[..., 3:]
        high = x[..., 3:] - F.pad(low, (1, 1))
        return F.leaky_relu(high).mean(-1), F.conv1d(high, w, padding=20, groups=1)

    after = compare(function, signal(3, 1, 5000), kernel(1, 1, 65), signal(3, 1, 1))
    assert after.fired == [NAME, NAME]


@pytest.mark.parametrize("seed", range(6))
def test_random_convolutions(seed):
    rng = random.Random(seed)
    channels, filters = rng.choice([(1, 1), (3, 1), (2, 3)])
    taps = rng.randint(256, 400) if filters > 1 else rng.randint(32, 300)
    ends, more, cut = [rng.randint(0, taps + 9) for _ in "lr"], rng.randint(0, 40), rng.randint(0, 30)

    def function(x, w, bias):
        y = F.conv1d(F.pad(x, ends), w, bias if cut % 2 else None, padding=more, groups=channels)
        return y[..., cut:].tanh() * bias[:, None]

    after = compare(
        function, signal(3, channels, 4000), kernel(channels * filters, 1, taps), signal(channels * filters)
    )
    assert after.fired == [NAME]


def test_torchaudio(torchaudio):
    after = compare(torchaudio.transforms.Convolve("same"), signal(2, 3, 4000), signal(2, 3, 64))
    assert after.fired == [NAME]


# --- where it does not fire


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((2, 1, 6000), (1, 1, 16), {}),  # a short kernel
        ((1, 1, 2000), (1, 1, 64), {}),  # little to do
        ((4, 1, 8000), (8, 1, 64), {}),  # a matrix product
        ((64, 1, 1000), (1, 1, 900), {}),  # few results
        ((2, 1, 200), (1, 1, 65), {"stride": 2}),
    ],
)
def test_it_is_not_done_where_it_is_not_faster(shape, weight, options):
    after = compare(lambda x, w: F.conv1d(x, w, **options), signal(*shape), kernel(*weight))
    assert not after.fired
    assert not after.missed


@pytest.mark.parametrize(
    ("weight", "options", "why"),
    [
        ((2, 1, 64), {"groups": 2, "stride": 2, "padding": 40}, "the stride or the dilation is not 1"),
        ((2, 1, 64), {"groups": 2, "dilation": (3,)}, "the stride or the dilation is not 1"),
        ((2, 2, 64), {}, "a kernel has several input channels: only one for each group is a filter"),
    ],
)
def test_other_convolutions_stay(weight, options, why):
    after = compare(lambda x, w: F.conv1d(x, w, **options), signal(2, 2, 6000), kernel(*weight))
    assert not after.fired
    assert after.missed == [(NAME, why)]


def test_a_bias_in_half_precision_is_not_rounded_twice():
    x, w = signal(2, 1, 6000, dtype=torch.bfloat16), kernel(1, 1, 65, dtype=torch.bfloat16)
    after = compare(SPELLINGS["bias"], x, w)
    assert not after.fired
    assert after.missed == [(NAME, "a bias would be added after rounding to half precision: add it apart")]


def test_complex_signals_stay():
    x, w = signal(2, 1, 6000, dtype=torch.complex64), kernel(1, 1, 65, dtype=torch.complex64)
    assert not compare(SPELLINGS["some"], x, w).fired


def test_autocast_rounds_what_a_filter_would_not():
    def function(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            return F.conv1d(x, w)

    after = compare(function, signal(2, 1, 6000), kernel(1, 1, 65), rtol=2e-2)
    assert not after.fired
    assert after.missed == [(NAME, "the dtype would be torch.float32, not torch.bfloat16")]


def test_what_is_written_to_in_place_stays():
    def function(x, w):
        y = F.conv1d(x, w)
        y[..., 0] += 1
        return y

    after = compare(function, signal(2, 1, 6000), kernel(1, 1, 65))
    assert not after.fired
    assert after.missed == [(NAME, "a tensor is written to in place")]


@pytest.mark.parametrize("spelling", ["some", "same"])
def test_kernels_of_any_length_are_not_known_to_be_longer_than_the_padding(spelling):
    after = compare(SPELLINGS[spelling], signal(2, 1, 6000), kernel(1, 1, 65), dynamic=True)
    assert not after.fired
    assert [rewrite for rewrite, _ in after.missed] == [NAME]


def test_through_inductor():
    def function(x, w, bias):
        return torch.relu(F.conv1d(x, w, bias, padding="same"))

    x, w, bias = signal(2, 1, 6000), kernel(1, 1, 65).requires_grad_(), signal(1)
    compiled = torch_iir.compile(function)(x, w, bias)
    expected = function(x, w, bias)
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(y.square().sum(), w) for y in (compiled, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
