"""Forward and backward of the recursive filter, gradients of x, b and a, against scipy's forward alone.

Against torchaudio's forward and backward it is measured where torchaudio is: in the environment of the peers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import Job, noise, response_size, stable_filter
from bench.measure import Call
from bench.question import Figure, Question, Target


def figures(quick: bool) -> Iterator[Figure]:
    job = Job.of(np.float32, *stable_filter(2), noise((1, 4_096 if quick else 262_144)))
    backward = Backward(job)
    yield Figure(
        "lfilter order 2, forward + backward (x, b, a), float32, [1, 262144]",
        (backward.ours(), job.scipy()),
        job.samples,
        3 * job.bytes_moved,  # forwards x and y; backwards g, x, y and the gradient of x
        Target("speedup", 8),
        note="their forward alone",
    )


class Backward:
    """The gradients of Σ g y for a fixed g."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.g = torch.from_numpy(noise(job.signals[0].shape)[-1].astype(job.b.dtype))

    def ours(self, name: str = "torch_iir", **options: Any) -> Call:
        b, a, signals = self.job.tensors
        b, a = b.clone().requires_grad_(), a.clone().requires_grad_()
        xs = [x.clone().requires_grad_() for x in signals]

        def run(n: int) -> tuple[Tensor, ...]:
            x = xs[n % len(xs)]
            y = torch_iir.signal.lfilter(b, a, x)
            return y, *torch.autograd.grad(y, (x, b, a), self.g)

        return Call(name, run, self.expected, **options)

    def expected(self, n: int) -> Expected:
        return self.references[n % len(self.job.signals)]

    @cached_property
    def references(self) -> list[Expected]:
        return [self.reference(x) for x in self.job.signals]

    def reference(self, x: Array) -> Expected:
        """v = g filtered by 1/A from the end; gx = B v, gb_k = Σ v[t] x[t−k], ga_k = −Σ v[t] y[t−k]."""
        b, a, x, g = (np.asarray(c, np.float64) for c in (self.job.b, self.job.a, x, self.g.numpy()))
        y = scipy.signal.lfilter(b, a, x)
        v = scipy.signal.lfilter([1.0], a, g[..., ::-1])[..., ::-1]
        gx = scipy.signal.lfilter(b, [1.0], v[..., ::-1])[..., ::-1]

        def correlation(u: Array, k: int) -> float:
            return float((v[..., k:] * u[..., : u.shape[-1] - k]).sum())

        gb = np.array([correlation(x, k) for k in range(len(b))])
        ga = -np.array([correlation(y, k) for k in range(len(a))])
        ga[0] = -(gb @ b + ga[1:] @ a[1:])
        # Sums over all samples, of a y that was rounded to its storage: as many units of that as there are of double.
        storage = float(np.finfo(self.job.b.dtype).eps / np.finfo(np.float64).eps)
        sizes = self.job.amplification(x, y), self.job.amplification(g, v) * np.abs(b).sum()
        rounding = storage * float(np.abs(v).sum()) * response_size(a)
        sums = rounding * float(np.abs(x).max()), rounding * float(np.abs(y).max())
        return Expected((y, gx, gb, ga), (*sizes, *sums))


QUESTION = Question("speed", figures)
