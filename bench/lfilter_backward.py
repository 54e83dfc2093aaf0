"""Forward and backward of the recursive filter, gradients of x, b and a, against scipy's forward alone.

Against torchaudio's forward and backward it is measured where torchaudio is: in the environment of the peers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

import torch_iir
from bench.compare import Array, Expected
from bench.filters import Filtering, LFilter, amplification, inner_signals, noise, stable_filter
from bench.measure import Call
from bench.question import Figure, Question, Target


def figures(quick: bool) -> Iterator[Figure]:
    job = LFilter.of(np.float32, *stable_filter(2), noise((1, 4_096 if quick else 262_144)))
    backward = Backward(job, noise(job.signals[0].shape)[-1])
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

    def __init__(self, job: Filtering, g: Array) -> None:
        self.job = job
        self.g = torch.from_numpy(g.astype(job.signals[0].dtype, copy=False))

    def ours(self, name: str = "torch_iir", face: Any = torch_iir.signal, **options: Any) -> Call:
        coefficients, signals = self.job.tensors
        leaves = [c.clone().requires_grad_() for c in coefficients]
        xs = [x.clone().requires_grad_() for x in signals]
        filtered = partial(getattr(face, self.job.function), *leaves)

        def run(n: int) -> tuple[Tensor, ...]:
            x = xs[n % len(xs)]
            y = filtered(x)
            return y, *torch.autograd.grad(y, (x, *leaves), self.g)

        return Call(name, run, self.expected, len(xs), **options)

    def expected(self, n: int) -> Expected:
        return self.references[n % len(self.job.signals)]

    @cached_property
    def references(self) -> list[Expected]:
        return [self.reference(x) for x in self.job.signals]

    def reference(self, x: Array) -> Expected:
        """Section by section from the last, v = w filtered by 1/A from the end: gb_k = Σ v[t] u[t−k],
        ga_k = −Σ v[t] u′[t−k] with u and u′ in front of the section and behind it, and w = B v for the one before.
        """
        sections = self.job.sections
        back = sections[::-1]
        u, w = inner_signals(sections, x), inner_signals(back, self.g.numpy()[..., ::-1])  # w in reversed time
        u_errors = [amplification(sections[:s], u) for s in range(len(u))]
        if self.job.function == "lfilter":  # its y was rounded to its storage: as many units of that
            storage = np.finfo(x.dtype).eps / np.finfo(np.float64).eps
            u_errors[-1] += float(storage * np.abs(u[-1]).max())

        gradients, errors = [], []
        for k, (b, a) in enumerate(back):
            s = len(back) - 1 - k
            v = scipy.signal.lfilter([1.0], a, w[k])
            v_error = amplification([*back[:k], (np.ones(1), a)], [*w[: k + 1], v])
            v = v[..., ::-1]
            gb = correlations(v, u[s], len(b))
            ga = -correlations(v, u[s + 1], len(a))
            ga[0] = -(gb @ b + ga[1:] @ a[1:])
            gradients.insert(0, (gb, ga))
            for signal, error in zip(u[s : s + 2], u_errors[s : s + 2], strict=True):
                errors.append(float(error * np.abs(v).sum() + v_error * np.abs(signal).sum()))
        packed = self.job.packed(gradients)
        sizes = u_errors[-1], amplification(back, w), *(max(errors) for _ in packed)
        return Expected((u[-1], w[-1][..., ::-1], *packed), sizes)


def correlations(v: Array, u: Array, count: int) -> Array:
    """Σ v[t] u[t−k] over time and rows."""
    return np.array([float((v[..., k:] * u[..., : u.shape[-1] - k]).sum()) for k in range(count)])


QUESTION = Question("speed", figures)
