"""How the parameters of a design are read and checked, and how coefficients become a section.

A number stays a number of Python: it is exact, it is checked at once, and it costs no operation of torch. Everything
else becomes a float64 tensor.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_tensor, broadcast_shape, first_tensor
from torch_iir._registration import concrete

Value = float | Tensor

LARGEST_GAIN = 6000  # dB; the coefficients of a shelf grow with 10^(gain/20), which float64 holds up to 6165 dB


class Parameters(NamedTuple):
    """What the formulas take: every value in range, and which of them were, None if all."""

    theta: Value  # half the angle of the frequency, π f / sample_rate
    Q: Value
    gain: Value
    valid: Tensor | None


def read_parameters(
    sample_rate: ArrayLike, freq_name: str, freq: ArrayLike, Q: ArrayLike, gain: ArrayLike = 0.0
) -> Parameters:
    """Raises for the first wrong parameter whose value may be read."""
    given = {"sample_rate": sample_rate, freq_name: freq, "gain": gain, "Q": Q}
    like = first_tensor(*given.values())
    values = {name: _read(value, name, like) for name, value in given.items()}
    _check_together(values)
    rate, f, dB, q = values.values()
    masks: list[Tensor] = []

    def require(mask: bool | Tensor, what: str, *names: str) -> bool | Tensor:
        if isinstance(mask, Tensor):
            if any(isinstance(given[name], Tensor) for name in names) or not concrete(mask):
                masks.append(mask)
                return mask
            mask = bool(mask.all())
        if not mask:
            raise ValueError(f"{names[0]} must {what}, got " + ", ".join(f"{name} {given[name]}" for name in names))
        return mask

    # What is out of range gives way to a harmless value before any formula: a gradient of 0 times infinity is NaN.
    rate = _where(require(_positive(rate), "be positive and finite", "sample_rate"), rate, 4.0)
    q = _where(require(_positive(q), "be positive and finite", "Q"), q, 1.0)
    dB = _where(
        require((dB >= -LARGEST_GAIN) & (dB <= LARGEST_GAIN), f"lie within ±{LARGEST_GAIN} dB", "gain"), dB, 0.0
    )
    inside = require(_positive(f), "be positive and finite", freq_name)
    inside = inside & require(f < rate / 2, "lie below half of sample_rate", freq_name, "sample_rate")
    theta = math.pi * (_where(inside, f, rate / 4) / rate)
    valid = None
    for mask in masks:
        valid = mask if valid is None else valid & mask
    return Parameters(theta, q, dB, valid)


def section(b: Sequence[Value], a: Sequence[Value], p: Parameters) -> Tensor:
    """The section of these coefficients, over a0; NaN where a parameter was out of range."""
    like = first_tensor(*b, *a)
    if like is None:
        return torch.tensor([[c / a[0] for c in (*b, *a)]], dtype=torch.float64)
    coefficients = [c if isinstance(c, Tensor) else like.new_full((), c) for c in (*b, *a)]
    raw = torch.stack(torch.broadcast_tensors(*coefficients), -1)  # type: ignore[no-untyped-call]
    sos = (raw / raw[..., 3:4]).unsqueeze(-2)
    return sos if p.valid is None else torch.where(p.valid[..., None, None], sos, torch.nan)


def sin(x: Value) -> Value:
    return x.sin() if isinstance(x, Tensor) else math.sin(x)


def cos(x: Value) -> Value:
    return x.cos() if isinstance(x, Tensor) else math.cos(x)


def expm1(x: Value) -> Value:
    return x.expm1() if isinstance(x, Tensor) else math.expm1(x)


def _read(value: ArrayLike, name: str, like: Tensor | None) -> Value:
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:  # an integer of Python
            return math.inf
    tensor = value if isinstance(value, Tensor) else as_tensor(value, name, like)
    if tensor.is_complex():
        raise TypeError(f"{name} must be real, got {tensor.dtype}")
    return tensor.to(torch.float64)


def _check_together(values: dict[str, Value]) -> None:
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if len({tensor.device for tensor in tensors.values()}) > 1:
        devices = ", ".join(f"{name} {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"the parameters must share a device, got {devices}")
    if broadcast_shape(*(tensor.shape for tensor in tensors.values())) is None:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"the parameters must broadcast together, got {shapes}")


def _positive(value: Value) -> bool | Tensor:
    return (value >= sys.float_info.min) & (value <= sys.float_info.max)  # of a subnormal, 1/Q would be infinite


def _where(mask: bool | Tensor, value: Value, otherwise: Value) -> Value:
    return torch.where(mask, value, otherwise) if isinstance(mask, Tensor) else value
