"""A loop of filters, stacked, becomes one bank: where, and where not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import rewriting
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torch_iir
from torch_iir import functional
from torch_iir.signal import lfilter, sosfilt

compare = partial(rewriting.compare, only=["bank"])


def filters(count: int, order: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(b, a), both (count, order + 1), stable, with a0 ≠ 1."""
    b, a = torch.randn(count, order + 1, dtype=dtype), torch.randn(count, order + 1, dtype=dtype) * (0.9 / (order + 1))
    a[:, 0] = 1.25
    return b, a


def ops(after: rewriting.Rewritten) -> dict[str, int]:
    """How many filters are left."""
    return {name: count for name, count in after.report.after.items() if name in ("lfilter", "sosfilt")}


def clamped(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([functional.lfilter(x, a[i], b[i]) for i in range(len(b))])


def beside_the_channels(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(bi, ai, x) for bi, ai in zip(b, a, strict=True)], dim=-2)


def after_the_channels(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    numerators, denominators = b.unbind(), torch.unbind(a, 0)
    return torch.stack(tuple(lfilter(*pair, x) for pair in zip(numerators, denominators, strict=True)), 1).tanh()


def after_time(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([torch.relu(lfilter(b[i, :], a.select(0, i), x)) for i in range(len(b))], -1)


def along_the_channels(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    mono = x[:, :1]
    return torch.cat([lfilter(b[i], a[i], mono).clamp(min=-2).square() for i in range(len(b))], dim=1)


def of_new_channels(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    ys = [functional.filtfilt(x, a[i], b[i]) for i in range(len(b))]
    return torch.cat([y.unsqueeze(1) for y in ys[:2]] + [y[:, None] for y in ys[2:]], 1)


def each_its_channel(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([2 * lfilter(b[i], a[i], x[:, i]) for i in range(len(b))], 1)


def each_its_channel_kept(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.cat([lfilter(b[i], a[i], x[..., i : i + 1, :]) for i in range(len(b))], -2)


def in_two_stages(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    gains = b[:, 0]
    return torch.stack([lfilter(b[i], a[i], -lfilter(b[i], a[0], x.neg())) * gains[i] for i in range(len(b))], 1)


def with_one_numerator(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[i], x.transpose(0, 1)) for i in range(1, len(b))], dim=0)


def of_sections(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    sos = torch.cat([b, a], -1).unsqueeze(1).expand(-1, 2, -1)
    return torch.stack([sosfilt(sos[i], x).sigmoid() for i in range(len(b))], dim=2)


LOOPS = (
    clamped,
    beside_the_channels,
    after_the_channels,
    after_time,
    along_the_channels,
    of_new_channels,
    each_its_channel,
    each_its_channel_kept,
    in_two_stages,
    with_one_numerator,
    of_sections,
)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_of_filters_becomes_a_bank(loop: Callable[..., Tensor], dynamic: bool) -> None:
    after = compare(loop, torch.randn(2, 4, 30), *filters(4), dynamic=dynamic)
    assert after.fired == ["bank"]
    assert after.missed == []
    assert sum(ops(after).values()) == (2 if loop in (of_new_channels, in_two_stages) else 1)
    titles = after.report.after
    assert titles["cat"] == (loop is of_sections)  # nothing is put together: the tensors are there as a whole
    assert titles["stack"] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.bfloat16])
def test_of_every_dtype(dtype: torch.dtype) -> None:
    rtol = {torch.complex64: 1e-6, torch.bfloat16: 1e-2}.get(dtype, 1e-12)
    x, (b, a) = torch.randn(2, 4, 30, dtype=dtype), filters(4, dtype=torch.float64)
    assert compare(each_its_channel, x, b, a, rtol=rtol).fired == ["bank"]


def test_of_complex_filters() -> None:
    b, a = filters(4, dtype=torch.complex64)
    assert compare(beside_the_channels, torch.randn(2, 30), b, a).fired == ["bank"]


def test_what_the_bank_is_called_with() -> None:
    after = compare(clamped, torch.randn(2, 30), *filters(5))
    (node,) = [node for node in after.graphs[0].graph.nodes if node.target is torch.ops.torch_iir.lfilter.default]
    x, b, a, zi = node.args
    assert x.op == "placeholder"  # broadcast, and so read once for all filters
    assert b.meta["example_value"].shape == a.meta["example_value"].shape == (5, 1, 3)
    assert zi is None
    assert after.report.fired[0].bytes_saved == 2 * (5 * 2 * 30 * 4)  # what the stack reads and writes


def test_parameters_one_by_one_are_stacked() -> None:
    class Filters(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            b, a = filters(3, dtype=torch.float64)
            self.b = torch.nn.ParameterList([row.clone() for row in b])
            self.a = torch.nn.ParameterList([row.clone() for row in a])

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([lfilter(b, a, x) for b, a in zip(self.b, self.a, strict=True)])

    model = Filters()
    x = torch.randn(30)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    after = rewriting.rewritten(model, only=["bank"])
    gradients = torch.autograd.grad(after.function(x).square().sum(), list(model.parameters()))
    assert after.fired == ["bank"]
    torch.testing.assert_close(gradients, expected)


def test_numbers_and_designs_as_coefficients() -> None:
    def loop(x: Tensor, a1: Tensor) -> Tensor:
        ys = [functional.biquad(x, 0.5, 0.1 * i, 0.0, 1.0, a1[i], 0.25) for i in range(3)]
        return torch.stack(ys, 0)

    after = compare(loop, torch.randn(2, 30), torch.rand(3))
    assert after.fired == ["bank"]


def test_filters_of_different_orders_get_zeros() -> None:
    def loop(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([lfilter(b[:1], a, x), lfilter(b, a[:2], x), lfilter(b[:2], a[:2], x)])

    b, a = (row[0] for row in filters(1, 3))
    after = compare(loop, torch.randn(2, 30), b, a)
    assert after.fired == ["bank"]
    x = torch.randn(2, 30)
    x[0, 11], x[1, 17] = torch.inf, torch.nan
    (before,), _ = rewriting.values_and_gradients(loop, (x, b, a))
    (values,), _ = rewriting.values_and_gradients(after.function, (x, b, a))
    assert before.isfinite().equal(values.isfinite())


def test_filters_without_recursion_do_not() -> None:
    def loop(x: Tensor, b: Tensor) -> Tensor:
        return torch.stack([lfilter(b[:1], [1.0], x), lfilter(b, [1.0], x)])

    after = compare(loop, torch.randn(2, 30), torch.randn(3))
    assert after.fired == []
    assert after.missed == [("bank", "the coefficients of the filters have different lengths: append zeros")]


@pytest.mark.parametrize(("batch", "dim"), [((1,), 0), ((2,), 0), ((2,), 1), ((2,), -2), ((1, 2), 1), ((1, 2), 2)])
def test_batches_of_coefficients(batch: tuple[int, ...], dim: int) -> None:
    b, a = (c.unflatten(0, (4, *batch)) for c in filters(4 * batch[-1]))

    def loop(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([lfilter(b[i], a[i, ..., :1, :], x) for i in range(4)], dim)

    after = compare(loop, torch.randn(3, 2, 20), b, a)
    assert after.fired == ["bank"]


def test_no_samples_and_no_rows() -> None:
    after = compare(clamped, torch.randn(2, 0), *filters(3))
    assert after.fired == ["bank"]
    after = compare(clamped, torch.randn(0, 30), *filters(3))
    assert after.fired == ["bank"]


def test_a_loop_in_a_loop() -> None:
    def loops(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([torch.stack([lfilter(b[i], a[j], x) for i in range(2)]) for j in range(3)], 1)

    after = compare(loops, torch.randn(2, 30), *filters(3))
    assert after.fired == ["bank"] * 4
    assert ops(after) == {"lfilter": 1}


def test_some_of_the_channels() -> None:
    def loop(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([lfilter(b[i], a[i], x[:, 2 + i]) for i in range(3)], 1)

    after = compare(loop, torch.randn(2, 6, 30), *filters(3))
    assert after.fired == ["bank"]
    assert after.report.after["narrow"] == 1


# --- where it does not fire


def used_elsewhere(x: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    ys = [lfilter(b[i], a[i], x) for i in range(3)]
    return torch.stack(ys), ys[1] * 2


def stacked_twice(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    y = lfilter(b[0], a[0], x)
    return torch.stack([y, y, lfilter(b[1], a[1], x)])


def with_final_states(x: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    pairs = [torch.ops.torch_iir.lfilter(x, b[i], a[i]) for i in range(3)]
    return torch.stack([y for y, _ in pairs]), pairs[2][1]


def from_states(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[i], a[i], x, zi=b[i, :2])[0] for i in range(3)])


def of_other_signals(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[i], a[i], x.roll(i)) for i in range(3)])


def of_channels_out_of_order(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[i], a[i], x[2 - i]) for i in range(3)])


def beside_the_signal(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x), x, lfilter(b[1], a[1], x)])


def of_both_kinds(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x), sosfilt(torch.cat([b, a], -1), x)])


def with_other_gains(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[i], a[i], x) * (i + 1) for i in range(3)])


def with_other_operations(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x).tanh(), lfilter(b[1], a[1], x).abs()])


def of_several_channels(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.cat([lfilter(b[i], a[i], x) for i in range(3)], 0)


def of_several_numbers_of_sections(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    sos = torch.cat([b, a], -1)
    return torch.stack([sosfilt(sos[:1], x), sosfilt(sos, x)])


def of_several_batches(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x), lfilter(b[1:2], a[1], x)])


def all_the_same(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x) for _ in range(3)])


def in_another_mode(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    with torch.no_grad():
        first = lfilter(b[0], a[0], x)
    return torch.stack([first, lfilter(b[1], a[1], x)])


def of_wide_gains(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    gains = torch.ones(3, dtype=torch.float64)
    return torch.stack([lfilter(b[i], a[i], x) * gains[i] for i in range(3)])


NEARLY = {
    used_elsewhere: "the output of filter 1 is used elsewhere too",
    stacked_twice: "the output of one filter is used for several",
    with_final_states: "filter 2 is used elsewhere too: its output, or its final state",
    from_states: "filter 0 starts from a state",
    of_other_signals: "the filters have different inputs",
    of_channels_out_of_order: "the filters have different inputs",
    beside_the_signal: "tensor 1 of the stack is not the output of a filter",
    of_both_kinds: "some of the filters are lfilter, some sosfilt",
    with_other_gains: "the filters are followed by different operations",
    with_other_operations: "the filters are followed by different operations",
    of_several_channels: "the outputs do not all have size 1 along the dimension of the cat: stack them",
    of_several_numbers_of_sections: "the filters have different numbers of sections",
    of_several_batches: "the coefficients of the filters have different batch dimensions",
    all_the_same: "the filters are all the same: one is enough",
    in_another_mode: "a change of mode (autocast, gradients) lies between",
    of_wide_gains: "the outputs would be torch.float64, not torch.float32",
}


@pytest.mark.parametrize("loop", NEARLY)
def test_nearly_a_bank(loop: Callable[..., Any]) -> None:
    after = compare(loop, torch.randn(3, 30), *filters(3))
    assert after.fired == []
    assert after.missed == [("bank", NEARLY[loop])]


def written_to(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    b, ys = b.clone(), []
    for i in range(3):
        ys.append(lfilter(b[i], a[i], x))
        b.mul_(0.5)
    return torch.stack(ys)


def outputs_written_to(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    ys = [lfilter(b[i], a[i], x) for i in range(3)]
    ys[0].mul_(2)
    return torch.stack(ys)


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (written_to, "a tensor is written to in place"),
        (outputs_written_to, "the output of filter 0 is used elsewhere too"),
    ],
)
def test_what_is_written_to_stays(loop: Callable[..., Tensor], why: str) -> None:
    with torch.no_grad():  # autograd allows neither
        after = compare(loop, torch.randn(3, 30), *filters(3))
    assert after.fired == []
    assert after.missed == [("bank", why)]


def one_after_another(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.cat([lfilter(b[i], a[i], x) for i in range(3)], -1)


def summed(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return sum(lfilter(b[i], a[i], x) for i in range(3))  # type: ignore[return-value]


def one_of_the_stack(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return torch.stack([lfilter(b[0], a[0], x), x])


@pytest.mark.parametrize("loop", [one_after_another, summed, one_of_the_stack])
def test_something_else(loop: Callable[..., Tensor]) -> None:
    after = compare(loop, torch.randn(3, 30), *filters(3))
    assert (after.fired, after.missed) == ([], [])


def test_a_stack_that_is_taken_apart_again() -> None:
    def loop(x: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.stack([lfilter(b[i], a[i], x) for i in range(2)]).unbind()
        return first * second, second

    after = compare(loop, torch.randn(3, 30), *filters(2))
    assert after.fired == ["bank"]


def test_inputs_that_are_computed_alike() -> None:
    def loop(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([lfilter(b[i], a[i], lfilter(b[2], a[2], (x * 2).flip(-1))) for i in range(2)])

    after = compare(loop, torch.randn(3, 30), *filters(3))
    assert after.fired == ["bank"]
    assert ops(after) == {"lfilter": 2}  # the first of them once for both


def test_time_of_one_sample() -> None:
    after = compare(clamped, torch.randn(3, 1), *filters(3))
    assert after.fired == ["bank"]
    assert ops(after) == {"lfilter": 1}


# --- random programs


def elementwise(kind: int, y: Tensor, gain: Tensor) -> Tensor:
    steps: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda y: y,
        lambda y: y.clamp(-1, 1),
        lambda y: 0.5 * y + 1,
        lambda y: gain * y.flip(-1),
        lambda y: torch.tanh(y) - gain,
    )
    return steps[kind](y)


@given(
    count=st.integers(2, 4),
    order=st.integers(0, 3),
    batch=st.sampled_from([(), (3,), (2, 3), (2, 1)]),
    coefficients=st.sampled_from([(), (3,), (1,)]),
    place=st.integers(0, 3),
    kinds=st.lists(st.integers(0, 4), max_size=2),
    own_channel=st.booleans(),
    again=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=12, database=None)
def test_random_loops(
    count: int,
    order: int,
    batch: tuple[int, ...],
    coefficients: tuple[int, ...],
    place: int,
    kinds: list[int],
    own_channel: bool,
    again: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    b, a = (c.unflatten(0, (count, *coefficients)) for c in filters(count * max([1, *coefficients]), order))
    gains = torch.randn(count)

    def loop(x: Tensor, b: Tensor, a: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
        ys = []
        for i in range(count):
            y = lfilter(b[i], a[i], x[i] if own_channel else x)
            y = lfilter(b[i], a[0], y) if again else y
            for kind in kinds:
                y = elementwise(kind, y, gains[i])
            ys.append(y)
        stacked = torch.stack(ys, min(place, ys[0].dim()))
        return stacked.cumsum(0), x.sum() * stacked

    after = compare(loop, torch.randn(*((count,) if own_channel else ()), *batch, 12), b, a, gains, rtol=1e-4)
    assert after.fired == ["bank"]
    assert ops(after) == {"lfilter": 1 + again}


# --- parts


WHOLE: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda c, i: c[i, 0],
    lambda c, i: c[1, i],
    lambda c, i: c[2, ..., i, :],
    lambda c, i: c[1 + i, 1, :3],
    lambda c, i: c[:, 1:].select(1, i),
    lambda c, i: c[:, 0].unbind(0)[i],
    lambda c, i: c.select(1, 0).unbind()[i],
    lambda c, i: c.unbind(1)[1 + i],
)
NOT_WHOLE: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda c, i: c[i, i],
    lambda c, i: c[2 - i, 0],
    lambda c, i: c[-3 + i, 0],
    lambda c, i: c[2 * i, 0],
    lambda c, i: c[0, 0, i : i + 3],
    lambda c, i: (c, c + 1, c)[i][i, 0],
    lambda c, i: c[i][None, 1],
    lambda c, i: c[[i], 0],
)


@pytest.mark.parametrize("take", [*WHOLE, *NOT_WHOLE])
def test_parts_of_one_tensor(take: Callable[[Tensor, int], Tensor]) -> None:
    def loop(x: Tensor, c: Tensor, a: Tensor) -> Tensor:
        return torch.stack([lfilter(take(c, i), a[0], x) for i in range(3)], -2)

    after = compare(loop, torch.randn(5, 20), torch.randn(5, 5, 5), filters(1)[1])
    assert after.fired == ["bank"]
    assert after.report.after["stack"] == (take in NOT_WHOLE)


# --- through Inductor


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports Inductor
def test_compiled() -> None:
    x, (b, a) = torch.randn(2, 100), filters(3)
    ours = rewriting.values_and_gradients(torch_iir.compile(clamped, fullgraph=True, rewrite=["bank"]), (x, b, a))
    theirs = rewriting.values_and_gradients(clamped, (x, b, a))
    torch.testing.assert_close(ours, theirs)
