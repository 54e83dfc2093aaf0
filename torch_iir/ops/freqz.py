"""Derivatives of the response of a cascade of rational filters, and of its gradient.

    h = Π_s B_s / A_s     B_s = Σ_k b[s,k] e^{−jωk},   A_s = Σ_k a[s,k] e^{−jωk}

Along ḃ and ȧ, the tangent of h is a sum of responses too: of S cascades with ḃ_s in the place of b_s, and of S cascades
with one more section, −ȧ_s over a_s:

    T(ḃ, ȧ) = Σ_s Ḃ_s / A_s Π_{r≠s} B_r / A_r  −  Σ_s Ȧ_s / A_s Π_r B_r / A_r

Along ω̇ it is −jω̇ T(k b, k a), as the derivative of B_s is −j Σ_k k b[s,k] e^{−jωk}. So tangents are calls of freqz on
batches of cascades, and derivatives of the gradient are gradients of Re⟨g, T⟩: calls of freqz_backward on these. This
is closed under differentiation, to any order. Nothing is divided by a B_s, which may be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import broadcast_batch, check_freqz
from torch_iir._registration import Op, Tensors
from torch_iir._sharding import numbers
from torch_iir.ops._gradients import add, like
from torch_iir.ops.lfilter import wide

freqz = torch.ops.torch_iir.freqz.default
freqz_backward = torch.ops.torch_iir.freqz_backward.default

GB, GA, GW = BITS = 1, 2, 4  # output_mask of freqz_backward


class Freqz(Op, name="freqz"):
    """h = freqz(b, a, w, wide): complex128 if wide, otherwise complex64."""

    core: ClassVar[dict[str, int]] = {"b": 2, "a": 2, "w": 1}
    independent = ("w",)

    @staticmethod
    def fake(b: Tensor, a: Tensor, w: Tensor, wide: bool) -> tuple[Tensor, ...]:
        batch = check_freqz(b, a, w)
        return (b.new_empty((*batch, w.shape[-1]), dtype=torch.complex128 if wide else torch.complex64),)

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        b, a, w, _ = saved
        for_b, for_a, for_w, _ = needed
        gb, ga, gw = freqz_backward(*gradients, b, a, w, GB * for_b | GA * for_a | GW * for_w)
        return gb if for_b else None, ga if for_a else None, gw if for_w else None

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        b, a, w, wide = saved
        db, da, dw, _ = tangents
        dh = _tangent(b, a, w, db, da, dw)
        return (None if dh is None else dh.to(torch.complex128 if wide else torch.complex64),)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(10)
        imaginary = torch.complex128

        def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.randn(*shape, dtype=dtype, generator=generator)

        def without_poles(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            """Denominators that are nowhere small: a0 ≠ 1 dominates."""
            a = randn(*shape, dtype=dtype) * (0.8 / shape[-1])
            a[..., 0] += 2.0
            return a

        with_zero = randn(3, 3)
        with_zero[1] = torch.tensor([1.0, 0.0, 1.0])  # at the angle π/2
        yield randn(1, 3), without_poles(1, 3), randn(4), True
        yield randn(2, 5), without_poles(2, 2), randn(3), True
        yield with_zero, without_poles(3, 3), torch.tensor([0.0, torch.pi / 2, 3.0], dtype=torch.float64), True
        yield randn(2, 1, 1, 2), without_poles(3, 1, 4), randn(3), True  # a bank: b and a broadcast
        yield randn(2, 2), without_poles(2, 1), randn(2, 1, 2), True  # frequencies of each row, no poles
        yield randn(3, 2).t(), without_poles(4, 6)[::2, ::2], randn(3, 2).t(), True  # strided
        yield randn(1, 2).expand(2, 2, 2), without_poles(1, 2).expand(2, 2), randn(1).expand(3), True  # stride 0
        yield randn(2, 2, 3), without_poles(2, 2), randn(0), False  # no frequencies
        yield randn(0, 1, 3), without_poles(1, 3), randn(2), True  # no rows
        yield randn(2, 2, dtype=imaginary), without_poles(2, 3), randn(2), True
        yield randn(1, 3), without_poles(2, 1, 2, dtype=imaginary), randn(2), True


class FreqzBackward(Op, name="freqz_backward"):
    """(gb, ga, gw) = freqz_backward(g, b, a, w, output_mask)."""

    core: ClassVar[dict[str, int]] = {"g": 1, "b": 2, "a": 2, "w": 1}
    like = ("b", "a", "w")
    linear = (("g",),)
    independent = ("g", "w")

    @staticmethod
    def fake(g: Tensor, b: Tensor, a: Tensor, w: Tensor, output_mask: int) -> tuple[Tensor, ...]:
        return tuple(
            tensor.new_empty(tensor.shape if output_mask & bit else [0])
            for bit, tensor in zip(BITS, (b, a, w), strict=True)
        )

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, cotangents: Tensors) -> tuple[Tensor | None, ...]:
        """For cotangents h of the outputs, Σ Re⟨h, output⟩ = Re⟨g, ḣ⟩ with the tangent ḣ along them."""
        g, b, a, w, mask = saved
        along = [h if mask & bit else None for h, bit in zip(cotangents, BITS, strict=True)]
        for_g, for_b, for_a, for_w, _ = needed
        dh = _tangent(b, a, w, *along) if for_g else None
        gradients = _gradients_of_tangent(GB * for_b | GA * for_a | GW * for_w, g, b, a, w, *along)
        return None if dh is None else dh.to(g.dtype), *gradients

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """Second derivatives are symmetric: that of the gradient along ḃ, ȧ, ω̇ is the gradient of Re⟨g, ḣ⟩."""
        g, b, a, w, mask = saved
        dg, db, da, dw, _ = tangents
        moved = _gradients_of_tangent(mask, g, b, a, w, db, da, dw)
        if dg is None:
            return moved
        gradients = freqz_backward(dg, b, a, w, mask)
        return tuple(add(gradient, other) for gradient, other in zip(gradients, moved, strict=True))

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(11)
        for index, (b, a, w, _) in enumerate(Freqz.samples()):
            h = freqz(b, a, w, True)
            g = torch.randn(h.shape, dtype=h.dtype, generator=generator)
            yield g, b, a, w, GB | GA | GW
            if index == 1:
                yield g, b, a, w, GB
                yield g, b, a, w, GA | GW
                yield g[..., :1].expand(g.shape), b, a, w, GB | GA | GW  # h.sum().backward() does this


def _tangent(b: Tensor, a: Tensor, w: Tensor, db: Tensor | None, da: Tensor | None, dw: Tensor | None) -> Tensor | None:
    """ḣ in double precision, None if it is zero."""
    b, a, w = wide(b), wide(a), wide(w)

    def response(b: Tensor, a: Tensor) -> Any:
        return freqz(b, a, w.unsqueeze(-2), True)

    dh = directional(response, b, a, db, da)
    if dw is None:
        return dh
    slope = directional(response, b, a, _lagged(b), _lagged(a))
    return add(dh, None if slope is None else -1j * wide(dw) * slope)


def _gradients_of_tangent(
    mask: int, g: Tensor, b: Tensor, a: Tensor, w: Tensor, db: Tensor | None, da: Tensor | None, dw: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Those of Re⟨g, ḣ⟩ by b, a and w; None where they are zero or not in the mask."""
    if not mask:
        return None, None, None
    arguments = b, a, w
    b, a, w, g = wide(b), wide(a), wide(w), wide(g)

    def gradients(weight: Tensor, db: Tensor | None, da: Tensor | None, for_moves: bool) -> list[Any]:
        def backward(b: Tensor, a: Tensor, for_b: bool, for_a: bool) -> tuple[Any, ...]:
            same = weight.unsqueeze(-2).expand(*weight.shape[:-1], b.shape[-3], weight.shape[-1])
            bits = GB * for_b | GA * for_a | mask & GW
            gb, ga, gw = freqz_backward(same, b, a, w.unsqueeze(-2), bits)
            return gb, ga, gw.squeeze(-2) if mask & GW else None

        return directional_backward(backward, b, a, db, da, bool(mask & GB), bool(mask & GA), for_moves)

    gb, ga, _, _, gw = gradients(g, db, da, False)
    if dw is not None:
        by_b, by_a, by_db, by_da, by_w = gradients(1j * wide(dw) * g, _lagged(b), _lagged(a), True)
        gb = add(gb, add(by_b, None if by_db is None else _lagged(by_db)))
        ga = add(ga, add(by_a, None if by_da is None else _lagged(by_da)))
        gw = add(gw, by_w)
    return tuple(
        None if gradient is None else like(gradient, argument)
        for gradient, argument in zip((gb, ga, gw), arguments, strict=True)
    )


def directional(
    response: Callable[[Tensor, Tensor], Tensor], b: Tensor, a: Tensor, db: Tensor | None, da: Tensor | None
) -> Tensor | None:
    """The tangent along ḃ and ȧ of what is linear in the response; None if it is zero.

    `response` maps cascades b (..., M, S, Kb) and a (..., M, S, Ka) to rows (..., M, W).
    """
    total = None
    if db is not None:
        total = response(_moved(b, db), a.unsqueeze(-3)).sum(-2)
    if da is not None:
        total = add(total, response(*_extended(b, a, da)).sum(-2))
    return total


def directional_backward(
    backward: Callable[..., tuple[Any, ...]],
    b: Tensor,
    a: Tensor,
    db: Tensor | None,
    da: Tensor | None,
    for_b: bool,
    for_a: bool,
    for_moves: bool = False,
) -> list[Tensor | None]:
    """Gradients of what `directional` gives: by b, a, ḃ, ȧ, and what `backward` returns beyond those of its cascades.

    `backward(b, a, for_b, for_a)` returns the gradients by cascades b and a, and another or None. Those by ḃ and ȧ come
    for_moves. What is zero or not wanted is None.
    """
    gb = ga = gdb = gda = rest = None
    if db is not None:
        by_moved, by_a, rest = backward(_moved(b, db), a.unsqueeze(-3), for_b, for_a)
        if for_b:
            gb = by_moved.masked_fill(_own(b), 0).sum(-3)
            gdb = by_moved.diagonal(0, -3, -2).mT if for_moves else None
        if for_a:
            ga = by_a.squeeze(-3)
    if da is not None:
        by_b, by_a, others = backward(*_extended(b, a, da), for_b or (for_a and for_moves), for_a)
        rest = add(rest, others)
        if for_b:
            gb = add(gb, like(by_b[..., :-1, : b.shape[-1]].sum(-3), b))
        if for_a:
            ga = add(ga, by_a[..., :-1, :].sum(-3) + by_a[..., -1, :])
            gda = like(-by_b[..., -1, : a.shape[-1]], a) if for_moves else None
    return [gb, ga, gdb, gda, rest]


def _moved(b: Tensor, db: Tensor) -> Tensor:
    """Numerators (..., S, S, Kb) of S cascades: in the s-th, ḃ_s is in the place of b_s."""
    return torch.where(_own(b), db.unsqueeze(-3), b.unsqueeze(-3))


def _own(b: Tensor) -> Tensor:
    """Where the cascades of `_moved` have ḃ."""
    section = numbers(b.shape[-2], b)
    return (section.unsqueeze(-1) == section).unsqueeze(-1)


def _extended(b: Tensor, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    """S cascades of S + 1 sections: the last of the s-th is −ȧ_s over a_s."""
    sections, taps = a.shape[-2], max(b.shape[-1], a.shape[-1])
    batch = broadcast_batch([("b", b), ("a", a)], (2, 2))
    b, da = pad(b, (0, taps - b.shape[-1])), pad(da, (0, taps - da.shape[-1]))
    b = b.unsqueeze(-3).expand(*batch, sections, sections, taps)
    last = -da.unsqueeze(-2).expand(*batch, sections, 1, taps)
    every = a.unsqueeze(-3).expand(*a.shape[:-2], sections, sections, a.shape[-1])
    return torch.cat([b, last], -2), torch.cat([every, a.unsqueeze(-2)], -2)


def _lagged(taps: Tensor) -> Tensor:
    """k c_k."""
    return taps * numbers(taps.shape[-1], taps)
