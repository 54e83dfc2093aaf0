"""What is used of Inductor's and the tracers' own names, which torch does not document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx import GraphModule


def compiled(
    gm: GraphModule, example_inputs: Sequence[Any], mode: str | None, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """A graph as ``torch.compile(mode=mode, options=options)`` compiles it."""
    from torch._inductor.compile_fx import compile_fx

    patches = {**mode_options(mode), **options}
    return compile_fx(gm, example_inputs, config_patches=patches)  # type: ignore[return-value]


def mode_options(mode: str | None) -> dict[str, Any]:
    """The options that a mode of torch.compile stands for."""
    from torch import _inductor

    known = _inductor.list_mode_options()
    if mode in (None, "default"):
        return {}
    if mode not in known:
        raise ValueError(f"mode must be among default, {', '.join(known)}, got {mode!r}")
    return dict(known[mode])


def fake_mode(value: Tensor) -> FakeTensorMode | None:
    """The mode that a fake tensor belongs to; None if it is none, but a wrapper of torch.func."""
    return value.fake_mode if isinstance(value, FakeTensor) else None


def in_fake_mode(mode: FakeTensorMode, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function would compute, as fake tensors tell."""
    with mode, enable_python_dispatcher():
        return function(*args, **kwargs)
