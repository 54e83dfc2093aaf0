"""A learnable filter in direct form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_iir._arguments import ArrayLike, as_coefficients, check_lfilter, first_tensor
from torch_iir.nn import _stable
from torch_iir.nn._filter import Filter, broadcast, check_finite, options_of, parameter, real
from torch_iir.signal._lfilter import filtered

FORMS = ("reflection", "sections")


class LFilter(Filter):
    r"""A recursive filter of any order in direct form, learnable and always stable.

    .. math::
        y_t = \sum_{k=0}^{N} b_k x_{t-k} - \sum_{k=1}^{N} a_k y_{t-k}

    The numerator is free. The denominator is made, in float64, of N real numbers, as reflection coefficients of the
    whole or of sections of order 2 that are multiplied out. All poles lie within ``max_radius``, whatever the
    parameters are; `torch_iir.nn` says how, and how the gradients behave there. It starts as y = x.

    Args:
        order: N, at least 1. In direct form, low orders are the useful ones: rounding leaves less room for the poles
            as N grows, and ``max_radius`` says how much. For sharp filters of high order take
            :class:`torch_iir.nn.SOSFilter`.
        form: ``"reflection"`` (default), in which every stable denominator is reached on a smooth path, or
            ``"sections"``, in which the poles are in pairs, each pair with parameters of its own.
        shape: leading dimensions of the coefficients, which broadcast with those of the signal: ``(C,)`` is a filter
            for each of C channels. Default: (), one filter.
        max_radius: bound of the poles' radius. Default: 0.9999, or what is safe where that is less: 0.9992 at order 4,
            0.959 at order 8.
        stream: whether a call continues the signal of the call before it. See :meth:`reset`, :meth:`detach_state`.
        device, dtype: of the parameters.

    Shape:
        x (..., T) to y (..., T), of the dtype of x; ``state``, in float64, (..., N).

    Raises:
        ValueError: order is below 1, form is unknown, max_radius is not in (0, what is safe], x does not broadcast with
            ``shape``, or does not continue the stream before it.

    Note:
        Chunks give what the whole signal gives, up to the rounding of the kernel's double precision: to the last bit in
        nearly every float32 sample, and to the last bit in all of them under ``torch_iir.algorithm("direct")``. The
        state is not in the state_dict: it belongs to a signal. Keep ``module.state`` itself where a stream is to go on.

    Example:
        >>> import torch
        >>> from torch_iir.nn import LFilter
        >>> filter = LFilter.from_coefficients([1.0], [1.0, -0.5], stream=True)
        >>> filter(torch.tensor([1.0, 0.0])).detach()
        tensor([1.0000, 0.5000])
        >>> filter(torch.tensor([0.0, 0.0])).detach()
        tensor([0.2500, 0.1250])
    """

    def __init__(
        self,
        order: int,
        form: str = "reflection",
        *,
        shape: Sequence[int] = (),
        max_radius: float | None = None,
        stream: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if order < 1:
            raise ValueError(f"order must be at least 1, got {order}")
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
        super().__init__(stream)
        self.order, self.form, self.shape = order, form, tuple(shape)
        self.max_radius = _stable.checked_radius(max_radius, order)
        raw = torch.zeros(order, dtype=torch.float64, device="cpu")
        if form == "sections":
            poles = _stable.spread_poles((order + 1) // 2, self.max_radius)
            raw = _stable.raw_denominator(poles, self.max_radius, "poles").flatten()[:order]
        self.raw_denominator = parameter(raw.expand(*self.shape, order), device, dtype)
        self.numerator = parameter(self._denominator().detach(), device, dtype)

    @classmethod
    def from_coefficients(cls, b: ArrayLike, a: ArrayLike, form: str = "reflection", **options: Any) -> LFilter:
        """The module of a given filter.

        Args:
            b: numerator coefficients, (..., Kb).
            a: denominator coefficients, (..., Ka), ``a[..., 0]`` not 0; the poles lie within ``max_radius``.
            form: as that of the class.
            options: ``max_radius`` and ``stream`` of the class; ``device`` and ``dtype``, by default those of b and a,
                float64 if they are numbers or NumPy arrays.

        Raises:
            ValueError: a is not stable, or has poles beyond max_radius.
        """
        like = first_tensor(b, a)
        b, a = as_coefficients(b, "b", like).detach(), as_coefficients(a, "a", like).detach()
        batch, order = check_lfilter(b, b, a)
        order = max(order, 1)
        module = cls(order, form, shape=batch, **{**options_of(b, a), **options})
        a0 = real(a, "a")[..., :1]
        b, a = (pad(real(c, name) / a0, (0, order + 1 - c.shape[-1])) for c, name in ((b, "b"), (a, "a")))
        check_finite("b / a[..., 0] and a / a[..., 0]", b, a)
        raw = _stable.raw_denominator(_in_sections(a) if form == "sections" else a, module.max_radius, "a")
        with torch.no_grad():
            module.raw_denominator.copy_(raw.flatten(-2)[..., :order] if form == "sections" else raw)
            module.numerator.copy_(b)
        return module

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """b and a, (..., N + 1), in float64, a[..., 0] = 1."""
        return self.numerator.double(), self._denominator()

    def _denominator(self) -> Tensor:
        raw = self.raw_denominator
        if self.form == "reflection":
            return _stable.denominator(raw, self.max_radius)
        pairs = pad(raw, (0, self.order % 2))  # of odd order: 0, for a pole at z = 0
        return _stable.product(_stable.denominator(pairs.reshape(*self.shape, -1, 2), self.max_radius))[
            ..., : self.order + 1
        ]

    def extra_repr(self) -> str:
        shape = f"shape={self.shape}, " if self.shape else ""
        return f"{self.order}, {self.form!r}, {shape}max_radius={self.max_radius:.6g}, stream={self.stream}"

    def _filtered(self, x: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
        return filtered(x, *self.coefficients(), zi)

    def _state_shape(self, batch_shape: Sequence[int]) -> torch.Size:
        return torch.Size((*broadcast(batch_shape, self.shape), self.order))

    def _sections(self) -> tuple[Tensor, Tensor]:
        b, a = self.coefficients()
        return b.unsqueeze(-2), a.unsqueeze(-2)


def _in_sections(a: Tensor) -> Tensor:
    """Denominators (..., S, 3) of order 2 whose product is a, (..., N + 1); if N is odd the last is of order 1."""
    sections = np.array([_sections_of(one) for one in a.reshape(-1, a.shape[-1]).cpu().numpy()])
    return torch.from_numpy(sections).to(a.device).reshape(*a.shape[:-1], -1, 3)


def _sections_of(a: np.ndarray) -> list[list[float]]:
    poles = np.roots(a)
    real = sorted(poles[poles.imag == 0].real)
    real += [0.0] * (len(real) % 2)
    pairs = [[1.0, -2 * pole.real, abs(pole) ** 2] for pole in poles[poles.imag > 0]]
    return pairs + [[1.0, -(p + q), p * q] for p, q in zip(real[::2], real[1::2], strict=True)]
