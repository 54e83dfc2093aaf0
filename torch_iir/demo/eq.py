"""A compiled equaliser learns the settings of another from a recording and its equalised version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from torch_iir.demo import plots, sound
from torch_iir.demo.peers import sosfilt_loop
from torch_iir.demo.timing import compare
from torch_iir.demo.training import Objective, compile_whole, prepare, train, training_step
from torch_iir.nn import ParametricEQ

STEPS = 1000
LEARNING_RATE = 0.02
BANDS = 12
CLOSE = 0.5  # dB
LOOP_SAMPLES = 1024  # what the Python loop is measured on

# Of the equaliser to be found: low shelf, three peaks, high shelf.
FREQUENCY = (0.0125, 0.031, 0.0875, 0.1875, 0.3)  # 1 = the sample rate
GAIN = (6.0, -9.0, 7.0, -6.0, 5.0)  # dB
Q = (0.7, 2.0, 1.0, 3.0, 0.7)


def run(file: Path | None, out: Path) -> None:
    heard = sound.rendered() if file is None else sound.read(file)
    x, rate = heard.samples, heard.sample_rate
    prepare(out)

    unknown = unknown_equaliser(rate)
    with torch.no_grad():
        target = unknown(x)
    print(f"sound     {heard.title}: {heard.seconds:.1f} s at {rate} Hz")
    print(f"unknown   an equaliser of {len(GAIN)} bands, low and high shelf included")

    model = equaliser(rate)
    frequencies = plots.frequencies(rate)
    with torch.no_grad():
        before, before_response = model(x), response(model, frequencies)
    objective = Objective(model, target)
    compiled = compile_whole(objective, x)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"model     an equaliser of {BANDS} bands, {count} parameters; {compiled}")

    step = training_step(objective, STEPS, LEARNING_RATE)
    losses = train(lambda _: step(x), STEPS)
    with torch.no_grad():
        after, after_response = model(x), response(model, frequencies)
        true_response = response(unknown, frequencies)
    print(f"loss      {losses[0]:.2g} → {losses[-1]:.2g}\n")
    at = unknown.frequency.detach()
    with torch.no_grad():
        print_responses(at.tolist(), *(response(each, at) for each in (unknown, equaliser(rate), model)))
    error, start = ((found - true_response).abs() for found in (after_response, before_response))
    print(
        f"response  from {frequencies[0]:.0f} to {frequencies[-1]:.0f} Hz off by {rms(error):.2g} dB (rms), "
        f"{error.max():.2g} dB at most; before by {rms(start):.2g} and {start.max():.2g} dB"
    )
    if error.max() > CLOSE:
        print(f"          Not found to {CLOSE} dB: where the sound is silent, others fit about as well, and so they do")
        print("          in minima that are not the deepest.")
    print()
    print_step_times(objective, x, target)

    sounds = {"input": x, "target": target, "before": before, "after": after}
    responses = {"target": true_response, "before": before_response, "after": after_response}
    knobs = model.frequency.detach(), model.gain.detach()
    written = sound.write(out, sounds, rate)
    written += [
        plots.equaliser(out / "response.png", frequencies, responses, knobs, x, rate),
        plots.loss(out / "loss.png", losses),
    ]
    print(f"written   {out}/: {', '.join(path.name for path in written)}")


def unknown_equaliser(sample_rate: int) -> ParametricEQ:
    return ParametricEQ(
        sample_rate,
        len(GAIN),
        frequency=[frequency * sample_rate for frequency in FREQUENCY],
        gain=GAIN,
        Q=Q,
        dtype=torch.float64,
    )


def equaliser(sample_rate: int) -> ParametricEQ:
    """The one that learns: more bands than the unknown one has, for with as many one is soon in the wrong place."""
    frequencies = 0.003 * sample_rate, 0.45 * sample_rate
    Q = [0.7, *[2.0] * (BANDS - 2), 0.7]
    return ParametricEQ(sample_rate, BANDS, frequency_range=frequencies, Q=Q, dtype=torch.float64)


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def response(model: ParametricEQ, frequencies: Tensor) -> Tensor:
    """The magnitude in dB at frequencies in Hz."""
    return 20 * model.response(2 * torch.pi * frequencies / model.sample_rate).abs().log10()


class LoopEQ(nn.Module):
    """The same equaliser on the Python loop."""

    def __init__(self, equaliser: ParametricEQ) -> None:
        super().__init__()
        self.equaliser = equaliser

    def forward(self, x: Tensor) -> Tensor:
        return sosfilt_loop(self.equaliser.sos(), x)


def print_responses(frequencies: Sequence[float], *decibels: Tensor) -> None:
    print(f"{'':10}{'':14}{'target':>10}{'before':>10}{'after':>10}{'error':>10}  dB")
    for frequency, target, before, after in zip(frequencies, *(d.tolist() for d in decibels), strict=True):
        values = f"{target:10.2f}{round(before, 2) + 0:10.2f}{after:10.2f}"  # + 0: no −0.00
        print(f"{'':10}at {frequency:8.0f} Hz{values}{after - target:10.3f}")


def print_step_times(objective: nn.Module, x: Tensor, target: Tensor) -> None:
    """One training step of the trained model and of the same one on the Python loop."""
    other = Objective(LoopEQ(equaliser(16000)), target[:LOOP_SAMPLES])
    loop: Callable[[], Tensor] = partial(training_step(other, STEPS, LEARNING_RATE), x[:LOOP_SAMPLES])
    ours = partial(training_step(objective, STEPS, LEARNING_RATE), x)
    compare(
        "one training step",
        {"torch_iir, compiled": (len(x), ours), "Python loop of torch operators": (LOOP_SAMPLES, loop)},
        turns=5,
    )
