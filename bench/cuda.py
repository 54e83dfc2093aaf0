"""The operators on a CUDA device, beside a copy of the same bytes on it, and torchaudio's filter where it is installed.

    python -m bench.cuda [FILE.json]      measures and writes the figures; needs a device
    python -m bench --readme              brings the README's table up to bench/results/cuda.json

What is compared is the share of the time of a device-to-device copy that moves as many bytes, or the time itself. Calls
run from a CUDA graph, several in one, so that what Python and the launches cost is not in it; ours and the copy take
turns, the median of 25 rounds counts. Outputs are compared with the CPU's before anything is timed.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import torch_iir
from torch_iir import transforms

ROUNDS = 25
RESULTS = Path(__file__).parent / "results" / "cuda.json"


@dataclass(frozen=True)
class Figure:
    """A call, and what it must reach: a share of the copy of `bytes_moved`, or microseconds, or a ratio to others."""

    name: str
    unit: str  # "of a copy", "µs", "ms", "× one section", "× torchaudio"
    limit: float
    aim: float | None = None
    make: Callable[[str], tuple[Callable[[], Any], int]] | None = None  # device → call, bytes that it has to move
    against: Callable[[str], Callable[[], Any]] | None = None  # what a ratio is to
    tolerance: float = 1e-6  # relative, root mean square, to the CPU


def noise(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1234), dtype=dtype).to(device)


def poles(order: int) -> Tensor:
    """The denominator of a stable filter of that order, float64."""
    a = torch.ones(1, dtype=torch.float64)
    for pair in range(order // 2):
        angle = torch.tensor(0.2 + 2.4 * pair / max(order // 2, 1), dtype=torch.float64)
        section = torch.stack([torch.ones_like(angle), -1.8 * torch.cos(angle), torch.full_like(angle, 0.81)])
        a = torch.nn.functional.conv1d(a.view(1, 1, -1), section.flip(0).view(1, 1, -1), padding=2).flatten()
    if order % 2:
        a = torch.cat([a, a.new_zeros(1)]) - 0.5 * torch.cat([a.new_zeros(1), a])
    return a


def filtering(rows: int, samples: int, order: int) -> Callable[[str], tuple[Callable[[], Any], int]]:
    def make(device: str) -> tuple[Callable[[], Any], int]:
        x, a = noise(rows, samples, device=device), poles(order).to(device)
        b = torch.linspace(0.1, 0.3, order + 1, dtype=torch.float64).to(device)
        return lambda: torch.ops.torch_iir.lfilter(x, b, a)[0], 8 * x.numel()

    return make


def gradients(rows: int, samples: int) -> Callable[[str], tuple[Callable[[], Any], int]]:
    def make(device: str) -> tuple[Callable[[], Any], int]:
        x, gy, a = noise(rows, samples, device=device), noise(rows, samples, device=device), poles(2).to(device)
        b = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64).to(device)
        y = torch.ops.torch_iir.lfilter(x, b, a)[0]
        return lambda: torch.ops.torch_iir.lfilter_backward(gy, None, x, b, a, None, y, 7)[0], 16 * x.numel()

    return make


def bank(device: str) -> tuple[Callable[[], Any], int]:
    x = noise(32, 1, 16000, device=device)
    angles = torch.linspace(0.05, 3.0, 128, dtype=torch.float64)
    a = torch.stack([torch.ones_like(angles), -1.9 * angles.cos(), torch.full_like(angles, 0.9025)], -1).to(device)
    b = torch.tensor([0.05, 0.0, -0.05], dtype=torch.float64).expand(128, 3).contiguous().to(device)
    return lambda: torch.ops.torch_iir.lfilter(x, b, a)[0], 4 * (x.numel() + 128 * x.numel())


def cascade(sections: int) -> Callable[[str], tuple[Callable[[], Any], int]]:
    def make(device: str) -> tuple[Callable[[], Any], int]:
        x = noise(64, 480_000, device=device)
        sos = torch.tensor([[0.2, 0.3, 0.1, 1, -1.2, 0.5]] * sections, dtype=torch.float64).to(device)
        return lambda: torch.ops.torch_iir.sosfilt(x, sos)[0], 8 * x.numel()

    return make


def time_varying(rows: int, samples: int, order: int) -> Callable[[str], tuple[Callable[[], Any], int]]:
    def make(device: str) -> tuple[Callable[[], Any], int]:
        x = noise(rows, samples, device=device)
        a = 0.5 / order * noise(rows, samples, order, device=device)
        return lambda: torch.ops.torch_iir.lfilter_tv(x, None, a)[0], (8 + 4 * order) * x.numel()

    return make


def mel_inversion(device: str) -> tuple[Callable[[], Any], int]:
    frames, bins, mels = 11_713, 1025, 128
    inverse = transforms.InverseMelScale(bins, mels, 44100, mel_scale="htk").to(device)
    mel = (noise(frames, bins, device=device).abs() @ inverse.fb).T.contiguous()
    return lambda: inverse(mel), 4 * frames * (bins + mels)


def torchaudios(rows: int, samples: int) -> Callable[[str], Callable[[], Any]]:
    def make(device: str) -> Callable[[], Any]:
        from torchaudio.functional import lfilter  # type: ignore[import-not-found,unused-ignore]

        x, a = noise(rows, samples, device=device), poles(2).float().to(device)
        b = torch.linspace(0.1, 0.3, 3).to(device)
        return lambda: lfilter(x, a, b, clamp=False)

    return make


FIGURES = (
    Figure("lfilter order 2, [64, 480000]", "of a copy", 0.85, 0.92, filtering(64, 480_000, 2)),
    Figure("lfilter order 4, [64, 480000]", "of a copy", 0.75, None, filtering(64, 480_000, 4)),
    Figure("lfilter order 8, [64, 480000]", "of a copy", 0.60, None, filtering(64, 480_000, 8)),
    Figure("lfilter order 16, [64, 480000]", "of a copy", 0.30, None, filtering(64, 480_000, 16)),
    Figure("lfilter order 32, [64, 480000]", "of a copy", 0.15, None, filtering(64, 480_000, 32), tolerance=1e-5),
    Figure("lfilter order 2, [1, 2.6M]", "µs", 12, None, filtering(1, 2_600_000, 2)),
    Figure("lfilter order 2, [32, 16000]", "µs", 6, None, filtering(32, 16_000, 2)),
    Figure("lfilter order 2, [512, 48000]", "of a copy", 0.85, 0.92, filtering(512, 48_000, 2)),
    Figure("bank, [32, 16000] through 128 biquads", "of a copy", 0.85, 0.92, bank),
    Figure("lfilter_backward order 2, [64, 480000]", "of a copy", 0.75, None, gradients(64, 480_000), tolerance=1e-5),
    Figure(
        "sosfilt, 4 sections, [64, 480000]",
        "× one section",
        1.3,
        None,
        cascade(4),
        lambda device: cascade(1)(device)[0],
    ),
    Figure("lfilter_tv order 2, [64, 480000]", "of a copy", 0.75, None, time_varying(64, 480_000, 2)),
    Figure("lfilter_tv order 22, [64, 480000]", "of a copy", 0.30, None, time_varying(64, 480_000, 22)),
    Figure("InverseMelScale, 136 s at 44.1 kHz", "ms", 1, None, mel_inversion, tolerance=1e-3),
    Figure(
        "lfilter order 2, [32, 16000] ", "× torchaudio", 250, None, filtering(32, 16_000, 2), torchaudios(32, 16_000)
    ),
    Figure(
        "lfilter order 2, [64, 480000] ", "× torchaudio", 500, None, filtering(64, 480_000, 2), torchaudios(64, 480_000)
    ),
)


# --- measuring


def captured(call: Callable[[], Any], calls: int) -> Callable[[], None]:
    """So many calls in one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return graph.replay


def timed(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def copy_of(bytes_moved: int) -> Callable[[], Any]:
    source = torch.empty(bytes_moved // 8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def interleaved(runs: list[tuple[Callable[[], None], int]]) -> list[float]:
    """Seconds of a call of each, where a run is so many calls."""
    for run, _ in runs:
        run()
    torch.cuda.synchronize()
    seconds = [[timed(run) / calls for run, calls in runs] for _ in range(ROUNDS)]
    return [median(column) for column in zip(*seconds, strict=True)]


def error_of(figure: Figure) -> float:
    """Against the CPU: relative, root mean square."""
    assert figure.make is not None
    target = figure.make("cpu")[0]().double()
    return float((figure.make("cuda")[0]().cpu().double() - target).norm() / target.norm())


def measure(figure: Figure) -> dict[str, Any]:
    assert figure.make is not None
    record: dict[str, Any] = {"question": figure.name.strip(), "unit": figure.unit, "limit": figure.limit}
    record["aim"] = figure.aim
    record["error"] = error_of(figure)
    if not record["error"] <= figure.tolerance:
        return record | {"value": None, "why": f"error {record['error']:.1e} beyond {figure.tolerance:.0e}"}
    call, bytes_moved = figure.make("cuda")
    calls = max(1, min(50, 400_000_000 // max(bytes_moved, 1)))
    if figure.unit == "ms":  # a module looks at what it was given: not captured
        seconds, copy = interleaved([(call, 1), (captured(copy_of(bytes_moved), calls), calls)])
    else:
        seconds, copy = interleaved([(captured(call, calls), calls), (captured(copy_of(bytes_moved), calls), calls)])
    record |= {"seconds": seconds, "copy_seconds": copy, "bytes": bytes_moved, "share_of_copy": copy / seconds}
    if figure.unit == "of a copy":
        record["value"] = copy / seconds
        record["reached"] = record["value"] >= figure.limit
    elif figure.unit in ("µs", "ms"):
        record["value"] = seconds * (1e6 if figure.unit == "µs" else 1e3)
        record["reached"] = record["value"] <= figure.limit
    else:
        assert figure.against is not None
        try:
            other = figure.against("cuda")
        except ImportError as error:
            return record | {"value": None, "why": str(error)}
        if figure.unit == "× torchaudio":
            other()
            theirs = timed(other)
            record["value"] = theirs / seconds
            record["reached"] = record["value"] >= figure.limit
        else:
            theirs = interleaved([(captured(other, calls), calls)])[0]
            record["value"] = seconds / theirs
            record["reached"] = record["value"] <= figure.limit
        record["against_seconds"] = theirs
    return record


def machine() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch_iir": torch_iir.__version__,
    }


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    results: dict[str, Any] = {"machine": machine(), "figures": []}
    for figure in FIGURES:
        try:
            record = measure(figure)
        except Exception as error:
            record = {"question": figure.name.strip(), "unit": figure.unit, "value": None, "why": f"{error}"[:300]}
            record |= {"limit": figure.limit, "aim": figure.aim}
        results["figures"].append(record)
        print(line(record), flush=True)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")  # what there is, if it is cut off
        torch.cuda.empty_cache()
    return 0


# --- showing


def line(record: dict[str, Any]) -> str:
    value = "not measured" if record["value"] is None else f"{record['value']:.3g}"
    return f"{record['question']}: {value} {record['unit']} (needs {record['limit']:g}) {record.get('why', '')}"


def block(path: Path = RESULTS) -> str:
    """The README's table: what was measured, or that nothing was."""
    results = json.loads(path.read_text()) if path.exists() else {"figures": []}
    measured = {(record["question"], record["unit"]): record for record in results["figures"]}
    rows = list(table_rows(measured))
    head = (
        "{gpu}, torch {torch}, CUDA {cuda}.".format(**results["machine"])
        if "machine" in results
        else "**Not one of these has been measured: the CUDA kernels have not run on a GPU yet.**"
    )
    return "\n".join([head, "", "| question | must reach | measured |", "|---|--:|--:|", *rows])


def table_rows(measured: dict[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    for figure in FIGURES:
        record = measured.get((figure.name.strip(), figure.unit), {})
        share = figure.unit == "of a copy"
        needs = f"{figure.limit:.0%} of a copy" if share else f"{figure.limit:g} {figure.unit}"
        if record.get("value") is None:
            shown = "not run"
        else:
            shown = f"{record['value']:.0%}" if share else f"{record['value']:.3g} {figure.unit.split()[0]}"
            shown += "" if record["reached"] else " **no**"
        yield f"| {figure.name.strip()} | {needs} | {shown} |"


if __name__ == "__main__":
    sys.exit(main())
