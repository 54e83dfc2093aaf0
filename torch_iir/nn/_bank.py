"""A learnable bank of filters of order 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_iir.functional._mel import SCALES
from torch_iir.nn import _stable
from torch_iir.nn._filter import Filter, parameter
from torch_iir.signal._lfilter import filtered

# From Hz to the scale on which filters are evenly spaced, and back.
SPACINGS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "mel": SCALES["htk"],
    "log": (math.log, math.exp),
    "linear": (lambda f: f, lambda f: f),
}


class BiquadBank(Filter):
    r"""A bank of filters of order 2, learnable and always stable: a front end for sound.

    .. math::
        y_{i,t} = \tfrac{1 - a_{i,2}}{2} (n_{i,0} x_t + n_{i,1} x_{t-1} + n_{i,2} x_{t-2})
        - a_{i,1} y_{i,t-1} - a_{i,2} y_{i,t-2}

    The numerators n are free, the denominators those of :class:`torch_iir.nn.SOSFilter`: all poles lie within
    ``max_radius``, whatever the parameters are. The factor in front makes parameters of one size: with n = (1, 0, −1),
    where each filter starts, it is a band-pass filter of gain 1 at its peak, however narrow the band is or becomes.

    Args:
        n_filters: number of filters.
        sample_rate: in Hz. Default: 16000.
        f_min: where the lowest band begins, in Hz; above 0 if the spacing is logarithmic. Default: 30.
        f_max: where the highest band ends, in Hz. Default: None, half the sample rate.
        spacing: scale on which the bands are evenly spaced at the start: ``"mel"`` (default; 2595 log₁₀(1 + f/700)),
            ``"log"`` or ``"linear"``. Each is as wide, at −3 dB, as it is far from the next.
        max_radius: bound of the poles' radius. Default: 0.9999.
        stream: whether a call continues the signal of the call before it. See :meth:`reset`, :meth:`detach_state`.
        device, dtype: of the parameters.

    Shape:
        x (..., T) to y (..., n_filters, T), of the dtype of x; ``state``, in float64, (..., n_filters, 2).

    Raises:
        ValueError: n_filters is below 1, spacing is unknown, f_min and f_max do not rise within 0 and half the sample
            rate, a band is too narrow for max_radius, max_radius is not in (0, 1 − 2e-7], or x does not continue the
            stream before it.

    Note:
        The input is read once for all filters, through stride 0: nothing is expanded in memory.

    Example:
        >>> import torch
        >>> from torch_iir.nn import BiquadBank
        >>> bank = BiquadBank(40, sample_rate=16000)
        >>> bank(torch.randn(8, 1000)).shape
        torch.Size([8, 40, 1000])
    """

    def __init__(
        self,
        n_filters: int,
        sample_rate: float = 16000.0,
        *,
        f_min: float = 30.0,
        f_max: float | None = None,
        spacing: str = "mel",
        max_radius: float | None = None,
        stream: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if n_filters < 1:
            raise ValueError(f"n_filters must be at least 1, got {n_filters}")
        if spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}; got {spacing!r}")
        f_max = sample_rate / 2 if f_max is None else f_max
        if not (0 <= f_min < f_max <= sample_rate / 2 and (f_min > 0 or spacing != "log")):
            raise ValueError(
                f"f_min and f_max must rise within 0{' (excluded)' * (spacing == 'log')} and sample_rate / 2, "
                f"got f_min {f_min}, f_max {f_max}, sample_rate {sample_rate}"
            )
        super().__init__(stream)
        self.n_filters, self.sample_rate = n_filters, float(sample_rate)
        self.max_radius = _stable.checked_radius(max_radius, 2)
        to_scale, to_hertz = SPACINGS[spacing]
        low, high = to_scale(f_min), to_scale(f_max)
        edges = [to_hertz(low + (high - low) * i / (2 * n_filters)) for i in range(2 * n_filters + 1)]
        # A band-pass filter with its peak at θ and −3 dB at a distance of B has the reflection coefficients −cos θ and
        # (1 − t) / (1 + t), t = tan(B/2).
        poles = []
        for begin, middle, end in zip(edges[::2], edges[1::2], edges[2::2], strict=False):
            t = math.tan(math.pi * min((end - begin) / sample_rate, 0.45))
            k = (1 - t) / (1 + t)
            poles.append([1.0, -math.cos(2 * math.pi * middle / sample_rate) * (1 + k), k])
        raw = _stable.raw_denominator(torch.tensor(poles, dtype=torch.float64, device="cpu"), self.max_radius, "bands")
        self.raw_denominator = parameter(raw, device, dtype)
        peak = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64, device="cpu")
        self.numerator = parameter(peak.expand(n_filters, 3), device, dtype)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """b and a, (n_filters, 3), in float64, a[..., 0] = 1."""
        a = _stable.denominator(self.raw_denominator, self.max_radius)
        return (1 - a[..., 2:]) / 2 * self.numerator.double(), a

    def extra_repr(self) -> str:
        radius = f"max_radius={self.max_radius:.6g}"
        return f"{self.n_filters}, sample_rate={self.sample_rate:g}, {radius}, stream={self.stream}"

    def _filtered(self, x: Tensor, zi: Tensor | None) -> tuple[Tensor, Tensor]:
        return filtered(x.unsqueeze(-2), *self.coefficients(), zi)

    def _state_shape(self, batch_shape: Sequence[int]) -> torch.Size:
        return torch.Size((*batch_shape, self.n_filters, 2))

    def _sections(self) -> tuple[Tensor, Tensor]:
        b, a = self.coefficients()
        return b.unsqueeze(-2), a.unsqueeze(-2)
