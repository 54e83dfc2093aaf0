"""Sound files in and out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import soundfile  # type: ignore[import-untyped]
import torch
from torch import Tensor

from torch_iir.demo import DemoError, signals

LONGEST = 10.0  # seconds of a file that are used: enough to learn from, and the demo stays short
SHORTEST = 4096  # samples
PEAK = 0.9  # of full scale


@dataclass(frozen=True)
class Sound:
    samples: Tensor  # mono, float32
    sample_rate: int
    title: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def rendered() -> Sound:
    rate = 16000
    samples = torch.cat([signals.chirp(2.0, rate), signals.pluck(220.0, 2.0, rate)])
    return Sound(samples.float(), rate, "a chirp 1 → 1000 Hz and a plucked string, rendered here")


def read(file: Path) -> Sound:
    """The beginning of a sound file, its channels averaged."""
    if not file.is_file():
        raise DemoError(f"{file}: {'not a file' if file.exists() else 'no such file'}")
    try:
        with soundfile.SoundFile(file) as opened:
            rate, frames, channels = opened.samplerate, opened.frames, opened.channels
            samples = torch.from_numpy(opened.read(int(LONGEST * rate), dtype="float32", always_2d=True)).mean(1)
    except (soundfile.SoundFileError, OSError) as error:
        raise DemoError(f"{file}: cannot be read as sound: {error}") from None
    if len(samples) < SHORTEST:
        raise DemoError(f"{file}: at least {SHORTEST} samples are needed, it has {len(samples)}")
    if not samples.isfinite().all():
        raise DemoError(f"{file}: has samples that are not finite")
    if not samples.any():
        raise DemoError(f"{file}: is silent")
    mixed = f", {channels} channels mixed to one" if channels > 1 else ""
    cut = f", the first {LONGEST:g} s of {frames / rate:.1f} s" if len(samples) < frames else ""
    return Sound(samples, rate, f"{file.name}{mixed}{cut}")


def write(folder: Path, sounds: dict[str, Tensor], sample_rate: int) -> list[Path]:
    """One WAV file per sound; all are turned down together if one would clip, so that they compare by ear."""
    loudest = max(float(samples.abs().max()) for samples in sounds.values())
    gain = min(1.0, PEAK / loudest)
    files = []
    for name, samples in sounds.items():
        files.append(folder / f"{name}.wav")
        soundfile.write(files[-1], (gain * samples).numpy(), sample_rate)
    return files
