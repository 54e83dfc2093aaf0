"""Processes that are the ranks of a group, and calls of what all of them do at once."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bench.compare import Array, Judge
from bench.measure import Call

Outputs = tuple[Any, ...]
Task = tuple[Any, ...]  # a function of the top of a module, and its arguments: they make what a rank runs

PRELOADED = [
    "torch.distributed.tensor",
    "torch_iir.distributed",
    "bench.process_group",
]  # by what ranks are forked from


@dataclass(frozen=True)
class Joined:
    """The reference of a signal of which the ranks computed parts: they compute them again, and send them."""

    expected: Judge

    def compare(self, name: str, outputs: Callable[[], Outputs]) -> str:
        return self.expected.compare(name, outputs())


class Ranks:
    """A process with one thread for each rank of a gloo group. The process that asks them is none of them.

    Alone, it is only the last rank of the group, and what it hears from the others are copies of what it says (torch's
    fake process group): wrong numbers, but the work of one rank without messages, and of a group of any size.
    """

    def __init__(self, size: int, alone: bool = False) -> None:
        self.seconds = 0.0
        self.ranks = range(size - 1, size) if alone else range(size)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.folder = tempfile.TemporaryDirectory()
        self.pipes, self.processes = [], []
        for rank in self.ranks:
            ours, theirs = context.Pipe()
            job = (theirs, None if alone else f"file://{self.folder.name}/store", rank, size)
            process = context.Process(target=serve, args=job)
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *raised: object) -> None:
        for process in self.processes:
            process.kill()  # those that wait for one that failed would wait for long
            process.join()
        self.folder.cleanup()

    def load(self, **tasks: Sequence[Task]) -> None:
        """Gives each rank its tasks, by name; what they had before, they forget."""
        self.ask(*({name: task[index] for name, task in tasks.items()} for index in range(len(self.ranks))))

    def outputs(self, task: str, n: int = 0) -> list[Outputs]:
        """Of each rank, for the n-th input."""
        return self.ask(*[("outputs", task, n)] * len(self.ranks))

    def call(
        self,
        name: str,
        task: str,
        join: Callable[[list[Outputs]], Outputs] | None = None,
        whole: Call | None = None,
        repeat: int = 1,
    ) -> Call:
        """A task, so many times between two readings of the clock; its time is that of the slowest rank.

        Joined, its outputs are those of ``whole``. Without that it is only timed.
        """

        def run(n: int) -> Callable[[], Outputs] | None:
            self.seconds += max(self.ask(*[("seconds", task, range(n, n + repeat))] * len(self.ranks)))
            return None if join is None else lambda: join(self.outputs(task, n))

        def expected(n: int) -> Joined:
            assert whole is not None
            assert whole.expected is not None
            return Joined(whole.expected(n))

        call = Call(name, run, share=repeat, clock=lambda: self.seconds)
        return call if whole is None else replace(call, expected=expected, inputs=whole.inputs)

    def ask(self, *orders: object) -> list[Any]:
        """The answers of the ranks, each to its order. The first failure is raised: others may wait for that rank."""
        for pipe, order in zip(self.pipes, orders, strict=True):
            pipe.send(order)
        answers: dict[int, Any] = {}
        while len(answers) < len(self.pipes):
            for ready in wait([pipe for index, pipe in enumerate(self.pipes) if index not in answers]):
                assert isinstance(ready, Connection)
                index = self.pipes.index(ready)
                try:
                    failure, answers[index] = ready.recv()
                except EOFError:
                    failure = "its process ended without a word"
                if failure is not None:
                    raise RuntimeError(f"rank {self.ranks[index]}: {failure}")
        return [answers[index] for index in range(len(self.pipes))]


def serve(pipe: Connection, store: str | None, rank: int, size: int) -> None:
    """What a rank does, until it is killed."""
    torch.set_num_threads(1)
    gc.freeze()  # to collect what a figure leaves behind takes no time then
    gc.disable()
    tasks: dict[str, Callable[[int], Any]] = {}
    try:
        if store is None:
            from torch.testing._internal.distributed.fake_pg import FakeStore

            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        else:
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        while True:
            pipe.send((None, answer(pipe.recv(), tasks)))
    except EOFError:
        pass  # the process that asks has ended
    except Exception:
        pipe.send((traceback.format_exc(), None))


def answer(order: Any, tasks: dict[str, Callable[[int], Any]]) -> Any:
    if isinstance(order, Mapping):
        tasks.clear()
        gc.collect()
        tasks |= {name: make(*arguments) for name, (make, *arguments) in order.items()}
        return None
    what, task, inputs = order
    run = tasks[task]
    if what == "outputs":
        outputs = run(inputs)
        return tuple(map(plain, outputs if isinstance(outputs, tuple) else (outputs,)))
    dist.barrier()
    start = time.perf_counter()
    for n in inputs:
        run(n)
    return time.perf_counter() - start


def plain(output: Any) -> Array | Any:
    """What can be sent."""
    return output.detach().numpy() if isinstance(output, Tensor) else output
