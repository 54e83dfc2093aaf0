"""One JSON and one table from what the stages of check_gpu.sh left in a folder: python tools/gpu_report.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def tests(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    suite = next(ElementTree.parse(path).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    properties = [property_ for case in suite.iter("testcase") for property_ in case.iter("property")]
    accuracy = {
        str(item.get("name")): float(item.get("value", "nan"))
        for item in properties
        if str(item.get("name")).startswith("accuracy")
    }
    return {**counts, "failed": failed, "accuracy": accuracy}


def main() -> int:
    folder = Path(sys.argv[1])
    bench = folder / "bench.json"
    report: dict[str, Any] = {
        "stages": [json.loads(path.read_text()) for path in sorted(folder.glob("*.stage.json"))],
        "tests": tests(folder / "tests.xml"),
        "bench": json.loads(bench.read_text()) if bench.exists() else {},
    }
    (folder / "gpu.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

    lines = ["| stage | exit | seconds |", "|---|--:|--:|"]
    lines += [f"| {stage['stage']} | {stage['code']} | {stage['seconds']} |" for stage in report["stages"]]
    if report["tests"]:
        counts = ", ".join(f"{report['tests'][name]} {name}" for name in ("tests", "failures", "errors", "skipped"))
        lines += ["", counts, *(f"- failed: {name}" for name in report["tests"]["failed"])]
        worst: dict[str, float] = {}
        for name, error in report["tests"]["accuracy"].items():
            kind = " ".join(name.split()[1:])
            worst[kind] = max(worst.get(kind, 0.0), error)
        lines += ["", "| relative rms error | |", "|---|--:|", *(f"| {kind} | {e:.1e} |" for kind, e in worst.items())]
    if report["bench"]:
        lines += ["", "| question | needs | measured | of a copy |", "|---|--:|--:|--:|"]
        for record in report["bench"]["figures"]:
            value = "–" if record["value"] is None else f"{record['value']:.3g} {record['unit']}"
            share = f"{record['share_of_copy']:.0%}" if "share_of_copy" in record else "–"
            lines.append(f"| {record['question']} | {record['limit']:g} {record['unit']} | {value} | {share} |")
    (folder / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
