"""Runs a function on several ranks of a gloo group at once, each a process of its own on this machine."""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Ranks are forked from a server that has imported this once: a rank then costs milliseconds, and a compiled function
# on one not the seconds that Dynamo and Inductor take.
PRELOADED = [
    "numpy",
    "pytest",
    "torch",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.tensor",
    "torch_iir",
    "reference",
    "ranks",
]


def run(function: Callable[..., Any], world: int, *args: Any, timeout: float = 120) -> list[Any]:
    """What function(*args) returns on each rank of a fresh group, by rank; the first failure is raised here.

    The function is found by its name in the process of a rank, so it stands at the top of a module. Its arguments and
    results are what torch.save takes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            job = (theirs, Path(folder) / "store", rank, world, function, _saved(args))
            process = context.Process(target=_rank, args=job, daemon=False)
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            pipes.append(ours)
            processes.append(process)
        try:
            return _results(pipes, timeout)
        finally:
            for process in processes:
                process.kill()  # those that wait for one that failed would wait for long
                process.join()


def _results(pipes: list[Connection], timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        ready = wait([pipe for rank, pipe in enumerate(pipes) if rank not in results], timeout)
        assert ready, f"ranks {sorted(set(range(len(pipes))) - set(results))} did not answer within {timeout} s"
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = pipes.index(pipe)
            try:
                failure, result = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
            except EOFError:
                failure, result = "its process ended without a word", None
            assert failure is None, f"rank {rank}: {failure}"
            results[rank] = result
    return [results[rank] for rank in range(len(pipes))]


def _rank(pipe: Connection, store: Path, rank: int, world: int, function: Callable[..., Any], args: bytes) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        result = function(*torch.load(io.BytesIO(args), weights_only=False))
        answer = _saved((None, result))
        dist.barrier()  # nobody leaves while another still talks to it
        pipe.send_bytes(answer)
        dist.destroy_process_group()
    except BaseException:  # pytest's own failures are none of Exception
        pipe.send_bytes(_saved((traceback.format_exc(), None)))


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
