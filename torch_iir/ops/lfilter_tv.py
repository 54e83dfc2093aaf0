"""Derivatives of the recursion A y = B x with coefficients that change in time, and of its gradient.

    Σ_k a[t,k] y[t−k] = Σ_k b[t,k] x[t−k]     x and y continued into zx and zi before the first sample

With g and γ the gradients of y and zf, and the adjoints Aᴴ and Bᴴ:

    Σ_k conj(a[t+k,k]) v[t+k] = g[t],   v = 0 from T on, γ_j added to the g of the sample that zf_j is
    gx[t] = Σ_k conj(b[t+k,k]) v[t+k]   gb[t,k] = v[t] conj(x[t−k])   ga[t,k] = −v[t] conj(y[t−k])

gzx and gzi are Bᴴ v and −Aᴴ v at the times before the first sample. All is bilinear, so each derivative below is a few
calls of the same two ops, which are closed under differentiation, to any order. Two things make that so: b may begin at
lag 1 as a monic a does, so that Ȧ y is computed as B x is; and interpolation between frames is linear, so that tangents
and gradients of frames are frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import check_lfilter_tv, result_dtype, state_dtype
from torch_iir._registration import Op, Tensors
from torch_iir.ops._gradients import add

lfilter_tv = torch.ops.torch_iir.lfilter_tv.default
lfilter_tv_backward = torch.ops.torch_iir.lfilter_tv_backward.default

GX, GB, GA, GZX, GZI = BITS = 1, 2, 4, 8, 16  # output_mask of lfilter_tv_backward


class LFilterTV(Op, name="lfilter_tv"):
    """(y, zf) = lfilter_tv(x, b, a, zx, zi, b_first, a_first, period)."""

    core: ClassVar[dict[str, int]] = {"x": 1, "b": 2, "a": 2, "zx": 1, "zi": 1}
    keeps = (0,)
    linear = (("x", "zx", "zi"),)  # not in b and zi: an absent b is no zeros

    @staticmethod
    def fake(
        x: Tensor,
        b: Tensor | None,
        a: Tensor,
        zx: Tensor | None = None,
        zi: Tensor | None = None,
        b_first: int = 0,
        a_first: int = 1,
        period: int = 1,
    ) -> tuple[Tensor, Tensor]:
        batch, order = check_lfilter_tv(x, b, a, zx, zi, b_first, a_first, period)
        dtype = result_dtype(x, b, a, zx, zi)
        y = x.new_empty((*batch, x.shape[-1]), dtype=dtype)
        return y, x.new_empty((*batch, order), dtype=state_dtype(dtype, zi))

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        mask = sum(bit for bit, wanted in zip(BITS, needed, strict=False) if wanted)
        return _gradients(mask, *gradients, *saved)

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """A ẏ = B ẋ + Ḃ x − Ȧ y."""
        x, b, a, zx, zi, y, b_first, a_first, period = saved
        dx, db, da, dzx, dzi, *_ = tangents
        drives: list[tuple[Any, ...]] = []  # a signal, what it goes through and from which lag on, and its past
        if dx is not None or dzx is not None:
            drives.append((_silence(x) if dx is None else dx, b, b_first, dzx))
        if db is not None:
            drives.append((x, db, b_first, zx))
        if da is not None:
            drives.append((-y, da, a_first, _minus(zi)))
        if dzi is not None and not drives:
            drives.append((_silence(x), None, 0, None))
        dy: Any = None
        dzf: Any = None
        for signal, through, first, past in drives:
            term, state = lfilter_tv(signal, through, a, past, dzi, first, a_first, period)
            dy, dzf = add(dy, term), add(dzf, state)
            dzi = None  # once is enough
        if dy is None:
            return None, None
        states = (*y.shape[:-1], dzf.shape[-1])
        return dy.expand(y.shape).to(y.dtype), dzf.expand(states).to(state_dtype(y.dtype, zi))

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(8)

        def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.randn(*shape, dtype=dtype, generator=generator)

        def taps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            """Of a monic a: small enough that nothing grows."""
            return randn(*shape, dtype=dtype) * (0.8 / max(shape[-1], 1))

        def with_a0(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            """With a dominant a0 ≠ 1."""
            a = taps(*shape, dtype=dtype)
            a[..., 0] += 1.5
            return a

        imaginary = torch.complex128
        yield randn(5), randn(5, 2), taps(5, 2), randn(1), randn(2), 0, 1, 1
        yield randn(2, 5), None, taps(1, 3), None, randn(3), 0, 1, 1  # all poles, constant
        yield randn(2, 1, 4), randn(2, 1, 2), with_a0(2, 4, 2), randn(2, 1, 2), randn(2, 1), 1, 0, 1  # a bank
        yield randn(2, 4), randn(4, 3), taps(1, 0), randn(2), None, 0, 1, 1  # no poles
        yield randn(4, 2).t(), randn(2, 4).t(), taps(2, 2, 8)[..., ::2].mT, None, randn(2, 2).t(), 0, 1, 1  # strided
        yield (  # stride 0, in rows and in time
            randn(2, 1).expand(2, 4),
            randn(1, 2).expand(4, 2),
            taps(1, 1, 1).expand(2, 4, 1),
            randn(1, 1).expand(2, 1),
            randn(1).expand(2, 1),
            0,
            1,
            1,
        )
        yield randn(2), randn(2, 4), taps(2, 3), randn(3), randn(3), 0, 1, 1  # T below the order
        yield randn(2, 0), randn(0, 2), taps(1, 2), randn(1), randn(2), 0, 1, 1  # T = 0
        yield randn(0, 3), randn(1, 2), with_a0(3, 2), None, None, 0, 0, 1  # no rows
        yield randn(5), randn(4, 2), with_a0(3, 3), randn(1), randn(2), 0, 0, 2  # one frame more of b
        yield randn(2, 4, dtype=imaginary), None, taps(2, 2), None, randn(2), 0, 1, 3
        yield (
            randn(4),
            randn(2, 1, dtype=imaginary),
            with_a0(1, 3, 2, dtype=imaginary),
            randn(1, dtype=imaginary),
            randn(1),
            1,
            0,
            3,
        )


class LFilterTVBackward(Op, name="lfilter_tv_backward"):
    """(gx, gb, ga, gzx, gzi) = lfilter_tv_backward(gy, gzf, x, b, a, zx, zi, y, b_first, a_first, period, output_mask).

    y is an argument like any other.
    """

    core: ClassVar[dict[str, int]] = {"gy": 1, "gzf": 1, "x": 1, "b": 2, "a": 2, "zx": 1, "zi": 1, "y": 1}
    like = ("x", "b", "a", "zx", "zi")
    linear = (("gy", "gzf"),)

    @staticmethod
    def fake(
        gy: Tensor | None,
        gzf: Tensor | None,
        x: Tensor,
        b: Tensor | None,
        a: Tensor,
        zx: Tensor | None,
        zi: Tensor | None,
        y: Tensor,
        b_first: int,
        a_first: int,
        period: int,
        output_mask: int,
    ) -> tuple[Tensor, ...]:
        result = result_dtype(x, b, a, zx, zi)
        state = state_dtype(result, zi)

        def empty(bit: int, tensor: Tensor | None, otherwise: torch.dtype) -> Tensor:
            if tensor is None:
                return x.new_empty([0], dtype=otherwise)
            return tensor.new_empty(tensor.shape if output_mask & bit else [0])

        return (
            empty(GX, x, result),
            empty(GB, b, result),
            empty(GA, a, result),
            empty(GZX, zx, state),
            empty(GZI, zi, state),
        )

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, cotangents: Tensors) -> tuple[Tensor | None, ...]:
        """The gradient of S = Re Σ ⟨h, output⟩, for cotangents h of the outputs.

        S = Re Σ conj(u) v with u = B hx + hb x − ha y from the states hzx and hzi, and as Aᴴ v = g + γ the gradients
        of g and γ are ỹ and its final state, where A ỹ = u: the tangents of y and zf along h. Those of the other
        arguments correlate v with hx, hb, ha and ỹ: what this op computes.
        """
        gy, gzf, x, b, a, zx, zi, y, b_first, a_first, period, mask = saved
        mask = _asked(mask, x, b, a, zx, zi)
        hx, hb, ha, hzx, hzi = (h if mask & bit else None for h, bit in zip(cotangents, BITS, strict=True))
        for_gy, for_gzf, for_x, for_b, for_a, for_zx, for_zi, for_y, *_ = needed
        y_tilde, zf_tilde = LFilterTV.jvp((x, b, a, zx, zi, y, b_first, a_first, period), (hx, hb, ha, hzx, hzi))
        if y_tilde is None or zf_tilde is None:
            return (None,) * 8
        grad_x, grad_b, grad_a, grad_zx, _ = _gradients(
            (GX * for_x | GZX * for_zx) * (hb is not None)
            | GB * for_b * (hx is not None or hzx is not None)
            | GA * for_a,
            gy,
            gzf,
            _silence(x) if hx is None else hx,
            b if hb is None else hb,  # of which the gradients asked for are then no functions
            a,
            _silence(zx) if hzx is None else hzx,
            _silence(zi) if hzi is None else hzi,
            y_tilde,
            b_first,
            a_first,
            period,
        )
        grad_y = grad_zi = None
        if ha is not None:  # −haᴴ v
            turned, _, _, before, _ = _gradients(
                GX * for_y | GZX * for_zi, gy, gzf, y, ha, a, _silence(zi), None, y, a_first, a_first, period
            )
            grad_y, grad_zi = _minus(turned), _minus(before)
        return (
            y_tilde if for_gy else None,
            zf_tilde.to(gzf.dtype) if for_gzf else None,
            grad_x,
            grad_b,
            grad_a,
            grad_zx,
            grad_zi,
            grad_y,
        )

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """Aᴴ v̇ = ġ + γ̇ − Ȧᴴ v; what v is correlated with obeys the product rule."""
        gy, gzf, x, b, a, zx, zi, y, b_first, a_first, period, mask = saved
        dgy, dgzf, dx, db, da, dzx, dzi, dy, *_ = tangents
        mask = _asked(mask, x, b, a, zx, zi)
        before = None  # −Ȧᴴ v at the times before the first sample
        if da is not None:
            # Aᴴ v = g + γ, and v goes through Ȧᴴ in a recursion without poles. Both are rounded to the dtype of y.
            v = lfilter_tv_backward(gy, gzf, y, None, a, None, None, y, 0, a_first, period, GX)[0]
            no_poles = a.new_empty((1, 0))
            drive, _, _, before, _ = _gradients(
                GX | GZX * bool(mask & GZI), -v, None, y, da, no_poles, _silence(zi), None, y, a_first, 1, period
            )
            dgy = add(dgy, drive)
        with_v_moving = _gradients(
            mask * (dgy is not None or dgzf is not None),
            *(dgy, dgzf, x, b, a, zx, zi, y, b_first, a_first, period),
        )
        with_v_fixed = _gradients(
            mask
            & (
                (GX | GZX) * (db is not None)
                | GB * (dx is not None or dzx is not None)
                | GA * (dy is not None or dzi is not None)
            ),
            gy,
            gzf,
            _silence(x) if dx is None else dx,
            b if db is None else db,
            a,
            _silence(zx) if dzx is None else dzx,
            _silence(zi) if dzi is None else dzi,
            _silence(y) if dy is None else dy,
            b_first,
            a_first,
            period,
        )
        gx, gb, ga, gzx, gzi = map(add, with_v_moving, with_v_fixed)
        return gx, gb, ga, gzx, add(gzi, before)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(9)
        for index, (x, b, a, zx, zi, *settings) in enumerate(LFilterTV.samples()):
            y, zf = lfilter_tv(x, b, a, zx, zi, *settings)
            gy, gzf = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (y, zf))
            everything = _asked(GX | GB | GA | GZX | GZI, x, b, a, zx, zi)
            yield gy, gzf, x, b, a, zx, zi, y, *settings, everything
            if index in (0, 2, 9):
                yield gy, None, x, b, a, zx, zi, y, *settings, GB | GA
                yield None, gzf, x, b, a, zx, zi, y, *settings, GX | GZI
                yield gy[..., :1].expand(gy.shape), gzf, x, b, a, zx, zi, y, *settings, everything  # y.sum().backward()


def _gradients(mask: int, *arguments: Any) -> tuple[Tensor | None, ...]:
    """What lfilter_tv_backward gives for a mask, None for what is not asked for."""
    if not mask:
        return (None,) * len(BITS)
    results = lfilter_tv_backward(*arguments, mask)
    return tuple(result if mask & bit else None for result, bit in zip(results, BITS, strict=True))


def _asked(mask: int, *arguments: Tensor | None) -> int:
    """The bits of a mask whose arguments are there."""
    return sum(mask & bit for bit, argument in zip(BITS, arguments, strict=True) if argument is not None)


def _silence(argument: Tensor | None) -> Tensor | None:
    """Zeros for an argument whose values have no part."""
    return None if argument is None else argument.new_zeros(()).expand(argument.shape)


def _minus(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else -tensor
