"""Denominators that are stable whatever their raw parameters are; `torch_iir.nn` says how and why."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._sharding import numbers

LIMIT = 10.0  # U: the tanh ends 4e-9 below 1; in front of a max_radius of 0.9999 gradients still count there
RADIUS = 0.9999  # a time constant of 10,000 samples


def folded(raw: Tensor, low: float, high: float) -> Tensor:
    """A number in [low, high], its slope half the range in the middle: a sine bends the line back at the ends."""
    return (low + high) / 2 + (high - low) / 2 * raw.sin()


def unfolded(value: Tensor, low: float, high: float) -> Tensor:
    """The raw number next to 0 of a value strictly between low and high."""
    return ((value - (low + high) / 2) / ((high - low) / 2)).asin()


def safe_radius(order: int) -> float:
    """Poles within it stay within the unit circle when the coefficients of a direct form are rounded.

    With all poles within ρ, |A| ≥ (1 − ρ)^N on the unit circle, and step-up in double precision errs by less than
    (N + 2) ε (1 + ρ)^N in total. Where the error is smaller than |A|, no pole crosses the circle (Rouché). A sixteenth
    of that is allowed: the filter's own arithmetic rounds as well.
    """
    ratio: float = (16 * (order + 2) * sys.float_info.epsilon) ** (1 / order) if order else 0.0
    return (1 - ratio) / (1 + ratio)


def checked_radius(max_radius: float | None, order: int) -> float:
    """The argument max_radius of a filter whose direct forms have this order; None is the default."""
    safe = safe_radius(order)
    if max_radius is None:
        return min(RADIUS, safe)
    if not 0 < max_radius <= safe:
        raise ValueError(
            f"max_radius must lie in (0, {safe:.9g}] for a direct form of order {order}, got {max_radius}: beyond it "
            "rounding could make the filter unstable; cascades of sections (SOSFilter) reach further"
        )
    return float(max_radius)


def denominator(raw: Tensor, max_radius: float) -> Tensor:
    """(..., N) real numbers to (..., N + 1) coefficients in float64, a0 = 1, all poles within max_radius."""
    reflection = folded(raw.double() / LIMIT, -LIMIT, LIMIT).tanh()
    a = torch.ones_like(reflection[..., :1])
    for k in reflection.unbind(-1):
        a = pad(a, (0, 1))
        a = a + k[..., None] * a.flip(-1)
    return a * _powers(max_radius, a)


def raw_denominator(a: Tensor, max_radius: float, name: str) -> Tensor:
    """The raw parameters of a stable denominator, in float64."""
    a = a.double() / a[..., :1].double()
    if not bool((_reflection(a).abs() < 1).all()):
        raise ValueError(f"{name} must be stable, with all poles inside the unit circle and a0 not 0")
    u = _reflection(a / _powers(max_radius, a)).atanh()
    if not bool((u.abs() < LIMIT).all()):
        raise ValueError(
            f"{name} must have all poles within max_radius = {max_radius:.9g}, and not right at it; "
            "a larger max_radius can be given"
        )
    return LIMIT * unfolded(u, -LIMIT, LIMIT)


def spread_poles(n_sections: int, max_radius: float) -> Tensor:
    """Denominators (n_sections, 3) of pole pairs over the whole spectrum, soft ones, on the CPU."""
    radius = min(0.5, max_radius / 2)
    cosines = [math.cos(math.pi * (i + 0.5) / n_sections) for i in range(n_sections)]
    sections = [[1.0, -2 * radius * cosine, radius * radius] for cosine in cosines]
    return torch.tensor(sections, dtype=torch.float64, device="cpu")


def product(sections: Tensor) -> Tensor:
    """(..., S, K) polynomials multiplied out: (..., S (K − 1) + 1)."""
    factors = sections.unbind(-2)
    result = factors[0]
    for factor in factors[1:]:
        degree = factor.shape[-1] - 1
        shifted = [pad(result, (k, degree - k)) * factor[..., k : k + 1] for k in range(degree + 1)]
        result = torch.stack(shifted).sum(0)
    return result


def _reflection(a: Tensor) -> Tensor:
    """Step-down: reflection coefficients of a monic denominator; once one is not below 1, the rest mean nothing."""
    reflection = []
    while a.shape[-1] > 1:
        k = a[..., -1:]
        reflection.append(k)
        mirror = a.flip(-1)  # (a − k mirror) / (1 − k²), without its cancellation where k is almost 1
        a = (((a + mirror) / (1 + k) + (a - mirror) / (1 - k)) / 2)[..., :-1]
    return torch.cat(reflection[::-1], -1) if reflection else a[..., :0]


def _powers(base: float, like: Tensor) -> Tensor:
    return torch.pow(base, numbers(like.shape[-1], like))
