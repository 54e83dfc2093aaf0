"""``python -m torch_iir_native --cmake-dir`` prints where torch_iirConfig.cmake is; alone, facts about the build."""

import argparse
from collections.abc import Callable, Mapping

from torch_iir_native import build_info, cmake_dir


def main(package: str = "torch_iir_native", facts: Callable[[], Mapping[str, object]] = build_info) -> None:
    description = "Without an option, prints facts about the build."
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("--cmake-dir", action="store_true", help="print the directory of torch_iirConfig.cmake")
    if parser.parse_args().cmake_dir:
        print(cmake_dir())
        return
    for name, value in facts().items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
