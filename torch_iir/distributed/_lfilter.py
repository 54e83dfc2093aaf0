"""lfilter with the time split over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from torch_iir._arguments import (
    ArrayLike,
    as_coefficients,
    as_signal,
    check_lfilter,
    explain_lfilter,
    filter_order,
    first_tensor,
    result_dtype,
    state_dtype,
    time_axis,
)
from torch_iir.distributed._collectives import Group, ranks_of
from torch_iir.distributed._parts import filter_part
from torch_iir.ops.lfilter import GA, GB, GX, GZI
from torch_iir.ops.lfilter import lfilter as _lfilter
from torch_iir.ops.lfilter import lfilter_backward as _lfilter_backward


@overload
def lfilter(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int = -1, zi: None = None, *, group: Group = None
) -> Tensor: ...
@overload
def lfilter(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int = -1, *, zi: ArrayLike, group: Group = None
) -> tuple[Tensor, Tensor]: ...
@overload
def lfilter(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, axis: int, zi: ArrayLike, *, group: Group = None
) -> tuple[Tensor, Tensor]: ...


def lfilter(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    axis: int = -1,
    zi: ArrayLike | None = None,
    *,
    group: Group = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """DRAFT: docstring to come."""
    ranks = ranks_of(group)
    like = first_tensor(x, b, a)
    x, b, a = as_signal(x, "x", like), as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    zi = None if zi is None else as_coefficients(zi, "zi", like)
    axis = time_axis(x, axis)
    x, zi = x.movedim(axis, -1), None if zi is None else zi.movedim(axis, -1)
    batch, order = check_lfilter(x, b, a, zi)
    wide = torch.promote_types(result_dtype(x, b, a, zi), torch.float64)
    state = x.new_zeros((), dtype=wide) if zi is None else zi.to(wide)
    try:
        transition = _transition(x, b, a, wide)
        y, zf = filter_part(_LFilter(), ranks, (x, b, a), state.expand(*batch, order), transition)
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_lfilter(error, x, b, a, zi) from None
    y = y.movedim(-1, axis).contiguous()
    return y if zi is None else (y, zf.to(state_dtype(y.dtype, zi)).movedim(-1, axis).contiguous())


class _LFilter:
    """The op as a recurrence, of the arguments x, b and a."""

    def run(self, arguments: Sequence[Tensor | None], state: Tensor) -> tuple[Tensor, Tensor]:
        y_and_zf: tuple[Tensor, Tensor] = _lfilter(*arguments, state)
        return y_and_zf

    def gradients(
        self,
        gy: Tensor | None,
        gzf: Tensor | None,
        arguments: Sequence[Tensor | None],
        state: Tensor,
        y: Tensor,
        needed: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor]:
        mask = GZI | sum(bit for bit, wanted in zip((GX, GB, GA), needed, strict=True) if wanted)
        *gradients, gzi = _lfilter_backward(gy, gzf, *arguments, state, y, mask)
        return [gradient if wanted else None for gradient, wanted in zip(gradients, needed, strict=True)], gzi


def _transition(x: Tensor, b: Tensor, a: Tensor, dtype: torch.dtype) -> Tensor:
    """That of the state over all samples of x: the power of what one sample does to the unit states."""
    units = torch.eye(filter_order(b, a), dtype=dtype, device=x.device)
    silence = units.new_zeros(1).expand(len(units), 1)
    _, columns = _lfilter(silence, b.unsqueeze(-2), a.unsqueeze(-2), units)
    power: Tensor = torch.linalg.matrix_power(columns.mT, x.shape[-1])
    return power
