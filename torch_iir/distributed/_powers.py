"""Powers of a matrix, exact to rounding: what one sample does to a state, over all samples of a part.

The powers of a transition rise to 1e9 and more before they fall where poles lie close together, and squaring squares
their errors: in double precision those of a Butterworth low-pass of order 8 end in NaN, and with twice its bits some
are wrong by 1e7. The response of the op to unit states is off by 1e-5, and takes N passes over the part. So this
counts in integers: entries of 192 bits, with one exponent a matrix. A filter of order 2 and a million samples take
0.1 ms.
"""

from __future__ import annotations

import math
from operator import mul

import torch
from torch import Tensor

LARGEST = 64  # beyond are filters without recursion and combs, whose powers do not rise
PRECISION = 192  # bits of the largest entry

Rows = list[list[int]]

_library = torch.library.Library("torch_iir", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("matrix_power(Tensor matrix, SymInt n) -> Tensor")  # type: ignore[no-untyped-call]


def matrix_power(matrix: Tensor, n: int) -> Tensor:
    """The power n ≥ 0 of (…, N, N) in double precision; one operator, so that n may be symbolic in a trace."""
    result: Tensor = torch.ops.torch_iir.matrix_power.default(matrix, n)
    return result


@torch.library.impl(_library, "matrix_power", "CompositeExplicitAutograd")
def _matrix_power(matrix: Tensor, n: int) -> Tensor:
    size = matrix.shape[-1]
    if size > LARGEST or n == 0:
        plain: Tensor = torch.linalg.matrix_power(matrix, n)
        return plain.clone()  # the matrix itself for n = 1
    if matrix.is_complex():
        rows = [torch.cat([matrix.real, -matrix.imag], -1), torch.cat([matrix.imag, matrix.real], -1)]
        power = _matrix_power(torch.cat(rows, -2), n)
        return torch.complex(power[..., :size, :size], power[..., size:, :size])
    powers = [_power(rows, n) for rows in matrix.reshape(matrix.shape[:-2].numel(), size, size).tolist()]
    return torch.tensor(powers, dtype=matrix.dtype, device=matrix.device).reshape(matrix.shape)


@torch.library.register_fake("torch_iir::matrix_power", lib=_library)  # type: ignore[untyped-decorator]
def _fake(matrix: Tensor, n: int) -> Tensor:
    return matrix.new_empty(matrix.shape)


def _power(matrix: list[list[float]], n: int) -> list[list[float]]:
    if not all(math.isfinite(value) for row in matrix for value in row):
        return [[math.nan] * len(row) for row in matrix]
    _, top = math.frexp(max(abs(value) for row in matrix for value in row))
    unit = top - PRECISION  # the exponent of what an entry of 1 stands for
    base = [[int(math.ldexp(value, -unit)) for value in row] for row in matrix]
    power, exponent = base, unit
    for bit in f"{n:b}"[1:]:
        power, exponent = _product(power, power, 2 * exponent)
        if bit == "1":
            power, exponent = _product(power, base, exponent + unit)
    return [[_double(value, exponent) for value in row] for row in power]


def _product(left: Rows, right: Rows, exponent: int) -> tuple[Rows, int]:
    columns = list(zip(*right, strict=True))
    product = [[sum(map(mul, row, column)) for column in columns] for row in left]
    excess = max(max(map(abs, row)) for row in product).bit_length() - PRECISION
    if excess <= 0:
        return product, exponent
    return [[value >> excess for value in row] for row in product], exponent + excess


def _double(value: int, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
