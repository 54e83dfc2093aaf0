"""The CMake package: what foreign projects find, in a wheel and in an install tree, and the headers they include."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import foreign
import pytest
import torch_iir_native

import torch_iir

ROOT = Path(__file__).parent.parent
SANITIZED = ROOT / "build" / "sanitize"
INCLUDE = foreign.PREFIX / "include"
HEADERS = sorted(path.name for path in (INCLUDE / "torch_iir").glob("*.h"))
COMPILERS = [compiler for compiler in ("g++", "clang++") if shutil.which(compiler)]
BUILT = {
    "core": True,
    "cuda": (foreign.PREFIX / "lib" / "libtorch_iir_cuda.so").exists(),
    "ops": (foreign.PREFIX.parent / "torch_iir" / "lib" / "libtorch_iir_ops.so").exists(),
}


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(textwrap.dedent(text))
    return directory


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A project that filters an impulse."""
    return write(
        tmp_path / "program",
        CMakeLists_txt="""
            cmake_minimum_required(VERSION 3.24)
            project(foreign LANGUAGES CXX)
            find_package(torch_iir 0.1 CONFIG REQUIRED)
            add_executable(foreign main.cpp)
            target_link_libraries(foreign PRIVATE torch_iir::core)
        """,
        main_cpp="""
            #include <cstdio>
            #include <torch_iir/lfilter.h>
            int main() {
              const double b[] = {1}, a[] = {1, -0.5}, x[] = {1, 0, 0};
              double y[3];
              torch_iir::LFilter<double> filter;
              filter.samples = 3;
              filter.b_length = 1;
              filter.a_length = 2;
              filter.x = {x};
              filter.b = {b};
              filter.a = {a};
              filter.y = {y};
              if (torch_iir::lfilter(filter) != torch_iir::Status::ok) return 1;
              std::printf("%g %g %g\\n", y[0], y[1], y[2]);
            }
        """,
    )


@pytest.fixture
def finder(tmp_path: Path) -> Path:
    """A project that only looks for the package, ``ARGUMENTS`` being those of find_package, and tells what it found."""
    return write(
        tmp_path / "finder",
        CMakeLists_txt="""
            cmake_minimum_required(VERSION 3.24)
            project(finder LANGUAGES NONE)
            find_package(torch_iir CONFIG ${ARGUMENTS})
            message(STATUS "found ${torch_iir_FOUND} ${torch_iir_VERSION} in ${torch_iir_DIR}")
            foreach(component core cuda ops)
              if(TARGET torch_iir::${component} AND torch_iir_${component}_FOUND)
                message(STATUS "component ${component}")
              endif()
            endforeach()
        """,
    )


def moved(to: Path) -> Path:
    """A copy of what CMake uses of the wheel, at another place; its prefix."""
    for package in ("lib", "include"):
        shutil.copytree(foreign.PREFIX / package, to / "torch_iir_native" / package)
    if BUILT["ops"]:
        shutil.copytree(foreign.PREFIX.parent / "torch_iir" / "lib", to / "torch_iir" / "lib")
    return to / "torch_iir_native"


def found(finder: Path, arguments: str = "", prefix: Path = foreign.PREFIX) -> subprocess.CompletedProcess[str]:
    return foreign.configure(finder, finder / "build", f"-DARGUMENTS={arguments}", prefix=prefix)


# --- what is found


@foreign.needs_cmake
def test_foreign_project_wherever_the_package_lies(program: Path, tmp_path: Path) -> None:
    build = foreign.build(program, tmp_path / "build", prefix=moved(tmp_path / "another place"))
    assert foreign.run(build / "foreign").split() == ["1", "0.5", "0.25"]


@foreign.needs_cmake
def test_components_that_were_built(finder: Path) -> None:
    result = found(finder)
    assert result.returncode == 0, result.stderr
    assert f"found 1 {torch_iir.__version__} in {torch_iir_native.cmake_dir()}" in result.stdout
    for component, built in BUILT.items():
        assert (f"component {component}" in result.stdout) == built


@foreign.needs_cmake
@pytest.mark.parametrize("component", ["ops", "cuda"])
def test_component_that_was_not_built(component: str, finder: Path, tmp_path: Path) -> None:
    prefix = moved(tmp_path / "moved")
    for path in (prefix / "lib" / "cmake" / "torch_iir").glob(f"torch_iir_{component}*.cmake"):
        path.unlink()
    without = found(finder, f"OPTIONAL_COMPONENTS;{component}", prefix)
    assert without.returncode == 0, without.stderr
    assert "component core" in without.stdout
    assert f"component {component}" not in without.stdout
    required = found(finder, f"REQUIRED;COMPONENTS;core;{component}", prefix)
    assert required.returncode != 0
    assert f'torch_iir has no component "{component}"' in " ".join(required.stderr.split())


@foreign.needs_cmake
def test_component_that_does_not_exist(finder: Path) -> None:
    result = found(finder, "COMPONENTS;core;filters")
    assert 'torch_iir has no component "filters"' in " ".join(result.stderr.split())
    assert "found 0" in result.stdout


@foreign.needs_cmake
@pytest.mark.parametrize(("version", "fits"), [("0.1", True), ("0.1.0", True), ("0.0.9", False), ("0.2", False)])
def test_version_that_is_asked_for(version: str, fits: bool, finder: Path) -> None:
    result = found(finder, version)
    assert (f"found 1 {torch_iir.__version__}" in result.stdout) == fits
    assert (f"version: {torch_iir.__version__}" in result.stderr) != fits  # of what was considered


def test_installed_files_name_no_place() -> None:
    for path in torch_iir_native.cmake_dir().iterdir():
        text = path.read_text()
        for place in (ROOT, sys.prefix, sys.base_prefix, Path.home()):
            assert f"{place}/" not in text, path
        assert "libtorch_cpu" not in text, path


# --- ways to it


@pytest.mark.parametrize("package", ["torch_iir", "torch_iir_native"])
def test_cmake_dir(package: str) -> None:
    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", package, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout

    directory = Path(printed("--cmake-dir").strip())
    assert directory == torch_iir_native.cmake_dir()
    assert (directory / "torch_iirConfig.cmake").exists()
    facts = dict(line.split(": ", 1) for line in printed().splitlines())
    expected = sys.modules[package].build_info()
    assert facts == {name: str(value) for name, value in expected.items()}


@foreign.needs_cmake
def test_entry_point_of_scikit_build_core(finder: Path) -> None:
    """It names a package whose directory is a prefix for CMake; editable, it has a second one, of the sources."""
    (entry,) = importlib.metadata.entry_points(group="cmake.prefix", name="torch_iir")
    places = [Path(place) for place in entry.load().__path__]
    assert foreign.PREFIX in places
    result = found(finder, "REQUIRED", Path(";".join(map(str, places))))
    assert f"in {torch_iir_native.cmake_dir()}" in result.stdout


# --- an install tree of plain CMake


@foreign.needs_cmake
def test_foreign_project_in_an_install_tree(program: Path, finder: Path, tmp_path: Path) -> None:
    if not (SANITIZED / "build.ninja").exists():
        pytest.skip("needs what make test-sanitize builds")
    pending = foreign.quietly("cmake", "--build", SANITIZED, "--target", "torch_iir_core", "--", "-n").stdout
    if "no work to do" not in pending:
        pytest.skip("what make test-sanitize built is older than the sources")
    prefix = tmp_path / "prefix"
    installed = foreign.quietly("cmake", "--install", SANITIZED, "--prefix", prefix)
    assert installed.returncode == 0, installed.stderr
    libraries = {path.name for path in prefix.glob("lib*/**/*.so")}
    assert libraries == {"libtorch_iir_core.so"}
    only_core = found(finder, "", prefix).stdout
    assert [name for name in BUILT if f"component {name}" in only_core] == ["core"]

    sanitizers = "-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined"  # as that library was built
    build = foreign.build(program, tmp_path / "build", sanitizers, prefix=prefix)
    assert foreign.run(build / "foreign").split() == ["1", "0.5", "0.25"]


# --- headers


def compiled(compiler: str, source: str) -> subprocess.CompletedProcess[str]:
    """The result of compiling a source without torch's headers in reach, warnings being errors."""
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
    command = [compiler, "-std=c++20", *warnings, "-fsyntax-only", "-I", str(INCLUDE), "-x", "c++", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("header", HEADERS)
def test_header_stands_alone(header: str, compiler: str) -> None:
    result = compiled(compiler, f"#include <torch_iir/{header}>\n")
    assert result.returncode == 0, result.stderr


def test_version_macros() -> None:
    major, minor, patch = (int(number) for number in torch_iir.__version__.split("."))
    source = f"""
        #include <torch_iir/version.h>
        #if TORCH_IIR_VERSION_NUMBER != {major * 10000 + minor * 100 + patch}
        #error "another number"
        #endif
        static_assert(TORCH_IIR_VERSION_MAJOR == {major});
        static_assert(TORCH_IIR_VERSION_MINOR == {minor});
        static_assert(TORCH_IIR_VERSION_PATCH == {patch});
        static_assert(std::string_view(TORCH_IIR_VERSION) == "{torch_iir.__version__}");
    """
    result = compiled(COMPILERS[0], source)
    assert result.returncode == 0, result.stderr


def test_version_macros_cannot_disagree() -> None:
    header = (INCLUDE / "torch_iir" / "version.h").read_text().replace("#pragma once\n", "")
    assert compiled(COMPILERS[0], header).returncode == 0
    for number in ("MAJOR", "MINOR", "PATCH"):
        result = compiled(COMPILERS[0], header.replace(f"{number} ", f"{number} 1"))
        assert "the numbers of the version are not those of its text" in result.stderr
