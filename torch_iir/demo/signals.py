"""Sounds that the demos render for themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_iir.signal import lfilter


def chirp(seconds: float, sample_rate: int, first: float = 1.0, last: float = 1000.0) -> Tensor:
    """A sine whose frequency rises linearly, in Hz."""
    t = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return 0.5 * torch.sin(2 * math.pi * (first + (last - first) * t / (2 * seconds)) * t)


def pluck(frequency: float, seconds: float, sample_rate: int, damping: float = 0.996, seed: int = 0) -> Tensor:
    """A plucked string: a burst of noise runs round a delay line and loses its highs in every turn.

    y[t] = x[t] + damping · (y[t − P] + y[t − P − 1]) / 2, a recursive filter of order P + 1 (Karplus and Strong,
    Computer Music Journal 7 (1983)).
    """
    period = round(sample_rate / frequency - 0.5)  # the average of two samples delays by another half
    burst = torch.zeros(round(seconds * sample_rate), dtype=torch.float64)
    burst[:period] = 2 * torch.rand(period, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    a = torch.zeros(period + 2, dtype=torch.float64)
    a[0], a[-2:] = 1, -damping / 2
    string = lfilter([1.0], a, burst)
    return string * (0.5 / string.abs().max())
