"""README.md tells the truth: its code runs, its tables of algorithms are the library's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_iir_native

README = Path(__file__).parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="tests of an installed package have no README beside them")


def test_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    for block in blocks:  # each goes on where the one before it stopped
        exec(compile(block, str(README), "exec"), scope)
    assert scope["bank"].shape == (8, 128, 16000)
    assert scope["poles"].grad.abs().min() > 0
    assert scope["low"].shape == (8, 2, 16000)
    assert scope["cutoff"].grad.abs().min() > 0
    assert scope["energies"].shape == (8, 40)
    torch.testing.assert_close(scope["y"], scope["x"])  # a SOSFilter begins as y = x
    assert scope["guess"].min() >= 0
    torch.testing.assert_close(scope["inverse"].fb.mT @ scope["guess"], scope["mel"], rtol=1e-4, atol=1e-4)
    assert scope["sound"].shape == (8, 125 * 128)
    assert scope["X"].min() >= 0
    torch.testing.assert_close(scope["same"], scope["rising"])
    whole = slice(0, -80)  # after the last frame the filter stays
    torch.testing.assert_close(scope["spoken"][:, whole], scope["rising"][:, whole], rtol=0, atol=0.02)
    assert scope["echo"].shape == (8, 19999)
    difference = scope["sampled"] - scope["sosfilt"](scope["cascade"], scope["x"])
    assert (difference.abs().amax(-1) <= scope["bound"] + 1e-5).all()  # and what is rounded
    torch.testing.assert_close((scope["x"] * scope["back"]).sum(), scope["spectrum"].abs().square().sum())
    assert scope["response"].shape == scope["w"].shape == (1024,)
    torch.testing.assert_close(scope["smoothed"], scope["lfilter"]([0.01], [1, -0.99], scope["x"]))


@pytest.mark.parametrize(
    ("rows", "samples", "order", "algorithm"),
    [
        (12, 32, 1, "rows"),
        (12, 31, 1, "direct"),
        (500, 1000, 1024, "rows"),
        (500, 1000, 1025, "direct"),
        (11, 256, 2, "segments"),
        (1, 255, 2, "direct"),
        (1, 128 * 27, 3, "segments"),
        (1, 128 * 27 - 1, 3, "blocks"),
        (1, 128 * 216, 6, "segments"),
        (1, 128 * 216 - 1, 6, "blocks"),
        (1, 1_000_000, 7, "blocks"),
        (1, 96, 3, "blocks"),
        (1, 95, 3, "direct"),
        (1, 1_000_000, 1024, "blocks"),
        (1, 1_000_000, 1025, "direct"),
        (64, 1_000_000, 0, "direct"),
    ],
)
def test_table_of_algorithms_of_lfilter(rows: int, samples: int, order: int, algorithm: str) -> None:
    assert torch_iir_native.lfilter_algorithm(rows, samples, order) == algorithm


@pytest.mark.parametrize(
    ("rows", "samples", "sections", "algorithm"),
    [
        (12, 32, 2, "rows"),
        (12, 31, 2, "direct"),
        (500, 1000, 100, "rows"),
        (11, 32, 2, "wavefront"),
        (1, 2 * 2048 - 1, 2, "wavefront"),
        (11, 2 * 2048, 2, "segments"),
        (1, 4 * 2048, 4, "segments"),
        (1, 5 * 4096 - 1, 5, "wavefront"),
        (1, 5 * 4096, 5, "segments"),
        (1, 1_000_000, 100, "segments"),
        (1, 31, 100, "direct"),
    ],
)
def test_table_of_algorithms_of_sosfilt(rows: int, samples: int, sections: int, algorithm: str) -> None:
    assert torch_iir_native.sosfilt_algorithm(rows, samples, sections) == algorithm


@pytest.mark.parametrize(
    ("rows", "samples", "order", "algorithm"),
    [
        (8, 32, 1, "rows"),
        (8, 31, 1, "direct"),
        (8, 1000, 6, "rows"),
        (8, 1000, 7, "blocks"),
        (12, 32, 16, "rows"),
        (500, 1000, 17, "blocks"),
        (7, 256, 2, "segments"),
        (7, 255, 2, "direct"),
        (1, 1_000_000, 3, "direct"),
        (1, 1_000_000, 6, "direct"),
        (1, 32, 7, "blocks"),
        (1, 31, 7, "direct"),
        (64, 1_000_000, 0, "direct"),
    ],
)
def test_table_of_algorithms_of_lfilter_tv(rows: int, samples: int, order: int, algorithm: str) -> None:
    assert torch_iir_native.lfilter_tv_algorithm(rows, samples, order) == algorithm


@pytest.mark.parametrize("rows", [1, 11, 12])
@pytest.mark.parametrize("samples", [31, 32, 95, 96, 255, 256])
def test_a_single_section_runs_as_lfilter(rows: int, samples: int) -> None:
    assert torch_iir_native.sosfilt_algorithm(rows, samples, 1) == torch_iir_native.lfilter_algorithm(rows, samples, 2)
