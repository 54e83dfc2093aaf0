"""lfilter and sosfilt with the time split over ranks, against the same function on one machine."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
import ranks
import scipy.signal
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import torch_iir
from torch_iir import distributed, signal
from torch_iir.distributed._transition import matrix_power

DOUBLE, IMAGINARY = torch.float64, torch.complex128
SINGLE = ([1.0, 0.5], [1.0, -0.5, 0.25])


class Case(NamedTuple):
    """Shapes of the coefficients, of x with its time as −1, and of zi; which filter it is, and the axis of time."""

    coefficients: tuple[tuple[int, ...], ...]
    x: tuple[int, ...]
    zi: tuple[int, ...] | None
    axis: int = -1
    dtypes: tuple[torch.dtype, ...] = (DOUBLE,) * 4

    @property
    def names(self) -> list[str]:
        return ["b", "a"] if len(self.coefficients) == 2 else ["sos"]

    def function(self, module: Any) -> Callable[..., Any]:
        """Of the coefficients, x and zi."""
        named = module.lfilter if len(self.coefficients) == 2 else module.sosfilt

        def outputs(*arguments: Tensor, **kwargs: Any) -> list[Tensor]:
            *coefficients, x = arguments[: len(self.coefficients) + 1]
            if self.zi is None:
                return [named(*coefficients, x, self.axis, **kwargs)]
            return list(named(*coefficients, x, self.axis, arguments[-1], **kwargs))

        return outputs

    def arguments(self, samples: int) -> list[Tensor]:
        """The same on every rank; filters are stable, and have a0 ≠ 1."""
        generator = torch.Generator().manual_seed(samples)
        shapes = [*self.coefficients, self.x, *([] if self.zi is None else [self.zi])]
        values = [
            torch.randn([samples if n == -1 else n for n in shape], dtype=dtype, generator=generator)
            for shape, dtype in zip(shapes, self.dtypes, strict=False)
        ]
        a = values[1] if len(self.coefficients) == 2 else values[0][..., 3:]
        a[..., 1:] *= 0.9 / (a[..., 1:].abs().sum(-1, keepdim=True) + 1e-9)
        a[..., 0] = 1
        a *= 1.5
        return values


CASES = {
    "b longer": Case(((4,), (3,)), (2, -1), (3,)),
    "at rest": Case(((2,), (2,)), (-1,), None),
    "bank": Case(((3, 2), (3, 3)), (2, 1, -1), (2, 1, 2)),
    "a filter for each row": Case(((2, 3), (2, 3)), (2, -1), None),
    "time first": Case(((3,), (2,)), (-1, 2), (2, 1), 0),
    "no recursion": Case(((3,), (1,)), (-1,), (2,)),
    "no state": Case(((1,), (1,)), (2, -1), (0,)),
    "long, without recursion": Case(((70,), (1,)), (-1,), (69,)),
    "complex filter": Case(((2,), (3,)), (-1,), (2,), dtypes=(DOUBLE, IMAGINARY, DOUBLE, DOUBLE)),
    "complex signal": Case(((2,), (3,)), (-1,), None, dtypes=(DOUBLE, DOUBLE, IMAGINARY)),
    "sections": Case(((3, 6),), (2, -1), (3, 1, 2)),
    "sections at rest": Case(((1, 6),), (-1,), None),
    "bank of sections": Case(((2, 2, 6),), (2, 1, -1), (2, 2, 1, 2)),
    "sections, time first": Case(((2, 6),), (-1, 2), (2, 2, 2), 0),
    "complex sections": Case(((2, 6),), (-1,), (2, 2), dtypes=(IMAGINARY, DOUBLE, DOUBLE)),
}


def own_part(tensor: Tensor, axis: int | None, cuts: Sequence[int]) -> Tensor:
    rank = dist.get_rank()
    return tensor if axis is None else tensor.narrow(axis, sum(cuts[:rank]), cuts[rank])


def weighted(tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([(t * w).real.sum() for t, w in zip(tensors, weights, strict=True)]).sum()


def random_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator) for tensor in tensors]


def summed(tensor: Tensor) -> Tensor:
    total = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()
    total = total.clone()
    dist.all_reduce(total)
    return torch.view_as_complex(total) if tensor.is_complex() else total


def assert_close(value: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of sums of products: of every derivative the largest entry is about 1 or above."""
    assert value.shape == expected.shape
    assert value.dtype == expected.dtype
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(value, expected, rtol=0, atol=1e3 * torch.finfo(DOUBLE).eps * scale)


def compare(case: Case, cuts: Sequence[int], orders: int, function: Callable[..., Any] | None = None) -> None:
    """Outputs and derivatives of this rank's part with those of one machine."""
    inputs = [value.requires_grad_() for value in case.arguments(sum(cuts))]
    axes = [case.axis if index == len(case.names) else None for index in range(len(inputs))]
    own_inputs = [
        own_part(value.detach(), axis, cuts).clone().requires_grad_() for value, axis in zip(inputs, axes, strict=True)
    ]
    of, own_of = case.function(signal)(*inputs), (function or case.function(distributed))(*own_inputs)
    for value, expected, axis in zip(own_of, of, (case.axis, None), strict=False):
        assert_close(value, own_part(expected, axis, cuts))
        assert value.is_contiguous()

    # Every rank's loss has zf, so that on one machine it counts once for each.
    of_axes = [case.axis, None][: len(of)]
    of = [of[0], *[value * len(cuts) for value in of[1:]]]
    for order in range(1, orders + 1):
        weights = random_like(of)
        own_weights = [own_part(weight, axis, cuts) for weight, axis in zip(weights, of_axes, strict=True)]
        of = list(torch.autograd.grad(weighted(of, weights), inputs, create_graph=order < orders))
        own_of = list(torch.autograd.grad(weighted(own_of, own_weights), own_inputs, create_graph=order < orders))
        of_axes = axes
        for value, expected, axis in zip(own_of, of, axes, strict=True):
            assert_close(value if axis is not None else summed(value), own_part(expected, axis, cuts))


def compare_all(cuts: Sequence[Sequence[int]]) -> None:
    for index, (name, case) in enumerate(CASES.items()):
        compare(case, cuts[index % len(cuts)], orders=2 if name != "no state" else 1)
    for name in ("b longer", "sections"):
        for cut in cuts:
            compare(CASES[name], cut, orders=2)
        compare(CASES[name], cuts[0], orders=3)


@pytest.mark.parametrize("world", [2, 3])
def test_any_cut(world: int) -> None:
    """Outputs, first and second derivatives, also of parts that are empty or shorter than the order; the third once."""
    generator = np.random.default_rng(world)
    cuts = [(7, 5), (0, 4)] if world == 2 else [(4, 0, 6), (1, 2, 5), (0, 3, 0)]
    random = np.sort(generator.integers(0, 10, world - 1))
    cuts.append(tuple(int(end - start) for start, end in pairwise([0, *random, 9])))
    ranks.run(compare_all, world, cuts)


def low_pass(frequency: float, Q: float) -> tuple[Any, Any]:
    w = 2 * np.pi * frequency
    alpha = np.sin(w) / (2 * Q)
    b = (1 - np.cos(w)) / 2
    return np.array([b, 2 * b, b]) / (1 + alpha), np.array([1 + alpha, -2 * np.cos(w), 1 - alpha]) / (1 + alpha)


def accuracy(cases: Any) -> list[Tensor]:
    rank = dist.get_rank()
    return [getattr(distributed, name)(*coefficients, parts[rank]) for name, coefficients, parts in cases]


def test_as_accurate_as_one_machine() -> None:
    """Poles near the unit circle and near each other, of which powers of the transition lose what they lose."""
    generator = np.random.default_rng(5)
    filters = [
        ("lfilter", low_pass(20 / 48000, 10), 300_000),
        ("lfilter", (np.ones(1), np.poly([0.9999 * np.exp(0.001j), 0.9999 * np.exp(-0.001j)]).real), 300_000),
        ("lfilter", scipy.signal.butter(8, 0.02), 300_000),
        ("lfilter", scipy.signal.butter(8, 0.02), 900),
        ("lfilter", (np.ones(1), np.poly([0.95] * 8)), 3000),
        ("sosfilt", (scipy.signal.butter(16, [0.002, 0.02], "bandpass", output="sos")[::2],), 100_000),
    ]
    cases, whole, errors = [], [], []
    for name, coefficients, samples in filters:
        x = generator.standard_normal(samples)
        exact = getattr(scipy.signal, name)(
            *(np.asarray(c, np.longdouble) for c in coefficients), x.astype(np.longdouble)
        )
        tensors = [torch.from_numpy(np.array(c, float)) for c in coefficients]
        y = getattr(signal, name)(*tensors, torch.from_numpy(x))
        whole.append(exact)
        errors.append(np.abs(y.numpy() - exact))
        cut = samples // 3
        cases.append((name, tensors, list(torch.from_numpy(x).split([cut, cut // 2, samples - cut - cut // 2]))))
    results = ranks.run(accuracy, 3, cases)
    for index, (exact, error) in enumerate(zip(whole, errors, strict=True)):
        y = torch.cat([result[index] for result in results]).numpy()
        own = np.abs(y - exact)
        assert np.sqrt((own**2).mean()) <= 2 * np.sqrt((error**2).mean()), filters[index]
        assert own.max() <= 2 * error.max(), filters[index]


def test_powers_are_exact() -> None:
    """Against 700 bits: every entry to a unit in the last place, of matrices whose powers rise to 1e9."""
    mpmath.mp.prec = 700
    a = scipy.signal.butter(8, 0.02)[1]
    companion = np.diag(np.ones(7), 1)
    companion[:, 0] = -a[1:] / a[0]
    growing = np.diag([1.5, 2.0]) + np.eye(2, k=1)
    for matrix, n in ((companion, 100), (companion, 1000), (companion, 20_000), (growing, 300)):
        exact = mpmath.matrix(matrix.tolist()) ** n
        expected = np.array([[float(exact[i, j]) for j in range(len(matrix))] for i in range(len(matrix))])
        high, low = matrix_power(torch.from_numpy(matrix), n)
        np.testing.assert_allclose(high.numpy(), expected, rtol=1e-15)
        rest = exact - mpmath.matrix(high.tolist()) - mpmath.matrix(low.tolist())
        assert max(abs(value) for value in rest) <= 2.0**-100 * np.abs(expected).max()
    both = torch.from_numpy(np.stack([growing, -growing]))
    assert torch.equal(matrix_power(both, 1)[0], both)
    assert torch.equal(matrix_power(both, 0)[0], torch.eye(2, dtype=DOUBLE).expand(2, 2, 2))
    assert matrix_power(both, 2000)[0].isinf().sum() == 4  # two entries of each overflow, the zeros stay zero
    assert matrix_power(torch.tensor([[1j]], dtype=IMAGINARY), 3)[0].tolist() == [[-1j]]
    assert matrix_power(torch.tensor([[float("nan")]], dtype=DOUBLE), 2)[0].isnan().all()
    assert matrix_power(torch.zeros(0, 2, 2, dtype=DOUBLE), 3)[0].shape == (0, 2, 2)


def numbers() -> None:
    """dtypes, layouts, what is not finite."""
    rank = dist.get_rank()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 40, dtype=DOUBLE, generator=generator)
    b, a = (torch.tensor(c, dtype=DOUBLE) for c in SINGLE)
    sos = torch.cat([torch.tensor([0.5, 0.25, 0.0], dtype=DOUBLE), a]).expand(2, 6)
    part = slice(0, 15) if rank == 0 else slice(15, 40)

    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.complex64):
        narrow = x.to(dtype)
        zi = torch.ones(2, 2, dtype=torch.float32)
        for coefficients in ((b, a), (sos,), (b.float(), a.float())):
            name = "lfilter" if len(coefficients) == 2 else "sosfilt"
            y, zf = getattr(signal, name)(*coefficients, narrow, zi=zi if name == "lfilter" else zi[:, None])
            of_part, of_end = getattr(distributed, name)(
                *coefficients, narrow[:, part], zi=zi if name == "lfilter" else zi[:, None]
            )
            assert of_part.dtype == y.dtype
            assert of_end.dtype == zf.dtype
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(of_part, y[:, part], rtol=2 * eps, atol=2 * eps)
            torch.testing.assert_close(of_end, zf, rtol=1e-6, atol=1e-6)

    with torch.autocast("cpu", torch.bfloat16):
        half = x.to(torch.bfloat16)
        whole, own = half.clone().requires_grad_(), half[:, part].clone().requires_grad_()
        y, of_part = signal.lfilter(b, a, whole), distributed.lfilter(b, a, own)
    assert of_part.dtype == y.dtype == torch.float32
    gradients = torch.autograd.grad(y.sum(), whole) + torch.autograd.grad(of_part.sum(), own)
    torch.testing.assert_close(gradients[1], gradients[0][:, part])

    strided = torch.randn(40, 3, dtype=DOUBLE, generator=generator).t()[::2]
    for values in (strided, x[:1].expand(2, 40)):
        torch.testing.assert_close(distributed.lfilter(b, a, values[:, part]), signal.lfilter(b, a, values)[:, part])
    assert distributed.lfilter(b, a, x[:0, part]).shape == (0, part.stop - part.start)
    of_list = distributed.lfilter(*SINGLE, x[0, part].tolist())
    torch.testing.assert_close(of_list, signal.lfilter(*SINGLE, x[0].tolist())[part])

    for hurt in (float("nan"), float("inf")):
        for place in (3, 20):
            bad = x.clone()
            bad[0, place] = hurt
            y, of_part = signal.lfilter(b, a, bad), distributed.lfilter(b, a, bad[:, part])
            assert torch.equal(of_part.isfinite(), y[:, part].isfinite())
            torch.testing.assert_close(of_part.nan_to_num(0, 0, 0), y[:, part].nan_to_num(0, 0, 0))

    for pole, samples in ((1.1, 3000), (2.0, 600), (2.0, 3000)):  # the last two and a half overflow
        growing = torch.tensor([1.0, -pole], dtype=DOUBLE)
        values = torch.randn(2, samples, dtype=DOUBLE, generator=generator)
        values[1] = 0
        part = slice(0, samples // 3) if rank == 0 else slice(samples // 3, samples)
        y = signal.lfilter([1.0], growing, values)[:, part]
        of_part = distributed.lfilter([1.0], growing, values[:, part])
        assert torch.equal(of_part.isfinite(), y.isfinite())
        finite = y.isfinite()
        torch.testing.assert_close(of_part[finite], y[finite], rtol=1e-11, atol=0)
        assert bool((of_part[1] == 0).all())


def test_numbers() -> None:
    ranks.run(numbers, 2)


def kept(function: Callable[..., Any], *arguments: Tensor) -> int:
    """Bytes that a function's graph keeps, of storages."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*arguments)
    return sum(storages.values())


def calls(function: Callable[[], Any]) -> tuple[dict[str, int], Any]:
    """How often our ops and collectives ran, waiting aside."""
    with profile(activities=[ProfilerActivity.CPU]) as events:
        result = function()
    ops = [event for event in events.key_averages() if event.key.startswith(("torch_iir::", "_c10d_functional::"))]
    return {e.key.split("::")[1]: e.count for e in ops if "wait_tensor" not in e.key}, result


def check_calls(function: Callable[[], Tensor], op: str) -> None:
    """One message and two passes each way, one of them on the first rank; and a sample of silence."""
    forwards, y = calls(function)
    message = {"all_gather_into_tensor": 1, "_chained_states": 1}
    assert forwards == {op: 3 if dist.get_rank() else 2, "_matrix_power": 1, **message}
    backwards, _ = calls(y.sum().backward)
    assert backwards == {f"{op}_backward": 2, **message}


def some_gradients() -> None:
    """Where not all arguments require one; what is kept for it; checkpoints, groups, and what is refused."""
    rank = dist.get_rank()
    case, cuts = CASES["b longer"], (6, 3)
    values = case.arguments(9)
    for needing in ((0,), (1,), (2,), (3,), (0, 1), (1, 3)):
        inputs = [value.clone().requires_grad_(index in needing) for index, value in enumerate(values)]
        own = [value.detach().clone() for value in inputs]
        own[2] = own_part(own[2], -1, cuts)
        own = [value.clone().requires_grad_(index in needing) for index, value in enumerate(own)]
        for used in (0, 1):  # y alone, zf alone
            of = torch.autograd.grad(case.function(signal)(*inputs)[used].sum(), [inputs[i] for i in needing])
            own_of = torch.autograd.grad(case.function(distributed)(*own)[used].sum(), [own[i] for i in needing])
            for index, value, expected in zip(needing, own_of, of, strict=True):
                expected = expected * (2 if used else 1)  # both ranks have zf
                assert_close(
                    value if index == 2 else summed(value), own_part(expected, -1 if index == 2 else None, cuts)
                )

    b, a = (torch.tensor(c, requires_grad=True) for c in SINGLE)
    sos = torch.tensor([[1.0, 0.5, 0.0, 1.0, -0.5, 0.25]] * 3, requires_grad=True)
    x = torch.randn(2, 10_000, requires_grad=True)
    signals = 2 * x.untyped_storage().nbytes()  # x and y
    assert signals <= kept(distributed.lfilter, b, a, x) < signals + 1000
    assert kept(distributed.sosfilt, sos, x) < signals + 2000
    check_calls(lambda: distributed.lfilter(b, a, x), "lfilter")
    check_calls(lambda: distributed.sosfilt(sos, x), "sosfilt")
    assert calls(lambda: distributed.lfilter([2.0], [1.0], x.detach()))[0] == {"lfilter": 1}  # no state, no message

    plain = torch.autograd.grad(distributed.lfilter(b, a, x).square().sum(), (b, a, x))
    y = checkpoint(distributed.lfilter, b, a, x, use_reentrant=False)
    for value, expected in zip(torch.autograd.grad(y.square().sum(), (b, a, x)), plain, strict=True):
        assert torch.equal(value, expected)

    whole = torch.arange(12.0).reshape(2, 6)
    expected = signal.lfilter(*SINGLE, whole)
    mesh = init_device_mesh("cpu", (2,))
    for group in (dist.group.WORLD, mesh, mesh.get_group()):
        y = distributed.lfilter(*SINGLE, whole[:, 3 * rank : 3 * rank + 3], group=group)
        torch.testing.assert_close(y, expected[:, 3 * rank : 3 * rank + 3])
    turned = dist.new_group([1, 0], sort_ranks=False)  # the order of the parts is that of the group
    at = 1 - rank if dist.get_rank(turned) != rank else rank
    y = distributed.lfilter(*SINGLE, whole[:, 3 * at : 3 * at + 3], group=turned)
    torch.testing.assert_close(y, expected[:, 3 * at : 3 * at + 3])
    alone = dist.new_group([0])
    if rank == 0:
        assert calls(lambda: distributed.lfilter(*SINGLE, whole, group=alone))[0] == {"lfilter": 1}
        assert torch.equal(distributed.lfilter(*SINGLE, whole, group=alone), expected)
    else:
        with pytest.raises(TypeError, match="group must be a process group that this rank is in"):
            distributed.lfilter(*SINGLE, whole, group=alone)
    with pytest.raises(ValueError, match="group must be a mesh of one dimension, got 2"):
        distributed.lfilter(*SINGLE, whole, group=init_device_mesh("cpu", (2, 1)))

    with pytest.raises(ValueError, match="zi must be max"):
        distributed.lfilter(*SINGLE, whole, zi=torch.zeros(3))
    with pytest.raises(ValueError, match="zi must hold its values on axis -2"):
        distributed.lfilter(*SINGLE, whole, 0, torch.zeros(2))
    with pytest.raises(ValueError, match=r"a\[..., 0\] must not be zero"):
        distributed.lfilter([1.0], [0.0, 1.0], whole)
    with pytest.raises(ValueError, match=r"sos\[..., 3\] must not be zero"):
        distributed.sosfilt([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]], whole)
    with pytest.raises(ValueError, match="zi must have the shape"):
        distributed.sosfilt([[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]], whole, zi=torch.zeros(2, 1, 2))
    with pytest.raises(TypeError, match="x must be a tensor"):
        distributed.sosfilt([[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]], "whole")
    for module in (torch_iir.distributed._lfilter, torch_iir.distributed._sosfilt):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0

    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(lambda x: distributed.lfilter(*SINGLE, x), (whole,), (whole,))
    with pytest.raises(RuntimeError, match=r"vmap|setup_context"):
        torch.vmap(lambda x: distributed.lfilter(*SINGLE, x))(whole)


def test_gradients_groups_and_errors() -> None:
    ranks.run(some_gradients, 2)


def test_no_group() -> None:
    with pytest.raises(ValueError, match="init_process_group"):
        distributed.lfilter(*SINGLE, torch.ones(3))


def compiled() -> None:
    case = CASES["sections"]
    function = torch.compile(case.function(distributed), backend="aot_eager", fullgraph=True)
    for cuts in ((5, 6), (8, 7), (9, 4)):  # in the second graph T is a symbol
        compare(case, cuts, 1, function)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2

    case = CASES["b longer"]
    function = torch.compile(case.function(distributed), fullgraph=True)
    compare(case, (6, 5), 1, function)
    b, a, x, zi = (value.requires_grad_() for value in case.arguments(11))
    own = own_part(x, -1, (6, 5)).detach().clone().requires_grad_()
    check_calls(lambda: function(b, a, own, zi)[0], "lfilter")


def test_compiled() -> None:
    ranks.run(compiled, 2)
