"""Discrete Fourier transforms of the last dimension, and the adjoint of each: eight linear maps.

    fft, ifft   X[k] = s Σ_t x[t] e^{∓2πjkt/n}
    rfft        the bins 0 to n // 2 of fft, of a real x
    irfft       x[t] = s Re Σ_k w[k] X[k] e^{2πjkt/n},   w = 2, but 1 at bin 0 and, n even, at n/2

The input, of any length, is padded with zeros or trimmed to n (irfft: to n // 2 + 1); s = 1, 1/√n, 1/n for norm 0, 1,
2. The adjoint has the same n and norm, and the length of the map's input:

    Re⟨F x, g⟩ = Re⟨x, F* g⟩

It is the gradient of the map in torch's convention; that of the adjoint is the map, and each is its own tangent map.
Where the input is real, the gradient is the real part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import check_fft
from torch_iir._registration import Op, Tensors

fft, fft_adjoint = torch.ops.torch_iir.fft.default, torch.ops.torch_iir.fft_adjoint.default
ifft, ifft_adjoint = torch.ops.torch_iir.ifft.default, torch.ops.torch_iir.ifft_adjoint.default
rfft, rfft_adjoint = torch.ops.torch_iir.rfft.default, torch.ops.torch_iir.rfft_adjoint.default
irfft, irfft_adjoint = torch.ops.torch_iir.irfft.default, torch.ops.torch_iir.irfft_adjoint.default


def _declared(
    name: str, transform: Any, adjoint: Any, *, to_bins: bool = False, from_bins: bool = False
) -> tuple[type[Op], type[Op]]:
    """A map and its adjoint; the map may be one from real numbers to n // 2 + 1 bins, or back from them."""

    class Transform(Op, name=name):
        core: ClassVar[dict[str, int]] = {"input": 1}
        real = to_bins
        linear = (("input",),)

        @staticmethod
        def fake(input: Tensor, n: int, norm: int) -> tuple[Tensor]:
            check_fft(input, n, norm, real=to_bins)
            return (_empty(input, n // 2 + 1 if to_bins else n, real=from_bins),)

        @staticmethod
        def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor]:
            input, n, norm = saved
            return (_like(input, adjoint(gradients[0], n, input.shape[-1], norm)),)

        @staticmethod
        def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor]:
            _, n, norm = saved
            return (transform(tangents[0], n, norm),)

        @staticmethod
        def samples() -> Iterator[tuple[Any, ...]]:
            for n, length, norm, *layout in SAMPLES:
                yield _numbers(length, *layout, real=to_bins), n, norm

    class Adjoint(Op, name=f"{name}_adjoint"):
        core: ClassVar[dict[str, int]] = {"input": 1}
        real = from_bins
        linear = (("input",),)

        @staticmethod
        def fake(input: Tensor, n: int, length: int, norm: int) -> tuple[Tensor]:
            check_fft(input, n, norm, real=from_bins, length=length, bins=to_bins)
            return (_empty(input, length, real=to_bins),)

        @staticmethod
        def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor]:
            input, n, _, norm = saved
            return (_like(input, transform(gradients[0], n, norm)),)

        @staticmethod
        def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor]:
            _, n, length, norm = saved
            return (adjoint(tangents[0], n, length, norm),)

        @staticmethod
        def samples() -> Iterator[tuple[Any, ...]]:
            for n, length, norm, *layout in SAMPLES:
                yield _numbers(n // 2 + 1 if to_bins else n, *layout, real=from_bins), n, length, norm

    for op in (Transform, Adjoint):
        op.__name__ = op.__qualname__ = op.name
    return Transform, Adjoint


FFT, FFTAdjoint = _declared("fft", fft, fft_adjoint)
IFFT, IFFTAdjoint = _declared("ifft", ifft, ifft_adjoint)
RFFT, RFFTAdjoint = _declared("rfft", rfft, rfft_adjoint, to_bins=True)
IRFFT, IRFFTAdjoint = _declared("irfft", irfft, irfft_adjoint, from_bins=True)

SAMPLES: tuple[tuple[Any, ...], ...] = (  # n, length, norm, batch, layout, and whether all may be real
    (6, 6, 0, (), "", False),
    (5, 5, 1, (2,), "", True),
    (7, 3, 2, (2,), "transposed", False),  # padded
    (4, 7, 1, (3,), "transposed", True),  # trimmed
    (5, 4, 0, (2, 1), "expanded", False),
    (1, 2, 0, (), "", False),
    (2, 1, 2, (), "", True),
    (4, 4, 0, (0,), "", False),  # no rows
    (3, 0, 0, (2,), "", False),
)


def _numbers(size: int, batch: tuple[int, ...], layout: str, may_be_real: bool, *, real: bool) -> Tensor:
    """Real numbers if nothing else is taken, and where they may be."""
    dtype = torch.float64 if real or may_be_real else torch.complex128
    numbers = torch.randn(*batch, size, dtype=dtype, generator=torch.Generator().manual_seed(10 + size))
    if layout == "transposed":
        return numbers.mT.contiguous().mT
    return numbers.expand(2, 3, size) if layout == "expanded" else numbers


def _empty(input: Tensor, size: int, *, real: bool) -> Tensor:
    dtype = input.dtype.to_real() if real else input.dtype.to_complex()
    return input.new_empty((*input.shape[:-1], size), dtype=dtype)


def _like(input: Tensor, gradient: Tensor) -> Tensor:
    return gradient.real if gradient.is_complex() and not input.is_complex() else gradient
