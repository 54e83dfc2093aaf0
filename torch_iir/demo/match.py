"""A compiled model learns an unknown filter from a sound and its filtered version."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

import torch_iir
from torch_iir.demo import DemoError, plots, signals, sound
from torch_iir.demo.peers import lfilter_loop, lfilter_scipy
from torch_iir.demo.sound import Sound
from torch_iir.demo.timing import interleaved, readable
from torch_iir.signal import lfilter

Filter = Callable[[Tensor, Tensor, Tensor], Tensor]

STEPS = 1000
LEARNING_RATE = 0.1
SEED = 0
LOOP_SAMPLES = 2048  # what the Python loop is measured on: on everything, a single step takes seconds to minutes


def run(file: Path | None, out: Path) -> None:
    heard = rendered() if file is None else sound.read(file)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{out}: cannot be made: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise DemoError(f"{out}: cannot be written to")
    x, rate = heard.samples, heard.sample_rate
    torch.set_num_threads(1)  # a single row of samples gains nothing from more, and times stay comparable
    torch._dynamo.reset()  # the graph breaks counted below are those of this run

    true_b, true_a = unknown_filter()
    target = lfilter(true_b, true_a, x)
    print(f"torch_iir {torch_iir.__version__}, torch {torch.__version__}, {torch_iir.build_info()['isa']}, one thread")
    print(f"sound     {heard.title}: {heard.seconds:.1f} s at {rate} Hz")
    tops, dips = (" and ".join(f"{f * rate:.0f}" for _, f in pairs) for pairs in (POLES, ZEROS))
    print(f"unknown   a filter of order 4 with resonances at {tops} Hz and dips at {dips} Hz")

    model = Sections(SEED)
    with torch.no_grad():
        before, before_ba = model(x), model.coefficients()
    objective = Objective(model, target)
    explanation = torch._dynamo.explain(objective)(x)
    breaks = explanation.graph_break_count
    start = perf_counter()
    objective.compile(fullgraph=True)
    with warnings.catch_warnings():  # Inductor generates no code for complex numbers; here it calls the FFT, no more
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        objective(x).backward()
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"model     {count} parameters, stable whatever their values; compiled in {perf_counter() - start:.0f} s, "
        f"forward and backward: {breaks} graph break{'' if breaks == 1 else 's'}"
    )

    losses = train(objective, x)
    with torch.no_grad():
        after, after_ba = model(x), model.coefficients()
    print(f"loss      {losses[0]:.2g} → {losses[-1]:.2g}\n")
    print_coefficients((true_b, true_a), after_ba)
    if losses[-1] > 1e-3:
        print("Not found: where the sound is silent in part of the spectrum, other filters fit about as well.\n")
    print_step_times(objective, x, target)

    sounds = {"input": x, "target": target, "before": before, "after": after}
    written = sound.write(out, sounds, rate)
    written += [
        plots.waveforms(out / "waveform.png", sounds, rate),
        plots.responses(
            out / "response.png", {"target": (true_b, true_a), "before": before_ba, "after": after_ba}, rate
        ),
        plots.loss(out / "loss.png", losses),
    ]
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


def rendered() -> Sound:
    rate = 16000
    samples = torch.cat([signals.chirp(2.0, rate), signals.pluck(220.0, 2.0, rate)])
    return Sound(samples.float(), rate, "a chirp 1 → 1000 Hz and a plucked string, rendered here")


# --- the filters

# Radius and frequency (1 = the sample rate) of the conjugate pairs of the filter to be found.
POLES = ((0.98, 0.03), (0.96, 0.15))
ZEROS = ((0.90, 0.07), (0.80, 0.35))
GAIN = 0.05


def unknown_filter() -> tuple[Tensor, Tensor]:
    b, a = (polynomial(pairs[:, 0], 2 * math.pi * pairs[:, 1]) for pairs in torch.tensor([ZEROS, POLES]).double())
    return GAIN * b, a


def polynomial(radius: Tensor, angle: Tensor) -> Tensor:
    """The product of two pairs of roots: (1 − 2 r cos θ z⁻¹ + r² z⁻²) each."""
    p, q = torch.stack([torch.ones_like(radius), -2 * radius * angle.cos(), radius.square()], -1)
    return torch.stack([pad(p * q[k], (k, 2 - k)) for k in range(3)]).sum(0)


class Sections(nn.Module):
    """Two second-order sections, multiplied out to one filter of order 4 that is stable and minimum phase.

    Poles and zeros are conjugate pairs whose radius is a sigmoid, below 1 whatever training does. (Reflection
    coefficients are as safe, but lead through pairs of real poles, and a section that got there did not leave again.)
    Parameters in float64 cost nothing beside a float32 signal, and no rounding.
    """

    def __init__(self, seed: int, filter: Filter = lfilter) -> None:
        super().__init__()
        random = 0.3 * torch.randn(2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        start = torch.tensor([0.1, 0.5], dtype=torch.float64).logit()  # one section in the lows, one in the middle
        self.filter = filter
        self.poles = nn.Parameter(torch.stack([torch.zeros_like(start), start + random[0]]))  # radius, frequency
        self.zeros = nn.Parameter(torch.stack([torch.zeros_like(start) - 0.5, start + random[1]]))
        self.gain = nn.Parameter(torch.zeros((), dtype=torch.float64))  # its logarithm

    def coefficients(self) -> tuple[Tensor, Tensor]:
        b, a = (polynomial(raw[0].sigmoid(), math.pi * raw[1].sigmoid()) for raw in (self.zeros, self.poles))
        return self.gain.exp() * b, a

    def forward(self, x: Tensor) -> Tensor:
        b, a = self.coefficients()
        y: Tensor = self.filter(b, a, x)
        return y


# --- training


class Objective(nn.Module):
    """How far the model's output is from the target: the error of the waveform, and of the average spectrum.

    The waveform's error alone has minima where both sections sit on the louder resonance. The logarithm of the
    spectrum slopes from afar towards the other one as well. Both are 0 for the right filter only.
    """

    frame = 1024

    def __init__(self, model: nn.Module, target: Tensor) -> None:
        super().__init__()
        self.model = model
        self.target = target
        self.power = float(target.square().mean())
        self.window = torch.hann_window(self.frame)
        spectrum = self.spectrum(target)
        self.floor = 1e-10 * spectrum.mean()  # below it there is the rounding of float32
        self.decades = (spectrum + self.floor).log10()

    def spectrum(self, y: Tensor) -> Tensor:
        """The power in each bin, averaged over the whole sound."""
        frames = y[: len(y) // self.frame * self.frame].view(-1, self.frame)
        return torch.view_as_real(torch.fft.rfft(frames * self.window)).square().sum(-1).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        waveform = (y - self.target).square().mean() / self.power
        decades = (self.spectrum(y) + self.floor).log10()
        return waveform + (decades - self.decades).square().mean()


def train(objective: nn.Module, x: Tensor) -> list[float]:
    step = training_step(objective, x, STEPS)
    losses = []
    with tqdm(range(STEPS), desc="training", unit="step") as progress:
        for number in progress:
            losses.append(float(step()))
            if number % 20 == 0 or number == STEPS - 1:
                progress.set_postfix_str(f"loss {losses[-1]:.1e}")
    return losses


def training_step(objective: nn.Module, x: Tensor, steps: int) -> Callable[[], Tensor]:
    optimizer = torch.optim.Adam(objective.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = objective(x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


# --- what is printed


def print_coefficients(true: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> None:
    print(f"{'':10}{'true':>14}{'found':>14}{'difference':>14}")
    for name, these, those in zip("ba", true, found, strict=True):
        for k, (this, that) in enumerate(zip(these.tolist(), those.tolist(), strict=True)):
            print(f"{name}[{k}]{'':6}{this:14.6f}{that:14.6f}{that - this:14.1e}")
    print()


def print_step_times(objective: nn.Module, x: Tensor, target: Tensor) -> None:
    """One training step of the trained model and of the same one on other filters."""

    def peer(filter: Filter, samples: int) -> Callable[[], Tensor]:
        other = Objective(Sections(SEED, filter), target[:samples])
        return training_step(other, x[:samples], STEPS)

    times = interleaved(
        {
            "torch_iir, compiled": training_step(objective, x, STEPS),
            "scipy in an autograd.Function": peer(lfilter_scipy, len(x)),
            "Python loop of torch operators": peer(lfilter_loop, LOOP_SAMPLES),
        }
    )
    ours, _, loop = times.values()
    times["Python loop of torch operators"] = loop * len(x) / LOOP_SAMPLES
    print(f"one training step on {len(x)} samples, median of interleaved runs")
    for name, seconds in times.items():
        star = " *" if "loop" in name else "  "
        ratio = "" if seconds == ours else f"{seconds / ours:7,.{0 if seconds > 100 * ours else 1}f} ×"
        print(f"{'':10}{name:<32}{readable(seconds):>8}{star}{ratio}")
    print(f"{'':10}* extrapolated from {LOOP_SAMPLES} samples: {readable(loop)}\n")
