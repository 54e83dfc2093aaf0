"""Runs functions with their graph rewritten, but without Inductor, and compares them with what they were."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from torch_iir.compiler._backend import stage
from torch_iir.compiler._options import Options
from torch_iir.compiler._report import Report


@dataclass
class Rewritten:
    """A function after Dynamo and the rewrites, run op by op."""

    function: Callable[..., Any]
    reports: list[Report]
    graphs: list[GraphModule]

    @property
    def report(self) -> Report:
        """Of the only graph."""
        (report,) = self.reports
        return report

    @property
    def fired(self) -> list[str]:
        """The names of the rewrites that were done."""
        return [fired.rewrite for report in self.reports for fired in report.fired]

    @property
    def missed(self) -> list[tuple[str, str]]:
        """The rewrites that nearly fitted, each with why it did not."""
        return [(missed.rewrite, missed.why) for report in self.reports for missed in report.missed]


def rewritten(
    function: Callable[..., Any], *, only: Collection[str] | None = None, dynamic: bool | None = None
) -> Rewritten:
    """The function with all rewrites, or with these only. It is traced at its first call."""
    options = Options(rewrite=True if only is None else frozenset(only))
    reports: list[Report] = []
    graphs: list[GraphModule] = []

    def eager(gm: GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        reports.append(stage(gm, options))
        graphs.append(gm)
        return gm.forward

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=eager, fullgraph=True, dynamic=dynamic)
    return Rewritten(compiled, reports, graphs)


def leaves(args: Sequence[Any]) -> list[Any]:
    """The arguments, floating and complex tensors as leaves that require gradients."""

    def has_gradient(arg: Any) -> bool:
        return isinstance(arg, Tensor) and (arg.is_floating_point() or arg.is_complex())

    return [arg.detach().clone().requires_grad_() if has_gradient(arg) else arg for arg in args]


def values_and_gradients(function: Callable[..., Any], args: Sequence[Any]) -> tuple[list[Tensor], list[Tensor | None]]:
    """The outputs of function(*args), and the gradients of Re Σ g y for random g that depend only on the shapes."""
    args = leaves(args)
    outputs = function(*args)
    outputs = [out for out in ((outputs,) if isinstance(outputs, Tensor) else outputs) if isinstance(out, Tensor)]
    generator = torch.Generator().manual_seed(1)
    terms = [
        (out * torch.randn(out.shape, dtype=out.dtype, generator=generator)).sum().real
        for out in outputs
        if out.is_floating_point() or out.is_complex()
    ]
    loss = sum(term for term in terms if term.requires_grad)
    inputs = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True) if isinstance(loss, Tensor) else ()
    return [out.detach() for out in outputs], list(gradients)


def compare(
    function: Callable[..., Any],
    *args: Any,
    rtol: float = 1e-5,
    dynamic: bool | None = None,
    only: Collection[str] | None = None,
    reference: Callable[..., Any] | None = None,
) -> Rewritten:
    """Asserts that values and gradients are the same with the rewrites; each relative to the largest of its tensor.

    What they are is what the function gives itself, or another one that does not go by operators of higher order.
    """
    expected, expected_gradients = values_and_gradients(reference or function, args)
    after = rewritten(function, only=only, dynamic=dynamic)
    got, gradients = values_and_gradients(after.function, args)
    assert [out.stride() for out in got] == [out.stride() for out in expected]
    pairs = [*zip(got, expected, strict=True), *zip(gradients, expected_gradients, strict=True)]
    for ours, theirs in pairs:
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            continue
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rtol * size + 1e-30)
    return after


# --- what they are run with


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def filters(*batch: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Stable, with a0 ≠ 1 and a numerator that is longer than the denominator."""
    a = 0.3 * randn(*batch, 3, dtype=dtype)
    a[..., 0] = 1.5
    return randn(*batch, 4, dtype=dtype), a


def cascade(*batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    sos = 0.3 * randn(*batch, 2, 6, dtype=dtype)
    sos[..., 3] = 1.5
    return sos
