"""Derivatives of convolution and correlation, summed over batch dimensions.

    reverse False: y[t] = Σ_k in2[k] in1[t + start − k]        reverse True: y[t] = Σ_k conj(in2[k]) in1[t + start + k]

for 0 ≤ t < size, in1 being 0 beyond its ends. With g the gradient of y, and x and h for in1 and in2:

    reverse False: gx[τ] = Σ_k conj(h[k]) g[τ − start + k]     gh[k] = Σ_τ conj(x[τ]) g[k − start + τ]
    reverse True:  gx[τ] = Σ_k h[k] g[τ − start − k]           gh[k] = Σ_t conj(g[t]) x[k + start + t]

Each is the op again, so that it is closed under differentiation. The dimensions that x was broadcast over are those
that the op sums gx over, and where the op has summed, g is broadcast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import broadcast_batch, check_fftconvolve
from torch_iir._registration import Op, Tensors

fftconvolve = torch.ops.torch_iir.fftconvolve.default


class FFTConvolve(Op, name="fftconvolve"):
    """y = fftconvolve(in1, in2, start, size, reverse, summed, n_fft).

    Bit i of summed: the batch dimension −1 − i of y is summed over, and stays with the size 1. n_fft is the block size.
    """

    core: ClassVar[dict[str, int]] = {"in1": 1, "in2": 1}
    linear = (("in1",), ("in2",))

    @staticmethod
    def fake(
        in1: Tensor, in2: Tensor, start: int, size: int, reverse: bool = False, summed: int = 0, n_fft: int = 0
    ) -> tuple[Tensor]:
        batch = check_fftconvolve(in1, in2, size, n_fft)
        last = len(batch) - 1
        kept = (1 if summed >> (last - index) & 1 else length for index, length in enumerate(batch))
        return (in1.new_empty((*kept, size), dtype=torch.promote_types(in1.dtype, in2.dtype)),)

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        x, h, start, _, reverse, *_ = saved
        (g,) = gradients
        for_x, for_h, *_ = needed
        gx = gh = None
        if for_x:
            gx = _gradient(x, g, h, -start, not reverse)
        if for_h:
            gh = _gradient(h, x, g, start, True) if reverse else _gradient(h, g, x, -start, True)
        return gx, gh

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        x, h, *rest = saved
        dx, dh, *_ = tangents
        dy = None if dx is None else fftconvolve(dx, h, *rest)
        if dh is not None:
            of_dh = fftconvolve(x, dh, *rest)
            dy = of_dh if dy is None else dy + of_dh
        return (dy,)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(12)

        def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.randn(*shape, dtype=dtype, generator=generator)

        imaginary = torch.complex128
        yield randn(6), randn(3), 0, 8, False, 0, 0
        yield randn(6), randn(3), 0, 4, True, 0, 0
        yield randn(2, 1, 5), randn(3, 4), -2, 6, False, 0, 0  # a bank
        yield randn(2, 3, 4), randn(3, 3), 1, 5, True, 0b10, 0
        yield randn(2, 1, 4), randn(3, 3), 1, 3, False, 0b11, 0
        yield randn(3, 2).t(), randn(2, 8)[..., ::2], 3, 4, False, 0b1, 0  # strided
        yield randn(2, 1).expand(2, 4), randn(1, 2).expand(3, 1, 2), 0, 3, True, 0b10, 0  # stride 0
        yield randn(2), randn(5), -9, 12, True, 0, 0  # in1 the shorter, and not all of y within its reach
        yield randn(2), randn(3), 7, 3, False, 0, 0  # nothing within its reach
        yield randn(2, 0), randn(3), 0, 2, False, 0b1, 0  # T = 0
        yield randn(2, 3), randn(0), 0, 2, True, 0, 0  # K = 0
        yield randn(0, 3), randn(2), 0, 3, False, 0b1, 0  # a sum of no rows
        yield randn(2, 3), randn(2), 1, 0, False, 0, 0
        yield randn(2, 4, dtype=imaginary), randn(2), 0, 5, True, 0b1, 0
        yield randn(4), randn(2, 3, dtype=imaginary), 1, 4, True, 0, 0
        yield randn(3, dtype=imaginary), randn(2, 3, dtype=imaginary), -1, 6, False, 0, 0


def _gradient(of: Tensor, one: Tensor, other: Tensor, start: int, reverse: bool) -> Tensor:
    """What one convolved with the other gives, summed to the shape of an argument; real if that is."""
    batch = broadcast_batch([("in1", one), ("in2", other)])
    own = (1,) * (len(batch) - of.dim() + 1) + of.shape[:-1]
    pairs = zip(reversed(own), reversed(batch), strict=False)
    summed = sum(1 << back for back, (size, whole) in enumerate(pairs) if size == 1 and whole != 1)
    gradient: Tensor = fftconvolve(one, other, start, of.shape[-1], reverse, summed)
    if gradient.is_complex() and not of.is_complex():
        gradient = gradient.real
    missing = gradient.dim() - of.dim()
    return gradient.reshape(gradient.shape[missing:]).to(of.dtype).expand(of.shape)
