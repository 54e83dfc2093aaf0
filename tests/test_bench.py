"""The benchmarks' own machinery, and that every question can be answered. Nothing here depends on how fast it is."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import torch

import torch_iir

sys.path.append(str(Path(__file__).parent.parent))  # bench is not installed; the end, so that torch_iir is what is

from bench import (
    backend,
    backend_peers,
    distributed,
    inverse_mel,
    lfilter_tv,
    machine,
    measure,
    mel_quality,
    mel_to_audio,
    mels,
    process_group,
    report,
    rewrites,
    runner,
    scaling,
)
from bench.compare import Expected, WrongOutputError
from bench.measure import INPUTS, Call, Plan, Times, copy_of, interleaved, peak_bytes, peaks, single
from bench.mels import Spectra
from bench.question import Figure, Question, Target, answer
from torch_iir.compiler import _backend

QUESTIONS = runner.questions() | runner.questions(peers=True)


class Clock:
    """Time that passes only in the functions it makes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float, repeat: int = 1) -> Call:
        def run(n: int) -> None:
            self.log.append((name, n))
            self.now += seconds[len(self.log) // 2 % len(seconds)]

        return Call(name, run, repeat=repeat)


# --- the estimator


def test_calls_take_turns_on_changing_inputs() -> None:
    clock = Clock()
    plan = Plan(warmup=1, fewest=INPUTS, most=INPUTS)
    times = interleaved([clock.call("ours", 1), clock.call("theirs", 3)], plan, clock)
    assert [name for name, _ in clock.log] == ["ours", "theirs"] * (1 + INPUTS)
    for name in ("ours", "theirs"):
        assert {n % INPUTS for called, n in clock.log[2:] if called == name} == set(range(INPUTS))
    assert times == [Times(1, (1, 1), INPUTS), Times(3, (3, 3), INPUTS)]


def test_median_ignores_interruptions() -> None:
    clock = Clock()
    calls = [clock.call("ours", 1, 1, 1, 1, 50), clock.call("theirs", 2, 2, 2, 2, 100)]
    ours, theirs = interleaved(calls, Plan(warmup=1, fewest=20, most=20, slow=1000), clock)
    assert (ours.median, theirs.median) == (1, 2)


def test_repeated_runs_are_divided() -> None:
    clock = Clock()
    (times,) = interleaved([clock.call("ours", 0.5, repeat=5)], Plan(warmup=1, fewest=4, most=4), clock)
    assert times.median == 0.5
    assert len(clock.log) == 5 * 5


@pytest.mark.parametrize(("seconds", "rounds"), [(6.0, 3), (4.0, 20), (0.02, 50), (1e-6, 200)])
def test_rounds(seconds: float, rounds: int) -> None:
    assert Plan().rounds([seconds]) == rounds


def test_time_of_a_share_is_extrapolated() -> None:
    clock = Clock()
    call = replace(clock.call("theirs", 0.5, repeat=5), share=0.25)
    assert interleaved([call], Plan(warmup=1, fewest=4, most=9, slow=3), clock)[0] == Times(2, (2, 2), 4)
    times, result = single(replace(call, run=lambda n: [clock.call("theirs", 0.5).run(n), n]), clock)
    assert (times, result) == (Times(2, (2, 2), 1), [None, 0])


def test_time_where_others_work() -> None:
    here, there = Clock(), Clock()
    call = replace(there.call("ranks", 0.5, repeat=1), clock=there)
    (times,) = interleaved([call], Plan(warmup=1, fewest=4, most=4), here)
    assert times == Times(0.5, (0.5, 0.5), 4)
    assert peak_bytes(call) is None


def test_copy_moves_the_bytes() -> None:
    copied = copy_of(4096, Call("ours", lambda n: None)).run(3)
    assert copied.nbytes == 2048
    assert (copied == 3).all()


def test_peak_memory() -> None:
    size = 64 << 20
    peak = peak_bytes(Call("ours", lambda n: torch.ones(size, dtype=torch.uint8)))
    if peak is None:
        pytest.skip("this system does not tell")
    assert 0.9 * size < peak < 1.5 * size


def test_peak_memory_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"ours": 3_000_000, "theirs": 12_000_000}
    monkeypatch.setattr(measure, "peak_bytes", lambda call: found[call.name])
    ours, theirs = (Call(name, lambda n: None) for name in found)
    assert peaks(ours, theirs) == "peak memory 3.0 MB and 12.0 MB, 1/4"
    assert peaks(ours, theirs, at_most=1 / 4).endswith("1/4 (at most 1/4 yes)")
    assert peaks(ours, theirs, at_most=1 / 6).endswith("1/4 (at most 1/6 **no**)")
    found["theirs"] = None
    assert peaks(ours, theirs) == ""


# --- what is compared, and what has to be reached


def figure(ours: Callable[[int], np.ndarray], target: Target) -> Figure:
    def expected(n: int) -> Expected:
        return Expected((np.full(8, float(n)),), (0.0,))

    calls = (Call("ours", ours, expected), Call("theirs", lambda n: np.full(8, float(n)), expected))
    return Figure("a figure", calls, 8, 128, target)


@pytest.mark.parametrize("wrong", [np.zeros(8), np.full(8, np.nan), np.zeros(7), np.full(8, 5.001)])
def test_wrong_output_is_not_timed(wrong: np.ndarray) -> None:
    with pytest.raises(WrongOutputError, match="ours, output 0"):
        answer(figure(lambda n: wrong if n == 5 else np.full(8, float(n)), Target("speedup")), quick=True)


def test_slow_call_runs_once() -> None:
    runs = []

    def slowly(n: int) -> np.ndarray:
        runs.append(n)
        return np.full(8, float(n))

    example = figure(lambda n: np.full(8, float(n)), Target("speedup"))
    ours, theirs = example.calls
    record = answer(replace(example, calls=(ours, replace(theirs, run=slowly, once=True))), quick=True)
    assert runs == [0]
    assert record["value"] == pytest.approx(record["seconds"]["theirs"] / record["seconds"]["ours"], rel=0.01)
    wrong = replace(theirs, run=lambda n: np.ones(8), once=True)
    with pytest.raises(WrongOutputError, match="theirs, output 0"):
        answer(replace(example, calls=(ours, wrong)), quick=True)


def test_what_a_comparison_says_is_shown() -> None:
    class Remark:
        def compare(self, name: str, result: np.ndarray) -> str:
            return f"{name} is off by nothing"

    example = figure(lambda n: np.full(8, float(n)), Target("speedup"))
    ours, theirs = (replace(call, expected=lambda n: Remark()) for call in example.calls)
    record = answer(replace(example, calls=(ours, theirs), note="a note"), quick=True)
    assert report.against(record) == "theirs, a note, ours is off by nothing, theirs is off by nothing"
    assert report.against(record | {"against": "", "note": "it is not installed"}) == "it is not installed"
    assert report.against(record | {"against": "", "note": ""}) == "–"


def test_tolerance_follows_precision() -> None:
    expected = Expected((np.ones(3),), (100.0,))
    expected.compare("float32 once rounded", np.ones(3, np.float32) + np.float32(1e-7))
    with pytest.raises(WrongOutputError):
        expected.compare("computed in double", np.ones(3) + 1e-6)
    replace(expected, inside=np.float32).compare("computed in float32", np.ones(3) + 1e-6)


@pytest.mark.parametrize(
    ("target", "value", "limit_reached", "aim_reached"),
    [
        (Target("speedup", 4, 6), 5, True, False),
        (Target("scaling", 5, 6), 5, True, False),
        (Target("slowdown", 0.2, 0.1), 0.2, True, False),
        (Target("µs", 1e6, 3e6), 1e6, True, True),
        (Target("µs"), 1e6, None, None),
    ],
)
def test_targets(target: Target, value: float, limit_reached: bool | None, aim_reached: bool | None) -> None:
    assert target.value([1.0, 5.0]) == value
    assert target.reached(value, target.limit) is limit_reached
    assert target.reached(value, target.aim) is aim_reached


def test_avx2_is_held_to_half() -> None:
    assert Target("speedup", 12, 18).bounds("avx2") == (6, 9)
    assert Target("scaling", 1.7, 1.95).bounds("avx2") == (1.7, 1.95)
    assert Target("speedup", 12, 18).bounds("baseline") == (None, None)


def test_spectra_are_judged() -> None:
    fb, B = torch.eye(3)[:, :2], torch.tensor([[1.0, 2.0], [3.0, -1.0]])  # the third frequency is in no mel
    best = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    judge = Spectra(fb, B, kkt=1e-6, residual=0.3)
    assert judge.compare("ours", best) == "KKT of ours 0e+00 (at most 0e+00)"
    assert judge.compare("ours", best.double().numpy())
    for wrong in (best[:2], best.T, best + 1e-3, best * torch.nan, best - 1e-7):
        with pytest.raises(WrongOutputError, match="ours: "):
            judge.compare("ours", wrong)
    with pytest.raises(WrongOutputError, match="residual 3e-01"):
        Spectra(fb, B, residual=0.2).compare("ours", best)


def test_without_librosa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mels, "find_spec", lambda name: None)
    figures = [*inverse_mel.figures(quick=True), *mel_to_audio.figures(quick=True)]
    assert [figure.note for figure in figures if len(figure.calls) == 1] == 3 * ["librosa is not installed"]


def test_without_torchlpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfilter_tv, "find_spec", lambda name: None)
    for figure in lfilter_tv.figures(quick=True):
        assert (len(figure.calls), figure.target.kind, figure.note) == (1, "µs", "torchlpc is not installed")


def test_against_torchlpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what takes its place here."""
    monkeypatch.setattr(lfilter_tv, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "torchlpc", torch_iir.functional)
    for record in runner.run(QUESTIONS["lfilter_tv"], quick=True):
        assert (record["kind"], record["against"]) == ("speedup", "torchlpc")


# --- the questions


@pytest.fixture
def ranks_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that ranks are forked from is one for all tests."""
    monkeypatch.setattr(process_group, "PRELOADED", [*ranks.PRELOADED, "bench.distributed"])


@pytest.fixture
def torchaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes its place where it is not."""
    if find_spec("torchaudio") is None:
        monkeypatch.setitem(sys.modules, "torchaudio.functional", torch_iir.functional)


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and rewritten, and run as they are then: Inductor takes seconds for each."""
    monkeypatch.setattr(_backend, "inductor", lambda gm, *arguments: gm.forward)
    for module in (backend, rewrites):
        monkeypatch.setattr(module, "PLAIN", "eager")


@pytest.mark.usefixtures("torchaudio", "without_inductor", "ranks_of_the_tests")
@pytest.mark.parametrize("name", QUESTIONS)
def test_question_quickly(name: str) -> None:
    threads = torch.get_num_threads()
    for record in runner.run(QUESTIONS[name], quick=True):
        assert record["value"] > 0
        assert runner.line(record, QUESTIONS[name].table)
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("ranks_of_the_tests")
def test_rank_that_fails_is_heard() -> None:
    with (
        process_group.Ranks(2) as group,
        pytest.raises(RuntimeError, match=r"rank 1: (?s:.*)ValueError: invalid literal"),
    ):
        group.load(task=[(len, "ab"), (int, "ab")])


def test_where_torch_compile_raises() -> None:
    def raising(x: torch.Tensor, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    assert backend_peers.refused(raising) == "torch.compile raises ZeroDivisionError"
    training = next(backend.trainings(torch_iir.functional, quick=True))
    call = backend_peers.theirs(training, "torch.compile raises ZeroDivisionError")
    assert call.name == "torchaudio, not compiled"
    call.expected(1).compare(call.name, call.run(1))
    wrong = training.call("wrong", lambda x, b, a: 1.00001 * training.model(x, b, a))
    with pytest.raises(WrongOutputError, match="wrong, output 0"):
        call.expected(1).compare(wrong.name, wrong.run(1))


def test_quality_quickly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mel_quality, "find_spec", lambda name: None)
    mel_quality.main(["--seconds", "0.5", "--frames", "3"])
    printed = capsys.readouterr().out
    assert printed.count("16 kHz, 400/160/80 htk, speech") == 3
    assert "nan" not in printed


# --- the tables


@pytest.fixture(scope="module")
def results() -> report.Results:
    """What a run of three small questions gives, one a table."""
    example = figure(lambda n: np.full(8, float(n)), Target("speedup", 1e9))
    tables = ("speed", "limits", "algorithms")
    return runner.run_all(
        {name: Question(name, lambda quick, name=name: iter([replace(example, name=f"of {name}")])) for name in tables},
        quick=True,
    )


def on(isa: str, results: report.Results) -> report.Results:
    return results | {"machine": results["machine"] | {"isa": isa}}


def test_results_are_kept(results: report.Results, tmp_path: Path) -> None:
    runner.keep(on("avx2", results), whole=True, folder=tmp_path)
    runner.keep(on("avx512", results), whole=True, folder=tmp_path)
    assert [kept["machine"]["isa"] for kept in report.load(tmp_path)] == ["avx512", "avx2"]
    assert "| of speed | theirs |" in (tmp_path / "avx512.md").read_text()
    assert "| of limits | theirs |" in (tmp_path / "avx2.md").read_text()


def test_part_of_the_questions_needs_the_same_machine(results: report.Results, tmp_path: Path) -> None:
    whole = on("avx512", results)
    part = whole | {"questions": {"speed": whole["questions"]["speed"] | {"figures": []}}}
    runner.keep(part, whole=False, folder=tmp_path)
    assert report.load(tmp_path) == []
    runner.keep(whole, whole=True, folder=tmp_path)
    runner.keep(part, whole=False, folder=tmp_path)
    (kept,) = report.load(tmp_path)
    assert kept["questions"]["speed"]["figures"] == []
    assert kept["questions"]["limits"]["figures"]


def test_readme_is_brought_up_to_the_results(results: report.Results, tmp_path: Path) -> None:
    path, folder = tmp_path / "README.md", tmp_path / "results"
    path.write_text("Above.\n<!-- bench -->\nold\n<!-- /bench -->\nBelow.\n")
    for isa in ("avx512", "avx2"):
        runner.keep(on(isa, results), whole=True, folder=folder)
    assert runner.readme(check=True, path=path, folder=folder) == 1
    assert runner.readme(check=False, path=path, folder=folder) == 0
    assert runner.readme(check=True, path=path, folder=folder) == 0
    text = path.read_text()
    assert text.startswith("Above.\n<!-- bench -->\n")
    assert text.endswith("\n<!-- /bench -->\nBelow.\n")
    assert "old" not in text
    assert "| of speed | theirs |" in text


def test_peers_are_kept_apart(results: report.Results, tmp_path: Path) -> None:
    path, folder = tmp_path / "README.md", tmp_path / "results"
    path.write_text("<!-- bench -->\n<!-- /bench -->\n<!-- bench peers -->\n<!-- /bench peers -->\n")
    figures = [figure | {"figure": "of peers"} for figure in results["questions"]["speed"]["figures"]]
    peers = on("avx512", results) | {"questions": {"peers": {"table": "peers", "figures": figures}}}
    runner.keep(peers, whole=False, folder=folder)
    assert report.load(folder, peers=True) == []
    runner.keep(on("avx512", results), whole=True, folder=folder)
    runner.keep(peers, whole=True, folder=folder)
    runner.keep(peers, whole=False, folder=folder)
    kept = [[set(one["questions"]) for one in report.load(folder, peers=which)] for which in (True, False)]
    assert kept == [[{"peers"}], [set(results["questions"])]]
    assert "| of peers | theirs |" in (folder / "peers-avx512.md").read_text()
    assert runner.readme(check=True, path=path, folder=folder) == 1
    assert runner.readme(check=False, path=path, folder=folder) == 0
    assert runner.readme(check=True, path=path, folder=folder) == 0
    above, below = path.read_text().split("<!-- bench peers -->")
    assert ("of peers" in above, "of peers" in below) == (False, True)
    assert ("of speed" in above, "of speed" in below) == (True, False)


def seconds_of_ranks() -> list[dict[str, Any]]:
    """One process takes 1 s, a rank alone twice the time of its part and 0.1 s; for nothing, one of 64 takes 0.72 s."""
    passes = {"1 thread": 1.0, "2 ranks": 1.2, distributed.ALONE: 1.1}
    fixed = {distributed.ALONE: 0.1, distributed.ONE_OF_MANY: 0.72, "all-gather": 0.001}
    figures = [(case.name, passes) for case in distributed.CASES] + [(case.name, fixed) for case in distributed.FIXED]
    return [{"figure": name, "seconds": seconds} for name, seconds in figures]


def test_model_of_many_ranks() -> None:
    case = distributed.CASES[0]
    model = scaling.Model.of(case, seconds_of_ranks())
    assert (model.one, model.passes) == (1, pytest.approx(2))
    network = scaling.Network("slow", 0.01, 8_000.0)  # a message of 80 bytes takes 0.02 s a step
    assert case.messages() == [80]
    assert model.speedup(8, network) == pytest.approx(1 / (2 / 8 + 0.16 + 7 * 0.02))
    assert model.pays_from(8, network) == pytest.approx(case.shape[1] * 0.3 / (1 - 2 / 8))
    assert model.pays_from(2, network) == float("inf")
    best = model.fastest(network)
    assert best == 8  # √(2 / (0.01 + 0.02)) = 8.2
    assert model.speedup(best, network) > max(model.speedup(ranks, network) for ranks in (best - 1, best + 1))


def test_docs_are_brought_up_to_the_results(results: report.Results, tmp_path: Path) -> None:
    readme, page, folder = tmp_path / "README.md", tmp_path / "distributed.md", tmp_path / "results"
    readme.write_text("<!-- bench -->\n<!-- /bench -->\n")
    page.write_text(
        "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("bench distributed", "bench distributed model"))
    )
    figures = {"distributed": {"table": "ranks", "figures": seconds_of_ranks()}}
    runner.keep(on("avx512", results | {"questions": results["questions"] | figures}), whole=True, folder=folder)
    for check, status in ((True, 1), (False, 0), (True, 0)):
        assert runner.readme(check, readme, folder, page) == status
    times, model = page.read_text().split("<!-- bench distributed model -->")
    assert f"| {distributed.FIXED[0].name} | – | – | 100 | 720 | 1.00 |" in times
    assert f"| {distributed.CASES[0].name} | 2.00 |" in model
    assert times.split("\n\n")[1] in (folder / "avx512.md").read_text()


def test_readme_without_a_place(results: report.Results) -> None:
    with pytest.raises(ValueError, match="<!-- bench -->"):
        report.with_blocks("Nothing.", report.readme_blocks([results]))
    with pytest.raises(ValueError, match="<!-- /bench algorithms -->"):
        report.with_blocks("<!-- bench algorithms -->\n", {"bench algorithms": ""})


@pytest.mark.skipif(not report.load(), reason="no results yet")
def test_readme_shows_the_results() -> None:
    assert runner.readme(check=True) == 0


def test_machine_names_no_host() -> None:
    facts = machine.describe()
    assert facts["isa"] in report.ISAS
    assert platform.node() not in map(str, facts.values())


def test_peers_want_torchaudio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--peers"])
    assert "make bench-peers" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["no_such_question"], ["peers"], ["--no-such-option"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        runner.main(arguments)
    assert "usage: python -m bench" in capsys.readouterr().err
