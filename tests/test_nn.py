"""The modules: what they compute, their streams, and what PyTorch does with a module."""

from __future__ import annotations

import copy
import doctest
import io
import math
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.testing import assert_close

import torch_iir
import torch_iir.nn._bank
import torch_iir.nn._eq
import torch_iir.nn._lfilter
import torch_iir.nn._sos
from torch_iir import design, signal
from torch_iir.nn import BiquadBank, LFilter, ParametricEQ, SOSFilter

Module = LFilter | SOSFilter | BiquadBank | ParametricEQ

MAKE: dict[str, Callable[..., Module]] = {
    "reflection": lambda **options: LFilter.from_coefficients(*scipy.signal.butter(3, 0.2), **options),
    "sections": lambda **options: LFilter.from_coefficients(*scipy.signal.butter(4, 0.3), form="sections", **options),
    "SOSFilter": lambda **options: SOSFilter.from_sos(scipy.signal.butter(6, 0.1, output="sos"), **options),
    "BiquadBank": lambda **options: BiquadBank(5, 8000, dtype=torch.float64, **options),
    "ParametricEQ": lambda **options: ParametricEQ(8000, 4, gain=[6, -3, 9, 2], dtype=torch.float64, **options),
}
every_module = pytest.mark.parametrize("name", MAKE)


@pytest.mark.parametrize(
    "module",
    [torch_iir.nn._bank, torch_iir.nn._eq, torch_iir.nn._lfilter, torch_iir.nn._sos],
    ids=lambda module: module.__name__,
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# --- what they compute


@pytest.mark.parametrize(
    "module",
    [
        *(LFilter(order, form) for order in (1, 2, 5, 8) for form in ("reflection", "sections")),
        LFilter(3, "sections", max_radius=0.1),
        *(SOSFilter(sections) for sections in (1, 2, 7)),
        SOSFilter(2, shape=(2,), max_radius=0.3),
        ParametricEQ(16000),
        ParametricEQ(48000, 1, shelves=False),
    ],
    ids=repr,
)
def test_they_start_as_identity(module: Module) -> None:
    x = torch.randn(2, 50)
    # Numerator and denominator are rounded to float32, and unlike; soft poles make nothing much larger.
    assert_close(module(x), x, rtol=0, atol=20 * torch.finfo(torch.float32).eps * float(x.abs().max()))


FILTERS = {
    "butter 4": scipy.signal.butter(4, 0.2),
    "highpass 5": scipy.signal.butter(5, 0.3, "high"),
    "cheby 3": scipy.signal.cheby1(3, 1, 0.3),
    "elliptic 6": scipy.signal.ellip(6, 1, 40, 0.4),
    "a0 = 2": (np.array([1.0, 0.5, 0.2]), np.array([2.0, -0.9, 0.3])),
    "b longer": (np.array([1.0, 0.5, 0.2, 0.1]), np.array([1.0, -0.9])),
    "a longer": (np.array([1.0]), np.array([1.0, -0.9, 0.4])),
    "FIR": (np.array([0.2, 0.3, 0.5]), np.array([1.0])),
    "gain": (np.array([3.0]), np.array([2.0])),
    "real poles": (np.array([1.0]), np.poly([0.9, -0.5, 0.3])),
    "double pole": (np.array([1.0]), np.poly([0.9, 0.9])),
    "low": (np.array([1.0]), np.poly([0.9999 * np.exp(0.002j), 0.9999 * np.exp(-0.002j)]).real),
}


@pytest.mark.parametrize("form", ["reflection", "sections"])
@pytest.mark.parametrize("name", FILTERS)
def test_from_coefficients(name: str, form: str) -> None:
    b, a = FILTERS[name]
    options = {"max_radius": 0.99999} if name == "low" else {}
    module = LFilter.from_coefficients(b, a, form, **options)
    found_b, found_a = module.coefficients()
    assert found_b.dtype == found_a.dtype == module.numerator.dtype == torch.float64
    n = module.order + 1
    pad = np.pad
    # As sections the poles are found first; where they meet, they are found to a root of epsilon, their product to
    # epsilon times what np.roots loses.
    rtol = 1e-11 if form == "reflection" else 1e-9
    assert_close(found_b.detach().numpy(), pad(b / a[0], (0, n - len(b))), rtol=1e-15, atol=0)
    assert_close(found_a.detach().numpy(), pad(a / a[0], (0, n - len(a))), rtol=rtol, atol=rtol)
    x = torch.randn(3, 200, dtype=torch.float64)
    assert_close(module(x), signal.lfilter(b, a, x), rtol=1e-5 if name == "low" else 1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["reflection", "sections"])
def test_filters_with_leading_dimensions(form: str) -> None:
    a = torch.from_numpy(np.stack([np.poly([0.5, r, -r]) for r in (0.2, 0.6, 0.8)]))
    b = torch.randn(2, 1, 3)
    module = LFilter.from_coefficients(b, a, form)
    assert (module.shape, module.order) == ((2, 3), 3)
    x = torch.randn(4, 1, 3, 40)
    assert_close(module(x), signal.lfilter(b, a, x))
    sos = SOSFilter.from_sos(torch.from_numpy(np.stack([scipy.signal.butter(4, f, output="sos") for f in (0.1, 0.3)])))
    assert (sos.shape, sos.n_sections) == ((2,), 2)
    assert_close(sos(x[:, :, :2]), signal.sosfilt(sos.sos(), x[:, :, :2]))
    assert sos.response(7).shape == (2, 7)
    for module in (LFilter(2, form, shape=(3,)), SOSFilter(2, shape=(3,))):
        assert module(x).shape == (4, 1, 3, 40)
        assert module(x[0, 0, 0]).shape == (3, 40)


@pytest.mark.parametrize(
    ("order", "cutoff"), [(2, 0.001), (4, 0.1), (12, 0.05), (7, 0.5)], ids=lambda value: str(value)
)
def test_from_sos(order: int, cutoff: float) -> None:
    sos = scipy.signal.butter(order, cutoff, output="sos")
    sos[0] *= 2  # a0 is divided out
    module = SOSFilter.from_sos(sos)
    expected = torch.from_numpy(sos / sos[:, 3:4])
    # 1 − k of a reflection coefficient is found to epsilon / (1 − k), and so is what is 1e-6 near 1.
    assert_close(module.sos().detach(), expected, rtol=1e-9, atol=1e-12)
    x = torch.randn(2, 500, dtype=torch.float64)
    assert_close(module(x), signal.sosfilt(expected, x), rtol=1e-6, atol=1e-9)


def test_dtype_and_device_of_parameters() -> None:
    b, a = [1.0], [1.0, -0.5]
    assert LFilter.from_coefficients(b, torch.tensor(a)).numerator.dtype == torch.float64  # a number is a double
    assert LFilter.from_coefficients(torch.tensor(b), torch.tensor(a)).numerator.dtype == torch.float32
    assert LFilter.from_coefficients(b, a, dtype=torch.float16).raw_denominator.dtype == torch.float16
    assert SOSFilter.from_sos([[1.0, 0, 0, 1, 0, 0]], dtype=torch.float32).numerator.dtype == torch.float32
    with torch.device("meta"):
        for module in (LFilter(3), LFilter(3, "sections"), SOSFilter(2), BiquadBank(3), ParametricEQ(16000)):
            assert {p.device.type for p in module.parameters()} == {"meta"}
            assert {p.dtype for p in module.parameters()} == {torch.float32}
            assert module(torch.empty(4, 10)).device.type == "meta"


@pytest.mark.parametrize("spacing", ["mel", "log", "linear"])
@pytest.mark.parametrize("n_filters", [1, 2, 40])
def test_bank_starts_as_bands(spacing: str, n_filters: int) -> None:
    rate, low, high = 16000, 100.0, 6000.0
    bank = BiquadBank(n_filters, rate, f_min=low, f_max=high, spacing=spacing, dtype=torch.float64)
    scale = {"mel": lambda f: np.log1p(f / 700), "log": np.log, "linear": lambda f: f}[spacing]
    back = {"mel": lambda m: 700 * np.expm1(m), "log": np.exp, "linear": lambda f: f}[spacing]
    edges = back(np.linspace(scale(low), scale(high), 2 * n_filters + 1))
    middles, widths = edges[1::2], edges[2::2] - edges[:-2:2]
    fine = torch.linspace(1, rate / 2 - 1, 200_000, dtype=torch.float64)
    power = bank.response(2 * math.pi * fine / rate).abs().square().detach().numpy()
    for response, middle, width in zip(power, middles, widths, strict=True):
        assert response.max() == pytest.approx(1, abs=1e-4)
        assert fine[response.argmax()] == pytest.approx(middle, abs=1)
        above = fine[response > 0.5]
        assert above[-1] - above[0] == pytest.approx(width, abs=1)
    assert bank(torch.randn(3, 2, 50)).shape == (3, 2, n_filters, 50)


def test_bank_is_lfilter() -> None:
    bank, x = BiquadBank(6), torch.randn(2, 100)
    b, a = bank.coefficients()
    assert_close(bank(x), signal.lfilter(b, a, x[:, None]))


def test_equaliser_is_the_designs() -> None:
    knobs = {"frequency": [80.0, 500.0, 3000.0, 9000.0], "gain": [3.0, -6.0, 12.0, -3.0], "Q": [0.5, 2.0, 4.0, 0.7]}
    eq = ParametricEQ(44100, 4, dtype=torch.float64, **knobs)
    for name, values in knobs.items():
        assert_close(getattr(eq, name).tolist(), values, rtol=1e-12, atol=1e-12)
    f, g, q = (torch.tensor(values, dtype=torch.float64) for values in knobs.values())
    sections = [
        design.low_shelf(44100, f[0], g[0], q[0]),
        *(design.peaking(44100, f[i], g[i], q[i]) for i in (1, 2)),
        design.high_shelf(44100, f[3], g[3], q[3]),
    ]
    assert_close(eq.sos(), torch.cat(sections), rtol=1e-12, atol=1e-12)
    x = torch.randn(2, 100)
    assert_close(eq(x), signal.sosfilt(torch.cat(sections), x))
    peaks = ParametricEQ(44100, 4, shelves=False, dtype=torch.float64, **knobs)
    assert_close(peaks.sos(), torch.cat([design.peaking(44100, *knob) for knob in zip(f, g, q, strict=True)]))
    same = ParametricEQ(44100, 3, frequency=1000, gain=3, Q=2, shelves=False)
    assert_close(same.sos(), design.peaking(44100, 1000.0, 3.0, 2.0).expand(3, 1, 6).squeeze(1), rtol=1e-6, atol=1e-6)


@every_module
def test_response(name: str) -> None:
    module = MAKE[name]()
    click = torch.zeros(4096, dtype=torch.float64)
    click[0] = 1
    expected = torch.fft.rfft(module(click))
    assert_close(module.response(2049), expected, rtol=1e-9, atol=1e-9)
    assert_close(
        module.response(torch.tensor([0.0, math.pi / 2], dtype=torch.float64)),
        expected[..., [0, 1024]],
        rtol=1e-9,
        atol=1e-9,
    )
    assert module.response().shape[-1] == 512
    module.response(9).abs().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@every_module
def test_gradients(name: str) -> None:
    module, x = MAKE[name](), torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        result: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(call, (x, *values), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, *values))


# --- wrong calls


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LFilter(0), "order must be at least 1, got 0"),
        (lambda: LFilter(2, "lattice"), "form must be one of reflection, sections; got 'lattice'"),
        (lambda: LFilter(2, max_radius=1.0), "max_radius must lie in .* order 2, got 1.0"),
        (lambda: LFilter(8, max_radius=0.99), "max_radius must lie in .* order 8, got 0.99"),
        (lambda: LFilter(2, max_radius=0.0), "max_radius"),
        (lambda: LFilter(2, max_radius=math.nan), "max_radius"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, -1.0]), "a must be stable"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, 0.0, 1.2]), "a must be stable"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, 0.0, 1.2], "sections"), "a must be stable"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, -0.99995]), "a must have all poles within max_radius = 0.9999"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, -0.99995], "sections"), "a must have all poles within"),
        (lambda: LFilter.from_coefficients([1.0], [0.0, 0.5]), "must be finite"),
        (lambda: LFilter.from_coefficients([math.nan], [1.0, 0.5], "sections"), "must be finite"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, math.nan]), "must be finite"),
        (lambda: LFilter.from_coefficients([], [1.0]), "b must have at least one coefficient"),
        (lambda: SOSFilter(0), "n_sections must be at least 1, got 0"),
        (lambda: SOSFilter(1, max_radius=1.0), "max_radius"),
        (lambda: SOSFilter.from_sos([[1.0, 0, 0, 1, 0, 1.1]]), "sos must be stable"),
        (lambda: SOSFilter.from_sos([[1.0, 0, 0, 1, 0, 0.9999]]), "sos must have all poles within"),
        (lambda: SOSFilter.from_sos([1.0, 0, 0, 1, 0, 0]), r"sos must have the shape \(..., S, 6\)"),
        (lambda: SOSFilter.from_sos([[1.0, 0, 0, 0, 0, 0]]), "must be finite"),
        (lambda: BiquadBank(0), "n_filters must be at least 1, got 0"),
        (lambda: BiquadBank(4, spacing="bark"), "spacing must be one of mel, log, linear; got 'bark'"),
        (lambda: BiquadBank(4, f_max=9000), "f_min and f_max must rise within 0 and sample_rate / 2, got f_min 30.0"),
        (lambda: BiquadBank(4, f_min=0, spacing="log"), r"0 \(excluded\)"),
        (lambda: BiquadBank(4, f_min=200, f_max=100), "f_min and f_max must rise"),
        (lambda: BiquadBank(4, sample_rate=math.nan), "f_min and f_max must rise"),
        (lambda: BiquadBank(4, f_min=100, f_max=101), "bands must have all poles within max_radius"),
        (lambda: ParametricEQ(0), "sample_rate must be positive and finite, got 0"),
        (lambda: ParametricEQ(16000, 1), "n_bands must be at least 2 with shelves, got 1"),
        (lambda: ParametricEQ(16000, 0, shelves=False), "n_bands must be at least 1, got 0"),
        (lambda: ParametricEQ(16000, frequency_range=(0, 100)), "frequency_range must be two rising numbers between 0"),
        (lambda: ParametricEQ(16000, frequency_range=(100, 8000)), "frequency_range must be .* and 8000, got"),
        (lambda: ParametricEQ(16000, gain_range=(6, -6)), "gain_range must be two rising numbers"),
        (lambda: ParametricEQ(16000, Q_range=(0, 1)), "Q_range must be two rising numbers between 0"),
        (lambda: ParametricEQ(16000, gain=24), r"gain must start between the ends of gain_range = \(-24.0, 24.0\)"),
        (lambda: ParametricEQ(16000, Q=math.nan), "Q must start between"),
        (lambda: ParametricEQ(16000, frequency=[100, 200]), r"frequency must be one number or n_bands = 5, got \[2\]"),
        (lambda: LFilter(2)(torch.tensor(1.0)), "x must have at least one dimension, got a scalar"),
        (lambda: LFilter(2, shape=(3,))(torch.ones(2, 5)), "must broadcast together"),
        (
            lambda: LFilter(2, shape=(3,), stream=True)(torch.ones(2, 5)),
            r"must broadcast together, got \[2\] and \[3\]",
        ),
        (lambda: SOSFilter(2, shape=(3,), stream=True).reset((2,)), "must broadcast together"),
        (lambda: LFilter(2)(torch.ones(2, device="meta")), "on the device of x"),
    ],
)
def test_value_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LFilter.from_coefficients([1j], [1.0]), "b must be real, got torch.complex128"),
        (lambda: LFilter.from_coefficients([1.0], [1.0, 0.5j]), "a must be real, got torch.complex128"),
        (lambda: LFilter(2, dtype=torch.int32), "dtype must be a floating dtype, got torch.int32"),
        (lambda: SOSFilter.from_sos("sos"), "sos must be a tensor"),
        (lambda: LFilter(2)("x"), "x must be a tensor"),
    ],
)
def test_type_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_integers_and_lists_are_signals() -> None:
    module = LFilter.from_coefficients([1.0], [1.0, -0.5])
    expected = torch.tensor([1.0, 0.5, 0.25])
    for x in (np.array([1, 0, 0]), torch.tensor([1, 0, 0])):
        assert_close(module(x), expected)
    assert_close(module([1, 0, 0]), expected.double())  # numbers of Python are doubles


# --- streams

CUTS = ([1, 2, 3, 0, 60, 334], [200, 200], [400])


@every_module
@pytest.mark.parametrize("algorithm", ["automatic", "direct"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_chunks_give_the_whole(name: str, dtype: torch.dtype, algorithm: str) -> None:
    module, x = MAKE[name](stream=True), torch.randn(2, 400).to(dtype)
    whole = MAKE[name]()(x)
    for cuts in CUTS:
        module.reset()
        y = torch.cat([module(chunk) for chunk in x.split(cuts, -1)], -1)
        assert y.dtype == dtype
        assert module.state is not None
        assert module.state.dtype == (torch.complex128 if dtype.is_complex else torch.float64)
        if algorithm == "direct":
            assert torch.equal(y, whole)
        else:
            # Algorithms differ by the rounding of their double precision, which the filters here amplify less than a
            # thousandfold; that can turn the last bit of a result.
            double = 1000 * torch.finfo(torch.float64).eps * float(whole.detach().abs().max())
            assert_close(y, whole, rtol=torch.finfo(dtype).eps, atol=double)


@every_module
def test_gradients_flow_from_chunk_to_chunk_until_detached(name: str) -> None:
    whole, module = MAKE[name](), MAKE[name](stream=True)
    weight = torch.randn(300, dtype=torch.float64)
    x = torch.randn(2, 300, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad((whole(x) * weight).sum(), (x, *whole.parameters()))
    y = torch.cat([module(chunk) for chunk in x.split(100, -1)], -1)
    found = torch.autograd.grad((y * weight).sum(), (x, *module.parameters()))
    assert_close(found, expected, rtol=1e-9, atol=1e-9)

    module.reset()
    parts = []
    for chunk in x.split(100, -1):
        module.detach_state()
        parts.append(module(chunk))
    loss = (torch.cat(parts, -1) * weight).sum()
    (truncated,) = torch.autograd.grad(loss, x, retain_graph=True)
    last = MAKE[name]()
    (alone,) = torch.autograd.grad((last(x[:, 200:]) * weight[200:]).sum(), x)
    assert_close(truncated[:, 200:], alone[:, 200:], rtol=1e-9, atol=1e-9)
    (cut,) = torch.autograd.grad(parts[-1].sum(), x)
    assert (cut[:, :200] == 0).all()


def test_truncated_backpropagation_trains() -> None:
    x = torch.randn(4, 2000)
    target = signal.lfilter([0.5, 0.2, 0.1], [1.0, -1.2, 0.7], x)
    module = LFilter(2, stream=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(60):
        module.reset()
        for chunk, wanted in zip(x.split(500, -1), target.split(500, -1), strict=True):
            module.detach_state()
            optimizer.zero_grad()
            loss = (module(chunk) - wanted).square().mean()
            loss.backward()
            optimizer.step()
    assert float(loss.detach()) < 1e-4 * float(target.square().mean())


def test_parameters_may_change_from_chunk_to_chunk() -> None:
    module, x = SOSFilter(2, stream=True), torch.randn(3, 40)
    first = module(x)
    one = module.sos().detach()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1
    second = module(x)
    y, zf = torch.ops.torch_iir.sosfilt(x, one, torch.zeros(2, 2).double())
    assert torch.equal(first, y)
    assert torch.equal(second, torch.ops.torch_iir.sosfilt(x, module.sos(), zf)[0])


@every_module
def test_another_batch_shape_is_another_signal(name: str) -> None:
    module = MAKE[name](stream=True)
    module(torch.randn(2, 30))
    for shape in ((30,), (1, 30), (3, 30), (2, 2, 30)):
        with pytest.raises(ValueError, match=r"call reset\(\) where a new signal begins"):
            module(torch.randn(shape))
    module.reset()
    assert module.state is None
    x = torch.randn(3, 30)
    assert torch.equal(module(x), MAKE[name]()(x))
    module.reset((4, 2))
    assert module.state is not None
    assert (module.state == 0).all()
    x = torch.randn(4, 2, 30)
    assert torch.equal(module(x), MAKE[name]()(x))


@every_module
def test_state_dict_holds_the_parameters(name: str) -> None:
    module, other, x = MAKE[name](stream=True), MAKE[name](stream=True), torch.randn(3, 50)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    module(x)
    other(torch.randn(2, 50))
    saved = io.BytesIO()
    torch.save(module.state_dict(), saved)
    saved.seek(0)
    assert set(module.state_dict()) == {key for key, _ in module.named_parameters()}
    other.load_state_dict(torch.load(saved))
    MAKE[name]().load_state_dict(module.state_dict())
    other.reset()
    module.reset()
    assert torch.equal(other(x), module(x))
    other.state = module.state  # how a stream goes on elsewhere
    assert torch.equal(other(x), module(x))


@every_module
def test_copies_go_on_by_themselves(name: str) -> None:
    module, x = MAKE[name](stream=True), torch.randn(3, 50)
    module(x)  # its state has a graph
    for other in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert other.state is not None
        assert not other.state.requires_grad
        again = copy.deepcopy(module)
        assert torch.equal(other(x), again(x))
    assert module.state is not None
    assert module.state.requires_grad
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    assert torch.equal(torch.load(saved, weights_only=False)(x), copy.deepcopy(module)(x))


@every_module
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_parameters_of_every_dtype(name: str, dtype: torch.dtype) -> None:
    """Parameters are rounded; what is made of them, and the state, is not."""
    module, x = MAKE[name](stream=True), torch.randn(2, 50)
    with torch.no_grad():
        module(x)
    before = module.state
    assert before is not None
    module.to(dtype)
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert torch.equal(module.state, before)  # type: ignore[arg-type]
    assert module.state.dtype == torch.float64  # type: ignore[union-attr]
    wide = copy.deepcopy(module).double()
    y = module(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, wide(x))
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype and p.grad.isfinite().all() for p in module.parameters())
    module.to("meta")
    assert module.state.device.type == "meta"  # type: ignore[union-attr]
    assert module.state.dtype == torch.float64  # type: ignore[union-attr]


@every_module
def test_inference_and_then_training(name: str) -> None:
    module, x = MAKE[name](stream=True), torch.randn(2, 50)
    whole = MAKE[name]()(x).detach()
    with torch.inference_mode():
        first = module(x[:, :20])
    with torch.no_grad():
        second = module(x[:, 20:30])
        assert not module.state.requires_grad  # type: ignore[union-attr]
    with torch.inference_mode():
        third = module(x[:, 30:40])
    last = module(x[:, 40:])
    assert_close(torch.cat([first, second, third, last], -1).detach(), whole)
    last.square().sum().backward()
    module.detach_state()
    with torch.inference_mode():
        module(x)
    module.detach_state()
    module(x).sum().backward()


# --- what PyTorch does with a module


@every_module
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_stream_has_two_graphs(name: str, dynamic: bool | None) -> None:
    """One for the first chunk, one for those with a state."""
    eager, module, x = MAKE[name](stream=True), MAKE[name](stream=True), torch.randn(6, 2, 100)
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")

    def steps(chunks: Tensor) -> None:
        for chunk in chunks:
            for one, step in ((eager, eager), (module, compiled)):
                one.detach_state()
                step(chunk).square().mean().backward()
            assert_close(module.state, eager.state)

    steps(x[:2])
    with torch.compiler.set_stance("fail_on_recompile"):
        steps(x[2:])
        for one in (eager, module):
            one.reset()
        steps(x)
    assert_close(*([p.grad for p in one.parameters()] for one in (module, eager)))
    with pytest.raises((ValueError, torch._dynamo.exc.Unsupported)):
        compiled(x[0, :1])


def test_compiled_stream_after_reset_has_one_graph() -> None:
    module, x = SOSFilter(2, stream=True), torch.randn(6, 2, 100)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    module.reset((2,))
    compiled(x[0])
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(2):
            for chunk in x:
                module.detach_state()
                compiled(chunk)
            module.reset((2,))


@pytest.mark.parametrize("name", ["BiquadBank", "ParametricEQ"])
def test_compiled_by_inductor(name: str) -> None:
    eager, module, x = MAKE[name](), MAKE[name](stream=True), torch.randn(2, 300)
    compiled = torch.compile(module, fullgraph=True)
    y = torch.cat([compiled(chunk) for chunk in x.split(100, -1)], -1)
    expected = eager(x)
    assert_close(y, expected)
    y.square().mean().backward()
    expected.square().mean().backward()
    assert_close(*([p.grad for p in one.parameters()] for one in (module, eager)), rtol=1e-5, atol=1e-7)


@every_module
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_export(name: str, strict: bool, stream: bool) -> None:
    module, x = MAKE[name](stream=stream), torch.randn(2, 300)
    if stream:
        with pytest.raises(Exception, match=r"call reset\(batch_shape\)"):
            torch.export.export(module, (x,), strict=strict)
        module.reset((2,))
    time = torch.export.Dim("time", min=3)
    program = torch.export.export(module, (x,), dynamic_shapes={"x": {1: time}}, strict=strict)
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    exported = torch.export.load(saved).module()
    y = torch.cat([exported(chunk) for chunk in x.split([100, 50, 150], -1)], -1) if stream else exported(x)
    assert_close(y, MAKE[name]()(x))


@every_module
def test_functional_transforms(name: str) -> None:
    """Gradients for each element of a batch, and an ensemble of modules."""
    module, x = MAKE[name](), torch.randn(3, 40, dtype=torch.float64)
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = functional_call(module, parameters, (x,)).square().mean()
        return result

    each = vmap(grad(loss), (None, 0))(parameters, x)
    for index, one in enumerate(x):
        module.zero_grad()
        module(one).square().mean().backward()
        for key, parameter in module.named_parameters():
            assert_close(each[key][index], parameter.grad, rtol=1e-9, atol=1e-9)

    ensemble: list[Any] = [MAKE[name]() for _ in range(2)]
    with torch.no_grad():
        for parameter in ensemble[1].parameters():
            parameter += 0.1
    stacked, _ = stack_module_state(ensemble)
    y = vmap(lambda p: functional_call(module, p, (x,)))(stacked)
    assert_close(y, torch.stack([one(x) for one in ensemble]))


def test_streams_and_transforms_exclude_each_other() -> None:
    module = LFilter(2, stream=True)
    for call in (lambda: vmap(module)(torch.randn(3, 10)), lambda: grad(lambda x: module(x).sum())(torch.randn(10))):
        with pytest.raises(ValueError, match="stream=True cannot run inside a transform"):
            call()
        assert module.state is None


def test_repr() -> None:
    assert repr(LFilter(8, shape=(2,))) == "LFilter(8, 'reflection', shape=(2,), max_radius=0.959178, stream=False)"
    assert repr(SOSFilter(3, stream=True)) == "SOSFilter(3, max_radius=0.9999, stream=True)"
    assert repr(BiquadBank(40)) == "BiquadBank(40, sample_rate=16000, max_radius=0.9999, stream=False)"
    assert repr(ParametricEQ(48000)) == (
        "ParametricEQ(48000, 5, shelves=True, frequency_range=(20.0, 20000.0), gain_range=(-24.0, 24.0), "
        "Q_range=(0.1, 10.0), stream=False)"
    )
