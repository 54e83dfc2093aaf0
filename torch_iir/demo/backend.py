"""What the torch.compile backend makes of models that are written as loops, chains, and filters there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

import torch_iir
from torch_iir.demo import plots, sound, timing
from torch_iir.demo.training import prepare

CLIPS = 8
SAMPLES = 8000  # of a clip, at most
FILTERS = 128
SECTIONS = 8
TURNS = 5
CLOSE = 1e-4

OURS, PLAIN = "torch_iir", "Inductor alone"


def run(file: Path | None, out: Path) -> None:
    heard = sound.rendered() if file is None else sound.read(file)
    prepare(out)
    clips = heard.samples[: len(heard.samples) // CLIPS * CLIPS].view(CLIPS, -1)[:, :SAMPLES].contiguous()
    print(f"sound     {heard.title}: {CLIPS} clips of {clips.shape[1]} samples at {heard.sample_rate} Hz")

    measured = {}
    for title, model in models(torch_iir.functional).items():
        print(f"\n{title}, by functions of torch_iir.functional:")
        torch_iir.explain(model, clips)
        print()
        measured[title] = compared(model, clips)
    if find_spec("torchaudio") is None:
        print("The same models with torchaudio's functions are explained where torchaudio is installed.\n")
    else:
        for title, model in models(import_module("torchaudio.functional")).items():
            print(f"{title}, by functions of torchaudio.functional:")
            torch_iir.explain(model, clips)
            print()
    written = plots.steps(out / "steps.png", measured)
    print(f"written   {out}/: {written.name}")


# --- the models, of a library with torchaudio's names


def models(library: Any) -> dict[str, nn.Module]:
    return {
        f"{FILTERS} filters in a loop": Loop(library.lfilter),
        f"{SECTIONS} sections in a chain": Chain(library.lfilter),
        "a filter there and back": ThereAndBack(library.filtfilt),
    }


class Loop(nn.Module):
    """Bands of a sound."""

    def __init__(self, lfilter: Callable[..., Tensor]) -> None:
        super().__init__()
        self.lfilter = lfilter
        centres = torch.logspace(-2.5, -0.4, FILTERS)  # 1 = the sample rate
        sections = torch_iir.design.bandpass(1.0, centres, 8.0)[:, 0]
        self.b, self.a = nn.Parameter(sections[:, :3].clone()), nn.Parameter(sections[:, 3:].clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.lfilter(x, self.a[i], self.b[i], clamp=False) for i in range(FILTERS)], -2)


class Chain(nn.Module):
    """An equaliser."""

    def __init__(self, lfilter: Callable[..., Tensor]) -> None:
        super().__init__()
        self.lfilter = lfilter
        centres = torch.logspace(-2.5, -0.4, SECTIONS)
        gains = 6.0 * (-1.0) ** torch.arange(SECTIONS)
        sections = torch_iir.design.peaking(1.0, centres, gains, 2.0)[:, 0]
        self.b, self.a = nn.Parameter(sections[:, :3].clone()), nn.Parameter(sections[:, 3:].clone())

    def forward(self, x: Tensor) -> Tensor:
        for i in range(SECTIONS):
            x = self.lfilter(x, self.a[i], self.b[i], clamp=False)
        return x


class ThereAndBack(nn.Module):
    """A low pass without phase."""

    def __init__(self, filtfilt: Callable[..., Tensor]) -> None:
        super().__init__()
        self.filtfilt = filtfilt
        section = torch_iir.design.lowpass(1.0, 0.05, 0.7)[0].float()
        self.b, self.a = nn.Parameter(section[:3].clone()), nn.Parameter(section[3:].clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.filtfilt(x, self.a, self.b, clamp=False)


# --- how they are compared


def compared(model: nn.Module, x: Tensor) -> dict[str, tuple[float, int | None]]:
    """Prints and returns time and memory of a step, compiled by either backend; both must do what eager does."""
    compiled: dict[str, Callable[[Tensor], Tensor]] = {
        OURS: torch_iir.compile(model, fullgraph=True),
        PLAIN: torch.compile(model, fullgraph=True),
    }
    parameters = list(model.parameters())
    steps = {name: partial(step, function, x, parameters) for name, function in compiled.items()}
    expected = step(model, x, parameters)
    seconds, errors = [], []
    for name, each in steps.items():
        start = perf_counter()
        errors.append(difference(each(), expected))
        seconds.append(f"{perf_counter() - start:.0f} s by {name}")
    print(f"compiled  in {', in '.join(seconds)}; differs from eager by {max(errors):.1g} of the largest value")
    if max(errors) > CLOSE:
        print("          That is too much: something is wrong here.")
    return timing.compare("one step", {name: (x.numel(), each) for name, each in steps.items()}, TURNS)


def step(function: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its power by the parameters."""
    y = function(x)
    return [y.detach(), *torch.autograd.grad(y.square().mean(), parameters)]


def difference(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest, relative to the largest value of its tensor."""
    return max(float((v - e).abs().max() / e.abs().max()) for v, e in zip(values, expected, strict=True))
