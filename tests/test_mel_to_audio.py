"""torch_iir.mel_to_audio: the two steps that it is made of, in one call."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import torch_iir._mel_to_audio
from torch_iir import mel_to_audio
from torch_iir.functional import griffinlim
from torch_iir.transforms import InverseMelScale, MelScale


def test_examples_in_docstring() -> None:
    result = doctest.testmod(torch_iir._mel_to_audio)
    assert result.attempted > 0
    assert result.failed == 0


def melody(samples: int, rate: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A note that glides upwards, with overtones, an envelope and some noise."""
    t = torch.arange(samples, dtype=torch.float64) / rate
    phase = 2 * math.pi * (220 * t + 100 * t.square())
    tone = sum(torch.sin(k * phase) / k for k in (1, 2, 3, 5, 8)) * torch.exp(-2 * t)
    return (tone + 1e-3 * torch.randn_like(t)).to(dtype)


def mel_of(
    y: Tensor, rate: int, n_fft: int, hop: int, n_mels: int, power: float = 2.0, win: int | None = None, **options: Any
) -> Tensor:
    window = torch.hann_window(win or n_fft, dtype=y.dtype)
    magnitude = torch.stft(y, n_fft, hop, win or n_fft, window, return_complex=True).abs()
    mel: Tensor = MelScale(n_mels, rate, n_stft=n_fft // 2 + 1, **options).to(y.dtype)(magnitude**power)
    return mel


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hop_length": 50, "power": 1.0},
        {"win_length": 150, "hop_length": 40, "norm": "slaney", "mel_scale": "slaney"},
        {"f_min": 50.0, "f_max": 3000.0, "n_iter": 3, "momentum": 0.5, "length": 2399},
        {"tie_break": "entropy", "tol": 1e-8, "solver": "newton", "rand_init": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_its_two_steps(settings: dict[str, Any], dtype: torch.dtype) -> None:
    rate, n_fft, n_mels = 8000, 200, 20
    win = settings.get("win_length", n_fft)
    hop = settings.get("hop_length", win // 2)
    power = settings.get("power", 2.0)
    of_bank = {name: settings[name] for name in ("f_min", "f_max", "norm", "mel_scale") if name in settings}
    mel = torch.stack([mel_of(melody(2350, rate, dtype) * a, rate, n_fft, hop, n_mels, power, win) for a in (1, 0.5)])
    torch.manual_seed(5)
    y = mel_to_audio(mel, sample_rate=rate, n_fft=n_fft, **settings)
    how = {name: settings[name] for name in ("solver", "tie_break", "tol") if name in settings}
    S = InverseMelScale(n_fft // 2 + 1, n_mels, rate, **of_bank, **how)(mel)
    torch.manual_seed(5)
    expected = griffinlim(
        S,
        torch.hann_window(win, dtype=dtype),
        n_fft,
        hop,
        win,
        power,
        settings.get("n_iter", 32),
        settings.get("momentum", 0.99),
        settings.get("length"),
        settings.get("rand_init", True),
    )
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert torch.equal(y, expected)


def test_other_arguments() -> None:
    mel = mel_of(melody(2000, 8000), 8000, 200, 100, 20)
    settings: dict[str, Any] = {"sample_rate": 8000, "n_fft": 200}
    phase = torch.rand(101, mel.shape[-1])
    window = torch.hamming_window(200)
    S = InverseMelScale(101, 20, 8000)(mel)
    assert torch.equal(
        mel_to_audio(mel, **settings, init_phase=phase, window=window, n_iter=2),
        griffinlim(S, window, 200, 100, 200, 2.0, 2, 0.99, None, True, init_phase=phase),
    )
    first, other = (mel_to_audio(mel, **settings, n_iter=2) for _ in range(2))
    assert not torch.equal(first, other)
    assert_close(mel_to_audio(mel.numpy(), **settings, rand_init=False), mel_to_audio(mel, **settings, rand_init=False))


@pytest.mark.parametrize("tie_break", ["min_norm", "entropy"])
@pytest.mark.parametrize(
    "bank", [(16000, 1024, 256, 80, "slaney", "slaney"), (16000, 400, 100, 64, None, "htk")], ids=str
)
def test_the_mel_of_the_sound_is_the_mel(tie_break: str, bank: tuple[int, int, int, int, str | None, str]) -> None:
    rate, n_fft, hop, n_mels, norm, scale = bank
    y = melody(16000, rate)
    names: dict[str, Any] = {"norm": norm, "mel_scale": scale}
    mel = mel_of(y, rate, n_fft, hop, n_mels, **names)
    settings: dict[str, Any] = {"sample_rate": rate, "n_fft": n_fft, "hop_length": hop, "tie_break": tie_break}

    def error(n_iter: int) -> float:
        z = mel_to_audio(mel, **settings, **names, length=16000, n_iter=n_iter)
        assert z.shape == y.shape
        found = mel_of(z, rate, n_fft, hop, n_mels, **names).sqrt()
        return float((found - mel.sqrt()).norm() / mel.sqrt().norm())

    assert error(32) < 0.15
    assert error(32) < 0.7 * error(2)


@pytest.mark.parametrize("shape", [(20, 9), (1, 20, 9), (2, 3, 20, 9), (0, 20, 9)])
def test_batches(shape: tuple[int, ...]) -> None:
    mel = torch.rand(shape)
    settings: dict[str, Any] = {"sample_rate": 8000, "n_fft": 64, "n_iter": 2, "rand_init": False}
    y = mel_to_audio(mel, **settings)
    assert y.shape == (*shape[:-2], 8 * 32)
    if mel.numel():
        index = (0,) * (mel.dim() - 2)
        assert_close(mel_to_audio(mel[index], **settings), y[index])
        assert_close(mel_to_audio(mel.mT.contiguous().mT, **settings), y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage(dtype: torch.dtype) -> None:
    """Spectra beyond the range of half precision stay inside."""
    mel = (mel_of(melody(2000, 8000), 8000, 200, 100, 20) * 1e3).clamp_max(6e4).to(dtype)
    settings: dict[str, Any] = {"sample_rate": 8000, "n_fft": 200, "rand_init": False}
    y = mel_to_audio(mel, **settings)
    assert y.dtype == dtype
    assert torch.equal(y, mel_to_audio(mel.float(), **settings).to(dtype))
    assert y.isfinite().all()


def test_frames_that_fail_are_counted() -> None:
    mel = torch.rand(20, 9)
    mel[3, 4] = math.nan
    with pytest.warns(RuntimeWarning, match="1 of 9 .* are not finite") as found:
        y = mel_to_audio(mel, sample_rate=8000, n_fft=200)
    assert found[0].filename == __file__
    assert y.isnan().any()


# --- derivatives and transforms

SMALL: dict[str, Any] = {"sample_rate": 800, "n_fft": 16, "hop_length": 4, "n_iter": 2, "rand_init": False}


@pytest.mark.parametrize("tie_break", ["min_norm", "entropy"])
def test_gradients(tie_break: str) -> None:
    mel = torch.rand(3, 6, dtype=torch.float64) + 0.2
    window = torch.hann_window(16, dtype=torch.float64) + 0.1

    def run(mel: Tensor, window: Tensor) -> Tensor:
        return mel_to_audio(mel, **SMALL, window=window, tie_break=tie_break, tol=1e-13)

    arguments = (mel.requires_grad_(), window.requires_grad_())
    assert torch.autograd.gradcheck(run, arguments, check_forward_ad=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop.*unfold_backward")
def test_transforms() -> None:
    mel = torch.rand(2, 3, 6, dtype=torch.float64) + 0.2

    def run(mel: Tensor) -> Tensor:
        return mel_to_audio(mel, **SMALL)

    y = run(mel)
    assert_close(torch.vmap(run)(mel), y)
    leaf = mel.clone().requires_grad_()
    (g,) = torch.autograd.grad(run(leaf).square().sum(), leaf)
    assert_close(torch.vmap(torch.func.grad(lambda m: run(m).square().sum()))(mel), g)
    with torch.inference_mode():
        assert_close(run(mel), y)


def test_compiled() -> None:
    def run(mel: Tensor) -> Tensor:  # with the other tie break, Inductor compiles it below
        return mel_to_audio(mel, sample_rate=8000, n_fft=64, n_iter=2, rand_init=False, tie_break="entropy")

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for frames in (9, 14):
        mel = MelScale(8, 8000, n_stft=33)(torch.rand(2, 33, frames)).requires_grad_()
        y, expected = compiled(mel), run(mel)
        assert_close(y, expected, rtol=1e-3, atol=1e-4)
        found, gradient = (torch.autograd.grad(one.square().sum(), mel)[0] for one in (y, expected))
        assert_close(found, gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_compiled_by_inductor() -> None:
    def run(mel: Tensor) -> Tensor:
        return mel_to_audio(mel, sample_rate=8000, n_fft=64, n_iter=2, rand_init=False)

    mel = MelScale(8, 8000, n_stft=33)(torch.rand(33, 9))
    assert_close(torch.compile(run, fullgraph=True)(mel), run(mel), rtol=1e-3, atol=1e-4)


# --- errors

M = torch.ones(20, 9)
GIVEN: dict[str, Any] = {"sample_rate": 8000, "n_fft": 200}

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: mel_to_audio(M[0], **GIVEN), r"mel must have the shape \(..., n_mels, frames\), got \[9\]"),
    (lambda: mel_to_audio(M[:0], **GIVEN), r"mel must have the shape .* got \[0, 9\]"),
    (lambda: mel_to_audio(M[:, :1], **GIVEN), "mel must have at least 3 frames of hop_length 100, got 1"),
    (lambda: mel_to_audio(M, **GIVEN, length=799), "length must have the 9 frames of mel: 800 to 899, got 799"),
    (lambda: mel_to_audio(M, **GIVEN, hop_length=201), "hop_length, win_length and n_fft must not fall"),
    (lambda: mel_to_audio(M, **GIVEN, power=0.0), "power must be positive and finite, got 0.0"),
    (lambda: mel_to_audio(M, **GIVEN, momentum=1.0), "momentum must lie in"),
    (lambda: mel_to_audio(M, **GIVEN, n_iter=-1), "n_iter must be at least 0, got -1"),
    (lambda: mel_to_audio(M, sample_rate=0, n_fft=200), "sample_rate must be positive and finite, got 0"),
    (lambda: mel_to_audio(M, **GIVEN, f_max=0.0), "f_min and f_max must rise .* f_max 0.0"),
    (lambda: mel_to_audio(M, **GIVEN, norm="area"), "norm must be None or 'slaney'"),
    (lambda: mel_to_audio(M, **GIVEN, tie_break="none"), "tie_break must be one of min_norm, entropy; got 'none'"),
    (lambda: mel_to_audio(M, **GIVEN, solver="none"), "solver must be one of auto"),
    (lambda: mel_to_audio(M, **GIVEN, tol=-1.0), "tol must be positive and finite, got -1.0"),
    (lambda: mel_to_audio(M, **GIVEN, window=torch.ones(199)), r"window must have the shape \(win_length = 200\)"),
    (
        lambda: mel_to_audio(M, **GIVEN, window=torch.ones(200, device="meta")),
        "window must be on the device of mel, got meta and cpu",
    ),
    (
        lambda: mel_to_audio(M, **GIVEN, init_phase=torch.ones(20, 9)),
        r"init_phase must broadcast to the shape of the spectrogram, got \[20, 9\] and \[101, 9\]",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_value_errors(call: Callable[[], object], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing has been computed
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mel_to_audio(M, 8000, 200), "takes 1 positional argument"),  # type: ignore[misc]
        (lambda: mel_to_audio(M, sample_rate=8000), "n_fft"),  # type: ignore[call-arg]
        (lambda: mel_to_audio(M, sample_rate=8000, n_fft=200.0), "n_fft must be an integer, got 200.0"),  # type: ignore[arg-type]
        (lambda: mel_to_audio(M + 1j, **GIVEN), "mel must be real, .* got torch.complex64"),
        (lambda: mel_to_audio("mel", **GIVEN), "mel must be a tensor"),
        (lambda: mel_to_audio(M, **GIVEN, window=torch.ones(200).long()), "window must have a real floating dtype"),
    ],
)
def test_type_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()
