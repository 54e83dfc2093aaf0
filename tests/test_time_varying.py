"""signal.lfilter_tv, and what stands on the same op in torch_iir.functional; and a user's wrong calls."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import torch_iir
import torch_iir.functional._lpc
import torch_iir.signal._lfilter_tv
from torch_iir.demo.timing import peak_bytes
from torch_iir.functional import all_pole_digital_filter, linear_recurrence, sample_wise_lpc
from torch_iir.signal import lfilter, lfilter_tv, lfiltic


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def predictor(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Coefficients without the leading 1 whose magnitudes sum to 0.9: nothing grows, whatever they change to."""
    a = randn(*shape, dtype=dtype)
    return 0.9 * a / a.abs().sum(-1, keepdim=True).clamp(min=1e-3)


def denominator(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Coefficients with an a0 of magnitude 1 to 2, and nothing grows either."""
    return (1 + torch.rand(*shape[:-1], 1)) * torch.cat(
        [torch.ones(*shape[:-1], 1, dtype=dtype), predictor(*shape[:-1], shape[-1] - 1, dtype=dtype)], -1
    )


def difference_equation(b: Tensor, a: Tensor, x: Tensor, zx: Tensor, zy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One row: b (T, Kb), a (T, Ka), x (T,); what is past is newest first. Returns y and what is past afterwards."""
    b, a, x = (value.detach().numpy() for value in (b, a, x))
    past_x, past_y = list(zx.detach().numpy()), list(zy.detach().numpy())
    y = []
    for t in range(len(x)):
        past_x.insert(0, x[t])
        feedback = sum(a[t, k] * past_y[k - 1] for k in range(1, a.shape[-1]))
        past_y.insert(0, (sum(b[t, k] * past_x[k] for k in range(b.shape[-1])) - feedback) / a[t, 0])
        y.append(past_y[0])
    return tuple(torch.from_numpy(np.array(v, x.dtype)) for v in (y, past_x[: len(zx)], past_y[: len(zy)]))


def interpolated(frames: Tensor, period: int, samples: int) -> Tensor:
    """A row for every sample: linear between frames, the last one held."""
    held = torch.cat([frames, frames[..., -1:, :]], -2)
    t = torch.arange(samples)
    weight = (t % period / period).to(frames.dtype)[:, None]
    return (1 - weight) * held[..., t // period, :] + weight * held[..., t // period + 1, :]


@pytest.mark.parametrize(
    "module", [torch_iir.signal._lfilter_tv, torch_iir.functional._lpc], ids=lambda module: module.__name__
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# signal.lfilter_tv


@pytest.mark.parametrize("numerator", [1, 2, 5])
@pytest.mark.parametrize("order", [0, 1, 2, 4])
@pytest.mark.parametrize("samples", [0, 1, 3, 20])
def test_lfilter_tv_is_the_difference_equation(numerator: int, order: int, samples: int) -> None:
    b, a, x = randn(samples, numerator), denominator(samples, order + 1), randn(samples)
    zx, zy = randn(numerator - 1), randn(order)
    y, (past_x, past_y) = lfilter_tv(b, a, x, zi=(zx, zy))
    for result, expected in zip((y, past_x, past_y), difference_equation(b, a, x, zx, zy), strict=True):
        assert_close(result, expected)
        assert result.is_contiguous()
    zeros = torch.zeros_like(zx), torch.zeros_like(zy)
    expected, _, _ = difference_equation(b, a, x, *zeros)
    assert_close(lfilter_tv(b, a, x), expected)
    assert_close(lfilter_tv(b, a, x, zi=(None, None))[0], expected)
    assert_close(lfilter_tv(b, a, x, zi=(zx, None))[0], difference_equation(b, a, x, zx, zeros[1])[0])


@pytest.mark.parametrize("constant", ["both", "b", "a"])
def test_lfilter_tv_with_coefficients_that_do_not_change(constant: str) -> None:
    """As lfilter; a row of coefficients alone, and one with a dimension of 1 for time, hold for all samples."""
    b, a, x = randn(3), denominator(5), randn(2, 30)
    expected = lfilter(b, a, x)
    b_rows = b.expand(30, 3) if constant == "a" else b
    a_rows = a.expand(30, 5) if constant == "b" else a[None]
    assert_close(lfilter_tv(b_rows, a_rows, x), expected)

    zi = randn(2), randn(4)
    y, _ = lfilter_tv(b_rows, a_rows, x, zi)
    assert_close(y, lfilter(b, a, x, zi=lfiltic(b, a, zi[1], zi[0]))[0])


@pytest.mark.parametrize("cuts", [[5], [1, 1, 1, 2], [0, 3, 9], [2, 2, 2, 2, 2]], ids=str)
def test_lfilter_tv_in_pieces(cuts: list[int]) -> None:
    """Also where a piece is shorter than what the filter looks back on."""
    x, b, a = randn(3, 1, 20), randn(2, 20, 5), denominator(20, 4)
    whole, end = lfilter_tv(b, a, x, zi=(None, None))
    pieces, state = [], (None, None)
    for piece in (*cuts, 20 - sum(cuts)):
        at = slice(sum(len(y[0, 0]) for y in pieces), sum(len(y[0, 0]) for y in pieces) + piece)
        y, state = lfilter_tv(b[:, at], a[at], x[..., at], zi=state)
        pieces.append(y)
    assert_close(torch.cat(pieces, -1), whole)
    for last, expected in zip(state, end, strict=True):
        assert_close(last, expected)
    assert [z.shape for z in end] == [(3, 2, 4), (3, 2, 3)]


def test_lfilter_tv_takes_what_lfilter_takes() -> None:
    b, a, x = [[1, 2], [3, 4], [5, 6]], [2, -1], np.arange(6).reshape(2, 3)
    expected = lfilter_tv(torch.tensor(b).double(), torch.tensor([a]).double(), torch.from_numpy(x).double())
    for numerator in (b, tuple(map(tuple, b)), np.array(b), np.array(b)[::-1][::-1], torch.tensor(b)):
        assert_close(lfilter_tv(numerator, a, x), expected.float())
    assert_close(lfilter_tv(b, np.array(a), x.astype(float)), expected)
    assert_close(lfilter_tv([torch.tensor(row) for row in b], a, x.astype(float).tolist()), expected)
    assert_close(lfilter_tv(2, 4.0, randn(5).fill_(3)), torch.full((5,), 1.5).double())
    y, (past_x, past_y) = lfilter_tv(b, a, x, zi=[[1], np.array([[2.0], [3]])])
    assert_close(y[:, 0], torch.tensor([(0 + 2 + 2) / 2, (3 + 2 + 3) / 2]))
    assert (past_x.shape, past_y.shape, past_x.dtype, past_y.dtype) == ((2, 1), (2, 1), torch.float64, torch.float64)


def test_lfilter_tv_broadcasts() -> None:
    x, b, a = randn(4, 1, 1, 9), randn(3, 1, 9, 2), denominator(2, 1, 3)
    zi = randn(4, 3, 1, 1), randn(2, 2)
    y, (past_x, past_y) = lfilter_tv(b, a, x, zi)
    assert (y.shape, past_x.shape, past_y.shape) == ((4, 3, 2, 9), (4, 3, 2, 1), (4, 3, 2, 2))
    for i, j, k in np.ndindex(4, 3, 2):
        results = y[i, j, k], past_x[i, j, k], past_y[i, j, k]
        state = zi[0][i, j, 0], zi[1][k]
        expected = difference_equation(b[j, 0], a[k].expand(9, 3), x[i, 0, 0], *state)
        for result, target in zip(results, expected, strict=True):
            assert_close(result, target)
    assert lfilter_tv(b, a, x[:0]).shape == (0, 3, 2, 9)


# functional.sample_wise_lpc


@pytest.mark.parametrize("order", [0, 1, 2, 5])
@pytest.mark.parametrize("samples", [0, 1, 3, 4, 5, 6, 20])
def test_sample_wise_lpc(order: int, samples: int) -> None:
    x, a, zi = randn(3, samples), predictor(3, samples, order), randn(3, order)
    y, zf = sample_wise_lpc(x, a, zi, True)
    assert (y.shape, zf.shape) == ((3, samples), (3, order))
    ones = torch.ones(samples, 1).double()
    for row in range(3):
        monic = torch.cat([ones, a[row]], -1)
        expected, _, past = difference_equation(ones, monic, x[row], zi[row, :0], zi[row])
        assert_close(y[row], expected)
        assert_close(zf[row], past)
    assert_close(zf, torch.cat([y.flip(-1), zi], -1)[:, :order])
    assert_close(sample_wise_lpc(x, a), sample_wise_lpc(x, a, zi * 0))
    assert y.is_contiguous()
    assert zf.is_contiguous()


def test_sample_wise_lpc_broadcasts() -> None:
    x, a = randn(4, 1, 9), predictor(2, 1, 3)
    y, zf = sample_wise_lpc(x, a, return_zf=True)
    assert (y.shape, zf.shape) == ((4, 2, 9), (4, 2, 3))
    assert_close(y, sample_wise_lpc(x.expand(4, 2, 9), a.expand(4, 2, 9, 3)))
    assert_close(y[1, 1], sample_wise_lpc(x[1, 0], a[1]))
    assert_close(sample_wise_lpc(x[0, 0].numpy(), a[0].tolist(), zi=[0, 0, 0]), y[0, 0])


# functional.all_pole_digital_filter


@pytest.mark.parametrize("order", [0, 1, 4])
@pytest.mark.parametrize(("frames", "period"), [(0, 3), (1, 1), (1, 5), (2, 3), (4, 1), (3, 7)])
@pytest.mark.parametrize("ignore_gain", [False, True])
@pytest.mark.parametrize("more", [0, 1])
def test_all_pole_digital_filter(order: int, frames: int, period: int, ignore_gain: bool, more: int) -> None:
    samples = frames * period
    x, zi = randn(2, samples), randn(2, order)
    a = torch.cat([randn(2, frames + more, 1), predictor(2, frames + more, order)], -1)
    y, zf = all_pole_digital_filter(x, a, period, ignore_gain, zi, True)
    if samples == 0:
        assert (y.shape, zf.shape) == ((2, 0), (2, order))
        assert_close(zf, zi)
        return
    rows = interpolated(a, period, samples)
    drive = x if ignore_gain else rows[..., 0] * x
    expected_y, expected_zf = sample_wise_lpc(drive, rows[..., 1:], zi, True)
    assert_close(y, expected_y)
    assert_close(zf, expected_zf)
    assert_close(all_pole_digital_filter(x, a, period, ignore_gain, 0 * zi), sample_wise_lpc(drive, rows[..., 1:]))


@pytest.mark.parametrize("period", [1, 6])
@pytest.mark.parametrize("sizes", [[2, 3, 4], [1, 1, 1, 6], [8, 1]], ids=str)
def test_all_pole_digital_filter_block_by_block(period: int, sizes: list[int]) -> None:
    """Each block has the first frame of the next as its one frame more; the last has none, and holds."""
    x, a = randn(3, 9 * period), torch.cat([randn(9, 1), predictor(9, 4)], -1)
    whole, end = all_pole_digital_filter(x, a, period, return_zf=True)
    blocks, zf, first = [], None, 0
    for size in sizes:
        frames = a[first : first + size + 1]
        y, zf = all_pole_digital_filter(
            x[:, first * period : (first + size) * period], frames, period, zi=zf, return_zf=True
        )
        blocks.append(y)
        first += size
    assert_close(torch.cat(blocks, -1), whole)
    assert_close(zf, end)


def test_all_pole_digital_filter_with_one_envelope_for_many() -> None:
    x, a = randn(5, 1, 12), torch.cat([randn(2, 3, 1), predictor(2, 3, 2)], -1)
    y = all_pole_digital_filter(x, a, 4)
    assert y.shape == (5, 2, 12)
    assert_close(y[3, 1], all_pole_digital_filter(x[3, 0], a[1], 4))
    assert_close(all_pole_digital_filter(x[3, 0].numpy(), a[1].tolist(), np.int64(4)), y[3, 1])


@pytest.mark.parametrize("backwards", [False, True])
def test_all_pole_digital_filter_makes_nothing_of_the_size_of_its_coefficients(backwards: bool) -> None:
    order, period, frames = 24, 64, 4096
    samples = period * frames
    x = torch.randn(1, samples, requires_grad=backwards)
    a = torch.cat([torch.ones(frames, 1), predictor(frames, order, dtype=torch.float32)], -1).requires_grad_(backwards)

    def call() -> object:
        y = all_pole_digital_filter(x, a, period)
        return torch.autograd.grad(y.sum(), (x, a)) if backwards else y

    call()  # what is made once does not count
    peak = peak_bytes(call)
    if peak is None:
        pytest.skip("the peak of memory cannot be read here")
    assert peak < samples * order * 4 / 4  # the coefficients of all samples, in single precision, are 4 times as much


# functional.linear_recurrence


@pytest.mark.parametrize("dim", [-1, 0, 1, -2, 2])
@pytest.mark.parametrize("samples", [0, 1, 2, 30])
def test_linear_recurrence(dim: int, samples: int) -> None:
    shape = [2, 3, 4]
    shape[dim] = samples
    a, x = torch.rand(shape).double(), randn(*shape)
    h0 = randn(*[size for d, size in enumerate(shape) if d != dim % 3])
    h = linear_recurrence(a, x, h0, dim)
    assert h.is_contiguous()
    assert h.shape == x.shape
    state = h0
    for at, was, value in zip(a.unbind(dim), x.unbind(dim), h.unbind(dim), strict=True):
        state = at * state + was
        assert_close(value, state)
    assert_close(linear_recurrence(a, x, dim=dim), linear_recurrence(a, x, 0.0, dim))


@pytest.mark.parametrize(
    ("a", "x", "h0"),
    [
        ((), (5, 7), ()),
        ((7,), (5, 7), (7,)),
        ((5, 1), (5, 7), (1,)),
        ((5, 7), (1, 7), (7,)),
        ((5, 7), (1, 7), None),
        ((5, 7), (1, 1), (2, 7)),
        ((3, 5, 1), (5, 7), (3, 7)),
        ((3, 1, 1), (5, 7), (7,)),
        ((5, 1), (2, 5, 7), (2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dim", [-1, -2])
def test_linear_recurrence_broadcasts(
    a: tuple[int, ...], x: tuple[int, ...], h0: tuple[int, ...] | None, dim: int
) -> None:
    """As if all were expanded first. The shapes are those for time in the dimension -2."""
    if dim == -1:
        a, x = (tuple(np.swapaxes(np.empty((1,) * (2 - len(shape)) + shape), -1, -2).shape) for shape in (a, x))
    given_a, given_x = torch.from_numpy(np.random.default_rng(0).random(a)), randn(*x)
    state = None if h0 is None else torch.ones(h0).double()
    result = linear_recurrence(given_a, given_x, state, dim)
    initial = torch.zeros(()).double() if state is None else state
    time_last = torch.broadcast_tensors(given_a, given_x)
    batch = torch.broadcast_shapes(time_last[0].movedim(dim, -1).shape[:-1], initial.shape)
    full_a, full_x = (t.movedim(dim, -1).expand(*batch, -1).movedim(-1, dim) for t in time_last)
    assert_close(result, linear_recurrence(full_a, full_x, initial.expand(batch), dim))
    assert result.shape == full_x.shape


def test_linear_recurrence_goes_on() -> None:
    a, x = torch.rand(2, 9).double(), randn(2, 9)
    whole = linear_recurrence(a, x)
    head = linear_recurrence(a[:, :4], x[:, :4])
    assert_close(linear_recurrence(a[:, 4:], x[:, 4:], head[:, -1]), whole[:, 4:])
    assert_close(linear_recurrence([0.5, 0.5, 0.0], [1, 1, 1]), torch.tensor([1.0, 1.5, 1.0], dtype=torch.float64))


# what all four share

T, N, FRAMES, PERIOD = 8, 2, 4, 2


def case(name: str, dtype: torch.dtype = torch.float64, batch: int = 2) -> tuple[Callable[..., Any], list[Tensor]]:
    """A function that returns all its outputs, flat, and arguments of it."""
    x = randn(batch, T, dtype=dtype)
    if name == "lfilter_tv":
        arguments = [randn(T, 2, dtype=dtype), denominator(batch, T, N + 1, dtype=dtype), x]
        arguments += [randn(batch, 1, dtype=dtype), randn(N, dtype=dtype)]

        def function(b: Tensor, a: Tensor, x: Tensor, zx: Tensor, zy: Tensor) -> tuple[Tensor, ...]:
            y, (past_x, past_y) = lfilter_tv(b, a, x, (zx, zy))
            return y, past_x, past_y

        return function, arguments
    if name == "sample_wise_lpc":
        arguments = [x, predictor(batch, T, N, dtype=dtype), randn(batch, N, dtype=dtype)]
        return lambda x, a, zi: sample_wise_lpc(x, a, zi, return_zf=True), arguments
    if name == "all_pole_digital_filter":
        a = torch.cat([randn(FRAMES, 1, dtype=dtype), predictor(FRAMES, N, dtype=dtype)], -1)
        arguments = [x, a, randn(batch, N, dtype=dtype)]
        return lambda x, a, zi: all_pole_digital_filter(x, a, PERIOD, zi=zi, return_zf=True), arguments
    arguments = [torch.rand(T, 1, dtype=dtype), randn(batch, T, 3, dtype=dtype), randn(3, dtype=dtype)]
    return lambda a, x, h0: (linear_recurrence(a, x, h0, dim=1),), arguments


FACES = ("lfilter_tv", "sample_wise_lpc", "all_pole_digital_filter", "linear_recurrence")
every_face = pytest.mark.parametrize("name", FACES)
X_AT = {"lfilter_tv": 2, "sample_wise_lpc": 0, "all_pole_digital_filter": 0, "linear_recurrence": 1}


@every_face
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients(name: str, dtype: torch.dtype) -> None:
    function, arguments = case(name, dtype)
    leaves = [argument.requires_grad_() for argument in arguments]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@every_face
def test_gradients_where_coefficients_are_shared(name: str) -> None:
    """Summed over the samples and the rows that a coefficient serves."""
    function, arguments = case(name)
    arguments[0] = arguments[0][..., :1, :] if name in ("lfilter_tv", "linear_recurrence") else arguments[0]
    if name in ("lfilter_tv", "sample_wise_lpc"):
        arguments[1] = arguments[1][:1, :1]
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)


def test_gradient_of_an_ignored_gain_is_zero() -> None:
    _, (x, a, zi) = case("all_pole_digital_filter")
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(all_pole_digital_filter(x, a, PERIOD, True, zi).sum(), a)
    assert bool((gradient[:, 0] == 0).all())
    assert bool((gradient[:, 1:] != 0).all())


@every_face
@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.complex64, torch.complex64),
    ],
    ids=str,
)
def test_dtypes(name: str, dtype: torch.dtype, wide: torch.dtype) -> None:
    """The dtype of the signal rules; states have at least single precision, and that of their past."""
    function, arguments = case(name, torch.complex128 if dtype.is_complex else torch.float64)
    narrow = [argument.to(dtype) for argument in arguments]
    y, *states = function(*narrow)
    exact, *exact_states = function(*(argument.to(arguments[0].dtype) for argument in narrow))
    assert y.dtype == dtype
    assert_close(y.to(exact.dtype), exact, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    for state, target in zip(states, exact_states, strict=True):
        assert state.dtype == wide
        assert_close(state.to(target.dtype), target, rtol=1e-6, atol=1e-6)

    arguments[X_AT[name]] = arguments[X_AT[name]].to(dtype)  # and all else in double precision
    y, *states = function(*arguments)
    assert y.dtype == dtype
    assert all(state.dtype in (torch.float64, torch.complex128) for state in states)


@every_face
def test_complex_coefficients_make_a_real_signal_complex(name: str) -> None:
    function, arguments = case(name, torch.complex128)
    real = [argument.real for argument in arguments]
    for index, argument in enumerate(arguments):
        mixed = [*real[:index], argument, *real[index + 1 :]]
        y, *_ = function(*mixed)
        assert y.dtype == torch.complex128
        assert_close(y, function(*(value.to(torch.complex128) for value in mixed))[0])
        mixed[X_AT[name]] = mixed[X_AT[name]].to(torch.complex64 if index == X_AT[name] else torch.float32)
        assert function(*mixed)[0].dtype == torch.complex64


def test_past_of_a_real_signal_is_real() -> None:
    _, (past_x, past_y) = lfilter_tv([1.0, 1.0], [1.0, 0.5j], torch.ones(3), zi=(None, None))
    assert (past_x.dtype, past_y.dtype) == (torch.float32, torch.complex64)


@every_face
def test_vmap(name: str) -> None:
    function, arguments = case(name)
    for mapped in [*range(len(arguments)), None]:  # one of the arguments, or all of them
        dims = tuple(0 if mapped in (index, None) else None for index in range(len(arguments)))
        stacked = [
            argument if dim is None else torch.stack([argument, argument / 2, -argument])
            for argument, dim in zip(arguments, dims, strict=True)
        ]
        results = torch.vmap(function, dims)(*stacked)
        for index in range(3):
            expected = function(*(s if d is None else s[index] for s, d in zip(stacked, dims, strict=True)))
            for result, target in zip(results, expected, strict=True):
                assert_close(result[index], target)


@every_face
def test_vmap_of_gradients(name: str) -> None:
    function, arguments = case(name)
    everything = tuple(range(len(arguments)))

    def loss(*arguments: Tensor) -> Tensor:
        return sum(output.square().sum() for output in function(*arguments))  # type: ignore[return-value]

    stacked = [torch.stack([argument, argument / 2]) for argument in arguments]
    results = torch.vmap(torch.func.grad(loss, everything))(*stacked)
    for index in range(2):
        expected = torch.func.grad(loss, everything)(*(argument[index] for argument in stacked))
        for result, target in zip(results, expected, strict=True):
            assert_close(result[index], target)


def with_gradients(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def result(*arguments: Tensor) -> tuple[Tensor, ...]:
        leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
        outputs = function(*leaves)
        return *outputs, *torch.autograd.grad(sum(output.square().sum() for output in outputs), leaves)

    return result


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "aot_eager") for name in FACES), ("all_pole_digital_filter", "inductor")]
)
def test_compiled(name: str, backend: str) -> None:
    function, arguments = case(name)
    compiled = with_gradients(torch.compile(function, fullgraph=True, backend=backend))
    for result, expected in zip(compiled(*arguments), with_gradients(function)(*arguments), strict=True):
        assert_close(result, expected)


@every_face
def test_compiled_once_for_all_lengths(name: str) -> None:
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        nonlocal graphs
        graphs += 1
        return graph

    function, arguments = case(name)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for repeats in (1, 2, 5):
        longer = lengthened(name, arguments, repeats)
        for result, expected in zip(compiled(*longer), function(*longer), strict=True):
            assert_close(result, expected)
    assert graphs == 1


def lengthened(name: str, arguments: list[Tensor], repeats: int) -> list[Tensor]:
    """The same with so many times as many samples."""
    along = {
        "lfilter_tv": (0, 1, 1, None, None),
        "sample_wise_lpc": (1, 1, None),
        "all_pole_digital_filter": (1, 0, None),
        "linear_recurrence": (0, 1, None),
    }[name]
    return [
        argument if dim is None else torch.cat([argument] * repeats, dim)
        for argument, dim in zip(arguments, along, strict=True)
    ]


@every_face
def test_exported(name: str) -> None:
    function, arguments = case(name)

    class Module(torch.nn.Module):
        def forward(self, *arguments: Tensor) -> Any:
            return function(*arguments)

    program = torch.export.export(Module(), tuple(arguments))
    assert any("lfilter_tv" in str(node.target) for node in program.graph.nodes)
    for result, expected in zip(program.module()(*arguments), function(*arguments), strict=True):
        assert_close(result, expected)


def test_is_public() -> None:
    for module, names in ((torch_iir.signal, FACES[:1]), (torch_iir.functional, FACES[1:])):
        for name in names:
            assert name in module.__all__
            assert all(
                part in inspect.getdoc(getattr(module, name)) for part in ("Args:", "Returns:", "Raises:", "Note:")
            )


B, A, X = torch.ones(8, 2), torch.tensor([1.0, -0.5]).expand(8, 2), torch.ones(2, 8)
LPC, POLES = torch.zeros(2, 8, 3), torch.ones(4, 3)

WRONG_CALLS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "b rows": (
        lambda: lfilter_tv(B[:7], A, X),
        ValueError,
        r"the dimension of b before the last must be 1 or the samples of x, 8, got b \[7, 2\], x \[2, 8\]",
    ),
    "a rows": (
        lambda: lfilter_tv(B, A[:2], X),
        ValueError,
        r"of a before the last must be 1 or the samples of x, 8, got a",
    ),
    "batches": (lambda: lfilter_tv(B.expand(3, 8, 2), A, X), ValueError, r"must broadcast together, got x \[2, 8\], b"),
    "empty b": (lambda: lfilter_tv([], A, X), ValueError, r"b must have at least one coefficient, got b \[1, 0\]"),
    "empty a": (
        lambda: lfilter_tv(B, A[:, :0], X),
        ValueError,
        r"a must have at least one coefficient, got a \[8, 0\]",
    ),
    "a0": (lambda: lfilter_tv(B, [0.0, 1.0], X), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "one a0": (lambda: lfilter_tv(B, A * torch.arange(8)[:, None], X), ValueError, r"a\[\.\.\., 0\] must not be zero"),
    "zi": (lambda: lfilter_tv(B, A, X, zi=X), TypeError, r"zi must be a pair \(past x, past y\), got Tensor"),
    "zi of one": (lambda: lfilter_tv(B, A, X, zi=(X,)), ValueError, r"zi must be a pair .* got 1 values"),
    "past x": (
        lambda: lfilter_tv(B, A, X, zi=(X, None)),
        ValueError,
        r"the last dimension of zi\[0\] must be the largest lag of b, 1, got zi\[0\] \[2, 8\], b \[8, 2\]",
    ),
    "past y": (
        lambda: lfilter_tv(B, A, X, zi=(None, X)),
        ValueError,
        r"the last dimension of zi\[1\] must be .* 1, got",
    ),
    "past x batch": (lambda: lfilter_tv(B, A, X, zi=(torch.ones(3, 1), None)), ValueError, "must broadcast together"),
    "past y string": (lambda: lfilter_tv(B, A, X, zi=(None, "0")), TypeError, r"zi\[1\] must be a tensor.* got '0'"),
    "scalar x": (lambda: lfilter_tv(1.0, 1.0, X.sum()), ValueError, "x must have at least one dimension"),
    "string b": (lambda: lfilter_tv("b", A, X), TypeError, "b must be a tensor, a number, .* got 'b'"),
    "devices": (
        lambda: lfilter_tv(B.to("meta"), A, X),
        ValueError,
        "b must be on the device of x: x is on cpu, b on meta",
    ),
    "lpc rows": (
        lambda: sample_wise_lpc(X, LPC[:, :5]),
        ValueError,
        r"of a before the last must .* got a \[2, 5, 3\], x",
    ),
    "lpc vector": (
        lambda: sample_wise_lpc(X, LPC[0, 0]),
        ValueError,
        r"a must have at least 2 dimensions, got a \[3\]",
    ),
    "lpc batches": (
        lambda: sample_wise_lpc(X, LPC[:1].expand(3, 8, 3)),
        ValueError,
        r"must broadcast together, got x \[2, 8\], a \[3, 8, 3\]",
    ),
    "lpc zi": (
        lambda: sample_wise_lpc(X, LPC, torch.ones(2, 2)),
        ValueError,
        r"the last dimension of zi must be the largest lag of a, 3, got zi \[2, 2\], a \[2, 8, 3\]",
    ),
    "lpc string": (lambda: sample_wise_lpc(X, "a"), TypeError, "a must be a tensor"),
    "frames": (
        lambda: all_pole_digital_filter(X, POLES, 3),
        ValueError,
        r"x must have frames · frame_period = 4 · 3 samples \(or one frame_period less.*\), got x \[2, 8\], a \[4, 3\]",
    ),
    "frames, too many": (lambda: all_pole_digital_filter(X, POLES, 4), ValueError, "x must have frames · frame_period"),
    "no frames": (
        lambda: all_pole_digital_filter(X, POLES[:0], 4),
        ValueError,
        "x must have frames · frame_period = 0",
    ),
    "period": (lambda: all_pole_digital_filter(X, POLES, 0), ValueError, "frame_period must be at least 1, got 0"),
    "period type": (
        lambda: all_pole_digital_filter(X, POLES, 2.0),
        TypeError,
        "frame_period must be an integer, got 2.0",
    ),
    "frame": (
        lambda: all_pole_digital_filter(X, POLES[0], 8),
        ValueError,
        r"a must have the shape \(..., frames, M \+ 1\)",
    ),
    "no gain": (lambda: all_pole_digital_filter(X, POLES[:, :0], 2), ValueError, r"the gain first, got a \[4, 0\]"),
    "frames batch": (
        lambda: all_pole_digital_filter(X, POLES.expand(3, 4, 3), 2),
        ValueError,
        r"must broadcast together, got x \[2, 8\], a\[\.\.\., :1\] \[3, 4, 1\]",
    ),
    "frames zi": (
        lambda: all_pole_digital_filter(X, POLES, 2, zi=torch.ones(3)),
        ValueError,
        r"the last dimension of zi must be the largest lag of a\[\.\.\., 1:\], 2, got zi \[3\]",
    ),
    "frames, scalar x": (
        lambda: all_pole_digital_filter(X.sum(), POLES, 2),
        ValueError,
        "x must have at least one dim",
    ),
    "recurrence": (
        lambda: linear_recurrence(torch.ones(3, 8), X),
        ValueError,
        r"a and x must broadcast together, got a \[3, 8\], x \[2, 8\]",
    ),
    "recurrence time": (lambda: linear_recurrence(torch.ones(7), X), ValueError, r"got a \[7\], x \[2, 8\]"),
    "h0": (
        lambda: linear_recurrence(X, X, torch.ones(8)),
        ValueError,
        r"h0, which lacks the dimension -1 of x, must broadcast together, got a \[2, 8\], x \[2, 8\], h0 \[8\]",
    ),
    "h0 along dim": (
        lambda: linear_recurrence(X, X, torch.ones(2), dim=0),
        ValueError,
        "lacks the dimension -2 of x",
    ),
    "dim": (
        lambda: linear_recurrence(X, X, dim=2),
        ValueError,
        r"dim must lie in \[-2, 2\) for x of 2 dimensions, got 2",
    ),
    "dim type": (lambda: linear_recurrence(X, X, dim=0.5), TypeError, "dim must be an integer, got 0.5"),
    "recurrence string": (lambda: linear_recurrence(X, "x"), TypeError, "x must be a tensor"),
    "recurrence scalar": (lambda: linear_recurrence(X, 1.0), ValueError, "x must have at least one dimension"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["b rows", "empty a", "zi", "past x", "lpc zi", "frames", "recurrence", "h0", "dim"])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=kind.__name__):
        torch.compile(call, backend="aot_eager", fullgraph=True)()


def test_nan_stays_in_the_future() -> None:
    x = torch.ones(9)
    x[4] = torch.nan
    for y in (
        lfilter_tv([1.0, 1.0], [1.0, -0.5, 0.2], x),
        sample_wise_lpc(x, torch.full((1, 2), 0.4)),
        all_pole_digital_filter(x, torch.full((3, 3), 0.4), 3),
        linear_recurrence(0.5, x),
    ):
        assert y.isfinite().tolist() == [True] * 4 + [False] * 5
