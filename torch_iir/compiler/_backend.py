"""The backend: the graph that Dynamo traced is rewritten, then Inductor compiles it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from torch_iir.compiler import _dynamo, _inductor, _verify
from torch_iir.compiler._graph import rewrite_all
from torch_iir.compiler._options import Options
from torch_iir.compiler._report import Report
from torch_iir.compiler.rewrites import REWRITES

_log = logging.getLogger("torch_iir.compiler")


def backend(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """What torch.compile calls for ``backend="torch_iir"``, with the graph of each piece that Dynamo traced."""
    own, inductors = Options.parse(options)
    if not own.verify or own.dry:
        _log.info("%s", stage(copied(gm) if own.dry else gm, own))
        return inductor(gm, example_inputs, mode, inductors)
    original = _verify.Original(copied(gm), copied(gm))
    _verify.without_marks(gm)
    report = stage(gm, own)
    _log.info("%s", report)
    changed = copied(gm)
    compiled = inductor(gm, example_inputs, mode, inductors)
    if not report.fired and not report.substituted:
        return compiled
    return _verify.verified(compiled, changed, original, report)


def stage(gm: GraphModule, own: Options) -> Report:
    """Rewrites the graph, and tells what was done."""
    report = Report(substituted=_dynamo.substituted())
    wanted = own.rewrite if isinstance(own.rewrite, frozenset) else REWRITES if own.rewrite else ()
    rewrite_all(gm, report, [rewrite for name, rewrite in REWRITES.items() if name in wanted])
    return report


def copied(gm: GraphModule) -> GraphModule:
    """Another graph of the same values and parameters."""
    return GraphModule(gm, copy.deepcopy(gm.graph))


def inductor(
    gm: GraphModule, example_inputs: Sequence[Any], mode: str | None, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """Compiled as ``torch.compile(mode=mode, options=options)`` does."""
    return _inductor.compiled(gm, example_inputs, mode, options)
