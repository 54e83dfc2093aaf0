"""A causal convolution and an all-pole filter, in either order, become one filter."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from rewriting import compare

import torch_iir
from torch_iir import functional
from torch_iir.compiler.rewrites.conv1d_all_pole import NAME
from torch_iir.signal import lfilter


def coefficients(*shape, dtype=torch.float32):
    """Of stable denominators."""
    a = 0.8 * torch.randn(shape, dtype=dtype).abs() / shape[-1]
    a[..., 0] = 1.5
    return a


def arguments(rows=(2,), samples=200, taps=5, dtype=torch.float32):
    """A signal (*rows, samples), a kernel, and a denominator."""
    return torch.randn(*rows, samples, dtype=dtype), torch.randn(taps, dtype=dtype), coefficients(3, dtype=dtype)


SPELLINGS = {  # x (2, T), w (5,), a (3,)
    "channels made and taken": lambda x, w, a: lfilter(
        [1.0], a, F.conv1d(F.pad(x[:, None], (4, 0)), w[None, None])[:, 0]
    ),
    "as methods": lambda x, w, a: lfilter(
        a.new_ones(1), a, F.conv1d(F.pad(x.unsqueeze(1), (4, 0)), w.view(1, 1, 5)).squeeze(1)
    ),
    "padded by the convolution": lambda x, w, a: lfilter(
        [2.0], a, F.conv1d(x.unsqueeze(1), w.view(1, 1, 5), padding=4)[..., : x.shape[-1]].select(1, 0)
    ),
    "cut and taken at once": lambda x, w, a: lfilter(
        [2.0], a, F.conv1d(x[:, None], w.view(1, 1, 5), padding=4)[:, 0, :-4]
    ),
    "reshaped": lambda x, w, a: lfilter(
        [2.0], a, F.conv1d(x.reshape(-1, 1, 200), w.view(1, 1, 5), padding=4)[..., :-4].reshape(1, 2, -1)
    ),
    "flattened": lambda x, w, a: lfilter([2.0], a, F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5)).flatten(0, 1)),
    "narrowed": lambda x, w, a: lfilter(
        [2.0], a, F.conv1d(x[:, None], w.view(1, 1, 5), padding=4).narrow(-1, 0, x.shape[-1]).contiguous()
    ),
    "dimensions stay": lambda x, w, a: lfilter([2.0], a, F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5))),
    "rows picked": lambda x, w, a: lfilter([2.0], a, F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5))[1]),
    "without batch": lambda x, w, a: lfilter([2.0], a, F.conv1d(F.pad(x[:1], (4, 0)), w.view(1, 1, 5))[0]),
    "numerator of the argument": lambda x, w, a: lfilter(
        w[:1], a, F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5))
    ),
    "reversed kernel": lambda x, w, a: lfilter(w[:1], a, F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5).flip(-1))),
    "torchaudio's order": lambda x, w, a: functional.lfilter(
        F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5))[:, 0], a, a.new_ones(1), clamp=False
    ),
    "recursion first": lambda x, w, a: F.conv1d(F.pad(lfilter([2.0], a, x)[:, None], (4, 0)), w.view(1, 1, 5)),
    "recursion first, by methods": lambda x, w, a: F.conv1d(
        F.pad(lfilter(w[:1], a, x).unsqueeze(-2), (4, 0)), w.view(1, 1, 5)
    ).squeeze(-2),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_fires(spelling):
    after = compare(SPELLINGS[spelling], *arguments())
    assert after.fired == [NAME]
    assert not after.missed
    assert after.report.after["conv1d"] == after.report.after["pad"] == 0


@pytest.mark.parametrize("spelling", ["padded by the convolution", "dimensions stay", "recursion first"])
def test_it_fires_on_signals_of_any_length(spelling):
    def function(x, w, a):
        return SPELLINGS[spelling](x, w.view(5), a.view(3))

    after = compare(function, *arguments(), dynamic=True)
    assert after.fired == [NAME]
    x, w, a = (argument.requires_grad_() for argument in arguments(samples=311))
    torch.testing.assert_close(after.function(x, w, a), function(x, w, a), rtol=1e-5, atol=1e-5)
    assert len(after.reports) == 1  # not traced again


def test_the_length_of_the_kernel_may_change_too():
    def function(x, w, a):
        return lfilter([2.0], a, F.conv1d(F.pad(x[:, None], (w.shape[0] - 1, 0)), w[None, None])[:, 0])

    assert compare(function, *arguments(), dynamic=True).fired == [NAME]


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-13), (torch.complex64, 1e-5), (torch.complex128, 1e-13)]
)
def test_dtypes(dtype, rtol):
    after = compare(SPELLINGS["cut and taken at once"], *arguments(dtype=dtype), rtol=rtol)
    assert after.fired == [NAME]


def test_the_numerator_is_not_rounded():
    """1/3 in float64, which the filter takes as it is."""

    def function(x, w, a):
        return lfilter([1 / 3], a.double(), F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5)))

    after = compare(function, *arguments())
    assert after.fired == [NAME]
    x, w, a = arguments()
    exact = function(x.double(), w.double(), a)
    limit = 0.6 * torch.finfo(torch.float32).eps * float(exact.abs().max())
    torch.testing.assert_close(after.function(x, w, a).double(), exact, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("channels", "weight", "groups", "a", "order"),
    [
        (3, (3, 1, 5), 3, (3,), "both"),  # a kernel for each channel
        (3, (3, 1, 5), 3, (3, 4), "both"),  # and a denominator
        (1, (4, 1, 5), 1, (3,), "both"),  # a bank of kernels
        (1, (4, 1, 5), 1, (4, 3), "kernel first"),
        (1, (1, 1, 5), 1, (4, 3), "kernel first"),  # one kernel, a bank of denominators
        (3, (3, 1, 1), 3, (3, 2), "both"),  # K = 1
    ],
)
def test_channels(channels, weight, groups, a, order):
    def kernel_first(x, w, a):
        return lfilter(a.new_ones(1), a, F.conv1d(F.pad(x, (w.shape[-1] - 1, 0)), w, groups=groups))

    def recursion_first(x, w, a):
        return F.conv1d(F.pad(lfilter(a.new_ones(1), a, x), (w.shape[-1] - 1, 0)), w, groups=groups)

    for function in (kernel_first, recursion_first)[: 2 if order == "both" else 1]:
        after = compare(function, torch.randn(2, channels, 100), torch.randn(weight), coefficients(*a))
        assert after.fired == [NAME]
        assert after.report.after["conv1d"] == after.report.after["pad"] == 0


def test_of_other_operations_around_it():
    def function(x, w, a, gain):
        dry = torch.tanh(x * gain)
        wet = lfilter([1.0], a, F.conv1d(F.pad(dry[:, None], (4, 0)), w.view(1, 1, 5))[:, 0])
        other = lfilter([1.0, 0.5], a, F.conv1d(x[:, None], w.view(1, 1, 5), padding=2)[:, 0])
        return (wet + dry).clamp(-1, 1), (other * wet).mean(-1)

    after = compare(function, *arguments(), torch.randn(2, 1))
    assert after.fired == [NAME]


def test_kernels_around_one_filter_and_filters_around_one_kernel():
    def function(x, w, a):
        first = F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5))
        both = lfilter([1.0], a, lfilter([1.0], a.square(), first))
        return F.conv1d(F.pad(both, (4, 0)), w.view(1, 1, 5).tanh())

    after = compare(function, *arguments(), only=[NAME])
    assert after.fired == [NAME, NAME]
    assert after.report.after["lfilter"] == 2
    assert after.report.after["conv1d"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_random_programs(seed):
    rng = random.Random(seed)
    taps, more, rows = rng.randint(1, 150), rng.randint(0, 9), rng.choice([(1,), (2, 3)])
    first, second = rng.sample(["conv", "filter"], 2)

    def apply(which, x, w, a):
        if which == "filter":
            return lfilter(w[:1], a, x)
        x = x.reshape(-1, x.shape[-1])[:, None]
        y = F.conv1d(x, w[None, None], padding=taps - 1)[..., : x.shape[-1]] if first == "conv" else None
        return (F.conv1d(F.pad(x, (taps - 1, 0)), w[None, None]) if y is None else y).squeeze(1)

    def function(x, w, a):
        y = apply(second, apply(first, torch.sin(x), w, a), w, a)
        return (y[..., more:] / (1 + y.abs().amax(-1, keepdim=True))).sum(-1), F.pad(y, (more, 0))

    after = compare(function, *arguments(rows, 300, taps))
    assert after.fired == [NAME]


# --- where it does not fire


def causal(x, w, **options):
    return F.conv1d(F.pad(x[:, None], (4, 0)), w.view(1, 1, 5), **options)


def used_elsewhere(x, w, a):
    y = causal(x, w)
    return lfilter([1.0], a, y), y.abs()


def written_to(x, w, a):
    w = w.clone()
    w[0] += 1
    return lfilter([1.0], a, causal(x, w))


def final_state(x, w, a):
    b = a.new_ones(1)
    return torch.ops.torch_iir.lfilter(causal(x, w), b, a)


def filter_used_elsewhere(x, w, a):
    y = lfilter([1.0], a, x)
    return causal(y, w), y.abs()


def without_gradients(x, w, a):
    with torch.no_grad():
        y = causal(x, w)
    return lfilter([1.0], a, y)


def autocast(x, w, a):
    with torch.autocast("cpu", torch.bfloat16):
        return lfilter([1.0], a, causal(x, w))


def half(x, w, a):
    return lfilter([1.0], a, causal(x.bfloat16(), w.bfloat16()))


def several_for_each_channel(x, w, a):
    y = F.conv1d(F.pad(x, (4, 0)), w.view(1, 1, 5).expand(4, 1, 5), groups=2)
    return lfilter([1.0], a, y)


def several_channels_taken(x, w, a):
    y = F.conv1d(F.pad(x, (4, 0)), w.view(1, 1, 5).expand(2, 1, 5), groups=2)
    return lfilter([1.0], a, y[1])


NOT_CAUSAL = "the convolution is not causal: put K − 1 zeros in front, and cut off what is too much behind"
ELSEWHERE = "what is between the convolution and the filter is used elsewhere too"
ROUNDED = "what is between the convolution and the filter is rounded to another precision"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x, w, a: lfilter([1.0], a, F.conv1d(x[:, None], w.view(1, 1, 5), padding="same")), NOT_CAUSAL),
        (lambda x, w, a: lfilter([1.0], a, F.conv1d(x[:, None], w.view(1, 1, 5))), NOT_CAUSAL),
        (lambda x, w, a: lfilter([1.0], a, F.conv1d(x[:, None], w.view(1, 1, 5), padding=4)), NOT_CAUSAL),
        (lambda x, w, a: lfilter([1.0], a, causal(x, w)[..., :-1]), NOT_CAUSAL),
        (lambda x, w, a: lfilter([1.0], a, causal(x, w, bias=a[:1])), "the convolution has a bias"),
        (lambda x, w, a: lfilter([1.0], a, causal(x, w), zi=a[1:])[0], "the filter starts from a state"),
        (final_state, "the final state of the filter is used too"),
        (used_elsewhere, ELSEWHERE),
        (filter_used_elsewhere, ELSEWHERE),
        (written_to, "a tensor is written to in place"),
        (without_gradients, "a change of mode (autocast, gradients) lies between"),
        (autocast, ROUNDED),
        (half, ROUNDED),
        (several_for_each_channel, "the convolution has several filters for each of several channels"),
        (several_channels_taken, "dimensions come or go between the filter and a convolution of several channels"),
    ],
)
def test_it_nearly_fits(function, why):
    after = compare(function, *arguments(), only=[NAME], rtol=2e-2 if why == ROUNDED else 1e-5)
    assert not after.fired
    assert after.missed == [(NAME, why)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, a: lfilter(w[:2], a, causal(x, w)),  # more than poles
        lambda x, w, a: lfilter([1.0], a, causal(x, w)[..., 3:]),
        lambda x, w, a: lfilter([1.0], a, causal(x, w).flip(-1)),
        lambda x, w, a: lfilter([1.0], a, causal(x, w).tanh()),
        lambda x, w, a: causal(lfilter([1.0], a, x)[..., 3:], w),
        lambda x, w, a: lfilter([1.0], a, causal(x, w, stride=2)),
        lambda x, w, a: lfilter([1.0], a, F.conv1d(F.pad(x[None], (4, 0)), w.view(1, 1, 5).expand(2, 2, 5))),
        lambda x, w, a: lfilter([1.0], a, F.conv1d(F.pad(x[:, None], (199, 0)), w.repeat(40)[None, None])),
    ],
)
def test_it_is_something_else(function):
    after = compare(function, *arguments(), only=[NAME])
    assert not after.fired
    assert not after.missed


def test_through_inductor():
    function = SPELLINGS["padded by the convolution"]
    x, w, a = arguments()
    a.requires_grad_()
    compiled, expected = torch_iir.compile(function)(x, w, a), function(x, w, a)
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(y.square().sum(), a) for y in (compiled, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
