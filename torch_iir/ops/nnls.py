"""Derivatives of non-negative least squares. The equations are those of torch_iir.nnls.

For every column, with x = max(Aᵀλ, 0), or w ∘ exp(Aᵀλ) for a prior w, and A x + μ λ = b. With D the derivative of x by
Aᵀλ, that is the mask x > 0, or diag(x), all derivatives are solutions (u, p) = S(g, h) of one linear system:

    (A D Aᵀ + μ) u = A D g + h      p = D (g − Aᵀu)

Backwards, for the gradients gx and gλ, (u, p) = S(gx, gλ):

    gb = u      gA = λ pᵀ − u xᵀ      gμ = −u·λ      gw = exp(Aᵀλ) ∘ (gx − Aᵀu) = p / w

Forwards, with z = exp(Aᵀλ) ∘ ẇ = x / w ∘ ẇ, (u, p) = S(−Ȧᵀλ, ḃ − Ȧ x − μ̇ λ − A z): λ̇ = u and ẋ = z − p. What a prior of
0 keeps at 0 has no derivatives by it.

S is its own transpose but for a sign, and its derivatives are S again: closed, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_iir._arguments import check_nnls, check_nnls_derivative
from torch_iir._registration import Op, Tensors
from torch_iir.ops._gradients import like

nnls = torch.ops.torch_iir.nnls.default
nnls_derivative = torch.ops.torch_iir.nnls_derivative.default

SOLVERS = ("auto", "newton", "projected_gradient")  # by their numbers
SOLVED, ENTROPY, FAILED = 0, 1, 2  # outcomes


class NNLS(Op, name="nnls"):
    """(x, dual, outcome) = nnls(b, a, mu, prior, solver, tolerance, max_iterations)."""

    core: ClassVar[dict[str, int]] = {"b": 2, "a": 2, "mu": 1, "prior": 2}
    keeps = (0, 1, 2)
    real = True
    sparse = ("a",)
    independent = ("b", "mu", "prior")

    @staticmethod
    def fake(
        b: Tensor, a: Tensor, mu: Tensor, prior: Tensor | None, solver: int, tolerance: float, max_iterations: int
    ) -> tuple[Tensor, ...]:
        batch, m, n, k = check_nnls(b, a, mu, prior)
        return (
            b.new_empty((*batch, n, k)),
            b.new_empty((*batch, m, k), dtype=torch.float64),
            b.new_empty((*batch, k), dtype=torch.int32),
        )

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        b, a, mu, prior, x, dual, outcome, solver, *_ = saved
        gx, gdual, _ = gradients
        for_b, for_a, for_mu, for_prior, *_ = needed
        w, support = _slopes(x, outcome, prior)
        gx = None if gx is None else gx.to(w.dtype)
        u, p = nnls_derivative(gx, gdual, w, a, mu, support, solver, for_a or for_prior)
        return (
            like(u, b) if for_b else None,
            _products(dual, p, a) - _products(u, x, a) if for_a else None,
            like(-(u * dual).sum(-2), mu) if for_mu else None,
            like(_by_prior(p, outcome, prior), prior) if for_prior else None,
        )

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        _, a, mu, prior, x, dual, outcome, solver, *_ = saved
        db, da, dmu, dprior, *_ = tangents
        w, support = _slopes(x, outcome, prior)
        z = None if dprior is None else _by_prior(x, outcome, prior) * dprior
        drives = [
            None if db is None else db.double(),
            None if da is None else -_times(da, x),
            None if dmu is None else -dmu.unsqueeze(-2).double() * dual,
            None if z is None else -_times(a, z),
        ]
        g = None if da is None else -_turned(da, dual, w)
        h = _sum(drives)
        if g is None and h is None:
            return None, None, None
        u, p = nnls_derivative(g, h, w, a, mu, support, solver, True)
        return (-p if z is None else z - p).to(x.dtype), u, None

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(6)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.5

        def bank(*shape: int) -> Tensor:
            """Rows that overlap their neighbours."""
            m, n = shape[-2:]
            at = torch.linspace(0, m - 1, n, dtype=torch.float64) - torch.arange(m, dtype=torch.float64)[:, None]
            return (1 - at.abs()).clamp_min(0) * rand(*shape)

        auto, newton, gradient = range(3)
        precise = (1e-13, 2000)
        yield rand(3, 2), bank(3, 5), rand(2) / 8, None, auto, *precise
        yield randn(4, 1), bank(4, 6), rand(1) / 8, None, newton, *precise  # outside the cone
        yield randn(5, 2), randn(5, 3), rand(2) / 8, None, auto, *precise
        yield randn(2, 2), randn(2, 4), rand(2) / 8, None, gradient, *precise
        yield rand(3, 2), bank(3, 5), rand(2) / 8, rand(5, 2), auto, *precise
        yield randn(2, 1, 3, 2), bank(2, 3, 4), rand(2), None, newton, *precise  # matrices and columns broadcast
        yield rand(3, 2), bank(2, 3, 4), rand(2, 1, 2), rand(4, 2), auto, *precise
        yield rand(2, 3).t(), bank(3, 8)[:, ::2], rand(4)[::2], rand(2, 5).t()[:4], newton, *precise  # strided
        shared = (rand(1, 3, 1) - 0.75).expand(2, 3, 2)
        yield shared, bank(3, 4).expand(2, 3, 4), rand(1).expand(2), None, auto, *precise
        yield rand(3, 2), bank(3, 4), rand(1).expand(2), rand(4, 1).expand(4, 2), newton, *precise  # stride 0
        yield rand(3, 0), bank(3, 4), rand(0), None, auto, *precise  # k = 0
        yield rand(3, 2), bank(3, 4)[:, :0], rand(2), None, auto, *precise  # n = 0
        yield rand(0, 3, 2), bank(3, 4), rand(2), None, auto, *precise  # no batch
        without = torch.tensor([[1.0], [0.0], [1.0]])
        yield randn(3, 2), bank(3, 4) * without, rand(2), None, auto, *precise  # an empty row


class NNLSDerivative(Op, name="nnls_derivative"):
    """(u, p) = S(g, h), with D = diag(w > 0) if `support`, else diag(w); p only if needed.

    With a dot for tangents and q = g − Aᵀu, the derivative is (u̇, ṗ) = S(ġ − Ȧᵀu, ḣ + Ȧp − μ̇u + A(ẇ ∘ q)) + (0, ẇ ∘ q).
    Backwards, for the gradients gu and gp, with (v, r) = S(gp, −gu):

        gg = r      gh = −v      gw = q ∘ (gp − Aᵀv)      gA = −u rᵀ − v pᵀ      gμ = u·v
    """

    core: ClassVar[dict[str, int]] = {"g": 2, "h": 2, "w": 2, "a": 2, "mu": 1}
    keeps = (0, 1)
    real = True
    sparse = ("a",)
    linear = (("g", "h"),)
    independent = ("g", "h", "w", "mu")

    @staticmethod
    def fake(
        g: Tensor | None,
        h: Tensor | None,
        w: Tensor,
        a: Tensor,
        mu: Tensor,
        support: bool,
        solver: int,
        needs_p: bool,
    ) -> tuple[Tensor, ...]:
        batch, m, n, k = check_nnls_derivative(g, h, w, a, mu)
        u = w.new_empty((*batch, m, k), dtype=torch.float64)
        return u, w.new_empty((*batch, n, k) if needs_p else [0])

    @staticmethod
    def backward(needed: Sequence[bool], saved: Tensors, gradients: Tensors) -> tuple[Tensor | None, ...]:
        g, h, w, a, mu, u, p, support, solver, needs_p = saved
        gu, gp = gradients
        for_g, for_h, for_w, for_a, for_mu, *_ = needed
        gp = gp if needs_p else None
        v, r = nnls_derivative(gp, None if gu is None else -gu, w, a, mu, support, solver, for_g or for_a)
        ga = gw = None
        if for_a:
            p = p if needs_p else nnls_derivative(g, h, w, a, mu, support, solver, True)[1]
            ga = -(_products(u, r, a) + _products(v, p, a))
        if for_w and not support:
            gw = like(_rest(g, u, a) * _rest(gp, v, a), w)
        return (
            like(r, g) if for_g else None,
            like(-v, h) if for_h else None,
            gw,
            ga,
            like((u * v).sum(-2), mu) if for_mu else None,
        )

    @staticmethod
    def jvp(saved: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        g, h, w, a, mu, u, p, support, solver, needs_p = saved
        dg, dh, dw, da, dmu, *_ = tangents
        step = None if dw is None or support else dw * _rest(g, u, a)
        if da is not None:
            p = p if needs_p else nnls_derivative(g, h, w, a, mu, support, solver, True)[1]
            turned = _turned(da, u, w)
            dg = -turned if dg is None else dg - turned
        drives = [
            dh,
            None if da is None else _times(da, p),
            None if dmu is None else -dmu.unsqueeze(-2).double() * u,
            None if step is None else _times(a, step),
        ]
        drive = _sum(drives)
        if dg is None and drive is None:
            return None, None
        du, dp = nnls_derivative(dg, drive, w, a, mu, support, solver, needs_p)
        if not needs_p:
            return du, None
        return du, dp if step is None else (dp + step).to(p.dtype)

    @staticmethod
    def samples() -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(7)
        for index, (b, a, mu, prior, solver, *settings) in enumerate(NNLS.samples()):
            x, dual, _ = nnls(b, a, mu, prior, solver, *settings)
            g, h = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (x, dual))
            yield g, h, torch.where(x > 0, x, -1), a, mu, True, solver, True  # no w at the kink
            if prior is not None:
                yield g, h, x, a, mu, False, solver, True
            if index == 4:
                yield g, None, x, a, mu, False, solver, False
                yield None, h, x, a, mu, False, solver, True
                yield g[..., :1].expand(g.shape), h[:1].expand(h.shape), x, a, mu, True, solver, False


def _slopes(x: Tensor, outcome: Tensor, prior: Tensor | None) -> tuple[Tensor, bool]:
    """What makes D, in float32 at least: p would be rounded to its dtype."""
    x = x.to(_single(x))
    if prior is None:
        return x, True
    return torch.where((outcome == ENTROPY).unsqueeze(-2), x, (x > 0).to(x.dtype)), False


def _by_prior(x: Tensor, outcome: Tensor, prior: Tensor) -> Tensor:
    """x / prior, 0 where x does not depend on the prior."""
    depends = (outcome == ENTROPY).unsqueeze(-2) & (prior > 0)
    return torch.where(depends, x, 0) / torch.where(depends, prior, 1)


def _products(left: Tensor, right: Tensor, a: Tensor) -> Tensor:
    """left rightᵀ, m × n, summed over what shares the matrix a."""
    dtype = _single(right, a)
    left, right = left.to(dtype), right.to(dtype)
    if a.dim() == 2 and left.dim() > 2:  # the columns of all: there is no m × n for each of many small batches
        columns = math.prod(left.shape[:-2]) * left.shape[-1]
        left, right = (t.movedim(-2, 0).reshape(t.shape[-2], columns) for t in (left, right))
    return like(left @ right.mT, a)


def _times(a: Tensor, x: Tensor) -> Tensor:
    """a x, in double precision; its terms are not, as x may be large."""
    dtype = _single(a, x)
    return (a.to(dtype) @ x.to(dtype)).double()


def _turned(a: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """aᵀu, likewise, of the dtype of w."""
    dtype = _single(a, w)
    return (a.mT.to(dtype) @ u.to(dtype)).to(w.dtype)


def _single(*tensors: Tensor) -> torch.dtype:
    """The widest dtype of tensors, at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _rest(g: Tensor | None, u: Tensor, a: Tensor) -> Tensor:
    """g − Aᵀu, whose terms may nearly cancel."""
    product = a.mT.to(torch.float64) @ u
    return -product if g is None else g - product


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total
