"""The state from part to part: powers of what one sample does to it, and the chain of states between the parts.

Both are in twice double precision inside: where poles lie close together, powers rise to 1e9 and more before they
fall, and what multiplies a state cancels from there. Squared in double precision, those of a Butterworth low-pass of
order 8 end in NaN; the response of the op to unit states is off by 1e-5, and takes N passes over the part. These are
counted in integers, 7 µs for a filter of order 2 and a million samples (native/include/torch_iir/transition.h).

They run on the CPU. From another device, the few numbers of all parts come over and go back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_iir._arguments import broadcast_shape
from torch_iir._registration import _library
from torch_iir.ops._gradients import like

LARGEST = 64  # beyond are filters without recursion and combs, whose powers do not rise, in as many squares as time

_matrix_power = torch.ops.torch_iir._matrix_power.default
_chained_states = torch.ops.torch_iir._chained_states.default


def matrix_power(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The power n ≥ 0 of (…, N, N) in double precision, and what it lacks for twice that."""
    size = matrix.shape[-1]
    if size > LARGEST:
        power = torch.linalg.matrix_power(matrix, n)
        return power, torch.zeros_like(power)
    if matrix.is_complex():
        both = matrix_power(_as_real(matrix), n)
        power, rest = (torch.complex(part[..., :size, :size], part[..., size:, :size]) for part in both)
        return power, rest
    power, rest = _matrix_power(matrix.cpu().contiguous(), n)
    return power.to(matrix.device), rest.to(matrix.device)


def chained_states(power: Tensor, rest: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    """s_0 … s_R, (R + 1, *batch, N), from M_r (R, …, N, N) as a sum of two, z_r (R, *batch, N) and s_0 (*batch, N)."""
    states: Tensor = _ChainedStates.apply(power, rest, inputs, first)  # type: ignore[no-untyped-call]
    return states


class _ChainedStates(torch.autograd.Function):
    """s_{r+1} = M_r s_r + z_r. Gradients go the other way: μ_r = M_rᴴ μ_{r+1} + g_r."""

    @staticmethod
    def forward(ctx: Any, power: Tensor, rest: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
        states = _chained(power, rest, inputs, first)
        ctx.save_for_backward(power, rest, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        power, rest, states = ctx.saved_tensors
        backwards = gradient.flip(0)
        backwards = chained_states(power.mH.flip(0), rest.mH.flip(0), backwards[1:], backwards[0]).flip(0)
        by_power = None
        if ctx.needs_input_grad[0]:
            products = backwards[1:].unsqueeze(-1) * states[:-1].unsqueeze(-2).conj()
            missing = (1,) * (products.dim() - power.dim())  # between the parts and the filters' own dimensions
            by_power = like(products, power.reshape(len(power), *missing, *power.shape[1:])).reshape(power.shape)
        return by_power, None, backwards[1:], backwards[0]


def _chained(power: Tensor, rest: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    if first.is_complex():
        vectors = (torch.cat([t.real, t.imag], -1) for t in (inputs, first))
        return torch.complex(*_chained(_as_real(power), _as_real(rest), *vectors).chunk(2, -1))
    # What the op takes has the parts behind the batch.
    matrices = (t.movedim(0, -3).cpu().contiguous() for t in (power, rest))
    states: Tensor = _chained_states(*matrices, inputs.movedim(0, -2).cpu().contiguous(), first.cpu().contiguous())
    return states.movedim(-2, 0).to(first.device).contiguous()


def _as_real(matrix: Tensor) -> Tensor:
    """What multiplies real and imaginary parts, one below the other, as the matrix does complex numbers."""
    real, imaginary = (matrix.real, matrix.imag) if matrix.is_complex() else (matrix, torch.zeros_like(matrix))
    return torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)


@torch.library.register_fake("torch_iir::_matrix_power", lib=_library)  # type: ignore[untyped-decorator]
def _fake_power(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return matrix.new_empty(matrix.shape), matrix.new_empty(matrix.shape)


@torch.library.register_fake("torch_iir::_chained_states", lib=_library)  # type: ignore[untyped-decorator]
def _fake_states(power: Tensor, rest: Tensor | None, inputs: Tensor, first: Tensor) -> Tensor:
    batch = broadcast_shape(inputs.shape[:-2], first.shape[:-1], power.shape[:-3]) or ()
    return first.new_empty((*batch, inputs.shape[-2] + 1, inputs.shape[-1]))
