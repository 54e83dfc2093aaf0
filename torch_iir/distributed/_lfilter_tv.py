"""lfilter_tv with the time split over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from torch_iir import signal
from torch_iir._arguments import (
    ArrayLike,
    broadcast_shape,
    check_lfilter_tv,
    explain_lfilter_tv,
    result_dtype,
    state_dtype,
)
from torch_iir.distributed._collectives import Group, Ranks, gather, ranks_of
from torch_iir.distributed._parts import Recurrence, filter_part, initial_state, unit_states
from torch_iir.ops.lfilter_tv import BITS, GA
from torch_iir.ops.lfilter_tv import lfilter_tv as _lfilter_tv
from torch_iir.ops.lfilter_tv import lfilter_tv_backward as _lfilter_tv_backward
from torch_iir.signal._lfilter_tv import NAMES, as_tensors, filtered, pair, with_rows

SETTINGS = (0, 0, 1)  # b_first, a_first, period: b and a have a lag 0, and a row for every sample


@overload
def lfilter_tv(b: ArrayLike, a: ArrayLike, x: ArrayLike, zi: None = None, *, group: Group = None) -> Tensor: ...
@overload
def lfilter_tv(
    b: ArrayLike, a: ArrayLike, x: ArrayLike, zi: Sequence[ArrayLike | None], *, group: Group = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...


def lfilter_tv(
    b: ArrayLike,
    a: ArrayLike,
    x: ArrayLike,
    zi: Sequence[ArrayLike | None] | None = None,
    *,
    group: Group = None,
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    r"""As :func:`torch_iir.signal.lfilter_tv`, of a signal of which each rank of a group has a part of the time.

    The parts lie one behind the other in the order of the ranks, and may be of any length, 0 included.

    .. math::
        a_{t,0} y_t = \sum_{k=0}^{K_b-1} b_{t,k} x_{t-k} - \sum_{k=1}^{K_a-1} a_{t,k} y_{t-k}

    Args:
        b: numerator coefficients of this rank's part, (..., T, Kb), row t for its sample t; (..., 1, Kb), or just
            (Kb,), is constant in time.
        a: denominator coefficients, (..., T, Ka), (..., 1, Ka) or (Ka,); ``a[..., 0]`` is divided out and must not be
            0.
        x: this rank's part of the signal, (..., T); its other dimensions broadcast with the leading dimensions of b and
            a. Any T ≥ 0, another one on every rank; all else has the same shape and dtype on all ranks.
        zi: state before the first part, the pair (past x, past y), (..., Kb − 1) and (..., Ka − 1), newest first, or
            None in the place of one. The first rank's counts; either all ranks give one, of one shape, or none does.
            Default: None, a filter at rest.
        group: the ranks, a process group or a device mesh of one dimension. Default: None, all there are.

    Returns:
        ``y``, this rank's part, or ``(y, zf)`` if zi is given: ``zf``, the same on all ranks, is the pair (past x, past
        y) after the last part. Shapes and dtypes are those of :func:`torch_iir.signal.lfilter_tv`.

    Raises:
        TypeError: as signal.lfilter_tv, or group is no group that this rank is in.
        ValueError: as signal.lfilter_tv, or there is no process group. Where only one rank raises, the others wait for
            it until their group's timeout.

    Note:
        A rank sends the last Kb − 1 samples of its part, and while they are under way filters the Ka − 1 unit states,
        which tells what its part makes of any past y; then its part, from rest; and once more when it knows the past.
        With N = Ka − 1 that is N passes for every row of coefficients, whose outputs are held no longer than that
        takes, and 2 for every row of the signal; backwards 2 alone. R ranks so take less time than one from R > N + 2
        on where every row of the signal has coefficients of its own, and from R > 2 where many rows share them.

        Differentiable in b, a, x and zi to any order, backwards; not under forward mode or vmap, nor, by torch.compile,
        twice. A gradient is that of the sum of what all ranks make losses of. That of what ranks share, coefficients
        that are constant or a zi, is each rank's own share of it: sum it over the ranks. All ranks run the same
        functions, forwards and backwards: with the same arguments requiring gradients and the same outputs used.

    Example:
        >>> import torch, torch.distributed as dist
        >>> from torch_iir import distributed, signal
        >>> x, a = torch.arange(10.0), torch.linspace(-0.9, 0.9, 10)[:, None] * torch.tensor([0.0, 1.0])
        >>> a[:, 0] = 1  # the same on every rank, of which each takes its part
        >>> part = torch.arange(10).tensor_split(dist.get_world_size())[dist.get_rank()]
        >>> y = distributed.lfilter_tv([1.0, 0.5], a[part], x[part])
        >>> torch.allclose(y, signal.lfilter_tv([1.0, 0.5], a, x)[part])
        True
    """
    ranks = ranks_of(group)
    if ranks.size == 1:
        return signal.lfilter_tv(b, a, x, zi)
    b, a, x, zx, zy = as_tensors(b, a, x, *((None, None) if zi is None else pair(zi)))
    b, a = with_rows(b, a)
    batch, order = check_lfilter_tv(x, b, a, zx, zy, *SETTINGS, NAMES)
    past = _exchanged_past(ranks, x, zx, b.shape[-1] - 1)
    if order == 0:
        before, after = past()
        y, zf = filtered(x, b, a, before, zy, a_first=0, names=NAMES)
    else:
        state = initial_state(zy, x, result_dtype(x, b, a, zx, zy))
        try:
            transition = _transition(x, a)  # while what is past is under way
            before, after = past()
            y, zf = filter_part(_RECURRENCE, ranks, (x, b, a, before), state.expand(*batch, order), transition)
        except (RuntimeError, TypeError, ValueError) as error:
            raise explain_lfilter_tv(error, x, b, a, zx, zy, *SETTINGS, NAMES) from None
    if zi is None:
        return y
    past_x = after.to(state_dtype(x.dtype, zx)).expand(*batch, after.shape[-1]).contiguous()
    return y, (past_x, zf.to(state_dtype(y.dtype, zy)))


def _forward(arguments: Sequence[Tensor | None], state: Tensor) -> Any:
    return _lfilter_tv(*arguments, state, *SETTINGS)


def _backward(
    gy: Tensor | None, gzf: Tensor | None, arguments: Sequence[Tensor | None], state: Tensor, y: Tensor, mask: int
) -> Any:
    return _lfilter_tv_backward(gy, gzf, *arguments, state, y, *SETTINGS, mask)


_RECURRENCE = Recurrence(_forward, _backward, BITS)  # in the past of y, of x, b, a and the past of x


def _exchanged_past(ranks: Ranks, x: Tensor, zx: Tensor | None, lag: int) -> Callable[[], tuple[Tensor | None, Tensor]]:
    """The last samples of x before this part, and those after the last part, newest first, once they have arrived.

    Every rank sends the end of its part, and of how many samples it is made: less than the lag where the part is
    shorter. With the first rank's go the samples before it. All ranks do the same, whatever the length of their part:
    what is a function of what, and so the order of what the ranks tell each other backwards, is the same everywhere.
    """
    if lag == 0:
        return lambda: (zx, x.new_zeros(0))
    first, inside = ranks.rank == 0, min(x.shape[-1], lag)
    own = x.new_zeros(lag) if zx is None else zx
    batch = broadcast_shape(x.shape[:-1], own.shape[:-1])
    assert batch is not None
    own = own.expand(*batch, lag)
    end = x.narrow(-1, x.shape[-1] - inside, inside).flip(-1).expand(*batch, inside)
    end = torch.cat([end, own], -1).narrow(-1, 0, lag)
    arrived = gather(ranks, end, end.new_full((), lag if first else inside, dtype=torch.float64))

    def past() -> tuple[Tensor | None, Tensor]:
        ends, counts = arrived()
        samples = ends.movedim(0, -2).flatten(-2)
        # In the time of what was sent, part p ends at stop[p]. Its sample j, newest first, is that of stop[p] − 1 − j.
        stop = counts.cumsum(0).to(torch.int64)
        back = torch.arange(lag, device=x.device)

        def before(rank: int) -> Tensor:
            time = stop[rank - 1] - 1 - back
            part = (time.unsqueeze(-1) >= stop).sum(-1)
            return samples.index_select(-1, part * lag + stop[part] - 1 - time)

        is_first = stop.new_full((), first, dtype=torch.bool)
        return torch.where(is_first, own, before(max(ranks.rank, 1))), before(ranks.size)

    return past


def _transition(x: Tensor, a: Tensor) -> Tensor:
    """That of the past of y over a part; of constant coefficients it is a power, but for those there is lfilter."""
    dtype = torch.promote_types(a.dtype, x.real.dtype)  # one for which the kernel reads a where it lies
    silence = a.new_zeros(1, dtype=dtype).expand(a.shape[-1] - 1, x.shape[-1])
    transition: Tensor = _Responses.apply(silence, a).mT  # type: ignore[no-untyped-call]
    return transition


class _Responses(torch.autograd.Function):
    """What the unit states, one a row, become in a time of silence (N, T): (…, N, N).

    Backwards, where only second derivatives go, the outputs are computed anew: N times those of a signal are not kept.
    """

    @staticmethod
    def forward(ctx: Any, silence: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(silence, a)
        ctx.set_materialize_grads(False)
        _, zf = _lfilter_tv(silence, None, a.unsqueeze(-3), None, unit_states(len(silence), silence), *SETTINGS)
        return zf  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:
        if gradient is None:  # so it is for a first derivative
            return None, None
        silence, a = ctx.saved_tensors
        units, coefficients = unit_states(len(silence), silence), a.unsqueeze(-3)
        y, _ = _lfilter_tv(silence, None, coefficients, None, units, *SETTINGS)
        arguments = (silence, None, coefficients, None, units, y, *SETTINGS, GA)
        ga = _lfilter_tv_backward(None, gradient, *arguments)[2]
        return None, ga.squeeze(-3)
