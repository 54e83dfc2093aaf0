"""Filters beside torchaudio's, forwards and with their gradients.

torchaudio links the CUDA build of torch, of gigabytes: `make bench-peers` has an environment for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.bank import FILTERS, ROWS, SAMPLES, Bank, BankBackward
from bench.compare import Expected
from bench.filters import LFilter, noise, stable_filter, stable_sections
from bench.lfilter_backward import Backward
from bench.machine import SEED
from bench.measure import Call, peaks
from bench.question import Figure, Question, Target


def figures(quick: bool) -> Iterator[Figure]:
    def fewer(samples: int) -> int:
        return samples // 64 if quick else samples

    for rows, samples in ((1, 262_144), (32, 16_000)):
        job = LFilter.of(np.float32, *stable_filter(2), noise((rows, fewer(samples))))
        name = f"lfilter order 2, float32, [{rows}, {samples}]"
        yield Figure(name, (job.ours(), forwards(job)), job.samples, job.bytes_moved, Target("speedup"))

        target = Target("speedup", 45, 70) if rows == 1 else Target("speedup")
        backward = Backward(job, noise(job.signals[0].shape)[-1])
        calls = (backward.ours(), forwards_and_backwards(backward))
        # Forwards x and y; backwards g, x, y and the gradient of x.
        yield Figure(f"{name}, forward + backward (x, b, a)", calls, job.samples, 3 * job.bytes_moved, target)

    sections = stable_sections(FILTERS // 16 if quick else FILTERS)
    bank = Bank.of(np.float32, sections[:, :3], sections[:, 3:], noise((ROWS, 1, fewer(SAMPLES))))
    g = np.random.default_rng(SEED).standard_normal(bank.shape, np.float32)
    backward = BankBackward(bank, g)
    calls = (backward.ours(), forwards_and_backwards(backward))
    yield Figure(
        f"bank of {FILTERS} filters of order 2, float32, [{ROWS}, {SAMPLES}], forward + backward (x, b, a)",
        calls,
        bank.samples,
        2 * bank.bytes_moved + 4 * bank.samples,
        Target("speedup", 60, 110),
        note=peaks(*calls, at_most=1 / 6),
    )


def filtered(job: LFilter, x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """torchaudio's; of a bank, without the dimension that its filters fill."""
    x = x.squeeze(-2) if isinstance(job, Bank) else x
    lfilter: Any = import_module("torchaudio.functional").lfilter
    y: Tensor = lfilter(x, a, b, clamp=False, batching=False)
    return y


def forwards(job: LFilter) -> Call:
    (b, a), signals = job.tensors

    def run(n: int) -> Tensor:
        return filtered(job, signals[n % len(signals)], b, a)

    return Call("torchaudio", run, job.expected_in_storage)


def forwards_and_backwards(backward: Backward) -> Call:
    job = backward.job
    assert isinstance(job, LFilter)
    coefficients, signals = job.tensors
    b, a = (c.clone().requires_grad_() for c in coefficients)
    xs = [x.clone().requires_grad_() for x in signals]

    def run(n: int) -> tuple[Tensor, ...]:
        x = xs[n % len(xs)]
        y = filtered(job, x, b, a)
        return y, *torch.autograd.grad(y, (x, b, a), backward.g)

    return Call("torchaudio", run, partial(expected_in_storage, backward))


def expected_in_storage(backward: Backward, n: int) -> Expected:
    """Of what computes in float32 throughout: no signal inside is rounded more than what is computed of it."""
    x = backward.job.signals[n % len(backward.job.signals)].astype(np.float64)
    in_double = type(backward)(replace(backward.job, signals=[x]), backward.g.numpy())
    return replace(in_double.reference(x), inside=np.float32)


QUESTION = Question("peers", figures)
