"""torch.compile with this backend, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast, overload

import torch

from torch_iir.compiler._options import Options

Model = TypeVar("Model", bound=Callable[..., Any])


@overload
def compile(
    model: Model,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    substitute: bool = True,
    inverse_mel: bool = False,
    rewrite: bool | Iterable[str] = True,
    verify: bool = False,
    dry: bool = False,
) -> Model: ...
@overload
def compile(
    model: None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    substitute: bool = True,
    inverse_mel: bool = False,
    rewrite: bool | Iterable[str] = True,
    verify: bool = False,
    dry: bool = False,
) -> Callable[[Model], Model]: ...


def compile(
    model: Model | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    substitute: bool = True,
    inverse_mel: bool = False,
    rewrite: bool | Iterable[str] = True,
    verify: bool = False,
    dry: bool = False,
) -> Any:
    """torch.compile with the backend ``"torch_iir"``.

    While a model is traced, calls of torchaudio's and torchlpc's recursive filters become ours; the graph is searched
    for filters that are slower than they need to be (a loop where a bank would do, a chain where a cascade would), and
    rewritten; then Inductor compiles it. ``torch.compile(model, backend="torch_iir")`` does the same, without an
    import; what this function has as arguments stands there among the ``options``, as ``"torch_iir.verify": True``.

    Args:
        model: a module or a function; without one, a decorator is returned.
        fullgraph: raise if the model does not become one graph. Default: False.
        dynamic: whether sizes may change, as in torch.compile. Default: None.
        mode: Inductor's: ``"default"``, ``"reduce-overhead"``, ``"max-autotune"`` and others. Default: None.
        options: Inductor's. With mode, they come on top of what the mode stands for. Default: None.
        substitute: put our operators in the place of other libraries' calls: torchaudio.functional's ``lfilter``,
            ``filtfilt``, ``biquad`` and all designs made with it, ``griffinlim``; torchlpc's ``sample_wise_lpc``.
            Default: True.
        inverse_mel: also make ``torchaudio.transforms.InverseMelScale`` a true non-negative least squares. Its numbers
            change, for the better. Default: False.
        rewrite: True for all rewrites of the graph, False for none, or the names of those to do. Default: True.
        verify: run the first call of each graph that is changed both ways, compiled and as it was, with other
            libraries' own functions, and raise ``torch_iir.compiler.VerificationError`` if values or gradients differ
            by more than rounding does. That call takes about three times as long. Default: False.
        dry: substitute and rewrite nothing; what would have been done goes to the log ``torch_iir.compiler``, at the
            level ``INFO``. Default: False.

    Returns:
        The compiled model, or the decorator.

    Raises:
        TypeError: substitute, inverse_mel, verify or dry is not a bool, or rewrite no collection of names.
        ValueError: a mode or a rewrite has an unknown name.

    Note:
        :func:`torch_iir.explain` tells what is done to a model, and why something is not. Derivatives, training,
        inference and export are Inductor's. Other backends, and eager code, see nothing of this one.

    Example:
        >>> import torch, torch_iir
        >>> def smooth(x, a):
        ...     return torch.stack([torch_iir.signal.lfilter([1.0], a[i], x) for i in range(3)])
        >>> x, a = torch.randn(1000), torch.tensor([[1.0, -0.5], [1.0, -0.6], [1.0, -0.7]])
        >>> y = torch_iir.compile(smooth)(x, a)  # one bank of three filters
        >>> torch.allclose(y, smooth(x, a), atol=1e-5)
        True
    """
    own = Options(
        substitute=substitute,
        inverse_mel=inverse_mel,
        rewrite=rewrite,  # type: ignore[arg-type]
        verify=verify,
        dry=dry,
    )

    def compiled(model: Model) -> Model:
        from torch_iir.compiler._backend import backend
        from torch_iir.compiler._inductor import mode_options

        inductors = {**mode_options(mode), **(options or {})}  # torch.compile takes a mode or options, not both
        every = {**inductors, **own.packed()}
        return cast(Model, torch.compile(model, backend=backend, fullgraph=fullgraph, dynamic=dynamic, options=every))

    return compiled if model is None else compiled(model)
