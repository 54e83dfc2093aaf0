"""associative_scan of affine maps becomes the linear recurrence while the backend traces, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from rewriting import values_and_gradients
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import torch_iir
from torch_iir.compiler import _backend, _dynamo
from torch_iir.compiler._associative_scan import roles_of
from torch_iir.compiler._backend import backend

Function = Callable[..., Any]


@pytest.fixture
def substituted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was substituted in every graph; they run op by op."""
    found: list[list[str]] = []

    def inductor(gm: torch.fx.GraphModule, *_: Any) -> Function:
        found.append(_dynamo.substituted())
        return gm.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(_backend, "inductor", inductor)
    return found


def compiled(function: Function, *, dynamic: bool | None = None, **options: bool) -> Function:
    ours = {f"torch_iir.{name}": value for name, value in options.items()}
    return torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic, options=ours)


def folded(combine_fn: Function, xs: Any, dim: int, reverse: bool = False, combine_mode: str = "generic") -> Any:
    """What associative_scan computes, one after the other."""
    leaves, spec = pytree.tree_flatten(xs)
    slices = [pytree.tree_unflatten(parts, spec) for parts in zip(*(leaf.unbind(dim) for leaf in leaves), strict=True)]
    results = [slices.pop() if reverse else slices.pop(0)]
    for part in reversed(slices) if reverse else slices:
        results.append(combine_fn(results[-1], part))
    results = results[::-1] if reverse else results
    return pytree.tree_map(lambda *parts: torch.stack(parts, dim), *results)


def check(scans: Function, *args: Tensor, rtol: float = 1e-5, **options: Any) -> None:
    """Compares scans(associative_scan, …) with scans(folded, …)."""

    def leaves(over: Function) -> Function:
        return lambda *args: pytree.tree_leaves(scans(over, *args))

    expected = values_and_gradients(leaves(folded), args)
    got = values_and_gradients(compiled(leaves(associative_scan), **options), args)
    assert_close(got, expected, rtol=rtol, atol=rtol * 10)


def decayed(left: Any, right: Any) -> Any:
    return left[0] * right[0], right[0] * left[1] + right[1]


class Pair(NamedTuple):
    u: Tensor
    a: Tensor


# --- what is proved


PROVED: dict[str, tuple[Function, Any, Sequence[tuple[str, int]]]] = {
    "plain": (decayed, (0, 0), [("product", 0), ("kept", 0)]),
    "u first": (
        lambda l, r: Pair(torch.addcmul(r.u, l.u, r.a), torch.mul(r.a, l.a)),
        Pair(0, 0),  # type: ignore[arg-type]
        [("kept", 1), ("product", 1)],
    ),
    "in pieces": (
        lambda l, r: {"a": l["a"].mul(r["a"]).clone(), "u": -(-r["u"] - l["u"] * (r["a"] * 2 - r["a"]))},
        {"a": 0, "u": 0},
        [("product", 0), ("kept", 0)],
    ),
    "two of one": (
        lambda l, r: [l[0] * r[0], [l[1][0] * r[0] + r[1][0], torch.add(r[1][1], r[0] * l[1][1])], l[2] + r[2]],
        [0, [0, 0], 0],
        [("product", 0), ("kept", 0), ("kept", 0), ("sum", 3)],
    ),
    "logarithms": (lambda l, r: (l[0] + r[0], r[0].exp() * l[1] + r[1]), (0, 0), [("sum", 0), ("decays", 0)]),
}


@pytest.mark.parametrize("name", PROVED)
def test_what_is_proved(name: str) -> None:
    combine, xs, roles = PROVED[name]
    assert roles_of(combine, pytree.tree_structure(xs)) == roles


NOT_PROVED: dict[str, Function] = {
    "the other order": lambda l, r: (l[0] * r[0], l[0] * r[1] + l[1]),
    "a factor": lambda l, r: (l[0] * r[0], 2 * r[0] * l[1] + r[1]),
    "nearly a factor of 1": lambda l, r: (l[0] * r[0] * 1.0000001, r[0] * l[1] + r[1]),
    "two times u": lambda l, r: (l[0] * r[0], r[0] * l[1] + r[1] + r[1]),
    "the left a": lambda l, r: (l[0] * r[0], l[0] * l[1] + r[1]),
    "a is kept": lambda l, r: (r[0].clone(), r[0] * l[1] + r[1]),
    "a is a sum": lambda l, r: (l[0] + r[0], r[0] * l[1] + r[1]),
    "no recurrence": lambda l, r: (l[0] * r[0], l[1] + r[1]),
    "maxima": lambda l, r: (torch.maximum(l[0], r[0]), r[0] * l[1] + r[1]),
    "something more": lambda l, r: (l[0] * r[0], r[0] * l[1] + r[1] + torch.tensor(1.0)),
    "a constant": lambda l, r: (l[0] * r[0], r[0] * l[1] + r[1] + 1),
    "of values": lambda l, r: decayed(l, r) if l[0].sum() > 0 else r,
    "one result": lambda l, r: l[0] * r[0],
    "exponential of the left": lambda l, r: (l[0] + r[0], l[0].exp() * l[1] + r[1]),
}


@pytest.mark.parametrize("name", NOT_PROVED)
def test_what_is_not_proved(name: str) -> None:
    assert roles_of(NOT_PROVED[name], pytree.tree_structure((0, 0))) is None


# --- what is computed


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_recurrence(substituted: list[list[str]], dynamic: bool) -> None:
    def scans(over: Function, a: Tensor, u: Tensor) -> Any:
        return (
            over(decayed, (a, u), 0, combine_mode="generic"),
            over(decayed, (a, u), dim=1, reverse=True, combine_mode="generic"),
            over(combine_fn=decayed, xs=(a, u), dim=-1, reverse=True),
        )

    check(scans, torch.rand(5, 6, 7), torch.randn(5, 6, 7), dynamic=dynamic)
    assert substituted == [["associative_scan"] * 3]


def test_double_precision(substituted: list[list[str]]) -> None:
    def scans(over: Function, a: Tensor, u: Tensor) -> Any:
        return over(decayed, (a, u), 0, combine_mode="generic")

    double = torch.float64
    check(scans, torch.rand(50, 3, dtype=double), torch.randn(50, 3, dtype=double), rtol=1e-12)
    assert substituted == [["associative_scan"]]


def test_structures_and_functions_made_on_the_way(substituted: list[list[str]]) -> None:
    def scans(over: Function, a: Tensor, u: Tensor, v: Tensor) -> Any:
        one = 1.0

        def combine(left: Any, right: Any) -> Any:
            a = right["log a"].exp()
            return {
                "u": left["u"] * a + right["u"] * one,
                "log a": left["log a"] + right["log a"],
                "v": [a * left["v"][0] + right["v"][0]],
            }

        return over(combine, {"u": u, "log a": a, "v": [v]}, 1, combine_mode="generic")

    check(scans, -torch.rand(2, 9), torch.randn(2, 9), torch.randn(2, 9))
    assert substituted == [["associative_scan"]]


def test_methods_and_partial_functions(substituted: list[list[str]]) -> None:
    class Model(torch.nn.Module):
        gain = 1

        def combine(self, left: Any, right: Any) -> Any:
            return weighed(self.gain, left, right)

        def forward(self, a: Tensor, u: Tensor) -> Any:
            of_method = associative_scan(self.combine, (a, u), 0, combine_mode="generic")
            return of_method, associative_scan(partial(weighed, 1.0), of_method, 0, combine_mode="generic")

    def weighed(gain: float, left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] * gain + right[1]

    model, a, u = Model(), torch.rand(3, 2), torch.randn(3, 2)
    function = compiled(model)
    assert_close(function(a, u), model(a, u))
    model.gain = 2
    assert_close(function(a, u), model(a, u))
    assert substituted == [["associative_scan"] * 2, ["associative_scan"]]


def test_an_a_for_all_channels(substituted: list[list[str]]) -> None:
    def scans(over: Function, a: Tensor, u: Tensor) -> Any:
        return over(decayed, (a, u), 0, combine_mode="generic")

    check(scans, torch.rand(9, 1), torch.randn(9, 4))
    assert substituted == [["associative_scan"]]


# --- what stays


def test_another_function_stays(substituted: list[list[str]]) -> None:
    def scans(over: Function, a: Tensor, u: Tensor) -> Any:
        def combine(left: Any, right: Any) -> Any:
            return left[0] * right[0], left[0] * right[1] + left[1]

        return over(combine, (a, u), 0, combine_mode="generic")

    check(scans, torch.rand(3, 2), torch.randn(3, 2))
    assert substituted == [[]]


@pytest.mark.parametrize(
    ("of_a", "of_u", "options"),
    [
        (torch.bfloat16, torch.bfloat16, {}),
        (torch.float64, torch.float32, {}),
        (torch.float32, torch.float32, {"substitute": False}),
    ],
)
def test_what_does_not_suit_stays(
    substituted: list[list[str]], of_a: torch.dtype, of_u: torch.dtype, options: dict[str, bool]
) -> None:
    """Half precision, and two dtypes; and everything, if nothing is to be substituted."""

    def scans(a: Tensor, u: Tensor) -> Any:
        return associative_scan(decayed, (a, u), 0, combine_mode="generic")

    a, u = torch.rand(3, 2, dtype=of_a), torch.randn(3, 2, dtype=of_u)
    assert_close(compiled(scans, **options)(a, u), scans(a, u))
    assert substituted == [[]]


def test_a_function_of_other_tensors_stays(substituted: list[list[str]]) -> None:
    def scans(over: Function, a: Tensor, u: Tensor, weight: Tensor) -> Any:
        def combine(left: Any, right: Any) -> Any:
            return left[0] * right[0], right[0] * left[1] + right[1] * weight

        return over(combine, (a, u), 0, combine_mode="generic")

    check(scans, torch.rand(3, 2), torch.randn(3, 2), torch.ones(2))
    assert substituted == [[]]


def test_other_backends_see_nothing(substituted: list[list[str]]) -> None:
    def scans(a: Tensor, u: Tensor) -> Any:
        return associative_scan(decayed, (a, u), 0, combine_mode="generic")

    graphs: list[torch.fx.GraphModule] = []

    def other(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Function:
        graphs.append(gm)
        return gm.forward  # type: ignore[no-any-return]

    a, u = torch.rand(3, 2), torch.randn(3, 2)
    ours = compiled(scans)(a, u)
    assert_close(torch.compile(scans, backend=other, fullgraph=True)(a, u), ours)
    assert torch.ops.torch_iir.lfilter_tv.default not in {node.target for node in graphs[0].graph.nodes}
    assert substituted == [["associative_scan"]]


def test_no_samples_are_an_error_as_ever(substituted: list[list[str]]) -> None:
    def scans(a: Tensor, u: Tensor) -> Any:
        return associative_scan(decayed, (a, u), 0, combine_mode="generic")

    with pytest.raises(Exception, match="scan dimension > 0"):
        compiled(scans)(torch.rand(0, 3), torch.rand(0, 3))


weight = 1.0


def weighted(left: Any, right: Any) -> Any:
    return left[0] * right[0], right[0] * left[1] * weight + right[1]


def test_what_the_function_is_made_of_is_guarded(substituted: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def scans(a: Tensor, u: Tensor) -> Any:
        return associative_scan(weighted, (a, u), 0, combine_mode="generic")

    a, u = torch.rand(3, 2), torch.randn(3, 2)
    function = compiled(scans)
    function(a, u)
    monkeypatch.setitem(globals(), "weight", 0.5)
    assert_close(function(a, u), scans(a, u))
    assert substituted == [["associative_scan"], []]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports Inductor
def test_through_inductor_and_verified() -> None:
    def scans(a: Tensor, u: Tensor) -> Any:
        return associative_scan(decayed, (a, u), 1, reverse=True, combine_mode="generic")

    a, u = torch.rand(2, 30, 3), torch.randn(2, 30, 3, requires_grad=True)
    got = torch_iir.compile(scans, fullgraph=True, verify=True)(a, u)
    assert_close(got, folded(decayed, (a, u), 1, reverse=True))
