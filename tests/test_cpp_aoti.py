"""Compiled models in C++ programs without Python: the example of it, against the installed package."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import foreign
import pytest
import torch

from torch_iir import _libraries

EXAMPLE = foreign.EXAMPLES / "aoti"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

pytestmark = [
    foreign.needs_cmake,
    pytest.mark.skipif(
        torch.version.cuda is not None, reason="find_package(Torch) wants the CUDA toolkit of this torch"
    ),
]


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the example's programs. The linker drops libraries that nobody calls, as on some systems."""
    return foreign.build(
        EXAMPLE,
        tmp_path_factory.mktemp("build"),
        f"-DTorch_DIR={torch.utils.cmake_prefix_path}/Torch",
        "-DCMAKE_BUILD_TYPE=None",
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror",
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package and the cases that the example's script writes."""
    directory = tmp_path_factory.mktemp("model")
    foreign.run(Path(sys.executable), EXAMPLE / "export.py", directory, environment=ONE_THREAD)
    return directory / "effects.pt2", directory / "effects.cases"


def library() -> Path:
    path = _libraries.find("torch_iir_ops")
    assert path is not None
    return path


def is_as_in_python(printed: str) -> bool:
    *cases, python = printed.splitlines()
    sizes = [re.match(r"(\d+) (\d+) samples: \d+ us a call, off by (\S+)", case) for case in cases]
    assert [size and (int(size[1]), int(size[2])) for size in sizes] == [(1, 64), (2, 333), (5, 5000), (1, 48000)]
    assert all(float(size[3]) <= 1e-6 for size in sizes if size)
    return python == "libpython is not in this process"


def test_runs_without_python(effects: Path, model: tuple[Path, Path]) -> None:
    assert is_as_in_python(foreign.run(effects / "effects", *model, environment=ONE_THREAD))


def test_runs_with_the_library_loaded_by_name(effects: Path, model: tuple[Path, Path]) -> None:
    assert is_as_in_python(foreign.run(effects / "effects_loading", *model, library(), environment=ONE_THREAD))


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_what_the_programs_link(effects: Path) -> None:
    def links(name: str) -> bool:
        return "[libtorch_iir_ops.so]" in foreign.run(Path("readelf"), "-d", effects / name)

    assert links("effects")
    assert not links("effects_loading")


def test_message_where_the_library_is_missing(effects: Path, model: tuple[Path, Path]) -> None:
    result = foreign.quietly(effects / "effects_loading", *model)
    assert result.returncode == 1
    assert re.match(r"Could not find schema for torch_iir::\w+\.\nlibtorch_iir_ops.so is not loaded: ", result.stderr)
    result = foreign.quietly(effects / "effects_loading", *model, "libtorch_iir_operators.so")
    assert result.returncode == 1
    assert "libtorch_iir_operators.so: cannot open" in result.stderr


def test_other_results_are_noticed(effects: Path, model: tuple[Path, Path], tmp_path: Path) -> None:
    package, cases = model
    other = bytearray(cases.read_bytes())
    other[-1] ^= 0x40  # the exponent of the last sample
    (tmp_path / "other.cases").write_bytes(other)
    result = foreign.quietly(effects / "effects", package, tmp_path / "other.cases", environment=ONE_THREAD)
    assert result.returncode == 1
    assert "not what Python computed" in result.stderr
