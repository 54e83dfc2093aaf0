"""Libraries that only some tests are to see."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

WITHOUT_COMPILED_PART = str(Path(sys.prefix) / "torchaudio")  # where the Makefile puts it
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, WITHOUT_COMPILED_PART])}  # of a new process


@contextmanager
def torchaudio() -> Iterator[ModuleType]:
    """torchaudio, the whole or without its compiled part; for other tests it is as before."""
    before = set(sys.modules)
    sys.path.append(WITHOUT_COMPILED_PART)
    try:
        pytest.importorskip("torchaudio.transforms")
        yield pytest.importorskip("torchaudio")
    finally:
        sys.path.remove(WITHOUT_COMPILED_PART)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchaudio":
                del sys.modules[name]
