"""transforms.InverseMelScale, against scipy.optimize.nnls and the conditions that a solution satisfies."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.testing import assert_close

from torch_iir._nnls import REGULARIZATION_OF_DOUBLE, regularization
from torch_iir.functional import melscale_fbanks
from torch_iir.signal import sosfilt
from torch_iir.transforms import InverseMelScale, MelScale

SOLVED, ENTROPY, FAILED = 0, 1, 2

BANKS = [  # n_fft, hop, n_mels, sample_rate, norm and scale
    (2048, 512, 128, 44100, None, "htk"),
    (1024, 256, 80, 16000, "slaney", "slaney"),
    (400, 160, 80, 16000, None, "htk"),
]
every_bank = pytest.mark.parametrize("bank", BANKS, ids=str)
every_sound = pytest.mark.parametrize("sound", ["music", "speech"])
every_tie_break = pytest.mark.parametrize("tie_break", ["min_norm", "entropy"])

Bank = tuple[int, int, int, int, str | None, str]


def inverse(bank: Bank, **options: Any) -> InverseMelScale:
    n_fft, _, n_mels, rate, norm, scale = bank
    return InverseMelScale(n_fft // 2 + 1, n_mels, rate, norm=norm, mel_scale=scale, **options)


# --- sounds


def music(seconds: float, rate: int) -> Tensor:
    """Three chords of decaying notes, a drum, and a quiet room."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    y = 1e-4 * torch.randn(t.shape, dtype=torch.float64)
    for start, notes in ((0.0, (220.0, 277.2, 329.6)), (0.3, (185.0, 220.0, 277.2)), (0.6, (146.8, 587.3, 880.0))):
        since = (t - seconds * start).clamp_min(0)
        for f in notes:
            for k in range(1, min(25, int(0.45 * rate / f))):
                y += torch.sin(2 * math.pi * k * f * since) * torch.exp(-k * since) / (3 * k)
        y += torch.randn(t.shape, dtype=torch.float64) * torch.exp(-80 * since) * (since > 0) * 0.3
    return y


def speech(seconds: float, rate: int) -> Tensor:
    """Pulses through the formants of three vowels, a hiss and a pause."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    turns = torch.cumsum((110 + 30 * torch.sin(2 * math.pi * t)) / rate, 0)
    pulses = torch.diff(turns.floor(), prepend=turns.new_zeros(1)) + 0.01 * torch.randn(t.shape, dtype=torch.float64)
    vowels = ((730.0, 1090.0, 2440.0), (270.0, 2290.0, 3010.0), (300.0, 870.0, 2240.0))
    place = t / seconds * 5
    y = 1e-5 * torch.randn(t.shape, dtype=torch.float64)
    for index, vowel in enumerate(vowels):
        sos = []
        for f in (*vowel, 3500.0, 4500.0):
            radius, angle = math.exp(-math.pi * (50 + 0.03 * f) / rate), 2 * math.pi * f / rate
            a1, a2 = -2 * radius * math.cos(angle), radius**2
            sos.append([1 + a1 + a2, 0, 0, 1, a1, a2])
        y += sosfilt(sos, pulses) * (1 - (place - index - 0.5).abs()).clamp_min(0)
    hiss = torch.diff(torch.randn(len(t) + 1, dtype=torch.float64))
    return y + 0.05 * hiss * (1 - (place - 3).abs()).clamp_min(0)


@functools.cache
def power_spectrogram(sound: str, bank: Bank) -> Tensor:
    torch.manual_seed(0)
    n_fft, hop, _, rate, _, _ = bank
    y = (music if sound == "music" else speech)(60 * hop / rate, rate)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    return torch.stft(y, n_fft, hop, window=window, return_complex=True).abs().square()


def mel_spectrogram(sound: str, bank: Bank, dtype: torch.dtype) -> Tensor:
    return (inverse(bank).fb.double().mT @ power_spectrogram(sound, bank)).to(dtype)


def perturbed(mel: Tensor, how: str) -> Tensor:
    """Mel spectrograms that no spectrogram has."""
    if how == "noise":
        return mel * torch.exp(0.3 * torch.randn_like(mel))
    if how == "smooth":
        return torch.nn.functional.avg_pool2d(mel[None], 3, 1, 1)[0]
    return torch.where(torch.rand_like(mel) < 0.02, -mel, mel)


# --- what a solution is


def optimality(X: Tensor, M: Tensor, fb: Tensor) -> Tensor:
    """The largest |min(L X, gradient)| of each frame over the largest of Aᵀ|M|, L = |A|²: 0 for a solution."""
    A, X, M = fb.double().mT, X.double(), M.double()
    gradient = A.mT @ (A @ X - M)
    error = torch.minimum(torch.linalg.matrix_norm(A, 2).square() * X, gradient).abs().amax(-2)
    return error / (A.mT @ M.abs()).amax(-2).clamp_min(torch.finfo(torch.float64).tiny)


def residual(X: Tensor, M: Tensor, fb: Tensor) -> Tensor:
    return (fb.double().mT @ X.double() - M.double()).norm(dim=-2)


def scipy_residual(M: Tensor, fb: Tensor) -> Tensor:
    """Of its solutions: the residuals that it gives beside them are another's now and then, a tenth of theirs."""
    A, frames = fb.double().mT.numpy(), M.double().mT.numpy()
    residuals = [np.linalg.norm(A @ scipy.optimize.nnls(A, frame)[0] - frame) for frame in frames]
    return torch.tensor(residuals, dtype=torch.float64)


TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-8}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@every_bank
@every_sound
@every_dtype
def test_frames_of_sounds_are_solved(bank: Bank, sound: str, dtype: torch.dtype) -> None:
    module, M = inverse(bank), mel_spectrogram(sound, bank, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none has failed
        X, outcome = module(M, return_outcome=True)
    assert X.dtype == dtype
    assert X.min() >= 0
    assert outcome.dtype == torch.int32
    assert (outcome == SOLVED).all()
    assert optimality(X, M, module.fb).max() <= TOLERANCES[dtype]
    some = slice(None, None, 5)
    error, least = residual(X, M, module.fb)[some], scipy_residual(M[:, some], module.fb)
    # where a triangle's only frequency has a weight of 1e-4, μ is not so small beside its square
    assert (error <= least + max(TOLERANCES[dtype], 1e-7) * M[:, some].double().norm(dim=-2)).all()


@every_bank
@every_sound
@every_dtype
@pytest.mark.parametrize("how", ["noise", "smooth", "signs"])
def test_frames_of_no_sound(bank: Bank, sound: str, dtype: torch.dtype, how: str) -> None:
    module, M = inverse(bank), perturbed(mel_spectrogram(sound, bank, dtype), how)
    X, outcome = module(M, return_outcome=True)
    assert (outcome == SOLVED).all()
    assert optimality(X, M, module.fb).max() <= 1e-4
    some = slice(None, None, 5)
    error, least = residual(X, M, module.fb)[some], scipy_residual(M[:, some], module.fb)
    assert (error <= least + 1e-5 * M[:, some].double().norm(dim=-2)).all()


@every_bank
@every_sound
@every_tie_break
def test_mel_of_the_result_is_the_mel(bank: Bank, sound: str, tie_break: str) -> None:
    n_fft, _, n_mels, rate, norm, scale = bank
    module, M = inverse(bank, tie_break=tie_break), mel_spectrogram(sound, bank, torch.float32)
    forward = MelScale(n_mels, rate, n_stft=n_fft // 2 + 1, norm=norm, mel_scale=scale)
    error = (forward(module(M)) - M).abs().amax(0) / M.amax(0)
    assert error.max() <= 1e-5
    lstsq = torch.from_numpy(np.linalg.lstsq(module.fb.mT.numpy(), M.numpy(), rcond=1e-6)[0]).relu()
    assert error.median() < 1e-2 * ((forward(lstsq) - M).abs().amax(0) / M.amax(0)).median()


def test_it_is_the_solution_of_least_norm() -> None:
    """scipy solves the regularised problem, whose solution is unique, as an ordinary one with more rows."""
    module = InverseMelScale(101, 20).double()
    M = MelScale(20, n_stft=101).double()(torch.rand(101, 6, dtype=torch.float64) ** 4)
    M[3, 4:] *= 3
    A = module.fb.mT.numpy()
    mu = float(regularization(module.fb.mT, REGULARIZATION_OF_DOUBLE))
    rows = np.concatenate([A, np.sqrt(mu) * np.eye(101)])
    expected = [scipy.optimize.nnls(rows, np.append(frame, np.zeros(101)))[0] for frame in M.mT.numpy()]
    X = module(M)
    assert (X == 0).any()
    assert_close(X, torch.from_numpy(np.stack(expected, 1)), rtol=0, atol=1e-10 * float(X.max()))


def test_projected_gradient_solves_it_too() -> None:
    bank = BANKS[2]
    M = mel_spectrogram("speech", bank, torch.float64)[:, ::6]
    module = inverse(bank, solver="projected_gradient", tol=1e-6)
    X, outcome = module(M, return_outcome=True)
    assert (outcome == SOLVED).all()
    assert X.min() >= 0
    assert optimality(X, M, module.fb).max() <= 1e-5
    with pytest.warns(RuntimeWarning, match="did not reach the tolerance 1e-300"):
        inverse(bank, solver="projected_gradient", tol=1e-300)(M[:, :1])


@every_tie_break
def test_scale_of_frames(tie_break: str) -> None:
    """A frame can be as loud or as soft as its dtype allows: what multiplies it by a power of two does so to X."""
    module, M = inverse(BANKS[1], tie_break=tie_break), mel_spectrogram("speech", BANKS[1], torch.float32)
    X = module(M)
    assert torch.equal(module(M * 2.0**40), X * 2.0**40)
    assert torch.equal(module(M * 2.0**-40), X * 2.0**-40)


# --- maximum entropy


def smooth_spectrum(M: Tensor, fb: Tensor) -> np.ndarray:
    """E, in plain loops."""
    A, m = fb.double().mT.numpy(), M.double().numpy()
    E = np.zeros(A.shape[1])
    for j in range(A.shape[1]):
        for i in range(A.shape[0]):
            if A[i, j] > 0:
                E[j] += A[i, j] * max(m[i], 0) / A[i].sum() / A[:, j].sum()
    return E


@every_bank
@every_sound
@every_dtype
def test_entropy_satisfies_its_equation(bank: Bank, sound: str, dtype: torch.dtype) -> None:
    module, M = inverse(bank, tie_break="entropy"), mel_spectrogram(sound, bank, dtype)
    X, outcome = module(M, return_outcome=True)
    assert X.dtype == dtype
    assert X.min() >= 0
    assert (outcome == ENTROPY).all()
    assert optimality(X, M, module.fb).max() <= (1e-5 if dtype == torch.float32 else 1e-6)
    # log(X / E) = Aᵀλ for some λ
    A = module.fb.double().mT.numpy()
    for t in range(0, M.shape[1], 15):
        E, x = smooth_spectrum(M[:, t], module.fb), X[:, t].double().numpy()
        assert (E[x > 0] > 0).all()
        loud = x > 1e-12 * x.max()
        exponent = np.log(x[loud] / E[loud])
        fitted = A[:, loud].T @ np.linalg.lstsq(A[:, loud].T, exponent, rcond=None)[0]
        assert np.abs(fitted - exponent).max() <= 1e3 * torch.finfo(dtype).eps


def test_entropy_gives_back_what_is_even() -> None:
    module = InverseMelScale(201, 40, tie_break="entropy").double()
    flat = torch.linspace(0.5, 3, 5, dtype=torch.float64).expand(201, 5)
    X = module(MelScale(40).double()(flat))
    inside = module.fb.sum(1) > 0
    assert_close(X[inside], flat[inside], rtol=1e-6, atol=0)
    assert (X[~inside] == 0).all()


def distance(X: Tensor, S: Tensor) -> float:
    """Log-spectral distance in dB, mean over frames."""
    floor = 1e-8 * S.max()
    difference = 10 * torch.log10((X.double() + floor) / (S + floor))
    return float(difference.square().mean(0).sqrt().mean())


@every_bank
@every_sound
def test_entropy_is_closer_to_true_spectra(bank: Bank, sound: str) -> None:
    S, M = power_spectrogram(sound, bank), mel_spectrogram(sound, bank, torch.float32)
    smooth, least = (distance(inverse(bank, tie_break=tie_break)(M), S) for tie_break in ("entropy", "min_norm"))
    lstsq = np.linalg.lstsq(inverse(bank).fb.mT.numpy(), M.numpy(), rcond=1e-6)[0]
    assert smooth < least - 0.5
    assert smooth < distance(torch.from_numpy(lstsq).relu(), S) - 0.5


def test_entropy_of_frames_of_no_sound() -> None:
    """Where no such solution is found, the frame is solved by least squares, and says so."""
    bank = BANKS[2]
    M = perturbed(mel_spectrogram("music", bank, torch.float64), "noise")
    M = M * torch.exp(torch.randn_like(M))
    module = inverse(bank, tie_break="entropy")
    X, outcome = module(M, return_outcome=True)
    assert set(outcome.tolist()) == {SOLVED, ENTROPY}
    assert X.isfinite().all()
    assert optimality(X, M, module.fb).max() <= 1e-5
    least = inverse(bank)(M)
    zeros = (X == 0).sum(0)[outcome == SOLVED] - (module.fb.sum(1) == 0).sum()
    assert (zeros > 0).all()
    assert_close(zeros, (least == 0).sum(0)[outcome == SOLVED] - (module.fb.sum(1) == 0).sum(), rtol=0, atol=3)


# --- frames and shapes


@every_tie_break
@pytest.mark.parametrize("shape", [(40, 7), (2, 40, 7), (3, 2, 40, 7), (40, 0), (0, 40, 7), (2, 40, 1)])
def test_shapes(tie_break: str, shape: tuple[int, ...]) -> None:
    module, M = InverseMelScale(201, 40, tie_break=tie_break), torch.rand(shape)
    X, outcome = module(M, return_outcome=True)
    assert X.shape == (*shape[:-2], 201, shape[-1])
    assert outcome.shape == (*shape[:-2], shape[-1])
    assert X.is_contiguous()
    for index in np.ndindex(*shape[:-2]):
        assert_close(module(M[index]), X[index])
    assert torch.equal(module(M), X)
    assert torch.equal(module(M.mT.contiguous().mT), X)
    wider = torch.rand(*shape[:-2], 80, 2 * shape[-1])
    wider[..., ::2, ::2] = M
    assert torch.equal(module(wider[..., ::2, ::2]), X)
    assert torch.equal(module(M[..., :1].expand(shape)), module(M[..., :1]).expand(X.shape)) or not shape[-1]


@every_tie_break
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage(tie_break: str, dtype: torch.dtype) -> None:
    module, M = InverseMelScale(201, 40, tie_break=tie_break), torch.rand(2, 40, 7).to(dtype)
    X = module(M)
    assert X.dtype == dtype
    assert_close(X.float(), module(M.float()), rtol=torch.finfo(dtype).eps, atol=1e-5)
    moved = copy.deepcopy(module).to(dtype)
    assert moved(M).dtype == dtype
    assert module(torch.ones(40, 3, dtype=torch.int64)).dtype == torch.float32
    assert module(torch.ones(40, 3, dtype=torch.float64)).dtype == torch.float64
    assert module(np.ones((40, 3), np.float32)).dtype == torch.float32


@every_tie_break
def test_frames_do_not_disturb_each_other(tie_break: str) -> None:
    module, M = InverseMelScale(201, 40, tie_break=tie_break), torch.rand(40, 20)
    X = module(M)
    odd = M.clone()
    odd[:, 3] = 0
    odd[:, 5] *= -1
    odd[7, 8] = math.nan
    odd[9, 11] = math.inf
    with pytest.warns(RuntimeWarning, match="2 of 20 .* did not reach the tolerance 1e-06, or are not finite") as found:
        Y, outcome = module(odd, return_outcome=True)
    assert found[0].filename == __file__
    same = [t for t in range(20) if t not in (3, 5, 8, 11)]
    assert torch.equal(Y[:, same], X[:, same])
    assert (Y[:, [3, 5]] == 0).all()
    assert Y[:, [8, 11]].isnan().all()
    assert (outcome[[8, 11]] == FAILED).all()
    assert (outcome[[*same, 3, 5]] != FAILED).all()


@every_tie_break
def test_more_mels_than_frequencies(tie_break: str) -> None:
    with pytest.warns(UserWarning, match="of 128 mel filters contain no frequency"):
        module = InverseMelScale(65, 128, tie_break=tie_break)
    S = torch.rand(65, 9)
    M = module.fb.mT @ S
    X = module(M)
    assert X.isfinite().all()
    assert optimality(X, M, module.fb).max() <= 1e-5
    X, outcome = module(torch.rand(128, 9), return_outcome=True)  # mels in triangles without a frequency
    assert X.isfinite().all()
    assert (outcome != FAILED).all()


# --- arguments


def test_state_and_representation() -> None:
    module = InverseMelScale(201, 40, f_min=20.0, norm="slaney")
    assert torch.equal(module.fb, melscale_fbanks(201, 20.0, 8000.0, 40, 16000, "slaney", "htk"))
    assert list(module.state_dict()) == ["fb"]
    other = InverseMelScale(201, 40)
    other.load_state_dict(MelScale(40, f_min=20.0, norm="slaney").state_dict())
    assert torch.equal(other(torch.ones(40, 2)), module(torch.ones(40, 2)))
    default = InverseMelScale(1025)
    assert default.fb.shape == (1025, 128)
    names = "norm=None, mel_scale='htk', solver='auto', tie_break='min_norm'"
    assert repr(default) == f"InverseMelScale(128, sample_rate=16000, f_min=0, f_max=8000, {names})"
    assert module.to("meta")(torch.empty(2, 40, 4, device="meta")).shape == (2, 201, 4)


def test_driver_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="driver='gelsd' does nothing: .* plain least squares") as found:
        module = InverseMelScale(201, 40, 16000, 0.0, None, None, "htk", "gelsd")
    assert found[0].filename == __file__
    M = torch.rand(40, 3)
    assert torch.equal(module(M), InverseMelScale(201, 40)(M))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InverseMelScale(201, 40)


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: InverseMelScale(201, 40, f_max=0.0), "f_min and f_max must rise from 0 or above, got f_min 0.0, f_max 0"),
    (lambda: InverseMelScale(201, 40, f_min=8000.0), "f_min and f_max must rise .* got f_min 8000.0, f_max 8000"),
    (lambda: InverseMelScale(1, 40), "n_freqs must be at least 2, got 1"),
    (lambda: InverseMelScale(201, 0), "n_mels must be at least 1, got 0"),
    (lambda: InverseMelScale(201, 40, norm="area"), "norm must be None or 'slaney'"),
    (lambda: InverseMelScale(201, 40, mel_scale="bark"), "mel_scale must be one of htk, slaney; got 'bark'"),
    (lambda: InverseMelScale(201, 40, solver="lbfgs"), "solver must be one of auto, newton, .*; got 'lbfgs'"),
    (lambda: InverseMelScale(201, 40, tie_break="smooth"), "tie_break must be one of min_norm, entropy; got 'smooth'"),
    (
        lambda: InverseMelScale(201, 40, solver="projected_gradient", tie_break="entropy"),
        "solver must be 'auto' or 'newton' for tie_break='entropy', got 'projected_gradient'",
    ),
    (lambda: InverseMelScale(201, 40, tol=0.0), "tol must be positive and finite, got 0.0"),
    (lambda: InverseMelScale(201, 40, tol=math.nan), "tol must be positive and finite, got nan"),
    (lambda: InverseMelScale(201, 40)(torch.ones(41, 4)), r"the shape \(..., n_mels = 40, time\), got \[41, 4\]"),
    (lambda: InverseMelScale(201, 40)(torch.ones(40)), r"melspec must have the shape .* got \[40\]"),
    (
        lambda: InverseMelScale(201, 40)(torch.ones(40, 4, device="meta")),
        "melspec must be on the device of the module, got meta and cpu",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_value_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InverseMelScale(201.0), "n_freqs must be an integer, got 201.0"),
        (lambda: InverseMelScale(201, 40)(torch.ones(40, 4) + 1j), "melspec must be real, .* got torch.complex64"),
        (lambda: InverseMelScale(201, 40)("x"), "melspec must be a tensor"),
    ],
)
def test_type_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


# --- derivatives and transforms


def small(tie_break: str, **options: Any) -> InverseMelScale:
    return InverseMelScale(17, 5, 8000, tie_break=tie_break, **options).double()


def with_weights(module: InverseMelScale, weights: Tensor, M: Tensor) -> Tensor:
    """Triangles of other heights; what is 0 must stay 0."""
    X: Tensor = torch.func.functional_call(module, {"fb": module.fb * weights}, (M,))
    return X


@every_tie_break
@pytest.mark.parametrize("inside", [True, False])
def test_gradients(tie_break: str, inside: bool) -> None:
    module = small(tie_break, tol=1e-13)
    M = module.fb.mT @ torch.rand(17, 3, dtype=torch.float64) if inside else torch.rand(5, 3, dtype=torch.float64) + 0.1
    weights = torch.rand(17, 5, dtype=torch.float64) + 0.5
    arguments = (weights.requires_grad_(), M.requires_grad_())

    def run(weights: Tensor, M: Tensor) -> Tensor:
        return with_weights(module, weights, M)

    assert torch.autograd.gradcheck(run, arguments, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, arguments, check_fwd_over_rev=True)


@every_tie_break
def test_gradient_of_a_learnable_filterbank(tie_break: str) -> None:
    module = InverseMelScale(201, 40, tie_break=tie_break)
    target = torch.rand(201, 6)
    M = MelScale(40)(target)
    fb = torch.nn.Parameter(module.fb * 1.3)
    del module.fb
    module.fb = fb
    loss = (module(M) - target).square().mean()
    loss.backward()
    assert fb.grad is not None
    with torch.no_grad():
        fb -= 0.1 * fb.grad * (fb > 0)
    assert (module(M) - target).square().mean() < loss


@every_tie_break
def test_silence_has_gradient_0(tie_break: str) -> None:
    module, M = InverseMelScale(201, 40, tie_break=tie_break), torch.rand(40, 5)
    M[:, 2] = 0
    M[10:, 3] = 0
    M.requires_grad_()
    (g,) = torch.autograd.grad(module(M).square().sum(), M)
    assert g.isfinite().all()
    assert (g[:, 2] == 0).all()
    assert (g[:, [0, 1, 4]] != 0).any(0).all()


@every_tie_break
def test_vmap_and_jvp(tie_break: str) -> None:
    module = small(tie_break)
    M, tangent = module.fb.mT @ torch.rand(3, 17, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    X = module(M)
    assert_close(torch.vmap(module)(M), X)
    assert_close(torch.vmap(module, in_dims=1, out_dims=2)(M.movedim(0, 1)), X.movedim(0, 2))
    per_item = torch.vmap(torch.func.grad(lambda m: module(m).square().sum()))(M)
    leaf = M.clone().requires_grad_()
    (g,) = torch.autograd.grad(module(leaf).square().sum(), leaf)
    assert_close(per_item, g)
    primal, pushed = torch.func.jvp(module, (M,), (tangent,))
    assert_close(primal, X)
    assert_close((pushed * 2 * X).sum(), (g * tangent).sum())


@every_tie_break
def test_inference_mode_and_autocast(tie_break: str) -> None:
    module, M = InverseMelScale(201, 40, tie_break=tie_break), torch.rand(40, 6)
    X = module(M)
    with torch.inference_mode():
        assert torch.equal(module(M), X)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(module(M), X, rtol=1e-3, atol=0.05 * float(X.max()))  # E is a product


@every_tie_break
def test_compiled(tie_break: str) -> None:
    """One graph, for any number of frames, with its derivatives."""
    module = InverseMelScale(201, 40, tie_break=tie_break)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for frames in (5, 9):
        M = MelScale(40)(torch.rand(2, 201, frames)).requires_grad_()
        X, expected = compiled(M), module(M)
        assert_close(X, expected, rtol=1e-4, atol=1e-5)
        g, gradient = (torch.autograd.grad(one.square().sum(), M)[0] for one in (X, expected))
        assert_close(g, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    X, outcome = compiled(M, return_outcome=True)
    assert outcome.shape == (2, 9)


@every_tie_break
@pytest.mark.parametrize("strict", [False, True])
def test_export(tie_break: str, strict: bool) -> None:
    module = InverseMelScale(201, 40, tie_break=tie_break)
    program = torch.export.export(
        module, (torch.rand(2, 40, 5),), dynamic_shapes={"melspec": {2: torch.export.Dim("time")}}, strict=strict
    )
    M = torch.rand(2, 40, 12)
    assert_close(program.module()(M), module(M))


def test_errors_in_a_graph() -> None:
    compiled = torch.compile(InverseMelScale(201, 40), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="n_mels = 40"):
        compiled(torch.ones(41, 4))
