"""The example of a plug-in: it keeps the promises of plans, and its own proofs of them notice what breaks them."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import foreign
import numpy as np
import pytest
import soundfile
import torch

from torch_iir import design
from torch_iir.signal import sosfilt

SOURCE = foreign.EXAMPLES / "realtime"
RATE = 48000
PLANTS = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "free", "new", "aligned-new")

pytestmark = [
    foreign.needs_cmake,
    pytest.mark.skipif(not SOURCE.exists(), reason="tests of an installed package have no examples beside them"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = foreign.build(SOURCE, tmp_path_factory.mktemp("realtime"), "-DCMAKE_CXX_FLAGS=-Werror")
    return build / "realtime"


def failing(program: Path, *arguments: object, code: int) -> str:
    """What a run says that ends with this exit code."""
    result = foreign.quietly(program, *arguments)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def number(name: str, printed: str) -> float:
    found = re.search(rf"^{re.escape(name)}:? +(\d[\d.e+-]*)", printed, re.MULTILINE)
    assert found, printed
    return float(found[1])


# --- the promises


@pytest.mark.parametrize(("channels", "block", "sections"), [(2, 64, 8), (1, 512, 1), (32, 64, 8), (3, 1, 2)])
def test_promises(program: Path, isa: str, channels: int, block: int, sections: int) -> None:
    shape = ("--channels", channels, "--block", block, "--sections", sections, "--seconds", 1)
    printed = foreign.run(program, *shape, environment={"TORCH_IIR_ISA": isa})
    assert f" on {isa}, " in printed
    assert number("allocations on the audio path", printed) == 0
    assert number("largest difference from filtering at once", printed) <= np.finfo(np.float32).eps
    microseconds = [number(name, printed) for name in ("p50", "p99", "max")]
    assert microseconds == sorted(microseconds)
    load = float(re.findall(r"([\d.]+) %", printed)[0])
    assert load == pytest.approx(100 * microseconds[0] / (1e6 * block / RATE), abs=0.001, rel=0.05)  # both are rounded


@pytest.mark.parametrize("plant", PLANTS)
def test_an_allocation_is_noticed(program: Path, plant: str) -> None:
    printed = failing(program, "--seconds", 1, "--plant", plant, code=1)
    assert number("allocations on the audio path", printed) == 1


def test_system_calls(program: Path, isa: str) -> None:
    result = foreign.quietly(program, "--seconds", 1, "--strict", environment={"TORCH_IIR_ISA": isa})
    if "no seccomp here" in result.stdout:
        pytest.skip("this system has no seccomp")
    assert result.returncode == 0
    assert "system calls in 1000 more blocks: none\n" in result.stdout
    printed = failing(program, "--seconds", 1, "--strict", "--plant", "system-call", code=1)
    assert "system calls in 1000 more blocks: AT LEAST ONE\n" in printed


def test_threads_give_the_same_bits(program: Path, tmp_path: Path) -> None:
    saved = [tmp_path / "1.wav", tmp_path / "3.wav"]
    for threads, path in zip((1, 3), saved, strict=True):
        shape = ("--channels", 40, "--block", 512, "--seconds", 1)
        printed = foreign.run(program, *shape, "--threads", threads, "--save", path)
        assert number("allocations on the audio path", printed) == 0
    assert saved[0].read_bytes() == saved[1].read_bytes()


# --- sounds


def bands(rate: int, turned: float | None = None) -> torch.Tensor:
    """The example's five bands, the third of which has a knob."""
    frequencies, gains = 60 * 200 ** torch.linspace(0, 1, 5, dtype=torch.float64), [6, -4, 6, -4, 6]
    if turned is not None:
        gains[2] = turned
    shelves = design.low_shelf(rate, frequencies[0], gains[0]), design.high_shelf(rate, frequencies[4], gains[4])
    peaks = [design.peaking(rate, frequencies[i], gains[i], Q=1.4) for i in (1, 2, 3)]
    return torch.cat([shelves[0], *peaks, shelves[1]], -2)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sound(program: Path, tmp_path: Path, kind: str, subtype: str, step: float, channels: int) -> None:
    rate, block, turn = 44100, 100, 2000
    x = 0.05 * np.random.default_rng(1234).standard_normal((3999, channels))  # the last block is not whole
    before, after = tmp_path / "before.wav", tmp_path / "after.wav"
    soundfile.write(before, x, rate, format=kind, subtype=subtype)
    foreign.run(program, before, "--sections", 5, "--block", block, "--turns", 1, "--save", after)

    x = torch.from_numpy(soundfile.read(before, dtype="float64", always_2d=True)[0].T.copy())
    first, state = sosfilt(bands(rate), x[:, :turn], zi=torch.zeros(5, channels, 2, dtype=torch.float64))
    second, _ = sosfilt(bands(rate, turned=12 * math.sin(1)), x[:, turn:], zi=state)
    expected = torch.cat([first, second], -1).numpy()
    assert np.abs(expected).max() < 1  # nothing is cut off
    info = soundfile.info(after)
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, subtype)
    y = soundfile.read(after, dtype="float64", always_2d=True)[0].T
    np.testing.assert_allclose(y, expected, rtol=0, atol=step / 2 + 1.01 * 2**-25)  # rounded to float, then to a step


def test_full_scale_is_cut_off(program: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.wav", tmp_path / "after.wav"
    square = np.where(np.arange(4800) // 400 % 2 == 0, 0.99, -0.99)
    soundfile.write(before, square, RATE, subtype="PCM_16")
    foreign.run(program, before, "--turns", 0, "--save", after)
    y = soundfile.read(after, dtype="int16")[0]
    assert (y.min(), y.max()) == (-32768, 32767)


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def fmt(tag: int = 1, channels: int = 2, rate: int = RATE, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits))


SAMPLES = chunk(b"data", bytes(64))
STRANGE = {
    "not a WAV file": [b"", b"RIFF", b"OggS" + bytes(60), wav(fmt(), SAMPLES).replace(b"WAVE", b"AVI ")],
    "no format chunk": [wav(SAMPLES), wav(SAMPLES, fmt()), wav(chunk(b"fmt ", bytes(15)), SAMPLES)],
    "no data chunk": [wav(), wav(fmt())],
    "no samples": [wav(fmt(), chunk(b"data", b""))],
    "last frame is not whole": [wav(fmt(), chunk(b"data", bytes(63)))],
    "only 16-bit and 24-bit PCM": [wav(fmt(bits=8), SAMPLES), wav(fmt(2), SAMPLES), wav(fmt(3, bits=64), SAMPLES)],
    "contradicts itself": [
        wav(fmt(channels=0), SAMPLES),
        wav(fmt(rate=0), SAMPLES),
        wav(fmt().replace(b"\4\0\x10\0", b"\5\0\x10\0"), SAMPLES),
    ],
    "sample 1 is not a number": [
        wav(fmt(3, channels=1, bits=32), chunk(b"data", struct.pack("<ff", 0.0, value)))
        for value in (math.nan, math.inf)
    ],
}


@pytest.mark.parametrize("sentence", STRANGE)
def test_strange_files(program: Path, tmp_path: Path, sentence: str) -> None:
    for number, content in enumerate(STRANGE[sentence]):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(content)
        said = failing(program, path, code=2)
        assert said.startswith(f"realtime: {path}: ")
        assert sentence in said


def test_files_cut_short(program: Path, tmp_path: Path) -> None:
    whole = wav(chunk(b"LIST", b"odd"), fmt(), SAMPLES, chunk(b"LIST", b"after the samples"))
    end = whole.index(SAMPLES) + len(SAMPLES)
    path = tmp_path / "short.wav"
    for length in (len(whole), end + 3, end):  # what comes after the samples is not read
        path.write_bytes(whole[:length])
        foreign.run(program, path)
    for length in (end - 1, end - len(SAMPLES) + 9, end - len(SAMPLES) + 7, whole.index(b"fmt ") + 12, 13, 12, 4):
        path.write_bytes(whole[:length])
        said = failing(program, path, code=2)
        assert "cut short" in said or "not a WAV file" in said, said


def test_silence(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    path.write_bytes(wav(fmt(), SAMPLES))
    assert number("largest difference from filtering at once", foreign.run(program, path)) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_such_file.wav"], "no_such_file.wav: No such file"),
        ([SOURCE], "realtime: "),  # a directory
        (["a.wav", "b.wav"], "one sound at a time"),
        (["a.wav", "--channels", 2], "are those of the file"),
        (["--channels", 0], "--channels must be a number from 1 to 1024, not 0"),
        (["--block", "64x"], "not 64x"),
        (["--block"], "lacks its value"),
        (["--loudness", 11], "no option --loudness"),
        (["--plant", "tree"], "not tree"),
        (["--plant", "system-call"], "it takes --strict"),
        (["--strict", "--threads", 2], "without --threads"),
        (["--seconds", 1, "--save", "/no/such/directory/sound.wav"], "cannot be written"),
    ],
)
def test_wrong_usage(program: Path, arguments: list[object], sentence: str) -> None:
    assert sentence in failing(program, *arguments, code=2)


def test_too_little_memory(program: Path) -> None:
    limited = 'ulimit -v 400000 && exec "$0" --channels 1024 --seconds 60'
    assert "too large for the memory" in failing(Path("sh"), "-c", limited, program, code=2)
