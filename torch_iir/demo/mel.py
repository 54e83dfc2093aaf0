"""A sound becomes mel spectra and a sound again: several ways to invert the mel filterbank, one Griffin-Lim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from torch_iir.demo import peers, plots, signals, sound, timing
from torch_iir.demo.measures import kkt_error, log_spectral_distance, power_spectra, residual
from torch_iir.demo.sound import Sound
from torch_iir.demo.training import prepare
from torch_iir.transforms import GriffinLim, InverseMelScale, MelScale

RATE = 44100  # of the sound that is rendered
SECONDS = 10.0
FRAME = 0.046  # of a transform, in seconds; a power of two in samples
LONGEST_FRAME = 4096  # samples
ITERATIONS = 32
SEED = 0
TURNS = 5

Invert = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """What a way back made of the mel spectra, in how many seconds."""

    power: Tensor
    seconds: float
    sound: Tensor


def run(file: Path | None, out: Path) -> None:
    heard = rendered() if file is None else sound.read(file)
    x, rate = heard.samples, heard.sample_rate
    prepare(out)

    n_fft = min(max(2 ** round(math.log2(FRAME * rate)), 256), LONGEST_FRAME)
    n_mels, hop = min(128, 5 * n_fft // 64), n_fft // 4
    power = power_spectra(x, n_fft, hop)
    scale: dict[str, Any] = {"norm": "slaney", "mel_scale": "slaney"}  # librosa's, and that of many vocoders
    to_mel = MelScale(n_mels, rate, n_stft=len(power), **scale)
    mel = to_mel(power)
    print(f"sound     {heard.title}: {heard.seconds:.1f} s at {rate} Hz")
    print(f"mel       {len(power)} frequencies in {n_mels} mels, {mel.shape[1]} frames of {n_fft} samples")

    back: dict[str, Invert] = {
        tie_break: InverseMelScale(len(power), n_mels, rate, tie_break=tie_break, **scale)
        for tie_break in ("entropy", "min_norm")
    }
    back["lstsq"] = partial(peers.inverse_mel_lstsq, to_mel.fb)
    if find_spec("librosa") is not None:
        back["librosa"] = partial(peers.inverse_mel_librosa, to_mel.fb)
    found = follow(back, mel, GriffinLim(n_fft, ITERATIONS, hop_length=hop, length=len(x)))

    print_found(found, to_mel.fb, mel, power, n_fft)
    sounds = {"input": x, **{name: each.sound for name, each in found.items()}}
    pictures = {"the sound": power, **{TITLES[name]: each.power for name, each in found.items()}}
    written = sound.write(out, sounds, rate)
    written.append(plots.spectrograms(out / "spectra.png", pictures, rate, hop))
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


TITLES = {
    "entropy": "maximum entropy",
    "min_norm": "minimum norm",
    "lstsq": "lstsq + relu",
    "librosa": "librosa.util.nnls",
}


def rendered() -> Sound:
    speech, who = signals.speech(SECONDS / 2, RATE)
    samples = torch.cat([speech, signals.music(SECONDS / 2, RATE)])
    return Sound(samples.float(), RATE, f"{who} and music, rendered here")


def follow(back: Mapping[str, Invert], mel: Tensor, to_sound: GriffinLim) -> dict[str, Found]:
    """Every way from mel spectra to spectra, and on to sounds from the same random phases."""
    found = {}
    with tqdm(total=1 + 2 * len(back), unit="step", desc="inverting") as progress:
        quick = {name: partial(invert, mel) for name, invert in back.items() if name != "librosa"}
        seconds = timing.interleaved(quick, turns=TURNS)
        progress.update()
        for name, invert in back.items():
            progress.set_description(name)
            invert(mel[:, :1])  # what is imported is not timed
            start = perf_counter()
            power = invert(mel)
            once = perf_counter() - start
            progress.update()
            torch.manual_seed(SEED)
            found[name] = Found(power, seconds.get(name, once), to_sound(power))
            progress.update()
    return found


def print_found(found: Mapping[str, Found], fb: Tensor, mel: Tensor, power: Tensor, n_fft: int) -> None:
    columns = ("time", "mel residual", "KKT error", "spectra", "sound")
    print(f"\n{'':10}{'':<20}{''.join(f'{column:>14}' for column in columns)}")
    for name, each in found.items():
        again = power_spectra(each.sound, n_fft, n_fft // 4)
        values = (
            timing.readable(each.seconds),
            f"{residual(fb.mT, mel, each.power):.1e}",
            f"{float(kkt_error(fb.mT, mel, each.power).max()):.1e}",
            f"{log_spectral_distance(power, each.power):.1f} dB",
            f"{log_spectral_distance(power, again):.1f} dB",
        )
        print(f"{'':10}{TITLES[name]:<20}{''.join(f'{value:>14}' for value in values)}")
    print(f"{'':10}residual |fbᵀX − mel| / |mel|; KKT error: how far the worst frame is from the best X ≥ 0;")
    print(f"{'':10}log-spectral distance of X, and of the spectra of the sound made of it, from the true ones\n")
