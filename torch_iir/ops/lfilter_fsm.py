"""Derivatives of the frequency-sampled cascade and of its gradient. The equations are those of signal.lfilter_fsm.

    y = F(x, b, a): x, padded with zeros to n_fft samples, times H = Π_s B_s / A_s in the frequency domain

y is linear in x and in H, so with the tangents of H, which are responses of cascades (ops/freqz.py),

    ẏ = F(ẋ, b, a) + Σ_s F(x, b with ḃ_s for b_s, a) + Σ_s F(x, b and −ȧ_s, a and a_s)

and the derivatives of the gradient are gradients of ⟨gy, ẏ⟩: calls of the same two ops, to any order. All of them are
real, and transform as often as one call does: no spectrum or response becomes a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import check_lfilter_fsm, check_lfilter_fsm_backward
from torch_iir._registration import Op, Tensors
from torch_iir.ops._gradients import add, like
from torch_iir.ops.freqz import directional, directional_backward
from torch_iir.ops.lfilter import wide

lfilter_fsm = torch.ops.torch_iir.lfilter_fsm.default
lfilter_fsm_backward = torch.ops.torch_iir.lfilter_fsm_backward.default

GX, GB, GA = BITS = 1, 2, 4  # output_mask of lfilter_fsm_backward


class LFilterFSM(Op, name="lfilter_fsm"):
    """y = lfilter_fsm(x, b, a, n_fft)."""

    core: ClassVar[dict[str, int]] = {"x": 1, "b": 2, "a": 2}
    real = True
    linear = (("x",),)

    @staticmethod
    def fake(x: Tensor, b: Tensor, a: Tensor, n_fft: int = 0) -> tuple[Tensor, ...]:
        batch = check_lfilter_fsm(x, b, a, n_fft)
        return (x.new_empty((*batch, x.shape[-1])),)

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        for_x, for_b, for_a, _ = needed
        gx, gb, ga = lfilter_fsm_backward(*gradients, *saved, GX * for_x | GB * for_b | GA * for_a)
        return gx if for_x else None, gb if for_b else None, ga if for_a else None

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        x, b, a, n_fft = saved
        dx, db, da, _ = tangents
        return (_tangent(x, b, a, n_fft, dx, db, da),)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(12)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        def without_poles(*shape: int) -> Tensor:
            """Denominators that are nowhere small: a0 ≠ 1 dominates."""
            a = randn(*shape) * (0.8 / shape[-1])
            a[..., 0] += 2.0
            return a

        yield randn(5), randn(1, 3), without_poles(1, 3), 0
        yield randn(2, 3), randn(2, 2), without_poles(2, 4), 0
        yield randn(2, 1, 3), randn(3, 1, 3), without_poles(2, 1, 1, 2), 0  # a bank: b and a broadcast
        yield randn(4), randn(3, 3), without_poles(3, 3), 7
        yield randn(2, 4), randn(1, 6), without_poles(1, 1), 4  # wraps, as what rings does
        yield randn(5), randn(1, 2), without_poles(2, 1, 2), 5
        yield randn(3, 2).t(), randn(2, 3, 2).mT, without_poles(4, 6)[::2, ::2], 8  # strided
        yield randn(1, 3).expand(2, 3), randn(1, 1).expand(2, 2), without_poles(1, 2).expand(2, 2, 2), 0  # stride 0
        yield randn(1), randn(1, 2), without_poles(1, 3), 1  # T = 1, and n_fft below the order
        yield randn(2, 0), randn(1, 2), without_poles(1, 2), 0  # T = 0
        yield randn(1, 0), randn(2, 3), without_poles(2, 3), 1
        yield randn(0, 3), randn(1, 3), without_poles(1, 3), 0  # no rows


class LFilterFSMBackward(Op, name="lfilter_fsm_backward"):
    """(gx, gb, ga) = lfilter_fsm_backward(gy, x, b, a, n_fft, output_mask)."""

    core: ClassVar[dict[str, int]] = {"gy": 1, "x": 1, "b": 2, "a": 2}
    like = ("x", "b", "a")
    real = True
    linear = (("gy",),)

    @staticmethod
    def fake(gy: Tensor, x: Tensor, b: Tensor, a: Tensor, n_fft: int, output_mask: int) -> tuple[Tensor, ...]:
        check_lfilter_fsm_backward(gy, x, b, a, n_fft)
        return tuple(
            tensor.new_empty(tensor.shape if output_mask & bit else [0])
            for bit, tensor in zip(BITS, (x, b, a), strict=True)
        )

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, cotangents: Tensors) -> tuple[Tensor | None, ...]:
        """For cotangents h of the outputs, Σ ⟨h, output⟩ = ⟨gy, ẏ⟩ with the tangent ẏ along them."""
        gy, x, b, a, n_fft, mask = saved
        along = [h if mask & bit else None for h, bit in zip(cotangents, BITS, strict=True)]
        for_gy, for_x, for_b, for_a, *_ = needed
        dy = _tangent(x, b, a, n_fft, *along) if for_gy else None
        return dy, *_gradients_of_tangent(GX * for_x | GB * for_b | GA * for_a, gy, x, b, a, n_fft, *along)

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """Second derivatives are symmetric: that of the gradient along ẋ, ḃ, ȧ is the gradient of ⟨gy, ẏ⟩."""
        gy, x, b, a, n_fft, mask = saved
        dgy, dx, db, da, *_ = tangents
        moved = _gradients_of_tangent(mask, gy, x, b, a, n_fft, dx, db, da)
        if dgy is None:
            return moved
        gradients = lfilter_fsm_backward(dgy, x, b, a, n_fft, mask)
        return tuple(add(gradient, other) for gradient, other in zip(gradients, moved, strict=True))

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(13)
        for index, (x, b, a, n_fft) in enumerate(LFilterFSM.samples()):
            y = lfilter_fsm(x, b, a, n_fft)
            gy = torch.randn(y.shape, dtype=y.dtype, generator=generator)
            yield gy, x, b, a, n_fft, GX | GB | GA
            if index == 1:
                yield gy, x, b, a, n_fft, GX
                yield gy, x, b, a, n_fft, GB | GA
                yield gy[..., :1].expand(gy.shape), x, b, a, n_fft, GX | GB | GA  # y.sum().backward() does this


def _tangent(
    x: Tensor, b: Tensor, a: Tensor, n_fft: int, dx: Tensor | None, db: Tensor | None, da: Tensor | None
) -> Tensor | None:
    """ẏ, None if it is zero."""

    def response(b: Tensor, a: Tensor) -> Any:
        return lfilter_fsm(x.unsqueeze(-2), b, a, n_fft)

    dy = None if dx is None else lfilter_fsm(dx, b, a, n_fft)
    return add(dy, directional(response, wide(b), wide(a), db, da))


def _gradients_of_tangent(
    mask: int,
    gy: Tensor,
    x: Tensor,
    b: Tensor,
    a: Tensor,
    n_fft: int,
    dx: Tensor | None,
    db: Tensor | None,
    da: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Those of ⟨gy, ẏ⟩ by x, b and a; None where they are zero or not in the mask."""
    if not mask:
        return None, None, None

    def backward(b: Tensor, a: Tensor, for_b: bool, for_a: bool) -> tuple[Tensor | None, ...]:
        same = gy.unsqueeze(-2).expand(*gy.shape[:-1], b.shape[-3], gy.shape[-1])
        bits = mask & GX | GB * for_b | GA * for_a
        gx, gb, ga = lfilter_fsm_backward(same, x.unsqueeze(-2), b, a, n_fft, bits)
        return gb, ga, gx.squeeze(-2) if mask & GX else None

    for_b, for_a = bool(mask & GB), bool(mask & GA)
    gb, ga, _, _, gx = directional_backward(backward, wide(b), wide(a), db, da, for_b, for_a)
    gradients = [gx, None if gb is None else like(gb, b), None if ga is None else like(ga, a)]
    bits = mask & (GB | GA)  # F(ẋ, b, a) is no function of x
    if dx is not None and bits:
        by_dx = lfilter_fsm_backward(gy, dx, b, a, n_fft, bits)
        gradients = [add(g, h if bits & bit else None) for g, h, bit in zip(gradients, by_dx, BITS, strict=True)]
    return tuple(gradients)
