"""patch(): what the backend does to other libraries' calls while it traces, for eager code.

A function keeps its identity, and whoever imported it before has the patched one too: what is exchanged is its
``__code__``, for code of the same parameters that calls ours.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType, TracebackType
from typing import Any

from torch_iir.compiler._options import Options
from torch_iir.compiler._substitutions import Substitution, found, found_inverse_mel


@dataclass
class _Patched:
    code: CodeType  # of before
    patches: int


_lock = threading.RLock()
_patched: dict[FunctionType, _Patched] = {}
calls: dict[str, Callable[..., Any]] = {}
"""What the patched functions call."""


class Patch:
    """What `patch` returns: a context manager, and a switch."""

    def __init__(self, inverse_mel: bool) -> None:
        with _lock:
            substitutions = list(found())
            if inverse_mel and (transform := found_inverse_mel()):
                substitutions.append(transform)
            self._functions = [_exchanged(substitution) for substitution in substitutions]

    def undo(self) -> None:
        """Ends it; a second time does nothing."""
        with _lock:
            while self._functions:
                function = self._functions.pop()
                patched = _patched[function]
                patched.patches -= 1
                if patched.patches == 0:
                    function.__code__ = _patched.pop(function).code

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()


def patch(*, inverse_mel: bool = False) -> Patch:
    """Makes other libraries' calls ours, in eager code.

    From the call on, torchaudio.functional's ``lfilter``, ``filtfilt``, ``biquad`` and all designs made with it and
    ``griffinlim``, and torchlpc's ``sample_wise_lpc``, call those of :mod:`torch_iir.functional`, wherever they had
    been imported to. What ours refuse, as a cutoff beyond half of the sample rate, they do as before.

    Args:
        inverse_mel: also make ``torchaudio.transforms.InverseMelScale`` a true non-negative least squares. Its numbers
            change, for the better. Default: False.

    Returns:
        The end of it: a context manager, and an object with the method ``undo()``. Once all patches have ended, the
        functions are what they were.

    Raises:
        TypeError: inverse_mel is not a bool.

    Note:
        For the whole process, all threads. Libraries that are not imported when patch is called are not patched; none
        is imported by it. torch.compile, with any backend, compiles again what it had compiled of patched functions;
        ``torch.jit.script`` does not read them. :func:`torch_iir.compile` needs no patch.

    Example:
        >>> import torch_iir
        >>> with torch_iir.patch():
        ...     pass  # torchaudio.functional.lfilter is torch_iir.functional.lfilter here
        >>> patch = torch_iir.patch(inverse_mel=True)
        >>> patch.undo()
    """
    return Patch(Options(inverse_mel=inverse_mel).inverse_mel)


def _exchanged(substitution: Substitution) -> FunctionType:
    function = substitution.original
    if function not in _patched:
        _patched[function] = _Patched(function.__code__, 0)
        calls[_key(function)] = substitution.replacement
        function.__code__ = _code(function)
    _patched[function].patches += 1
    return function


def _key(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _code(function: FunctionType) -> CodeType:
    """Code of the same parameters that calls the replacement; the function's globals are not ours, hence the import."""
    parameters = ", ".join(inspect.signature(function).parameters)
    scope: dict[str, FunctionType] = {}
    exec(
        f"def {function.__name__}({parameters}):\n"
        f"    from {__name__} import calls\n"
        f"    return calls[{_key(function)!r}]({parameters})\n",
        scope,
    )
    return scope[function.__name__].__code__
