"""A compiled model learns an unknown filter from a sound and its filtered version."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from torch_iir.demo import plots, sound
from torch_iir.demo.peers import lfilter_loop, lfilter_scipy
from torch_iir.demo.timing import compare
from torch_iir.demo.training import Objective, compile_whole, prepare, train, training_step
from torch_iir.signal import freqz, lfilter

Filter = Callable[[Tensor, Tensor, Tensor], Tensor]

STEPS = 1000
LEARNING_RATE = 0.1
SEED = 0
LOOP_SAMPLES = 2048  # what the Python loop is measured on: on everything, a single step takes seconds to minutes


def run(file: Path | None, out: Path) -> None:
    heard = sound.rendered() if file is None else sound.read(file)
    x, rate = heard.samples, heard.sample_rate
    prepare(out)

    true_b, true_a = unknown_filter()
    target = lfilter(true_b, true_a, x)
    print(f"sound     {heard.title}: {heard.seconds:.1f} s at {rate} Hz")
    tops, dips = (" and ".join(f"{f * rate:.0f}" for _, f in pairs) for pairs in (POLES, ZEROS))
    print(f"unknown   a filter of order 4 with resonances at {tops} Hz and dips at {dips} Hz")

    model = Sections(SEED)
    with torch.no_grad():
        before, before_ba = model(x), model.coefficients()
    objective = Objective(model, target)
    compiled = compile_whole(objective, x)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"model     {count} parameters, stable whatever their values; {compiled}")

    step = training_step(objective, STEPS, LEARNING_RATE)
    losses = train(lambda _: step(x), STEPS)
    with torch.no_grad():
        after, after_ba = model(x), model.coefficients()
    print(f"loss      {losses[0]:.2g} → {losses[-1]:.2g}\n")
    print_coefficients((true_b, true_a), after_ba)
    if losses[-1] > 1e-3:
        print("Not found: where the sound is silent in part of the spectrum, other filters fit about as well.\n")
    print_step_times(objective, x, target)

    sounds = {"input": x, "target": target, "before": before, "after": after}
    filters = {"target": (true_b, true_a), "before": before_ba, "after": after_ba}
    frequencies = plots.frequencies(rate)
    written = sound.write(out, sounds, rate)
    written += [
        plots.waveforms(out / "waveform.png", sounds, rate),
        plots.responses(
            out / "response.png", frequencies, {name: decibels(*ba, frequencies / rate) for name, ba in filters.items()}
        ),
        plots.loss(out / "loss.png", losses),
    ]
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


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


def decibels(b: Tensor, a: Tensor, frequency: Tensor) -> Tensor:
    """The magnitude response; 1 = the sample rate."""
    return 20 * freqz(b, a, frequency, fs=1.0)[1].abs().log10()


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
        return partial(training_step(other, STEPS, LEARNING_RATE), x[:samples])

    compare(
        "one training step",
        {
            "torch_iir, compiled": (len(x), partial(training_step(objective, STEPS, LEARNING_RATE), x)),
            "scipy in an autograd.Function": (len(x), peer(lfilter_scipy, len(x))),
            "Python loop of torch operators": (LOOP_SAMPLES, peer(lfilter_loop, LOOP_SAMPLES)),
        },
    )
