"""The demo as a user runs it, on short sounds, and what it is made of."""

from __future__ import annotations

import functools
import io
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

import torch_iir.demo
from torch_iir.demo.__main__ import main
from torch_iir.functional import all_pole_digital_filter
from torch_iir.nn._stable import LIMIT, denominator, unfolded
from torch_iir.signal import freqz, lfilter, sosfilt

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from torch_iir.demo import (  # noqa: E402  (they need what was looked for above)
    backend,
    bank,
    eq,
    lpc,
    match,
    measures,
    mel,
    peers,
    plots,
    signals,
    sound,
    timing,
    training,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the demo does
    yield
    torch.set_num_threads(threads)


def music(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    strings = [signals.pluck(f, seconds, rate, seed=channel).numpy() for channel, f in enumerate((220, 330)[:channels])]
    return np.stack(strings, 1)


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    once = functools.partial(timing.interleaved, turn=0.0)
    monkeypatch.setattr(timing, "interleaved", lambda candidates, turns: once(candidates, turns=1))
    monkeypatch.setattr(sound, "LONGEST", 0.6)


def check_written(folder: Path, wavs: dict[str, int], plots: set[str], rate: int) -> None:
    assert {path.name for path in folder.iterdir()} == {f"{name}.wav" for name in wavs} | plots
    for name, length in wavs.items():
        samples, found = soundfile.read(folder / f"{name}.wav")
        assert (found, samples.shape) == (rate, (length,))
        assert 0 < np.abs(samples).max() <= sound.PEAK + 1e-4
    for name in plots:
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_match(
    rate: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(match, "STEPS", 20)
    monkeypatch.setattr(match, "LOOP_SAMPLES", 1024)
    quick(monkeypatch)
    monkeypatch.setattr(sound, "LONGEST", 4800 / rate)  # compiled once for both rates
    soundfile.write(tmp_path / "music.wav", music(rate, 0.75, channels), rate)

    assert main(["match", str(tmp_path / "music.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "0 graph breaks" in printed
    assert f"the first {sound.LONGEST:g} s of 0.8 s" in printed
    assert ("2 channels mixed to one" in printed) == (channels == 2)
    assert "extrapolated" in printed

    wavs = dict.fromkeys(("input", "target", "before", "after"), 4800)
    check_written(tmp_path / "out", wavs, {"waveform.png", "response.png", "loss.png"}, rate)


def test_eq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(eq, "STEPS", 20)
    monkeypatch.setattr(eq, "BANDS", 3)
    soundfile.write(tmp_path / "music.wav", music(22050, 0.75), 22050)
    assert main(["eq", str(tmp_path / "music.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "0 graph breaks" in printed
    assert "extrapolated" in printed
    assert "Not found to 0.5 dB" in printed  # nor can it be, in 20 steps
    wavs = dict.fromkeys(("input", "target", "before", "after"), int(0.6 * 22050))
    check_written(tmp_path / "out", wavs, {"response.png", "loss.png"}, 22050)


@pytest.mark.parametrize("file", [False, True])
def test_bank(file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick(monkeypatch)
    for name, value in {"STEPS": 10, "HELD_OUT": 40, "FILTERS": 24, "LOOP_SAMPLES": 20}.items():
        monkeypatch.setattr(bank, name, value)
    soundfile.write(tmp_path / "music.wav", music(11025, 0.75), 11025)
    given = [str(tmp_path / "music.wav")] if file else []
    assert main(["bank", *given, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert ("below music.wav" if file else "below white noise") in printed
    assert "0 graph breaks" in printed
    assert "extrapolated" in printed
    check_written(tmp_path / "out", {"note": 16000, "clip": 16000}, {"response.png", "learning.png"}, bank.RATE)


@pytest.mark.parametrize(("rate", "librosa"), [(44100, True), (8000, False)])
def test_mel(
    rate: int, librosa: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(mel, "ITERATIONS", 4)
    monkeypatch.setattr(mel, "find_spec", lambda name: librosa or None)
    monkeypatch.setattr(peers, "inverse_mel_librosa", peers.inverse_mel_lstsq)
    soundfile.write(tmp_path / "music.wav", music(rate, 0.75), rate)
    assert main(["mel", str(tmp_path / "music.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    rows = {title: line for line in printed.splitlines() for title in mel.TITLES.values() if title in line}
    assert rows.keys() == set(mel.TITLES.values()) - (set() if librosa else {"librosa.util.nnls"})
    errors = {title: float(line.removeprefix(f"{'':10}{title}").split()[3]) for title, line in rows.items()}
    assert errors["minimum norm"] < 1e-5 < errors["lstsq + relu"]
    names = ["input", "entropy", "min_norm", "lstsq", *(["librosa"] if librosa else [])]
    check_written(tmp_path / "out", dict.fromkeys(names, int(0.6 * rate)), {"spectra.png"}, rate)


@pytest.mark.parametrize("rate", [100, 192_000])
def test_mel_at_any_rate(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(mel, "ITERATIONS", 1)
    monkeypatch.setattr(mel, "find_spec", lambda name: None)
    monkeypatch.setattr(sound, "LONGEST", 100.0)
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(sound.SHORTEST), rate)
    assert main(["mel", str(tmp_path / "noise.wav"), "--out", str(tmp_path / "out")]) == 0


def test_lpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(lpc, "STEPS", 6)
    monkeypatch.setattr(lpc, "find_spec", lambda name: None)
    soundfile.write(tmp_path / "voice.wav", signals.voice(0.75, 8000).numpy(), 8000)
    assert main(["lpc", str(tmp_path / "voice.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "120 frames of 40 samples, order 10" in printed
    assert "0 graph breaks" in printed
    assert "extrapolated" in printed
    assert "torchlpc" not in printed
    assert "Not converged" in printed  # nor can it be, in 2 rounds of 6 steps
    wavs = dict.fromkeys(("original", "before", "after"), 4800)
    check_written(tmp_path / "out", wavs, {"spectra.png", "loss.png"}, 8000)


@pytest.mark.parametrize("file", [False, True])
def test_backend(
    file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch)
    for name, value in {"CLIPS": 2, "SAMPLES": 500, "FILTERS": 4, "SECTIONS": 3}.items():
        monkeypatch.setattr(backend, name, value)
    # Inductor is what takes long.
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lambda graph, *_, **options: graph.forward)
    monkeypatch.setattr(backend, "find_spec", lambda name: name if file else None)
    monkeypatch.setattr(backend, "import_module", lambda name: torch_iir.functional)
    soundfile.write(tmp_path / "music.wav", music(8000, 0.55), 8000)
    given = [str(tmp_path / "music.wav")] if file else []
    assert main(["backend", *given, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f": 2 clips of 500 samples at {8000 if file else 16000} Hz" in printed
    for title in ("4 filters in a loop", "3 sections in a chain", "a filter there and back"):
        assert (f"{title}, by functions of torchaudio.functional:" in printed) == file
        assert f"{title}, by functions of torch_iir.functional:\n1 graph, no graph break, saves about" in printed
    assert printed.count("differs from eager by ") == 3
    assert "That is too much" not in printed
    assert printed.count("× the time") == 3
    check_written(tmp_path / "out", {}, {"steps.png"}, 0)


def test_backend_that_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    monkeypatch.setattr(torch_iir, "compile", lambda model, **_: lambda x: 1.001 * model(x))
    backend.compared(backend.Chain(torch_iir.functional.lfilter), torch.randn(2, 50))
    assert "That is too much" in capsys.readouterr().out


@pytest.mark.parametrize(("rate", "seconds"), [(44_100, 0.3), (11_400, 0.4), (500, 10.0)])
def test_lpc_at_any_rate(
    rate: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(sound, "LONGEST", 10.0)
    monkeypatch.setattr(lpc, "STEPS", 2)
    monkeypatch.setattr(lpc, "compile_whole", lambda *arguments: "not compiled here")
    monkeypatch.setattr(lpc, "find_spec", lambda name: True)
    monkeypatch.setattr(lpc, "all_pole_torchlpc", all_pole_digital_filter)
    noise = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), 2))
    soundfile.write(tmp_path / "noise.wav", noise, rate)
    assert main(["lpc", str(tmp_path / "noise.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert ("resampled from 44100 Hz: 0.3 s at 16000 Hz" in printed) == (rate == 44_100)
    assert "torchlpc" in printed


def test_lpc_of_too_short_a_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(5000), 48_000)
    assert main(["lpc", str(tmp_path / "noise.wav"), "--out", str(tmp_path / "out")]) == 2
    assert "at least 0.2 s are needed, it has 0.104 s" in capsys.readouterr().err


def test_equaliser_is_found() -> None:
    """Where there is sound everywhere."""
    rate = 16000
    x = torch.randn(rate)
    unknown, model = eq.unknown_equaliser(rate), eq.equaliser(rate)
    with torch.no_grad():
        target = unknown(x)
    step = training.training_step(training.Objective(model, target), 250, eq.LEARNING_RATE)
    training.train(lambda _: step(x), 250)
    frequencies = torch.logspace(2, 3.9, 200).double()
    before, after, true = (eq.response(each, frequencies) for each in (eq.equaliser(rate), model, unknown))
    assert eq.rms(before - true) > 3
    assert eq.rms(after - true) < 0.2


def test_bank_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "FILTERS", 48)
    monkeypatch.setattr(bank, "SNR", -14.0)
    monkeypatch.setattr(bank, "STEPS", 80)
    clips = bank.Clips(None)
    objective = bank.Objective(bank.Listener())
    held_out = clips(200)
    assert bank.accuracy(objective.listener, held_out) < 0.3  # chance is 0.08
    width = bank.bandwidths(objective.listener.bank)
    step = training.training_step(objective, bank.STEPS, 0.02)
    training.train(lambda _: step(*clips(bank.BATCH)), bank.STEPS)
    assert bank.accuracy(objective.listener, held_out) > 0.6
    assert bank.bandwidths(objective.listener.bank) < width


def test_clips_have_the_level_that_they_say() -> None:
    for heard in (None, sound.rendered()):
        clips = bank.Clips(heard)
        assert float(clips.background(300).square().mean()) == pytest.approx(1, rel=0.1)
        notes = clips.notes(torch.arange(len(bank.NOTES)))
        assert_close(10 * notes.square().mean(-1).log10(), torch.full((12,), bank.SNR), rtol=0, atol=0.1)
        spectrum = torch.fft.rfft(notes, 8 * bank.SAMPLES).abs()[:, : 2 * 850]  # of the lowest partial, by 0.5 Hz
        assert_close(spectrum.argmax(-1) / 2, 440 * 2 ** (torch.arange(12) / 12), rtol=0, atol=1.0)


def test_training_finds_the_filter() -> None:
    x = sound.rendered().samples
    true = match.unknown_filter()
    model = match.Sections(match.SEED)
    objective = training.Objective(model, lfilter(*true, x))
    step = training.training_step(objective, match.STEPS, match.LEARNING_RATE)
    losses = training.train(lambda _: step(x), match.STEPS)
    assert losses[-1] < 1e-8 * losses[0]
    for these, those in zip(true, model.coefficients(), strict=True):
        assert_close(those, these, rtol=0, atol=1e-5)


def test_model_cannot_become_unstable() -> None:
    model = match.Sections(0)
    with torch.no_grad():
        for parameter in (model.poles, model.zeros):
            parameter.copy_(torch.tensor([[12.0, 12.0], [-12.0, 12.0]]))
    for coefficients in model.coefficients():
        assert np.abs(np.roots(coefficients.detach().numpy())).max() < 1


@pytest.mark.parametrize("peer", [peers.lfilter_loop, peers.lfilter_scipy])
def test_peers_compute_the_same(peer: match.Filter) -> None:
    b, a = (c.requires_grad_() for c in match.unknown_filter())
    x = torch.randn(60, dtype=torch.float64, requires_grad=True)
    assert_close(peer(b, a, x), lfilter(b, a, x))

    def of_monic(b: torch.Tensor, rest: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return peer(b, torch.cat([torch.ones(1, dtype=rest.dtype), rest]), x)

    assert torch.autograd.gradcheck(of_monic, (b, a.detach()[1:].requires_grad_(), x))


def test_loop_takes_batches_and_cascades() -> None:
    sos = eq.unknown_equaliser(16000).sos().detach()
    x = torch.randn(2, 1, 40, dtype=torch.float64)
    b, a = sos[:, :3], sos[:, 3:]
    assert_close(peers.lfilter_loop(b, a, x), lfilter(b, a, x))
    assert_close(peers.sosfilt_loop(sos, x), sosfilt(sos, x))


@pytest.mark.parametrize("peer", [peers.all_pole_loop, peers.all_pole_torchlpc])
def test_all_pole_peers_compute_the_same(peer: lpc.Synthesis) -> None:
    if peer is peers.all_pole_torchlpc:
        pytest.importorskip("torchlpc")
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    a = (0.2 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    assert_close(peer(x, a, 5), all_pole_digital_filter(x, a, 5))
    assert torch.autograd.gradcheck(lambda x, a: peer(x, a, 5), (x, a))


def test_inverse_mel_by_least_squares() -> None:
    fb, x = torch.rand(9, 4, dtype=torch.float64), torch.rand(9, 3, dtype=torch.float64)
    expected = (torch.linalg.pinv(fb.mT) @ (fb.mT @ x)).relu()
    assert_close(peers.inverse_mel_lstsq(fb, fb.mT @ x), expected)
    fb[:, 0] = 0  # an empty mel, where the usual driver raises
    expected = (torch.linalg.pinv(fb.mT) @ (fb.mT @ x)).relu()
    assert_close(peers.inverse_mel_lstsq(fb, fb.mT @ x), expected)


def test_inverse_mel_by_librosa() -> None:
    pytest.importorskip("librosa")
    fb, x = torch.eye(5), torch.rand(5, 3)
    assert_close(peers.inverse_mel_librosa(fb, x), x)


# --- speech by linear prediction


def test_levinson_solves_the_normal_equations() -> None:
    x = torch.randn(3, 64, dtype=torch.float64)
    correlation = torch.fft.irfft(torch.fft.rfft(x, 128).abs().square())[:, :7]
    reflection, error = lpc.levinson(correlation)
    assert reflection.abs().max() < 1
    for row, k, power in zip(correlation, reflection, error, strict=True):
        a = scipy.linalg.solve_toeplitz(row[:6].numpy(), -row[1:].numpy())
        assert_close(float(row[0] + row[1:] @ torch.from_numpy(a)), float(power))
        found = denominator(LIMIT * unfolded(k.atanh(), -LIMIT, LIMIT), 1.0)
        assert_close(found[1:], torch.from_numpy(a))


def test_analysis_finds_the_filter() -> None:
    """That of noise through one filter, up to the bandwidth that is added."""
    a = torch.from_numpy(np.poly([0.9 * np.exp(0.7j), 0.9 * np.exp(-0.7j), 0.8 * np.exp(2j), 0.8 * np.exp(-2j)]).real)
    x = 3 * lfilter([1.0], a, torch.randn(32_000, generator=torch.Generator().manual_seed(0)))
    frames = lpc.Speaker(x, 2000, 10).frames().detach()
    assert frames.shape == (3200, 5)
    wider = a * math.exp(-math.pi * lpc.BANDWIDTH / 2000) ** torch.arange(5)
    assert_close(frames.mean(0), torch.cat([torch.tensor([3.0]).double(), wider[1:]]), rtol=0, atol=0.2)


def test_residual_gives_the_sound_back() -> None:
    x = signals.voice(0.5, 16000).float()
    frames = lpc.Speaker(x, 16000, 80).frames().detach()
    residual = lpc.inverse_filter(x, frames, 80)
    assert_close(all_pole_digital_filter(residual, frames, 80), x.double(), rtol=0, atol=1e-10)
    assert float(residual.square().mean()) == pytest.approx(1, rel=0.5)


def test_pitch_and_excitation() -> None:
    rate = 16000
    breath = 0.01 * torch.randn(rate, generator=torch.Generator().manual_seed(0))
    pulses = (torch.arange(rate) % 125 == 0).float() + breath
    pitch, voiced = lpc.find_pitch(pulses, rate, 80)
    assert pitch[5:-5] == pytest.approx(128, abs=1)
    assert voiced[5:-5].min() > 0.99
    _, voiced = lpc.find_pitch(breath, rate, 80)
    assert voiced.mean() < 0.05
    for x in (pulses, breath):
        excitation = lpc.Excitation(x, rate, 80)(torch.Generator().manual_seed(0))
        assert float(excitation.square().mean()) == pytest.approx(1, rel=0.05)


def test_refinement_of_speech() -> None:
    x, rate, period = signals.voice(0.5, 8000).float(), 8000, 40
    excitation = lpc.Excitation(x, rate, period)
    objective = lpc.Objective(lpc.Speaker(x, rate, period), x, rate)
    test, noise = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    drive = excitation(test)
    before = float(objective(drive).detach())
    step = training.training_step(objective, 60, lpc.LEARNING_RATE)
    training.train(lambda _: step(excitation(noise)), 60)
    assert float(objective(drive).detach()) < 0.9 * before
    a = objective.model.frames().detach()[:, 1:]
    roots = np.concatenate([np.roots([1, *row]) for row in a.numpy()])
    assert np.abs(roots).max() <= objective.model.radius + 1e-9


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        ((1.0, 0.6, 0.5), "Not converged"),
        ((1.0, 0.505, 0.5), ""),
        ((1.0, 0.99, 0.98), "Not refined"),
        ((1.0, math.nan, math.nan), "Not refined"),
    ],
)
def test_says_whether_it_converged(tested: tuple[float, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    lpc.print_convergence(tested)
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(said) == bool(printed)


def test_formants_and_envelope() -> None:
    rate = 8000
    radius = math.exp(-math.pi * 100 / rate)  # 100 Hz wide
    poles = [radius * np.exp(2j * np.pi * f / rate) for f in (500, 1500)]
    a = torch.from_numpy(np.poly([*poles, *np.conj(poles), 0.5, 0.1 + 0.1j, 0.1 - 0.1j]).real)
    frame = torch.cat([torch.tensor([2.0]).double(), a[1:]])
    index, hertz = plots.formants(torch.stack([frame, frame]), rate)
    assert index.tolist() == [0, 0, 1, 1]
    assert sorted(hertz[:2]) == pytest.approx([500, 1500])
    w, response = freqz([2.0], a, 9, include_nyquist=True)
    assert len(w) == 9
    assert plots.envelope_db(frame, 8) == pytest.approx(20 * response.abs().log10().numpy())


# --- how good an inversion is


def test_kkt_error() -> None:
    A = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    B = torch.tensor([[4.0, -3.0, 0.0], [1.0, 1.0, 0.0]])
    best = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert measures.kkt_error(A, B, best).tolist() == [0, 0, 0]
    # The gradient −8 of the unknown that is 0, of max Aᵀ|b| = 8; L x = 4 of the one that must be 0, of 6.
    worse = torch.tensor([[0.0, 1.0, 0.25], [1.0, 1.0, 0.0]])
    assert_close(measures.kkt_error(A, B, worse), torch.tensor([1.0, 4 / 6, 1.0]).double())
    assert measures.residual(A, B, best) == pytest.approx(3 / math.sqrt(27))


def test_log_spectral_distance() -> None:
    true = torch.tensor([[1.0, 1e-3, 0.0], [1.0, 1e-6, 0.0]])
    assert measures.log_spectral_distance(true, true) == 0
    assert measures.log_spectral_distance(true, 10 * true) == pytest.approx(10)  # the silent frame does not count
    found = torch.tensor([[1.0, 1e-3, 5.0], [1.0, 1e-30, 5.0]])  # 20 dB in one of two frequencies of the second frame
    assert measures.log_spectral_distance(true, found) == pytest.approx(20 / math.sqrt(2) / 2)


# --- signals


def test_chirp_rises_as_it_says() -> None:
    chirp = signals.chirp(2.0, 16000, first=1.0, last=1000.0)
    begins = (chirp[:-1] <= 0) & (chirp[1:] > 0)  # of periods: the phase after t seconds is t + 999 t² / 4
    assert int(begins[:16000].sum()) == 251
    assert int(begins.sum()) == 1001


def test_pluck_has_its_pitch() -> None:
    string = signals.pluck(220.0, 1.0, 16000).numpy()
    spectrum = np.abs(np.fft.rfft(string))
    assert abs(int(spectrum[150:300].argmax()) + 150 - 220) <= 2


def strongest(samples: np.ndarray, rate: int, low: float = 20.0) -> float:
    """The frequency of most power, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    first = int(low * len(samples) / rate)
    return float((first + spectrum[first:].argmax()) * rate / len(samples))


def test_music_has_its_notes() -> None:
    rate = 16000
    assert strongest(signals.note(69, 1.0, rate, attack=0.02, decay=0.3).numpy(), rate) == pytest.approx(440, abs=2)
    music = signals.music(3.0, rate)
    assert (len(music), float(music.abs().max())) == (3 * rate, 0.5)
    assert_close(music, signals.music(3.0, rate))  # every time the same
    bass = 440 * 2 ** ((signals.CHORDS[0][0] - 12 - 69) / 12)
    assert strongest(music[:8000].numpy(), rate) == pytest.approx(bass, abs=4)


def test_voice_pauses_and_has_a_pitch() -> None:
    rate = 16000
    voice = signals.voice(5.0, rate)
    assert (len(voice), float(voice.abs().max())) == (5 * rate, 0.5)
    assert_close(voice, signals.voice(5.0, rate))
    syllables = voice[: 24 * 3200].view(24, 3200).square().mean(-1)  # SYLLABLE is 0.2 s
    assert float(syllables[[10, 22]].max()) < 1e-3 * float(syllables[[1, 2, 3, 13, 14]].min())
    piece = voice[3200:4800].numpy()
    lags = np.correlate(piece, piece, "full")[len(piece) - 1 :]
    period = rate / 250 + lags[rate // 250 : rate // 60].argmax()
    assert 90 < rate / period < 150


def test_speech_without_a_synthesiser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    speech, who = signals.speech(0.5, 8000)
    assert who == "a synthesised voice"
    assert_close(speech, signals.voice(0.5, 8000))


def test_speech_by_espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as needed, and at the rate that was asked for, from what takes its place here."""
    said = io.BytesIO()
    soundfile.write(said, np.sin(2 * np.pi * 441 * np.arange(8820) / 22050), 22050, format="WAV", subtype="PCM_16")
    (tmp_path / "said.wav").write_bytes(said.getvalue())
    program = tmp_path / "espeak-ng"
    program.write_text(f"#!/bin/sh\ncat {shlex.quote(str(tmp_path / 'said.wav'))}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    speech, who = signals.speech(1.5, 16000)
    assert who == "espeak-ng"
    assert (len(speech), float(speech.abs().max())) == (24000, 0.5)
    assert strongest(speech.numpy(), 16000) == pytest.approx(441, abs=1)


def write_noise(file: Path, samples: np.ndarray) -> None:
    soundfile.write(file, samples, 8000, subtype="FLOAT")


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    write_noise(tmp_path / "short.wav", np.ones(100))
    write_noise(tmp_path / "silent.wav", np.zeros(5000))
    write_noise(tmp_path / "nan.wav", np.full(5000, np.nan))
    for name, what in {
        "missing.wav": "no such file",
        ".": "not a file",
        "text.wav": "cannot be read as sound",
        "short.wav": "at least 4096 samples",
        "silent.wav": "silent",
        "nan.wav": "not finite",
    }.items():
        assert main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("torch_iir.demo: ")
        assert what in printed.err
        assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_missing_dependency(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in list(sys.modules):
        if module.startswith("torch_iir.demo."):
            monkeypatch.delitem(sys.modules, module)
            monkeypatch.delattr(torch_iir.demo, module.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert main([]) == 2
    assert "needs soundfile: pip install 'torch_iir[demo]'" in capsys.readouterr().err


def test_two_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["one.wav", "two.wav"])
    assert exit.value.code == 2
    assert (
        "at most one demo (match, eq, bank, mel, lpc, backend) and one file, got one.wav two.wav"
        in capsys.readouterr().err
    )
