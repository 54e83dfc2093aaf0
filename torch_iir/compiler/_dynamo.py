"""What the substitutions use of Dynamo's private parts. Importing it imports torch._dynamo, which takes seconds.

`register` makes a function's calls ours to decide on, only while Dynamo traces for the backend of this package: any
other backend, eager code and other threads get what they would have got. `torch.compiler.substitute_in_graph` cannot
do that, being the same for all; but what it is made of can.

Found in torch 2.11, 2.13 and 2.15:

* ``VariableBuilder._id_dispatch()``: functions by the id of the object that they build a variable of; in
  ``torch._dynamo.variables.builder``. ``VariableBuilder._wrap``, ``.tx``.
* ``UserFunctionVariable`` and ``call_function(tx, args, kwargs)`` of all variables.
* ``tx.output``, with ``compiler_fn`` and ``tracing_context``; ``tx.f_code``.
* Wrappers of a backend: ``WrapBackendDebug`` has ``_torchdynamo_orig_backend``; ``torch._TorchCompileWrapper``
  ``compiler_fn`` and ``kwargs``; the bound method of a ``DDPOptimizer`` ``__self__.backend_compile_fn``.
* ``torch._dynamo.callback.callback_handler`` with ``start_callbacks``, a list.
* ``torch._guards.TracingContext.try_get``.
* ``UserMethodVariable`` with ``fn`` and ``obj.value``; ``as_python_constant()`` and ``as_proxy()`` of
  variables, and ``node.meta["example_value"]`` of proxies.
* ``torch._higher_order_ops.associative_scan.associative_scan``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch._dynamo.backends.distributed import DDPOptimizer
from torch._dynamo.callback import callback_handler
from torch._dynamo.repro.after_dynamo import WrapBackendDebug
from torch._dynamo.variables import UserFunctionVariable, UserMethodVariable
from torch._dynamo.variables.builder import VariableBuilder
from torch._guards import TracingContext
from torch._higher_order_ops.associative_scan import associative_scan
from torch.utils._pytree import tree_map

from torch_iir.compiler import _associative_scan, _substitutions
from torch_iir.compiler._options import Options
from torch_iir.compiler._substitutions import Substitution
from torch_iir.compiler._verify import beside

Translator = Any  # InstructionTranslatorBase: `tx` in all of Dynamo
Variable = Any  # VariableTracker
Decide = Callable[[Translator, Sequence[Variable], dict[str, Variable]], Callable[..., Any] | None]


@dataclass(eq=False)
class _Registration:
    original: Callable[..., Any]  # kept, so that its id stays its own
    decide: Decide
    name: str


@dataclass
class _Record:
    names: list[str] = field(default_factory=list)
    inside: bool = False  # of a call that was recorded, and is traced as it is


_records: WeakKeyDictionary[TracingContext, _Record] = WeakKeyDictionary()


def register(original: Callable[..., Any], decide: Decide, name: str) -> None:
    """Lets ``decide`` say what happens to each call of a function, while this backend traces.

    ``decide(tx, args, kwargs)`` gets the translator and the arguments, as variables of Dynamo. It returns a Python
    function of the same arguments, which is then traced in the place of the original, or None, and the original is
    traced. It must change nothing, for Dynamo may trace a call again. `options_of(tx)` are the options of the
    compilation. The guards are the original's. What was decided is recorded under `name`, for the report; in dry mode
    it is only recorded.

    A function that is the root of a frame is not called by Dynamo, and so not asked about; nor are nn.Module.forward
    methods. Registering a function again, or one that `torch.compiler.substitute_in_graph` has, does nothing.
    """
    table = VariableBuilder._id_dispatch()
    if id(original) in table:
        return
    registration = _Registration(original, decide, name)

    def dispatch(builder: Any, value: Any) -> Variable:
        # As if nobody had been registered: Dynamo compiles in one thread at a time.
        del table[id(value)]
        try:
            variable = builder._wrap(value)
        finally:
            table[id(value)] = dispatch
        if options_of(builder.tx) is not None:
            base: Any = type(variable)
            variable.__class__ = _asking(base, registration)
        return variable

    table[id(original)] = dispatch


@cache
def _asking(base: Any, registration: _Registration) -> Any:
    """A variable that is `base` in all but its calls."""

    class Asking(base):  # type: ignore[misc]
        def call_function(self, tx: Translator, args: Sequence[Variable], kwargs: dict[str, Variable]) -> Variable:
            options = options_of(tx)
            record = _records.setdefault(tx.output.tracing_context, _Record())
            replacement = None if record.inside else registration.decide(tx, args, kwargs)
            if replacement is None:
                return super().call_function(tx, args, kwargs)
            record.names.append(registration.name)
            if options is None or not options.dry:
                return UserFunctionVariable(replacement).call_function(tx, args, kwargs)  # type: ignore[arg-type]
            record.inside = True
            try:
                return super().call_function(tx, args, kwargs)
            finally:
                record.inside = False

        # UserFunctionVariable has these for its own type only, not for subclasses.
        def as_python_constant(self) -> Any:
            return registration.original

        def get_real_python_backed_value(self) -> Any:
            return registration.original

    Asking.__name__ = Asking.__qualname__ = base.__name__
    return Asking


def substituted() -> list[str]:
    """What was substituted in the compilation in progress, by name: one for each call that was traced."""
    context = TracingContext.try_get()
    record = None if context is None else _records.get(context)
    return [] if record is None else list(record.names)


def options_of(tx: Translator) -> Options | None:
    """The options of the compilation, None when it is another backend's."""
    return backend_options(tx.output.compiler_fn)


def backend_options(compiler_fn: Any) -> Options | None:
    """The options that this backend was given, None for another backend; `compiler_fn` as Dynamo has wrapped it."""
    from torch_iir.compiler._backend import backend

    options = None
    while compiler_fn is not backend:
        if isinstance(compiler_fn, WrapBackendDebug):
            compiler_fn = compiler_fn._torchdynamo_orig_backend
        elif isinstance(compiler_fn, torch._TorchCompileWrapper):
            options = compiler_fn.kwargs.get("options", options)
            compiler_fn = compiler_fn.compiler_fn
        elif isinstance(compiler_fn, partial):
            options = compiler_fn.keywords.get("options", options)
            compiler_fn = compiler_fn.func
        elif isinstance(compiler_fn, MethodType) and isinstance(compiler_fn.__self__, DDPOptimizer):
            compiler_fn = compiler_fn.__self__.backend_compile_fn
        elif isinstance(compiler_fn, FunctionType) and hasattr(compiler_fn, "__wrapped__"):
            compiler_fn = compiler_fn.__wrapped__
        else:
            return None
    try:
        return Options.parse(options)[0]
    except (TypeError, ValueError):  # the backend says what is wrong with them, in place of an internal error of Dynamo
        return Options()


class _Callbacks(list[Callable[[Any], None]]):
    """What runs at the start of every compilation, with what ours need: torch._dynamo.reset clears all of it."""

    def clear(self) -> None:
        super().clear()
        self.append(_register_found)


def _register_found(_: object = None) -> None:
    for substitution in _substitutions.found():
        register(substitution.original, _always(substitution), substitution.name)
    if inverse_mel := _substitutions.found_inverse_mel():
        register(torch.linalg.lstsq, _inside_inverse_mel, inverse_mel.name)
    register(associative_scan, _recurrence, "associative_scan")


def _always(substitution: Substitution) -> Decide:
    ours = substitution.replacement
    verified = beside(substitution.original, ours)

    def decide(tx: Translator, args: Sequence[Variable], kwargs: dict[str, Variable]) -> Callable[..., Any] | None:
        options = options_of(tx)
        if options is None or not options.substitute:
            return None
        return verified if options.verify else ours

    return decide


def _inside_inverse_mel(
    tx: Translator, args: Sequence[Variable], kwargs: dict[str, Variable]
) -> Callable[..., Any] | None:
    options, inverse_mel = options_of(tx), _substitutions.found_inverse_mel()
    wanted = options is not None and options.substitute and options.inverse_mel
    here = inverse_mel is not None and tx.f_code is inverse_mel.original.__code__
    return _substitutions.lstsq if wanted and here else None


def _function(variable: Variable) -> Callable[..., Any]:
    """The function, or bound method, that a variable stands for."""
    if isinstance(variable, UserMethodVariable):
        return MethodType(variable.fn, variable.obj.value)  # type: ignore[attr-defined]
    function: Callable[..., Any] = variable.as_python_constant()
    return function


def _recurrence(tx: Translator, args: Sequence[Variable], kwargs: dict[str, Variable]) -> Callable[..., Any] | None:
    options = options_of(tx)
    if options is None or not options.substitute:
        return None
    try:
        given = _associative_scan.signature.bind(*args, **kwargs).arguments
        combine_fn, dim = _function(given["combine_fn"]), given["dim"].as_python_constant()
        xs = tree_map(lambda proxy: proxy.node.meta["example_value"], given["xs"].as_proxy())
    except (AttributeError, KeyError, NotImplementedError, TypeError):  # not known as Python's objects
        return None
    return _associative_scan.recurrence(combine_fn, xs, dim, verify=options.verify)


callback_handler.start_callbacks = _Callbacks([*callback_handler.start_callbacks, _register_found])
_register_found()
