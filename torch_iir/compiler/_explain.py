"""explain: what the backend does to a model, without doing it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from torch_iir.compiler._report import Report, counted, readable, wrapped


class GraphBreak(NamedTuple):
    """Where a model falls into two graphs, and why."""

    reason: str
    where: str


@dataclass(frozen=True)
class Explanation:
    """What the backend does to a model: a report for each graph, in the order in which they run."""

    graphs: tuple[Report, ...]
    graph_breaks: tuple[GraphBreak, ...]

    @property
    def bytes_saved(self) -> int:
        """An estimate of what is no longer written and read in one call, without the backward pass."""
        return sum(graph.bytes_saved for graph in self.graphs)

    def __str__(self) -> str:
        saved = f", saves about {readable(self.bytes_saved)} of writing and reading" if self.bytes_saved > 0 else ""
        breaks = counted(len(self.graph_breaks), "graph break") if self.graph_breaks else "no graph break"
        lines = [f"{counted(len(self.graphs), 'graph')}, {breaks}{saved}"]
        for number, graph in enumerate(self.graphs, 1):
            lines += ["", f"graph {number}: {graph}"]
        if self.graph_breaks:
            lines += ["", "graph breaks"]
            lines += [
                f"  {line}" for stop in self.graph_breaks for line in wrapped(f"at {stop.where}: {stop.reason}", 2)
            ]
        return "\n".join(lines)


def explain(model: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Prints what the backend ``"torch_iir"`` does to a model at these inputs, and returns it.

    That is: the calls of other libraries that become ours, the rewrites that are done, at which line and how many bytes
    they save; those that nearly fit, and what is in the way; the operations before and after; and where the graph still
    breaks.

    Args:
        model: a module or a function; one that is compiled already is explained as what it was before.
        *args: what it is called with.
        **kwargs: likewise.

    Returns:
        An ``Explanation``: ``graphs``, ``graph_breaks``, each with ``reason`` and ``where``, and ``bytes_saved``;
        ``str()`` of it is what is printed.

    Raises:
        TypeError: the model or the inputs cannot be copied.

    Note:
        Nothing is changed. A model without graph breaks is traced, and not run. One with graph breaks must run for the
        rest of it to be seen, op by op: that is done with a copy of the model and of the inputs, and the random numbers
        go on from where they were. Of what a Python function names or encloses, modules, tensors and functions are
        copied, nothing else.

    Example:
        >>> import torch, torch_iir
        >>> def band(x):
        ...     return torch_iir.signal.lfilter([0.5, 0.5], [1.0], x)
        >>> explanation = torch_iir.explain(band, torch.randn(1000))  # doctest: +ELLIPSIS
        1 graph, no graph break
        ...
        >>> explanation.graph_breaks
        ()
    """
    from torch_iir.compiler import _tracing
    from torch_iir.compiler._backend import copied, stage
    from torch_iir.compiler._options import Options

    graphs: list[Report] = []

    def see(gm: GraphModule) -> None:
        graphs.append(stage(copied(gm), Options()))

    model = getattr(model, "_orig_mod", getattr(model, "_torchdynamo_orig_callable", model))
    function, args, kwargs = _copy((model, args, kwargs))
    breaks = _tracing.trace(function, args, kwargs, see)
    reports = tuple(report for report in graphs if report.before)  # there are graphs without operations
    explanation = Explanation(reports, tuple(GraphBreak(*each) for each in breaks))
    print(explanation)
    return explanation


class _Copying(TorchFunctionMode):
    """Tensors with a history can be copied, too; the copy has none."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().requires_grad_().clone()
            return memo[id(tensor)]
        return function(*args, **(kwargs or {}))


def _copy(call: tuple[Callable[..., Any], Any, Any]) -> tuple[Callable[..., Any], Any, Any]:
    """A function and its arguments, copied together: what they share, the copies share."""
    model, args, kwargs = call
    try:
        with _Copying():
            memo: dict[int, Any] = {}
            return _copied(model, memo), copy.deepcopy(args, memo), copy.deepcopy(kwargs, memo)
    except Exception as error:
        raise TypeError(f"explain needs a model and inputs that copy.deepcopy can copy, got {error}") from error


def _copied(function: Any, memo: dict[int, Any]) -> Any:
    """A deep copy; of a Python function one that has its own of the modules and tensors that it names or encloses."""
    if not isinstance(function, FunctionType):
        return copy.deepcopy(function, memo)
    if id(function) in memo:
        return memo[id(function)]
    names = {
        name: copy.deepcopy(value, memo)
        for name in function.__code__.co_names
        if isinstance(value := function.__globals__.get(name), (nn.Module, Tensor))
    }
    cells = tuple(CellType() for _ in function.__closure__ or ())
    made = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__, cells or None
    )
    made.__kwdefaults__ = function.__kwdefaults__
    memo[id(function)] = made
    for cell, original in zip(cells, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing in it yet
            held = original.cell_contents
            cell.cell_contents = _copied(held, memo) if isinstance(held, (FunctionType, nn.Module, Tensor)) else held
    return made
