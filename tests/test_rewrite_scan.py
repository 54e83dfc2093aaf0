"""Scans with a body that is linear in the carry, against the loops that they stand for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from rewriting import Rewritten, compare, rewritten, values_and_gradients
from torch import Tensor
from torch._higher_order_ops.scan import scan

import torch_iir

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it traces scans

Body = Callable[..., tuple[Any, Any]]


def loop(body: Body, init: Any, xs: Any, dim: int = 0, reverse: bool = False) -> tuple[Any, Any]:
    """What scan computes."""
    tensors, spec = pytree.tree_flatten(xs)
    times = range(tensors[0].shape[dim])
    carry, outputs = init, []
    for time in reversed(times) if reverse else times:
        carry, output = body(carry, pytree.tree_unflatten([of.select(dim, time) for of in tensors], spec))
        outputs.append(output)
    outputs = outputs[::-1] if reverse else outputs

    def stacked(*slices: Tensor) -> Tensor:
        return torch.stack(slices).movedim(0, dim) if dim <= slices[0].dim() else torch.stack(slices)

    return carry, pytree.tree_map(stacked, *outputs)


def leaves(scans: Callable[..., Any], over: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: pytree.tree_leaves(scans(over, *args))


def fires(scans: Callable[..., Any], *args: Any, **more: Any) -> Rewritten:
    """Compares scans(scan, *args) with scans(loop, *args), values and gradients; nothing is left of the scan."""
    after = compare(leaves(scans, scan), *args, only=["scan"], reference=leaves(scans, loop), **more)
    assert after.fired == ["scan"]
    assert after.missed == []
    assert torch.ops.higher_order.scan not in {node.target for node in after.graphs[0].graph.nodes}
    return after


def misses(why: str, scans: Callable[..., Any], *args: Any, rtol: float = 1e-5) -> None:
    """The scan stays, and its values; the gradients are torch's own, and wrong in some versions."""
    after = rewritten(leaves(scans, scan), only=["scan"])
    got = after.function(*args)
    assert after.fired == []
    ((name, reason),) = after.missed
    assert name == "scan"
    assert why in reason
    torch.testing.assert_close(got, leaves(scans, loop)(*args), rtol=rtol, atol=rtol)


def filters(after: Rewritten) -> list[str]:
    """Which of the two filters stand in the graph."""
    ops = {torch.ops.torch_iir.lfilter.default: "lfilter", torch.ops.torch_iir.lfilter_tv.default: "lfilter_tv"}
    return [ops[node.target] for node in after.graphs[0].graph.nodes if node.target in ops]


def steps(body: Body, **settings: Any) -> Callable[..., Any]:
    """scans(over, init, xs) of a body."""
    return lambda over, init, xs: over(body, init, xs, **settings)


def signal(*shape: int, **options: Any) -> Tensor:
    return torch.randn(shape, **options)


def decay(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    h = 0.9 * h + x
    return h, h.clone()


# --- one carry


@pytest.mark.parametrize(("shape", "dtype"), [((), torch.float32), ((4,), torch.float64), ((3, 4), torch.float32)])
def test_constant_in_time(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    def smooth(over: Any, x: Tensor, p: Tensor, init: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            keep = p.sigmoid()
            h = keep * h + (1 - keep) * x
            return h, (h * 2 + x, torch.tanh(h))

        return over(body, init, x)

    x, p, init = signal(20, *shape, dtype=dtype), signal(*shape[-1:], dtype=dtype), signal(*shape, dtype=dtype)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    assert filters(fires(smooth, x, p, init, rtol=tolerance)) == ["lfilter"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_changing_in_time(dtype: torch.dtype) -> None:
    def gated(over: Any, x: Tensor, a: Tensor, init: Tensor) -> Any:
        def body(h: Tensor, xs: Any) -> Any:
            new = torch.addcmul(xs["x"], xs["a"], h)
            return new, [new.clone(), h.clone(), h * new]

        return over(body, init, {"x": x, "a": a})

    x, a, init = signal(20, 3, 4, dtype=dtype), torch.rand(20, 4, dtype=dtype), signal(3, 4, dtype=dtype)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    assert filters(fires(gated, x, a, init, rtol=tolerance)) == ["lfilter_tv"]


def test_one_signal_is_not_copied() -> None:
    after = fires(lambda over, x: over(decay, torch.zeros(()), x), signal(50))
    assert [n.target for n in after.graphs[0].graph.nodes].count(torch.clone) == 1  # of the last value


def test_one_sample() -> None:
    fires(steps(decay), signal(3), signal(1, 3))


@pytest.mark.parametrize(
    ("dim", "reverse", "dynamic"), [(0, True, False), (1, False, True), (1, True, True), (2, True, False)]
)
def test_other_dimensions(dim: int, reverse: bool, dynamic: bool) -> None:
    def scans(over: Any, x: Tensor, a: Tensor, init: Tensor) -> Any:
        def body(h: Tensor, xs: Any) -> Any:
            h = h * xs[1] + xs[0] - h / 3
            return h, h * xs[0]

        last, outputs = over(body, init, (x, a), dim=dim, reverse=reverse)
        return last, outputs.movedim(outputs.shape.index(x.shape[dim]), 0)  # torch 2.11 leaves time in front

    x = signal(5, 6, 7)
    fires(scans, x, torch.rand(5, 6, 7), x.select(dim, 0) + 1, dynamic=dynamic)


def test_the_length_may_change() -> None:
    def scans(over: Any, x: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            h = h * (1 / x.shape[0]) + x + torch.zeros_like(h)
            return h, (h.clone(), x.new_full((x.shape[0], 2), 3.0))

        return over(body, x.new_zeros(x.shape[1]), x)

    after = fires(scans, signal(20, 3), dynamic=True)
    for length in (3, 41):
        x = signal(length, 3)
        expected, _ = values_and_gradients(leaves(scans, loop), (x,))
        got, _ = values_and_gradients(after.function, (x,))
        torch.testing.assert_close(got, expected)
    assert len(after.reports) == 1


def test_complex() -> None:
    def scans(over: Any, x: Tensor, c: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            h = h * torch.exp(1j * c) * 0.9 + x
            return h, h.real.clone()

        return over(body, torch.zeros(4, dtype=torch.complex64), x)

    args = signal(30, 4, dtype=torch.complex64), torch.rand(4)
    after = rewritten(leaves(scans, scan), only=["scan"])
    torch.testing.assert_close(
        after.function(*args), leaves(scans, loop)(*args)
    )  # scan itself has no gradients of these
    assert after.fired == ["scan"]


def test_integers_and_masks_beside_a_carry() -> None:
    def scans(over: Any, x: Tensor, n: Tensor, mask: Tensor) -> Any:
        def body(h: Tensor, xs: Any) -> Any:
            x, n, mask = xs
            h = (h * mask).masked_fill(n == 2, 0.0) / (n + 1) + torch.where(mask, h, x) * 0.5 - n
            return h, h + n

        return over(body, torch.zeros(4), (x, n, mask))

    x, n = signal(20, 4), torch.randint(0, 4, (20, 4))
    fires(scans, x, n, n > 0)


def test_stops_where_it_is_told() -> None:
    def scans(over: Any, rewards: Tensor, done: Tensor) -> Any:
        def body(future: Tensor, xs: Any) -> Any:
            reward, done = xs
            future = reward + 0.99 * torch.where(done, torch.zeros_like(future), future)
            return future, future.clone()

        return over(body, torch.zeros(5), (rewards, done), reverse=True)

    fires(scans, signal(30, 5), torch.rand(30, 5) > 0.8)


# --- what does not depend on the carry


def test_selective_state_space() -> None:
    def scans(over: Any, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, u: Tensor) -> Any:
        def body(h: Tensor, xs: Any) -> Any:
            dt, b, c, u = xs
            h = torch.exp(dt.unsqueeze(-1) * a) * h + dt[..., None] * b[:, None, :] * u.unsqueeze(2)
            return h, torch.einsum("bdn,bn->bd", h, c)

        return over(body, torch.zeros(dt.shape[1], *a.shape), (dt, b, c, u))

    args = torch.rand(17, 2, 3), -torch.rand(3, 4), signal(17, 2, 4), signal(17, 2, 4), signal(17, 2, 3)
    fires(scans, *args)


SLICED: list[Callable[..., Tensor]] = [
    lambda x, w: torch.cat([x.chunk(2, -1)[0] * 2, x.split(2, 1)[1]], -1) @ w,
    lambda x, w: torch.stack([x, w[:3]], 0).mean((0, 1)),
    lambda x, w: torch.softmax(x, 0).T.reshape(-1),
    lambda x, w: x.transpose(0, 1).flatten().narrow(0, 1, 3),
    lambda x, w: (w @ x.mT).mT + F.linear(x, w, w[0]),
    lambda x, w: x.unbind(0)[1] @ w + w @ x[2],
    lambda x, w: x[..., :1].expand(3, 5) + x.sum(),
    lambda x, w: x[0].expand(2, 4).permute(1, 0).amax(0, keepdim=True) + x.amin(0)[:2],
    lambda x, w: F.gelu(x.to(torch.float64)).float().squeeze(0).view(4, 3).flip(0),
    lambda x, w: torch.full((4, 1), 3.0) * torch.maximum(x.amin(), w),
    lambda x, w: torch.einsum("ij, kj -> ik", x, w),
    lambda x, w: (x @ x.mT) @ x.ceil(),
]


def test_functions_of_slices() -> None:
    def scans(over: Any, x: Tensor, w: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            h = h * 0.5 + SLICED[0](x, w)
            return h, [function(x, w).clone() for function in SLICED] + [function(h, w) for function in SLICED]

        return over(body, torch.ones(3, 4), x)

    fires(scans, signal(9, 3, 4), signal(4, 4), dynamic=True)


def test_slices_without_dimensions_are_told_from_sequences() -> None:
    """Where a slice has no dimensions, a function along the last would go along time."""

    def scans(over: Any, x: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            return h * 0.5 + torch.softmax(x, -1), h * 2

        return over(body, torch.zeros(()), x)

    misses("softmax is not known to do to a sequence", scans, signal(9))


def test_outputs_that_have_no_time() -> None:
    def scans(over: Any, x: Tensor, p: Tensor) -> Any:
        def body(h: Tensor, x: Tensor) -> Any:
            return h + x, (p * 2, torch.ones(2), x.clone())

        return over(body, torch.zeros(3), x)

    fires(scans, signal(9, 3), signal(2))


# --- several carries


def test_cascade() -> None:
    """What depends on carries that are known already may be anything."""

    def scans(over: Any, x: Tensor, c: Tensor) -> Any:
        def body(h: Any, x: Tensor) -> Any:
            count, second, first = h
            first_new = 0.9 * first + x * c
            second = c * torch.tanh(first_new) * second + torch.sin(first) - 3
            return (count + 1.0, second, first_new), (second * first, count.clone())

        return over(body, (torch.zeros(()), torch.zeros(4), torch.ones(4)), x)

    assert sorted(filters(fires(scans, signal(30, 4), torch.rand(4)))) == ["lfilter", "lfilter", "lfilter_tv"]


def test_carries_that_only_look_back() -> None:
    def scans(over: Any, x: Tensor, b: Tensor) -> Any:
        def body(h: Any, x: Tensor) -> Any:
            return (x.clone(), h[0].clone()), b[0] * x + b[1] * h[0] + b[2] * h[1]

        return over(body, (torch.ones(4), torch.zeros(4)), x)

    assert filters(fires(scans, signal(30, 4), signal(3))) == []


def direct_form_1(h: Any, x: Tensor, b: Tensor, a: Tensor) -> Any:
    x1, x2, y1, y2 = h
    y = b[0] * x + b[1] * x1 + b[2] * x2 - a[0] * y1 - a[1] * y2
    return (x.clone(), x1.clone(), y, y1.clone()), y.clone()


def direct_form_2(h: Any, x: Tensor, b: Tensor, a: Tensor) -> Any:
    w = x - a[0] * h[0] - a[1] * h[1]
    return (w, h[0].clone()), b[0] * w + b[1] * h[0] + b[2] * h[1]


def transposed_form_1(h: Any, x: Tensor, b: Tensor, a: Tensor) -> Any:
    v = x + h[0]
    y = b[0] * v + h[2]
    return (-a[0] * v + h[1], -a[1] * v, b[1] * v + h[3], b[2] * v), y


def transposed_form_2(h: Any, x: Tensor, b: Tensor, a: Tensor) -> Any:
    y = b[0] * x + h[0]
    return (b[1] * x - a[0] * y + h[1], b[2] * x - a[1] * y), y


FORMS = {direct_form_1: 4, direct_form_2: 2, transposed_form_1: 4, transposed_form_2: 2}


@pytest.mark.parametrize(("changing", "at_rest"), [(False, False), (True, True)])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_biquads(form: Callable[..., Any], at_rest: bool, changing: bool) -> None:
    def scans(over: Any, x: Tensor, b: Tensor, a: Tensor, init: Tensor) -> Any:
        start = tuple(torch.zeros(3) if at_rest else init[state] for state in range(FORMS[form]))
        if changing:
            return over(lambda h, xs: form(h, *xs), start, (x, b, a))
        return over(lambda h, x: form(h, x, b, a), start, x)

    times = (20,) if changing else ()
    a = torch.stack([torch.rand(times) - 0.5, torch.rand(times) * 0.8], -1)
    after = fires(scans, signal(20, 3), signal(*times, 3), a, signal(4, 3))
    assert filters(after) == ["lfilter_tv" if changing else "lfilter"]


def test_a_transposed_form_of_order_4() -> None:
    def scans(over: Any, x: Tensor, b: Tensor, a: Tensor, c: Tensor, init: Tensor) -> Any:
        def body(h: Any, xs: Any) -> Any:
            x, c = xs
            y = b[0] * x + h[0]
            following = (*h[1:], 0.0)
            return tuple(b[k + 1] * x - a[k] * c * y + following[k] for k in range(4)), y

        return over(body, tuple(init.unbind()), (x, c))

    fires(scans, signal(20, 2), signal(5), signal(4) / 4, torch.rand(20, 2), signal(4, 2))


def test_sections_in_one_body() -> None:
    def scans(over: Any, x: Tensor, b: Tensor, a: Tensor) -> Any:
        def body(h: Any, x: Tensor) -> Any:
            states = []
            for section in range(3):
                state, x = transposed_form_2(h[section], x, b[section], a[section])
                states.append(state)
            return states, x

        return over(body, [(torch.zeros(2), torch.zeros(2)) for _ in range(3)], x)

    after = fires(scans, signal(30, 2), signal(3, 3), torch.rand(3, 2) * 0.5)
    assert filters(after) == ["lfilter"] * 3


# --- random bodies


class Program:
    """A random body as source text: carries h, their new values n, x of two sequences, constants p and q."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.free = ["u", "v", "w", "p", "q", "(0.5 * w)", "u[..., 1:2]", "v.unsqueeze(0)", "u.sum(-1, keepdim=True)"]
        lines = []
        carries = 0
        for _ in range(self.choose.randint(1, 2)):
            if self.choose.random() < 0.4:  # of order 2
                one, two = carries, carries + 1
                lines.append(f"n{one} = {self.affine([f'h{one}', f'h{two}'])} + 0 * u")
                delayed = self.choose.random() < 0.5
                lines.append(f"n{two} = " + (f"h{one}.clone()" if delayed else f"{self.affine([f'h{one}'])} + 0 * u"))
                carries += 2
            else:
                lines.append(f"n{carries} = {self.affine([f'h{carries}'])} + 0 * u")
                carries += 1
            self.free += [f"{letter}{index}" for letter in "hn" for index in range(carries)]
        outputs = [f"{self.anything(2)} + 0 * n0" for _ in range(3)]
        self.carries = carries
        names = ", ".join(f"h{index}" for index in range(carries))
        self.source = "\n    ".join(
            [
                "def body(h, xs, p, q):",
                f"{names}, = h",
                "u, v, w = xs",
                *lines,
                f"return ({names.replace('h', 'n')},), ({', '.join(outputs)})",
            ]
        )

    def anything(self, depth: int) -> str:
        """Of what is known."""
        if depth == 0:
            return self.choose.choice(self.free)
        a, b = self.anything(depth - 1), self.anything(depth - 1)
        forms = [f"torch.tanh({a} * 1.0)", f"({a} * {b})", f"({a} - {b})", f"torch.where(u > 0, {a}, {b})", f"(-{a})"]
        return self.choose.choice(forms)

    def gain(self) -> str:
        return self.choose.choice(["0.7", "p.sigmoid()", f"(0.9 * torch.sin({self.anything(1)} * 1.0))", "(-q)"])

    def affine(self, of: list[str]) -> str:
        """Linear in each of these."""
        form = of[0] if len(of) == 1 else f"({self.affine(of[:1])} * 0.5 + {self.affine(of[1:])} * 0.5)"
        for _ in range(self.choose.randint(1, 2)):
            form = self.choose.choice(
                [
                    f"{self.gain()} * {form}",
                    f"({form} + {self.anything(1)})",
                    f"({self.anything(1)} - {form})",
                    f"torch.where(v > 0, {form}, {self.anything(1)})",
                    f"torch.lerp({form}, {self.anything(1)} + 0 * u, {self.choose.choice(['0.3', 'q.expand(3, 4)'])})",
                    f"({form}).div(1.7)",
                    f"torch.addcmul({self.anything(1)} + 0 * u, {form}, {self.gain()} + 0 * u, value=-0.5)",
                ]
            )
        return form


@pytest.mark.parametrize("seed", range(6))
def test_random_bodies(seed: int) -> None:
    program = Program(seed)
    print(program.source)
    names: dict[str, Any] = {"torch": torch}
    exec(program.source, names)

    def scans(over: Any, u: Tensor, v: Tensor, w: Tensor, p: Tensor, q: Tensor, init: Tensor) -> Any:
        return over(lambda h, xs: names["body"](h, xs, p, q), tuple(init.unbind()), (u, v, w))

    double = torch.float64
    sequences = signal(12, 3, 4, dtype=double), signal(12, 4, dtype=double), signal(12, dtype=double)
    constants = signal(4, dtype=double), torch.rand(3, 1, dtype=double), signal(program.carries, 3, 4, dtype=double)
    fires(scans, *sequences, *constants, rtol=1e-10, dynamic=seed % 2 == 1)


# --- what is left as it is


def with_tanh(h: Tensor, x: Tensor) -> Any:
    h = torch.tanh(0.9 * h + x)
    return h, h.clone()


def with_square(h: Tensor, x: Tensor) -> Any:
    return h * h * 0.1 + x, h * 2


def with_comparison(h: Tensor, x: Tensor) -> Any:
    return torch.where(h > 0, h * 0.5, h) + x, h * 2


def with_detached(h: Tensor, x: Tensor) -> Any:
    return h.detach() * 0.5 + x, h * 2


def with_matrix(h: Tensor, x: Tensor) -> Any:
    return h @ torch.full((4, 4), 0.1) + x, h * 2


def with_mean(h: Tensor, x: Tensor) -> Any:
    return h.mean() * 0.5 + x, h * 2


def with_divisor(h: Tensor, x: Tensor) -> Any:
    return x / (2 + h), h * 2


def with_sort(h: Tensor, x: Tensor) -> Any:
    return h * 0.5 + x.sort(-1)[0], h * 2


def with_write(h: Tensor, x: Tensor) -> Any:
    return h * 0.5 + (x * 2).add_(1), h * 2


def with_no_grad(h: Tensor, x: Tensor) -> Any:
    with torch.no_grad():
        loud = x * 2
    return h * 0.5 + loud + x, h * 2


def in_double_precision(h: Tensor, x: Tensor) -> Any:
    return (h.double() * 0.5 + x).float(), h * 2


BODIES: dict[Body, str] = {
    with_tanh: "the new carry is not linear in the carry: tanh",
    with_square: "the new carry is not linear in the carry: mul of it with itself",
    with_comparison: "the new carry is not linear in the carry: ",
    with_detached: "the new carry is not linear in the carry: detach",
    with_matrix: "the new carry is not linear in the carry: matmul",
    with_mean: "the new carry is not linear in the carry: mean",
    with_divisor: "the new carry is not linear in the carry: div",
    with_sort: "sort is not known to do to a sequence what it does to each of its slices",
    with_write: "in the body, a tensor is written to in place",
    with_no_grad: "in the body, a change of mode (autocast, gradients) lies between",
    in_double_precision: "the carry, of torch.float32, becomes torch.float64 in the body",
}


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_stay(body: Body) -> None:
    misses(BODIES[body], steps(body), signal(3, 4), signal(7, 3, 4))


def test_random_numbers_are_drawn_at_every_step() -> None:
    def scans(over: Any, x: Tensor) -> Any:
        return over(lambda h, x: (h * 0.5 + x * torch.rand(4), h * 2), torch.zeros(4), x)

    after = rewritten(leaves(scans, scan), only=["scan"])
    after.function(signal(7, 4))
    assert after.fired == []
    assert "rand is not known to do to a sequence" in after.missed[0][1]


def test_coupled_carries_stay() -> None:
    def scans(over: Any, x: Tensor) -> Any:
        def body(h: Any, x: Tensor) -> Any:
            return (h[0] * 0.5 + h[1] * 0.3, h[0] * 0.2 - h[1] * 0.5 + x), h[0] * 2

        return over(body, (torch.zeros(4), torch.zeros(4)), x)

    misses("the carries depend on each other, as if a matrix multiplied them", scans, signal(7, 4))


def test_integers_stay() -> None:
    misses(
        "the carry is of torch.int64",
        steps(lambda h, x: (h + x, h * 2)),
        torch.zeros(2).long(),
        torch.ones(7, 2).long(),
    )


def test_half_precision_stays() -> None:
    init = torch.zeros(4, dtype=torch.bfloat16)
    misses("the carry is rounded to torch.bfloat16", steps(decay), init, signal(7, 4, dtype=torch.bfloat16), rtol=1e-2)


def test_a_carry_that_is_written_to_later_stays() -> None:
    def scans(over: Any, x: Tensor) -> Any:
        last, ys = over(decay, torch.zeros(4), x)
        ys.mul_(2)
        return last, ys

    misses("a tensor is written to in place", scans, signal(7, 4))


# --- through Inductor


def test_through_inductor() -> None:
    def scans(over: Any, x: Tensor, a: Tensor) -> Any:
        def body(h: Tensor, xs: Any) -> Any:
            h = xs[1] * h + xs[0]
            return h, F.silu(h) * xs[0]

        return over(body, torch.zeros(4), (x, a))

    args = signal(100, 4), torch.rand(100, 4)
    after = torch_iir.compile(leaves(scans, scan), fullgraph=True)
    expected = values_and_gradients(leaves(scans, loop), args)
    torch.testing.assert_close(values_and_gradients(after, args), expected)
