"""What a filter costs where there is no Python: a compiled model called by a C++ program, beside calls from Python.

The program is in ``bench/aoti/``. It is built, and the models are compiled for it, when the question is asked.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch_iir_native
from torch import Tensor, nn

import torch_iir
from bench.compare import WrongOutputError
from bench.filters import Filtering, LFilter, SOSFilt, noise, stable_filter, stable_sections
from bench.measure import INPUTS, Call
from bench.question import Figure, Question, Target

SOURCE = Path(__file__).with_suffix("")
EXAMPLE = SOURCE.parent.parent / "examples" / "cpp" / "aoti"  # whose functions compile models and keep what they give

FILTERS: dict[str, Callable[[Sequence[Any]], Filtering]] = {
    "lfilter order 2": partial(LFilter.of, np.float32, *stable_filter(2)),
    "sosfilt, 8 sections": partial(SOSFilt.of, np.float32, stable_sections(8)),
}
LENGTHS = {64: 1000, 262_144: 20}  # and the calls of a run: asking the program for them costs some 20 µs


class Model(nn.Module):
    """A filter with its coefficients."""

    def __init__(self, job: Filtering) -> None:
        super().__init__()
        self.function = getattr(torch_iir.signal, job.function)
        self.coefficients = nn.ParameterList(job.tensors[0])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(*self.coefficients, x)
        return y


@dataclass(frozen=True)
class Same:
    """Bit for bit what Python computes; the program tells how far it is from that."""

    def compare(self, name: str, off: Callable[[], float]) -> str:
        if (by := off()) != 0:
            raise WrongOutputError(f"{name}: off by {by:.1e}")
        return ""


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aoti_example", EXAMPLE / "export.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(folder: Path) -> Path:
    """The program."""
    places = f"-DCMAKE_PREFIX_PATH={torch_iir_native.cmake_dir()};{torch.utils.cmake_prefix_path}"
    options = (places, f"-DEXAMPLE={EXAMPLE}", "-DCMAKE_BUILD_TYPE=None")
    for step in (["cmake", "-S", SOURCE, "-B", folder, *options], ["cmake", "--build", folder]):
        result = subprocess.run(step, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"bench/aoti does not build:\n{result.stdout}{result.stderr}")
    return folder / "calls"


@contextmanager
def running(program: Path, package: Path, cases: Path) -> Iterator[Callable[[int, int], Callable[[], float]]]:
    """Calls of a package by the program: from the n-th case on, so many of them; and how far off the last one was."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipe = subprocess.PIPE
    with subprocess.Popen([program, package, cases], stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answer = process.stdin, process.stdout

        def run(n: int, count: int) -> Callable[[], float]:
            def answered(first: int, calls: int) -> str:
                print(first, calls, file=ask, flush=True)
                return answer.readline()

            answered(n % INPUTS, count)
            return lambda: float(answered(0, 0))

        yield run
        ask.close()


def figures(quick: bool) -> Iterator[Figure]:
    if shutil.which("cmake") is None or torch.version.cuda is not None:  # find_package(Torch) wants that toolkit then
        print("  To build bench/aoti takes CMake, and a torch without CUDA: no figures.")
        return
    library = example()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = built(folder / "build")
        package, cases = folder / "model.pt2", folder / "model.cases"
        for name, filtering in list(FILTERS.items())[: 1 if quick else None]:
            model = Model(filtering(noise((64,)))).eval()
            dynamic = {"x": {0: torch.export.Dim("samples", min=2, max=1 << 24)}}
            options = {"aot_inductor.compile_wrapper_opt_level": "O0"} if quick else {}
            library.compile_to(package, model, (torch.randn(100),), dynamic, **options)
            compiled = torch._inductor.aoti_load_package(str(package))
            for samples, calls in LENGTHS.items():
                job = filtering(noise((samples,)))
                coefficients, signals = job.tensors
                library.save_cases(cases, [([x], [model(x)]) for x in signals])
                operator = partial(by_operator, getattr(torch.ops.torch_iir, job.function).default)
                repeat, count = (2, 2) if quick else (max(1, calls // 10), calls)
                python = partial(in_python, job, repeat)
                with running(program, package, cases) as run:
                    yield Figure(
                        f"{name}, float32, [{samples}]",
                        (
                            Call("C++ program", lambda n: run(n, count), lambda n: Same(), share=count),  # noqa: B023
                            job.ours("torch_iir.signal", repeat=repeat, context=torch.inference_mode),
                            python("torch.ops.torch_iir", partial(operator, coefficients)),
                            python("the same package in Python", compiled),
                        ),
                        job.samples,
                        job.bytes_moved,
                        Target("speedup"),
                    )


def by_operator(operator: Callable[..., tuple[Tensor, Tensor]], coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    return operator(x, *coefficients)[0]


def in_python(job: Filtering, repeat: int, name: str, run: Callable[[Tensor], Tensor]) -> Call:
    signals = job.tensors[1]
    return Call(name, lambda n: run(signals[n % INPUTS]), job.expected, repeat=repeat, context=torch.inference_mode)


QUESTION = Question("algorithms", figures)
