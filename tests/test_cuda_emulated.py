"""The operators for CUDA, adapters and kernels, on the emulator: in a process of its own, see emulated.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest
import torch

import torch_iir
from torch_iir import _libraries

# Some seconds' worth of what `make test-emulated` runs.
SOME = (
    "test_cuda_emulated.py",
    "test_registry.py::test_equals_its_reference",
    "test_lfilter.py::test_dtypes",
    "test_sosfilt.py::test_dtypes",
    "test_lfilter_tv.py::test_dtypes",
)


@pytest.mark.skipif(_libraries.find("torch_iir_ops_emulated") is None, reason="the emulator was not built")
def test_some_of_the_tests() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SOME],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parent,
        env={**os.environ, "TORCH_IIR_TEST_EMULATED": "1", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert " passed" in result.stdout


def test_every_test_of_the_emulator_exists() -> None:
    for module, names in emulated.TESTS.items():
        text = (Path(__file__).parent / f"{module}.py").read_text()
        assert all(f"def {name}(" in text for name in names), module


def zero_a0(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.torch_iir.lfilter(x, torch.ones(1), torch.tensor([0.0]))[0]  # type: ignore[no-any-return]


def test_the_emulator_runs() -> None:
    """Where it is asked for, and nowhere else: an a[0] of 0 tells."""
    if emulated.ASKED_FOR:
        assert torch.equal(zero_a0(torch.ones(3)), torch.full((3,), torch.inf))
    else:
        with pytest.raises(RuntimeError, match="must not be zero"):
            zero_a0(torch.ones(3))


@pytest.mark.parametrize("name", ["clusters", "lookback"] if not emulated.ASKED_FOR else ["segments", "wavefront"])
def test_forced(name: str) -> None:
    """An algorithm of the other kind of device."""
    x, c = torch.ones(2, 400), torch.tensor([1.0, -0.5, 0.25])
    with torch_iir.algorithm(name):
        for op, args in {
            "lfilter": (x, c, c),
            "lfilter_backward": (x, None, x, c, c, None, x, 7),
            "sosfilt": (x, torch.ones(2, 6)),
            "sosfilt_backward": (x, None, x, torch.ones(2, 6), None, 3),
            "lfilter_tv": (x, None, c.expand(400, 3)),
            "lfilter_tv_backward": (x, None, x, None, c.expand(400, 3), None, None, x, 0, 1, 1, 5),
        }.items():
            with pytest.raises(RuntimeError, match=f'"{name}" is forced, and cannot run'):
                getattr(torch.ops.torch_iir, op)(*args)
