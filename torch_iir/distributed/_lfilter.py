"""lfilter with the time split over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

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
from torch_iir.distributed._parts import Recurrence, filter_part, initial_state, transition_of, unit_states
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
    r"""As :func:`torch_iir.signal.lfilter`, of a signal of which each rank of a group has a part of the time.

    The parts lie one behind the other in the order of the ranks, and may be of any length, 0 included.

    .. math::
        a_0 y_t = \sum_{k=0}^{K_b-1} b_k x_{t-k} - \sum_{k=1}^{K_a-1} a_k y_{t-k}

    Args:
        b: numerator coefficients, (..., Kb), the same on all ranks.
        a: denominator coefficients, (..., Ka), the same on all ranks; ``a[..., 0]`` is divided out and must not be 0.
        x: this rank's part of the signal, (..., T); its other dimensions broadcast with the leading dimensions of b and
            a. Any T ≥ 0, another one on every rank; all else has the same shape and dtype on all ranks.
        axis: the dimension of x that is time. Default: the last.
        zi: state before the first part, (..., N) with N = max(Kb, Ka) − 1 values on ``axis``, in transposed direct form
            II. The first rank's counts; either all ranks give one, of one shape, or none does. Default: None, a filter
            at rest.
        group: the ranks, a process group or a device mesh of one dimension. Default: None, all there are.

    Returns:
        ``y``, this rank's part, or ``(y, zf)`` if zi is given: ``zf``, the same on all ranks, is the state after the
        last part. Shapes and dtypes are those of :func:`torch_iir.signal.lfilter`.

    Raises:
        TypeError: as signal.lfilter, or group is no group that this rank is in.
        ValueError: as signal.lfilter, or there is no process group, or a mesh has more dimensions. Where only one rank
            raises, the others wait for it until their group's timeout. That shapes are the same on all ranks is not
            checked: gloo ends the process where the sizes of messages differ.

    Note:
        Each rank filters its part from rest, hears in one message what the parts before leave behind, and filters again
        from there: twice the work of one machine, and N numbers a row to send. What a part makes of a state is a power
        of a matrix that is exact to rounding, so results are as accurate as on one machine, wherever the signal is cut;
        above order 64 it is computed in double precision. A group of one rank, and a filter of order 0, is
        signal.lfilter.

        Differentiable in b, a, x and zi to any order, backwards, at one message and twice the work again; not under
        forward mode or vmap, nor, by torch.compile, twice. A gradient is that of the sum of what all ranks make losses
        of. That of what ranks share, b, a and zi, is each rank's own share of it: sum it over the ranks (where an
        average is made instead, as by DistributedDataParallel, multiply by their number). All ranks run the same
        functions, forwards and backwards: with the same arguments requiring gradients and the same outputs used, or
        the others wait.

    Example:
        >>> import torch, torch.distributed as dist
        >>> from torch_iir import distributed, signal
        >>> x = torch.arange(10.0)  # the same on every rank, of which each takes its part
        >>> part = torch.arange(10).tensor_split(dist.get_world_size())[dist.get_rank()]
        >>> y = distributed.lfilter([1.0], [1.0, -0.5], x[part])
        >>> torch.allclose(y, signal.lfilter([1.0], [1.0, -0.5], x)[part])
        True
    """
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
    state = initial_state(zi, x, result)
    try:
        transition, low = transition_of(_responses, x.shape[-1], pad(a, (0, order + 1 - a.shape[-1])))
        y, zf = filter_part(_RECURRENCE, ranks, (x, b, a), state.expand(*batch, order), transition, low)
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_lfilter(error, x, b, a, zi) from None
    return y, zf.to(state_dtype(result, zi))


def _forward(arguments: Sequence[Tensor], state: Tensor) -> Any:
    return _lfilter(*arguments, state)


def _backward(gy: Tensor | None, gzf: Tensor | None, arguments: Sequence[Tensor], *rest: Any) -> Any:
    return _lfilter_backward(gy, gzf, *arguments, *rest)


_RECURRENCE = Recurrence(_forward, _backward, (GX, GB, GA, GZI))  # of x, b and a


def _responses(samples: int, a: Tensor) -> Tensor:
    """What the unit states become: the numerator has no part in it."""
    units = unit_states(a.shape[-1] - 1, a)
    silence = units.new_zeros(1).expand(len(units), samples)
    states: Tensor = _lfilter(silence, units.new_ones(1), a.unsqueeze(-2), units)[1]
    return states
