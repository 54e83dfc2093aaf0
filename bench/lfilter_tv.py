"""Filters whose coefficients change with every sample, forwards and backwards, against torchlpc.

torchlpc has the all-pole filter with coefficients for every sample. What it lacks, a numerator and the interpolation of
frames, is written out in torch in front of it. Its recursion is one scalar loop in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from scipy.linalg.lapack import dtbtrs
from torch import Tensor
from torch.nn.functional import pad

import torch_iir
from bench.compare import Array, Expected
from bench.filters import moving_filter, noise
from bench.machine import SEED
from bench.measure import INPUTS, Call, peak_bytes
from bench.question import Figure, Question, Target
from torch_iir.demo import peers

PERIOD = 80  # samples from frame to frame

SPEEDUP = Target("speedup")

# order, rows, samples, at least and aim forwards, and forwards and backwards
CASES = (
    (2, 1, 262_144, (8, 22), (8, 25)),
    (32, 1, 262_144, (4, 9), (10, 25)),
    (2, 32, 16_000, (), ()),
    (22, 32, 16_000, (), ()),
)


def figures(quick: bool) -> Iterator[Figure]:
    def fewer(samples: int) -> int:
        return samples // 64 // PERIOD * PERIOD if quick else samples

    for order, rows, samples, forwards, backwards in CASES:
        all_pole = AllPole.of(order, rows, fewer(samples))
        name = f"lfilter_tv order {order}, float32, [{rows}, {samples}]"
        yield all_pole.figure(name, Target("speedup", *forwards))
        yield all_pole.figure(f"{name}, forward + backward (x, a)", Target("speedup", *backwards), backward=True)
    general = General.of(2, 1, fewer(262_144))
    name, note = "lfilter_tv order 2 with 3 taps of b, float32, [1, 262144]", "b and a0 in torch before"
    yield general.figure(name, note=note)
    yield general.figure(f"{name}, forward + backward (x, b, a)", backward=True, note=note)
    recurrence = Recurrence.of(64, fewer(16_000))
    name = "linear_recurrence, float32, [64, 16000]"
    yield recurrence.figure(name)
    yield recurrence.figure(f"{name}, forward + backward (x, a)", backward=True)
    frames = Frames.of(24, fewer(262_080))
    name = f"all_pole_digital_filter order 24, a frame every {PERIOD} samples, float32, [262080]"
    yield frames.figure(name, note=f"interpolated in torch before{frames.peaks(False)}")
    note = f"interpolated in torch before{frames.peaks(True)}"
    yield frames.figure(f"{name}, forward + backward (x, a)", backward=True, note=note)


@dataclass(frozen=True)
class Varying:
    """A filter and what it is run on: x and its coefficients, for every run others."""

    arguments: Sequence[tuple[Array, ...]]

    reach = 1  # of how many samples a gradient of the coefficients is the sum

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def peer(*arguments: Tensor) -> Tensor:
        """The same through torchlpc."""
        raise NotImplementedError

    def rows(self, n: int) -> Iterator[tuple[Array, Array, Array]]:
        """x (T), b (T, Kb) and a (T, N), without a0 = 1, of every signal, in double."""
        raise NotImplementedError

    def packed(self, gx: Array, gb: Array, ga: Array) -> tuple[Array, ...]:
        """Gradients of these, a0 included, and those of all signals stacked, as gradients of the arguments."""
        raise NotImplementedError

    @cached_property
    def tensors(self) -> list[list[Tensor]]:
        return [[torch.from_numpy(array) for array in arrays] for arrays in self.arguments]

    @cached_property
    def leaves(self) -> list[list[Tensor]]:
        return [[tensor.detach().requires_grad_() for tensor in tensors] for tensors in self.tensors]

    @cached_property
    def g(self) -> Tensor:
        """What the gradients are of: Σ g y."""
        return torch.from_numpy(noise(self.arguments[0][0].shape)[-1].astype(np.float32))

    def figure(self, name: str, target: Target = SPEEDUP, backward: bool = False, note: str = "") -> Figure:
        calls = self.calls(backward)
        if len(calls) == 1:
            target, note = Target("µs"), "torchlpc is not installed"
        x, *coefficients = self.arguments[0]
        read = sum(c.nbytes for c in coefficients)
        # Forwards the arguments and y; backwards these and g once more, and the gradients of the arguments.
        moved = 3 * read + 6 * x.nbytes if backward else read + 2 * x.nbytes
        return Figure(name, calls, x.size, moved, target, note=note)

    def peaks(self, backward: bool) -> str:
        found = [peak_bytes(call) for call in self.calls(backward)]
        return f"; peak memory {' and '.join('?' if peak is None else f'{peak / 1e6:.3g}' for peak in found)} MB"

    def calls(self, backward: bool) -> tuple[Call, ...]:
        """Ours, and torchlpc's where that is installed."""
        ours = self.call("torch_iir", self.function, backward, np.float64)
        if find_spec("torchlpc") is None:
            return (ours,)
        return ours, self.call("torchlpc", self.peer, backward, np.float32)

    def call(self, name: str, function: Callable[..., Tensor], backward: bool, inside: type[np.floating]) -> Call:
        def forwards(n: int) -> Tensor:
            return function(*self.tensors[n % INPUTS])

        def forwards_and_backwards(n: int) -> tuple[Tensor, ...]:
            leaves = self.leaves[n % INPUTS]
            y = function(*leaves)
            return y, *torch.autograd.grad(y, leaves, self.g)

        def expected(n: int) -> Expected:  # of each input again: all of them would fill the memory
            return self.reference(n, backward, inside)

        return Call(name, forwards_and_backwards if backward else forwards, expected)

    def reference(self, n: int, backward: bool, inside: type[np.floating]) -> Expected:
        rounding = float(np.finfo(np.float32).eps / np.finfo(inside).eps)
        gs = np.atleast_2d(self.g.numpy())
        solutions = [solved(*row, g, rounding) for g, row in zip(gs, self.rows(n), strict=True)]
        signals, *gradients, sizes = zip(*solutions, strict=True)
        y = np.stack(signals).reshape(self.g.shape)
        y_size, gx_size, coefficient_size = (float(size) for size in np.max(sizes, 0))
        if not backward:
            return Expected((y,), (y_size,), inside)
        of_x, *of_coefficients = self.packed(*(np.stack(gradient) for gradient in gradients))
        values = (y, of_x, *of_coefficients)
        return Expected(values, (y_size, gx_size, *(self.reach * coefficient_size for _ in of_coefficients)), inside)


# --- the filters


class AllPole(Varying):
    """x [rows, T], a [rows, T, N] without a0."""

    @classmethod
    def of(cls, order: int, rows: int, samples: int) -> AllPole:
        _, a = moving_filter(order, rows * samples)
        return cls(list(zip(signals((rows, samples)), turned(cut(a[:, 1:], rows)), strict=True)))

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        x, a = arguments
        return torch_iir.functional.sample_wise_lpc(x, a)

    @staticmethod
    def peer(*arguments: Tensor) -> Tensor:
        y: Tensor = import_module("torchlpc").sample_wise_lpc(*arguments)
        return y

    def rows(self, n: int) -> Iterator[tuple[Array, Array, Array]]:
        for x, a in zip(*self.arguments[n % INPUTS], strict=True):
            yield x.astype(np.float64), np.ones((len(x), 1)), a.astype(np.float64)

    def packed(self, gx: Array, gb: Array, ga: Array) -> tuple[Array, ...]:
        return gx, ga[..., 1:]


class Recurrence(AllPole):
    """x and a [rows, T]."""

    @classmethod
    def of(cls, rows: int, samples: int) -> Recurrence:  # type: ignore[override]
        keep = np.random.default_rng(SEED).uniform(0.9, 0.99, (INPUTS, rows, samples)).astype(np.float32)
        return cls(list(zip(signals((rows, samples)), keep, strict=True)))

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        x, a = arguments
        return torch_iir.functional.linear_recurrence(a, x)

    @staticmethod
    def peer(*arguments: Tensor) -> Tensor:
        x, a = arguments
        return AllPole.peer(x, -a[..., None])

    def rows(self, n: int) -> Iterator[tuple[Array, Array, Array]]:
        for x, a in zip(*self.arguments[n % INPUTS], strict=True):
            yield x.astype(np.float64), np.ones((len(x), 1)), -a[:, None].astype(np.float64)

    def packed(self, gx: Array, gb: Array, ga: Array) -> tuple[Array, ...]:
        return gx, -ga[..., 1]


class General(Varying):
    """x [rows, T], b [rows, T, 3], a [rows, T, N + 1]."""

    @classmethod
    def of(cls, order: int, rows: int, samples: int) -> General:
        b, a = (turned(cut(c, rows)) for c in moving_filter(order, rows * samples))
        return cls(list(zip(signals((rows, samples)), b, a, strict=True)))

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        x, b, a = arguments
        return torch_iir.signal.lfilter_tv(b, a, x)

    @staticmethod
    def peer(*arguments: Tensor) -> Tensor:
        x, b, a = arguments
        drive = sum(b[..., k] * pad(x, (k, 0))[..., : x.shape[-1]] for k in range(b.shape[-1]))
        return AllPole.peer(drive / a[..., 0], a[..., 1:] / a[..., :1])

    def rows(self, n: int) -> Iterator[tuple[Array, Array, Array]]:
        for x, b, a in zip(*self.arguments[n % INPUTS], strict=True):
            yield x.astype(np.float64), b.astype(np.float64), a[:, 1:].astype(np.float64)

    def packed(self, gx: Array, gb: Array, ga: Array) -> tuple[Array, ...]:
        return gx, gb, ga


class Frames(Varying):
    """x [T], a [T / PERIOD, N + 1] with the gain first."""

    reach = 2 * PERIOD

    @classmethod
    def of(cls, order: int, samples: int) -> Frames:
        _, a = moving_filter(order, samples)
        return cls(list(zip(signals((samples,)), turned(cut(a, 1)[0, ::PERIOD]), strict=True)))

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        x, a = arguments
        return torch_iir.functional.all_pole_digital_filter(x, a, PERIOD)

    @staticmethod
    def peer(*arguments: Tensor) -> Tensor:
        x, a = arguments
        return peers.all_pole_torchlpc(x, a, PERIOD)

    def rows(self, n: int) -> Iterator[tuple[Array, Array, Array]]:
        x, frames = self.arguments[n % INPUTS]
        a = peers.interpolated(torch.from_numpy(frames.astype(np.float64)), PERIOD).numpy()
        yield x.astype(np.float64), a[:, :1], a[:, 1:]

    def packed(self, gx: Array, gb: Array, ga: Array) -> tuple[Array, ...]:
        each = np.concatenate([gb, ga[..., 1:]], -1).reshape(-1, PERIOD, ga.shape[-1])
        weight = np.arange(PERIOD)[:, None] / PERIOD
        of_this, of_next = ((1 - weight) * each).sum(1), (weight * each).sum(1)
        of_this[1:] += of_next[:-1]
        of_this[-1] += of_next[-1]  # which is held
        return gx[0], of_this


def signals(shape: tuple[int, ...]) -> list[Array]:
    return [x.astype(np.float32) for x in noise(shape)]


def cut(coefficients: Array, rows: int) -> Array:
    """(rows · T, K) to (rows, T, K), in float32."""
    return coefficients.reshape(rows, -1, coefficients.shape[-1]).astype(np.float32)


def turned(coefficients: Array) -> list[Array]:
    """The same along time, each time beginning elsewhere."""
    return [np.roll(coefficients, n * coefficients.shape[-2] // INPUTS, -2) for n in range(INPUTS)]


# --- the reference

MEMORY = 4096  # samples: poles within 0.99 have forgotten what was so long ago

Solution = tuple[Array, Array, Array, Array, tuple[float, float, float]]


def solved(x: Array, b: Array, a: Array, g: Array, rounding: float) -> Solution:
    """y and the gradients of x, b and a, a0 included, where g is that of y, by substitution in banded matrices.

    Also the amplification of y, of the gradient of x and of those of b and a, as `bench.filters.amplification`, where y
    is stored with so many times the rounding of the arithmetic.
    """
    terms = a.shape[1] + b.shape[1]
    past_x, matrix = delayed(x, b.shape[1]), banded(a)
    y, v = substituted(matrix, (b * past_x).sum(1)), substituted(matrix, g.astype(np.float64), transposed=True)
    past_y = delayed(y, a.shape[1] + 1)
    gx = ahead(b * v[:, None])

    drive = (np.abs(a * past_y[:, 1:]).sum(1) + np.abs(b * past_x).sum(1)).max()
    y_size = 2 * terms * drive * response_size(matrix, transposed=True)
    drive = (np.abs(g) + ahead(np.pad(np.abs(a * v[:, None]), ((0, 0), (1, 0))))).max()
    v_size = 2 * terms * drive * response_size(matrix)
    gx_size = 2 * v_size * np.abs(b).sum(1).max()
    coefficient_size = (y_size + rounding * np.abs(y).max()) * np.abs(v).max() + v_size * max(
        np.abs(x).max(), np.abs(y).max()
    )
    return y, gx, v[:, None] * past_x, -v[:, None] * past_y, (y_size, gx_size, coefficient_size)


def delayed(x: Array, count: int) -> Array:
    """Column k is x[t − k]."""
    return np.stack([np.pad(x, (k, 0))[: len(x)] for k in range(count)], 1)


def ahead(columns: Array) -> Array:
    """Σ_k columns[t + k, k]."""
    total: Array = np.sum([np.pad(column, (0, k))[k:] for k, column in enumerate(columns.T)], 0)
    return total


def banded(a: Array) -> Array:
    """The matrix of y[t] + Σ_k a[t,k] y[t−k] as LAPACK stores it: its k-th subdiagonal in row k."""
    matrix = np.zeros((a.shape[1] + 1, len(a)))
    matrix[0] = 1
    for k in range(1, len(matrix)):
        matrix[k, : len(a) - k] = a[k:, k - 1]
    return matrix


def substituted(matrix: Array, right: Array, transposed: bool = False) -> Array:
    solution, _ = dtbtrs(matrix, right[:, None], uplo="L", trans="T" if transposed else "N", diag="U")
    return np.asarray(solution[:, 0])


def response_size(matrix: Array, transposed: bool = False) -> float:
    """Σ|h| of the responses to impulses some way apart, or of what some samples hear of all others, and half of that
    again for those that are in between."""
    impulses = np.zeros(matrix.shape[1])
    impulses[::MEMORY] = 1
    if transposed:
        size = np.abs(substituted(matrix, impulses[::-1], transposed))[::-1]
    else:
        size = np.abs(substituted(matrix, impulses))
    return 1.5 * float(np.add.reduceat(size, np.arange(0, len(size), MEMORY)).max())


QUESTION = Question("speed", figures)
