"""Finds the questions, answers them, prints and keeps the answers."""

from __future__ import annotations

import argparse
import gc
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

import bench
from bench import cuda, machine, report, scaling
from bench.question import Question, Record, answer


def questions(peers: bool = False) -> dict[str, Question]:
    """By the names of their files: those of the peers, or all others."""
    modules = {module.name: import_module(f"bench.{module.name}") for module in pkgutil.iter_modules(bench.__path__)}
    found = {name: module.QUESTION for name, module in modules.items() if hasattr(module, "QUESTION")}
    return {name: question for name, question in found.items() if (question.table == "peers") == peers}


def run(question: Question, quick: bool = False) -> Iterator[Record]:
    """The figures of a question, one by one."""
    with one_thread(), frozen():
        for figure in question.figures(quick):
            yield answer(figure, quick)


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def frozen() -> Iterator[None]:
    """The collections before every measurement pass over what was there before, a tenth of a second of modules."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def run_all(asked: Mapping[str, Question], quick: bool) -> report.Results:
    start = time.perf_counter()
    results: report.Results = {"machine": machine.describe(), "load": os.getloadavg()[0], "questions": {}}
    print(report.machine_line(results) + (" Quick: signals are shorter than said." if quick else ""))
    if results["load"] > 0.5:
        print("Other programs run. They interrupt long runs more than short ones, and so flatter the faster.")
    for name, question in asked.items():
        print(f"\n{name}")
        figures = []
        for record in run(question, quick):
            print("  " + line(record, question.table), flush=True)
            figures.append(record)
        results["questions"][name] = {"table": question.table, "figures": figures}
    print(f"\n{time.perf_counter() - start:.0f} s")
    return results


def line(record: Record, table: str) -> str:
    """A figure for the terminal."""
    if table == "algorithms":
        speeds = {name: record["samples"] / seconds / 1e6 for name, seconds in record["seconds"].items()}
        return f"{record['figure']}, MS/s: " + ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    if table == "ranks":
        seconds = {name: report.number(1e3 * seconds) for name, seconds in record["seconds"].items()}
        return f"{record['figure']}, ms: " + ", ".join(f"{name} {ms}" for name, ms in seconds.items())
    columns = report.LIMITS if table == "limits" else report.SPEED
    cells = {name: cell(record).replace("**", "") for name, cell in columns.items()}
    return f"{cells.pop('question')}: " + ", ".join(f"{name} {cell}" for name, cell in cells.items() if cell != "–")


def keep(results: report.Results, whole: bool, folder: Path = report.RESULTS) -> None:
    """Writes the results. A part of the questions replaces these in what the same machine and versions gave before."""
    if not whole:
        peers = bool(report.of_table(results, "peers"))
        before = [old for old in report.load(folder, peers) if old["machine"] == results["machine"]]
        if not before:
            print("Not written: bench/results/ holds no whole run of this machine and these versions.")
            return
        answered = before[0]["questions"] | results["questions"]
        results["questions"] = dict(sorted(answered.items()))
    print(f"Written: {os.path.relpath(report.save(results, folder))}")


def readme(
    check: bool, path: Path = report.README, folder: Path = report.RESULTS, of_ranks: Path = report.OF_RANKS
) -> int:
    """Brings the tables of the README and the docs up to the results, or only checks that they are."""
    results = report.load(folder)
    if not results:
        print("bench/results/ is empty: python -m bench")
        return 1
    pages = {
        path: report.readme_blocks(results, report.load(folder, peers=True)) | {"bench cuda": cuda.block()},
        of_ranks: scaling.blocks(results[0]),
    }
    wanted = {page: report.with_blocks(page.read_text(), blocks) for page, blocks in pages.items()}
    stale = [page for page, text in wanted.items() if page.read_text() != text]
    if check and stale:
        names = " and ".join(page.name for page in stale)
        print(f"What bench/results/ holds is not what is shown by {names}: python -m bench --readme")
        return 1
    if not check:
        for page in stale:
            page.write_text(wanted[page])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=bench.__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(questions())}; default: all")
    parser.add_argument("--peers", action="store_true", help=f"those beside torchaudio: {', '.join(questions(True))}")
    parser.add_argument("--quick", action="store_true", help="short signals, two rounds, nothing written")
    parser.add_argument("--readme", action="store_true", help="only write the results into README.md and docs/")
    parser.add_argument("--check", action="store_true", help="only check that these show the results")
    options = parser.parse_args(arguments)
    known = questions(options.peers)
    if unknown := sorted(set(options.questions) - set(known)):
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(known)}")
    asked = {name: question for name, question in known.items() if name in (options.questions or known)}
    if options.readme or options.check:
        return readme(options.check)
    if options.peers and find_spec("torchaudio") is None:
        parser.error("torchaudio is not installed: make bench-peers")

    results = run_all(asked, options.quick)
    if options.quick:
        return 0
    keep(results, whole=not options.questions)
    if "TORCH_IIR_ISA" not in os.environ and machine.isa() == "avx512":
        print("\nThe same on AVX2.\n", flush=True)
        narrower = os.environ | {"TORCH_IIR_ISA": "avx2"}
        again = [*(["--peers"] if options.peers else []), *options.questions]
        return subprocess.run([sys.executable, "-m", "bench", *again], env=narrower).returncode
    return 0
