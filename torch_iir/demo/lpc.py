"""Speech by linear prediction: analysed frame by frame, synthesised, and refined through the compiled synthesis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from torch_iir.demo import DemoError, plots, signals, sound
from torch_iir.demo.measures import log_spectral_distance, power_spectra
from torch_iir.demo.peers import all_pole_loop, all_pole_torchlpc, interpolated
from torch_iir.demo.sound import Sound
from torch_iir.demo.timing import compare
from torch_iir.demo.training import compile_whole, prepare, train, training_step
from torch_iir.functional import all_pole_digital_filter
from torch_iir.nn._stable import LIMIT, denominator, unfolded
from torch_iir.signal import lfilter_tv

Synthesis = Callable[[Tensor, Tensor, int], Tensor]
Timed = tuple[int, Callable[[], Tensor]]

RATE = 16000  # a sound with more is resampled: above 8 kHz there is little of speech
SECONDS = 4.0
SHORTEST = 0.2  # seconds
PERIOD, WINDOW = 0.005, 0.032  # from frame to frame, and what a frame is analysed from; in seconds
BANDWIDTH = 40.0  # Hz: what is narrower rings longer than a voice does
RESOLUTIONS = (0.016, 0.032, 0.064)  # windows of the spectra that are compared
ROUNDS, STEPS = 2, 100  # in a round the learning rate falls to 0: the last round shows whether more would help
LEARNING_RATE = 0.02
SEED = 0
LOOP_FRAMES = 20  # what the Python loop is measured on


def run(file: Path | None, out: Path) -> None:
    period, heard = whole_frames(rendered() if file is None else resampled(sound.read(file)))
    x, rate = heard.samples, heard.sample_rate
    prepare(out)
    print(f"sound     {heard.title}: {heard.seconds:.1f} s at {rate} Hz")

    model = Speaker(x, rate, period)
    excitation = Excitation(x, rate, period)
    test = excitation(torch.Generator().manual_seed(SEED))  # with noise that is not trained on
    with torch.no_grad():
        before, frames_before = model(test), model.frames()
    order = frames_before.shape[-1] - 1
    print(f"analysis  {len(frames_before)} frames of {period} samples, order {order}; {excitation.title}")
    residual = inverse_filter(x, frames_before, period)
    error = all_pole_digital_filter(residual, frames_before, period) - x
    print(f"residual  gives the sound back, {decibels(error, x):.0f} dB of error")

    objective = Objective(model, x, rate)
    tested = [float(objective(test).detach())]
    compiled = compile_whole(objective, test)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"model     {count} parameters, every frame stable whatever their values; {compiled}")

    noise, losses = torch.Generator().manual_seed(SEED + 1), []
    for _ in range(ROUNDS):
        losses += refine(objective, excitation, noise)
        tested.append(float(objective(test).detach()))
    with torch.no_grad():
        after, frames_after = model(test), model.frames()
    print(f"loss      {' → '.join(f'{value:.3g}' for value in tested)}, after rounds of {STEPS} steps")
    sounds = {"original": x, "before": before, "after": after}
    powers = {name: power_spectra(y, power_of_two(WINDOW * rate), period) for name, y in sounds.items()}
    distances = [log_spectral_distance(powers["original"], powers[name]) for name in ("before", "after")]
    print(f"spectra   {distances[0]:.2f} dB → {distances[1]:.2f} dB from the original (log-spectral distance)")
    print_convergence(tested)
    print()
    print_step_times(objective, excitation, x, rate)

    coefficients = {"before": frames_before, "after": frames_after}
    written = sound.write(out, sounds, rate)
    written += [
        plots.speech(out / "spectra.png", powers, coefficients, rate, period),
        plots.loss(out / "loss.png", losses, "error of log spectra, and roughness"),
    ]
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


# --- the sound


def rendered() -> Sound:
    speech, who = signals.speech(SECONDS, RATE)
    return Sound(speech.float(), RATE, f"{who}, rendered here")


def resampled(heard: Sound) -> Sound:
    """At RATE at most."""
    if heard.sample_rate <= RATE:
        return heard
    samples = signals.resample(heard.samples.numpy(), heard.sample_rate, RATE)
    return Sound(torch.from_numpy(samples), RATE, f"{heard.title}, resampled from {heard.sample_rate} Hz")


def whole_frames(heard: Sound) -> tuple[int, Sound]:
    """The samples of a frame, and the sound without those behind the last whole one."""
    if heard.seconds < SHORTEST:
        raise DemoError(f"{heard.title}: at least {SHORTEST} s are needed, it has {heard.seconds:.3f} s")
    period = max(1, round(PERIOD * heard.sample_rate))
    samples = heard.samples[: len(heard.samples) // period * period]
    return period, Sound(samples, heard.sample_rate, heard.title)


# --- analysis


def analyse(x: Tensor, sample_rate: int, period: int) -> Tensor:
    """Gain and reflection coefficients of each frame, (frames, 1 + order), in double, by windowed autocorrelation."""
    order = min(max(2, 2 + round(sample_rate / 1000)), 18)
    spectrum, window = windowed(x, power_of_two(WINDOW * sample_rate), period)
    correlation = torch.fft.irfft(spectrum.abs().square())[:, : order + 1]
    # As if there were noise 50 dB below each frame and 90 dB below the loudest: silence has coefficients as well.
    correlation[:, 0] = (1 + 1e-5) * correlation[:, 0] + 1e-9 * correlation[:, 0].max()
    reflection, error = levinson(correlation)
    return torch.cat([(error / window.square().sum()).sqrt()[:, None], reflection], -1)


def windowed(x: Tensor, size: int, period: int) -> tuple[Tensor, Tensor]:
    """Spectra of Hann windows around the first sample of each frame, of twice their size; and the window."""
    window = torch.hann_window(size, dtype=torch.float64)
    frames = pad(x.double(), (size // 2, size - size // 2)).unfold(0, size, period)[: len(x) // period]
    return torch.fft.rfft(frames * window, 2 * size), window


def levinson(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Levinson and Durbin: autocorrelations (..., N + 1) to reflection coefficients (..., N) and the error's power."""
    a, error = torch.ones_like(correlation[..., :1]), correlation[..., 0]
    reflection = []
    for lag in range(1, correlation.shape[-1]):
        k = -(a * correlation[..., 1 : lag + 1].flip(-1)).sum(-1) / error
        a = pad(a, (0, 1))
        a = a + k[..., None] * a.flip(-1)
        error = error * (1 - k * k)
        reflection.append(k)
    return torch.stack(reflection, -1), error


def inverse_filter(x: Tensor, frames: Tensor, period: int) -> Tensor:
    """What all_pole_digital_filter turns into x, in double."""
    gain, a = apart(interpolated(frames, period))
    return lfilter_tv(torch.cat([torch.ones_like(gain), a], -1), gain, x.double())


def power_of_two(samples: float) -> int:
    return 1 << max(4, round(math.log2(samples)))


# --- what the synthesis is driven by


class Excitation:
    """Pulses at the pitch where the sound is voiced, noise where it is not, and some of both in between; of power 1."""

    def __init__(self, x: Tensor, sample_rate: int, period: int) -> None:
        pitch, voiced = find_pitch(x, sample_rate, period)
        share = voiced.mean()
        self.title = f"{share:.0%} voiced, at {np.median(pitch):.0f} Hz"
        per_sample = interpolated(torch.from_numpy(np.stack([pitch, voiced], -1)), period)
        frequency, voiced_samples = per_sample.unbind(-1)
        turns = torch.cumsum(frequency / sample_rate, 0)
        pulses = torch.diff(turns.floor(), prepend=turns.new_zeros(1)) * (sample_rate / frequency).sqrt()
        self.pulses = (voiced_samples.sqrt() * pulses).float()
        self.noise = (1 - voiced_samples).sqrt().float()

    def __call__(self, generator: torch.Generator) -> Tensor:
        return self.pulses + self.noise * torch.randn(len(self.noise), generator=generator)


def find_pitch(x: Tensor, sample_rate: int, period: int) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the pitch in Hz, where it has none interpolated, and how much of it is voiced, 0 to 1.

    The highest peak of the autocorrelation over that of the window (Boersma, Proc. IFA 17 (1993)).
    """
    size = power_of_two(0.048 * sample_rate)
    spectrum, window = windowed(x, size, period)
    correlation = torch.fft.irfft(spectrum.abs().square())
    power = correlation[:, 0]
    of_window = torch.fft.irfft(torch.fft.rfft(window, 2 * size).abs().square())
    first = max(2, sample_rate // 400)
    lags = slice(first, max(first + 1, min(sample_rate // 70, size // 2)))
    height, lag = (correlation[:, lags] / of_window[lags] * of_window[0] / power.clamp(min=1e-30)[:, None]).max(-1)
    found = sample_rate / (lag + first).double().numpy()
    voiced = ((height - 0.3) / 0.25).clamp(0, 1) * (power > 1e-5 * power.max())
    certain = np.flatnonzero(voiced > 0.5)
    if len(certain) == 0:
        return np.full(len(found), 100.0), np.zeros(len(found))
    along = np.interp(np.arange(len(found)), certain, found[certain])
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(along, 2, "edge"), 5), -1)
    return smooth, voiced.numpy()


# --- the model


class Speaker(nn.Module):
    """The synthesis; its parameters are by what the gain and the coefficients of every frame change, in double.

    Frames stay stable through training: reflection coefficients are a tanh, and all poles are drawn in a little, in the
    analysis already. Nothing of the kind is known of the filters between two frames, whose coefficients are
    interpolated; but neighbours are alike.
    """

    def __init__(
        self, x: Tensor, sample_rate: int, period: int, synthesis: Synthesis = all_pole_digital_filter
    ) -> None:
        super().__init__()
        gain, reflection = apart(analyse(x, sample_rate, period))
        raw = LIMIT * unfolded(reflection.atanh(), -LIMIT, LIMIT)  # what denominator takes
        self.analysed = torch.cat([gain.log(), raw], -1)
        self.change = nn.Parameter(torch.zeros_like(self.analysed))
        self.radius = math.exp(-math.pi * BANDWIDTH / sample_rate)
        self.period = period
        self.synthesis = synthesis

    def frames(self) -> Tensor:
        """Gain and coefficients, (frames, order + 1)."""
        log_gain, raw = apart(self.analysed + self.change)
        return torch.cat([log_gain.exp(), denominator(raw, self.radius)[:, 1:]], -1)

    def roughness(self) -> Tensor:
        """How much the change changes from frame to frame."""
        return self.change.diff(dim=0).square().mean()

    def forward(self, excitation: Tensor) -> Tensor:
        return self.synthesis(excitation, self.frames(), self.period)


def apart(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The first column, and the others."""
    return frames[:, :1], frames[:, 1:]


class Objective(nn.Module):
    """How far short-time spectra of the synthesised sound are from those of the target, in decades of power.

    Windows of several lengths: the long ones tell the harmonics apart, the short ones the moments. Phases do not count,
    for those of pulses and noise are not those of the voice. And a mouth moves smoothly: without the second term, every
    frame follows the chance of its own few samples.
    """

    floor = 1e-7  # of the loudest: what is softer counts as silence
    smoothness = 30.0

    def __init__(self, model: Speaker, target: Tensor, sample_rate: int) -> None:
        super().__init__()
        self.model = model
        self.windows = [torch.hann_window(power_of_two(seconds * sample_rate)) for seconds in RESOLUTIONS]
        powers = [self.power(target, window) for window in self.windows]
        self.floors = [self.floor * float(power.max()) for power in powers]
        self.targets = [(power + floor).log10() for power, floor in zip(powers, self.floors, strict=True)]

    def power(self, y: Tensor, window: Tensor) -> Tensor:
        frames = y.unfold(-1, len(window), len(window) // 4) * window
        return torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)

    def forward(self, excitation: Tensor) -> Tensor:
        y = self.model(excitation)
        errors = [
            ((self.power(y, window) + floor).log10() - target).square().mean()
            for window, floor, target in zip(self.windows, self.floors, self.targets, strict=True)
        ]
        return torch.stack(errors).mean() + self.smoothness * self.model.roughness()


def refine(objective: Objective, excitation: Excitation, noise: torch.Generator) -> list[float]:
    """One round, new noise in every step; the losses."""
    step = training_step(objective, STEPS, LEARNING_RATE)
    return train(lambda _: step(excitation(noise)), STEPS)


# --- what is printed


def print_convergence(tested: Sequence[float]) -> None:
    """Says it where the refinement brought nothing, or was not at its end; from the losses before and after rounds."""
    first, before_last, last = tested[0], *tested[-2:]
    if not last < 0.95 * first:  # nan included
        print("          Not refined: the loss is about what it was.")
    elif last < 0.98 * before_last:
        fall = 1 - last / before_last
        print(f"          Not converged: the last round still lowered the loss by {fall:.0%}, and more would help.")


def print_step_times(objective: Objective, excitation: Excitation, x: Tensor, sample_rate: int) -> None:
    """One training step of the model, and of the same on other ways through the recursion."""
    speaker = objective.model
    drive = excitation(torch.Generator().manual_seed(SEED))

    def peer(synthesis: Synthesis, samples: int) -> Timed:
        model = Speaker(x[:samples], sample_rate, speaker.period, synthesis)
        step = training_step(Objective(model, x[:samples], sample_rate), STEPS, LEARNING_RATE)
        return samples, partial(step, drive[:samples])

    ours = partial(training_step(objective, STEPS, LEARNING_RATE), drive)
    candidates: dict[str, Timed] = {"torch_iir, compiled": (len(x), ours)}
    if find_spec("torchlpc") is not None:
        candidates["torchlpc, interpolated before"] = peer(all_pole_torchlpc, len(x))
    candidates["Python loop of torch operators"] = peer(all_pole_loop, LOOP_FRAMES * speaker.period)
    compare("one training step", candidates, turns=5)


def decibels(error: Tensor, x: Tensor) -> float:
    """Its level below that of x."""
    return 10 * math.log10(float(error.double().square().sum() / x.double().square().sum()) + 1e-40)
