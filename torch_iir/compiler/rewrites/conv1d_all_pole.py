"""A causal convolution and an all-pole filter, in either order, become one filter.

    lfilter(conv1d(F.pad(x, (K − 1, 0)), w), [b0], a)  →  lfilter(x, b0 w.flip(-1), a)
    conv1d(F.pad(lfilter(x, [b0], a), (K − 1, 0)), w)  →  lfilter(x, b0 w.flip(-1), a)

Why it is equal: conv1d is a correlation, y[t] = Σ_{k<K} w[k] p[t + k]. With K − 1 zeros in front, p[t] = x[t − K + 1],
it is the filter Σ_{j<K} w[K − 1 − j] x[t − j], whose numerator is w reversed. The all-pole filter is b0 / A. Filters
from rest commute, and one after the other is the product of their transfer functions: b0 w.flip(-1) over A.

What is saved is to read and to write the signal once, the copy with the padding, and what conv1d is slower than the
numerator of a filter. The padding may also be conv1d's own, on both sides, where what is too much is cut off behind.
conv1d has one input channel per group, and as many filters as channels, or one channel; where it has one of each,
dimensions may come and go between it and the filter, as in ``conv1d(x[:, None], w)[:, 0]``.

It does not fire where what lies between is used elsewhere too, where the final state is used or the filter starts from
one, where conv1d has a bias, where its result is in another precision than the signal, and for kernels that are so long
that an FFT is faster (rewrite "fir").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import Builder, Graph, hint, known, tensor
from torch_iir.compiler.rewrites._filters import wide
from torch_iir.compiler.rewrites._time import changes_rows, piece, repeated
from torch_iir.compiler.rewrites.fir import FIR, read_fir, taps

NAME = "conv1d_all_pole"

LONGEST = 191  # from the next on, lfilter without recursion goes by FFT, which is faster beside an all-pole filter


def rewrite(graph: Graph) -> None:
    """Puts kernels into the all-pole filters behind them, then into those in front of them."""
    for call in graph.calls("lfilter"):
        if _is_all_pole(call):
            _fold_in_front(graph, call)
    for call in graph.calls("conv1d"):
        _fold_behind(graph, call)


def _fold_in_front(graph: Graph, filter_: Call) -> None:
    """The kernel in front of a filter."""
    result = filter_["x"]
    steps: list[Call] = []  # what happens to the rows between the two, in order
    between: list[Node] = []
    node = result
    while (call := read(node)) is not None and call.name != "conv1d":
        part = piece(call)
        if part is not None and not part.starts_at_0():
            return
        if (part is None and changes_rows(call)) or (part is not None and not part.is_of_all_rows()):
            steps.insert(0, call)
        elif part is None and call.name != "contiguous":
            return
        between.append(node)
        node = call["input"]
    outputs = graph.outputs(filter_).get(0)
    if call is None or outputs is None or (fir := _short(call)) is None:
        return
    y = outputs[0]
    if why := _why_not(graph, fir, result, filter_, [*between, node], steps):
        graph.missed(NAME, y, why)
    else:
        graph.replace(NAME, y, lambda new: _merged(new, fir, filter_, repeated(new, steps, fir.x), moved=bool(steps)))


def _fold_behind(graph: Graph, call: Call) -> None:
    """The kernel behind a filter."""
    fir = _short(call)
    if fir is None:
        return
    steps: list[Call] = []
    between: list[Node] = []
    node = fir.x
    while (step := read(node)) is not None and changes_rows(step):
        part = piece(step)
        if part is not None and not part.is_of_all_time():
            return
        steps.insert(0, step)
        between.append(node)
        node = step["input"]
    filter_ = graph.output(node, 0, "lfilter")
    if filter_ is None or not _is_all_pole(filter_):
        return
    if why := _why_not(graph, fir, fir.node, filter_, [*between, node], steps):
        graph.missed(NAME, fir.node, why)
    else:
        graph.replace(
            NAME,
            fir.node,
            lambda new: repeated(new, steps, _merged(new, fir, filter_, filter_["x"], moved=bool(steps))),
        )


def _is_all_pole(filter_: Call) -> bool:
    return known(tensor(filter_["b"]).shape[-1] == 1)


def _short(call: Call) -> FIR | None:
    """The filter that a convolution is, if that is short enough."""
    if hint(tensor(call["weight"]).shape[-1]) > LONGEST:
        return None
    fir = read_fir(call)
    return fir if isinstance(fir, FIR) else None


def _why_not(
    graph: Graph, fir: FIR, result: Node, filter_: Call, between: Sequence[Node], steps: Sequence[Call]
) -> str | None:
    """`result` is what is left of the convolution, `between` all that lies between it and the filter."""
    x, w, y = tensor(fir.x), tensor(fir.weight), tensor(fir.node)
    channels, filters = x.shape[-2], w.shape[0]
    if not known(fir.shift() == 0) or not known(tensor(result).shape[-1] == x.shape[-1]):
        return "the convolution is not causal: put K − 1 zeros in front, and cut off what is too much behind"
    if fir.bias is not None:
        return "the convolution has a bias"
    if filter_["zi"] is not None:
        return "the filter starts from a state"
    if graph.outputs(filter_).keys() != {0}:
        return "the final state of the filter is used too"
    if any(len(node.users) > 1 for node in (*between, filter_.node)):
        return "what is between the convolution and the filter is used elsewhere too"
    if not x.dtype == w.dtype == y.dtype == tensor(filter_["x"]).dtype or torch.finfo(x.dtype).bits < 32:
        return "what is between the convolution and the filter is rounded to another precision"
    if not known(channels == 1) and not known(channels == filters):
        return "the convolution has several filters for each of several channels"
    if steps and not (known(channels == 1) and known(filters == 1)):
        return "dimensions come or go between the filter and a convolution of several channels"
    return None


def _merged(new: Builder, fir: FIR, filter_: Call, x: Node, *, moved: bool) -> Node:
    """The output of both filters in one."""
    b = taps(new, fir)
    if moved:  # there is one kernel, and its dimension is where others are now
        b = new(torch.squeeze, b, 0)
    b = wide(new, b)
    b = new(torch.mul, b, filter_["b"])
    return new.item(new(torch.ops.torch_iir.lfilter.default, x, b, filter_["a"], None), 0)
