"""README.md tells the truth: its code runs, its table of algorithms is the library's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch_iir_native

README = Path(__file__).parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="tests of an installed package have no README beside them")


def test_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        scope: dict[str, object] = {}
        exec(compile(block, str(README), "exec"), scope)
        assert scope["bank"].shape == (8, 128, 16000)  # type: ignore[attr-defined]
        assert scope["poles"].grad is not None  # type: ignore[attr-defined]


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
def test_table_of_algorithms(rows: int, samples: int, order: int, algorithm: str) -> None:
    assert torch_iir_native.lfilter_algorithm(rows, samples, order) == algorithm
