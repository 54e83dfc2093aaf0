"""A chain of second-order filters becomes one cascade: where, and where not."""

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

compare = partial(rewriting.compare, only=["cascade"])


def sections(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(*shape, 6), stable, with a0 ≠ 1."""
    sos = torch.randn(*shape, 6, dtype=dtype) * 0.3
    sos[..., 0] += 1
    sos[..., 3] += 1.5
    return sos


def ops(after: rewriting.Rewritten) -> dict[str, int]:
    """How many filters are left."""
    return {name: count for name, count in after.report.after.items() if name in ("lfilter", "sosfilt")}


def of_rows(x: Tensor, sos: Tensor) -> Tensor:
    assert sos.shape[-1] == 6  # known in a trace from here on, also where sizes are dynamic
    for b, a in zip(sos[..., :3], sos[..., 3:], strict=True):
        x = lfilter(b, a, x)
    return x


def of_designs(x: Tensor, sos: Tensor) -> Tensor:
    for i in range(len(sos)):
        b0, b1, b2, a0, a1, a2 = sos[i].unbind()
        x = functional.biquad(x, b0, b1, b2, a0, a1, a2, clamp=False)
    return x.clamp(-1, 1)


def of_halves(x: Tensor, sos: Tensor) -> Tensor:
    return sosfilt(sos[1:], sosfilt(sos[:1], x))


def of_both_kinds(x: Tensor, sos: Tensor) -> Tensor:
    x = lfilter([0.5, 0.1], [1.0, 0.2, 0.1], lfilter([0.5], [1.0, -0.5], x))
    return lfilter([1.0, 0.3, 0.1], [2.0], sosfilt(sos, x)).tanh()


def of_lower_orders(x: Tensor, sos: Tensor) -> Tensor:
    assert sos.shape[-1] == 6
    x = functional.lfilter(x, sos[0, 3:5], sos[0, :1], clamp=False)
    x = functional.lfilter(x, sos[1, 3:4], sos[1, :2], clamp=False)
    return functional.lfilter(x, sos[1, 3:], sos[1, :1], clamp=False)


CHAINS = (of_rows, of_designs, of_halves, of_both_kinds, of_lower_orders)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_becomes_a_cascade(chain: Callable[..., Tensor], dynamic: bool) -> None:
    after = compare(chain, torch.randn(2, 30), sections(3), dynamic=dynamic)
    assert after.fired == ["cascade"]
    assert after.missed == []
    assert ops(after) == {"sosfilt": 1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_of_every_dtype(dtype: torch.dtype) -> None:
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    after = compare(of_both_kinds, torch.randn(2, 30, dtype=dtype), sections(2, dtype=torch.float64), rtol=rtol)
    assert after.fired == ["cascade"]


def test_of_complex_sections() -> None:
    after = compare(of_rows, torch.randn(2, 30), sections(3, dtype=torch.complex64))
    assert after.fired == ["cascade"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, sos = torch.randn(4, 200, dtype=dtype), sections(8, dtype=torch.float64)
    after = rewriting.rewritten(of_rows, only=["cascade"])
    exact = sosfilt(sos, x.double())
    ours, theirs = ((y - exact).square().mean() for y in (after.function(x, sos), of_rows(x, sos)))
    assert after.fired == ["cascade"]
    assert ours < theirs / 2


def test_coefficients_stay_wide() -> None:
    def chain(x: Tensor, narrow: Tensor, wide: Tensor) -> Tensor:
        return lfilter(wide[:3], narrow[3:], lfilter(narrow[:3], wide[3:], x))

    x, narrow, wide = torch.randn(30), sections(), sections(dtype=torch.float64)
    after = compare(chain, x, narrow, wide, rtol=1e-6)
    assert after.fired == ["cascade"]
    (node,) = [node for node in after.graphs[0].graph.nodes if node.target is torch.ops.torch_iir.sosfilt.default]
    x, sos, zi = node.args
    assert sos.meta["example_value"].dtype == torch.float64
    assert zi is None


def test_rows_of_one_tensor_are_taken_as_a_whole() -> None:
    after = compare(of_rows, torch.randn(2, 30), sections(8))
    assert after.fired == ["cascade"]
    titles = after.report.after
    assert (titles["stack"], titles["cat"], titles["pad"]) == (0, 1, 0)
    assert after.report.bytes_saved > 0


@pytest.mark.parametrize(
    ("signal", "shapes"),
    [
        ((2, 30), [(2,), (2,)]),
        ((2, 30), [(), (2,), ()]),
        ((2, 30), [(1,), (2,)]),
        ((30,), [(3,), (), (3,)]),
        ((2, 1, 30), [(3,), (2, 1), (1, 3)]),
    ],
)
def test_batches_of_sections(signal: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    def of_lfilters(x: Tensor, *sos: Tensor) -> Tensor:
        for rows in sos:
            x = lfilter(rows[..., :3], rows[..., 3:], x)
        return x

    def of_sosfilts(x: Tensor, *sos: Tensor) -> Tensor:
        for rows in sos:
            x = sosfilt(rows.unsqueeze(-2), x)
        return x

    rows = [sections(*shape) for shape in shapes]
    for chain in (of_lfilters, of_sosfilts):
        after = compare(chain, torch.randn(signal), *rows)
        assert after.fired == ["cascade"]
        assert ops(after) == {"sosfilt": 1}


def test_a_numerator_of_another_batch_than_its_denominator() -> None:
    def chain(x: Tensor, sos: Tensor) -> Tensor:
        return lfilter(sos[0, 0, :3], sos[1, :, 3:], lfilter(sos[0, 1, :3], sos[0, :, 3:], x))

    after = compare(chain, torch.randn(30), sections(2, 4))
    assert after.fired == ["cascade"]


def test_what_stands_in_front_of_a_bank_stays_apart() -> None:
    def chain(x: Tensor, sos: Tensor) -> Tensor:
        x = lfilter([0.5], [1.0, -0.5], lfilter([0.5], [1.0, 0.5], x))
        return sosfilt(sos[:, :1], sosfilt(sos[:, 1:], x))

    after = compare(chain, torch.randn(2, 1, 30), sections(4, 3))
    assert after.fired == ["cascade", "cascade"]
    assert after.missed == []


def test_a_higher_order_ends_the_chain() -> None:
    def chain(x: Tensor, sos: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return of_rows(lfilter(b, a, of_rows(x, sos)), sos)

    x, sos, b, a = torch.randn(30), sections(2), torch.randn(3), torch.tensor([1.5, 0.3, 0.2, 0.1])
    after = compare(chain, x, sos, b, a)
    assert after.fired == ["cascade", "cascade"]
    assert ops(after) == {"sosfilt": 2, "lfilter": 1}
    assert set(after.missed) == {("cascade", "a filter has an order above 2: design it as second-order sections")}


def test_two_chains_side_by_side() -> None:
    def chains(x: Tensor, sos: Tensor) -> Tensor:
        return of_rows(x, sos) + of_rows(x.flip(-1), sos)

    after = compare(chains, torch.randn(2, 30), sections(2))
    assert after.fired == ["cascade", "cascade"]
    assert ops(after) == {"sosfilt": 2}


def test_no_samples_and_no_rows() -> None:
    for x in (torch.randn(2, 0), torch.randn(0, 30), torch.randn(1)):
        after = compare(of_rows, x, sections(2))
        assert after.fired == ["cascade"]


def test_what_is_not_finite_stays_so() -> None:
    x, sos = torch.randn(3, 40), sections(2)
    x[0, 5], x[1, 0], x[2, 39] = torch.inf, torch.nan, -torch.inf
    after = rewriting.rewritten(of_both_kinds, only=["cascade"])
    assert after.function(x, sos).isfinite().equal(of_both_kinds(x, sos).isfinite())
    assert after.fired == ["cascade"]


# --- where it does not fire


def used_between(x: Tensor, sos: Tensor) -> tuple[Tensor, Tensor]:
    between = sosfilt(sos[:1], x)
    return sosfilt(sos[1:], between), between * 2


def returned_between(x: Tensor, sos: Tensor) -> tuple[Tensor, Tensor]:
    between = sosfilt(sos[:1], x)
    return between, sosfilt(sos[1:], between)


def clamped_between(x: Tensor, sos: Tensor) -> Tensor:
    x = functional.lfilter(x, sos[0, 3:], sos[0, :3])
    return functional.lfilter(x, sos[1, 3:], sos[1, :3])


def from_a_state(x: Tensor, sos: Tensor) -> Tensor:
    return lfilter(sos[1, :3], sos[1, 3:], sosfilt(sos, x), zi=sos[1, :2])[0]


def with_the_first_state(x: Tensor, sos: Tensor) -> tuple[Tensor, Tensor]:
    y, state = torch.ops.torch_iir.sosfilt(x, sos)
    return sosfilt(sos, y), state


def with_the_last_state(x: Tensor, sos: Tensor) -> tuple[Tensor, Tensor]:
    y, state = torch.ops.torch_iir.lfilter(sosfilt(sos, x), sos[0, :3], sos[0, 3:])
    return y, state


def of_a_higher_order(x: Tensor, sos: Tensor) -> Tensor:
    return lfilter([0.5, 0.2, 0.1, 0.1], [1.0, 0.5], sosfilt(sos, x))


def in_two_modes(x: Tensor, sos: Tensor) -> Tensor:
    with torch.no_grad():
        x = sosfilt(sos, x)
    return sosfilt(sos, x)


def becoming_complex(x: Tensor, sos: Tensor) -> Tensor:
    return sosfilt(torch.complex(sos, sos), sosfilt(sos, x))


STATE = "is used: let one sosfilt have the sections and their states"
NEARLY = {
    used_between: "the signal between the filters is used elsewhere too",
    returned_between: "the signal between the filters is used elsewhere too",
    clamped_between: "the signal is clamped between the filters: pass clamp=False",
    from_a_state: "a filter starts from a state: let one sosfilt have the sections and their states",
    with_the_first_state: f"the final state of a filter {STATE}",
    with_the_last_state: f"the final state of a filter {STATE}",
    of_a_higher_order: "a filter has an order above 2: design it as second-order sections",
    in_two_modes: "a change of mode (autocast, gradients) lies between",
    becoming_complex: "the signal becomes complex between the filters",
}


@pytest.mark.parametrize("chain", NEARLY)
def test_nearly_a_cascade(chain: Callable[..., Any]) -> None:
    after = compare(chain, torch.randn(2, 30), sections(2))
    assert after.fired == []
    assert after.missed == [("cascade", NEARLY[chain])]


def alone(x: Tensor, sos: Tensor) -> Tensor:
    return lfilter(sos[0, :3], sos[0, 3:], x)


def squared_between(x: Tensor, sos: Tensor) -> Tensor:
    return sosfilt(sos, sosfilt(sos, x).square())


def reversed_between(x: Tensor, sos: Tensor) -> Tensor:
    return sosfilt(sos, sosfilt(sos, x).flip(-1)).flip(-1)


def without_recursion(x: Tensor, sos: Tensor) -> Tensor:
    return lfilter(sos[0, :3], [1.0], lfilter(sos[1, :3], sos[0, 3:4], x))


@pytest.mark.parametrize("chain", [alone, squared_between, reversed_between, without_recursion])
def test_something_else(chain: Callable[..., Tensor]) -> None:
    after = compare(chain, torch.randn(2, 30), sections(2))
    assert (after.fired, after.missed) == ([], [])


def test_coefficients_that_are_written_to() -> None:
    def chain(x: Tensor, sos: Tensor) -> Tensor:
        sos = sos.clone()
        x = sosfilt(sos, x)
        return sosfilt(sos.mul_(0.5), x)

    with torch.no_grad():  # autograd does not allow it
        after = compare(chain, torch.randn(2, 30), sections(2))
    assert after.fired == []
    assert after.missed == [("cascade", "a tensor is written to in place")]


def test_lengths_that_are_not_known() -> None:
    def chain(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return lfilter(b, a, lfilter(b, a, x))

    b, a = sections().split(3)
    after = compare(chain, torch.randn(2, 30), b, a.contiguous(), dynamic=True)
    assert after.fired == []
    assert after.missed == [("cascade", "the number of coefficients is not known when it is compiled")]


# --- with others


def test_a_loop_of_chains_becomes_a_bank_of_cascades() -> None:
    def loop(x: Tensor, sos: Tensor) -> Tensor:
        return torch.stack([of_rows(x, sos[:, i]) for i in range(4)], 1)

    after = rewriting.compare(loop, torch.randn(2, 30), sections(3, 4), only=["bank", "cascade"])
    assert after.fired == ["bank", "cascade"]
    assert ops(after) == {"sosfilt": 1}


STEPS = ("lfilter", "sosfilt", "short", "order 3", "tanh", "flip")


@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=2, max_size=6),
    batch=st.sampled_from([(), (3,), (2, 3)]),
    bank=st.sampled_from([(), (3,), (2, 1)]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=15, database=None)
def test_random_chains(steps: list[str], batch: tuple[int, ...], bank: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)

    def chain(x: Tensor, sos: Tensor) -> Tensor:
        for i, step in enumerate(steps):
            b, a = sos[i, ..., :3], sos[i, ..., 3:]
            if step == "lfilter":
                x = lfilter(b, a, x)
            elif step == "sosfilt":
                x = sosfilt(sos[i : i + 2].movedim(0, -2), x)
            elif step == "short":
                x = lfilter(b[..., :1], a[..., :2], x)
            elif step == "order 3":
                x = lfilter(torch.cat([b, b[..., :1]], -1), a, x)
            else:
                x = x.tanh() if step == "tanh" else x.flip(-1)
        return x

    sos = sections(len(steps) + 1, *bank)
    after = compare(chain, torch.randn(*batch, 12), sos, rtol=1e-4)
    kinds = "".join("s" if step in STEPS[:3] else " " for step in steps)
    assert len(after.fired) == sum(len(run) > 1 for run in kinds.split())


# --- through Inductor


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, as it imports Inductor
def test_compiled() -> None:
    x, sos = torch.randn(2, 100), sections(4)
    ours = rewriting.values_and_gradients(torch_iir.compile(of_rows, fullgraph=True, rewrite=["cascade"]), (x, sos))
    theirs = rewriting.values_and_gradients(of_rows, (x, sos))
    torch.testing.assert_close(ours, theirs)
