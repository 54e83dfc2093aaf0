"""freqz and freqz_sos against scipy.signal, and against their definition in long double."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap
from torch.testing import assert_close

import torch_iir.signal._freqz
from torch_iir import design
from torch_iir.signal import freqz, freqz_sos

EPS = torch.finfo(torch.float64).eps
FILTERS: dict[str, tuple[Any, Any]] = {
    "butter 4": scipy.signal.butter(4, 0.2),
    "cheby 5": scipy.signal.cheby1(5, 1, 0.3),
    "a0 = 2": ([1.0, 0.5, 0.2], [2.0, -0.9]),
    "FIR": (scipy.signal.firwin(80, 0.3), 1),
    "a number": (3.0, 2.0),
    "longer than the grid": (np.hanning(1300), [1.0]),
    "complex": ([1.0, 2j], [1.0, -0.5j, 0.2]),
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"worN": None},
    {"worN": 0},
    {"worN": 1},
    {"worN": 7, "include_nyquist": True},
    {"worN": 1, "include_nyquist": True},
    {"worN": 9, "whole": True, "include_nyquist": True},
    {"worN": np.int64(33), "fs": 8000},
    {"worN": np.array(6), "whole": True, "fs": 16000.0},
    {"worN": 0.5},
    {"worN": [0, 1, 2]},
    {"worN": np.linspace(-10.0, 9000.0, 20), "fs": np.float32(8000)},
)
SOS = {
    "butter 5": scipy.signal.butter(5, 0.2, output="sos"),
    "one": scipy.signal.butter(2, 0.1, output="sos"),
    "elliptic": scipy.signal.ellip(8, 1, 60, 0.3, output="sos"),
}


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(torch_iir.signal._freqz)
    assert result.attempted > 8
    assert result.failed == 0


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o))
def test_freqz(name: str, options: dict[str, Any]) -> None:
    """A sum of K terms c_k e^{−jωk} is known to (K + ω K) eps Σ|c|, by us and by scipy; H = B/A follows."""
    b, a = (np.atleast_1d(c) for c in FILTERS[name])
    w, h = freqz(*FILTERS[name], **options)
    expected_w, expected_h = scipy.signal.freqz(*FILTERS[name], **options)
    expected_w = np.real(expected_w)  # complex beside complex coefficients
    assert (w.dtype, h.dtype) == (torch.float64, torch.complex128)
    assert_close(w, torch.from_numpy(np.asarray(expected_w)), rtol=4 * EPS, atol=0)
    omega = 2 * np.pi * expected_w / options.get("fs", 2 * np.pi)
    zm1 = np.exp(-1j * omega)
    bottom = np.abs(np.polyval(a[::-1], zm1))
    errors = [c.size * (1 + np.abs(omega)) * 4 * EPS * np.abs(c).sum() for c in (b, a)]
    bound = (errors[0] + np.abs(expected_h) * errors[1]) / bottom
    assert (np.abs(h.numpy() - expected_h) <= bound).all()


@pytest.mark.parametrize("name", SOS)
@pytest.mark.parametrize("options", [o for o in OPTIONS if "include_nyquist" not in o], ids=lambda o: " ".join(o))
def test_freqz_sos(name: str, options: dict[str, Any]) -> None:
    w, h = freqz_sos(SOS[name], **options)
    expected_w, expected_h = scipy.signal.freqz_sos(SOS[name], **options)
    assert_close(w, torch.from_numpy(np.asarray(expected_w)), rtol=4 * EPS, atol=0)
    # A section errs by some 4 eps Σ|a| / |A|, and |A| is above 1e-2 here: 4e-13, times the number of sections.
    assert_close(h, torch.from_numpy(expected_h), rtol=1e-11, atol=1e-13)


def test_response_is_the_transform_of_the_impulse_response() -> None:
    """No scipy: the sum over the impulse response, which has died out."""
    click = torch.zeros(4096, dtype=torch.float64)
    click[0] = 1
    sos = torch.cat([design.lowpass(16000, 3000.0), design.peaking(16000, 1000.0, 6.0)], -2)
    y = click
    for section in sos:
        y = torch_iir.signal.lfilter(section[:3], section[3:], y)
    _, h = freqz_sos(sos, 2048)
    assert_close(h, torch.fft.rfft(y)[:-1], rtol=0, atol=1e-12)


def exact(c: Any, w: Any) -> Any:
    """Σ_k c_k e^{−jωk} of sections (..., S, K): (..., S, W), in long double.

    Next to z = ±1, which of the two is nearer, c_k (±1)^k is summed apart: there it cancels, and exactly. So does what
    is symmetric, with k counted from the middle.
    """
    c = np.asarray(c, np.result_type(c, np.longdouble))
    w = np.asarray(w, np.longdouble)[..., None, :]
    k = np.arange(c.shape[-1])
    middle = np.longdouble(c.shape[-1] - 1) / 2
    from_pi = w - np.pi - np.longdouble("1.2246467991473531772e-16")  # what np.pi lacks
    parts = []
    for near, angle in ((c, w), (c * (-1) ** k, from_pi)):
        apart = (k - middle)[:, None] * angle[..., None, :]
        rest = -2 * np.sin(apart / 2) ** 2 - 1j * np.sin(apart)  # e^{−jω(k−middle)} − 1
        parts.append(np.exp(-1j * middle * angle) * (near.sum(-1)[..., None] + (near[..., None] * rest).sum(-2)))
    return np.where(np.abs(w) < 2, *parts)


def exact_sections(b: Any, a: Any, w: Any) -> Any:
    """The response of sections (..., S, K)."""
    return (exact(b, w) / exact(a, w)).prod(-2)


def condition(c: Any, w: Any) -> Any:
    """Σ_k |c_k| / |Σ_k c_k e^{−jωk}|, summed over the sections: what rounding a coefficient moves the response by."""
    return (np.abs(c).sum(-1)[..., None] / np.abs(exact(c, w))).sum(-2)


@pytest.mark.parametrize("order", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["highpass", "lowpass"])
def test_next_to_double_zeros(order: int, kind: str) -> None:
    """Numerators cancel to 1e-16 of their terms, and no digit is lost: only the distant poles have a condition."""
    sos = scipy.signal.butter(order, 0.3, kind, output="sos")
    distance = np.array([1e-8, 1e-6, 1e-4, 1e-2, 0.1])
    w, sign = (distance, 1) if kind == "highpass" else (np.pi - distance, -1)
    assert (sos[:, :3] @ [1, sign, 1] == 0).all()  # zeros at ±1, to the last bit
    _, h = freqz_sos(sos, w)
    expected = exact_sections(sos[:, :3], sos[:, 3:], w)
    assert (np.abs(expected[:2]) < 1e-5**order).all()
    bound = 8 * EPS * (len(sos) + condition(sos[:, 3:], w))
    assert (np.abs(h.numpy() - expected) <= bound * np.abs(expected)).all()
    assert (freqz_sos(sos, [0.0 if kind == "highpass" else math.pi])[1].abs() < 1e-15).all()


@pytest.mark.parametrize("radius", [0.99, 0.9999, 1 - 1e-6, 1 - 1e-9])
@pytest.mark.parametrize("angle", [0.001, 0.003, 1.0, 3.1])
def test_next_to_poles(radius: float, angle: float) -> None:
    """Where A nearly vanishes, the rounding of its coefficients' sum is what is left, and no more."""
    a = np.array([[1.0, -2 * radius * np.cos(angle), radius**2]])
    b = np.array([[1.0, 0.3, 0.2]])
    w = angle + (1 - radius) * np.array([-30.0, -3.0, -1.0, 0.0, 1.0, 3.0, 30.0, 1000.0])
    _, h = freqz_sos(np.concatenate([b, a], -1), w)
    expected = exact_sections(b, a, w)
    bound = 8 * EPS * (1 + condition(b, w) + condition(a, w))
    assert (np.abs(h.numpy() - expected) <= bound * np.abs(expected)).all()


@pytest.mark.parametrize("sections", [1, 2, 7, 64, 301])
def test_many_sections(sections: int) -> None:
    generator = np.random.default_rng(sections)
    freq, gain, q = (generator.uniform(*limits, sections) for limits in ((20, 7900), (-12, 12), (0.5, 5)))
    sos = design.peaking(16000, *(torch.from_numpy(value)[:, None] for value in (freq, gain, q))).squeeze(1)
    sos = sos.reshape(sections, 6) * torch.from_numpy(generator.uniform(0.5, 2, (sections, 1)))  # a0 is not 1
    w = np.linspace(0, np.pi, 33)
    _, h = freqz_sos(sos, w)
    b, a = sos[:, :3].numpy(), sos[:, 3:].numpy()
    expected = exact_sections(b, a, w)
    bound = 8 * EPS * (sections + condition(b, w) + condition(a, w))
    assert (np.abs(h.numpy() - expected) <= bound * np.abs(expected)).all()


@pytest.mark.parametrize(("numerator", "denominator"), [(4, 1), (1, 4), (4, 4), (7, 3), (33, 12), (5000, 2), (2, 700)])
@pytest.mark.parametrize("frequencies", [1, 5, 64])
def test_long_polynomials(numerator: int, denominator: int, frequencies: int) -> None:
    """Every term c_k e^{−jωk} is off by its angle's rounding, ωk eps, and by that of the sum, K eps, at most."""
    generator = np.random.default_rng(numerator)
    b, a = generator.standard_normal(numerator), 0.5 * generator.standard_normal(denominator) / denominator
    a[0] = 2
    w = generator.uniform(-4, 4, frequencies)
    _, h = freqz(b, a, w)
    expected = exact_sections(b[None], a[None], w)
    errors = [c.size * (1 + np.abs(w)) * 4 * EPS * condition(c[None], w) for c in (b, a)]
    assert (np.abs(h.numpy() - expected) <= sum(errors) * np.abs(expected)).all()


def test_every_filter_at_its_own_frequencies() -> None:
    generator = np.random.default_rng(0)
    b, a = generator.standard_normal((4, 1, 3, 3)), 0.3 * generator.standard_normal((5, 3, 3))
    a[..., 0] = 1.5
    w = generator.uniform(0, np.pi, (4, 5, 21))
    sos = np.concatenate(np.broadcast_arrays(b, a), -1)
    _, h = freqz_sos(sos, w)
    expected = exact_sections(b, a, w)
    bound = 8 * EPS * (3 + condition(b, w) + condition(a, w))
    assert h.shape == (4, 5, 21)
    assert (np.abs(h.numpy() - expected) <= bound * np.abs(expected)).all()
    shared = freqz_sos(sos, w[0, 0])[1]
    assert_close(shared[2, 3], freqz_sos(sos[2, 3], w[0, 0])[1], rtol=4 * EPS, atol=0)


@pytest.mark.parametrize("of", ["b", "a", "both"])
def test_complex_sections(of: str) -> None:
    generator = np.random.default_rng(0)
    b, a = generator.standard_normal((2, 4, 3)) + 1j * generator.standard_normal((2, 4, 3))
    a = a * 0.2 + [1.5, 0, 0]
    b, a = (c if of in (name, "both") else c.real for name, c in (("b", b), ("a", a)))
    w = np.linspace(-np.pi, np.pi, 33)
    _, h = freqz_sos(np.concatenate([b, a], -1), w)
    expected = exact_sections(b, a, w)
    bound = 8 * EPS * (4 + condition(b, w) + condition(a, w))
    assert (np.abs(h.numpy() - expected) <= bound * np.abs(expected)).all()


def test_batches() -> None:
    b, a = torch.randn(4, 1, 3).double(), torch.randn(5, 2).double() * 0.3 + torch.tensor([2.0, 0.0]).double()
    w, h = freqz(b, a, 11)
    assert (w.shape, h.shape) == ((11,), (4, 5, 11))
    each = torch.rand(5, 7).double()
    own_w, own_h = freqz(b, a, each)
    assert (own_w.shape, own_h.shape) == ((5, 7), (4, 5, 7))
    for i in range(4):
        for j in range(5):
            assert_close(h[i, j].numpy(), scipy.signal.freqz(b[i, 0].numpy(), a[j].numpy(), 11)[1])
            assert_close(own_h[i, j].numpy(), scipy.signal.freqz(b[i, 0].numpy(), a[j].numpy(), each[j].numpy())[1])
    sos = torch.randn(4, 5, 3, 6).double() * 0.2 + torch.tensor([1.0, 0, 0, 1, 0, 0]).double()
    _, h = freqz_sos(sos, each)
    assert h.shape == (4, 5, 7)
    normal = sos / sos[..., 3:4]  # scipy wants a0 = 1
    normal[..., :3] = sos[..., :3] / sos[..., 3:4]
    assert_close(h[2, 3].numpy(), scipy.signal.freqz_sos(normal[2, 3].numpy(), each[3].numpy())[1])
    assert freqz(b[:0], a, 11)[1].shape == (0, 5, 11)


def test_dtypes() -> None:
    """Tensors decide; what is not a tensor is exact and widens nothing."""
    b, a = (torch.from_numpy(c) for c in scipy.signal.butter(2, 0.002))
    exact = freqz(b.float().double(), a.float().double(), 64)
    for dtype in (torch.float32, torch.complex64):
        w, h = freqz(b.to(dtype), a.float(), 64)
        assert (w.dtype, h.dtype) == (torch.float32, torch.complex64)
        # Rounded once, from double: a sum in float32 would leave nothing of this filter at low frequencies.
        assert_close(h.to(torch.complex128), exact[1].to(torch.complex64).to(torch.complex128), rtol=0, atol=0)
    for ours, expected in (
        (freqz(b.half(), [1.0, -0.5]), torch.complex64),
        (freqz(b.float()), torch.complex64),
        (freqz([1.0], a.bfloat16(), torch.rand(3).double()), torch.complex64),
        (freqz(b.float(), a), torch.complex128),
        (freqz([1, 2], np.float32([1.0, 0.5])), torch.complex128),
        (freqz(torch.tensor([1, 2])), torch.complex128),
        (freqz_sos(torch.ones(1, 6)), torch.complex64),
        (freqz_sos(np.ones((1, 6), np.float32)), torch.complex128),
    ):
        assert (ours[1].dtype, ours[0].dtype) == (expected, expected.to_real())
    w, h = freqz(b.float(), a.float(), torch.tensor(8))
    assert w.shape == h.shape == (8,)
    assert freqz(b.to("meta"), a.to("meta"), [0.1])[1].device.type == "meta"


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    b, a = torch.randn(2, 1, 3), torch.tensor([1.5, -0.9, 0.4])
    return tuple(t.double().requires_grad_() for t in (b, a, torch.tensor([0.0, 0.4, 3.0])))


def test_derivatives() -> None:
    def function(b: Tensor, a: Tensor, w: Tensor) -> Tensor:
        return freqz(b, a, w)[1]

    assert torch.autograd.gradcheck(function, leaves(), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, leaves(), check_fwd_over_rev=True)
    inputs = leaves()
    jacobians = [transform(lambda *p: torch.view_as_real(function(*p)), (0, 1, 2)) for transform in (jacfwd, jacrev)]
    assert_close(jacobians[0](*inputs), jacobians[1](*inputs))
    assert hessian(lambda a: function(inputs[0], a, inputs[2]).abs().sum())(inputs[1]).isfinite().all()


def test_derivatives_of_a_cascade_with_a_zero() -> None:
    """Where one section is 0, the gradient is the product of the others."""
    notch = design.bandreject(16000, 4000.0)  # 0 at π/2, to rounding
    notch = torch.where(notch.abs() < 1e-15, 0.0, notch)
    sos = torch.cat([notch, design.lowpass(16000, 3000.0), design.peaking(16000, 1000.0, 6.0)], -2).requires_grad_()
    w = torch.tensor([0.3, math.pi / 2], dtype=torch.float64, requires_grad=True)
    assert freqz_sos(sos, w)[1][1].abs() < 1e-15
    assert torch.autograd.gradcheck(lambda *p: freqz_sos(*p)[1], (sos, w), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *p: freqz_sos(*p)[1], (sos, w))


def test_vmap() -> None:
    b, a, w = (t.detach() for t in leaves())
    assert_close(vmap(lambda b: freqz(b, a, 9)[1])(b), freqz(b, a, 9)[1])
    assert_close(vmap(lambda w: freqz(b, a, w[None])[1])(w), freqz(b, a, w)[1].movedim(-1, 0)[..., None])
    sos = torch.randn(4, 3, 6).double()
    assert_close(vmap(lambda s: freqz_sos(s, 9)[1])(sos), freqz_sos(sos, 9)[1])


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(dynamic: bool) -> None:
    b, a, w = leaves()
    sos = torch.randn(2, 3, 6).double()
    for function, args in (
        (lambda b, a: freqz(b, a), (b, a)),
        (lambda b: freqz(b, [1.0, -0.5], 100, fs=8000.0, include_nyquist=True), (b,)),
        (lambda b, a, w: freqz(b, a, w), (b, a, w)),
        (lambda b, a: freqz(b, a, [0.1, 0.2]), (b.detach().float(), a.detach().float())),
        (lambda sos: freqz_sos(sos, 64, True), (sos,)),
    ):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        assert_close(compiled(*args), function(*args))


def test_a_fit_compiled_by_inductor() -> None:
    """The gradient of a distance in dB, through a design."""

    def loss(freq: Tensor) -> Tensor:
        _, h = freqz_sos(design.peaking(16000, freq, 6.0), 64)
        return h.abs().log10().square().mean()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        freq = torch.tensor([500.0, 3000.0], requires_grad=True)
        function(freq).backward()
        results.append(freq.grad)
    assert_close(results[1], results[0])


def real_parts(h: Tensor) -> Tensor:
    """What a graph may do with a response: Inductor has no complex arithmetic."""
    return torch.view_as_real(h)


@pytest.mark.parametrize(
    "function",
    [
        lambda b, a, w: freqz(b, a)[1],
        lambda b, a, w: real_parts(freqz(b, a, 100, fs=8000.0)[1]),
        lambda b, a, w: real_parts(freqz(b, a, w)[1]),
        lambda b, a, w: real_parts(freqz_sos(torch.cat([b, a], -1), w)[1]),
    ],
)
def test_inductor_has_nothing_to_warn_of(function: Callable[..., Tensor]) -> None:
    """Forward, and backward where the graph's result is real."""
    inputs = torch.randn(4, 3), torch.randn(4, 3) * 0.1 + torch.tensor([1.0, 0, 0]), torch.rand(10)

    def values(function: Callable[..., Tensor]) -> list[Tensor]:
        h = function(*inputs)
        if h.is_complex():
            return [h]
        leaves = [t.clone().requires_grad_() for t in inputs]
        return [h, *torch.autograd.grad(function(*leaves).square().sum(), leaves, allow_unused=True)]

    expected = values(function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch's own, as it imports Inductor
        results = values(torch.compile(function, fullgraph=True))
    for result, target in zip(results, expected, strict=True):
        assert (result is None) == (target is None)
        if result is not None:
            assert_close(result, target)


B, A, S = torch.tensor([1.0, 0.5]), torch.tensor([1.0, -0.5]), torch.ones(2, 6)

WRONG_CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "negative": (lambda: freqz(B, A, -1), ValueError, "worN must not be negative, got -1"),
    "fs": (lambda: freqz(B, A, fs=0), ValueError, "fs must be positive and finite, got 0"),
    "NaN fs": (lambda: freqz_sos(S, fs=math.nan), ValueError, "fs must be positive and finite, got nan"),
    "fs None": (lambda: freqz(B, A, fs=None), TypeError, "fs must be a number, got None"),
    "fs tensor": (lambda: freqz(B, A, fs=torch.ones(2)), TypeError, "fs must be a number"),
    "complex worN": (lambda: freqz(B, A, [1j]), TypeError, "worN must be real, got torch.complex128"),
    "string worN": (lambda: freqz(B, A, "8"), TypeError, "worN must be a tensor"),
    "string": (lambda: freqz("b", A), TypeError, "b must be a tensor, a number, .* got 'b'"),
    "None": (lambda: freqz(B, None), TypeError, "a must be a tensor.* got NoneType"),
    "empty b": (lambda: freqz(B[:0], A), ValueError, "b must have at least one coefficient"),
    "empty a": (lambda: freqz(B, []), ValueError, "a must have at least one coefficient"),
    "batches": (
        lambda: freqz(torch.ones(3, 2), torch.ones(4, 2), 8),
        ValueError,
        r"must broadcast together, got worN \[8\], b \[3, 2\], a \[4, 2\]",
    ),
    "worN batch": (lambda: freqz(torch.ones(3, 2), A, torch.ones(4, 8)), ValueError, "must broadcast together"),
    "devices": (lambda: freqz(B, A.to("meta")), ValueError, "a must be on the device of worN"),
    "worN device": (lambda: freqz(B, A, torch.ones(3, device="meta")), ValueError, "worN is on meta, b on cpu"),
    "sos": (lambda: freqz_sos(torch.ones(6)), ValueError, r"sos must have the shape \(..., S, 6\)"),
    "sos of 5": (lambda: freqz_sos(torch.ones(2, 5)), ValueError, r"sos must have the shape .* got sos \[2, 5\]"),
    "no section": (lambda: freqz_sos(torch.ones(0, 6)), ValueError, "S at least 1"),
    "sos batch": (lambda: freqz_sos(torch.ones(3, 2, 6), torch.ones(4, 8)), ValueError, "must broadcast together"),
    "string sos": (lambda: freqz_sos("sos"), TypeError, "sos must be a tensor"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("name", ["negative", "fs", "string", "batches", "sos"])
def test_wrong_calls_under_compile(name: str) -> None:
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        torch.compile(call, backend="aot_eager")()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=kind.__name__):
        torch.compile(call, backend="aot_eager", fullgraph=True)()


def test_poles_on_the_circle_are_not_numbers() -> None:
    _, h = freqz([1.0], [1.0, -1.0], [0.0, 1.0])
    assert not h[0].isfinite()
    assert h[1].isfinite()
