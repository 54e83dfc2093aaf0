"""How right inverted mel spectra are: ``python -m bench.mel_quality`` prints tables. Nothing is timed."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

import torch_iir
from bench.machine import SEED
from bench.mels import HTK, SLANEY
from torch_iir.demo import peers, signals
from torch_iir.demo.measures import kkt_error, log_spectral_distance, power_spectra
from torch_iir.ops.nnls import ENTROPY, FAILED
from torch_iir.transforms import InverseMelScale

# sample rate, n_fft, hop, mels, scale
FILTERBANKS = ((44_100, 2048, 512, 128, HTK), (16_000, 1024, 256, 80, SLANEY), (16_000, 400, 160, 80, HTK))


@dataclass(frozen=True)
class Case:
    """A sound, and a filterbank that it is seen through, in double.

    Args:
        name: of both.
        power: the true spectra, (frequencies, frames).
        fb: (frequencies, mels).
        entropy: the inverse by maximum entropy.
        some: indices of frames, from all over the sound, for what is too slow for all.
        librosa: the first of these, for what is slower still.
    """

    name: str
    power: Tensor
    fb: Tensor
    entropy: InverseMelScale
    some: Tensor
    librosa: Tensor

    @cached_property
    def mel(self) -> Tensor:
        return self.fb.mT @ self.power

    @cached_property
    def of_librosa(self) -> Tensor:
        return peers.inverse_mel_librosa(self.fb.float(), self.mel[:, self.librosa].float())

    def solve(self, mel: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
        """Of minimum norm, and how many frames failed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # they are counted
            x, outcome = torch_iir.nnls(self.fb.mT.to(dtype), mel.to(dtype), return_outcome=True)
        return x, int((outcome == FAILED).sum())


def cases(seconds: float, some: int, librosa: int) -> Iterator[Case]:
    for rate, n_fft, hop, mels, scale in FILTERBANKS:
        n_stft = n_fft // 2 + 1
        fb = torch_iir.transforms.MelScale(mels, rate, n_stft=n_stft, **scale).fb.double()
        entropy = InverseMelScale(n_stft, mels, rate, tie_break="entropy", **scale).double()
        for name, sound in (("speech", signals.speech(seconds, rate)[0]), ("music", signals.music(seconds, rate))):
            power = power_spectra(sound, n_fft, hop)
            frames = power.shape[1]
            few, fewer = (torch.arange(min(count, frames)) * frames // min(count, frames) for count in (some, librosa))
            name = f"{rate / 1000:g} kHz, {n_fft}/{hop}/{mels} {scale['mel_scale']}, {name}"
            yield Case(name, power, fb, entropy, few, fewer)


# --- what the tables show of a case, by the names of the columns


def optimality(case: Case) -> dict[str, str]:
    """KKT errors of real mel spectra: the median over the frames / the largest."""
    A, mel = case.fb.mT, case.mel
    cells = {"frames": str(mel.shape[1])}
    for dtype in (torch.float32, torch.float64):
        x, failed = case.solve(mel, dtype)
        cells[str(dtype).removeprefix("torch.")] = quantiles(kkt_error(A, mel.to(dtype), x)) + failures(failed)
    cells["lstsq + relu"] = quantiles(kkt_error(A, mel, peers.inverse_mel_lstsq(case.fb, mel)))
    if find_spec("librosa"):
        fewer = mel[:, case.librosa]
        cells[f"librosa, {len(case.librosa)}"] = quantiles(kkt_error(A, fewer, case.of_librosa))
    few = mel[:, case.some]
    theirs = torch.from_numpy(np.stack([scipy.optimize.nnls(A.numpy(), b)[0] for b in few.T.numpy()], 1))
    cells[f"scipy, {len(case.some)}"] = quantiles(kkt_error(A, few, theirs))
    more = torch.linalg.norm(A @ x[:, case.some] - few, dim=0) - torch.linalg.norm(A @ theirs - few, dim=0)
    cells["residual above scipy's"] = f"{float((more / torch.linalg.norm(few, dim=0).clamp(min=1e-30)).max()):.0e}"
    return cells


def robustness(case: Case) -> dict[str, str]:
    """Largest KKT errors of mel spectra that no spectrum has, in float32 / in float64."""
    cells = {}
    for name, mel in perturbed(case.mel):
        errors, failed = [], 0
        for dtype in (torch.float32, torch.float64):
            x, count = case.solve(mel, dtype)
            errors.append(f"{kkt_error(case.fb.mT, mel.to(dtype), x).max():.0e}")
            failed += count
        cells[name] = " / ".join(errors) + failures(failed)
    return cells


def distance(case: Case) -> dict[str, str]:
    """Log-spectral distances from the true spectra, in dB; how many frames maximum entropy did not solve."""
    x, outcome = case.entropy(case.mel, return_outcome=True)
    found = {
        "entropy": x,
        "minimum norm": case.solve(case.mel, torch.float64)[0],
        "lstsq + relu": peers.inverse_mel_lstsq(case.fb, case.mel),
    }
    cells = {name: f"{log_spectral_distance(case.power, x):.1f}" for name, x in found.items()}
    if find_spec("librosa"):
        fewer = case.power[:, case.librosa]
        names = f"librosa, {len(case.librosa)}", "entropy on these"
        for name, x in zip(names, (case.of_librosa, found["entropy"][:, case.librosa]), strict=True):
            cells[name] = f"{log_spectral_distance(fewer, x):.1f}"
    heard = case.mel.amax(0) > 0
    return cells | {"not by entropy": str(int((outcome[heard] != ENTROPY).sum()))}


def perturbed(mel: Tensor) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(SEED)

    def normal() -> Tensor:
        return torch.randn(mel.shape, generator=generator, dtype=mel.dtype)

    for percent in (5, 20, 50):
        yield f"noise {percent} %", mel * torch.exp(percent / 100 * normal())
    smooth = torch.nn.functional.avg_pool1d
    yield "mean of 5 frames", smooth(mel, 5, 1, 2, count_include_pad=False)
    yield "mean of 3 mels", smooth(mel.T, 3, 1, 1, count_include_pad=False).T
    yield "2 % negative", torch.where(torch.rand(mel.shape, generator=generator) < 0.02, -0.1, 1.0) * mel


def quantiles(errors: Tensor) -> str:
    return f"{errors.median():.0e} / {errors.max():.0e}"


def failures(count: int) -> str:
    return f", {count} failed" if count else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mel_quality", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech, and of music")
    parser.add_argument("--frames", type=int, default=300, help="for scipy.optimize.nnls")
    parser.add_argument("--librosa", type=int, default=32, metavar="FRAMES", help="for librosa.util.nnls")
    options = parser.parse_args(arguments)
    every = list(cases(options.seconds, options.frames, options.librosa))
    for cells in (optimality, robustness, distance):
        print(f"\n{cells.__doc__}\n")
        for number, case in enumerate(every):
            row = {"": case.name, **cells(case)}
            if number == 0:
                print(f"| {' | '.join(row)} |\n|---{'|--:' * (len(row) - 1)}|")
            print(f"| {' | '.join(row.values())} |", flush=True)


if __name__ == "__main__":
    main()
