"""The op fftconvolve, and signal.fftconvolve and oaconvolve against scipy.signal."""

from __future__ import annotations

import doctest
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import scipy.signal
import torch
from hypothesis import given, settings
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.aot_autograd import aot_function, make_boxed_func
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.testing import assert_close

import torch_iir.signal._fftconvolve
from torch_iir.signal import fftconvolve, oaconvolve

convolve = torch.ops.torch_iir.fftconvolve.default

DTYPES = [torch.float32, torch.float64]
COMPLEX = [torch.complex64, torch.complex128]
HALF = [torch.float16, torch.bfloat16]
MODES = ("full", "same", "valid")
every_mode = pytest.mark.parametrize("mode", MODES)


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def tolerance(y: Tensor, in1: Tensor, in2: Tensor) -> float:
    """What rounding may do: log2 n stages of an FFT each add an epsilon of the norm of what passes through them.

    The norms are those of whole arrays, which no product of rows can exceed.
    """
    points = in1.numel() + in2.numel() + 2
    inside = torch.finfo(torch.promote_types(y.dtype, torch.float32)).eps * (4 + np.log2(points))
    largest = float(np.abs(reference.array(y)).max(initial=0))
    norms = float(in1.to(torch.complex128).norm() * in2.to(torch.complex128).norm())
    return inside * norms + torch.finfo(y.dtype).eps * largest


def assert_near(y: Tensor, expected: Any, in1: Tensor, in2: Tensor) -> None:
    assert tuple(y.shape) == expected.shape
    assert y.is_contiguous()
    assert np.abs(reference.array(y) - expected).max(initial=0) <= tolerance(y, in1, in2)


def compare(in1: Tensor, in2: Tensor, *settings: Any) -> Tensor:
    y = convolve(in1, in2, *settings)
    assert_near(y, reference.fftconvolve(in1, in2, *settings), in1, in2)
    return y


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.signal._fftconvolve)
    assert result.attempted > 8
    assert result.failed == 0


SIZES = (0, 1, 2, 3, 7, 8, 9, 31, 33, 64, 65, 100, 257)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("taps", SIZES)
def test_the_op_around_every_boundary(taps: int, reverse: bool) -> None:
    """All that the sum reaches to, parts of it, and more than that."""
    for samples in SIZES:
        in1, in2 = randn(2, samples), randn(2, taps)
        first = 1 - taps if reverse else 0
        reach = max(samples + taps - 1, 0)
        for start, size in ((first, reach), (first - 3, reach + 7), (first + reach // 3, reach // 2), (first, 1)):
            for dtype in DTYPES:
                assert compare(in1.to(dtype), in2.to(dtype), start, size, reverse).dtype == dtype
        for start in (first + reach, first - 4):  # out of reach
            assert convolve(in1, in2, start, 4, reverse).abs().max() <= tolerance(torch.zeros(0).double(), in1, in2)
        assert convolve(in1, in2, first, 0, reverse).shape == (2, 0)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_signals(reverse: bool) -> None:
    """Where blocks are chosen for speed: one long, both long, a gradient of few taps."""
    for samples, taps, start, size in (
        (30000, 100, 0, 30099),
        (100, 30000, -50, 30099),
        (12000, 9000, 4000, 12000),
        (30000, 29950, -20, 64),
    ):
        in1, in2 = (torch.randn(n, dtype=torch.float32).double() for n in (samples, taps))
        full = scipy.signal.fftconvolve(in1.numpy(), in2.numpy()[::-1] if reverse else in2.numpy())
        at = start + np.arange(size) + (taps - 1 if reverse else 0)
        inside = (at >= 0) & (at < len(full))
        expected = np.where(inside, full[np.where(inside, at, 0)], 0)
        for dtype in DTYPES:
            assert_near(convolve(in1.to(dtype), in2.to(dtype), start, size, reverse), expected, in1, in2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_every_block_size(reverse: bool, dtype: torch.dtype) -> None:
    """Blocks of y, where it is longer than in2, and blocks of in2 else: from the smallest possible on, odd ones too."""
    for samples, taps, start, size in ((40, 5, -2, 50), (40, 7, 3, 7), (50, 31, 0, 9), (3, 20, -4, 25), (20, 20, 5, 1)):
        in1, in2 = randn(2, 1, samples, dtype=dtype), randn(3, taps, dtype=dtype)
        least = min(taps, size)
        for summed in (0, 1, 2, 3):
            for n_fft in (least, least + 1, least + 2, 2 * least + 1, 37, 64, 101, 128):
                if n_fft >= least:
                    compare(in1, in2, start, size, reverse, summed, n_fft)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((), ()),
        ((3,), ()),
        ((), (2, 3)),
        ((2, 1), (3,)),
        ((2, 3), (2, 3)),
        ((2, 1, 3), (4, 1)),
        ((0,), (1,)),
        ((2, 0), ()),
        ((1,), (5, 1, 1, 2)),
    ],
)
def test_broadcasting_and_sums(first: tuple[int, ...], second: tuple[int, ...], reverse: bool) -> None:
    for numbers in (torch.float64, torch.complex128):
        in1, in2 = randn(*first, 9), randn(*second, 4, dtype=numbers)
        batch = torch.broadcast_shapes(first, second)
        for summed in range(1 << len(batch)):
            y = compare(in1, in2, 2, 11, reverse, summed)
            assert y.shape[:-1] == tuple(
                1 if summed >> back & 1 else n for n, back in zip(batch, range(len(batch))[::-1], strict=True)
            )


@pytest.mark.parametrize("second", [*HALF, *DTYPES, *COMPLEX], ids=str)
@pytest.mark.parametrize("first", [*HALF, *DTYPES, *COMPLEX], ids=str)
def test_dtypes(first: torch.dtype, second: torch.dtype) -> None:
    in1, in2 = randn(2, 40, dtype=torch.complex128), randn(7, dtype=torch.complex128)
    in1, in2 = (z.to(dtype) if dtype.is_complex else z.real.to(dtype) for z, dtype in ((in1, first), (in2, second)))
    for reverse in (False, True):
        assert compare(in1, in2, -3, 50, reverse).dtype == torch.promote_types(first, second)
    assert_close(fftconvolve(in1, in2, axes=-1), convolve(in1, in2, 0, 46))
    tensors = [t.detach().requires_grad_() for t in (in1, in2)]
    y = convolve(*tensors, 0, 46)
    gradients = torch.autograd.grad(y, tensors, torch.ones_like(y))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert (gradient.dtype, gradient.shape) == (tensor.dtype, tensor.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_strides_are_honoured(dtype: torch.dtype) -> None:
    in1, in2 = randn(4, 3, 20, dtype=dtype), randn(4, 3, 6, dtype=dtype)
    views: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.mT.contiguous().mT,
        lambda t: t.repeat_interleave(2, -1)[..., ::2],
        lambda t: t.repeat_interleave(2, 0)[::2],
        lambda t: torch.cat([t, t], -1)[..., t.shape[-1] :],
        lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda t: t[:1].expand(t.shape),
        lambda t: t[..., :1].expand(t.shape),
    ]
    if dtype.is_complex:
        views += [torch.conj, lambda t: torch.view_as_complex(torch.view_as_real(t).neg())]
    for first in views:
        for second in views:
            u, v = first(in1), second(in2)
            for reverse in (False, True):
                y = convolve(u, v, 0, 20, reverse)
                assert_close(y, convolve(u.clone(), v.clone(), 0, 20, reverse))
    before = in1.clone(), in2.clone()
    assert convolve(in1, in2, 0, 20).untyped_storage().data_ptr() not in (in1.data_ptr(), in2.data_ptr())
    assert torch.equal(before[0], in1)
    assert torch.equal(before[1], in2)


def test_threads() -> None:
    """Two callers at once; and any number of threads gives the same numbers."""
    jobs = [(randn(8, 5000), randn(k), 0, 5000) for k in (3, 300, 3000)] + [
        (randn(200, 300), randn(200, 9), 0, 300, True, 1)
    ]
    expected = [convolve(*job) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: convolve(*job), jobs * 4))
    for index, result in enumerate(results):
        assert torch.equal(result, expected[index % len(jobs)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [convolve(*job) for job in jobs]
    finally:
        torch.set_num_threads(threads)
    for result, one in zip(expected, alone, strict=True):
        assert_close(result, one, rtol=1e-13, atol=1e-13)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    samples=st.integers(0, 60),
    taps=st.integers(0, 60),
    start=st.integers(-70, 70),
    size=st.integers(0, 80),
    reverse=st.booleans(),
    summed=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_gradients_are_adjoints(
    samples: int, taps: int, start: int, size: int, reverse: bool, summed: int, seed: int
) -> None:
    """Re⟨g, y⟩ = Re⟨gx, x⟩ = Re⟨gh, h⟩, as y is linear in each."""
    torch.manual_seed(seed)
    x, h = randn(2, 1, samples, dtype=torch.complex128), randn(3, taps)
    leaves = [t.clone().requires_grad_() for t in (x, h)]
    y = convolve(*leaves, start, size, reverse, summed)
    g = torch.randn_like(y)
    gradients = torch.autograd.grad(y, leaves, g)
    product = float((g.conj() * y.detach()).real.sum())
    bound = 1e-13 * float((1 + x.norm()) * (1 + h.norm()) * (1 + g.norm()))
    for gradient, argument in zip(gradients, (x, h), strict=True):
        assert float((gradient.conj() * argument).real.sum()) == pytest.approx(product, abs=bound)


SHAPES: list[tuple[Sequence[int], Sequence[int], Any]] = [  # of in1 and in2, and axes
    ((9,), (9,), None),
    ((10,), (4,), None),
    ((3,), (12,), None),
    ((1,), (5,), 0),
    ((2, 9), (2, 5), -1),
    ((9, 1), (4, 3), 0),
    ((2, 9), (2, 5), (1,)),
    ((5, 6), (3, 4), None),
    ((6, 5), (2, 5), [0, 1]),
    ((5, 6), (7, 8), (-1, 0)),
    ((3, 1), (2, 1), None),
    ((4, 2, 6), (3, 2, 2), (0, 2)),
    ((4, 1, 6), (3, 5, 2), (2, 0)),
    ((3, 4, 5), (2, 2, 3), None),
    ((2, 3, 2, 3), (2, 1, 2, 3), (0, 1, 3)),
]


@every_mode
@pytest.mark.parametrize(("first", "second", "axes"), SHAPES, ids=str)
def test_scipy(first: Sequence[int], second: Sequence[int], axes: Any, mode: str) -> None:
    for numbers in ((torch.float64,) * 2, (torch.float32,) * 2, (torch.complex128, torch.float64), COMPLEX):
        in1, in2 = randn(*first, dtype=numbers[0]), randn(*second, dtype=numbers[1])
        for ours, theirs in ((fftconvolve, scipy.signal.fftconvolve), (oaconvolve, scipy.signal.oaconvolve)):
            for u, v in ((in1, in2), (in2, in1)):
                if mode == "same" and u.shape[1:2] == (1,) and axes is not None:
                    continue  # where scipy does not broadcast
                y = ours(u, v, mode, axes)
                assert y.dtype == torch.promote_types(*numbers)
                as_ours = (w.to(y.dtype).numpy() for w in (u, v))  # scipy transforms each in a precision of its own
                expected = theirs(*as_ours, mode, axes)
                assert_near(y, expected, u, v)
        if axes is None:
            as_ours = (w.to(y.dtype).numpy() for w in (in2, in1))
            assert_near(y, scipy.signal.convolve(*as_ours, mode), in1, in2)


@every_mode
def test_dimensions_that_broadcast(mode: str) -> None:
    """Those that are not convolved over, with any number of them."""
    in1, in2 = randn(2, 1, 9), randn(3, 4)
    y = fftconvolve(in1, in2, mode, axes=-1)
    assert y.shape[:-1] == (2, 3)
    for i in range(2):
        for j in range(3):
            assert_near(
                y[i, j].contiguous(), scipy.signal.fftconvolve(in1[i, 0].numpy(), in2[j].numpy(), mode), in1, in2
            )
    assert_close(fftconvolve(in2, in1, mode, axes=2), fftconvolve(in2[None], in1, mode, axes=-1))
    assert_close(fftconvolve(in1, randn(()) * 0 + 2, mode, axes=-1), 2 * in1)


def test_scalars_and_what_is_not_a_tensor() -> None:
    assert_close(fftconvolve(2, 3.0), torch.tensor(6.0, dtype=torch.float64))
    assert_close(fftconvolve(torch.tensor(2.0), torch.tensor(3j)), torch.tensor(6j))
    expected = torch.tensor([1.0, 3, 5, 3])
    assert_close(fftconvolve(torch.tensor([1, 2, 3]), torch.tensor([1, 1])), expected)
    assert_close(fftconvolve([1, 2, 3], [1, 1]), expected.double())
    assert_close(fftconvolve(np.array([3.0, 2, 1])[::-1], torch.ones(2)), expected.double())
    assert_close(fftconvolve(torch.ones(2), np.array([1, 2, 3])), expected)
    assert_close(fftconvolve([1j, 0], [2.0]), torch.tensor([2j, 0], dtype=torch.complex128))


@every_mode
def test_empty_inputs(mode: str) -> None:
    assert fftconvolve(randn(0), randn(4), mode).shape == (0,)
    assert fftconvolve(randn(4), randn(0), mode).shape == (0,)
    assert fftconvolve(randn(0), randn(0), mode).shape == (0,)
    assert fftconvolve(randn(3, 0), randn(4), mode, axes=-1).shape == (3, 0)
    for shapes in (((3, 0), (2, 2)), ((3, 2), (2, 0)), ((0, 3), (3, 3))):
        assert fftconvolve(*(randn(*shape) for shape in shapes), mode).numel() == 0
    sizes = {"full": 8, "same": 5, "valid": 2}
    assert fftconvolve(randn(0, 5), randn(4), mode, axes=-1).shape == (0, sizes[mode])
    assert fftconvolve(randn(5), randn(2, 0, 4), mode, axes=2).shape == (2, 0, sizes[mode])
    x = randn(0).requires_grad_()
    fftconvolve(x, randn(4), mode).sum().backward()
    assert x.grad is not None


@every_mode
@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [((7,), (3,), None), ((2, 1, 5), (3, 3), -1), ((4, 3), (2, 2), None), ((3, 2, 4), (2, 1, 2), (2, 0))],
)
def test_gradients(first: Sequence[int], second: Sequence[int], axes: Any, mode: str) -> None:
    """By finite differences, to second order, forwards over backwards."""
    for dtype in (torch.float64, torch.complex128):
        inputs = randn(*first).requires_grad_(), randn(*second, dtype=dtype).requires_grad_()

        def function(in1: Tensor, in2: Tensor) -> Tensor:
            return fftconvolve(in1, in2, mode, axes)

        torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
        torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True, fast_mode=True)


def by_matrix(in1: Tensor, in2: Tensor) -> Tensor:
    """mode same in one dimension, with a dense matrix: what autograd knows."""
    n, k = in1.shape[-1], in2.shape[-1]
    shift = torch.arange(n)[:, None] + (k - 1) // 2 - torch.arange(n)
    matrix = torch.where((shift >= 0) & (shift < k), in2[..., shift.clamp(0, k - 1)], 0)
    return (matrix @ in1[..., None])[..., 0]


def loss(function: Callable[..., Tensor], in1: Tensor, in2: Tensor) -> Tensor:
    return (1 + function(in1, in2) ** 2).log().sum()


def same(in1: Tensor, in2: Tensor) -> Tensor:
    return fftconvolve(in1, in2, "same", axes=-1)


def test_functional_transforms() -> None:
    in1, in2, d1, d2 = randn(2, 8), randn(3), randn(2, 8), randn(3)

    def ours(in1: Tensor, in2: Tensor) -> Tensor:
        return loss(same, in1, in2)

    def theirs(in1: Tensor, in2: Tensor) -> Tensor:
        return loss(by_matrix, in1, in2)

    assert_close(ours(in1, in2), theirs(in1, in2))
    assert_close(hessian(ours, (0, 1))(in1, in2), hessian(theirs, (0, 1))(in1, in2))
    assert_close(jacrev(jacrev(ours, (0, 1)), (0, 1))(in1, in2), hessian(theirs, (0, 1))(in1, in2))
    assert_close(jvp(ours, (in1, in2), (d1, d2)), jvp(theirs, (in1, in2), (d1, d2)))
    assert_close(
        jvp(lambda u, v: jvp(ours, (u, v), (d1, d2))[1], (in1, in2), (d1, d2)),
        jvp(lambda u, v: jvp(theirs, (u, v), (d1, d2))[1], (in1, in2), (d1, d2)),
    )
    filters = randn(5, 3)
    per_filter = vmap(grad(ours, (0, 1)), (None, 0))(in1, filters)
    assert_close(per_filter, vmap(grad(theirs, (0, 1)), (None, 0))(in1, filters))
    one_by_one = [grad(ours, (0, 1))(in1, taps) for taps in filters]
    assert_close(per_filter, tuple(torch.stack(parts) for parts in zip(*one_by_one, strict=True)))


@every_mode
def test_vmap(mode: str) -> None:
    """Over any dimension of either, one in the other; with axes that are not the last."""
    in1, in2 = randn(5, 6, 4), randn(2, 3, 4)
    for dims in ((2, 2), (2, None), (None, 2)):
        u, v = (t if dim is not None else t[..., 0] for t, dim in zip((in1, in2), dims, strict=True))
        y = vmap(lambda u, v: fftconvolve(u, v, mode), dims)(u, v)
        parts = [fftconvolve(in1[..., i if dims[0] else 0], in2[..., i if dims[1] else 0], mode) for i in range(4)]
        assert_close(y, torch.stack(parts))
    y = vmap(vmap(lambda u, v: fftconvolve(u, v, mode), (1, None)), (None, 1))(in1[0], in2[0])
    assert_close(y, torch.stack([torch.stack([fftconvolve(u, v, mode) for u in in1[0].mT]) for v in in2[0].mT]))


def operators_of(graphs: Sequence[torch.fx.GraphModule]) -> list[str]:
    return [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]


def test_compiles_with_inductor_without_a_word() -> None:
    """Forwards and backwards, in one and in two dimensions; real inputs meet no complex number on the way."""
    in1, in2 = randn(4, 300, dtype=torch.float32), randn(3, 1, 20, dtype=torch.float32)

    def function(in1: Tensor, in2: Tensor) -> Tensor:
        return (fftconvolve(in1, in2, "same", axes=-1).relu() * 2).sum() + fftconvolve(
            in1, in2[0], "valid"
        ).square().sum()

    def values(function: Callable[..., Tensor]) -> list[Tensor]:
        tensors = [t.clone().requires_grad_() for t in (in1, in2)]
        y = function(*tensors)
        return [y.detach(), *torch.autograd.grad(y, tensors)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch's own, as it imports Inductor
        results = values(torch.compile(function, fullgraph=True))
    assert_close(results, values(function), rtol=1e-4, atol=1e-4)


@every_mode
def test_a_convolution_is_one_op(mode: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    for axes in (-1, None):
        graphs.clear()
        in1, in2 = randn(3, 9).requires_grad_(), randn(2, 4).requires_grad_()
        in2 = in2 if axes is None else in2[:1].detach().requires_grad_()
        y = aot_function(lambda u, v, axes=axes: fftconvolve(u, v, mode, axes), keep, keep)(in1, in2)
        y.sum().backward()
        forward, backward = (operators_of([graph]).count("torch_iir.fftconvolve.default") for graph in graphs)
        assert (forward, backward) == (1, 2)
        values = [node.meta["val"] for graph in graphs for node in graph.graph.nodes if "val" in node.meta]
        assert not any(isinstance(value, Tensor) and value.is_complex() for value in values)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("axes", [-1, None])
def test_one_graph_for_all_sizes(mode: str, axes: int | None) -> None:
    counter = CompileCounterWithBackend("aot_eager")

    def function(in1: Tensor, in2: Tensor) -> Tensor:
        return fftconvolve(in1, in2, mode, axes)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for n, k in ((30, 8), (11, 7), (50, 12)):
        tensors = randn(4, n).requires_grad_(), randn(4, k).requires_grad_()
        y, expected = compiled(*tensors), function(*tensors)
        assert_close(y, expected)
        g = torch.randn_like(y)
        assert_close(torch.autograd.grad(y, tensors, g), torch.autograd.grad(expected, tensors, g))
    assert counter.frame_count == 1


@pytest.mark.parametrize("function", [oaconvolve, lambda u, v: fftconvolve(u, v, "same", axes=(-2, -1))])
def test_compiles_with_derivatives_inside(function: Callable[..., Tensor]) -> None:
    in1, in2 = randn(2, 6, 5), randn(2, 3, 2)

    def inside(in1: Tensor, in2: Tensor) -> Any:
        first = grad(lambda u, v: loss(function, u, v), (0, 1))(in1, in2)
        return first, vmap(lambda u, v: jvp(lambda u: function(u[None], v[None]), (u,), (u,)))(in1, in2)

    if function is oaconvolve:
        function = lambda u, v: oaconvolve(u, v, "same", axes=(1, 2))  # noqa: E731
    assert_close(torch.compile(inside, fullgraph=True, backend="aot_eager")(in1, in2), inside(in1, in2))


def test_exports() -> None:
    class Reverb(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.response = torch.nn.Parameter(randn(50))

        def forward(self, x: Tensor) -> Tensor:
            return fftconvolve(x, self.response, axes=-1)[..., : x.shape[-1]]

    model = Reverb()
    sizes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=2)}}
    exported = torch.export.export(model, (randn(3, 100),), dynamic_shapes=sizes)
    assert "torch_iir.fftconvolve.default" in operators_of([exported.graph_module])
    for shape in ((3, 100), (2, 7), (5, 300)):
        x = randn(*shape)
        assert_close(exported.module()(x), model(x))


def test_a_bad_number_stays_in_its_row() -> None:
    x, h = randn(3, 20000), randn(10)
    good = convolve(x, h, 0, 20009)
    x[1, 10000] = torch.nan
    y = convolve(x, h, 0, 20009)
    assert_close(y[::2], good[::2], rtol=0, atol=1e-12)
    assert y[1, 10000:10010].isnan().all()


X, H = torch.ones(2, 8), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("abc", H), TypeError, "in1 must be a tensor"),
        ((X, H, "all"), ValueError, "mode must be 'full', 'same' or 'valid', got 'all'"),
        ((X, H[0]), ValueError, r"as many dimensions, unless axes are given, got in1 \[2, 8\], in2 \[3\]"),
        ((X, 2.0), ValueError, "as many dimensions"),
        ((X, H, "full", 2), ValueError, r"axes must lie in \[-2, 2\) for in1 of 2 dimensions, got 2"),
        ((X[0], H, "full", 2), ValueError, r"axes must lie in \[-2, 2\) for in2 of 2 dimensions, got 2"),
        ((X, H, "full", 1.0), TypeError, "axes must be an integer, got 1.0"),
        ((X, H, "full", []), ValueError, r"axes must be one or more, each of them once, got \[\]"),
        ((X, H, "full", (1, -1)), ValueError, "axes must be one or more, each of them once"),
        ((X, torch.ones(3, 0), "full", 1), ValueError, "axes that are not convolved over must broadcast together"),
        ((X, H[:1].expand(3, 3), "same", -1), ValueError, r"must broadcast together, got in1 \[2, 8\], in2 \[3, 3\]"),
        (
            (X, torch.ones(3, 3), "valid"),
            ValueError,
            r"'valid' one must be as large as the other in all axes, got in1 \[2",
        ),
        ((X, torch.ones(1, 9), "valid"), ValueError, "'valid' one must be as large as the other in all axes"),
        ((X, H.to("meta")), ValueError, "in2 must be on the device of in1"),
    ],
)
def test_wrong_arguments_raise(args: tuple[Any, ...], error: type[Exception], message: str) -> None:
    for function in (fftconvolve, oaconvolve):
        with pytest.raises(error, match=message):
            function(*args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X.long(), H, 0, 8), "in1 must have a floating or complex dtype"),
        ((X, H.bool(), 0, 8), "in2 must have a floating or complex dtype"),
        ((X.sum(), H, 0, 8), "in1 must have"),
        ((X, H.sum(), 0, 8), "in2 must have"),
        ((X, torch.ones(3, 3), 0, 8), "the dimensions before the last must broadcast together"),
        ((X, H, 0, -1), "size must not be negative, got -1"),
        ((X, H, 0, 8, False, 0, -2), "n_fft must not be negative, got -2"),
        ((X, H, 0, 8, False, 0, 2), "n_fft must be 0 or at least the smaller of size and in2's length, 3, got 2"),
        ((X, H, 0, 2, False, 0, 1), "n_fft must be 0 or at least the smaller of size and in2's length, 2, got 1"),
    ],
)
def test_wrong_arguments_of_the_op_raise(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        convolve(*args)
    with pytest.raises((ValueError, TypeError), match=message):
        convolve(*(t.to("meta") if isinstance(t, Tensor) else t for t in args))
