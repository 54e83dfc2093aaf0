"""functional.melscale_fbanks and transforms.MelScale."""

from __future__ import annotations

import copy
import doctest
import math
import warnings
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import torch_iir.functional._mel
import torch_iir.transforms._mel
from torch_iir.functional import melscale_fbanks
from torch_iir.transforms import MelScale


@pytest.mark.parametrize(
    "module", [torch_iir.functional._mel, torch_iir.transforms._mel], ids=lambda module: module.__name__
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# --- the filterbank

SIZES = [  # n_freqs, f_min, f_max, n_mels, sample_rate; no filter is empty
    (201, 0.0, 8000.0, 40, 16000),
    (513, 0.0, 8000.0, 80, 16000),
    (1025, 0.0, 22050.0, 128, 44100),
    (1025, 30.0, 11000.0, 64, 44100),
    (300, 125.5, 5512.5, 23, 11025),  # an odd rate
    (129, 0.0, 5000.0, 8, 8000),  # beyond half the rate
    (64, 100.0, 900.0, 1, 2000),
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_scale = pytest.mark.parametrize("scale", ["htk", "slaney"])
every_norm = pytest.mark.parametrize("norm", [None, "slaney"])

EPS = torch.finfo(torch.float32).eps


def mel_edges(f_min: float, f_max: float, n_mels: int, scale: str) -> np.ndarray:
    """Where the triangles meet, by interpolation on a fine grid: no formula is inverted."""
    f = np.linspace(0, f_max, 2_000_001)
    if scale == "htk":
        mel = 1127.010480 * np.log1p(f / 700)
    else:
        mel = np.where(f < 1000, f * 0.015, 15 + 27 * np.log(np.maximum(f, 1000) / 1000) / np.log(6.4))
    low, high = np.interp([f_min, f_max], f, mel)
    return np.interp(np.linspace(low, high, n_mels + 2), mel, f)


@every_size
@every_scale
@every_norm
def test_weights_are_interpolated_triangles(
    size: tuple[int, float, float, int, int], scale: str, norm: str | None
) -> None:
    n_freqs, f_min, f_max, n_mels, rate = size
    fb = melscale_fbanks(*size, norm=norm, mel_scale=scale)
    assert fb.shape == (n_freqs, n_mels)
    assert fb.dtype == torch.float32
    assert fb.is_contiguous()
    edges, f = mel_edges(f_min, f_max, n_mels, scale), np.arange(n_freqs) * rate / (2 * n_freqs - 2)
    expected = np.stack([np.interp(f, e, [0, 1, 0]) for e in np.lib.stride_tricks.sliding_window_view(edges, 3)], -1)
    if norm:
        expected /= (edges[2:] - edges[:-2]) / 2
    # The grid's edges are off by 1e-7 of a triangle's width at most; then one rounding to float32.
    assert_close(fb.double(), torch.from_numpy(expected), rtol=EPS, atol=1e-6 * expected.max())


@every_size
@every_scale
def test_weights_have_the_properties_of_triangles(size: tuple[int, float, float, int, int], scale: str) -> None:
    n_freqs, f_min, f_max, _, rate = size
    fb = melscale_fbanks(*size, mel_scale=scale).double()
    f = torch.linspace(0, rate / 2, n_freqs, dtype=torch.float64)
    assert fb.min() >= 0
    assert fb.max() <= 1
    assert int((fb > 0).sum(1).max()) <= 2
    assert (fb[(f <= f_min) | (f >= f_max)] == 0).all()
    for column in fb.T:  # no holes: banded
        (inside,) = torch.nonzero(column, as_tuple=True)
        assert torch.equal(inside, torch.arange(inside[0], inside[-1] + 1))
    # between the first and the last peak, triangles add up to 1
    middle = slice(int(fb[:, 0].argmax()) + 1, int(fb[:, -1].argmax()))
    assert_close(fb[middle].sum(1), torch.ones_like(f[middle]), rtol=0, atol=2 * EPS)


@every_scale
def test_slaney_areas_and_peaks(scale: str) -> None:
    rate, n_freqs = 16000, 400_001
    fb = melscale_fbanks(n_freqs, 50.0, 7000.0, 30, rate, "slaney", scale).double()
    step = rate / 2 / (n_freqs - 1)
    # the trapezoid rule errs at the three corners only: by slope · step² / 8 at most each
    width = 2 / fb.max(0).values
    atol = 30 * EPS + float((4 / width.min() ** 2) * step**2)
    assert_close(fb.sum(0) * step, torch.ones(30, dtype=torch.float64), rtol=0, atol=atol)
    flat = melscale_fbanks(n_freqs, 50.0, 7000.0, 30, rate, None, scale)
    assert_close(flat.max(0).values, torch.ones(30), rtol=0, atol=float(2 * step / width.min()))


def test_scales_at_known_points() -> None:
    """1000 Hz is 1000 mels (HTK) or 15 (Slaney): there the only triangle has its peak."""
    m = 2595 * math.log10(1 + 1000 / 700)
    top = 700 * (10 ** (2 * m / 2595) - 1)
    for scale, f_max in (("htk", top), ("slaney", 1000 * 6.4 ** (15 / 27))):
        fb = melscale_fbanks(8001, 0.0, f_max, 1, 16000, mel_scale=scale)
        assert int(fb.argmax()) == 1000
        assert float(fb.max()) == pytest.approx(1, abs=EPS)
        assert float(fb[500]) == pytest.approx(0.5, abs=EPS)


def test_empty_filters_are_zero_and_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"of 128 mel filters .* n_mels \(128\) is too high, n_freqs \(65\)"):
        fb = melscale_fbanks(65, 0.0, 8000.0, 128, 16000)
    assert (fb.max(0).values == 0).any()
    assert fb.isfinite().all()
    beyond = int((mel_edges(0.0, 16000.0, 8, "htk")[:-2] >= 4000).sum())  # they begin above half the rate
    with pytest.warns(UserWarning, match=f"{beyond} of 8 mel filters"):
        melscale_fbanks(129, 0.0, 16000.0, 8, 8000)
    assert beyond == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        melscale_fbanks(129, 0.0, 4000.0, 8, 8000)


def test_dtype_and_device_are_the_default_ones() -> None:
    single = melscale_fbanks(*SIZES[1])
    torch.set_default_dtype(torch.float64)
    try:
        double = melscale_fbanks(*SIZES[1])
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.dtype == torch.float64
    assert torch.equal(double.float(), single)  # computed in float64, rounded once
    with torch.device("meta"):
        assert melscale_fbanks(*SIZES[0]).device.type == "meta"
        assert MelScale(40).fb.device.type == "meta"


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: melscale_fbanks(1, 0.0, 8000.0, 40, 16000), "n_freqs must be at least 2, got 1"),
    (lambda: melscale_fbanks(201, 0.0, 8000.0, 0, 16000), "n_mels must be at least 1, got 0"),
    (lambda: melscale_fbanks(201, 0.0, 8000.0, 40, 0), "sample_rate must be positive and finite, got 0"),
    (lambda: melscale_fbanks(201, 0.0, 8000.0, 40, math.inf), "sample_rate must be positive and finite"),
    (lambda: melscale_fbanks(201, -1.0, 8000.0, 40, 16000), "f_min and f_max must rise from 0 .* got f_min -1.0"),
    (lambda: melscale_fbanks(201, 300.0, 300.0, 40, 16000), "f_min and f_max must rise .* f_max 300.0"),
    (lambda: melscale_fbanks(201, 0.0, 0.0, 40, 16000), "f_min and f_max must rise"),
    (lambda: melscale_fbanks(201, 0.0, math.nan, 40, 16000), "f_min and f_max must rise"),
    (lambda: melscale_fbanks(201, 0.0, math.inf, 40, 16000), "f_min and f_max must rise"),
    (lambda: melscale_fbanks(201, 0.0, 8000.0, 40, 16000, "area"), "norm must be None or 'slaney', got 'area'"),
    (lambda: melscale_fbanks(201, 0.0, 8000.0, 40, 16000, None, "bark"), "mel_scale must be one of htk, slaney; got"),
    (lambda: melscale_fbanks(201, 1e3, 1e3 + 1e-12, 40, 16000), "must leave room for n_mels, got f_min 1000.0"),
    (lambda: MelScale(40, f_max=0.0), "f_min and f_max must rise from 0 or above, got f_min 0.0, f_max 0.0"),
    (lambda: MelScale(40, f_min=9000.0), "got f_min 9000.0, f_max 8000.0"),
    (lambda: MelScale(40)(torch.ones(200, 4)), r"must have the shape \(..., n_stft = 201, time\), got \[200, 4\]"),
    (lambda: MelScale(40)(torch.ones(201)), r"must have the shape .* got \[201\]"),
    (lambda: MelScale(40)(torch.ones(201, 4, device="meta")), "on the device of the module, got meta and cpu"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_value_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: melscale_fbanks(201.5, 0.0, 8000.0, 40, 16000), "n_freqs must be an integer, got 201.5"),
        (lambda: MelScale("40"), "n_mels must be an integer, got '40'"),
        (lambda: MelScale(40)(torch.ones(201, 4) + 1j), "specgram must be real, .* got torch.complex64"),
        (lambda: MelScale(40)("x"), "specgram must be a tensor"),
    ],
)
def test_type_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


# --- the module


@pytest.mark.parametrize("shape", [(201, 7), (2, 201, 7), (3, 2, 201, 7), (201, 0), (0, 201, 7), (2, 201, 1)])
def test_module_is_the_product(shape: tuple[int, ...]) -> None:
    module, x = MelScale(40, norm="slaney", mel_scale="slaney"), torch.rand(shape)
    assert torch.equal(module.fb, melscale_fbanks(201, 0.0, 8000.0, 40, 16000, "slaney", "slaney"))
    y = module(x)
    assert y.shape == (*shape[:-2], 40, shape[-1])
    assert y.is_contiguous()
    assert_close(y, torch.einsum("...ft,fm->...mt", x, module.fb))
    assert_close(module(x.mT.contiguous().mT), y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    module, x = MelScale(40), torch.rand(2, 201, 7).to(dtype)
    expected = torch.einsum("...ft,fm->...mt", x.double(), module.fb.double())
    y = module(x)
    assert y.dtype == dtype
    # sums of at most 201 positive terms in float32 or wider, then one rounding
    assert_close(y.double(), expected, rtol=torch.finfo(dtype).eps + (dtype != torch.float64) * 201 * EPS, atol=0)
    moved = copy.deepcopy(module).to(dtype)
    assert moved(x).dtype == dtype
    assert moved(x.float()).dtype == torch.float32
    assert module(torch.ones(201, 3, dtype=torch.int64)).dtype == torch.float32


def test_nan_stays_in_its_frame_and_device_moves() -> None:
    module, x = MelScale(40), torch.rand(201, 4)
    x[3, 2] = math.nan
    assert module(x).isnan().any(0).tolist() == [False, False, True, False]
    assert list(module.state_dict()) == ["fb"]
    assert module.to("meta")(x.to("meta")).shape == (40, 4)
    assert repr(module) == "MelScale(40, sample_rate=16000, f_min=0, f_max=8000, norm=None, mel_scale='htk')"


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(backend: str) -> None:
    module = MelScale(40)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 201, 5), (2, 201, 9)):
        x = torch.rand(shape, requires_grad=True)
        y = compiled(x)
        assert_close(y, module(x))
        (g,) = torch.autograd.grad(y.sum(), x)
        assert_close(g, module.fb.sum(1)[:, None].expand(shape))


def test_filterbank_inside_a_graph() -> None:
    def mel(x: Tensor) -> Tensor:
        return melscale_fbanks(201, 0.0, 8000.0, 40, 16000).mT @ x

    x = torch.rand(201, 5)
    assert_close(torch.compile(mel, fullgraph=True, backend="aot_eager")(x), mel(x))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    module = MelScale(40)
    time = torch.export.Dim("time")
    program = torch.export.export(
        module, (torch.rand(2, 201, 5),), dynamic_shapes={"specgram": {2: time}}, strict=strict
    )
    x = torch.rand(2, 201, 12)
    assert_close(program.module()(x), module(x))


def test_transforms_and_inference_mode() -> None:
    module, x = MelScale(40).double(), torch.rand(3, 201, 2, dtype=torch.float64)
    y = module(x)
    assert_close(torch.vmap(module)(x), y)
    primal, tangent = torch.func.jvp(module, (x,), (x,))
    assert_close((primal, tangent), (y, y))
    with torch.inference_mode():
        assert_close(module(x), y)
    weights = module.fb.clone().requires_grad_()
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, fb: torch.func.functional_call(module, {"fb": fb}, (x,)).sum(0)[:3], (x[:1, :, :1], weights)
    )
