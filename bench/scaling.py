"""What the figures of two ranks say of many: a model, of ranks with a core each.

    seconds(R) = passes · one / R + local(R) + (R − 1) · Σ (latency + bytes / bandwidth)

one is the time of one process for all samples. passes and local(R) are those of a rank that was measured alone: how
many times the time of one process it takes for its part, and what it takes for next to no samples, a line through the
figures of 2 and of 64 ranks. The sum is over the messages that a rank sends to each other rank; they go round a ring in
R − 1 steps. A network is its latency and its bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench import report
from bench.distributed import ALONE, CASES, FIXED, MANY, ONE_OF_MANY, SIZE, Case
from bench.question import Record

RANKS = 4, 8, 64


@dataclass(frozen=True)
class Network:
    """Seconds a step, and bytes a second."""

    name: str
    latency: float
    bandwidth: float


FAST = Network("5 µs a step", 5e-6, 1e10)  # assumed
BANDWIDTH = 1e9  # of the sockets, assumed: what is sent is so little that it hardly counts


@dataclass(frozen=True)
class Model:
    """Of one figure."""

    samples: int
    one: float
    passes: float
    fixed: tuple[float, float]
    messages: Sequence[int]

    @classmethod
    def of(cls, case: Case, figures: Sequence[Record]) -> Model:
        seconds = {figure["figure"]: figure["seconds"] for figure in figures}
        short = seconds[next(fixed.name for fixed in FIXED if fixed.key == case.key)]
        fixed, one = (short[ALONE], short[ONE_OF_MANY]), seconds[case.name]["1 thread"]
        passes = SIZE * (seconds[case.name][ALONE] - fixed[0]) / one
        return cls(case.shape[1], one, passes, fixed, case.messages())

    def overhead(self, ranks: int, network: Network) -> float:
        """What does not depend on the samples."""
        two, many = self.fixed
        more = max(many - two, 0)  # it is not less for more ranks, though it may be measured so
        local = two + more * (ranks - SIZE) / (MANY - SIZE)
        steps = [network.latency + message / network.bandwidth for message in self.messages]
        return local + (ranks - 1) * sum(steps)

    def fastest(self, network: Network) -> int:
        """With how many ranks: what more of them save is less than what they have to tell each other."""
        of_a_rank = self.overhead(1, network) - self.overhead(0, network)
        return max(1, round(math.sqrt(self.passes * self.one / of_a_rank)))

    def speedup(self, ranks: int, network: Network) -> float:
        return self.one / (self.passes * self.one / ranks + self.overhead(ranks, network))

    def pays_from(self, ranks: int, network: Network) -> float:
        """Samples of a row from which on so many ranks take less time than one."""
        gain = self.one / self.samples * (1 - self.passes / ranks)
        return self.overhead(ranks, network) / gain if gain > 0 else float("inf")


def blocks(results: report.Results) -> dict[str, str]:
    """What stands in docs/distributed.md, by name."""
    figures = report.of_table(results, "ranks")
    if not figures:
        return {}
    return {
        "bench distributed": f"{report.machine_line(results)}\n\n{report.ranks(figures)}",
        "bench distributed model": table(figures),
    }


def table(figures: Sequence[Record]) -> str:
    """How many times as fast as one process, and from how many samples on it pays."""
    first = next(figure["seconds"] for figure in figures if figure["figure"] == FIXED[0].name)
    sockets = Network(f"{report.number(1e6 * first['all-gather'])} µs a step", first["all-gather"], BANDWIDTH)
    models = {case.name: Model.of(case, figures) for case in CASES}
    columns: report.Columns = {
        "question": lambda figure: str(figure["figure"]),
        "passes": lambda figure: report.number(models[figure["figure"]].passes),
    }
    for network in (sockets, FAST):
        for ranks in RANKS:

            def speedup(figure: Record, ranks: int = ranks, network: Network = network) -> str:
                return f"{report.number(models[figure['figure']].speedup(ranks, network))}×"

            columns[f"{ranks} ranks, {network.name}"] = speedup

        def fastest(figure: Record, network: Network = network) -> str:
            return str(models[figure["figure"]].fastest(network))

        def pays_from(figure: Record, network: Network = network) -> str:
            samples = models[figure["figure"]].pays_from(8, network)
            return "–" if samples == float("inf") else f"{float(f'{samples:.2g}'):,.0f}"

        columns |= {f"fastest with, {network.name}": fastest, f"8 pay from T, {network.name}": pays_from}
    return report.table(columns, [figure for figure in figures if figure["figure"] in models])
