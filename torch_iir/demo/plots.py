"""Plots of sounds, responses and losses, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
# Of Okabe and Ito, told apart by most eyes.
COLOURS = {"input": "#8a8a8a", "target": "#222222", "before": "#e69f00", "after": "#0072b2"}

LINES: dict[str, dict[str, Any]] = {  # what matches the target lies dashed upon it
    "target": {"color": COLOURS["target"], "linewidth": 5, "alpha": 0.3},
    "before": {"color": COLOURS["before"]},
    "after": {"color": COLOURS["after"], "linestyle": "--"},
}


def save(figure: Figure, file: Path) -> Path:
    figure.savefig(file)  # a Figure made without pyplot draws with Agg: no display is asked for
    return file


def waveforms(file: Path, sounds: Mapping[str, Tensor], sample_rate: int) -> Path:
    """Input, target and what is left of it after the filters before and after; below, the loudest 10 ms closely."""
    arrays = {name: samples.numpy() for name, samples in sounds.items()}
    target = arrays["target"]
    seconds = np.arange(len(target)) / sample_rate
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 9), layout="constrained")
        rows = figure.subplots(4, height_ratios=[1, 1, 1, 1.5])
        for axes in rows[1:3]:
            axes.sharex(rows[0])
        for axes, title, name in zip(rows, ("Input", "Target: the unknown filter's output"), arrays, strict=False):
            axes.plot(seconds, arrays[name], color=COLOURS[name], linewidth=0.5)
            axes.set(title=title, ylabel="amplitude", xlim=(0, len(target) / sample_rate))
        rows[2].set(title="Error against the target, rms of every 10 ms", ylabel="level in dBFS", xlabel="time in s")
        for name in ("before", "after"):
            level = level_db(arrays[name] - target, sample_rate)
            rows[2].plot(np.linspace(0, seconds[-1], len(level)), level, color=COLOURS[name], label=name)
        legend_above(rows[2])

        loudest = int(np.abs(target).argmax())
        shown = slice(max(0, loudest - sample_rate // 200), loudest + sample_rate // 100)
        closely = rows[3]
        for name, line in LINES.items():
            closely.plot(1e3 * seconds[shown], arrays[name][shown], label=name, **line)
        legend_above(closely)
        closely.set(title="Around the loudest sample", xlabel="time in ms", ylabel="amplitude")
        closely.margins(x=0)
        return save(figure, file)


def level_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """The rms of every 10 ms."""
    block = max(1, sample_rate // 100)
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    return np.asarray(10 * np.log10(np.square(blocks, dtype=np.float64).mean(1) + 1e-20))


def responses(file: Path, filters: Mapping[str, tuple[Tensor, Tensor]], sample_rate: int) -> Path:
    """Magnitude responses of filters (b, a)."""
    points = 1 << 16
    frequency = np.arange(1, points // 2 + 1) * sample_rate / points
    magnitude = {
        name: 20 * np.log10(np.abs(torch.fft.rfft(b, points).numpy() / torch.fft.rfft(a, points).numpy()))[1:]
        for name, (b, a) in filters.items()
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.subplots()
        for name, line in LINES.items():
            axes.semilogx(frequency, magnitude[name], label=name, **line)
        axes.set(title="Magnitude response", xlabel="frequency in Hz", ylabel="magnitude in dB")
        axes.set_xlim(20, sample_rate / 2)
        hertz(axes)
        legend_above(axes)
        return save(figure, file)


def loss(file: Path, losses: Sequence[float]) -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.subplots()
        axes.semilogy(range(1, len(losses) + 1), losses, color=COLOURS["after"])
        axes.set(title="Loss", xlabel="training step", ylabel="error of spectrum and waveform", xlim=(1, len(losses)))
        return save(figure, file)


def legend_above(axes: Axes) -> None:
    """On the line of the title, where no curve is."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)


def hertz(axes: Axes) -> None:
    """20, 50, 100 … 1k, 2k instead of powers of ten."""
    low, high = axes.get_xlim()
    ticks = [mark * 10.0**decade for decade in range(6) for mark in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}" if tick < 1000 else f"{tick / 1000:g}k"))
    axes.minorticks_off()
