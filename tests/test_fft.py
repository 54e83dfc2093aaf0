"""torch_iir.fft: transforms as torch.fft has them, and their adjoints, which are their derivatives."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import torch_iir.fft
from torch_iir.ops.fft import RFFT, FFTAdjoint


class Map(NamedTuple):
    """A transform, its adjoint, and torch's; whether it has bins instead of points as its outputs or its inputs."""

    transform: Callable[..., Tensor]
    adjoint: Callable[..., Tensor]
    of_torch: Callable[..., Tensor]
    to_bins: bool = False
    from_bins: bool = False


MAPS = {
    "fft": Map(torch_iir.fft.fft, torch_iir.fft.fft_adjoint, torch.fft.fft),
    "ifft": Map(torch_iir.fft.ifft, torch_iir.fft.ifft_adjoint, torch.fft.ifft),
    "rfft": Map(torch_iir.fft.rfft, torch_iir.fft.rfft_adjoint, torch.fft.rfft, to_bins=True),
    "irfft": Map(torch_iir.fft.irfft, torch_iir.fft.irfft_adjoint, torch.fft.irfft, from_bins=True),
}
NORMS = (None, "backward", "ortho", "forward")
REAL, COMPLEX = (torch.float32, torch.float64), (torch.complex64, torch.complex128)

every_map = pytest.mark.parametrize("name", MAPS)
every_norm = pytest.mark.parametrize("norm", NORMS)


def inputs_of(name: str, *shape: int, double: bool = True, real: bool = False) -> Tensor:
    """What a map takes: complex numbers, unless they have to be real or shall be."""
    dtypes = REAL if real or MAPS[name].to_bins else COMPLEX
    return torch.randn(*shape, dtype=dtypes[double])


def outputs_of(name: str, *shape: int, double: bool = True) -> Tensor:
    """What a map of n points gives: random numbers of the shape, of which the last size is n."""
    *batch, n = shape
    size = n // 2 + 1 if MAPS[name].to_bins else n
    return torch.randn(*batch, size, dtype=(REAL if MAPS[name].from_bins else COMPLEX)[double])


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Re⟨x, y⟩."""
    return (x * y.conj()).real.sum() if x.is_complex() else (x * y).sum()


def matrix(name: str, length: int, n: int, norm: str | None) -> Tensor:
    scale = {None: 0, "backward": 0, "ortho": 1, "forward": 2}[norm]
    return torch.from_numpy(reference.dft_matrix(name, length, n, 2 - scale if name.startswith("i") else scale))


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.fft)
    assert result.attempted > 20
    assert result.failed == 0


def test_signatures_are_those_of_torch() -> None:
    x = inputs_of("fft", 3, 8)
    assert_close(torch_iir.fft.fft(x, 5, 0, "ortho"), torch.fft.fft(x, 5, 0, "ortho"))
    assert_close(torch_iir.fft.irfft(input=x, n=5, dim=-2, norm="ortho"), torch.fft.irfft(x, 5, -2, "ortho"))


@every_norm
@every_map
def test_values_are_those_of_torch(name: str, norm: str | None) -> None:
    """Padded, trimmed, neither; along every dimension; also where real numbers go into a map of complex ones."""
    transform, _, of_torch, *_ = MAPS[name]
    for double in (False, True):
        for real in (False, True):
            x = inputs_of(name, 3, 5, 4, double=double, real=real)
            for dim in (0, 1, -1):
                for n in (None, 1, 2, 3, 4, 5, 6, 7, 12):
                    y, expected = transform(x, n, dim, norm), of_torch(x, n, dim, norm)
                    assert y.is_contiguous()
                    assert_close(y, expected)


@every_norm
@every_map
def test_values_are_those_of_a_dense_matrix(name: str, norm: str | None) -> None:
    """Of which the adjoint is the conjugate transpose."""
    transform, adjoint, _, _, from_bins = MAPS[name]
    for n in range(1, 9):
        for length in range(1, 11):
            dense = matrix(name, length, n, norm)
            x, y = inputs_of(name, 2, length), outputs_of(name, 2, n)
            forward, backward = x.to(dense.dtype) @ dense.T, y.to(dense.dtype) @ dense.conj()
            assert_close(transform(x, n, norm=norm), forward.real if from_bins else forward)
            result = adjoint(y, n, norm=norm, length=length)
            assert result.is_contiguous()
            assert_close(result, backward if x.is_complex() else backward.real)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    name=st.sampled_from(sorted(MAPS)),
    n=st.integers(1, 60),
    length=st.integers(1, 60),
    norm=st.sampled_from(NORMS),
    double=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dot_product_identity(name: str, n: int, length: int, norm: str | None, double: bool, seed: int) -> None:
    """Re⟨F x, y⟩ = Re⟨x, F* y⟩."""
    torch.manual_seed(seed)
    transform, adjoint, *_ = MAPS[name]
    x, y = inputs_of(name, 2, length, double=double), outputs_of(name, 2, n, double=double)
    forward, backward = transform(x, n, norm=norm), adjoint(y, n, norm=norm, length=length)
    # What rounding may do to a transform, relative to its largest value, is some epsilons; then it is summed.
    scale = float(forward.norm() * y.norm() + x.norm() * backward.norm())
    assert float(inner(forward, y) - inner(x, backward)) == pytest.approx(0, abs=8 * torch.finfo(x.dtype).eps * scale)


@every_norm
@every_map
def test_adjoints_are_the_gradients_of_torch(name: str, norm: str | None) -> None:
    _, adjoint, of_torch, *_ = MAPS[name]
    for double in (False, True):
        for n in (1, 2, 5, 8):
            for length in (1, 3, 5, 8, 9):
                x = inputs_of(name, 3, length, double=double).requires_grad_()
                y = outputs_of(name, 3, n, double=double)
                (expected,) = torch.autograd.grad(of_torch(x, n, norm=norm), x, y)
                assert_close(adjoint(y, n, norm=norm, length=length), expected)


@every_map
def test_adjoints_along_every_dimension(name: str) -> None:
    transform, adjoint, *_ = MAPS[name]
    x = inputs_of(name, 3, 4, 5)
    for dim in (0, 1, 2, -1, -2, -3):
        size = x.shape[dim]
        y = outputs_of(name, 2, 2, 7).movedim(-1, dim)
        result = adjoint(y, 7, dim, length=size)
        assert result.is_contiguous()
        assert_close(result, adjoint(y.movedim(dim, -1), 7, length=size).movedim(-1, dim))
        y = outputs_of(name, 7).reshape([-1 if d == dim % 3 else 1 for d in range(3)]).expand_as(transform(x, 7, dim))
        assert_close(inner(transform(x, 7, dim), y), inner(x, adjoint(y, 7, dim, length=size)))


@every_map
def test_defaults_of_the_adjoints(name: str) -> None:
    """n from the size of the input; length without padding or trimming."""
    transform, adjoint, _, to_bins, from_bins = MAPS[name]
    for n in (1, 2, 6, 7):
        y = outputs_of(name, n)
        points = 2 * (n // 2) if to_bins else n
        if points:
            default = adjoint(y)
            assert default.shape[-1] == (points // 2 + 1 if from_bins else points)
            assert_close(default, adjoint(y, points, length=default.shape[-1]))
            assert transform(default, points).shape == y.shape
        assert adjoint(y, n).shape[-1] == (n // 2 + 1 if from_bins else n)


@every_map
def test_derivatives_are_those_of_torch(name: str) -> None:
    """First and second, of complex numbers and of real ones."""
    transform, _, of_torch, *_ = MAPS[name]
    for real in (False, True):
        for n in (4, 5, 9):
            x = inputs_of(name, 2, 6, real=real).requires_grad_()
            v = torch.randn_like(x)
            results = []
            for function in (transform, of_torch):
                y = function(x, n)
                (first,) = torch.autograd.grad((y.abs() ** 3).sum(), x, create_graph=True)
                results.append([first, *torch.autograd.grad(inner(first, v), x)])
            assert_close(*results)


@every_norm
@every_map
def test_gradients_by_finite_differences(name: str, norm: str | None) -> None:
    transform, adjoint, *_ = MAPS[name]
    for n, length in ((5, 3), (4, 6)):
        for function, argument in (
            (lambda x, n=n: transform(x, n, 0, norm), inputs_of(name, length, 2)),
            (lambda y, n=n, m=length: adjoint(y, n, 0, norm, length=m), outputs_of(name, 2, n).mT.contiguous()),
            (lambda x, n=n: transform(x, n, 0, norm), inputs_of(name, length, 2, real=True)),
        ):
            argument.requires_grad_()
            torch.autograd.gradcheck(function, argument, check_forward_ad=True, check_batched_grad=True)
            torch.autograd.gradgradcheck(function, argument, check_fwd_over_rev=True, fast_mode=True)


def test_a_gradient_is_one_node() -> None:
    """Not the transform of a padded, conjugated and scaled copy."""

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        return vjp(lambda x: torch_iir.fft.rfft(x, 12), x)[1](y)[0]

    graph = make_fx(gradient)(inputs_of("rfft", 3, 8), outputs_of("rfft", 3, 12)).graph
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function" and node.users]
    assert [target for target in targets if "torch_iir" in target][-1] == "torch_iir.rfft_adjoint.default"
    assert not [target for target in targets if "fft" in target and "torch_iir" not in target]


@pytest.mark.parametrize("dim", [0, -1])
@every_map
def test_functional_transforms(name: str, dim: int) -> None:
    """hessian, jvp, jacfwd, jacrev, and vmap in front of, behind and in between them, of real signals."""
    transform, adjoint, of_torch, *_ = MAPS[name]

    def loss(function: Callable[..., Tensor], x: Tensor) -> Tensor:
        return (1 + function(x, 6, dim).abs() ** 2).log().sum()

    def ours(x: Tensor) -> Tensor:
        return loss(transform, x)

    def theirs(x: Tensor) -> Tensor:
        return loss(of_torch, x)

    x, v = (torch.randn(3, 5, 4, dtype=torch.float64) for _ in range(2))
    assert_close(hessian(ours)(x[0]), hessian(theirs)(x[0]))
    assert_close(jacrev(jacfwd(ours))(x[0]), hessian(theirs)(x[0]))
    assert_close(jacrev(jacrev(ours))(x[0]), hessian(theirs)(x[0]))
    assert_close(vmap(grad(ours))(x), vmap(grad(theirs))(x))
    assert_close(
        jvp(lambda x: jvp(ours, (x,), (v[0],))[1], (x[0],), (v[1],)),
        jvp(lambda x: jvp(theirs, (x,), (v[0],))[1], (x[0],), (v[1],)),
    )
    for in_dim in (0, 1, 2):
        result = vmap(lambda x: transform(x, 6, dim), in_dim)(x)
        assert_close(result, torch.stack([transform(part, 6, dim) for part in x.unbind(in_dim)]))
    y = outputs_of(name, 3, 4, 6)
    assert_close(vmap(lambda y: adjoint(y, 6, length=5), 1)(y), adjoint(y, 6, length=5).movedim(1, 0))


@every_map
def test_compiles_whole(name: str) -> None:
    """Every size with the same graph, forwards and backwards, with numbers of points that come from other shapes."""
    transform, adjoint, *_ = MAPS[name]

    def function(x: Tensor, y: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        n = like.shape[-1]
        forward = transform(x, n, 0, "ortho")
        backward = adjoint(y, n, norm="forward", length=x.shape[0])
        gradients = torch.autograd.grad([inner(forward, forward), inner(backward, backward)], (x, y))
        return forward, backward, *gradients

    def forward_only(x: Tensor, y: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        n = like.shape[-1]
        return transform(x, n, 0, "ortho"), adjoint(y, n, norm="forward", length=x.shape[0])

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(forward_only, fullgraph=True, dynamic=True, backend=counter)
    for length, n in ((11, 8), (9, 7), (6, 6), (12, 30)):
        x, y = inputs_of(name, length, 2).requires_grad_(), outputs_of(name, 3, n).requires_grad_()
        like = torch.empty(n)
        results = compiled(x, y, like)
        expected = function(x, y, like)
        assert_close(results, expected[:2])
        forward, backward = results
        assert_close(torch.autograd.grad([inner(forward, forward), inner(backward, backward)], (x, y)), expected[2:])
    assert counter.frame_count == 1


@every_map
def test_compiles_with_fixed_sizes_and_gradients_inside(name: str) -> None:
    transform, _, of_torch, *_ = MAPS[name]
    x = torch.randn(3, 7, dtype=torch.float64)

    def power(function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: (function(x, 9).abs() ** 2).sum()

    compiled = torch.compile(grad(power(transform)), fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), grad(power(of_torch))(x))


def test_exports() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch_iir.fft.irfft(torch_iir.fft.rfft(x) * 2, n=x.shape[-1])

    x = torch.randn(3, 8)
    dynamic = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=2)}}
    exported = torch.export.export(Model(), (x,), dynamic_shapes=dynamic)
    for shape in ((3, 8), (4, 11)):
        x = torch.randn(*shape)
        assert_close(exported.module()(x), 2 * x)


def test_what_is_not_a_tensor() -> None:
    """Sequences and arrays; integers become the default dtype, numbers of Python double precision."""
    expected = torch.fft.rfft(torch.arange(5.0))
    for x in (torch.arange(5), np.arange(5), torch.arange(5).to(torch.int8)):
        assert_close(torch_iir.fft.rfft(x), expected)
    assert_close(torch_iir.fft.rfft([0, 1, 2, 3, 4.0]), expected.to(torch.complex128))
    assert_close(torch_iir.fft.fft([1j, 2]), torch.fft.fft(torch.tensor([1j, 2], dtype=torch.complex128)))
    assert_close(torch_iir.fft.fft(torch.tensor([True, False])), torch.ones(2, dtype=torch.complex64))
    assert_close(torch_iir.fft.fft(np.arange(6.0)[::-2]), torch.fft.fft(torch.tensor([5.0, 3, 1], dtype=torch.float64)))


@every_map
def test_views_and_empty_inputs(name: str) -> None:
    transform, adjoint, *_ = MAPS[name]
    x = inputs_of(name, 6, 4, 8)
    expected = transform(x.contiguous(), 7)
    for view in (x.mT.contiguous().mT, x.repeat_interleave(2, -1)[..., ::2], x[:1].expand(6, 4, 8), x.movedim(0, 1)):
        y = transform(view, 7)
        assert y.is_contiguous()
        assert_close(y, transform(view.contiguous(), 7))
        assert_close(adjoint(y, 7), adjoint(y.mT.contiguous().mT, 7))
    assert_close(transform(x, 7), expected)  # nothing is changed
    if x.is_complex():
        assert_close(transform(x.conj(), 7), transform(x.conj().resolve_conj(), 7))
    assert transform(x[:0], 7).shape == (0, *expected.shape[1:])
    assert not transform(x[..., :0], 7).any()
    y = outputs_of(name, 2, 7)
    assert adjoint(y[:0], 7, length=3).shape == (0, 3)
    assert adjoint(y, 7, length=0).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_map
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """float16 where the device has it, and no bfloat16, as torch's FFT."""
    transform, adjoint, *_ = MAPS[name]
    for function in (transform, adjoint):
        with pytest.raises(TypeError, match=r"input must not .*torch's FFT has none"):
            function(torch.ones(8, dtype=dtype))
    if dtype == torch.float16:
        y = transform(torch.ones(8, dtype=dtype, device="meta"))
        assert y.dtype == (torch.float16 if name == "irfft" else torch.complex32)
    else:
        with pytest.raises(TypeError, match="bfloat16"):
            transform(torch.ones(8, dtype=dtype, device="meta"))


X, Y = torch.ones(2, 8), torch.ones(2, 5) + 0j
FFTS = torch_iir.fft


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FFTS.fft("abc"), TypeError, "input must be a tensor"),
        (lambda: FFTS.fft(X[0, 0]), ValueError, r"dim must lie in \[0, 0\) for input of 0 dimensions"),
        (lambda: FFTS.fft(X, dim=2), ValueError, r"dim must lie in \[-2, 2\) for input of 2 dimensions, got 2"),
        (lambda: FFTS.fft(X, dim=1.0), TypeError, "dim must be an integer, got 1.0"),
        (lambda: FFTS.fft(X, n=0), ValueError, "n must be at least 1, got 0"),
        (lambda: FFTS.fft(X, n=4.0), TypeError, "n must be an integer, got 4.0"),
        (lambda: FFTS.fft(X[:, :0]), ValueError, "n must be at least 1, got 0"),
        (lambda: FFTS.irfft(X[:, :1]), ValueError, "n must be at least 1, got 0"),
        (lambda: FFTS.rfft_adjoint(X[:, :1]), ValueError, "n must be at least 1, got 0"),
        (lambda: FFTS.fft(X, norm="none"), ValueError, "norm must be 'backward', 'ortho' or 'forward', got 'none'"),
        (lambda: FFTS.irfft_adjoint(X, norm=["ortho"]), ValueError, "norm must be"),
        (lambda: FFTS.rfft(Y), TypeError, "input must be real, got torch.complex64"),
        (lambda: FFTS.irfft_adjoint(Y), TypeError, "input must be real, got torch.complex64"),
        (lambda: FFTS.fft_adjoint(X, n=7), ValueError, "n must be the size of input in dim, 8, got n 7"),
        (lambda: FFTS.ifft_adjoint(X, n=9, dim=0), ValueError, "n must be the size of input in dim, 2, got n 9"),
        (lambda: FFTS.irfft_adjoint(X, n=14), ValueError, "n must be the size of input in dim, 8, got n 14"),
        (lambda: FFTS.rfft_adjoint(Y, n=10), ValueError, r"n // 2 \+ 1 must be the size of input in dim, 5, got n 10"),
        (lambda: FFTS.rfft_adjoint(Y, n=7), ValueError, r"n // 2 \+ 1 must be the size of input in dim, 5, got n 7"),
        (lambda: FFTS.rfft_adjoint(Y, length=-1), ValueError, "length must be at least 0, got -1"),
        (lambda: FFTS.rfft_adjoint(Y, length=2.5), TypeError, "length must be an integer, got 2.5"),
    ],
)
def test_wrong_arguments_raise(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("op", "args", "message"),
    [
        (RFFT, (X, 0, 0), "n must be at least 1, got 0"),
        (RFFT, (X, 8, 3), "norm must be 0 .*, got 3"),
        (RFFT, (X[0, 0], 8, 0), "input must have at least one dimension"),
        (RFFT, (Y, 8, 0), "input must be real"),
        (RFFT, (X.long(), 8, 0), "input must have a floating or complex dtype"),
        (FFTAdjoint, (X, 8, -1, 0), "length must be at least 0, got -1"),
        (FFTAdjoint, (X, 7, 8, 0), "the last dimension of input must be .* 7, got"),
    ],
)
def test_wrong_arguments_of_the_ops_raise(op: Any, args: tuple[Any, ...], message: str) -> None:
    overload = getattr(torch.ops.torch_iir, op.name).default
    with pytest.raises(RuntimeError, match=message):
        overload(*args)
    with pytest.raises((ValueError, TypeError), match=message):
        overload(args[0].to("meta"), *args[1:])
