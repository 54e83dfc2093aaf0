"""lfilter with the time split over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir import signal
from torch_iir._arguments import (
    ArrayLike,
    as_coefficients,
    as_signal,
    check_lfilter,
    explain_lfilter,
    first_tensor,
    result_dtype,
    state_dtype,
)
from torch_iir.distributed._collectives import Group, Ranks, ranks_of
from torch_iir.distributed._parts import filter_part, transition_of
from torch_iir.ops.lfilter import GA, GB, GX, GZI
from torch_iir.ops.lfilter import lfilter as _lfilter
from torch_iir.ops.lfilter import lfilter_backward as _lfilter_backward
from torch_iir.signal._lfilter import along
from torch_iir.signal._lfilter import filtered as filtered_here


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
    if ranks.size == 1:
        return signal.lfilter(b, a, x, axis, zi)
    like = first_tensor(x, b, a)
    x, b, a = as_signal(x, "x", like), as_coefficients(b, "b", like), as_coefficients(a, "a", like)
    zi = None if zi is None else as_coefficients(zi, "zi", like)

    def filtered(b: Tensor, a: Tensor, x: Tensor, zi: Tensor | None = None) -> Any:
        y, zf = _filtered(ranks, x, b, a, zi)
        return y if zi is None else (y, zf)

    return filtered(b, a, x, zi) if axis == -1 else along(filtered, b, a, x, axis, zi)


def _filtered(ranks: Ranks, x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
    """As signal._lfilter.filtered."""
    batch, order = check_lfilter(x, b, a, zi)
    if order == 0:
        return filtered_here(x, b, a, zi)
    result = result_dtype(x, b, a, zi)
    wide = torch.promote_types(result, torch.float64)
    state = x.new_zeros((), dtype=wide) if zi is None else zi.to(wide)
    try:
        transition, low = transition_of(_responses, x.shape[-1], pad(a, (0, order + 1 - a.shape[-1])))
        y, zf = filter_part(_LFilter(), ranks, (x, b, a), state.expand(*batch, order), transition, low)
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_lfilter(error, x, b, a, zi) from None
    return y, zf.to(state_dtype(result, zi))


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


def _responses(samples: int, a: Tensor) -> Tensor:
    """What the unit states become: the numerator has no part in it."""
    units = torch.eye(a.shape[-1] - 1, dtype=torch.promote_types(a.dtype, torch.float64), device=a.device)
    silence = units.new_zeros(1).expand(len(units), samples)
    states: Tensor = _lfilter(silence, units.new_ones(1), a.unsqueeze(-2), units)[1]
    return states
