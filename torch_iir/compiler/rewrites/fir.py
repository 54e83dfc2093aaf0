"""A convolution of single channels with a long kernel becomes a filter without recursion.

    conv1d(x, w, padding=l)  →  lfilter(F.pad(x, (0, r)), w.flip(-1), [1])[0][..., K − 1 − l :]

for stride 1, dilation 1 and one input channel per group, with l zeros in front and r behind; zeros that F.pad puts
there are counted in. If l = K − 1, a causal filter, nothing is cut off, and if there is no padding behind, nothing is
put there. `lfilter` convolves by FFT where that is faster.

Why it is equal: conv1d is a correlation,

    y[t] = Σ_{k<K} w[k] x[t − l + k] = Σ_{j<K} b[j] x[(t + K − 1 − l) − j]   with b[j] = w[K − 1 − j]

x being 0 where it is not given. That is the filter b, K − 1 − l samples later. If l > K − 1, the filter gets the zeros
that are left over, l − K + 1. A group of one input channel is one filter for that channel, or several that share it:
leading dimensions, which broadcast. The filter computes in double, by FFT too, and rounds once: conv1d adds up in the
precision of x, and errs more, the longer the kernel. A convolution by FFT in that precision (`fftconvolve`) would err
more than conv1d where the kernel takes away most of the signal.

It fires on the CPU, where conv1d copies x for every tap, and where the kernel is long and the signal not short; not
for complex signals, where most results of the filter would be thrown away, and for a bias in half precision, which
would be added after rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, Refused, hint, known, tensor
from torch_iir.compiler.rewrites._time import is_last, size, total, value

NAME = "fir"

# Where lfilter is faster than conv1d, forwards and in training, measured on one core of an x86-64 with AVX-512 and
# torch 2.13. Filters that share a channel are one matrix product in conv1d, which only an FFT is faster than.
SHORTEST, SHORTEST_SHARING = 32, 256  # taps
LEAST_WORK = 1 << 19  # channels · results · taps: below, what a call costs counts


@dataclass(frozen=True)
class FIR:
    """conv1d(x, weight, bias) with one input channel per group; left and right add up to the zeros around x."""

    node: Node
    x: Node
    weight: Node
    bias: Node | None
    left: tuple[Any, ...]
    right: tuple[Any, ...]

    def shift(self) -> Any:
        """How many samples a result is later than the last one that it depends on; negative if it is earlier."""
        return value(*self.left) - (tensor(self.weight).shape[-1] - 1)


def rewrite(graph: Graph) -> None:
    """Turns long convolutions into filters."""
    for call in graph.calls("conv1d"):
        if not _is_faster(call):
            continue
        fir = read_fir(call)
        if isinstance(fir, str):
            graph.missed(NAME, call.node, fir)
        else:
            graph.replace(NAME, call.node, partial(_filtered, fir))


def read_fir(call: Call) -> FIR | str:
    """A call of conv1d as a filter of each channel, or why it is none."""
    padding = _padding(call)
    if not (_is_one(call["stride"]) and _is_one(call["dilation"])):
        return "the stride or the dilation is not 1"
    if not known(tensor(call["weight"]).shape[1] == 1):
        return "a kernel has several input channels: only one for each group is a filter"
    if padding is None:
        return "the padding is not known before the size of the kernel"
    x, left, right = call["input"], *padding
    before = read(x)
    if before is not None and (zeros := _zeros(before)) and len(x.users) == 1:
        x, left, right = before["input"], (*left, zeros[0]), (*right, zeros[1])
    return FIR(call.node, x, call["weight"], call["bias"], left, right)


def taps(new: Builder, fir: FIR) -> Node:
    """The coefficients of the filters, (out_channels, K)."""
    weight = fir.weight
    call = read(weight)
    if call is not None and call.name == "flip" and all(is_last(dim, weight) for dim in call["dims"]):
        weight = call["input"]
    else:
        weight = new(torch.flip, weight, (-1,))
    return new(torch.squeeze, weight, 1)


def _is_faster(call: Call) -> bool:
    x, w, y = tensor(call["input"]), tensor(call["weight"]), tensor(call.node)
    if x.device.type != "cpu" or not x.is_floating_point():
        return False
    length, results = hint(w.shape[-1]), hint(y.shape[-1])
    sharing = hint(w.shape[0]) > hint(x.shape[-2])
    work = hint(x.numel()) // max(hint(x.shape[-1]), 1) * results * length
    return (
        length >= (SHORTEST_SHARING if sharing else SHORTEST)
        and work >= LEAST_WORK
        and 2 * results >= hint(x.shape[-1])  # 'valid' of a kernel as long as the signal is a scalar product
    )


def _filtered(fir: FIR, new: Builder) -> Node:
    x, b = fir.x, taps(new, fir)
    if fir.bias is not None and tensor(x).dtype.itemsize < 4:
        raise Refused("a bias would be added after rounding to half precision: add it apart")
    length, shift = size(new, fir.weight), fir.shift()
    ahead = 0
    if known(shift > 0):
        ahead = total(new, (*fir.left, 1), (length,))
    elif not known(shift <= 0):
        raise Refused("whether there is more padding than the kernel is long is not known")
    behind = total(new, fir.right)
    if ahead != 0 or behind != 0:
        x = new(F.pad, x, (ahead, behind))
    channels, filters = tensor(x).shape[-2], tensor(b).shape[0]
    grouped = not known(channels == 1) and not known(channels == filters)
    if grouped:
        if not isinstance(channels, int) or not isinstance(filters, int):
            raise Refused("the number of channels is not known")
        x, b = new(torch.unsqueeze, x, -2), new(torch.unflatten, b, 0, (channels, filters // channels))
    one = new(torch.ones, (1,), dtype=tensor(b).dtype, device=tensor(b).device)
    y = new.item(new(torch.ops.torch_iir.lfilter.default, x, b, one, None), 0)
    if grouped:
        y = new(torch.flatten, y, -3, -2)
    if known(shift < 0):
        late = total(new, (length,), (1, *fir.left))
        y = new("clone", new.item(y, (..., slice(late, None))), memory_format=torch.contiguous_format)
    elif not known(shift >= 0):
        raise Refused("whether there is less padding than the kernel is long is not known")
    return y if fir.bias is None else new(torch.add, y, new(torch.unsqueeze, fir.bias, -1))


def _padding(call: Call) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The zeros that conv1d puts on both sides of its input."""
    padding = call["padding"]
    if isinstance(padding, (tuple, list)):
        (padding,) = padding
    if padding == "valid":
        return (), ()
    if padding == "same":
        length = tensor(call["weight"]).shape[-1]
        left = (length - 1) // 2
        return ((left,), (length - 1 - left,)) if isinstance(length, int) else None
    return (padding,), (padding,)


def _zeros(call: Call) -> Sequence[Any] | None:
    """What F.pad puts on both sides of the last dimension, if that is zeros, and all that it does."""
    if call.name != "pad" or call["mode"] != "constant" or call["value"] not in (None, 0):
        return None
    pad = call["pad"]
    if not isinstance(pad, (tuple, list)) or len(pad) < 2 or any(amount != 0 for amount in pad[2:]):
        return None
    return pad[:2] if known(value(pad[0]) >= 0) and known(value(pad[1]) >= 0) else None


def _is_one(number: Any) -> bool:
    return number in (1, (1,)) or (isinstance(number, list) and number == [1])
