"""What the demos share: where they write, what they minimise, how they train."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from tqdm import tqdm

import torch_iir
from torch_iir.demo import DemoError


def prepare(out: Path) -> None:
    """Makes the folder, and has torch begin anew on one thread."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{out}: cannot be made: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise DemoError(f"{out}: cannot be written to")
    torch.set_num_threads(1)  # a single row of samples gains nothing from more, and times stay comparable
    torch._dynamo.reset()  # the graph breaks that are counted are those of this run
    print(f"torch_iir {torch_iir.__version__}, torch {torch.__version__}, {torch_iir.build_info()['isa']}, one thread")


def compile_whole(objective: nn.Module, *inputs: Tensor) -> str:
    """Compiles forward and backward with fullgraph; says how long it took and counts graph breaks."""
    breaks = torch._dynamo.explain(objective)(*inputs).graph_break_count
    start = perf_counter()
    objective.compile(fullgraph=True)
    with warnings.catch_warnings():  # Inductor generates no code for complex numbers; here it calls the FFT, no more
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        objective(*inputs).backward()
    seconds = perf_counter() - start
    return f"compiled in {seconds:.0f} s, forward and backward: {breaks} graph break{'' if breaks == 1 else 's'}"


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


Step = Callable[..., Tensor]


def training_step(objective: nn.Module, steps: int, rate: float) -> Step:
    """One step of Adam on the inputs of the objective; the learning rate falls to 0 in so many steps."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step(*inputs: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = objective(*inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


def train(step: Callable[[int], Tensor], steps: int) -> list[float]:
    """Takes step(0), step(1), …; the losses."""
    losses = []
    with tqdm(range(steps), desc="training", unit="step") as progress:
        for number in progress:
            losses.append(float(step(number)))
            if number % 20 == 0 or number == steps - 1:
                progress.set_postfix_str(f"loss {losses[-1]:.1e}")
    return losses
