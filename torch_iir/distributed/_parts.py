"""Filters of which each rank has a part of the time: what stands between the parts, and how gradients go back.

With M_r the transition of the state over part r, and z_r its final state from rest (on the first rank, from zi):

    s_{r+1} = M_r s_r + z_r,   s_0 = 0     one all-gather of z_r and M_r; then each rank but the first filters from s_r

A gradient is a filter backwards in time. With w_r the gradient of s_r by the outputs of part r alone, and γ that of zf:

    λ_r = M_rᴴ λ_{r+1} + w_r,   λ_R = γ    one all-gather of w_r and γ

and with λ_{r+1} for the gradient of its final state, the op's own backward gives part r its gradients. So both ways go
over a part twice, the first time for N numbers. Filtering again from s_r costs less than adding the response to s_r to
what the first pass put out, 8 bytes a sample of float32 against 16 for as many operations, and rounds as one machine
does.

Every rank runs the same collectives in the same order, and has the same graph to go back through: what a rank does not
need is computed there all the same, or the others would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_iir.distributed._collectives import Ranks, gather, own_sum
from torch_iir.distributed._transition import chained_states, matrix_power


@dataclass(frozen=True)
class Recurrence:
    """An op as a map from a part and a state (…, N) to outputs and a state. Its arguments are x, coefficients, …

    Args:
        forward: forward(arguments, state), y and the final state.
        backward: backward(gy, gzf, arguments, state, y, output_mask), gradients of the arguments and of the state.
        bits: of these in the mask.
        keeps_output: whether gradients are made with y.
    """

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., Sequence[Tensor]]
    bits: tuple[int, ...]
    keeps_output: bool = True

    def gradients(self, needed: Sequence[bool], *given: Any) -> tuple[list[Tensor | None], Tensor]:
        """Those of the arguments, None if not needed, and that of the state."""
        *bits, of_state = self.bits
        mask = of_state | sum(bit for bit, wanted in zip(bits, needed, strict=True) if wanted)
        *gradients, gstate = self.backward(*given, mask)
        return [gradient if wanted else None for gradient, wanted in zip(gradients, needed, strict=True)], gstate


def initial_state(zi: Tensor | None, x: Tensor, result: torch.dtype) -> Tensor:
    """zi, or zeros that broadcast, in double precision; result is the dtype of y."""
    wide = torch.promote_types(result, torch.float64)
    return x.new_zeros((), dtype=wide) if zi is None else zi.to(wide)


def unit_states(count: int, like: Tensor) -> Tensor:
    """One a row, in double precision."""
    return torch.eye(count, dtype=torch.promote_types(like.dtype, torch.float64), device=like.device)


def filter_part(
    recurrence: Recurrence,
    ranks: Ranks,
    arguments: Sequence[Tensor | None],
    zi: Tensor,
    transition: Tensor,
    low: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y of this part, and the state after the last part for the state zi, (*batch, N), before the first.

    zi and transition, M_r, are in double precision; M_r is (…, N, N) and a function of the arguments, and low what it
    lacks for twice that precision.
    """
    if torch.is_autocast_enabled(zi.device.type):  # as the op does; what goes back is to have the dtypes it then had
        arguments = [tensor if tensor is None else _autocast(tensor) for tensor in arguments]
    if torch.compiler.is_compiling():  # torch.compile knows no second derivatives, and only these go through M_r
        transition = transition.detach()
    y, zf, _, _ = _Part.apply(recurrence, ranks, zi, transition, low, *arguments)  # type: ignore[no-untyped-call]
    return y, zf


def transition_of(responses: Callable[..., Tensor], samples: int, *coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """M_r of coefficients that are constant in time, and what it lacks for twice the precision.

    responses(samples, *coefficients) is what unit states, one a row, become in a time of silence, by the op.
    """
    if torch.compiler.is_compiling():
        return matrix_power(responses(1, *[tensor.detach() for tensor in coefficients]).mT, samples)
    transition: tuple[Tensor, Tensor] = _Transition.apply(responses, samples, *coefficients)  # type: ignore[no-untyped-call]
    return transition


def _autocast(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Part(torch.autograd.Function):
    """(y, zf, s_r, all M_r): the last two are there for what derivatives of the gradient go back through."""

    @staticmethod
    def forward(
        ctx: Any,
        recurrence: Recurrence,
        ranks: Ranks,
        zi: Tensor,
        transition: Tensor,
        low: Tensor | None,
        *arguments: Tensor | None,
    ) -> tuple[Tensor, ...]:
        first = ranks.rank == 0
        state = zi.clone() if first else torch.zeros_like(zi)
        y, z = recurrence.forward(arguments, state)
        z_all, transitions, *rest = gather(ranks, z, transition, *([] if low is None else [low]))()
        lows = rest[0].clone() if rest else torch.zeros_like(transitions)
        transitions = transitions.clone()  # no view of the message
        states = chained_states(transitions, lows, z_all, torch.zeros_like(z))
        if not first:
            del y  # or there would be two of them
            state = states[ranks.rank].clone()
            y, _ = recurrence.forward(arguments, state)
        ctx.save_for_backward(state, transitions, lows, y if recurrence.keeps_output else None, *arguments)
        ctx.set_materialize_grads(False)
        ctx.recurrence, ctx.ranks = recurrence, ranks
        return y, states[ranks.size].clone(), state, transitions

    @staticmethod
    def backward(
        ctx: Any, gy: Tensor | None, gzf: Tensor | None, gstate: Tensor | None, gtransitions: Tensor | None
    ) -> tuple[Any, ...]:
        recurrence, ranks = ctx.recurrence, ctx.ranks
        state, transitions, lows, y, *arguments = ctx.saved_tensors
        needed = ctx.needs_input_grad[5:]
        _, w = recurrence.gradients([False] * len(needed), gy, None, arguments, state, y)
        w = w if gstate is None else w + gstate
        w_all, gzf_all = gather(ranks, w, torch.zeros_like(w) if gzf is None else gzf)()
        # λ_R … λ_0
        lambdas = chained_states(transitions.mH.flip(0), lows.mH.flip(0), w_all.flip(0), gzf_all.sum(0))
        after = lambdas[ranks.size - 1 - ranks.rank]
        gradients, gzi = recurrence.gradients(needed, gy, after, arguments, state, y)
        if gstate is not None:
            gzi = gzi + gstate
        gzi = torch.where(gzi.new_full((), ranks.rank == 0, dtype=torch.bool), gzi, 0)
        if gtransitions is not None:
            gtransitions = None if torch.compiler.is_compiling() else own_sum(ranks, gtransitions)
        return None, None, gzi, gtransitions, None, *gradients


class _Transition(torch.autograd.Function):
    """Its derivative, which only second derivatives of a filter need, is that of the responses over all samples."""

    @staticmethod
    def forward(ctx: Any, responses: Callable[..., Tensor], samples: int, *coefficients: Tensor) -> Any:
        ctx.save_for_backward(*coefficients)
        ctx.set_materialize_grads(False)
        ctx.responses, ctx.samples = responses, samples
        transition, low = matrix_power(responses(1, *coefficients).mT, samples)
        ctx.mark_non_differentiable(low)
        return transition, low

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[2:]
        if gradient is None:
            return (None,) * (2 + len(needed))
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            coefficients = ctx.saved_tensors
            if not again:
                coefficients = [
                    tensor.detach().requires_grad_(n) for tensor, n in zip(coefficients, needed, strict=True)
                ]
            transition = ctx.responses(ctx.samples, *coefficients).mT
            wanted = [tensor for tensor, n in zip(coefficients, needed, strict=True) if n]
            gradients = iter(torch.autograd.grad(transition, wanted, gradient, create_graph=again))
        return None, None, *[next(gradients) if n else None for n in needed]
