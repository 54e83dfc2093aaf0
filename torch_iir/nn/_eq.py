"""A learnable equaliser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_iir import design
from torch_iir._arguments import ArrayLike, as_coefficients
from torch_iir.nn._filter import parameter
from torch_iir.nn._sos import Cascade
from torch_iir.nn._stable import folded, unfolded

Range = tuple[float, float]


class ParametricEQ(Cascade):
    r"""A parametric equaliser: shelves at both ends, peaks between them, every knob learnable within its range.

    .. math::
        H(z) = H_\text{low shelf}(z) \prod_i H_{\text{peak } i}(z) \, H_\text{high shelf}(z)

    The sections are those of :mod:`torch_iir.design` and stable for all settings. A knob is the sine of a parameter,
    scaled to its range (frequency and Q on a logarithmic scale, gain in dB): it cannot leave the range, and does not
    get stuck at its end; `torch_iir.nn` says why. It starts flat: y = x.

    Args:
        sample_rate: in Hz.
        n_bands: number of sections, the shelves included. Default: 5.
        shelves: whether the first is a low shelf and the last a high shelf. Default: True; n_bands is then at least 2.
        frequency_range: in Hz, within 0 and half the sample rate, both excluded. Default: from 20 Hz, or a thousandth
            of the sample rate where that is less, to 20 kHz, or 0.45 of the sample rate.
        gain_range: in dB. Default: −24 to 24.
        Q_range: above 0. Default: 0.1 to 10.
        frequency, gain, Q: where the knobs start, one number or n_bands. Default: frequencies evenly spaced on the
            logarithmic scale, 0 dB, and 0.707.
        stream: whether a call continues the signal of the call before it. See :meth:`reset`, :meth:`detach_state`.
        device, dtype: of the parameters.

    Shape:
        x (..., T) to y (..., T), of the dtype of x; ``state``, in float64, (..., n_bands, 2).

    Raises:
        ValueError: n_bands is too small, a range does not rise or leaves what is possible, a knob starts outside its
            range or at its end, or x does not continue the stream before it.

    Note:
        Of chunks and of the state, what :class:`torch_iir.nn.LFilter` says is true here.

    Example:
        >>> import torch
        >>> from torch_iir.nn import ParametricEQ
        >>> eq = ParametricEQ(16000, 3, frequency=[100, 1000, 5000], gain=[6, 0, -3])
        >>> eq.gain.detach().round(decimals=3)
        tensor([ 6.,  0., -3.], dtype=torch.float64)
        >>> 20 * eq.response(2).abs().log10().detach().round(decimals=3)  # at 0 and 8000 Hz
        tensor([ 6., -3.], dtype=torch.float64)
    """

    def __init__(
        self,
        sample_rate: float,
        n_bands: int = 5,
        *,
        shelves: bool = True,
        frequency_range: Range | None = None,
        gain_range: Range = (-24.0, 24.0),
        Q_range: Range = (0.1, 10.0),
        frequency: ArrayLike | None = None,
        gain: ArrayLike = 0.0,
        Q: ArrayLike = 0.707,
        stream: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 0 < sample_rate < math.inf:
            raise ValueError(f"sample_rate must be positive and finite, got {sample_rate}")
        if n_bands < 1 + shelves:
            raise ValueError(f"n_bands must be at least {1 + shelves}{' with shelves' * shelves}, got {n_bands}")
        if frequency_range is None:
            frequency_range = min(20.0, sample_rate / 1000), min(20000.0, 0.45 * sample_rate)
        if frequency is None:
            low, high = (math.log(limit) if limit > 0 else math.nan for limit in frequency_range)
            frequency = [math.exp(low + (high - low) * (i + 0.5) / n_bands) for i in range(n_bands)]
        super().__init__(stream)
        self.sample_rate, self.n_bands, self.shelves = float(sample_rate), n_bands, shelves
        self.frequency_range = _checked("frequency_range", frequency_range, 0.0, sample_rate / 2)
        self.gain_range = _checked("gain_range", gain_range, -math.inf, math.inf)
        self.Q_range = _checked("Q_range", Q_range, 0.0, math.inf)
        self.raw_frequency = parameter(self._raw("frequency", frequency, self.frequency_range, True), device, dtype)
        self.raw_gain = parameter(self._raw("gain", gain, self.gain_range, False), device, dtype)
        self.raw_Q = parameter(self._raw("Q", Q, self.Q_range, True), device, dtype)

    @property
    def frequency(self) -> Tensor:
        """Corner and centre frequencies in Hz, (n_bands,), in float64."""
        return folded(self.raw_frequency.double(), *map(math.log, self.frequency_range)).exp()

    @property
    def gain(self) -> Tensor:
        """Gains in dB, (n_bands,), in float64."""
        return folded(self.raw_gain.double(), *self.gain_range)

    @property
    def Q(self) -> Tensor:
        """(n_bands,), in float64."""
        return folded(self.raw_Q.double(), *map(math.log, self.Q_range)).exp()

    def sos(self) -> Tensor:
        """The sections, (n_bands, 6), in float64, a0 = 1."""
        knobs = self.frequency, self.gain, self.Q
        first, last = int(self.shelves), self.n_bands - int(self.shelves)
        bands = (slice(0, first), slice(first, last), slice(last, None))
        shapes = (design.low_shelf, design.peaking, design.high_shelf)
        sections = [
            shape(self.sample_rate, *(knob[band] for knob in knobs)) for shape, band in zip(shapes, bands, strict=True)
        ]
        return torch.cat(sections).squeeze(-2)

    def extra_repr(self) -> str:
        ranges = f"frequency_range={self.frequency_range}, gain_range={self.gain_range}, Q_range={self.Q_range}"
        return f"{self.sample_rate:g}, {self.n_bands}, shelves={self.shelves}, {ranges}, stream={self.stream}"

    def _state_shape(self, batch_shape: Sequence[int]) -> torch.Size:
        return torch.Size((*batch_shape, self.n_bands, 2))

    def _raw(self, name: str, value: ArrayLike, limits: Range, logarithmic: bool) -> Tensor:
        value = as_coefficients(value, name, torch.empty(0, device="cpu")).detach().double().cpu()
        if value.shape not in ((1,), (self.n_bands,)):
            raise ValueError(f"{name} must be one number or n_bands = {self.n_bands}, got {list(value.shape)}")
        low, high = limits
        if not bool(((low < value) & (value < high)).all()):
            raise ValueError(f"{name} must start between the ends of {name}_range = {limits}, got {value.tolist()}")
        if logarithmic:
            value, low, high = value.log(), math.log(low), math.log(high)
        return unfolded(value, low, high).expand(self.n_bands)


def _checked(name: str, limits: Range, lowest: float, highest: float) -> Range:
    low, high = (float(limit) for limit in limits)
    if not lowest < low < high < highest:
        raise ValueError(f"{name} must be two rising numbers between {lowest:g} and {highest:g}, got {limits}")
    return low, high
