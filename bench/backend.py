"""Training steps of compiled models: torch_iir.compile against torch.compile, that is, Inductor alone.

The models are what one writes where there is no bank, no cascade and no zero-phase filter: many filters in a loop, some
in a chain, and one that is run forwards and backwards in time. A step is the model and its gradients of x, b and a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import noise, stable_filter, stable_sections
from bench.measure import INPUTS, Call, peaks
from bench.question import Figure, Question, Target

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x, b and a

PLAIN = "inductor"  # what torch_iir.compile is compared with

ROWS, SAMPLES = 32, 16_000


def figures(quick: bool) -> Iterator[Figure]:
    for training in trainings(torch_iir.functional, quick):
        ours = training.call("torch_iir", torch_iir.compile(training.model, fullgraph=True))
        plain = training.call("Inductor alone", torch.compile(training.model, backend=PLAIN, fullgraph=True))
        yield training.figure(ours, plain, beside=(training.call("not compiled", training.model),))


# --- the models


def loop(library: Any) -> Model:
    """Every filter on every signal: [rows, filters, T]."""

    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        return torch.stack([library.lfilter(x, a[i], b[i], clamp=False) for i in range(len(a))], -2)

    return model


def chain(library: Any) -> Model:
    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        for i in range(len(a)):
            x = library.lfilter(x, a[i], b[i], clamp=False)
        return x

    return model


def there_and_back(library: Any) -> Model:
    def model(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
        y: Tensor = library.filtfilt(x, a, b, clamp=False)
        return y

    return model


def trainings(library: Any, quick: bool) -> Iterator[Training]:
    """The models with the functions of a library that has torchaudio's names."""

    def signals(rows: int, samples: int) -> list[Array]:
        return noise((rows, samples // 64 if quick else samples))

    for filters, rows, samples in ((128, ROWS, SAMPLES), (16, 8, 4_000)):
        name = f"loop of {filters} calls of lfilter, order 2, stacked, float32, [{rows}, {samples}]"
        sections = stable_sections(filters // 16 if quick else filters)
        yield Training.of(name, loop, library, sections[:, :3], sections[:, 3:], signals(rows, samples))
    sections = stable_sections(8)
    name = f"chain of 8 calls of lfilter, order 2, float32, [{ROWS}, {SAMPLES}]"
    yield Training.of(name, chain, library, sections[:, :3], sections[:, 3:], signals(ROWS, SAMPLES))
    name = f"filtfilt, order 4, float32, [{ROWS}, {SAMPLES}]"
    yield Training.of(name, there_and_back, library, *stable_filter(4), signals(ROWS, SAMPLES))


@dataclass(frozen=True)
class Training:
    """Steps of one model: y and the gradients of Σ g y for a fixed g.

    Args:
        name: what is computed, with its shape and dtype.
        written: the model, given a library.
        library: the functions that it calls.
        coefficients: b and a.
        signals: for every run another.
    """

    name: str
    written: Callable[[Any], Model]
    library: Any
    coefficients: tuple[Tensor, Tensor]
    signals: Sequence[Tensor] = field(repr=False)

    @classmethod
    def of(
        cls, name: str, written: Callable[[Any], Model], library: Any, b: Array, a: Array, signals: Sequence[Array]
    ) -> Training:
        """In float32. What was compiled before is forgotten: Dynamo compiles a function for so many uses only."""
        torch._dynamo.reset()
        coefficients = torch.from_numpy(b.astype(np.float32)), torch.from_numpy(a.astype(np.float32))
        return cls(name, written, library, coefficients, [torch.from_numpy(x.astype(np.float32)) for x in signals])

    @cached_property
    def model(self) -> Model:
        return self.written(self.library)

    @cached_property
    def g(self) -> Tensor:
        with torch.no_grad():
            y = self.written(torch_iir.functional)(self.signals[0], *self.coefficients)
        return torch.randn(y.shape, generator=torch.Generator().manual_seed(INPUTS))

    def figure(self, ours: Call, theirs: Call, beside: tuple[Call, ...] = (), note: str = "") -> Figure:
        # Forwards x and y; backwards g, x and the gradient of x.
        moved = 3 * self.signals[0].nbytes + 2 * self.g.nbytes
        note = ", ".join(filter(None, [note, peaks(ours, theirs)]))
        name = f"{self.name}, training step"
        return Figure(name, (ours, theirs), self.g.numel(), moved, Target("speedup"), beside, note)

    def call(self, name: str, model: Model) -> Call:
        b, a, *xs = (tensor.clone().requires_grad_() for tensor in (*self.coefficients, *self.signals))

        def run(n: int) -> tuple[Tensor, ...]:
            return step(model, (xs[n % INPUTS], b, a), self.g)

        return Call(name, run, self.expected)

    def expected(self, n: int) -> Expected:  # of each input again: all of them would fill the memory
        """The model in double, not compiled; several times what the model itself is off by in float32 is allowed."""
        return Expected(tuple(y.numpy() for y in self.in_double(n)), self.amplification, np.float32)

    @cached_property
    def amplification(self) -> tuple[float, ...]:
        """Of the input that float32 treats worst. Gradients of coefficients are a few sums: their errors are a matter
        of luck, and of the order in which a compiler adds.
        """
        eps = float(np.finfo(np.float32).eps)
        allowed = [8, 8, *(64 for _ in self.coefficients)]
        errors = zip(*self.errors(), strict=True)
        return tuple(times * max(off) / eps for times, off in zip(allowed, errors, strict=True))

    def errors(self) -> Iterator[tuple[float, ...]]:
        for n, signal in enumerate(self.signals):
            leaves = [tensor.clone().requires_grad_() for tensor in (signal, *self.coefficients)]
            pairs = zip(step(self.model, leaves, self.g), self.in_double(n), strict=True)
            yield tuple(float((y - exact).abs().max()) for y, exact in pairs)

    def in_double(self, n: int) -> tuple[Tensor, ...]:
        """By the functions of ours."""
        leaves = [tensor.double().requires_grad_() for tensor in (self.signals[n % INPUTS], *self.coefficients)]
        return step(self.written(torch_iir.functional), leaves, self.g.double())


def step(model: Model, leaves: Sequence[Tensor], g: Tensor) -> tuple[Tensor, ...]:
    y = model(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, g)


QUESTION = Question("speed", figures)
