from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import emulated
import libraries
import pytest
import torch
import torch_iir_native

import torch_iir

ISAS: list[str] = torch_iir_native.build_info()["isas"]

# Read when Inductor is imported, here and in the processes that tests start. A pool of processes to compile in costs
# more than it saves, and a compiler that this package was built with need not be tried out for this processor.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

# Tracing makes objects by the hundred thousand and keeps most of them: looking through every 700 new ones for garbage
# takes a tenth of its time.
gc.set_threshold(100_000, 20, 20)

if emulated.ASKED_FOR:
    emulated.load()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not emulated.ASKED_FOR:
        return
    kept, left_out = [], []
    for item in items:
        name = getattr(item, "originalname", item.name)
        (kept if emulated.runs(item.path.stem, name) else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


ALGORITHMS = ("automatic", "direct", "rows", "segments", "blocks")


@pytest.fixture(scope="session")
def keep_imports() -> Callable[[], None]:
    """Takes what was imported out of garbage collections: a million objects of torch that stay whatever is done."""
    known = 0

    def keep() -> None:
        nonlocal known
        if len(sys.modules) > known:
            known = len(sys.modules)
            gc.collect()
            gc.freeze()
            if "torch._dynamo.guards" in sys.modules:  # times the guards of each graph with emptied caches: 30 ms
                torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0

    return keep


@pytest.fixture(autouse=True)
def fresh_start(keep_imports: Callable[[], None]) -> Iterator[None]:
    """The same random numbers for every test, whatever ran before, and no compiled graphs left from it."""
    keep_imports()
    torch.manual_seed(1234)
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch_iir_native.build_info()["isa"]
    torch_iir_native.set_isa(request.param)
    yield request.param
    torch_iir_native.set_isa(before)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Iterator[str]:
    with torch_iir.algorithm(request.param):
        yield request.param


@pytest.fixture(scope="module")
def torchaudio() -> Iterator[ModuleType]:
    with libraries.torchaudio() as library:
        yield library


@pytest.fixture
def F(torchaudio: ModuleType) -> ModuleType:
    functional: ModuleType = torchaudio.functional
    return functional
