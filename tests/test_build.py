"""The build: what the libraries link, what an import costs, the native package, the torch that it is built beside."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch_iir_native

import torch_iir
from torch_iir import _libraries


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        cwd=Path(__file__).parent,  # not where the sources would be taken for the installed package
    )


def printed_by(code: str, **environment: str) -> str:
    result = run_python(code, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def library(stem: str) -> Path:
    path = _libraries.find(stem) or torch_iir_native.cmake_dir().parent.parent / f"lib{stem}.so"
    if not path.exists():
        pytest.skip(f"lib{stem}.so was not built")
    return path


def dynamic_section(path: Path) -> dict[str, list[str]]:
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    text = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    entries: dict[str, list[str]] = {}
    for tag, value in re.findall(r"\((\w+)\).*\[(.*)\]", text):
        entries.setdefault(tag, []).append(value)
    return entries


# --- facts


def test_build_info() -> None:
    info = torch_iir.build_info()
    assert info["version"] == torch_iir.__version__
    assert info["isa"] in info["isas"]
    assert info["torch"] == torch.__version__
    assert isinstance(info["cuda"], bool)


def test_core_knows_no_torch() -> None:
    assert not any("torch" in name for name in dynamic_section(library("torch_iir_core"))["NEEDED"])


def test_ops_needs_libtorch_and_no_python() -> None:
    needed = dynamic_section(library("torch_iir_ops"))["NEEDED"]
    assert "libtorch_cpu.so" in needed
    assert "libtorch_iir_core.so" in needed
    assert not any("python" in name for name in needed)


def test_cuda_library_needs_libtorch_cuda() -> None:
    needed = dynamic_section(library("torch_iir_ops_cuda"))["NEEDED"]
    assert "libtorch_cuda.so" in needed
    assert not any(name.startswith("libcudart") for name in needed)


@pytest.mark.parametrize("stem", ["torch_iir_core", "torch_iir_ops", "torch_iir_ops_cuda", "torch_iir_cuda"])
def test_libraries_find_each_other_wherever_they_lie(stem: str) -> None:
    entries = dynamic_section(library(stem))
    for path in entries.get("RUNPATH", []) + entries.get("RPATH", []):
        assert all(part.startswith("$ORIGIN") for part in path.split(":"))


def test_no_build_path_in_errors() -> None:
    with pytest.raises(RuntimeError, match="must not be zero") as error:
        torch.ops.torch_iir.lfilter(torch.ones(3), torch.ones(1), torch.zeros(1))
    assert "native/ops/" in str(error.value)
    assert "/native" not in str(error.value)


# --- importing


def test_import_is_quick_and_starts_no_thread() -> None:
    code = """
        import os, time, torch, numpy
        threads, start = len(os.listdir("/proc/self/task")), time.process_time()
        import torch_iir
        print(time.process_time() - start, len(os.listdir("/proc/self/task")) - threads)
    """
    runs = [printed_by(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.2
    assert all(threads == "0" for _, threads in runs)


# --- instruction sets and algorithms


def test_isa_from_the_environment() -> None:
    code = "import torch_iir_native; print(torch_iir_native.build_info()['isa'])"
    for isa in torch_iir_native.build_info()["isas"]:
        assert printed_by(code, TORCH_IIR_ISA=isa) == isa


@pytest.mark.parametrize("package", ["torch_iir_native", "torch_iir"])
def test_unknown_isa_is_an_import_error(package: str) -> None:
    result = run_python(f"import {package}", TORCH_IIR_ISA="mmx")
    assert result.returncode != 0
    assert 'ImportError: TORCH_IIR_ISA is "mmx"; this machine runs' in result.stderr


def test_set_isa() -> None:
    before = torch_iir_native.build_info()["isa"]
    try:
        for isa in torch_iir_native.build_info()["isas"]:
            torch_iir_native.set_isa(isa)
            assert torch_iir.build_info()["isa"] == isa  # one core in the process
        with pytest.raises(ValueError, match="isa must be one that this machine runs"):
            torch_iir_native.set_isa("mmx")
    finally:
        torch_iir_native.set_isa(before)


def test_algorithm_from_the_environment() -> None:
    code = "import torch, torch_iir; print(torch.ops.torch_iir._force_algorithm(0))"
    assert printed_by(code, TORCH_IIR_ALGORITHM="direct") == "1"
    result = run_python(code, TORCH_IIR_ALGORITHM="fastest")
    assert "ImportError: TORCH_IIR_ALGORITHM: algorithm must be one of" in result.stderr


def test_algorithm_is_forced_and_restored() -> None:
    forced = torch.ops.torch_iir._force_algorithm
    with torch_iir.algorithm("rows"):
        with torch_iir.algorithm("direct"):
            assert forced(1) == 1
        assert forced(2) == 2
    assert forced(0) == 0
    with pytest.raises(ValueError, match="algorithm must be one of"), torch_iir.algorithm("fastest"):
        pass


def test_algorithm_that_cannot_run_the_filter() -> None:
    a = torch.tensor([1.0] + [0.0] * 20)
    with torch_iir.algorithm("segments"), pytest.raises(RuntimeError, match='"segments" is forced'):
        torch.ops.torch_iir.lfilter(torch.ones(500), a, a)


# --- the torch that it is built beside


@pytest.fixture
def find_torch() -> ModuleType:
    path = Path(__file__).parent.parent / "native" / "cmake" / "find_torch.py"
    spec = importlib.util.spec_from_file_location("find_torch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_build_looks_where_packages_are_installed(find_torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/an/active/environment")
    places = list(find_torch.candidates())
    assert sysconfig.get_path("purelib") in places
    assert any(place.startswith("/an/active/environment/") for place in places)


@pytest.mark.parametrize("version", [None, "2.10.0", "2.11.0", "2.13.0+cpu", "3.0.0a0+git1234"])
def test_build_takes_the_torch_of_its_environment(
    version: str | None,
    find_torch: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(find_torch, "candidates", lambda: [tmp_path / "nothing", tmp_path])
    if version is not None:
        headers = tmp_path / "torch" / "include" / "torch" / "csrc" / "stable"
        headers.mkdir(parents=True)
        (headers / "library.h").touch()
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
    if version in (None, "2.10.0"):
        with pytest.raises(SystemExit) as stop:
            find_torch.main()
        assert "python -m pip install 'torch>=2.11'" in str(stop.value)
        assert ("found none" if version is None else f"only 2.10.0 in {tmp_path}") in str(stop.value)
    else:
        find_torch.main()
        assert capsys.readouterr().out.strip() == str(tmp_path / "torch")
