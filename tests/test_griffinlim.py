"""functional.griffinlim and transforms.GriffinLim."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import torch_iir.functional._griffinlim
import torch_iir.transforms._griffinlim
from torch_iir.functional import griffinlim
from torch_iir.transforms import GriffinLim


@pytest.mark.parametrize(
    "module", [torch_iir.functional._griffinlim, torch_iir.transforms._griffinlim], ids=lambda module: module.__name__
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def melody(samples: int = 6000, dtype: torch.dtype = torch.float64) -> Tensor:
    """A note that glides upwards, with overtones and an envelope."""
    t = torch.arange(samples, dtype=torch.float64) / 16000
    phase = 2 * math.pi * (220 * t + 300 * t.square())
    return ((phase.sin() + 0.5 * (2 * phase).sin() + 0.3 * (5 * phase).cos()) * torch.exp(-4 * t)).to(dtype)


def stft(y: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    spectrum: Tensor = torch.stft(y, n_fft, hop, len(window), window.to(y.dtype), return_complex=True)
    return spectrum


def call(specgram: Any, window: Tensor, n_fft: int = 64, hop: int = 16, **options: Any) -> Tensor:
    arguments = {"power": 2.0, "n_iter": 3, "momentum": 0.99, "length": None, "rand_init": False} | options
    return griffinlim(specgram, window, n_fft, hop, len(window), **arguments)


def plain(
    specgram: Tensor,
    window: Tensor,
    n_fft: int,
    hop: int,
    start: Tensor,
    *,
    power: float = 2.0,
    n_iter: int = 3,
    momentum: float = 0.99,
    length: int | None = None,
) -> Tensor:
    """The algorithm as it is printed, in torch's transforms: what we and torchaudio must give."""

    def inverse(c: Tensor) -> Tensor:
        y: Tensor = torch.istft(c, n_fft, hop, len(window), window, length=length)
        return y

    magnitude = specgram.pow(1 / power)
    c, t = magnitude * start, torch.zeros(())
    for _ in range(n_iter):
        new = stft(inverse(c), n_fft, hop, window)
        c, t = magnitude * torch.polar(torch.ones_like(magnitude), (new + momentum * (new - t)).angle()), new
        # in the first step (1 + α) t₁, whose phase is that of t₁
    return inverse(c)


WINDOW = torch.hann_window(64, dtype=torch.float64)
SHAPES = [  # n_fft, hop, win, frames, length
    (64, 16, 64, 12, None),
    (64, 32, 64, 12, None),
    (65, 16, 65, 12, None),
    (64, 10, 51, 12, None),
    (65, 7, 40, 12, None),
    (64, 16, 64, 12, 11 * 16 + 15),
    (64, 16, 64, 12, 11 * 16),
    (64, 16, 64, 4, None),  # 48 samples, reflected by 32
    (2, 1, 2, 5, None),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_numbers_are_those_of_the_algorithm(
    shape: tuple[int, int, int, int, int | None], momentum: float, power: float
) -> None:
    n_fft, hop, win, frames, length = shape
    window = torch.hann_window(win, dtype=torch.float64) + 0.1
    specgram = torch.rand(2, n_fft // 2 + 1, frames, dtype=torch.float64)
    options: dict[str, Any] = {"power": power, "momentum": momentum, "length": length}
    torch.manual_seed(7)
    start = torch.rand(specgram.shape, dtype=torch.complex128)  # what torchaudio draws
    torch.manual_seed(7)
    y = call(specgram, window, n_fft, hop, rand_init=True, **options)
    expected = plain(specgram, window, n_fft, hop, start, **options)
    assert y.shape == expected.shape
    assert y.is_contiguous()
    # A phase is as exact as its bin is loud; three iterations enlarge rounding a thousandfold at most in these.
    assert_close(y, expected, rtol=0, atol=1e5 * torch.finfo(torch.float64).eps * float(expected.abs().max()))
    ones = torch.ones_like(start)
    y, expected = call(specgram, window, n_fft, hop, **options), plain(specgram, window, n_fft, hop, ones, **options)
    assert_close(y, expected, rtol=0, atol=1e5 * torch.finfo(torch.float64).eps * float(expected.abs().max()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("block", [1, 300, 3000])
def test_blocks_of_frames_change_no_number(
    shape: tuple[int, int, int, int, int | None],
    batch: tuple[int, ...],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody differentiates runs in place, some frames or some rows at a time; the rest in one piece."""
    n_fft, hop, win, frames, length = shape
    if length is None:
        frames *= 9
    window = torch.hann_window(win, dtype=torch.float64) + 0.1
    specgram = torch.rand(*batch, n_fft // 2 + 1, frames, dtype=torch.float64)
    monkeypatch.setattr(torch_iir.functional._griffinlim, "_BLOCK", block)
    for rand_init in (False, True):
        torch.manual_seed(7)
        y = call(specgram, window, n_fft, hop, length=length, rand_init=rand_init)
        torch.manual_seed(7)
        whole = call(specgram.requires_grad_(), window, n_fft, hop, length=length, rand_init=rand_init).detach()
        specgram.requires_grad_(False)
        assert y.shape == whole.shape
        assert y.is_contiguous()
        assert_close(y, whole, rtol=0, atol=1e5 * torch.finfo(torch.float64).eps * float(whole.abs().max()))


def test_no_iteration_is_the_inverse_transform() -> None:
    y = melody()
    spectrum = stft(y, 64, 16, WINDOW)
    result = call(spectrum.abs(), WINDOW, n_iter=0, power=1, length=6000, init_phase=spectrum.angle())
    assert_close(result, y, rtol=0, atol=1e-12)
    assert call(torch.ones(33, 2), WINDOW, n_iter=0).shape == (16,)
    power = torch.rand(1, 5)  # frames of one sample
    assert_close(call(power, torch.ones(1), 1, 1), power[0].sqrt())


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_the_true_phase_is_a_fixed_point(power: float) -> None:
    y = melody() + 0.01 * torch.randn(6000, dtype=torch.float64)  # no bin is silent: all phases are defined
    spectrum = stft(y, 64, 16, WINDOW)
    options: dict[str, Any] = {"power": power, "n_iter": 10, "length": 6000, "init_phase": spectrum.angle()}
    assert_close(call(spectrum.abs() ** power, WINDOW, **options), y, rtol=0, atol=1e-9)


def error(specgram: Tensor, y: Tensor, window: Tensor, n_fft: int, hop: int) -> float:
    """Spectral convergence: the distance of the magnitudes over their norm."""
    magnitude = specgram.sqrt()
    return float((stft(y, n_fft, hop, window).abs() - magnitude).norm() / magnitude.norm())


@pytest.mark.parametrize("rand_init", [False, True])
def test_it_converges(rand_init: bool) -> None:
    window = torch.hann_window(256)
    specgram = stft(melody(dtype=torch.float32), 256, 64, window).abs().square()

    def after(n_iter: int, momentum: float) -> float:
        y = call(specgram, window, 256, 64, n_iter=n_iter, momentum=momentum, rand_init=rand_init)
        return error(specgram, y, window, 256, 64)

    slow, fast = ([after(n, momentum) for n in (0, 4, 16, 64)] for momentum in (0.0, 0.99))
    assert slow == sorted(slow, reverse=True)  # Griffin and Lim: it never grows
    assert fast == sorted(fast, reverse=True)
    assert fast[-1] < 0.7 * slow[-1]
    assert fast[-1] < 0.1


def test_start() -> None:
    specgram = torch.rand(2, 33, 12)
    assert torch.equal(call(specgram, WINDOW), call(specgram, WINDOW))
    torch.manual_seed(1)
    first, other = (call(specgram, WINDOW, rand_init=True) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(call(specgram, WINDOW, rand_init=True), first)
    assert not torch.equal(first, other)
    phase = torch.rand(33, 12)
    assert_close(call(specgram, WINDOW, init_phase=phase)[1], call(specgram[1], WINDOW, init_phase=phase))
    assert_close(call(specgram, WINDOW, init_phase=torch.tensor(0.0)), call(specgram, WINDOW))


@pytest.mark.parametrize("shape", [(33, 9), (1, 33, 9), (2, 3, 33, 9), (0, 33, 9)])
def test_batches(shape: tuple[int, ...]) -> None:
    specgram = torch.rand(shape)
    y = call(specgram, WINDOW)
    assert y.shape == (*shape[:-2], 8 * 16)
    rows, flat = y.reshape(-1, y.shape[-1]), specgram.reshape(-1, 33, 9) if specgram.numel() else []
    for row, one in zip(rows, flat, strict=True):
        assert_close(row, call(one, WINDOW))
    assert_close(call(specgram.mT.contiguous().mT, WINDOW), y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    specgram = torch.rand(33, 9).to(dtype)
    y = call(specgram, WINDOW)
    assert y.dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(y, call(specgram.to(wide), WINDOW).to(dtype))
    torch.manual_seed(3)
    assert call(specgram, WINDOW, rand_init=True).dtype == dtype


def test_soft_signals_are_like_loud_ones() -> None:
    """Magnitudes of 1e-18: a power of two changes no bit."""
    specgram = torch.rand(33, 9)
    assert torch.equal(call(specgram * 2.0**-120, WINDOW), call(specgram, WINDOW) * 2.0**-60)
    assert (call(torch.zeros(33, 9), WINDOW) == 0).all()


def test_subnormal_bins_have_no_phase() -> None:
    """Dividing by their magnitude would be infinite."""
    loud, faint = torch.rand(33, 40), torch.full((33, 40), 1e-41)
    faint[:, :8] = loud[:, :8]
    faint.requires_grad_()
    y = call(faint, WINDOW, power=1)
    assert y.isfinite().all()
    (g,) = torch.autograd.grad(y.square().sum(), faint)
    assert g.isfinite().all()


def test_nan_and_negative_frames() -> None:
    for wrong in (math.nan, -1.0):
        specgram = torch.rand(2, 33, 9)
        specgram[1, 4, 4] = wrong
        y = call(specgram, WINDOW)
        assert y[0].isfinite().all()
        assert y[1].isnan().any()


# --- derivatives


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients(power: float, momentum: float) -> None:
    window = torch.hann_window(8, dtype=torch.float64).add(0.1).requires_grad_()
    specgram = (torch.rand(5, 6, dtype=torch.float64) + 0.5).requires_grad_()
    phase = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)

    def run(specgram: Tensor, window: Tensor, phase: Tensor) -> Tensor:
        return call(specgram, window, 8, 3, power=power, momentum=momentum, n_iter=2, init_phase=phase)

    assert torch.autograd.gradcheck(run, (specgram, window, phase), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (specgram, window, phase))


def test_gradients_of_silence_are_finite() -> None:
    for rand_init in (False, True):
        specgram = stft(melody(600), 64, 16, WINDOW).abs().square()
        specgram[:, 10:25] = 0
        specgram.requires_grad_()
        (g,) = torch.autograd.grad(call(specgram, WINDOW, rand_init=rand_init, n_iter=4).square().sum(), specgram)
        assert g.isfinite().all()
        assert g.abs().max() > 0
        assert (g[:, 10:25] == 0).all()


@pytest.mark.filterwarnings("ignore:There is a performance drop.*unfold_backward")
def test_vmap_and_jvp() -> None:
    specgram, tangent = torch.rand(3, 33, 9, dtype=torch.float64) + 0.1, torch.randn(3, 33, 9, dtype=torch.float64)
    y = call(specgram, WINDOW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no loop over the batch
        assert_close(torch.vmap(lambda s: call(s, WINDOW))(specgram), y)
        assert torch.vmap(lambda s: call(s, WINDOW, rand_init=True), randomness="different")(specgram).shape == y.shape
    per_item = torch.vmap(torch.func.grad(lambda s: call(s, WINDOW).square().sum()))(specgram)
    x = specgram.clone().requires_grad_()
    (g,) = torch.autograd.grad(call(x, WINDOW).square().sum(), x)
    assert_close(per_item, g)
    _, pushed = torch.func.jvp(lambda s: call(s, WINDOW), (specgram,), (tangent,))
    assert_close((pushed * 2 * y).sum(), (g * tangent).sum())


# --- the module


def test_module_is_the_function() -> None:
    specgram = torch.rand(2, 33, 12)
    module = GriffinLim(64, 5, 48, 12, torch.kaiser_window, 1.5, {"periodic": True, "beta": 4.0}, 0.8, 140, False)
    window = torch.kaiser_window(48, True, 4.0)
    assert_close(module.window, window)
    assert_close(module(specgram), griffinlim(specgram, window, 64, 12, 48, 1.5, 5, 0.8, 140, False))
    phase = torch.rand(33, 12)
    assert torch.equal(
        module(specgram, init_phase=phase),
        griffinlim(specgram, window, 64, 12, 48, 1.5, 5, 0.8, 140, False, init_phase=phase),
    )
    default = GriffinLim()
    assert (default.n_fft, default.n_iter, default.win_length, default.hop_length) == (400, 32, 400, 200)
    assert (default.power, default.momentum, default.length, default.rand_init) == (2.0, 0.99, None, True)
    assert torch.equal(default.window, torch.hann_window(400))
    assert list(default.state_dict()) == ["window"]
    expected = "GriffinLim(n_fft=400, win_length=400, hop_length=200, n_iter=32, power=2, momentum=0.99)"
    assert repr(default) == expected
    assert default.to("meta")(torch.empty(2, 201, 9, device="meta")).shape == (2, 1600)
    assert default.half().window.dtype == torch.float16


def test_inference_mode() -> None:
    module, specgram = GriffinLim(64, 4, rand_init=False), torch.rand(33, 12)
    with torch.inference_mode():
        y = module(specgram)
    assert torch.equal(y, module(specgram))


def test_compiled() -> None:
    """One graph, for any number of frames, with its derivatives."""
    module = GriffinLim(64, 3, hop_length=16, rand_init=False)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for frames in (12, 17):
        x = torch.rand(2, 33, frames, requires_grad=True)
        y, expected = compiled(x), module(x)
        assert_close(y, expected)
        weight = torch.randn_like(y)
        found, gradient = (torch.autograd.grad((one * weight).sum(), x)[0] for one in (y, expected))
        assert_close(found, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_compiled_from_random_phases() -> None:
    module, x = GriffinLim(64, 8, hop_length=16), stft(melody(600), 64, 16, WINDOW).abs().square()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    first, other = compiled(x), compiled(x)
    assert not torch.equal(first, other)
    assert error(x, first, WINDOW, 64, 16) < 0.5
    phase = torch.rand(33, x.shape[-1], dtype=torch.float64)
    assert_close(compiled(x, init_phase=phase), module(x, init_phase=phase))


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_compiled_by_inductor() -> None:
    module, x = GriffinLim(64, 2, rand_init=False), torch.rand(33, 9)
    assert_close(torch.compile(module, fullgraph=True)(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    module = GriffinLim(64, 2, hop_length=16, rand_init=False)
    frames = torch.export.Dim("frames", min=4)
    program = torch.export.export(
        module, (torch.rand(2, 33, 9),), dynamic_shapes={"specgram": {2: frames}}, strict=strict
    )
    x = torch.rand(2, 33, 20)
    assert_close(program.module()(x), module(x))


# --- wrong calls

S, W = torch.ones(33, 9), torch.hann_window(64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GriffinLim(momentum=1.0), r"momentum must lie in \[0, 1\), got 1.0"),
        (lambda: GriffinLim(momentum=-0.1), "momentum must lie in"),
        (lambda: GriffinLim(momentum=math.nan), "momentum must lie in"),
        (lambda: GriffinLim(power=0.0), "power must be positive and finite, got 0.0"),
        (lambda: GriffinLim(power=math.inf), "power must be positive"),
        (lambda: GriffinLim(n_iter=-1), "n_iter must be at least 0, got -1"),
        (lambda: GriffinLim(n_fft=0), "n_fft must be at least 1, got 0"),
        (lambda: GriffinLim(hop_length=0), "hop_length must be at least 1, got 0"),
        (lambda: GriffinLim(win_length=500), "must not fall, got hop_length 250, win_length 500, n_fft 400"),
        (lambda: GriffinLim(win_length=100, hop_length=101), "must not fall, got hop_length 101, win_length 100"),
        (lambda: GriffinLim(length=0), "length must be at least 1, got 0"),
        (lambda: call(S, W, momentum=1.5), "momentum must lie in"),
        (lambda: call(S[1:], W), r"n_fft // 2 \+ 1 = 33, frames\), got \[32, 9\]"),
        (lambda: call(S[0], W), r"specgram must have the shape .* got \[9\]"),
        (lambda: call(S[:, :3], W), "specgram must have at least 4 frames of hop_length 16, got 3"),
        (lambda: call(S[:, :0], W), "specgram must have at least 4 frames"),
        (lambda: call(S[:, :1], W, n_iter=0), "specgram must have at least 2 frames"),
        (lambda: call(S, W, length=127), "length must have the 9 frames of specgram: 128 to 143, got 127"),
        (lambda: call(S, W, length=144), "128 to 143, got 144"),
        (lambda: call(S, W, length=16), "length must have the 9 frames"),
        (lambda: griffinlim(S, W[1:], 64, 16, 64, 2, 1, 0.9, None, True), r"win_length = 64\), got \[63\]"),
        (lambda: griffinlim(S, W, 64, 64, 64, 2, 1, 0.9, None, True), "the windows must overlap"),
        (lambda: call(S, W.to("meta")), "window must be on the device of specgram, got meta and cpu"),
        (lambda: call(S, W, init_phase=S[:, :4]), r"init_phase must broadcast .* got \[33, 4\] and \[33, 9\]"),
        (lambda: call(S, W, init_phase=S.to("meta")), "init_phase must be on the device of specgram"),
    ],
)
def test_value_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GriffinLim(n_fft=400.0), "n_fft must be an integer, got 400.0"),
        (lambda: call(S + 1j, W), "specgram must have a real floating dtype, got torch.complex64"),
        (lambda: call(S, W.long()), "window must have a real floating dtype, got torch.int64"),
        (lambda: call("S", W), "specgram must be a tensor"),
        (lambda: call(S, W, length=128.0), "length must be an integer, got 128.0"),
        (lambda: call(S, W, init_phase=S + 1j), "init_phase must be real, in radians, got torch.complex64"),
    ],
)
def test_type_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
