"""A bank: every signal through each of 128 filters of order 2, into fresh memory, against 128 calls of scipy.

Forward and backward, gradients of signals and coefficients, against scipy's forward alone. Against torchaudio it is
measured by `make bench-peers`; its forward and backward took 13.1 times as long as these calls of scipy (4560 ms, 348
ms), and 2.4 GB: 60 and 110 times its speed are 4.58 and 8.4 times that of scipy's forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.signal

from bench.compare import Array, Expected
from bench.filters import LFilter, noise, stable_sections
from bench.lfilter_backward import Backward
from bench.machine import SEED
from bench.measure import Call
from bench.question import Figure, Question, Target

ROWS, FILTERS, SAMPLES = 32, 128, 16_000


def figures(quick: bool) -> Iterator[Figure]:
    sections = stable_sections(FILTERS)
    signals = noise((ROWS, 1, SAMPLES // 64 if quick else SAMPLES))
    bank = Bank.of(np.float32, sections[:, :3], sections[:, 3:], signals)
    name = f"bank of {FILTERS} filters of order 2, float32, [{ROWS}, {SAMPLES}]"
    calls = (bank.ours(), bank.scipy())
    note = f"{FILTERS} calls into a ready array"
    yield Figure(name, calls, bank.samples, bank.bytes_moved, Target("speedup", 12, 17), note=note)

    backward = BankBackward(bank, np.random.default_rng(SEED).standard_normal(bank.shape, np.float32))
    yield Figure(
        f"{name}, forward + backward (x, b, a)",
        (backward.ours(), bank.scipy()),
        bank.samples,
        2 * bank.bytes_moved + 4 * bank.samples,  # forwards x and y; backwards g, x, y and the gradient of x
        Target("speedup", 4.58, 8.4),
        note="their forward alone; peak memory at most a sixth of torchaudio's: 393 MB",
    )


class Bank(LFilter):
    """Signals [rows, 1, T] through filters b, a [filters, 3]."""

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, _, samples = self.signals[0].shape
        return rows, len(self.coefficients[0]), samples

    @property
    def samples(self) -> int:
        return int(np.prod(self.shape))

    @property
    def bytes_moved(self) -> int:
        return self.signals[0].nbytes + self.samples * self.signals[0].itemsize

    def filters(self) -> list[LFilter]:
        """Each by itself, on the signals [rows, T]."""
        signals = [x[:, 0] for x in self.signals]
        return [LFilter("lfilter", pair, signals) for pair in zip(*self.coefficients, strict=True)]

    def scipy(self, **options: Any) -> Call:
        ready = np.ones(self.shape, self.signals[0].dtype)  # every page written once
        b, a = self.coefficients

        def run(n: int) -> Array:
            x = self.signals[n % len(self.signals)][:, 0]
            for i in range(len(b)):
                ready[:, i] = scipy.signal.lfilter(b[i], a[i], x)
            return ready

        return Call("scipy", run, self.expected_in_storage, **options)

    def expected(self, n: int) -> Expected:  # of each input again: all of them would fill the memory
        return self.reference(self.signals[n % len(self.signals)])

    def reference(self, x: Array) -> Expected:
        y, size = np.empty(self.shape), 0.0
        for i, one in enumerate(self.filters()):
            expected = one.reference(x[:, 0])
            y[:, i] = expected.values[0]
            size = max(size, expected.amplification[0])
        return Expected((y,), (size,))


class BankBackward(Backward):
    job: Bank

    def expected(self, n: int) -> Expected:
        return self.reference(self.job.signals[n % len(self.job.signals)])

    def reference(self, x: Array) -> Expected:
        y, gx = np.empty(self.job.shape), np.zeros(x.shape)
        gb, ga = (np.empty(c.shape) for c in self.job.coefficients)
        sizes = np.zeros(4)
        for i, one in enumerate(self.job.filters()):
            expected = Backward(one, self.g.numpy()[:, i]).reference(x[:, 0])
            y[:, i], gx_i, gb[i], ga[i] = expected.values
            gx[:, 0] += gx_i
            sizes = np.maximum(sizes, expected.amplification)
        sizes[1] *= len(gb)  # a sum over the filters
        return Expected((y, gx, gb, ga), tuple(sizes))


QUESTION = Question("speed", figures)
