"""The tables: one file per instruction set, and the blocks of the README."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine import ISAS
from bench.question import Record

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
OF_RANKS = ROOT / "docs" / "distributed.md"

Results = dict[str, Any]  # of one instruction set: {"machine": …, "questions": {name: {"table": …, "figures": […]}}}


# --- files


def load(folder: Path = RESULTS, peers: bool = False) -> list[Results]:
    """The results of each instruction set, the widest first: those of the peers, or all others."""
    return [json.loads(path.read_text()) for isa in ISAS if (path := file(folder, isa, peers)).exists()]


def file(folder: Path, isa: str, peers: bool) -> Path:
    return folder / f"{'peers-' if peers else ''}{isa}.json"


def save(results: Results, folder: Path = RESULTS) -> Path:
    path = file(folder, results["machine"]["isa"], peers=bool(of_table(results, "peers")))
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(results))
    return path


def markdown(results: Results) -> str:
    """All figures of one instruction set."""
    parts = [f"# Speed, {ISAS[results['machine']['isa']]}", machine_line(results)]
    if figures := of_table(results, "speed"):
        parts += ["## Against others", table(SPEED, figures)]
    if figures := of_table(results, "peers"):
        parts += ["## Beside torchaudio", table(SPEED, figures)]
    if figures := of_table(results, "limits"):
        parts += ["## Limits", "Less is better.", table(LIMITS, figures)]
    if figures := of_table(results, "ranks"):
        parts += ["## Ranks", ranks(figures)]
    if variants := of_algorithms(results):
        parts += ["## Algorithms", *map(algorithms, variants.values())]
    return "\n\n".join(parts) + "\n"


# --- the README


def readme_blocks(all_results: Sequence[Results], of_peers: Sequence[Results] = ()) -> dict[str, str]:
    """What stands between <!-- name --> and <!-- /name -->, by name."""
    widest = all_results[0]
    speed = columns(all_results, "question", "against", "ratio", "at least", "aim", "MS/s", "of a copy")
    limits = columns(all_results, "question", "against", "measured", "at most", "aim")
    tables = (table(speed, of_table(widest, "speed")), "Less is better:", table(limits, of_table(widest, "limits")))
    blocks = {"bench": "\n\n".join((measured(all_results), *tables))}
    if of_peers:
        beside = columns(of_peers, "question", "against", "ratio", "at least", "aim", "MS/s")
        blocks["bench peers"] = f"{measured(of_peers)}\n\n{table(beside, of_table(of_peers[0], 'peers'))}"
    return blocks | {f"bench {name}": algorithms(figures) for name, figures in of_algorithms(widest).items()}


def columns(all_results: Sequence[Results], *names: str) -> Columns:
    """Some of the widest instruction set, and what the others measured."""
    others = {ISAS[results["machine"]["isa"]]: partial(quoted, of=by_name(results)) for results in all_results[1:]}
    return {name: (SPEED | LIMITS)[name] for name in names} | others


def measured(all_results: Sequence[Results]) -> str:
    """The machine, and how to read the figures."""
    widest, *others = (ISAS[results["machine"]["isa"]] for results in all_results)
    halves = ", AVX2 held to half of each ratio" if "AVX2" in others else ""
    return f"{machine_line(all_results[0])} Figures of {widest}{halves}."


def with_blocks(text: str, blocks: dict[str, str]) -> str:
    """A page with its blocks as they have to be. Raises where "bench" has no place; the others are optional."""
    for name, block in blocks.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if closed:
            text = f"{before}{start}{block}\n{end}{after}"
        elif found or name == "bench":
            raise ValueError(f"the page must have a line {start.strip()} and after it a line {end}")
    return text


# --- tables

Columns = dict[str, Callable[[Record], str]]


def of_table(results: Results, name: str) -> list[Record]:
    questions = results["questions"].values()
    return [figure for question in questions if question["table"] == name for figure in question["figures"]]


def of_algorithms(results: Results) -> dict[str, list[Record]]:
    """A table for each question: what it compares is its own."""
    questions = results["questions"].items()
    return {name: question["figures"] for name, question in questions if question["table"] == "algorithms"}


def by_name(results: Results) -> dict[tuple[str, str], Record]:
    return {key(figure): figure for question in results["questions"].values() for figure in question["figures"]}


def key(record: Record) -> tuple[str, str]:
    return record["figure"], record["against"]


def machine_line(results: Results) -> str:
    machine = results["machine"]
    names = ("torch", "numpy", "scipy", "numba", "torchlpc", "librosa", "torchaudio")
    versions = ", ".join(f"{name} {machine[name]}" for name in names if name in machine)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {ISAS[machine['isa']]}, one thread unless said otherwise; "
        f"torch_iir {machine['torch_iir']} ({machine['compiler']}), {versions}, Python {machine['python']}, "
        f"seed {machine['seed']}, load {results['load']:.1f}."
    )


def table(columns: Columns, figures: Iterable[Record]) -> str:
    """Markdown; text to the left, numbers to the right."""
    rules = ["---" if name in ("question", "filter", "against", "beside") else "--:" for name in columns]
    rows = [list(columns), rules, *([cell(figure) for cell in columns.values()] for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def algorithms(figures: Sequence[Record]) -> str:
    """Million samples a second of each variant; in bold, the one that runs unless another is forced."""
    names = dict.fromkeys(name for figure in figures for name in figure["seconds"] if name not in ("automatic", "copy"))

    def cell(figure: Record, name: str) -> str:
        if name not in figure["seconds"]:
            return "–"
        speed = number(figure["samples"] / figure["seconds"][name] / 1e6)
        return f"**{speed}**" if name == figure["note"] else speed

    columns: Columns = {"filter": lambda figure: str(figure["figure"])}
    columns |= {name: partial(cell, name=name) for name in names}
    forced = any("automatic" in figure["seconds"] for figure in figures)
    bold = "; in bold, the one that runs unless another is forced" if forced else ""
    return f"Million samples a second{bold}.\n\n{table(columns, figures)}"


def ranks(figures: Sequence[Record]) -> str:
    """What a call of each takes."""
    names = dict.fromkeys(name for figure in figures for name in figure["seconds"] if name != "copy")

    def cell(figure: Record, name: str) -> str:
        return number(1e3 * figure["seconds"][name]) if name in figure["seconds"] else "–"

    columns: Columns = {"question": lambda figure: str(figure["figure"])}
    columns |= {name: partial(cell, name=name) for name in names}
    return f"Milliseconds.\n\n{table(columns, figures)}"


def number(value: float) -> str:
    """Three digits, plainly."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def quoted(record: Record, of: dict[tuple[str, str], Record]) -> str:
    """The same figure elsewhere."""
    return quote(of[key(record)]) if key(record) in of else "–"


def quote(record: Record) -> str:
    return f"{number(record['value'])}{unit(record)}"


def unit(record: Record) -> str:
    return " µs" if record["kind"] == "µs" else "×"


def against(record: Record) -> str:
    return ", ".join(filter(None, [record["against"], record["note"]])) or "–"


def verdict(record: Record, name: str) -> str:
    if record[name] is None:
        return "–"
    return f"{record[name]:g}{unit(record)} {'yes' if record[f'{name}_reached'] else '**no**'}"


def others(record: Record) -> str:
    """Those that are there for orientation."""
    skip = (next(iter(record["seconds"])), record["against"], "copy")
    names = [name for name in record["seconds"] if name not in skip]
    seconds = record["seconds"]
    if record["kind"] == "µs":
        return ", ".join(f"{name} {number(seconds[name] * 1e6)} µs" for name in names) or "–"
    return ", ".join(f"{name} {number(record['samples'] / seconds[name] / 1e6)} MS/s" for name in names) or "–"


COSTS: Columns = {
    "MS/s": lambda record: number(record["samples_per_second"] / 1e6),
    "MB moved": lambda record: number(record["bytes_moved"] / 1e6),
    "of a copy": lambda record: f"{record['share_of_copy']:.0%}",
    "peak MB": lambda record: "–" if record["peak_bytes"] is None else number(record["peak_bytes"] / 1e6),
    "beside": others,
}
SPEED: Columns = {
    "question": lambda record: record["figure"],
    "against": against,
    "ratio": quote,
    "at least": lambda record: verdict(record, "limit"),
    "aim": lambda record: verdict(record, "aim"),
    **COSTS,
}
LIMITS: Columns = {
    "question": lambda record: record["figure"],
    "against": against,
    "measured": quote,
    "at most": lambda record: verdict(record, "limit"),
    "aim": lambda record: verdict(record, "aim"),
    **COSTS,
}
