"""A bank of 128 learnable filters and a classifier learn to tell the notes of an octave deep in noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import scipy.signal
import torch
from torch import Tensor, nn

from torch_iir.demo import plots, sound
from torch_iir.demo.peers import lfilter_loop
from torch_iir.demo.sound import Sound
from torch_iir.demo.timing import compare
from torch_iir.demo.training import compile_whole, prepare, train, training_step
from torch_iir.nn import BiquadBank

RATE = 8000
SAMPLES = 2000  # of a clip
FILTERS = 128
NOTES = ("A", "B♭", "B", "C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭")
SNR = -19.0  # dB
BATCH = 32
STEPS = 300
LEARNING_RATE = 0.01
HELD_OUT = 512  # clips
SEED = 0
LOOP_SAMPLES = 128  # what the Python loop is measured on

Batch = tuple[Tensor, Tensor]


def run(file: Path | None, out: Path) -> None:
    heard = None if file is None else sound.read(file)
    prepare(out)
    torch.manual_seed(SEED)
    clips = Clips(heard)
    print(f"clips     a note of {SAMPLES / RATE:g} s, {-SNR:g} dB below {clips.title}; which of {len(NOTES)}?")

    objective = Objective(Listener())
    listener = objective.listener
    frequencies = plots.frequencies(RATE)
    with torch.no_grad():
        before = decibels(listener.bank, frequencies)
    before_width = bandwidths(listener.bank)
    held_out = clips(HELD_OUT)
    start, kept = accuracy(listener, held_out), accuracy(untrained_bank(clips), held_out)
    compiled = compile_whole(objective, *clips(BATCH))
    count = sum(parameter.numel() for parameter in objective.parameters())
    print(f"model     {FILTERS} filters, log energies, one linear layer, {count} parameters; {compiled}")

    step = training_step(objective, STEPS, LEARNING_RATE)
    curve: dict[int, float] = {0: start}

    def next_step(number: int) -> Tensor:
        loss = step(*clips(BATCH))
        if number + 1 == STEPS or (number + 1) % max(STEPS // 10, 1) == 0:
            curve[number + 1] = accuracy(listener, held_out)
        return loss

    losses = train(next_step, STEPS)
    chance = 1 / len(NOTES)
    end = curve[STEPS]
    print(f"loss      {losses[0]:.2g} → {losses[-1]:.2g}")
    print(f"accuracy  on {HELD_OUT} clips never heard: {start:.0%} → {end:.0%}; chance is {chance:.0%},")
    print(f"          and the classifier alone, on the filters as they were, learns {kept:.0%}")
    if end <= max(kept, 3 * chance):
        print("          Not learned: the filters are no better than they were. Notes may be in the noise itself.")
    print(f"bands     {before_width:.0f} Hz → {bandwidths(listener.bank):.0f} Hz wide, in the median\n")
    with torch.no_grad():
        after = decibels(listener.bank, frequencies)
    print_step_times(objective, clips)

    partials = [440 * 2 ** (note / 12) * octave for note in range(len(NOTES)) for octave in OCTAVES]
    note, clip = clips.example()
    written = sound.write(out, {"note": note, "clip": clip}, RATE)
    written += [
        plots.bands(out / "response.png", frequencies, {"before": before, "after": after}, partials),
        plots.learning(out / "learning.png", losses, curve, {"filters as they were": kept, "chance": chance}),
    ]
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


# --- what is to be learned

OCTAVES = (1, 2, 4)  # the partials of a note


class Clips:
    """Batches of notes in noise, never the same twice."""

    def __init__(self, heard: Sound | None) -> None:
        self.generator = torch.Generator().manual_seed(SEED)
        self.noise: Tensor | None = None
        self.title = "white noise"
        if heard is not None:
            common = math.gcd(RATE, heard.sample_rate)
            resampled = scipy.signal.resample_poly(heard.samples.numpy(), RATE // common, heard.sample_rate // common)
            power = torch.from_numpy(resampled).square().mean().clamp(min=1e-12)
            self.noise = torch.from_numpy(resampled).repeat(-(-2 * SAMPLES // len(resampled))) / power.sqrt()
            self.title = heard.title

    def __call__(self, count: int) -> Batch:
        """Clips, (count, SAMPLES), and which note is in each."""
        labels = torch.randint(len(NOTES), (count,), generator=self.generator)
        return self.background(count) + self.notes(labels), labels

    def notes(self, labels: Tensor) -> Tensor:
        """Three octaves of each note, in random phases."""
        cycles = 440 / RATE * 2 ** (labels.double() / 12)[:, None] * torch.arange(SAMPLES)
        phases = torch.rand(len(OCTAVES), len(labels), 1, generator=self.generator)
        sines = [
            torch.sin(2 * math.pi * (octave * cycles + phase)) for octave, phase in zip(OCTAVES, phases, strict=True)
        ]
        return (10 ** (SNR / 20) * math.sqrt(2 / len(OCTAVES)) * torch.stack(sines).sum(0)).float()

    def background(self, count: int) -> Tensor:
        """Noise whose power is 1: white, or pieces of the sound."""
        white = torch.randn(count, SAMPLES, generator=self.generator)
        if self.noise is None:
            return white
        starts = torch.randint(len(self.noise) - SAMPLES + 1, (count, 1), generator=self.generator)
        return self.noise[starts + torch.arange(SAMPLES)] + 1e-3 * white  # where the sound is silent, too

    def example(self) -> Batch:
        """Two seconds: one note without and with its noise."""
        repeats = 2 * RATE // SAMPLES
        note = self.notes(torch.zeros(repeats, dtype=torch.int64)).flatten()
        return note, note + self.background(repeats).flatten()


# --- the model


class Listener(nn.Module):
    """Filters, the logarithm of the energy behind each, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = BiquadBank(FILTERS, RATE, f_min=200.0)
        self.scale = nn.BatchNorm1d(FILTERS)
        self.decide = nn.Linear(FILTERS, len(NOTES))

    def energies(self, x: Tensor) -> Tensor:
        y: Tensor = self.bank(x)
        return (y.square().mean(-1) + 1e-9).log()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.decide(self.scale(self.energies(x)))
        return scores


class LoopListener(Listener):
    """The same on the Python loop."""

    def energies(self, x: Tensor) -> Tensor:
        y = lfilter_loop(*self.bank.coefficients(), x[:, None])
        return (y.square().mean(-1) + 1e-9).log()


class Objective(nn.Module):
    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.listener(x), labels)


def accuracy(listener: nn.Module, clips: Batch) -> float:
    listener.eval()
    with torch.no_grad():
        found = torch.cat([listener(x) for x in torch.split(clips[0], BATCH)]).argmax(-1)
    listener.train()
    return float((found == clips[1]).float().mean())


def untrained_bank(clips: Clips) -> Listener:
    """The classifier alone, trained: what can be had without learning the filters."""
    listener = Listener()
    with torch.no_grad():
        batches = [(listener.energies(x), labels) for x, labels in (clips(BATCH) for _ in range(STEPS))]
    top = nn.Sequential(listener.scale, listener.decide)
    optimizer = torch.optim.Adam(top.parameters(), lr=LEARNING_RATE, fused=True)
    turns = 3 * batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(turns))
    for energies, labels in turns:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(top(energies), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return listener


def decibels(bank: BiquadBank, frequencies: Tensor) -> Tensor:
    """Magnitude responses, (filters, frequencies)."""
    return 20 * bank.response(2 * math.pi * frequencies / RATE).abs().clamp(min=1e-6).log10()


def bandwidths(bank: BiquadBank) -> float:
    """The median of the −3 dB bandwidths in Hz, as the poles have it."""
    _, a = bank.coefficients()
    return float((a[:, 2].detach().clamp(min=0).sqrt().log() * -RATE / math.pi).median())


def print_step_times(objective: Objective, clips: Clips) -> None:
    """One training step of the trained model and of the same one on the Python loop."""
    x, labels = clips(BATCH)
    ours = partial(training_step(objective, STEPS, LEARNING_RATE), x, labels)
    loop_step = training_step(Objective(LoopListener()), STEPS, LEARNING_RATE)
    loop: Callable[[], Tensor] = partial(loop_step, x[:, :LOOP_SAMPLES], labels)
    compare(
        f"one training step with {BATCH} clips",
        {"torch_iir, compiled": (SAMPLES, ours), "Python loop of torch operators": (LOOP_SAMPLES, loop)},
        turns=5,
    )
