"""distributed.lfilter_tv against one machine: any cut, any derivative, and what ranks tell each other for it."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import torch_iir.distributed._lfilter_tv
from torch_iir import distributed, signal

DOUBLE, IMAGINARY = torch.float64, torch.complex128


class Case(NamedTuple):
    """Shapes of b, a, x and the past of x and of y; a −1 is time. zi is not given where their shapes are not."""

    b: tuple[int, ...]
    a: tuple[int, ...]
    x: tuple[int, ...]
    zx: tuple[int, ...] | None = None
    zy: tuple[int, ...] | None = None
    dtypes: Sequence[torch.dtype] = (DOUBLE,) * 5


CASES = {
    "rows of their own": Case((2, -1, 3), (2, -1, 4), (2, -1), (2, 2), (2, 3)),
    "rows that all share": Case((-1, 5), (-1, 3), (2, -1), (4,), (2, 2)),
    "constant": Case((4,), (2, 1, 3), (2, -1), (3,), (2,)),
    "a bank": Case((3, -1, 2), (1, -1, 2), (2, 1, -1), (2, 1, 1), (3, 1)),
    "at rest": Case((-1, 3), (-1, 3), (2, -1)),
    "no past of x": Case((-1, 1), (-1, 3), (-1,), (0,), (2,)),
    "no past of y": Case((-1, 4), (-1, 1), (2, -1), (3,), (0,)),
    "no past": Case((-1, 1), (-1, 1), (-1,), (0,), (0,)),
    "complex a": Case((-1, 3), (-1, 3), (-1,), (2,), (2,), (DOUBLE, IMAGINARY, DOUBLE, DOUBLE, DOUBLE)),
    "complex x": Case((-1, 2), (-1, 3), (-1,), (1,), (2,), (DOUBLE, DOUBLE, IMAGINARY, IMAGINARY, IMAGINARY)),
}
CUTS = {2: [(7, 13), (0, 5), (1, 2)], 3: [(4, 0, 9), (1, 2, 7), (6, 3, 0), (1, 1, 1)]}


def arguments(case: Case, samples: int) -> list[Tensor]:
    """The same on every rank; nothing grows."""
    generator = torch.Generator().manual_seed(samples)
    shapes = [shape for shape in case[:5] if shape is not None]
    values = [
        torch.randn([samples if n == -1 else n for n in shape], dtype=dtype, generator=generator)
        for shape, dtype in zip(shapes, case.dtypes, strict=False)
    ]
    a = values[1]
    a[..., 1:] *= 0.9 / a[..., 1:].abs().sum(-1, keepdim=True)
    a[..., 0] = 1
    values[1] = a * (1 + torch.rand(*a.shape[:-1], 1, dtype=DOUBLE, generator=generator))
    return values


def over_time(case: Case, index: int) -> int | None:
    """Which dimension of an argument is time."""
    shape = case[index]
    return None if shape is None or -1 not in shape else shape.index(-1) - len(shape)


def own_part(tensor: Tensor, dim: int | None, cuts: Sequence[int]) -> Tensor:
    rank = dist.get_rank()
    return tensor if dim is None else tensor.narrow(dim, sum(cuts[:rank]), cuts[rank])


def outputs(function: Callable[..., Any], b: Tensor, a: Tensor, x: Tensor, *zi: Tensor) -> list[Tensor]:
    if not zi:
        return [function(b, a, x)]
    y, zf = function(b, a, x, zi)
    return [y, *zf]


def like(tensors: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator) for tensor in tensors]


def derivative(of: Sequence[Tensor], weights: Sequence[Tensor], by: Sequence[Tensor], again: bool) -> list[Tensor]:
    total = sum((value * weight).real.sum() for value, weight in zip(of, weights, strict=True))
    gradients = torch.autograd.grad(total, by, create_graph=again)
    return list(gradients)


def summed(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def compare(case: Case, cuts: Sequence[int], orders: int, compiled: dict[str, Any] | None = None) -> None:
    """Outputs and derivatives of this rank's part with those of one machine."""
    function = distributed.lfilter_tv if compiled is None else torch.compile(distributed.lfilter_tv, **compiled)
    inputs = [value.requires_grad_() for value in arguments(case, sum(cuts))]
    times = [over_time(case, index) for index in range(len(inputs))]
    own_inputs = [
        own_part(value.detach(), dim, cuts).clone().requires_grad_() for value, dim in zip(inputs, times, strict=True)
    ]
    whole, own = outputs(signal.lfilter_tv, *inputs), outputs(function, *own_inputs)
    for index, (value, expected) in enumerate(zip(own, whole, strict=True)):
        assert_close(value, own_part(expected, -1, cuts) if index == 0 else expected)
        assert value.is_contiguous()

    # Losses are functions of y's own part and, on every rank, of all zf: their weights count once for each rank.
    own_of, of = own, [whole[0], *[value * len(cuts) for value in whole[1:]]]
    of_times: list[int | None] = [-1, None, None][: len(of)]
    for order in range(1, orders + 1):
        weights = like(of)
        own_weights = [own_part(weight, dim, cuts) for weight, dim in zip(weights, of_times, strict=True)]
        again = order < orders
        of, own_of = derivative(of, weights, inputs, again), derivative(own_of, own_weights, own_inputs, again)
        of_times = times
        for value, expected, dim in zip(own_of, of, times, strict=True):
            assert_close(value if dim is not None else summed(value), own_part(expected, dim, cuts))


def compare_all(cuts: Sequence[Sequence[int]]) -> None:
    for case in CASES.values():
        for cut in cuts:
            compare(case, cut, orders=2)
    compare(CASES["rows that all share"], cuts[0], orders=3)


@pytest.mark.parametrize("world", [2, 3])
def test_parts_are_those_of_one_machine(world: int) -> None:
    """Also parts that are empty, and shorter than what the filter looks back on; with first and second derivatives."""
    ranks.run(compare_all, world, CUTS[world])


def compare_compiled() -> None:
    compare(CASES["rows that all share"], (7, 13), orders=1, compiled={"backend": "aot_eager", "fullgraph": True})


def test_compiled() -> None:
    ranks.run(compare_compiled, 2)


def in_parts(b: Tensor, a: Tensor, x: Tensor, zi: Any = None) -> Any:
    """distributed.lfilter_tv of equal parts, as nearly as can be."""
    part = torch.arange(x.shape[-1]).tensor_split(dist.get_world_size())[dist.get_rank()]
    b, a = (value if value.shape[-2] == 1 else value[..., part, :] for value in (b, a))
    return distributed.lfilter_tv(b, a, x[..., part], zi), part


def narrow_dtypes() -> None:
    """As exact as one machine: the outputs of both to those in double precision."""
    generator = torch.Generator().manual_seed(0)
    samples = 6000
    radius, angle = 0.9999, 0.01 + 0.005 * torch.arange(samples, dtype=DOUBLE) / samples
    a = torch.stack([torch.ones_like(angle), -2 * radius * angle.cos(), radius**2 * torch.ones_like(angle)], -1)
    b, x = torch.tensor([[1, 2, 1e-1]], dtype=DOUBLE), torch.randn(2, samples, dtype=DOUBLE, generator=generator)
    zi = torch.ones(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)
    for dtype, of_coefficients in (
        (torch.float32, torch.float32),
        (torch.float32, DOUBLE),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ):
        x_, zi_ = (x * 1e-3).to(dtype), [z.to(dtype) for z in zi]
        b_, a_ = b.to(of_coefficients), a.to(of_coefficients)
        if of_coefficients != DOUBLE:  # rounding made it unstable
            a_[:, 1:] *= 0.99
        exact = signal.lfilter_tv(b_.double(), a_.double(), x_.double(), [z.double() for z in zi_])
        here = signal.lfilter_tv(b_, a_, x_, zi_)
        (y, zf), part = in_parts(b_, a_, x_, zi_)
        for ours, one, target in zip(
            (y, *zf), (here[0][:, part], *here[1]), (exact[0][:, part], *exact[1]), strict=True
        ):
            assert ours.dtype == one.dtype
            scale = target.square().mean()
            error, of_one = ((value - target).square().mean().div(scale).sqrt() for value in (ours, one))
            assert error <= 1.1 * of_one + 1e-12, (dtype, of_coefficients, error, of_one)


def test_narrow_dtypes_are_as_exact_as_on_one_machine() -> None:
    ranks.run(narrow_dtypes, 3)


def what_is_not_finite() -> None:
    def check(b: Tensor, a: Tensor, x: Tensor) -> None:
        expected = signal.lfilter_tv(b, a, x)
        y, part = in_parts(b, a, x)
        expected = expected[part]
        finite = expected.isfinite()
        assert torch.equal(y.isfinite(), finite)
        assert_close(y[finite], expected[finite])

    samples = 30
    b, a, x = torch.ones(samples, 3), torch.tensor([1, -0.5, 0.25]).repeat(samples, 1), torch.randn(samples)
    for value in (torch.nan, torch.inf):
        for which in range(3):
            b_, a_, x_ = b.clone(), a.clone(), x.clone()
            (b_, a_, x_)[which][15] = value
            check(b_, a_, x_)
        x_ = x.clone()
        x_[15] = value
        check(b, torch.ones(1, 1), x_)  # which leaves a filter without poles again

    samples = 6000  # the transition of a part overflows, but silence stays silence
    x = torch.zeros(samples, dtype=DOUBLE)
    x[4500] = 1
    check(torch.ones(1, 1), torch.tensor([[1.0, -2.0]]).repeat(samples, 1), x)


def test_what_is_not_finite_stays_behind() -> None:
    ranks.run(what_is_not_finite, 3)


# What ranks tell each other, and what is kept


class Log(TorchDispatchMode):
    """The ops that were called of this package and of torch's collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("torch_iir", "_c10d_functional"):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def messages() -> None:
    send, wait, run, gradients = "all_gather_into_tensor", "wait_tensor", "lfilter_tv", "lfilter_tv_backward"
    chain = "_chained_states"
    add = ["reduce_scatter_tensor", wait]
    again = [run] * (dist.get_rank() > 0)  # the first rank knows its state at once
    expected: dict[str, tuple[list[str], list[str]]] = {
        # The transition is computed while the past of x is under way.
        "rows that all share": (
            [send, run, wait, run, send, wait, chain, *again],
            [gradients, send, wait, chain, gradients, *add],
        ),
        "no past of x": ([run, run, send, wait, chain, *again], [gradients, send, wait, chain, gradients]),
        "no past of y": ([send, wait, run], [gradients, *add]),
        "no past": ([run], [gradients]),
    }
    for name, (forwards, backwards) in expected.items():
        b, a, x, *_ = [value.requires_grad_() for value in arguments(CASES[name], 20)]
        with Log() as log:
            y, _ = in_parts(b, a, x)
        assert log.names == forwards, (name, log.names)
        with Log() as log:
            y.sum().backward()
        assert log.names == backwards, (name, log.names)


def test_messages() -> None:
    ranks.run(messages, 2)


def kept() -> None:
    """Of the length of a part nothing but the arguments and y, though N signals went through the filter."""
    samples, storages = 500, {}
    b, a, x, *zi = [value.requires_grad_() for value in arguments(CASES["rows that all share"], samples)]

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y, _ = distributed.lfilter_tv(b, a, x, zi)
    assert y.requires_grad
    assert sum(storages.values()) < 8 * (b.numel() + a.numel() + 2 * x.numel() + samples)


def test_what_is_kept_for_backward() -> None:
    ranks.run(kept, 2)


# The public function


def calls() -> None:
    b, a, x, zx, zy = arguments(CASES["rows that all share"], 6)
    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    for ours, one in zip(
        outputs(lambda *args: distributed.lfilter_tv(*args, group=alone), b, a, x, zx, zy),
        outputs(signal.lfilter_tv, b, a, x, zx, zy),
        strict=True,
    ):
        assert torch.equal(ours, one)

    # What is no tensor; a past of zeros.
    y, (past_x, past_y) = distributed.lfilter_tv([1, 2], [1.0, -1.0], [1, 2], (None, [0.0]))
    rank = dist.get_rank()
    assert_close(y, torch.tensor([[1.0, 5.0], [10.0, 14.0]], dtype=DOUBLE)[rank])
    assert (past_x.tolist(), past_y.tolist()) == ([2.0], [14.0])

    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((torch.ones(0), a, x), "b must have at least one coefficient"),
        ((b[:4], a, x), "the dimension of b before the last must be 1 or the samples of x, 6"),
        ((b, a, x, (zx[:2], zy)), r"the last dimension of zi\[0\] must be the largest lag of b, 4"),
        ((b, a, x, (zx, zy, zy)), "zi must be a pair"),
        ((b, a * 0, x), r"a\[..., 0\] must not be zero"),
        ((b, torch.zeros(6, 1), x), r"a\[..., 0\] must not be zero"),
        ((b[..., :1], a, x.expand(3, 2, 6), (None, torch.ones(4, 1, 2))), "must broadcast together"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            distributed.lfilter_tv(*call)
    with pytest.raises(TypeError, match="zi must be a pair"):
        distributed.lfilter_tv(b, a, x, zx)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="x must be a tensor"):
        distributed.lfilter_tv(b, a, "x")

    result = doctest.testmod(torch_iir.distributed._lfilter_tv)
    assert result.attempted > 0
    assert result.failed == 0


def test_calls() -> None:
    ranks.run(calls, 2)
