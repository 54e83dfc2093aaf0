"""Derivatives of a cascade of sections of order 2 and of its gradient. The equations are those of signal.sosfilt.

With u_0 = x, u_s = lfilter(u_{s−1}, b_s, a_s, zi_s), y = u_S, and w_S the gradient of y, the gradient of the cascade is

    w_{s−1}, gb_s, ga_s, gzi_s = lfilter_backward(w_s, gzf_s, u_{s−1}, b_s, a_s, zi_s, u_s)     gx = w_0

The kernels run all sections at once. What is seldom needed, forward mode and derivatives of the gradient, chains the
formulas of lfilter from section to section, with all u_s and w_s in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import check_sosfilt, result_dtype, state_dtype
from torch_iir._registration import Op, Tensors
from torch_iir.ops._gradients import add
from torch_iir.ops.lfilter import GA, GB, GX, GZI, LFilter, LFilterBackward, lfilter, lfilter_backward, wide

sosfilt = torch.ops.torch_iir.sosfilt.default
sosfilt_backward = torch.ops.torch_iir.sosfilt_backward.default

FOR_X, FOR_SOS, FOR_ZI = 1, 2, 4  # output_mask of sosfilt_backward


class SOSFilt(Op, name="sosfilt"):
    """(y, zf) = sosfilt(x, sos, zi)."""

    core: ClassVar[dict[str, int]] = {"x": 1, "sos": 2, "zi": 2}
    linear = (("x", "zi"),)

    @staticmethod
    def fake(x: Tensor, sos: Tensor, zi: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, sections = check_sosfilt(x, sos, zi)
        dtype = result_dtype(x, sos, zi)
        y = x.new_empty((*batch, x.shape[-1]), dtype=dtype)
        return y, x.new_empty((*batch, sections, 2), dtype=state_dtype(dtype, zi))

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        for_x, for_sos, for_zi = needed
        mask = FOR_X * for_x | FOR_SOS * for_sos | FOR_ZI * for_zi
        gx, gsos, gzi = sosfilt_backward(*gradients, *saved, mask)
        return gx if for_x else None, gsos if for_sos else None, gzi if for_zi else None

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        x, sos, zi = saved
        dx, dsos, dzi = tangents
        dtype = result_dtype(x, sos, zi)
        sections = _sections(sos.shape[-2], sos, zi)
        _, du, dzf = _cascade_jvp(x, dx, sections, _sections(len(sections), dsos, dzi))
        return du[-1].to(dtype), _stacked(dzf).to(state_dtype(dtype, zi))

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(4)

        def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.randn(*shape, dtype=dtype, generator=generator)

        def sections(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            """Sections with a dominant a0 ≠ 1: stable, and every coefficient can be perturbed."""
            sos = randn(*shape, 6, dtype=dtype) * 0.4
            sos[..., 0] += 1.0
            sos[..., 3] += 2.0
            return sos

        without_b0 = sections(2)
        without_b0[0, 0] = 0
        yield randn(5), sections(1), randn(1, 2)
        yield randn(2, 4), sections(2), None
        yield randn(4), without_b0, randn(2, 2)
        yield randn(2, 1, 3), sections(2, 1), randn(2, 1, 2)  # a bank
        yield randn(3), sections(2, 1, 2), randn(2, 2, 2)  # sos and zi broadcast against each other
        yield randn(4, 2).t(), sections(4)[::2], randn(2, 2).t()  # strided
        yield randn(1, 3).expand(2, 3), sections(1).expand(2, 6), randn(1, 2).expand(2, 2, 2)  # stride 0
        yield randn(1), sections(3), randn(3, 2)  # T below the order
        yield randn(2, 0), sections(2), randn(2, 2)  # T = 0
        yield randn(0, 3), sections(2), None  # no rows
        yield randn(4, dtype=torch.complex128), sections(2), None
        yield randn(3), sections(2, dtype=torch.complex128), randn(2, 2)


class SOSFiltBackward(Op, name="sosfilt_backward"):
    """(gx, gsos, gzi) = sosfilt_backward(gy, gzf, x, sos, zi, output_mask)."""

    core: ClassVar[dict[str, int]] = {"gy": 1, "gzf": 2, "x": 1, "sos": 2, "zi": 2}
    like = ("x", "sos", "zi")
    linear = (("gy", "gzf"),)

    @staticmethod
    def fake(
        gy: Tensor | None, gzf: Tensor | None, x: Tensor, sos: Tensor, zi: Tensor | None, output_mask: int
    ) -> tuple[Tensor, ...]:
        state = state_dtype(result_dtype(x, sos), None)

        def empty(bit: int, tensor: Tensor | None) -> Tensor:
            if tensor is None:
                return x.new_empty([0], dtype=state)
            return tensor.new_empty(tensor.shape if output_mask & bit else [0])

        return empty(FOR_X, x), empty(FOR_SOS, sos), empty(FOR_ZI, zi)

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, cotangents: Tensors) -> tuple[Tensor | None, ...]:
        """Back through the gradient's sections, which ends at w_S = gy, then through those of the filter."""
        gy, gzf, x, sos, zi, mask = saved
        bits = (FOR_X, FOR_SOS, FOR_ZI)
        hx, hsos, hzi = (h if mask & bit else None for h, bit in zip(cotangents, bits, strict=True))
        for_gy, for_gzf, for_x, for_sos, for_zi, *_ = needed
        for_u = for_x or for_sos or for_zi
        count = sos.shape[-2]
        sections, gzfs = _sections(count, wide(sos), zi), _unbound(count, gzf)
        u = [wide(x)]
        for section in sections:
            u.append(lfilter(u[-1], *section)[0])
        w = [gy]  # w_S … w_1
        for s in reversed(range(1, count)):
            w.append(lfilter_backward(w[-1], gzfs[s], u[s], *sections[s], u[s + 1], GX)[0])
        w.reverse()

        hw: Any = None if hx is None else wide(hx)
        gu: list[Any] = []  # of u_0 … u_S
        ggzf: list[Any] = []
        gsos: list[Any] = []  # pairs, of b and a
        gzi: list[Any] = []
        gv = None
        for s, (hb, ha, hz) in enumerate(_sections(count, hsos, hzi)):
            hw, gzf_s, gu_s, gb, ga, _, gv_s = LFilterBackward.backward(
                (True, for_gzf, for_u if s else for_x, for_sos, for_sos, False, for_u),
                (w[s], gzfs[s], u[s], *sections[s], u[s + 1], _section_mask(mask, s, zi)),
                (hw, hb, ha, hz),
            )
            gu.append(add(gu_s, gv))
            gv = gv_s
            ggzf.append(gzf_s)
            gsos.append((gb, ga))
        gu.append(gv)

        for s in reversed(range(count)):
            if gu[s + 1] is None:  # for all of them: only the gradient of sos depends on the inner signals
                break
            inner = GX * (s > 0 or for_x) | (GB | GA) * for_sos | GZI * for_zi
            gu_s, gb, ga, gz = lfilter_backward(gu[s + 1], None, u[s], *sections[s], u[s + 1], inner)
            if inner & GX:
                gu[s] = add(gu[s], gu_s)
            if for_sos:
                gsos[s] = gsos[s][0] + gb, gsos[s][1] + ga
            gzi.insert(0, gz)

        return (
            hw.to(gy.dtype) if for_gy else None,
            _stacked(ggzf) if for_gzf else None,
            gu[0].to(x.dtype) if for_x and gu[0] is not None else None,
            _stacked([torch.cat(halves, -1) for halves in gsos]).to(sos.dtype) if for_sos else None,
            _stacked(gzi) if for_zi and gzi else None,
        )

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        gy, gzf, x, sos, zi, mask = saved
        dgy, dgzf, dx, dsos, dzi, _ = tangents
        count = sos.shape[-2]
        sections, moves = _sections(count, wide(sos), zi), _sections(count, dsos, dzi)
        u, du, _ = _cascade_jvp(x, dx, sections, moves)
        gzfs, dgzfs = _unbound(count, gzf), _unbound(count, dgzf)
        tsos: list[Any] = []
        tzi: list[Any] = []
        w, dw = gy, dgy
        for s in reversed(range(count)):
            db, da, _ = moves[s]
            dw, tb, ta, tz = LFilterBackward.jvp(
                (w, gzfs[s], u[s], *sections[s], u[s + 1], _section_mask(mask, s, zi)),
                (dw, dgzfs[s], du[s], db, da, None, du[s + 1]),
            )
            if s:
                w, *_ = lfilter_backward(w, gzfs[s], u[s], *sections[s], u[s + 1], GX)
            tsos.insert(0, (tb, ta))
            tzi.insert(0, tz)
        return (
            dw.to(x.dtype) if dw is not None else None,
            _stacked([torch.cat(halves, -1) for halves in tsos]).to(sos.dtype) if mask & FOR_SOS else None,
            _stacked(tzi) if tzi[0] is not None else None,
        )

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(5)
        for index, (x, sos, zi) in enumerate(SOSFilt.samples()):
            y, zf = sosfilt(x, sos, zi)
            gy, gzf = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (y, zf))
            everything = FOR_X | FOR_SOS | (FOR_ZI if zi is not None else 0)
            yield gy, gzf, x, sos, zi, everything
            if index == 2:
                yield gy, None, x, sos, zi, FOR_SOS
                yield None, gzf, x, sos, zi, FOR_X
                yield gy[..., :1].expand(gy.shape), gzf, x, sos, zi, everything  # y.sum().backward() does this


Section = tuple[Any, Any, Any]  # b, a and zi of one section, or what belongs to them; None where there is none


def _sections(count: int, sos: Tensor | None, zi: Tensor | None) -> list[Section]:
    halves = [(None, None) if row is None else (row[..., :3], row[..., 3:]) for row in _unbound(count, sos)]
    return [(b, a, z) for (b, a), z in zip(halves, _unbound(count, zi), strict=True)]


def _unbound(count: int, tensor: Tensor | None) -> Sequence[Tensor | None]:
    return (None,) * count if tensor is None else tensor.unbind(-2)


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """As dimension −2, counted from the front: counted from the back, DTensor of torch 2.11 takes it for another."""
    return torch.stack(list(rows), rows[0].dim() - 1)


def _cascade_jvp(x: Tensor, dx: Tensor | None, sections: Sequence[Section], moves: Sequence[Section]) -> Any:
    """u_0 … u_S, their tangents and those of the final states; None for a tangent that is zero."""
    u, du, dzf = [wide(x)], [dx], []
    for section, move in zip(sections, moves, strict=True):
        v, _ = lfilter(u[-1], *section)
        dv, dz = LFilter.jvp((u[-1], *section, v), (du[-1], *move))
        u.append(v)
        du.append(dv)
        dzf.append(dz)
    return u, du, dzf


def _section_mask(mask: int, s: int, zi: Tensor | None) -> int:
    """output_mask of lfilter_backward for the section s: beyond the first one, w_{s−1} is needed by the next."""
    for_w = s > 0 or mask & FOR_X
    return GX * bool(for_w) | (GB | GA) * bool(mask & FOR_SOS) | GZI * (zi is not None and bool(mask & FOR_ZI))
