"""From mel spectra back to sound, by non-negative least squares and Griffin-Lim, against librosa with its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import torch_iir
from bench.compare import WrongOutputError
from bench.measure import INPUTS, Call
from bench.mels import HOP, N_FFT, RATE, SLANEY, SOUND, Mels
from bench.question import Figure, Question, Target
from torch_iir.demo.measures import power_spectra, residual

ITERATIONS = 32  # librosa's default
FRAMES, LIBROSA_FRAMES = 1465, 512  # an eighth, and what librosa solves for at once


def figures(quick: bool) -> Iterator[Figure]:
    job = Mels.of(SLANEY, quick)
    calls = (ours(job, min(FRAMES, job.frames)), *librosa(job, 8 if quick else LIBROSA_FRAMES))
    name = f"mel_to_audio, slaney, {ITERATIONS} iterations, {SOUND}"
    yield job.figure(name, calls, Target("speedup", 5, 10), outputs=(job.frames - 1) * HOP)


def middle(mel: Tensor, count: int) -> Tensor:
    """Where the first half of the sound, speech, becomes the second, music."""
    return mel.narrow(-1, (mel.shape[-1] - count) // 2, count).contiguous()


def ours(job: Mels, count: int) -> Call:
    mels = [middle(mel, count) for mel in job.turned]

    def run(n: int) -> Tensor:
        return torch_iir.mel_to_audio(
            mels[n % INPUTS], sample_rate=RATE, n_fft=N_FFT, hop_length=HOP, n_iter=ITERATIONS, **job.scale
        )

    return Call("torch_iir", run, lambda n: Sound(job.fb, mels[n]), share=count / job.frames)


def librosa(job: Mels, count: int) -> tuple[Call, ...]:
    def run(mel: Tensor) -> Any:
        to_audio = import_module("librosa").feature.inverse.mel_to_audio
        return to_audio(mel.numpy(), sr=RATE, n_fft=N_FFT, hop_length=HOP, n_iter=ITERATIONS)

    mel = middle(job.mel, count)
    return job.librosa(run, mel, Sound(job.fb, mel))


@dataclass(frozen=True)
class Sound:
    """A sound whose mel spectra are about these."""

    fb: Tensor
    mel: Tensor

    def compare(self, name: str, result: Any) -> str:
        y = torch.as_tensor(result).double()
        if y.shape != ((self.mel.shape[1] - 1) * HOP,):
            raise WrongOutputError(f"{name}: {list(y.shape)} samples for {self.mel.shape[1]} frames")
        off = residual(self.fb.mT, self.mel, power_spectra(y, N_FFT, HOP))
        if not off < 0.5:
            raise WrongOutputError(f"{name}: the mel spectra of its sound are off by {off:.0%}")
        return f"mel spectra of the sound of {name} off by {off:.0%}"


QUESTION = Question("speed", figures)
