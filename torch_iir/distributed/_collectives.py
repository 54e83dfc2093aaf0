"""What ranks tell each other, differentiable to any order. torch's functional collectives stand here only.

An all-gather's gradient is a sum over the ranks of which each keeps its own part, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives  # how their ops are traced
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

Group: TypeAlias = dist.ProcessGroup | DeviceMesh | None

_c10d = torch.ops._c10d_functional


class Ranks(NamedTuple):
    """A process group by its name, and which of its ranks this process is."""

    group: str
    rank: int
    size: int


def ranks_of(group: Group) -> Ranks:
    """Raises if this process is in no such group."""
    if not dist.is_initialized():
        raise ValueError("group must exist: torch.distributed.init_process_group makes the default one")
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(f"group must be a mesh of one dimension, got {group.ndim}: take one of them by its name")
        group = group.get_group()
    if group is None:
        group = dist.group.WORLD
    if not isinstance(group, dist.ProcessGroup):  # a rank that is not in a group has a number in its place
        raise TypeError(f"group must be a process group that this rank is in, a device mesh or None, got {group!r}")
    return Ranks(group.group_name, dist.get_rank(group), dist.get_world_size(group))


def gather(ranks: Ranks, *tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Sends tensors, of the same shapes everywhere, in one message to all ranks.

    What is returned waits for them, and gives for each tensor those of all ranks: (ranks, …). Until then there is time
    for something else.
    """
    reals = [_real(tensor) for tensor in tensors]
    gathered = _Gather.apply(torch.cat([real.to(torch.float64).reshape(-1) for real in reals]), ranks)  # type: ignore[no-untyped-call]

    def arrived() -> list[Tensor]:
        parts = _Arrived.apply(gathered, ranks).split([real.numel() for real in reals], -1)  # type: ignore[no-untyped-call]
        values = [part.reshape(ranks.size, *real.shape) for part, real in zip(parts, reals, strict=True)]
        return [
            torch.view_as_complex(value.contiguous()) if tensor.is_complex() else value
            for value, tensor in zip(values, tensors, strict=True)
        ]

    return arrived


def own_sum(ranks: Ranks, tensor: Tensor) -> Tensor:
    """Of (ranks, …), the sum over all ranks of what they have for this one: the gradient of what was gathered."""
    real = _real(tensor)
    total: Tensor = _OwnSum.apply(real.reshape(ranks.size, -1), ranks).reshape(real.shape[1:])  # type: ignore[no-untyped-call]
    return torch.view_as_complex(total) if tensor.is_complex() else total


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


class _Gather(torch.autograd.Function):
    """(n,) to what will be (ranks · n,)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        gathered: Tensor = _c10d.all_gather_into_tensor(values.contiguous(), ranks.size, ranks.group)
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _OwnSum.apply(gradient.reshape(ctx.ranks.size, -1), ctx.ranks), None  # type: ignore[no-untyped-call]


class _Arrived(torch.autograd.Function):
    """What will be (ranks · n,) to (ranks, n)."""

    @staticmethod
    def forward(ctx: Any, gathered: Tensor, ranks: Ranks) -> Tensor:
        values: Tensor = _c10d.wait_tensor(gathered)
        return values.view(ranks.size, -1).clone()  # no view of what it was given

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return gradient.reshape(-1), None


class _OwnSum(torch.autograd.Function):
    """(ranks, n) to (n,)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = _c10d.reduce_scatter_tensor(values.reshape(-1), "sum", ranks.size, ranks.group)
        result: Tensor = _c10d.wait_tensor(total)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        ranks = ctx.ranks
        return _Arrived.apply(_Gather.apply(gradient, ranks), ranks), None  # type: ignore[no-untyped-call]
