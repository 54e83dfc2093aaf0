"""lfilter without recursion, which runs as a convolution by FFT where that is faster: against the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import torch_iir
from torch_iir.signal import lfilter

SHAPES = (  # x, b, zi
    ((2000,), (300,), None),
    ((3, 700), (200,), (199,)),
    ((2, 1, 600), (4, 192), (2, 1, 191)),  # a bank
    ((2, 4, 5), (4, 9), (8,)),  # T below the order
    ((1,), (6,), (5,)),
    ((2, 50), (1,), None),  # no state
    ((3, 0), (4,), (3,)),
    ((0, 40), (4,), None),
)


def arguments(shapes: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(7)
    tensors = [None if s is None else torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    x, b, zi = (None if t is None else t.to(dtype) for t in tensors)
    assert x is not None
    assert b is not None
    return x, b, zi


def gradients(args: Any, algorithm: str) -> Any:
    """(y, zf) and what a random functional of both gives for b, x and zi."""
    x, b, zi = (None if t is None else t.detach().requires_grad_() for t in args)
    with torch_iir.algorithm(algorithm):
        y, zf = torch.ops.torch_iir.lfilter(x, b, torch.ones(1, dtype=b.dtype), zi)
        generator = torch.Generator().manual_seed(8)
        weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in (y, zf)]
        leaves = [t for t in (x, b, zi) if t is not None]
        return y, zf, *torch.autograd.grad((y, zf), leaves, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_equals_the_kernels(shapes: Any, dtype: torch.dtype) -> None:
    args = arguments(shapes, dtype)
    for ours, expected in zip(gradients(args, "fft"), gradients(args, "direct"), strict=True):
        # A transform's error is relative to the largest values, not to each.
        scale = max(float(expected.detach().abs().max()) if expected.numel() else 0.0, 1.0)
        assert_close(ours, expected, rtol=0, atol=32 * torch.finfo(ours.dtype).eps * scale)


def test_strided_and_wide_coefficients() -> None:
    x, b, zi = arguments(((900, 3), (250, 2), (3, 249)), torch.float32)
    assert zi is not None
    args = (x.t(), b[:, 0].double(), zi[::2, :][:1].expand(3, 249))
    for ours, expected in zip(gradients(args, "fft"), gradients(args, "direct"), strict=True):
        assert_close(ours, expected, rtol=0, atol=1e-6 * float(expected.detach().abs().max()))


def test_single_precision_is_as_accurate_as_that_of_the_kernels() -> None:
    x, b, _ = arguments(((20_000,), (1000,), None), torch.float32)
    exact = lfilter(b.double(), [1.0], x.double())
    error = lfilter(b, [1.0], x) - exact
    assert float(error.square().mean().sqrt() / exact.square().mean().sqrt()) < 1e-7


def test_long_filters_run_by_fft_and_short_ones_do_not() -> None:
    """Bits tell: a convolution by FFT is not exactly zero before the first sample that is not."""
    x = torch.zeros(40_000, dtype=torch.float64)
    x[1500:] = torch.randn(38_500, dtype=torch.float64)
    long, short = (torch.randn(n, dtype=torch.float64) for n in (1024, 64))
    for b, by_fft in ((long, True), (short, False)):
        assert bool((lfilter(b, [1.0], x)[:1500] != 0).any()) == by_fft
        assert not bool((lfilter(b, [2.0], x)[:1500] != 0).any())  # what is not a = [1] runs in the kernels
        with torch_iir.algorithm("direct"):
            assert not bool((lfilter(b, [1.0], x)[:1500] != 0).any())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_harms_no_earlier_sample(value: float) -> None:
    x, b, _ = arguments(((2, 20_000), (600,), None), torch.float32)
    x[1, 9000] = value
    y = lfilter(b, [1.0], x)
    assert y[0].isfinite().all()
    assert y[1, :9000].isfinite().all()
    assert not y[1, 9000:9600].isfinite().any()
    x[1, 9000] = 0.0
    with torch_iir.algorithm("direct"):
        assert_close(y[1, :9000], lfilter(b, [1.0], x)[1, :9000])


def test_derivatives() -> None:
    """Those of the gradient are formulas of both ops, which need that of a and so the kernels."""
    x, b, zi = (None if t is None else t.requires_grad_() for t in arguments(((2, 6), (4,), (3,)), torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    with torch_iir.algorithm("fft"):
        function = torch.ops.torch_iir.lfilter
        assert torch.autograd.gradcheck(lambda x, b, zi: function(x, b, one, zi), (x, b, zi), check_forward_ad=True)


def test_the_gradient_of_a_is_that_of_the_kernels() -> None:
    x, b, _ = arguments(((20_000,), (600,), None), torch.float64)
    a = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(lfilter(b, a, x).square().sum(), a)
    assert_close(gradient, -2 * lfilter(b, [1.0], x).square().sum()[None])


def test_recursive_filters_cannot_be_forced() -> None:
    for a in ([1.0, -0.5], [2.0]):
        with torch_iir.algorithm("fft"), pytest.raises(RuntimeError, match='"fft" is forced, and cannot run'):
            lfilter([1.0, 0.5], a, torch.ones(8))
