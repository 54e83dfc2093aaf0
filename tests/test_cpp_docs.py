"""docs/cpp.md and the comments above the plans tell the truth: their code compiles, without a warning, and runs."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent

import foreign
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "cpp.md"
HEADERS = foreign.PREFIX / "include" / "torch_iir"

# What the code above each header takes for granted, and the status that it ends with.
SETTING = {
    "plan.h": (
        """
        const double section[] = {1, 0, 0, 1, 0, 0};
        View<const double> sos(section, {1, 6});
        const int channels = 2;
        View<const float> in(data, {channels, 64});
        View<float> out(other, {channels, 64});
        const auto fail = [](const char*) { return Status::out_of_range; };
        Status status = Status::ok;
        """,
        "ok",
    ),
    "lfilter_plan.h": ("const float* in = data; float* out = other;", "ok"),
    "sosfilt_plan.h": ("const int sections = 3; const float* in = data; float* out = other;", "not_made"),  # sos is 0
    "lfilter_tv_plan.h": (
        """
        const int channels = 2;
        View<const float> x(data, {channels, 64}), a(data, {channels, 64, 24}, {0, 0, 0});
        View<float> y(other, {channels, 64});
        """,
        "ok",
    ),
    "inverse_mel_plan.h": ("const int frames = 2; const float* mel = data; float* spectrum = other;", "ok"),
    "view.h": (
        """
        const int channels = 2, frames = 64;
        const double b[] = {1, 2, 3};
        const auto check = [](bool right) { return right ? Status::ok : Status::wrong_shape; };
        """,
        "ok",
    ),
}
AFTER = {
    "view.h": "const Status status = check(interleaved.stride[1] == channels && planar.dims() == 2 && one.dims() == 1);"
}

needs_page = pytest.mark.skipif(not PAGE.exists(), reason="tests of an installed package have no docs beside them")


def blocks() -> list[str]:
    return re.findall(r"```cpp\n(.*?)```", PAGE.read_text(), re.DOTALL)


def defines(block: str) -> bool:
    """Whether a block is a function or a class, which cannot stand within another one."""
    code = re.sub(r"^(#include.*|//.*|\s*)\n", "", block, flags=re.MULTILINE)
    return re.match(r"(class|struct|template|void|bool|int)\b[^;=]*\{\s*(//.*)?\n", code) is not None


def page_program() -> str:
    """One program of the page's blocks: they go on where the one before stopped, and no status is an error."""
    includes, definitions, statements = "#undef NDEBUG\n#include <cassert>\n", "", ""
    for number, block in enumerate(blocks(), 1):
        includes += "".join(re.findall(r"^#include.*\n", block, re.MULTILINE))
        code = re.sub(r"^#include.*\n", "", block, flags=re.MULTILINE)
        if defines(block):
            definitions += code
        else:
            statements += f"{code}if (status != Status::ok) return {number};\n"
    assert definitions
    return f"{includes}using torch_iir::Status;\n{definitions}\nint main() {{\n{statements}}}\n"


def usage(header: str) -> str:
    """The code in the comment that a header begins with."""
    comment = re.match(r"(//.*\n)*", (HEADERS / header).read_text())
    assert comment
    lines = [line for line in re.findall(r"^//   (?! )(.*\n)", comment[0], re.MULTILINE) if "…\n" not in line]
    assert lines
    return "".join(lines)


def headers_program() -> str:
    parts = ["".join(f"#include <torch_iir/{header}>\n" for header in SETTING)]
    parts += ["#include <cstdio>\n#include <vector>\nusing namespace torch_iir;\n"]
    parts += ["float data[513 * 80], other[513 * 80];\nstd::vector<float> samples(2 * 64);\n"]
    checks = ""
    for header, (setting, status) in SETTING.items():
        code = dedent(setting) + usage(header) + AFTER.get(header, "") + "\nreturn status;\n"
        name = header.partition(".")[0]
        parts.append(f"Status {name}_usage() {{\n{indent(code, '  ')}}}\n")
        checks += f'  if ({name}_usage() != Status::{status}) return std::puts("{header}"), 1;\n'
    return "".join(parts) + f"int main() {{\n{checks}}}\n"


CMAKE = """
    cmake_minimum_required(VERSION 3.24)
    project(code LANGUAGES CXX)
    find_package(torch_iir CONFIG REQUIRED)
    find_package(Threads REQUIRED)
    foreach(name IN ITEMS page headers)
      add_executable(${name} ${name}.cpp)
      target_compile_options(${name} PRIVATE -Wall -Wextra -Wpedantic -Werror -fno-exceptions -fno-rtti)
      target_link_libraries(${name} PRIVATE torch_iir::core Threads::Threads)
    endforeach()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "CMakeLists.txt").write_text(dedent(CMAKE))
    (folder / "page.cpp").write_text(page_program())
    (folder / "headers.cpp").write_text(headers_program())
    return foreign.build(folder, folder / "build")


@foreign.needs_cmake
@needs_page
@pytest.mark.parametrize("name", ["page", "headers"])
def test_code_runs(programs: Path, name: str) -> None:
    foreign.run(programs / name)


@needs_page
def test_every_status_is_explained() -> None:
    enum = re.search(
        r"enum class \[\[nodiscard\]\] Status : int \{(.*?)\}", (HEADERS / "status.h").read_text(), re.DOTALL
    )
    assert enum
    statuses = re.findall(r"^ *(\w+)\b[ =0-9]*,", enum[1], re.MULTILINE)
    assert len(statuses) >= 8
    section = PAGE.read_text().split("\n## Statuses\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == statuses
