"""What the derivative formulas of the ops share."""

from __future__ import annotations

from torch import Tensor


def like(gradient: Tensor, argument: Tensor) -> Tensor:
    """A gradient summed over the dimensions that its argument was broadcast over, in its dtype."""
    gradient = gradient.sum_to_size(argument.shape)
    if gradient.is_complex() and not argument.is_complex():
        gradient = gradient.real
    return gradient.to(argument.dtype)


def add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum, None standing for zero."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
