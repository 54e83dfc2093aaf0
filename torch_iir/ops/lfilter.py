"""Derivatives of the recursive filter y = (B/A) x and of its gradient. The equations are those of signal.lfilter.

With b̂ = b/a0, â = a/a0, the state zi of the normalised filter, g and γ the gradients of y and zf:

    v[t] = g[t] − Σ_{k≥1} conj(â_k) v[t+k],   v[T+j] = γ_j
    gx[t] = Σ_k conj(b̂_k) v[t+k]     gb̂_k = Σ_t v[t] conj(x[t−k])     gâ_k = −Σ_t v[t] conj(y[t−k])     gzi_j = v[j]

All is bilinear, so each derivative below is a few calls of the same two ops: filters of tangents forwards, filters of
gradients backwards. They are closed under differentiation, to any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import broadcast_batch, check_lfilter, filter_order, result_dtype, state_dtype
from torch_iir._registration import Op, Tensors
from torch_iir.ops._gradients import like

lfilter = torch.ops.torch_iir.lfilter.default
lfilter_backward = torch.ops.torch_iir.lfilter_backward.default

GX, GB, GA, GZI = 1, 2, 4, 8  # output_mask of lfilter_backward


class LFilter(Op, name="lfilter"):
    """(y, zf) = lfilter(x, b, a, zi)."""

    core: ClassVar[dict[str, int]] = {"x": 1, "b": 1, "a": 1, "zi": 1}
    keeps = (0,)
    linear = (("x", "zi"), ("b", "zi"))

    @staticmethod
    def fake(x: Tensor, b: Tensor, a: Tensor, zi: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, order = check_lfilter(x, b, a, zi)
        dtype = result_dtype(x, b, a, zi)
        y = x.new_empty((*batch, x.shape[-1]), dtype=dtype)
        return y, x.new_empty((*batch, order), dtype=state_dtype(dtype, zi))

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        x, b, a, zi, y = saved
        gy, gzf = gradients
        for_x, for_b, for_a, for_zi = needed
        mask = GX * for_x | GB * for_b | GA * for_a | GZI * for_zi
        gx, gb, ga, gzi = lfilter_backward(gy, gzf, x, b, a, zi, y, mask)
        return gx if for_x else None, gb if for_b else None, ga if for_a else None, gzi if for_zi else None

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """(ẏ, żf) = L(ẋ, b, a, żi) + L(x, ḃ − b̂ ȧ0, a) − L(y, ȧ − â ȧ0, a)."""
        x, b, a, zi, y = saved
        dx, db, da, dzi = tangents
        terms = []
        if dx is not None or dzi is not None:
            terms.append(lfilter(_silence(x) if dx is None else dx, b, a, dzi))
        if db is not None or da is not None:
            b, a = wide(b), wide(a)
        if da is not None:
            da0 = _first(wide(da))
            db = -b / _first(a) * da0 if db is None else wide(db) - b / _first(a) * da0
            terms.append(lfilter(y, _after_zero(a / _first(a) * da0 - da), a))
        if db is not None:
            terms.append(lfilter(x, wide(db), a))
        shape, dtype = (*y.shape[:-1], filter_order(b, a)), state_dtype(y.dtype, zi)
        dy = _total([dy for dy, _ in terms], y.shape, y.dtype)
        return dy, _total_states([dzf for _, dzf in terms], shape, dtype)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(2)

        def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.randn(*shape, dtype=dtype, generator=generator)

        def filters(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            """Denominators with a dominant a0 ≠ 1: stable, and every coefficient can be perturbed."""
            a = randn(*shape, dtype=dtype) * (0.8 / max(shape[-1], 1))
            a[..., 0] += 1.5
            return a

        yield randn(7), randn(3), filters(3), randn(2)
        yield randn(2, 5), randn(2), filters(4), None
        yield randn(2, 1, 6), randn(3, 3), filters(3, 2), randn(2)  # a bank, b longer than a
        yield randn(6), randn(2, 1, 3), filters(3, 3), randn(3, 2)  # b and a broadcast against each other
        yield randn(6, 2).t(), randn(2, 3, 2)[..., 0], filters(4, 3)[::2], None  # strided
        yield randn(1, 5).expand(3, 5), randn(1).expand(3), filters(3), randn(1, 2).expand(3, 2)  # stride 0
        yield randn(3), randn(5), filters(6), randn(5)  # T below the order
        yield randn(2, 0), randn(3), filters(3), randn(2)  # T = 0
        yield randn(0, 4), randn(3), filters(3), None  # no rows
        yield randn(2, 4), randn(1), filters(1), None  # order 0
        yield randn(5, dtype=torch.complex128), randn(3), filters(3), None
        yield randn(2, 5), randn(3, dtype=torch.complex128), filters(2, 3, dtype=torch.complex128), randn(2)


class LFilterBackward(Op, name="lfilter_backward"):
    """(gx, gb, ga, gzi) = lfilter_backward(gy, gzf, x, b, a, zi, y, output_mask); y is an argument like any other."""

    core: ClassVar[dict[str, int]] = {"gy": 1, "gzf": 1, "x": 1, "b": 1, "a": 1, "zi": 1, "y": 1}
    like = ("x", "b", "a", "zi")
    linear = (("gy", "gzf"),)

    @staticmethod
    def fake(
        gy: Tensor | None,
        gzf: Tensor | None,
        x: Tensor,
        b: Tensor,
        a: Tensor,
        zi: Tensor | None,
        y: Tensor,
        output_mask: int,
    ) -> tuple[Tensor, ...]:
        state = state_dtype(result_dtype(x, b, a), None)

        def empty(bit: int, tensor: Tensor | None) -> Tensor:
            if tensor is None:
                return x.new_empty([0], dtype=state)
            return tensor.new_empty(tensor.shape if output_mask & bit else [0])

        return empty(GX, x), empty(GB, b), empty(GA, a), empty(GZI, zi)

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, cotangents: Tensors) -> tuple[Tensor | None, ...]:
        """The gradient of S = Re Σ ⟨h, output⟩, for cotangents h of the outputs.

        Through b̂ and â, the cotangents of gb̂ and gâ are h̃b = (hb − ha0 b̂)/a0 and h̃a = (ha − ha0 â)/a0, h̃a_0 = 0, so
        S = Re Σ conj(u) v with u = B̂ hx + h̃b∗x − h̃a∗y + hzi, and as v = (1/Â)ᴴ g the gradient of g is
        ỹ = u/Â. Those of the other arguments correlate v with hx, h̃b, h̃a and ỹ: what this op computes.
        """
        gy, gzf, x, b, a, zi, y, mask = saved
        hx, hb, ha, hzi = (h if mask & bit else None for h, bit in zip(cotangents, (GX, GB, GA, GZI), strict=True))
        for_gy, for_gzf, for_x, for_b, for_a, _, for_y, *_ = needed
        b_hat, a_hat, a0 = _normalised(b, a)
        ratio = None  # ha0 / a0
        if ha is not None:
            ha = wide(ha)
            ratio = _first(ha) / a0
            ha = _after_zero(ha / a0 - ratio * a_hat)
            hb = -ratio * b_hat if hb is None else wide(hb) / a0 - ratio * b_hat
        elif hb is not None:
            hb = wide(hb) / a0

        terms = []
        if hx is not None or hzi is not None:
            terms.append(lfilter(_silence(x) if hx is None else hx, b_hat, a_hat, hzi))
        if hb is not None:
            terms.append(lfilter(x, hb, a_hat))
        if ha is not None:
            terms.append(lfilter(y, -ha, a_hat))
        y_tilde = _total([term for term, _ in terms], y.shape, y.dtype)
        grad_gzf = None
        if for_gzf:
            grad_gzf = _total_states([state for _, state in terms], gzf.shape, gzf.dtype)

        for_filter = for_b or for_a
        grad_x, grad_b, grad_a, _ = lfilter_backward(
            gy,
            gzf,
            x if hx is None else hx,
            b_hat if hb is None else hb,
            a_hat,
            zi,
            y_tilde,
            GX * (for_x and hb is not None) | GB * (for_filter and hx is not None) | GA * for_filter,
        )
        grad_gy = y_tilde if for_gy else None
        grad_x = grad_x if for_x and hb is not None else None
        grad_y = -_correlate(gy, gzf, ha, a_hat, y) if for_y and ha is not None else None
        if not for_filter:
            return grad_gy, grad_gzf, grad_x, None, None, None, grad_y

        grad_b = grad_b if hx is not None else torch.zeros_like(b_hat)
        grad_a = _rest(grad_a)
        grad_a0 = torch.zeros_like(a0)
        if hb is not None:  # b̂, â and a0 also stand in h̃b and h̃a
            _, gb_hat, ga_hat, _ = lfilter_backward(gy, gzf, x, b_hat, a_hat, zi, y, GB | GA)
            grad_a0 = -(hb / a0).conj().mul(gb_hat).sum(-1, keepdim=True)
            if ha is not None and ratio is not None:
                grad_a0 = grad_a0 - _rest((ha / a0).conj() * ga_hat).sum(-1, keepdim=True)
                grad_b = grad_b - ratio.conj() * gb_hat
                grad_a = grad_a - ratio.conj() * _rest(ga_hat)
        grad_b, grad_a = _denormalised(grad_b, grad_a, b_hat, a_hat, a0)
        grad_a = torch.cat([_first(grad_a) + grad_a0, _rest(grad_a)], -1)
        grad_b = like(grad_b, b) if for_b else None
        grad_a = like(grad_a, a) if for_a else None
        return grad_gy, grad_gzf, grad_x, grad_b, grad_a, None, grad_y  # the gradients do not depend on zi

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """v̇ is the same recursion driven by ġ − Σ conj(â̇_k) v[t+k]; the correlations obey the product rule."""
        gy, gzf, x, b, a, zi, y, mask = saved
        dgy, dgzf, dx, db, da, _, dy, *_ = tangents
        b_hat, a_hat, a0 = _normalised(b, a)
        inner = mask | GB if mask & GA else mask  # ga_0 is made of gb
        db_hat = None if db is None else wide(db) / a0
        ratio = None  # ȧ0 / a0
        if da is not None:
            ratio = _first(wide(da)) / a0
            db_hat = -ratio * b_hat if db_hat is None else db_hat - ratio * b_hat
            da_hat = _after_zero(wide(da) / a0 - ratio * a_hat)
            drive = -_correlate(gy, gzf, da_hat, a_hat, y)
            dgy = drive if dgy is None else dgy + drive

        outputs: list[Tensor | None] = [None] * 4  # tangents of gx, gb̂, gâ, gzi

        def add(values: Tensors, bits: int) -> None:
            for index, value in enumerate(values):
                if bits >> index & 1:
                    previous = outputs[index]
                    outputs[index] = value if previous is None else previous + value

        if dgy is not None or dgzf is not None:
            add(lfilter_backward(dgy, dgzf, x, b_hat, a_hat, zi, y, inner), inner)
        changed = inner & (GX * (db_hat is not None) | GB * (dx is not None) | GA * (dy is not None))
        if changed:
            add(
                lfilter_backward(
                    gy,
                    gzf,
                    x if dx is None else dx,
                    b_hat if db_hat is None else db_hat,
                    a_hat,
                    zi,
                    y if dy is None else dy,
                    changed,
                ),
                changed,
            )
        tgx, tgb, tga, tgzi = outputs
        if not mask & (GB | GA):
            return tgx, None, None, tgzi

        tgb = torch.zeros_like(b_hat) if tgb is None else tgb
        tga = torch.zeros_like(a_hat) if tga is None else tga
        tgb, tga = _denormalised(tgb, _rest(tga), b_hat, a_hat, a0)
        if db_hat is not None:  # b̂, â and a0 also stand in the step from gb̂, gâ to gb, ga
            _, gb, ga, _ = lfilter_backward(gy, gzf, x, b_hat, a_hat, zi, y, GB | GA)
            extra = gb * db_hat.conj()
            if ratio is not None:
                extra = extra.sum(-1, keepdim=True) + _rest(ga * da_hat.conj()).sum(-1, keepdim=True)
                gb, ga = _denormalised(gb, _rest(ga), b_hat, a_hat, a0)
                tgb = tgb - gb * ratio.conj()
                tga = tga - ga * ratio.conj()
            else:
                extra = extra.sum(-1, keepdim=True)
            tga = torch.cat([_first(tga) - extra / a0.conj(), _rest(tga)], -1)
        return tgx, like(tgb, b) if mask & GB else None, like(tga, a) if mask & GA else None, tgzi

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(3)
        for x, b, a, zi in LFilter.samples():
            y, zf = lfilter(x, b, a, zi)
            gy, gzf = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (y, zf))
            everything = GX | GB | GA | (GZI if zi is not None else 0)
            yield gy, gzf, x, b, a, zi, y, everything
            yield gy, None, x, b, a, zi, y, GB | GA
            yield None, gzf, x, b, a, zi, y, GX
            yield gy[..., :1].expand(gy.shape), gzf, x, b, a, zi, y, everything  # y.sum().backward() does this


def _correlate(gy: Tensor | None, gzf: Tensor | None, c: Tensor, a_hat: Tensor, y: Tensor) -> Tensor:
    """Σ_k conj(c_k) v[t+k], row by row, with c as long as â; of γ only what â reaches from inside."""
    gzf = None if gzf is None else gzf.narrow(-1, 0, a_hat.shape[-1] - 1)
    out: Tensor = lfilter_backward(gy, gzf, y, c, a_hat, None, y, GX)[0]
    return out


def _normalised(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """b/a0, a/a0 and a0 in double precision, with the batch dimensions of b and a together.

    What belongs to one a0 is then a row of its own, also where one of b and a is shared by several of the other.
    """
    batch = broadcast_batch([("b", b), ("a", a)])
    b = wide(b).expand(*batch, b.shape[-1])
    a = wide(a).expand(*batch, a.shape[-1])
    a0 = _first(a)
    return b / a0, torch.cat([torch.ones_like(a0), _rest(a) / a0], -1), a0


def _denormalised(gb_hat: Tensor, ga_hat: Tensor, b_hat: Tensor, a_hat: Tensor, a0: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of b and a from those of b̂ and of â_k, k ≥ 1."""
    a0 = a0.conj()
    through = (gb_hat * b_hat.conj()).sum(-1, keepdim=True) + (ga_hat * _rest(a_hat).conj()).sum(-1, keepdim=True)
    return gb_hat / a0, torch.cat([-through / a0, ga_hat / a0], -1)


def wide(tensor: Tensor) -> Tensor:
    """Double precision: what the kernels compute in. Coefficients rounded to less would be another filter."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def _first(coefficients: Tensor) -> Tensor:
    return coefficients.narrow(-1, 0, 1)


def _rest(coefficients: Tensor) -> Tensor:
    return coefficients.narrow(-1, 1, coefficients.shape[-1] - 1)


def _after_zero(coefficients: Tensor) -> Tensor:
    """The coefficients with 0 in the place of the first."""
    return pad(_rest(coefficients), (1, 0))


def _silence(x: Tensor) -> Tensor:
    return x.new_zeros(()).expand(x.shape[-1])


def _total(terms: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total.expand(shape).to(dtype)


def _total_states(terms: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """As _total; the states of filters of a lower order end in zeros."""
    return _total([pad(term, (0, shape[-1] - term.shape[-1])) for term in terms], shape, dtype)
