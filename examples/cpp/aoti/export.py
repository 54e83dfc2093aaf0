"""Compiles a model for C++ programs: ``python export.py DIRECTORY``.

Writes there ``effects.pt2``, the model compiled for machines like this one, and ``effects.cases``: inputs of several
sizes, none of them the size that the model was traced with, and what Python makes of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from torch_iir import fft
from torch_iir.nn import ParametricEQ
from torch_iir.signal import fftconvolve, lfilter, lfilter_fsm, lfilter_tv
from torch_iir.transforms import InverseMelScale

RATE, N_FFT, N_MELS = 16000, 256, 20


class Effects(nn.Module):
    """Something of everything that torch_iir has operators for: sounds and mel spectra in, sounds and spectra out."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor([0.3, 0.2, 0.1]))
        self.a = nn.Parameter(torch.tensor([1.0, -0.9, 0.5]))
        self.equaliser = ParametricEQ(RATE, 3, gain=[6.0, -4.0, 3.0])
        self.room = nn.Parameter(torch.randn(400) * torch.linspace(0.0, -6.0, 400).exp())
        self.inverse_mel = InverseMelScale(N_FFT // 2 + 1, N_MELS, sample_rate=RATE)

    def forward(self, x: Tensor, zi: Tensor, mel: Tensor) -> tuple[Tensor, ...]:
        y, zf = lfilter(self.b, self.a, x, zi=zi)  # learned, with state: block after block
        y = self.equaliser(y)  # sosfilt
        turn = 1.0 + y.tanh() / 2  # a resonance that follows the signal: a row of coefficients for each sample
        one = torch.ones_like(turn)
        wah = lfilter_tv([1.0], torch.stack([one, -1.6 * turn.cos(), 0.64 * one], -1), y)
        wet = fftconvolve(wah, self.room, axes=-1)
        smooth = lfilter_fsm(self.b, self.a, wet)
        response = self.equaliser.response(64).abs().float()  # freqz
        return wet, zf, smooth, fft.rfft(wet, N_FFT).abs(), response, self.inverse_mel(mel)  # the last: nnls


def inputs(batch: int, samples: int, frames: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, samples), torch.randn(batch, 2), torch.rand(batch, N_MELS, frames)


def compile_to(
    package: Path, model: nn.Module, example: tuple[Tensor, ...], dynamic: object, **options: object
) -> None:
    """Exports a model and compiles it to the package that C++ programs load; ``dynamic`` is what torch.export takes."""
    with torch.no_grad():
        program = torch.export.export(model, example, dynamic_shapes=dynamic)
    torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)


def save_cases(path: Path, cases: Iterable[tuple[Sequence[Tensor], Sequence[Tensor]]]) -> None:
    """Inputs and expected outputs, float32, as cases.h reads them: each list after its length, rank and sizes first."""
    with open(path, "wb") as file:

        def integers(*values: int) -> None:
            file.write(np.array(values, np.int64).tobytes())

        cases = list(cases)
        integers(len(cases))
        for case in cases:
            for tensors in case:
                integers(len(tensors))
                for tensor in tensors:
                    integers(tensor.dim(), *tensor.shape)
                    file.write(tensor.detach().contiguous().numpy().tobytes())


def main(directory: Path) -> None:
    torch.manual_seed(0)
    directory.mkdir(parents=True, exist_ok=True)
    model = Effects().eval()
    batch, samples, frames = (
        Dim("batch", max=1024),
        Dim("samples", min=2, max=1 << 24),
        Dim("frames", min=2, max=1 << 20),
    )
    compile_to(
        directory / "effects.pt2",
        model,
        inputs(3, 1000, 7),
        {"x": {0: batch, 1: samples}, "zi": {0: batch}, "mel": {0: batch, 2: frames}},
        # The wrapper calls operators, and does not compute: what it is compiled with costs nothing but time.
        **{"aot_inductor.compile_wrapper_opt_level": "O0"},
    )
    with torch.no_grad():
        sizes = (1, 64, 2), (2, 333, 31), (5, 5000, 3), (1, 48000, 100)
        cases = [(given, model(*given)) for given in (inputs(*size) for size in sizes)]
    save_cases(directory / "effects.cases", cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
