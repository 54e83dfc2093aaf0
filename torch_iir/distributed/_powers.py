"""The state from part to part, exact to rounding: powers of a matrix, and their products with states.

The powers of a transition rise to 1e9 and more before they fall where poles lie close together, and what multiplies a
state cancels from there: squared in double precision, those of a Butterworth low-pass of order 8 end in NaN, and with
twice its bits some are wrong by 1e7. The response of the op to unit states is off by 1e-5, and takes N passes over the
part. So powers are counted in integers: entries of 192 bits, with one exponent a matrix (0.1 ms for a filter of order 2
and a million samples). What is returned is the sum of two doubles, and its products with states are rounded once.
"""

from __future__ import annotations

import math
from operator import mul
from typing import Any

import torch
from torch import Tensor

from torch_iir.ops._gradients import like

LARGEST = 64  # beyond are filters without recursion and combs, whose powers do not rise
PRECISION = 192  # bits of the largest entry

Rows = list[list[int]]

_library = torch.library.Library("torch_iir", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("matrix_power(Tensor matrix, SymInt n) -> (Tensor, Tensor)")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "chained_states(Tensor matrices, Tensor low, Tensor inputs, Tensor first) -> Tensor"
)


def matrix_power(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The power n ≥ 0 of (…, N, N) in double precision, and what it lacks for twice that.

    One operator, so that n may be symbolic in a trace.
    """
    power: tuple[Tensor, Tensor] = torch.ops.torch_iir.matrix_power.default(matrix, n)
    return power


def chained_states(matrices: Tensor, low: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    """s_0 … s_R, (R + 1, *batch, N), from M_r (R, …, N, N) in two doubles, z_r (R, *batch, N) and s_0."""
    missing = (1,) * (inputs.dim() + 1 - matrices.dim())
    matrices, low = (m.reshape(len(m), *missing, *m.shape[1:]) for m in (matrices, low))
    states: Tensor = _States.apply(matrices, low, inputs, first)  # type: ignore[no-untyped-call]
    return states


class _States(torch.autograd.Function):
    """s_{r+1} = M_r s_r + z_r. Gradients go the other way: μ_r = M_rᴴ μ_{r+1} + g_r."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, low: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
        states: Tensor = torch.ops.torch_iir.chained_states.default(matrices, low, inputs, first)
        ctx.save_for_backward(matrices, low, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        matrices, low, states = ctx.saved_tensors
        backwards = gradient.flip(0)
        backwards = chained_states(matrices.mH.flip(0), low.mH.flip(0), backwards[1:], backwards[0]).flip(0)
        products = backwards[1:].unsqueeze(-1) * states[:-1].unsqueeze(-2).conj() if ctx.needs_input_grad[0] else None
        return products if products is None else like(products, matrices), None, backwards[1:], backwards[0]


@torch.library.impl(_library, "matrix_power", "CompositeExplicitAutograd")
def _matrix_power(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    size = matrix.shape[-1]
    if size > LARGEST or n == 0:
        power = torch.linalg.matrix_power(matrix, n)
        return power.clone(), torch.zeros_like(power)  # the matrix itself for n = 1
    if matrix.is_complex():
        doubled = _matrix_power(_as_real(matrix), n)
        high, low = (torch.complex(part[..., :size, :size], part[..., size:, :size]) for part in doubled)
        return high, low
    powers = [_power(rows, n) for rows in matrix.reshape(matrix.shape[:-2].numel(), size, size).tolist()]
    both = torch.tensor(powers, dtype=matrix.dtype, device=matrix.device)
    high, low = both.reshape(*matrix.shape, 2).movedim(-1, 0).contiguous().unbind()
    return high, low.clone()  # outputs that share no memory


@torch.library.register_fake("torch_iir::matrix_power", lib=_library)  # type: ignore[untyped-decorator]
def _fake_power(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    return matrix.new_empty(matrix.shape), matrix.new_empty(matrix.shape)


def _power(matrix: list[list[float]], n: int) -> list[list[tuple[float, float]]]:
    if not all(math.isfinite(value) for row in matrix for value in row):
        return [[(math.nan, 0.0)] * len(row) for row in matrix]
    _, top = math.frexp(max(abs(value) for row in matrix for value in row))
    unit = top - PRECISION  # the exponent of what an entry of 1 stands for
    base = [[int(math.ldexp(value, -unit)) for value in row] for row in matrix]
    power, exponent = base, unit
    for bit in f"{n:b}"[1:]:
        power, exponent = _product(power, power, 2 * exponent)
        if bit == "1":
            power, exponent = _product(power, base, exponent + unit)
    return [[_doubles(value, exponent) for value in row] for row in power]


def _product(left: Rows, right: Rows, exponent: int) -> tuple[Rows, int]:
    columns = list(zip(*right, strict=True))
    product = [[sum(map(mul, row, column)) for column in columns] for row in left]
    excess = max(max(map(abs, row)) for row in product).bit_length() - PRECISION
    if excess <= 0:
        return product, exponent
    return [[value >> excess for value in row] for row in product], exponent + excess


def _doubles(value: int, exponent: int) -> tuple[float, float]:
    high = float(value)
    try:
        return math.ldexp(high, exponent), math.ldexp(value - int(high), exponent)
    except OverflowError:
        return math.copysign(math.inf, value), 0.0


@torch.library.impl(_library, "chained_states", "CompositeExplicitAutograd")
def _chained_states(matrices: Tensor, low: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    if first.is_complex():
        real = _chained_states(
            _as_real(matrices), _as_real(low), *(torch.cat([t.real, t.imag], -1) for t in (inputs, first))
        )
        return torch.complex(*real.chunk(2, -1))
    states = [first]
    if first.shape[-1] > LARGEST:
        for matrix, input in zip(matrices, inputs, strict=True):
            states.append((matrix @ states[-1].unsqueeze(-1)).squeeze(-1) + input)
        return torch.stack(states)
    halves = _halves(matrices).unsqueeze(-1)  # (…, row, column, half, 1)
    most = float(1 << (4 * first.shape[-1] + 1).bit_length())
    for matrix, rest, input in zip(halves, low, inputs, strict=True):
        state = states[-1].unsqueeze(-2)
        # What overflowed says nothing of a state of zero: silence through an unstable filter stays silence.
        terms = torch.where(state[..., None, None] == 0, 0, matrix * _halves(state).unsqueeze(-2))
        high, lower = _sum(terms, most)
        states.append(high + (lower + (rest * state).sum(-1) + input))
    return torch.stack(states)


@torch.library.register_fake("torch_iir::chained_states", lib=_library)  # type: ignore[untyped-decorator]
def _fake_states(matrices: Tensor, low: Tensor, inputs: Tensor, first: Tensor) -> Tensor:
    return first.new_empty((len(inputs) + 1, *first.shape))


def _halves(values: Tensor) -> Tensor:
    """Two numbers of 26 bits, whose products are exact, for each (Dekker)."""
    stretched = values * float(2**27 + 1)
    upper = stretched - (stretched - values)
    return torch.stack([upper, values - upper], -1)


def _sum(terms: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Σ over the last three dimensions, of less than `most` terms, as a sum of two.

    A power of two above all that comes together cuts the terms: the sum of the upper parts is exact, and what is left
    is small (Rump, Ogita and Oishi, SIAM J. Sci. Comput. 31 (2008), 189-224).
    """
    sums = (-3, -2, -1)
    largest = terms.abs().amax(sums, keepdim=True) * most
    above = largest * 2.0**53
    cut = (above + largest) - above
    upper = (terms + cut) - cut
    return upper.sum(sums), (terms - upper).sum(sums)


def _as_real(matrix: Tensor) -> Tensor:
    """What multiplies real and imaginary parts, one below the other, as the matrix does complex numbers."""
    real, imaginary = (matrix.real, matrix.imag) if matrix.is_complex() else (matrix, torch.zeros_like(matrix))
    return torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)
