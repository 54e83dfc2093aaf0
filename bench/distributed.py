"""Signals of which each rank has a part of the time, on two ranks, against one process; and what that says of many.

Two gloo ranks are two processes with one thread each; the process that asks, and has the whole signal, is neither.
Their time is from a barrier to when the slower one is done. A rank alone does what the busier of the two does, the
last, with a core to itself and without messages. Ranks on two threads of one core share its units, as two threads of a
process do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import torch_iir
import torch_iir.distributed
from bench.compare import Array, WrongOutputError
from bench.filters import Filtering, LFilter, SOSFilt, noise, stable_filter, stable_sections
from bench.lfilter_backward import Backward
from bench.lfilter_tv import General
from bench.measure import INPUTS, Call
from bench.process_group import Outputs, Ranks, Task
from bench.question import Figure, Question, Target
from bench.threads import threads

SIZE, MANY = 2, 64  # ranks that are measured, and of which one is
SHORT = 64  # samples, next to nothing to filter
LARGE = 10_000_000  # samples: more than caches hold, one input is enough
ALONE, ONE_OF_MANY = "a rank alone", f"a rank of {MANY} alone"

Run = Callable[[int], Outputs]


@dataclass(frozen=True)
class Case:
    """A filter and its signal.

    Args:
        function: of torch_iir.distributed.
        order: of the filter, twice its sections for sosfilt.
        shape: of the signal.
        backward: and the gradients of x and the coefficients.
        weak: each rank has so much.
    """

    function: str
    order: int
    shape: tuple[int, int]
    backward: bool = False
    weak: bool = False

    @property
    def key(self) -> tuple[str, bool]:
        return self.function, self.backward

    @property
    def name(self) -> str:
        filters = {"lfilter": f"order {self.order}", "sosfilt": f"{self.order // 2} sections"}
        what = f"{self.function} {filters.get(self.function, f'order {self.order} with {TAPS} taps of b')}"
        gradients = {"sosfilt": "x, sos"}.get(self.function, "x, b, a")
        both = f", forward + backward ({gradients})" if self.backward else ""
        return f"{what}{both}, float32, {list(self.shape)}{' a rank' if self.weak else ''}"

    def messages(self) -> list[int]:
        """The bytes that a rank has to send to each other rank, message by message."""
        rows, n = self.shape[0], self.order
        if self.function != "lfilter_tv":
            state, transition = 8 * rows * n, 16 * n * n
            return [state + transition, *([2 * state] if self.backward else [])]
        past = 8 * (rows * (TAPS - 1) + 1)
        state, transition = 8 * rows * n, 8 * rows * n * n
        return [past, state + transition, *([2 * state, past] if self.backward else [])]


TAPS = 3  # of lfilter_tv's b
LONG, ROWS = (1, 2_600_000), (64, 480_000)
CASES: tuple[Case, ...] = (
    Case("lfilter", 2, LONG),
    Case("lfilter", 2, LONG, backward=True),
    Case("lfilter", 2, ROWS),
    Case("lfilter", 2, ROWS, backward=True),
    Case("sosfilt", 8, LONG),
    Case("sosfilt", 8, LONG, backward=True),
    Case("lfilter_tv", 2, (1, 1_000_000)),
    Case("lfilter_tv", 2, (1, 1_000_000), backward=True),
)
WEAK = (Case("lfilter", 2, LONG, weak=True), Case("lfilter", 2, LONG, backward=True, weak=True))
FIXED = tuple(
    Case(function, order, (1, SHORT), backward, weak=True)
    for function, order in (("lfilter", 2), ("sosfilt", 8), ("lfilter_tv", 2))
    for backward in (False, True)
)


def figures(quick: bool) -> Iterator[Figure]:
    if len(os.sched_getaffinity(0)) < SIZE:
        return
    long, fixed, by_rows = [*CASES, *WEAK], [*FIXED], [ROWS, (ROWS[0], SHORT)]
    if quick:
        long, fixed, by_rows = [*CASES[1::2], WEAK[0]], fixed[:1], by_rows[1:]
    with Ranks(SIZE) as ranks, Ranks(SIZE, alone=True) as alone, Ranks(MANY, alone=True) as one_of_many:
        for case in long:
            short = replace(case, shape=(case.shape[0], case.shape[1] // 64)) if quick else case
            yield split_in_time(case.name, short, ranks, {ALONE: alone})
        for case in fixed:
            others = {ALONE: alone, ONE_OF_MANY: one_of_many}
            yield split_in_time(case.name, case, ranks, others, repeat=2 if quick else 20)
        for shape in by_rows:
            name = f"lfilter order 2 on a DTensor split by rows, float32, {list(shape)}"
            yield split_by_rows(name, shape, ranks, repeat=1 if shape[1] > SHORT else 2 if quick else 20)


# --- time split over ranks


def split_in_time(name: str, case: Case, ranks: Ranks, others: Mapping[str, Ranks], repeat: int = 1) -> Figure:
    """``others`` are the ranks that are alone, by the names of their calls."""
    whole = make(case, SIZE * case.shape[1] if case.weak else case.shape[1])
    call = whole.call()
    one = make(case, case.shape[1]).call() if case.weak else call
    parts = whole.parts()
    ranks.load(filter=parts, gather=[(gathering, case.messages()[-1])] * SIZE)
    for other in others.values():
        other.load(filter=parts[-1:], messages=[(messages, *parts[-1])])
        if (sent := other.outputs("messages")) != [tuple(case.messages())]:
            raise WrongOutputError(f"{name}: messages of {sent} bytes instead of {case.messages()}")
    beside = [
        replace(one, name="2 threads", expected=None, context=threads(2), repeat=repeat),
        *(other.call(called, "filter", repeat=repeat) for called, other in others.items()),
        ranks.call("all-gather", "gather", repeat=repeat),
    ]
    calls = (
        ranks.call("2 ranks", "filter", whole.join, call, repeat),
        replace(one, name="1 thread", repeat=repeat),
    )
    note = f"messages of {', '.join(map(str, case.messages()))} bytes"
    return Figure(name, calls, whole.samples, whole.bytes_moved, Target("scaling"), tuple(beside), note)


def make(case: Case, samples: int) -> Constant | Moving:
    rows = case.shape[0]
    if case.function == "lfilter_tv":
        return Moving(General.of(case.order, rows, samples), case.backward)
    *signals, g = noise((rows, samples), 2 if rows * samples > LARGE else INPUTS + 1)
    if case.function == "sosfilt":
        job: Filtering = SOSFilt.of(np.float32, stable_sections(case.order // 2), signals)
    else:
        job = LFilter.of(np.float32, *stable_filter(case.order), signals)
    return Constant(job, g.astype(np.float32) if case.backward else None)


@dataclass(frozen=True)
class Constant:
    """A filter and its signals, and the gradient of y if it goes backwards, too."""

    job: Filtering
    g: Array | None

    @property
    def samples(self) -> int:
        return self.job.samples

    @property
    def bytes_moved(self) -> int:
        return self.job.bytes_moved if self.g is None else 3 * self.job.bytes_moved

    def call(self, face: Any = torch_iir.signal) -> Call:
        return self.job.ours(face=face) if self.g is None else self.training.ours(face=face)

    @cached_property
    def training(self) -> Backward:
        assert self.g is not None
        return Backward(self.job, self.g)

    def parts(self, axis: int = -1) -> list[Task]:
        signals = zip(*(cut(x, axis) for x in self.job.signals), strict=True)
        gs = [None] * SIZE if self.g is None else cut(self.g, axis)
        return [(constant, replace(self.job, signals=x), g) for x, g in zip(signals, gs, strict=True)]

    def join(self, outputs: Sequence[Outputs]) -> Outputs:
        y, *gradients = zip(*outputs, strict=True)
        gx, coefficients = gradients[:1], gradients[1:]
        return *(np.concatenate(parts, -1) for parts in (y, *gx)), *(sum(parts) for parts in coefficients)


@dataclass(frozen=True)
class Moving:
    """A filter whose coefficients differ from sample to sample."""

    job: General
    backward: bool

    @property
    def samples(self) -> int:
        return self.job.arguments[0][0].size

    @property
    def bytes_moved(self) -> int:
        x, *coefficients = self.job.arguments[0]
        return (3 if self.backward else 1) * (2 * x.nbytes + sum(c.nbytes for c in coefficients))

    def call(self) -> Call:
        call = self.job.call("torch_iir", self.job.function, self.backward, np.float64)
        assert call.expected is not None
        return replace(call, expected=cache(call.expected))

    def parts(self) -> list[Task]:
        tuples = [zip(*map(cut, arrays, AXES), strict=True) for arrays in self.job.arguments]
        arguments = zip(*tuples, strict=True)
        gs = cut(self.job.g.numpy(), -1)
        return [(moving, list(part), self.backward, g) for part, g in zip(arguments, gs, strict=True)]

    def join(self, outputs: Sequence[Outputs]) -> Outputs:
        columns = zip(*outputs, strict=True)
        return tuple(np.concatenate(parts, axis) for parts, axis in zip(columns, (-1, *AXES), strict=False))


AXES = (-1, -2, -2)  # of time in x, b and a


def cut(array: Array, axis: int) -> list[Array]:
    return [np.ascontiguousarray(part) for part in np.array_split(array, SIZE, axis)]


# --- what ranks run


def constant(job: Filtering, g: Array | None) -> Run:
    return Constant(job, g).call(torch_iir.distributed).run


def moving(arguments: list[tuple[Array, ...]], backward: bool, g: Array) -> Run:
    return Part(arguments, g).call("", Part.function, backward, np.float64).run


@dataclass(frozen=True)
class Part(General):
    """Of the time, on one rank, with its part of the gradient of y."""

    gy: Array

    @staticmethod
    def function(*arguments: Tensor) -> Tensor:
        x, b, a = arguments
        return torch_iir.distributed.lfilter_tv(b, a, x)

    @cached_property
    def g(self) -> Tensor:
        return torch.from_numpy(self.gy)


def gathering(size: int) -> Run:
    """The bare collective, of a message of so many bytes."""
    message = torch.zeros(size // 8, dtype=torch.float64)
    arrived = list(message.new_empty(dist.get_world_size(), len(message)))

    def run(n: int) -> Outputs:
        dist.all_gather(arrived, message)
        return tuple(arrived)

    return run


class Messages(TorchDispatchMode):
    """The bytes of those that a rank sends to each other rank."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if name.startswith("_c10d_functional.all_gather"):
            self.sizes.append(args[0].nbytes)
        elif name.startswith("_c10d_functional.reduce_scatter"):
            self.sizes.append(args[0].nbytes // dist.get_world_size())
        return func(*args, **(kwargs or {}))


def messages(task: Callable[..., Run], *arguments: Any) -> Run:
    run = task(*arguments)

    def counted(n: int) -> Outputs:
        with Messages() as sent:
            run(n)
        return tuple(sent.sizes)

    return counted


# --- rows split over ranks


def split_by_rows(name: str, shape: tuple[int, int], ranks: Ranks, repeat: int) -> Figure:
    whole = make(Case("lfilter", 2, shape), shape[1])
    assert isinstance(whole, Constant)
    parts = [(job, g) for _, job, g in whole.parts(axis=0)]
    ranks.load(dtensor=[(dtensor, job) for job, _ in parts], plain=[(without_dtensor, job) for job, _ in parts])

    def join(outputs: Sequence[Outputs]) -> Outputs:
        return (np.concatenate([y for (y,) in outputs]),)

    one = replace(whole.call(), name="1 thread", repeat=repeat)
    return Figure(
        name,
        (ranks.call("2 ranks", "dtensor", join, one, repeat), one),
        whole.samples,
        whole.bytes_moved,
        Target("scaling"),
        beside=(
            replace(one, name="2 threads", expected=None, context=threads(2)),
            ranks.call("without DTensor", "plain", repeat=repeat),
        ),
    )


def dtensor(job: Filtering) -> Run:
    # Not above: the process that asks has other questions, too, and nothing to do with DTensor.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    coefficients, signals = job.tensors
    b, a = (DTensor.from_local(c, mesh, [Replicate()], run_check=False) for c in coefficients)
    xs = [DTensor.from_local(x, mesh, [Shard(0)], run_check=False) for x in signals]

    def run(n: int) -> Outputs:
        y = torch_iir.signal.lfilter(b, a, xs[n % len(xs)])
        assert isinstance(y, DTensor)
        return (y.to_local(),)

    return run


def without_dtensor(job: Filtering) -> Run:
    return job.ours().run


QUESTION = Question("ranks", figures)
