"""The demo as a user runs it, on short sounds, and what it is made of."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from torch_iir.demo.__main__ import main
from torch_iir.signal import lfilter

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from torch_iir.demo import match, peers, signals, sound, timing  # noqa: E402  (they need what was looked for above)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the demo does
    yield
    torch.set_num_threads(threads)


def music(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    strings = [signals.pluck(f, seconds, rate, seed=channel).numpy() for channel, f in enumerate((220, 330)[:channels])]
    return np.stack(strings, 1)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_match(
    rate: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(match, "STEPS", 20)
    monkeypatch.setattr(match, "LOOP_SAMPLES", 1024)
    monkeypatch.setattr(match, "interleaved", functools.partial(timing.interleaved, turns=1, turn=0.0))
    monkeypatch.setattr(sound, "LONGEST", 0.6)
    soundfile.write(tmp_path / "music.wav", music(rate, 0.75, channels), rate)

    assert main(["match", str(tmp_path / "music.wav"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "0 graph breaks" in printed
    assert "the first 0.6 s of 0.8 s" in printed
    assert ("2 channels mixed to one" in printed) == (channels == 2)
    assert "extrapolated" in printed

    written = {path.name for path in (tmp_path / "out").iterdir()}
    wavs = {f"{name}.wav" for name in ("input", "target", "before", "after")}
    assert written == wavs | {"waveform.png", "response.png", "loss.png"}
    for name in wavs:
        samples, found = soundfile.read(tmp_path / "out" / name)
        assert (found, samples.shape) == (rate, (int(0.6 * rate),))
        assert 0 < np.abs(samples).max() <= sound.PEAK + 1e-4
    for name in written - wavs:
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"


def test_training_finds_the_filter() -> None:
    x = match.rendered().samples
    true = match.unknown_filter()
    model = match.Sections(match.SEED)
    losses = match.train(match.Objective(model, lfilter(*true, x)), x)
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


def test_chirp_rises_as_it_says() -> None:
    chirp = signals.chirp(2.0, 16000, first=1.0, last=1000.0)
    begins = (chirp[:-1] <= 0) & (chirp[1:] > 0)  # of periods: the phase after t seconds is t + 999 t² / 4
    assert int(begins[:16000].sum()) == 251
    assert int(begins.sum()) == 1001


def test_pluck_has_its_pitch() -> None:
    string = signals.pluck(220.0, 1.0, 16000).numpy()
    spectrum = np.abs(np.fft.rfft(string))
    assert abs(int(spectrum[150:300].argmax()) + 150 - 220) <= 2


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
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert main([]) == 2
    assert "needs soundfile: pip install 'torch_iir[demo]'" in capsys.readouterr().err


def test_two_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["one.wav", "two.wav"])
    assert exit.value.code == 2
    assert "at most one demo (match) and one file, got one.wav two.wav" in capsys.readouterr().err
