"""C++ programs of others, built against the installed package with CMake as their authors would."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch_iir_native

PREFIX = torch_iir_native.cmake_dir().parents[2]  # in a wheel, the directory of the package torch_iir_native
EXAMPLES = Path(__file__).parent.parent / "examples" / "cpp"

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")


def configure(source: Path, build: Path, *definitions: str, prefix: Path = PREFIX) -> subprocess.CompletedProcess[str]:
    """Configures a project. ``definitions`` are further arguments of cmake; ``prefix`` is where torch_iir is found."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    return quietly("cmake", *generator, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", *definitions)


def build(source: Path, build: Path, *definitions: str, prefix: Path = PREFIX) -> Path:
    """Configures and builds a project; returns the directory that its programs are in."""
    for step in (
        configure(source, build, *definitions, prefix=prefix),
        quietly("cmake", "--build", build),
    ):
        assert step.returncode == 0, step.stdout + step.stderr
    return build


def run(program: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints. It must succeed."""
    result = quietly(program, *arguments, environment=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def quietly(*command: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in command],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **(environment or {})},
    )
