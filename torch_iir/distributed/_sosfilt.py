"""sosfilt with the time split over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import Tensor

from torch_iir import signal
from torch_iir._arguments import (
    ArrayLike,
    as_coefficients,
    as_signal,
    check_sosfilt,
    explain_sosfilt,
    first_tensor,
    result_dtype,
    state_dtype,
)
from torch_iir.distributed._collectives import Group, Ranks, ranks_of
from torch_iir.distributed._parts import Recurrence, filter_part, initial_state, transition_of, unit_states
from torch_iir.ops.sosfilt import FOR_SOS, FOR_X, FOR_ZI
from torch_iir.ops.sosfilt import sosfilt as _sosfilt
from torch_iir.ops.sosfilt import sosfilt_backward as _sosfilt_backward
from torch_iir.signal._sosfilt import along


@overload
def sosfilt(sos: ArrayLike, x: ArrayLike, axis: int = -1, zi: None = None, *, group: Group = None) -> Tensor: ...
@overload
def sosfilt(
    sos: ArrayLike, x: ArrayLike, axis: int = -1, *, zi: ArrayLike, group: Group = None
) -> tuple[Tensor, Tensor]: ...
@overload
def sosfilt(
    sos: ArrayLike, x: ArrayLike, axis: int, zi: ArrayLike, *, group: Group = None
) -> tuple[Tensor, Tensor]: ...


def sosfilt(
    sos: ArrayLike, x: ArrayLike, axis: int = -1, zi: ArrayLike | None = None, *, group: Group = None
) -> Tensor | tuple[Tensor, Tensor]:
    r"""As :func:`torch_iir.signal.sosfilt`, of a signal of which each rank of a group has a part of the time.

    The parts lie one behind the other in the order of the ranks, and may be of any length, 0 included.

    .. math::
        u_0 = x, \qquad a_{s0} u_{s,t} = \sum_{k=0}^{2} b_{sk} u_{s-1,t-k} - \sum_{k=1}^{2} a_{sk} u_{s,t-k},
        \qquad y = u_S

    Args:
        sos: sections, (..., S, 6) with S ≥ 1, the same on all ranks; each row is b0, b1, b2, a0, a1, a2. a0 is divided
            out and must not be 0.
        x: this rank's part of the signal, (..., T); its other dimensions broadcast with the leading dimensions of sos.
            Any T ≥ 0, another one on every rank; all else has the same shape and dtype on all ranks.
        axis: the dimension of x that is time. Default: the last.
        zi: states before the first part, (S, ..., 2, ...): the sections first, and the 2 values of a section on
            ``axis``. The first rank's count; either all ranks give them, of one shape, or none does. Default: None, a
            filter at rest.
        group: the ranks, a process group or a device mesh of one dimension. Default: None, all there are.

    Returns:
        ``y``, this rank's part, or ``(y, zf)`` if zi is given: ``zf``, the same on all ranks, are the states after the
        last part. Shapes and dtypes are those of :func:`torch_iir.signal.sosfilt`.

    Raises:
        TypeError: as signal.sosfilt, or group is no group that this rank is in.
        ValueError: as signal.sosfilt, or there is no process group, or a mesh has more dimensions. Where only one rank
            raises, the others wait for it until their group's timeout.

    Note:
        As :func:`lfilter`, whose notes on work, messages, accuracy and gradients hold with N = 2 S, sos for b and a.

    Example:
        >>> import torch, torch.distributed as dist
        >>> from torch_iir import design, distributed, signal
        >>> x, sos = torch.arange(10.0), design.lowpass(16000, 500)
        >>> part = torch.arange(10).tensor_split(dist.get_world_size())[dist.get_rank()]
        >>> torch.allclose(distributed.sosfilt(sos, x[part]), signal.sosfilt(sos, x)[part])
        True
    """
    ranks = ranks_of(group)
    if ranks.size == 1:
        return signal.sosfilt(sos, x, axis, zi)
    like = first_tensor(x, sos)
    x, sos = as_signal(x, "x", like), as_coefficients(sos, "sos", like)
    zi = None if zi is None else as_coefficients(zi, "zi", like)

    def filtered(x: Tensor, sos: Tensor, zi: Tensor | None, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        return _filtered(ranks, x, sos, zi, names)

    return along(filtered, sos, x, axis, zi)


def _filtered(ranks: Ranks, x: Tensor, sos: Tensor, zi: Tensor | None, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """As signal._sosfilt.filtered."""
    batch, sections = check_sosfilt(x, sos, zi, names)
    result = result_dtype(x, sos, zi)
    state = initial_state(zi, x, result).expand(*batch, sections, 2).flatten(-2)
    try:
        transition, low = transition_of(_responses, x.shape[-1], sos)
        y, zf = filter_part(_RECURRENCE, ranks, (x, sos), state, transition, low)
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_sosfilt(error, x, sos, zi, names) from None
    return y, _by_section(zf).to(state_dtype(result, zi))


def _forward(arguments: Sequence[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    y, zf = _sosfilt(*arguments, _by_section(state))
    return y, zf.flatten(-2)


def _backward(
    gy: Tensor | None, gzf: Tensor | None, arguments: Sequence[Tensor], state: Tensor, _: None, mask: int
) -> tuple[Tensor, ...]:
    gzf = None if gzf is None else _by_section(gzf)
    gx, gsos, gzi = _sosfilt_backward(gy, gzf, *arguments, _by_section(state), mask)
    return gx, gsos, gzi.flatten(-2)


# Of x and sos; the state is that of all sections, 2 S numbers.
_RECURRENCE = Recurrence(_forward, _backward, (FOR_X, FOR_SOS, FOR_ZI), keeps_output=False)


def _responses(samples: int, sos: Tensor) -> Tensor:
    units = unit_states(2 * sos.shape[-2], sos)
    silence = units.new_zeros(1).expand(len(units), samples)
    states: Tensor = _sosfilt(silence, sos.unsqueeze(-3), _by_section(units))[1]
    return states.flatten(-2)


def _by_section(state: Tensor) -> Tensor:
    """(..., 2 S) as (..., S, 2)."""
    return state.reshape(*state.shape[:-1], state.shape[-1] // 2, 2)
