"""Training steps of models that call torchaudio: torch_iir.compile against torch.compile, that is, Inductor alone.

Where that raises, as it does for torchaudio 2.11, whose operator returns what it writes to, the models run as they are,
and the note says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import torch

import torch_iir
from bench import backend
from bench.backend import Model, Training, loop, step, trainings
from bench.measure import Call
from bench.question import Figure, Question


def figures(quick: bool) -> Iterator[Figure]:
    library = import_module("torchaudio.functional")
    refusal = refused(loop(library))
    for training in trainings(library, quick):
        ours = training.call("torch_iir", torch_iir.compile(training.model, fullgraph=True))
        yield training.figure(ours, theirs(training, refusal), note=refusal)


def theirs(training: Training, refusal: str) -> Call:
    if refusal:
        return training.call("torchaudio, not compiled", training.model)
    return training.call("torchaudio, Inductor alone", torch.compile(training.model, backend=backend.PLAIN))


def refused(model: Model) -> str:
    """What torch.compile raises for a small model, nothing where it does not."""
    x, b, a = torch.ones(1, 8), torch.ones(1, 3), torch.tensor([[1.0, 0.5, 0.25]])
    leaves = [tensor.requires_grad_() for tensor in (x, b, a)]
    try:
        step(torch.compile(model, backend=backend.PLAIN), leaves, torch.ones(1, 1, 8))
    except Exception as error:
        return f"torch.compile raises {type(error).__name__}"
    return ""


QUESTION = Question("peers", figures)
