"""Filters of signals that are longer than one device's memory: each rank of a group has a part of the time."""

from torch_iir.distributed._lfilter import lfilter
from torch_iir.distributed._lfilter_tv import lfilter_tv
from torch_iir.distributed._sosfilt import sosfilt

__all__ = ["lfilter", "lfilter_tv", "sosfilt"]
