"""associative_scan of affine maps is the linear recurrence: what its combine function must be, what stands for it.

One after the other, h → a₁ h + u₁ and h → a₂ h + u₂ are h → a₁ a₂ h + (a₂ u₁ + u₂). If that is what the combine
function makes of (a₁, u₁) and (a₂, u₂), what comes out are the products of all a so far and, for u,

    h_t = a_t h_{t−1} + u_t,     h_0 = u_0.

The proof: the function is called with symbols, and what it computes, multiplied out, must be those polynomials, with
coefficients of exactly 1. The leaves may have any order and structure; several u may share an a, or each have their
own; instead of a there may be its logarithm, ℓ₁ + ℓ₂ beside exp(ℓ₂) u₁ + u₂.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan as scan
from torch.fx import Graph, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer
from torch.utils import _pytree as pytree

from torch_iir import functional
from torch_iir.compiler._calls import Call, read
from torch_iir.compiler._graph import known
from torch_iir.compiler._verify import beside

# What happens to a leaf: "product" or "sum" of all so far; "kept" or "decays": how much of it is kept is another leaf,
# or the exponential of another leaf.
Role = tuple[str, int]

signature = inspect.signature(scan)

Polynomial = dict[tuple[str, ...], complex]  # coefficients by the symbols that they multiply, in order


def recurrence(combine_fn: Callable[..., Any], xs: Any, dim: int, *, verify: bool = False) -> Callable[..., Any] | None:
    """What stands for associative_scan(combine_fn, xs, dim, …), None if the recurrence does not; xs may be fake."""
    leaves, spec = pytree.tree_flatten(xs)
    roles = roles_of(combine_fn, spec)
    if roles is None or not _suit(leaves, roles, dim):
        return None

    def ours(dim: int, reverse: bool, *leaves: Tensor) -> tuple[Tensor, ...]:
        leaves = tuple(leaf.flip(dim) if reverse else leaf for leaf in leaves)
        results = [_scanned(leaves, index, role, by, dim) for index, (role, by) in enumerate(roles)]
        return tuple(result.flip(dim) if reverse else result for result in results)

    def theirs(dim: int, reverse: bool, *leaves: Tensor) -> tuple[Tensor, ...]:
        scanned = scan(combine_fn, pytree.tree_unflatten(leaves, spec), dim, reverse, combine_mode="generic")
        return tuple(pytree.tree_leaves(scanned))

    compute = beside(theirs, ours) if verify else ours

    def associative_scan(
        combine_fn: Callable[..., Any], xs: Any, dim: int, reverse: bool = False, combine_mode: str = "pointwise"
    ) -> Any:
        leaves, spec = pytree.tree_flatten(xs)
        dim = dim % leaves[0].dim()
        once = pytree.tree_unflatten([leaf.select(dim, 0) for leaf in leaves], spec)
        combine_fn(once, once)  # not used; but what the function is made of is guarded now
        return pytree.tree_unflatten(compute(dim, reverse, *leaves), spec)

    return associative_scan


def _suit(leaves: Sequence[Any], roles: Sequence[Role], dim: int) -> bool:
    """Whether the leaves are such that ours computes what theirs does, without an error."""
    if not all(isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()) for leaf in leaves):
        return False
    rank = leaves[0].dim()
    if not -rank <= dim < rank or any(leaf.dim() != rank for leaf in leaves):
        return False
    samples = leaves[0].shape[dim]
    if known(samples == 0) or not all(known(leaf.shape[dim] == samples) for leaf in leaves):
        return False
    for leaf, (role, by) in zip(leaves, roles, strict=True):
        if role in ("kept", "decays"):
            kept = leaves[by]
            fits = all(known(a == b) or known(a == 1) for a, b in zip(kept.shape, leaf.shape, strict=True))
            if not fits or kept.dtype != leaf.dtype or torch.finfo(leaf.dtype).bits < 32:
                return False
    return True


def _scanned(leaves: Sequence[Tensor], index: int, role: str, by: int, dim: int) -> Tensor:
    leaf, kept = leaves[index], leaves[by]
    if role == "product":
        return leaf.cumprod(dim)
    if role == "sum":
        return leaf.cumsum(dim)
    return functional.linear_recurrence(kept.exp() if role == "decays" else kept, leaf, dim=dim)


# --- the proof


def roles_of(combine_fn: Callable[..., Any], spec: Any) -> list[Role] | None:
    """What happens to each leaf; None where that is not proved, or no leaf goes through a recurrence."""
    count = spec.num_leaves
    graph = Graph()
    tracer = GraphAppendingTracer(graph)
    symbols = [[graph.placeholder(f"{side}{index}") for index in range(count)] for side in "lr"]
    try:
        left, right = (pytree.tree_unflatten([Proxy(node, tracer) for node in side], spec) for side in symbols)
        results = pytree.tree_leaves(combine_fn(left, right))
        polynomials = _polynomials(graph)
        of = [polynomials[result.node] for result in results]
    except Exception:  # a function may do anything with symbols that it was not written for
        return None
    roles = [next((role for role, form in _forms(index, of) if form == is_), None) for index, is_ in enumerate(of)]
    proved = [role for role in roles if role is not None]
    recurrent = any(role in ("kept", "decays") for role, _ in proved)
    return proved if recurrent and len(proved) == len(roles) == count else None


def _forms(index: int, of: Sequence[Polynomial]) -> Iterator[tuple[Role, Polynomial]]:
    """What a leaf may be, and the polynomial that it is then."""
    l, r = f"l{index}", f"r{index}"
    yield ("product", index), {(l, r): 1}
    yield ("sum", index), {(l,): 1, (r,): 1}
    for by, other in enumerate(of):
        if by != index and other == {(f"l{by}", f"r{by}"): 1}:
            yield ("kept", by), {(l, f"r{by}"): 1, (r,): 1}
        if by != index and other == {(f"l{by}",): 1, (f"r{by}",): 1}:
            yield ("decays", by), {(f"exp r{by}", l): 1, (r,): 1}


def _polynomials(graph: Graph) -> dict[Node, Polynomial]:
    """What every node is in the symbols of the placeholders, as far as it is a polynomial."""
    found: dict[Node, Polynomial] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            found[node] = {(str(node.target),): 1}
        elif (call := read(node)) is not None and (polynomial := _polynomial(call, found)) is not None:
            found[node] = polynomial
    return found


def _polynomial(call: Call, found: dict[Node, Polynomial]) -> Polynomial | None:
    def of(name: str) -> Polynomial:
        argument = call[name]
        return {(): argument} if isinstance(argument, (int, float)) else found[argument]

    if call.name in ("clone", "contiguous"):
        return of("input")
    if call.name == "neg":
        return _times(of("input"), {(): -1})
    if call.name == "mul":
        return _times(of("input"), of("other"))
    if call.name in ("add", "sub"):
        sign: Polynomial = {(): 1 if call.name == "add" else -1}
        return _plus(of("input"), _times(_times(of("other"), of("alpha")), sign))
    if call.name == "addcmul":
        return _plus(of("input"), _times(_times(of("tensor1"), of("tensor2")), of("value")))
    if call.name == "exp":
        (((symbol,), coefficient),) = of("input").items()
        return {(f"exp {symbol}",): 1} if coefficient == 1 else None
    return None


def _plus(one: Polynomial, other: Polynomial) -> Polynomial:
    total = dict(one)
    for monomial, coefficient in other.items():
        total[monomial] = total.get(monomial, 0) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for (a, by_a), (b, by_b) in itertools.product(one.items(), other.items()):
        total = _plus(total, {tuple(sorted(a + b)): by_a * by_b})
    return total
