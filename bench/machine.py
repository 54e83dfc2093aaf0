"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch_iir

SEED = 1234
ISAS = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON", "baseline": "baseline"}  # the widest first


def isa() -> str:
    return str(torch_iir.build_info()["isa"])


def describe() -> dict[str, str | int]:
    """CPU, instruction set, versions, and the seed of the inputs; the same on the same machine and build."""
    facts: dict[str, str | int] = {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "isa": isa()}
    facts |= {"torch_iir": torch_iir.__version__, "compiler": str(torch_iir.build_info()["compiler"])}
    facts |= {"python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "numba", "torchlpc", "librosa", "torchaudio"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts | {"seed": SEED}


def cpu_model() -> str:
    """The name that the CPU gives itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
