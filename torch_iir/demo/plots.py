"""Plots of sounds, responses and losses, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from torch_iir.demo.measures import DYNAMIC_RANGE, levels

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


def frequencies(sample_rate: int, points: int = 4000) -> Tensor:
    """Evenly spaced on a logarithmic axis, in Hz, from 20 Hz to almost half the sample rate."""
    return torch.logspace(math.log10(20), math.log10(0.4999 * sample_rate), points, dtype=torch.float64)


def responses(file: Path, frequency: Tensor, decibels: Mapping[str, Tensor]) -> Path:
    """Magnitude responses."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.subplots()
        magnitude(axes, frequency, decibels)
        return save(figure, file)


def equaliser(
    file: Path,
    frequency: Tensor,
    decibels: Mapping[str, Tensor],
    knobs: tuple[Tensor, Tensor],
    x: Tensor,
    sample_rate: int,
) -> Path:
    """Magnitude responses with the knobs that were found; below, what is still wrong, and where the sound is."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 7), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=[2, 1])
        magnitude(above, frequency, decibels)
        above.set_xlabel("")
        above.plot(*knobs, "o", color=COLOURS["after"], markersize=7, markerfacecolor="white", label="knobs found")
        legend_above(above)
        error = (decibels["after"] - decibels["target"]).abs().clamp(min=1e-6)
        below.loglog(frequency, error, color=COLOURS["after"])
        below.set(title="Error of the response", ylabel="error in dB", xlabel="frequency in Hz")

        spectrum = torch.fft.rfft(x[: len(x) // 1024 * 1024].view(-1, 1024) * torch.hann_window(1024))
        power = spectrum.abs().square().mean(0)
        level = 10 * (power / power.max() + 1e-12).log10()
        heard = below.twinx()
        heard.fill_between(torch.linspace(0, sample_rate / 2, 513), level, -120, color=COLOURS["input"], alpha=0.2)
        heard.set(ylabel="level of the input in dB", ylim=(-120, 0))
        heard.grid(False)
        heard.spines["right"].set_visible(True)
        below.set_zorder(heard.get_zorder() + 1)
        below.patch.set_visible(False)
        below.set_xlim(20, sample_rate / 2)
        hertz(below.xaxis)
        return save(figure, file)


def magnitude(axes: Axes, frequency: Tensor, decibels: Mapping[str, Tensor]) -> None:
    for name, line in LINES.items():
        axes.semilogx(frequency, decibels[name], label=name, **line)
    axes.set(title="Magnitude response", xlabel="frequency in Hz", ylabel="magnitude in dB")
    axes.set_xlim(20, float(frequency[-1]))
    hertz(axes.xaxis)
    legend_above(axes)


def loss(file: Path, losses: Sequence[float], what: str = "error of spectrum and waveform") -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(losses) + 1), losses, color=COLOURS["after"])
        axes.set(title="Loss", xlabel="training step", ylabel=what, xlim=(1, len(losses)))
        if max(losses) > 10 * min(losses):
            axes.set_yscale("log")
        return save(figure, file)


def bands(file: Path, frequency: Tensor, decibels: Mapping[str, Tensor], marks: Sequence[float]) -> Path:
    """The responses of the filters of a bank, one panel for each state of it; marks are frequencies that matter."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 8), layout="constrained")
        panels = figure.subplots(len(decibels), sharex=True, sharey=True)
        for axes, (name, responses) in zip(panels, decibels.items(), strict=True):
            axes.vlines(
                marks, 0, 1, transform=axes.get_xaxis_transform(), color=COLOURS["input"], alpha=0.5, linewidth=1
            )
            peaks = responses.amax(-1, keepdim=True)
            axes.semilogx(frequency, (responses - peaks).T, color=COLOURS[name], alpha=0.5, linewidth=0.8)
            axes.set(title=f"The filters {name} training", ylabel="below the peak, in dB", ylim=(-30, 1))
        panels[-1].set(xlabel="frequency in Hz (grey: the partials of the notes)", xlim=(200, float(frequency[-1])))
        hertz(panels[-1].xaxis)
        return save(figure, file)


def learning(file: Path, losses: Sequence[float], accuracy: Mapping[int, float], levels: Mapping[str, float]) -> Path:
    """The loss of every step, and how much of what was never heard is right; levels are what to hold it against."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        above, below = figure.subplots(2, sharex=True)
        above.plot(
            range(1, len(losses) + 1), losses, color=COLOURS["after"], alpha=0.35, linewidth=0.8, label="each step"
        )
        window = min(20, len(losses))
        average = np.convolve(losses, np.full(window, 1 / window), "valid")
        above.plot(
            np.arange(len(average)) + (window + 1) / 2, average, color=COLOURS["after"], label=f"mean of {window}"
        )
        above.set(title="Loss", ylabel="cross entropy")
        legend_above(above)
        steps = list(accuracy)
        below.plot(steps, [100 * accuracy[step] for step in steps], "o-", color=COLOURS["after"], label="both learn")
        for (name, level), style in zip(levels.items(), ("--", ":"), strict=False):
            below.axhline(100 * level, color=COLOURS["target"], linestyle=style, label=name)
        below.set(title="Accuracy on clips never heard", xlabel="training step", ylabel="right, in %", ylim=(0, 100))
        below.set_xlim(0, len(losses))
        legend_above(below)
        return save(figure, file)


EXCERPT = 3.0  # seconds of a spectrogram: more would not show single frames
OTHERS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")  # of Okabe and Ito, too


def spectrograms(file: Path, powers: Mapping[str, Tensor], sample_rate: int, hop: int) -> Path:
    """Power spectra from the middle of a sound, the true ones first; below, the loudest frame that is shown."""
    true = next(iter(powers.values()))
    shown = min(true.shape[1], round(EXCERPT * sample_rate / hop))
    first, margin = (true.shape[1] - shown) // 2, shown // 10
    decibels = {name: levels(power[1:, first : first + shown], true.max()) for name, power in powers.items()}
    frequency = np.linspace(0, sample_rate / 2, len(true))[1:]
    seconds = (first + np.arange(shown)) * hop / sample_rate
    frame = margin + int(true[:, first + margin : first + shown - margin].sum(0).argmax())
    low = max(60.0, float(frequency[0]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(16, 9), layout="constrained")
        grid = figure.add_gridspec(2, len(powers), height_ratios=[1.2, 1])
        panels: list[Axes] = []
        for column, (name, picture) in enumerate(decibels.items()):
            axes = figure.add_subplot(grid[0, column], sharey=panels[0] if panels else None)
            mesh = axes.pcolormesh(seconds, frequency, picture, vmin=-DYNAMIC_RANGE, vmax=0, cmap="magma")
            axes.axvline(seconds[frame], color="white", linestyle=":")
            axes.set(title=name, xlabel="time in s", yscale="log", ylim=(low, sample_rate / 2))
            axes.tick_params("y", labelleft=not panels)
            axes.grid(False)
            panels.append(axes)
        panels[0].set_ylabel("frequency in Hz")
        hertz(panels[0].yaxis)
        figure.colorbar(mesh, ax=panels, label="level in dB", pad=0.01)

        axes = figure.add_subplot(grid[1, :])
        lines = [LINES["target"], *({"color": colour} for colour in OTHERS)]
        for (name, picture), line in zip(decibels.items(), lines, strict=False):
            axes.semilogx(frequency, picture[:, frame], label=name, **{"linewidth": 1, **line})
        axes.lines[-1].set_linestyle("--")  # the last two may coincide
        axes.set(title="The frame at the dotted lines", xlabel="frequency in Hz", ylabel="level in dB")
        axes.set(xlim=(low, sample_rate / 2), ylim=(-DYNAMIC_RANGE, 3))
        hertz(axes.xaxis)
        legend_above(axes, len(powers))
        return save(figure, file)


FORMANT = 400.0  # Hz: a pole with a wider band is none


def speech(
    file: Path, powers: Mapping[str, Tensor], coefficients: Mapping[str, Tensor], sample_rate: int, period: int
) -> Path:
    """Power spectra from the middle of a sound, with the formants of what was synthesised; below, a frame closely.

    Args:
        powers: of "original", "before" and "after", (frequencies, frames).
        coefficients: gains and coefficients, (frames, M + 1), of "before" and "after".
        period: samples from frame to frame, in all of them.
    """
    true = powers["original"]
    frames = next(iter(coefficients.values())).shape[0]
    shown = min(frames, round(EXCERPT * sample_rate / period))
    first = (frames - shown) // 2
    decibels = {name: levels(power[:, first : first + shown], true.max()) for name, power in powers.items()}
    kilohertz = np.linspace(0, sample_rate / 2000, len(true))
    seconds = (first + np.arange(shown)) * period / sample_rate
    closely = int(true[:, first : first + shown].sum(0).argmax())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(16, 9), layout="constrained")
        grid = figure.add_gridspec(2, len(powers), height_ratios=[1.2, 1])
        panels: list[Axes] = []
        for column, (name, picture) in enumerate(decibels.items()):
            axes = figure.add_subplot(grid[0, column], sharey=panels[0] if panels else None)
            mesh = axes.pcolormesh(seconds, kilohertz, picture, vmin=-DYNAMIC_RANGE, vmax=0, cmap="magma")
            axes.axvline(seconds[closely], color="white", linestyle=":")
            axes.set(title=name, xlabel="time in s")
            axes.tick_params("y", labelleft=not panels)
            axes.grid(False)
            panels.append(axes)
            if name in coefficients:
                frame, formant = formants(coefficients[name][first : first + shown], sample_rate)
                audible = (picture.amax(0) > -50)[frame]
                axes.plot(seconds[frame[audible]], formant[audible] / 1000, ".", color="#56b4e9", markersize=2.5)
                axes.set(title=f"{name} (dots: poles narrower than {FORMANT:g} Hz)")
        panels[0].set(ylabel="frequency in kHz", ylim=(0, sample_rate / 2000))
        figure.colorbar(mesh, ax=panels, label="level in dB", pad=0.01)

        axes = figure.add_subplot(grid[1, :])
        window = torch.hann_window(2 * len(true) - 2)
        of_white = 10 * math.log10(float(window.square().sum() / true.max()))  # the level of an excitation of power 1
        axes.plot(kilohertz, decibels["original"][:, closely], label="original", **LINES["target"] | {"linewidth": 2})
        for name, a in coefficients.items():
            envelope = envelope_db(a[first + closely], 8 * len(true)) + of_white
            axes.plot(np.linspace(0, kilohertz[-1], len(envelope)), envelope, label=f"envelope {name}", **LINES[name])
        axes.set(title="The frame at the dotted lines", xlabel="frequency in kHz", ylabel="level in dB")
        axes.set(xlim=(0, kilohertz[-1]), ylim=(-DYNAMIC_RANGE, 3))
        legend_above(axes)
        return save(figure, file)


def formants(coefficients: Tensor, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The poles with narrow bands: of which frame, and at how many Hz."""
    a = coefficients[:, 1:].double()
    companion = torch.diag_embed(torch.ones_like(a[:, 1:]), -1)
    companion[:, 0] = -a
    poles = torch.linalg.eigvals(companion)
    bandwidth = -poles.abs().log() * sample_rate / math.pi
    frame, index = torch.nonzero((poles.imag > 0) & (bandwidth < FORMANT), as_tuple=True)
    return frame.numpy(), (poles[frame, index].angle() * sample_rate / (2 * math.pi)).numpy()


def envelope_db(coefficients: Tensor, points: int) -> np.ndarray:
    """The response of a gain and an all-pole filter, from 0 Hz to half the sample rate."""
    a = torch.cat([torch.ones(1, dtype=coefficients.dtype), coefficients[1:]])
    spectrum = torch.fft.rfft(a, 2 * points).abs()
    return np.asarray(20 * (coefficients[0] / spectrum).log10())


def steps(file: Path, measured: Mapping[str, Mapping[str, tuple[float, int | None]]]) -> Path:
    """Seconds and bytes of several models, compiled by two backends, in per cent of what the second one needs."""
    units = {"Time of a training step": ("ms", 1e3), "Peak memory": ("MB", 1e-6)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        ours, reference = next(iter(measured.values()))
        for column, (axes, (title, (unit, scale))) in enumerate(zip(panels, units.items(), strict=True)):
            for row, (name, colour) in enumerate({ours: COLOURS["after"], reference: COLOURS["before"]}.items()):
                values = [scale * (each[name][column] or math.nan) for each in measured.values()]
                wholes = [scale * (each[reference][column] or math.nan) for each in measured.values()]
                shares = [100 * value / whole for value, whole in zip(values, wholes, strict=True)]
                bars = axes.barh(np.arange(len(shares)) + 0.38 * row, shares, 0.35, color=colour, label=name)
                axes.bar_label(bars, [f"{value:.3g} {unit}" for value in values], padding=3)
            axes.set(title=title, xlabel=f"% of {reference}")
            axes.margins(x=0.2)
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(np.arange(len(measured)) + 0.19, list(measured))
        panels[0].invert_yaxis()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return save(figure, file)


def legend_above(axes: Axes, columns: int = 4) -> None:
    """On the line of the title, where no curve is."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, borderaxespad=0.2)


def hertz(axis: Axis) -> None:
    """20, 50, 100 … 1k, 2k instead of powers of ten."""
    low, high = axis.get_view_interval()
    ticks = [mark * 10.0**decade for decade in range(6) for mark in (1, 2, 5)]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}" if tick < 1000 else f"{tick / 1000:g}k"))
    axis.set_ticks([], minor=True)
