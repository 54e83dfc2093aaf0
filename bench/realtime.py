"""What a block costs on an audio thread: plans of the C++ library, against its one-shot functions and calls of Python.

The streams of C++ programs are in ``bench/realtime/``, built when the question is asked, against the package that is
installed. A run filters a signal block after block from rest; figures are of a block, whose deadline is its duration.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
import torch_iir_native

import torch_iir
from bench.compare import Array, Expected
from bench.filters import Filtering, LFilter, SOSFilt, noise, stable_filter, stable_sections
from bench.measure import INPUTS, Call, no_collection
from bench.question import Figure, Question, Target

SOURCE = Path(__file__).with_suffix("")
RATE = 48_000  # by which a block has a duration

FILTERS: dict[str, Callable[[Sequence[Array]], Filtering]] = {
    "LFilterPlan, order 2": partial(LFilter.of, np.float32, *stable_filter(2)),
    "SOSFiltPlan, 1 section": partial(SOSFilt.of, np.float32, stable_sections(1)),
    "SOSFiltPlan, 8 sections": partial(SOSFilt.of, np.float32, stable_sections(8)),
}
SHAPES = ((1, 64), (2, 64), (32, 64), (1, 512), (2, 512), (32, 512))  # channels, samples of a block


@dataclass(frozen=True)
class Whole:
    """The reference of a signal at once, for a result in blocks."""

    expected: Expected

    def compare(self, name: str, result: Array | list[Any]) -> str:
        return self.expected.compare(name, np.concatenate([np.asarray(block) for block in result], -1))


@dataclass(frozen=True)
class Blocks:
    """A filter, and its signals cut into blocks, (blocks, channels, samples of a block) each."""

    job: Filtering
    signals: list[Array]

    @classmethod
    def of(cls, filter: str, channels: int, block: int, blocks: int) -> Blocks:
        job = FILTERS[filter](noise((channels, blocks * block)))
        cut = [x.reshape(channels, blocks, block).swapaxes(0, 1).copy() for x in job.signals]
        return cls(job, cut)

    @property
    def blocks(self) -> int:
        return len(self.signals[0])

    def call(self, name: str, run: Callable[[int], Array | list[Any]], storage: bool = False, **options: Any) -> Call:
        """A call that filters all blocks; its time is that of one."""
        judge = self.job.expected_in_storage if storage else self.job.expected
        return Call(name, lambda n: run(n % INPUTS), lambda n: Whole(judge(n)), share=self.blocks, **options)

    def python(self) -> Call:
        coefficients, _ = self.job.tensors
        function = getattr(torch_iir.signal, self.job.function)
        return self.stateful("torch_iir.signal", function, coefficients, torch.from_numpy, context=torch.inference_mode)

    def scipy(self) -> Call:
        function = getattr(scipy.signal, self.job.function)
        return self.stateful("scipy", function, self.job.coefficients, lambda array: array, storage=True)

    def stateful(
        self,
        name: str,
        function: Callable[..., Any],
        coefficients: Sequence[Any],
        convert: Callable[[Array], Any],
        **options: Any,
    ) -> Call:
        """A function that is handed the state that it returned for the block before."""
        signals = [[convert(block) for block in signal] for signal in self.signals]
        channels = self.signals[0].shape[1]
        sections = (len(self.job.sections),) if self.job.function == "sosfilt" else ()
        rest = convert(np.zeros((*sections, channels, 2), np.float32))

        def run(n: int) -> list[Any]:
            state, results = rest, []
            for block in signals[n]:
                y, state = function(*coefficients, block, zi=state)
                results.append(y)
            return results

        return self.call(name, run, **options)


class Stream:
    """A filter of ``bench/realtime/streams.cpp``."""

    def __init__(self, library: ctypes.CDLL, blocks: Blocks, plan: bool) -> None:
        self.library, self.signals = library, blocks.signals
        self.output = np.empty_like(self.signals[0])
        rows = np.array([np.concatenate(section) for section in blocks.job.sections])
        _, channels, block = self.output.shape
        self.stream = library.make_stream(
            blocks.job.function == "sosfilt", plan, rows.ctypes.data, len(rows), channels, block
        )
        if not self.stream:
            raise RuntimeError("the stream cannot be made")

    def __del__(self) -> None:
        self.library.free_stream(self.stream)

    def run(self, n: int) -> Array:
        return self.timed(n, None)

    def timed(self, n: int, seconds: Array | None) -> Array:
        count, size = len(self.output), self.output[0].size
        times = None if seconds is None else seconds.ctypes.data
        status = self.library.play(
            self.stream, self.signals[n].ctypes.data, self.output.ctypes.data, count, size, times
        )
        if status != 0:
            raise RuntimeError(f"a run ended with status {status}")
        return self.output

    def distribution(self, runs: int) -> str:
        """How the times of single blocks lie, after a run that warms up."""
        seconds = np.empty((runs, len(self.output)))
        with no_collection():
            self.run(0)
            for n, row in enumerate(seconds):
                self.timed(n % INPUTS, row)
        median, most, worst = 1e6 * np.quantile(seconds, [0.5, 0.99, 1])
        share = 1e-4 * median * RATE / self.output.shape[-1]
        return f"p50 {median:.3g}, p99 {most:.3g}, max {worst:.3g} µs of {seconds.size} blocks; load {share:.2g} %"


def built() -> ctypes.CDLL | None:
    """The streams. None where there is no CMake."""
    if shutil.which("cmake") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        where = f"-Dtorch_iir_DIR={torch_iir_native.cmake_dir()}"
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        for step in (["cmake", *generator, "-S", str(SOURCE), "-B", folder, where], ["cmake", "--build", folder]):
            result = subprocess.run(step, capture_output=True, text=True)
            if result.returncode != 0:
                raise RuntimeError(f"bench/realtime does not build:\n{result.stdout}{result.stderr}")
        library = ctypes.CDLL(str(Path(folder) / "libstreams.so"))
    array = ctypes.c_void_p
    library.make_stream.argtypes = ctypes.c_bool, ctypes.c_bool, array, ctypes.c_int, ctypes.c_int, ctypes.c_int64
    library.make_stream.restype = ctypes.c_void_p
    library.play.argtypes = ctypes.c_void_p, array, array, ctypes.c_int64, ctypes.c_int64, array
    library.free_stream.argtypes = (ctypes.c_void_p,)
    return library


def figures(quick: bool) -> Iterator[Figure]:
    library = built()
    if library is None:
        print("  There is no CMake to build bench/realtime with: no figures.")
        return
    shapes, runs = (SHAPES[1:2], 2) if quick else (SHAPES, 100)
    for name in FILTERS:
        for channels, block in shapes:
            blocks = Blocks.of(name, channels, block, 8 if quick else max(64, 16_384 // block))
            plan, one_shot = Stream(library, blocks, plan=True), Stream(library, blocks, plan=False)
            size = channels * block
            yield Figure(
                f"{name}, float32, a block of [{channels}, {block}]",
                (blocks.call(name.partition(",")[0], plan.run),),
                size,
                2 * size * np.dtype(np.float32).itemsize,
                Target("µs"),
                beside=(blocks.call(f"{blocks.job.function} in C++", one_shot.run), blocks.python(), blocks.scipy()),
                note=plan.distribution(runs),
            )


QUESTION = Question("limits", figures)
