"""Mel spectrograms of a sound, who inverts them, and how right that is: what the questions about them share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import torch_iir
from bench.compare import Judge, WrongOutputError
from bench.measure import INPUTS, Call
from bench.question import Figure, Target
from torch_iir.demo import measures, peers, signals
from torch_iir.demo.measures import kkt_error, residual

SECONDS, RATE, N_FFT, HOP, MELS = 136, 44_100, 2048, 512, 128
SOUND = f"float32, {SECONDS} s at {RATE / 1000} kHz, {N_FFT}/{HOP}/{MELS}"
HTK: dict[str, Any] = {"norm": None, "mel_scale": "htk"}
SLANEY: dict[str, Any] = {"norm": "slaney", "mel_scale": "slaney"}


@cache
def power_spectra(seconds: float) -> Tensor:
    """(frequencies, frames) of a sound, the first half speech, the second music."""
    sound = torch.cat([signals.speech(seconds / 2, RATE)[0], signals.music(seconds / 2, RATE)]).float()
    return measures.power_spectra(sound, N_FFT, HOP)


@dataclass(frozen=True)
class Mels:
    """A mel spectrogram, and calls that turn it back.

    Args:
        scale: the arguments norm and mel_scale.
        fb: the filterbank, (frequencies, mels).
        mel: (mels, frames).
    """

    scale: dict[str, Any]
    fb: Tensor
    mel: Tensor

    @classmethod
    def of(cls, scale: dict[str, Any], quick: bool) -> Mels:
        to_mel = torch_iir.transforms.MelScale(MELS, RATE, n_stft=N_FFT // 2 + 1, **scale)
        return cls(scale, to_mel.fb, to_mel(power_spectra(1 if quick else SECONDS)))

    @property
    def frames(self) -> int:
        return self.mel.shape[-1]

    @cached_property
    def turned(self) -> list[Tensor]:
        """The same frames, each time beginning with another."""
        return [self.mel.roll(n * self.frames // INPUTS, -1) for n in range(INPUTS)]

    def spread(self, count: int) -> Tensor:
        """Frames from all over the sound."""
        return self.mel[:, torch.arange(count) * self.frames // count]

    def ours(self, **options: Any) -> Call:
        invert = torch_iir.transforms.InverseMelScale(len(self.fb), MELS, RATE, **self.scale)
        return Call(
            "torch_iir",
            lambda n: invert(self.turned[n % INPUTS]),
            lambda n: Spectra(self.fb, self.turned[n], kkt=1e-5, residual=1e-4),
            **options,
        )

    def lstsq(self, **options: Any) -> Call:
        return Call(
            "lstsq + relu",
            lambda n: peers.inverse_mel_lstsq(self.fb, self.turned[n % INPUTS]),
            lambda n: Spectra(self.fb, self.turned[n]),
            **options,
        )

    def librosa(self, run: Callable[[Tensor], Any], mel: Tensor, judge: Judge) -> tuple[Call, ...]:
        """A single run, on some of the frames, where librosa is installed."""
        if find_spec("librosa") is None:
            return ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(mel[:, :2])  # what is imported and compiled is not timed
        return (Call("librosa", lambda n: run(mel), lambda n: judge, share=mel.shape[1] / self.frames, once=True),)

    def figure(self, name: str, calls: tuple[Call, ...], target: Target, outputs: int | None = None) -> Figure:
        outputs = len(self.fb) * self.frames if outputs is None else outputs
        bytes_moved = self.mel.itemsize * (self.mel.numel() + outputs)
        if len(calls) == 1:
            return Figure(name, calls, outputs, bytes_moved, Target("µs"), note="librosa is not installed")
        note = ""
        if calls[1].once:
            ours, theirs = (round(call.share * self.frames) for call in calls)
            note = f"one run on {theirs} of {self.frames} frames, extrapolated"
            note += f" as ours from {ours}" if ours < self.frames else ""
        return Figure(name, calls, outputs, bytes_moved, target, note=note)


@dataclass(frozen=True)
class Spectra:
    """Columns X ≥ 0 of A X = B.

    Args:
        fb: Aᵀ.
        B: mel spectra.
        kkt: how far from the best any column may be.
        residual: |A X − B| / |B| at most.
    """

    fb: Tensor
    B: Tensor
    kkt: float = 1.0
    residual: float = 0.2

    def compare(self, name: str, result: Any) -> str:
        A, X = self.fb.mT, torch.as_tensor(result)
        if X.shape != (A.shape[1], self.B.shape[1]):
            raise WrongOutputError(f"{name}: shape {list(X.shape)} instead of {[A.shape[1], self.B.shape[1]]}")
        errors, off = kkt_error(A, self.B, X), residual(A, self.B, X)
        if not (bool((X >= 0).all()) and float(errors.max()) <= self.kkt and off <= self.residual):  # nan included
            raise WrongOutputError(
                f"{name}: values from {X.min():.0e} on, KKT error {errors.max():.0e}, residual {off:.0e}"
            )
        return f"KKT of {name} {errors.median():.0e} (at most {errors.max():.0e})"
