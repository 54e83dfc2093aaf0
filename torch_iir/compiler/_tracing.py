"""Tracing for `explain`, which leaves no trace. Importing it imports torch._dynamo, which takes seconds.

All that `explain` uses of Dynamo's private parts, found in torch 2.11, 2.13 and 2.15:

* ``torch._dynamo.utils.graph_break_reasons``: of every graph that ends at a break why it does, and at which lines.
* ``torch._dynamo.utils.get_compilation_metrics()``: with ``fail_reason`` and ``fail_user_frame_*`` of the frames that
  are left to Python as a whole.
* ``torch._dynamo.pgo.get_code_state()``: the sizes that were seen, which make those that change dynamic.
* ``register_bytecode_hook``, ``_debug_get_cache_entry_list``, ``reset_code``, ``extra_state.invalidate`` and
  ``id_matched_objs``: code that was compiled, and how it is forgotten.
"""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list, reset_code
from torch._dynamo import config, error_on_graph_break, pgo
from torch._dynamo.convert_frame import register_bytecode_hook
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
from torch._dynamo.guards import DeletedGuardManagerWrapper
from torch._dynamo.utils import get_compilation_metrics, graph_break_reasons
from torch.fx import GraphModule

from torch_iir.compiler._backend import backend
from torch_iir.compiler._report import place


class _Seen(Exception):
    """Raised in the place of compiling a whole graph, so that it is neither kept nor run."""


def trace(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], see: Callable[[GraphModule], None]
) -> list[tuple[str, str]]:
    """Shows the graphs of a call, as this backend would get them, and returns the graph breaks: why and where.

    A function that becomes one graph is not run. One that does not is run, op by op.
    """

    @wraps(backend)  # by which the substitutions know it
    def whole(gm: GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        see(gm)
        raise _Seen

    @wraps(backend)
    def piece(gm: GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
        see(gm)
        return gm.forward

    with _nothing_kept():
        try:
            with error_on_graph_break(True):  # fullgraph=True would read numbers from tensors, too
                torch.compile(function, backend=whole)(*args, **kwargs)
            return []  # there is no operation in it
        except BackendCompilerFailed as failed:
            if isinstance(failed.inner_exception, _Seen):
                return []
            raise
        except TorchDynamoException:
            pass
        reasons, frames = len(graph_break_reasons), get_compilation_metrics()
        torch.compile(function, backend=piece)(*args, **kwargs)
        breaks: list[tuple[str, str | None, int | None, str | None]] = [
            (each.reason, each.user_stack[-1].filename, each.user_stack[-1].lineno, each.user_stack[-1].name)
            for each in graph_break_reasons[reasons:]
        ]
        breaks += [
            (frame.fail_reason, frame.fail_user_frame_filename, frame.fail_user_frame_lineno, frame.co_name)
            for frame in get_compilation_metrics()
            if frame.fail_reason and all(frame is not other for other in frames)
        ]
    # Where a function breaks, the one that called it may have stopped for the same reason.
    return list(
        dict.fromkeys((_sentence(why), place(str(file), line or 0, str(name))) for why, file, line, name in breaks)
    )


def _sentence(reason: str) -> str:
    """The first lines of Dynamo's: what, and an explanation; what could be done comes after."""
    if reason.startswith("generic_jump"):
        return "Data-dependent branching"
    lines = [line.strip() for line in reason.splitlines()]
    explanation = [line.removeprefix("Explanation: ") for line in lines if line.startswith("Explanation: ")]
    return ": ".join([lines[0].rstrip("."), *explanation[:1]])


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Random numbers go on from where they were, and Dynamo forgets what it compiled and saw."""
    compiled: dict[CodeType, list[CodeType]] = {}  # with what had been made of it before

    def hook(code: CodeType, new_code: CodeType) -> None:
        compiled.setdefault(code, [entry.code for entry in _debug_get_cache_entry_list(code)])

    numbers, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 (the model may use it)
    sizes = copy.deepcopy(dict(pgo.get_code_state()))
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    unlimited = config.patch(suppress_errors=False, recompile_limit=1 << 30, accumulated_recompile_limit=1 << 30)
    handle = register_bytecode_hook(hook)
    try:
        with unlimited, torch.random.fork_rng(devices):
            yield
    finally:
        handle.remove()
        random.setstate(numbers)
        np.random.set_state(numpys)  # noqa: NPY002
        pgo.get_code_state().clear()
        pgo.get_code_state().update(sizes)
        for code, earlier in compiled.items():
            if not earlier:
                reset_code(code)
                continue
            for entry in _debug_get_cache_entry_list(code):
                state = entry.guard_manager.extra_state
                if state is not None and all(entry.code is not other for other in earlier):
                    forgotten = DeletedGuardManagerWrapper("torch_iir.explain")
                    # The compilations of a code are limited, but those for other objects count for themselves.
                    forgotten.id_matched_objs = {"": weakref.ref(backend)}
                    state.invalidate(entry, forgotten)
