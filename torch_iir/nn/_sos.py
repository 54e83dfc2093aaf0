"""Learnable cascades of sections of order 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_iir._arguments import ArrayLike, as_coefficients, check_sosfilt
from torch_iir.nn import _stable
from torch_iir.nn._filter import Filter, broadcast, check_finite, options_of, parameter, real
from torch_iir.signal._sosfilt import filtered


class Cascade(Filter):
    """A filter whose coefficients are sections."""

    shape: tuple[int, ...] = ()

    def sos(self) -> Tensor:
        raise NotImplementedError

    def _filtered(self, x: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
        return filtered(x, self.sos(), zi)

    def _sections(self) -> tuple[Tensor, Tensor]:
        sos = self.sos()
        return sos[..., :3], sos[..., 3:]


class SOSFilter(Cascade):
    r"""A cascade of sections of order 2, learnable and always stable: for filters of any order, sharp ones too.

    .. math::
        u^{(s)}_t = b_{s,0} u^{(s-1)}_t + b_{s,1} u^{(s-1)}_{t-1} + b_{s,2} u^{(s-1)}_{t-2}
        - a_{s,1} u^{(s)}_{t-1} - a_{s,2} u^{(s)}_{t-2}, \qquad u^{(0)} = x, \quad y = u^{(S)}

    The numerators are free. The denominators are made, in float64, of two real numbers each, and reach every point of
    the triangle |a₂| < 1, |a₁| < 1 + a₂ whose poles lie within ``max_radius``, and none outside; `torch_iir.nn` says
    how, and how the gradients behave at its edge. It starts as y = x: soft poles spread over the spectrum, each on a
    zero, so that the sections learn different things.

    Args:
        n_sections: S, at least 1.
        shape: leading dimensions of the coefficients, which broadcast with those of the signal: ``(C,)`` is a cascade
            for each of C channels. Default: (), one cascade.
        max_radius: bound of the poles' radius, at most 1 − 2e-7. Default: 0.9999, a time constant of 10,000 samples.
        stream: whether a call continues the signal of the call before it. See :meth:`reset`, :meth:`detach_state`.
        device, dtype: of the parameters.

    Shape:
        x (..., T) to y (..., T), of the dtype of x; ``state``, in float64, (..., S, 2).

    Raises:
        ValueError: n_sections is below 1, max_radius is not in (0, 1 − 2e-7], x does not broadcast with ``shape``, or
            does not continue the stream before it.

    Note:
        Of chunks and of the state, what :class:`torch_iir.nn.LFilter` says is true here.

    Example:
        >>> import torch
        >>> from torch_iir import design
        >>> from torch_iir.nn import SOSFilter
        >>> filter = SOSFilter.from_sos(design.lowpass(16000, 1000.0))
        >>> filter(torch.randn(2, 100)).shape
        torch.Size([2, 100])
        >>> filter.response(3).abs().detach().round(decimals=3)  # at 0, 4000 and 8000 Hz
        tensor([1.0000, 0.0400, 0.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        n_sections: int,
        *,
        shape: Sequence[int] = (),
        max_radius: float | None = None,
        stream: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if n_sections < 1:
            raise ValueError(f"n_sections must be at least 1, got {n_sections}")
        super().__init__(stream)
        self.n_sections, self.shape = n_sections, tuple(shape)
        self.max_radius = _stable.checked_radius(max_radius, 2)
        raw = _stable.raw_denominator(_stable.spread_poles(n_sections, self.max_radius), self.max_radius, "poles")
        self.raw_denominator = parameter(raw.expand(*self.shape, n_sections, 2), device, dtype)
        self.numerator = parameter(_stable.denominator(self.raw_denominator, self.max_radius).detach(), device, dtype)

    @classmethod
    def from_sos(cls, sos: ArrayLike, **options: Any) -> SOSFilter:
        """The module of given sections.

        Args:
            sos: (..., S, 6), rows of b0, b1, b2, a0, a1, a2 as scipy's, a0 not 0; the poles lie within ``max_radius``.
            options: ``max_radius`` and ``stream`` of the class; ``device`` and ``dtype``, by default those of sos,
                float64 if it is a NumPy array or a list.

        Raises:
            ValueError: sos has another shape, is not stable, or has poles beyond max_radius.
        """
        sos = as_coefficients(sos, "sos").detach()
        check_sosfilt(sos.new_empty(0), sos)
        options = {**options_of(sos), **options}
        module = cls(sos.shape[-2], shape=sos.shape[:-2], **options)
        sos = real(sos, "sos")
        sos = sos / sos[..., 3:4]
        check_finite("sos / sos[..., 3]", sos)
        raw = _stable.raw_denominator(sos[..., 3:], module.max_radius, "sos")
        with torch.no_grad():
            module.raw_denominator.copy_(raw)
            module.numerator.copy_(sos[..., :3])
        return module

    def sos(self) -> Tensor:
        """The sections, (..., S, 6), in float64, a0 = 1."""
        a = _stable.denominator(self.raw_denominator, self.max_radius)
        return torch.cat([self.numerator.double(), a], -1)

    def extra_repr(self) -> str:
        shape = f"shape={self.shape}, " if self.shape else ""
        return f"{self.n_sections}, {shape}max_radius={self.max_radius:.6g}, stream={self.stream}"

    def _state_shape(self, batch_shape: Sequence[int]) -> torch.Size:
        return torch.Size((*broadcast(batch_shape, self.shape), self.n_sections, 2))
