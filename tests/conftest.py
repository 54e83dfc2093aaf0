from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import libraries
import pytest
import torch
import torch_iir_native

import torch_iir

ISAS: list[str] = torch_iir_native.build_info()["isas"]
ALGORITHMS = ("automatic", "direct", "rows", "segments", "blocks")


@pytest.fixture(autouse=True)
def fresh_start() -> Iterator[None]:
    """The same random numbers for every test, whatever ran before, and no compiled graphs left from it."""
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
