"""The pictures. Each takes plain contents and returns one ``<svg>`` element as text; same contents, same bytes."""

from __future__ import annotations

from collections import defaultdict
from math import ceil, log
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.reports.contents import SECONDS_IN_HOUR, SECONDS_IN_MINUTE, codebook_name
from neuromill.reports.measures import correlations, flatten, perplexity, places, shown_in
from neuromill.reports.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    QUIET,
    SERIES,
    SPLITS,
    STATES,
    VERMILION,
    house_style,
    label,
    legend_above,
    new_figure,
    svg,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from neuromill.reports.contents import (
        CodebookUse,
        Curve,
        Example,
        RecordingFacts,
        RejectionFacts,
        Sensors,
        Spectrum,
        StageProgress,
        TokenizerFacts,
        Training,
    )

ROW_HEIGHT = 0.27
EDGE_HEIGHT = 1.05
MOST_DATASETS = 30
MOST_MAPS = 9
MAPS_PER_ROW = 3
MOST_REJECTED = 6
NAMED_CHANNELS = 20  # of a panel of rejected windows: names stay legible
REASONS = (VERMILION, BLUE, GREEN, PURPLE)
BAR_STEPS = 40
"""Colours of a map. From 50 on matplotlib would put its colour bar into the page as a bitmap."""


def overview(recordings: Sequence[RecordingFacts], stages: Sequence[StageProgress]) -> str:
    """Hours per dataset by split, and how far each stage is."""
    datasets = sorted({r.dataset for r in recordings})
    rows = max(min(len(datasets), MOST_DATASETS), len(stages))
    with house_style():
        figure = new_figure(EDGE_HEIGHT + ROW_HEIGHT * rows)
        left, right = figure.subplots(1, 2)
        _hours(left, recordings, datasets)
        _progress(right, stages)
        for axes in (left, right):  # bars of both have the same height
            axes.set_ylim(rows - 0.5, -0.6)
        return svg(figure, "overview")


def _hours(axes: Axes, recordings: Sequence[RecordingFacts], datasets: Sequence[str]) -> None:
    """Length in a unit that fits, or counts where no length is known yet."""
    unit, name = _unit_of_length(recordings)
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for recording in recordings:
        for split, seconds in recording.by_split:
            sums[recording.dataset, split] += (seconds or 0.0) / unit if unit else 1.0
    longest = sorted(datasets, key=lambda dataset: (-sum(v for (d, _), v in sums.items() if d == dataset), dataset))
    shown = longest[:MOST_DATASETS]
    present = {split for _, split in sums}
    splits = [split for split in SPLITS if split in present] + sorted(present - SPLITS.keys())
    colours = {split: SPLITS.get(split, SERIES[3]) for split in splits}
    table = {split: [sums[dataset, split] for dataset in shown] for split in splits}
    _stacked(axes, [label(dataset) for dataset in shown], table, colours)
    more = f", longest {len(shown)} of {len(longest)} datasets" if len(longest) > len(shown) else ""
    axes.set_title(f"{'Length' if unit else 'Recordings'} by split{more}")
    axes.set_xlabel(name)
    legend_above(axes, len(splits))


def _unit_of_length(recordings: Sequence[RecordingFacts]) -> tuple[int, str]:
    longest = sum(recording.seconds or 0.0 for recording in recordings)
    if longest >= SECONDS_IN_HOUR:
        return SECONDS_IN_HOUR, "hours"
    if longest >= SECONDS_IN_MINUTE:
        return SECONDS_IN_MINUTE, "minutes"
    return (1, "seconds") if longest > 0 else (0, "recordings")


def _progress(axes: Axes, stages: Sequence[StageProgress]) -> None:
    from matplotlib.ticker import MaxNLocator

    table = {state: [getattr(stage, state) for stage in stages] for state in STATES}
    bars = _stacked(axes, [label(stage.stage) for stage in stages], table, STATES)
    for state, containers in bars.items():
        texts = [str(value) if value else "" for value in table[state]]
        colour = INK if state == "waiting" else "white"
        axes.bar_label(containers, texts, label_type="center", color=colour, fontsize=7.5, fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_title("Recordings by stage")
    axes.set_xlabel("recordings")
    legend_above(axes, len(STATES))


def _stacked(axes: Axes, names: Sequence[str], table: dict[str, Any], colours: Any) -> dict[str, Any]:
    places = np.arange(len(names))
    begin = np.zeros(len(names))
    bars = {}
    for part, values in table.items():
        bars[part] = axes.barh(places, values, left=begin, height=0.68, color=colours[part], label=label(part))
        begin = begin + np.asarray(values, np.float64)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return bars


def spectra(items: Sequence[Spectrum]) -> str:
    """Amplitude spectral density, one panel per channel type, one line per dataset, line frequency marked."""
    kinds = sorted({(s.channel_type, s.unit) for s in items})
    rows = -(-len(kinds) // 2)
    with house_style():
        figure = new_figure(0.3 + 2.6 * rows)
        panels = figure.subplots(rows, min(2, len(kinds)), squeeze=False).ravel()
        for axes, (kind, unit) in zip(panels, kinds, strict=False):
            _spectrum_panel(axes, [s for s in items if (s.channel_type, s.unit) == (kind, unit)], items)
            axes.set_title(label(kind))
            axes.set_ylabel(f"{label(shown_in(unit).name)} per √Hz")
            legend_above(axes, 2)
        for axes in panels[len(kinds) :]:
            axes.set_axis_off()
        return svg(figure, "spectra")


def _spectrum_panel(axes: Axes, shown: Sequence[Spectrum], everything: Sequence[Spectrum]) -> None:
    datasets = sorted({s.dataset for s in everything})
    factor = shown_in(shown[0].unit).factor
    for item in shown:
        colour = SERIES[datasets.index(item.dataset) % len(SERIES)]
        name = f"{label(item.dataset)} ({item.n_channels} channels)"
        axes.fill_between(item.freqs, item.low * factor, item.high * factor, color=colour, alpha=0.18, linewidth=0)
        axes.plot(item.freqs, item.middle * factor, color=colour, label=name)
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    top = max(float(item.freqs[-1]) for item in shown)
    axes.set_xlim(0, top)
    axes.set_xlabel("frequency (Hz)")
    for line in sorted({s.line_freq for s in shown if s.line_freq is not None}):
        _mark_line_frequency(axes, line, top)


def _mark_line_frequency(axes: Axes, line: float, top: float) -> None:
    inside = line <= top
    text = f"mains {line:g} Hz" if inside else f"mains {line:g} Hz is above this band"
    if inside:
        axes.axvline(line, color=VERMILION, linestyle=(0, (4, 2)), linewidth=1)
    middle = inside and line < top / 2
    axes.annotate(
        text,
        (line if inside else top, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(4 if middle else -4, 0),
        textcoords="offset points",
        ha="left" if middle else "right",
        va="top",
        color=VERMILION,
    )


def sensor_maps(items: Sequence[Sensors]) -> str:
    """Sensors from above, coloured by root mean square, bad ones crossed out."""
    shown = items[:MOST_MAPS]
    rows = -(-len(shown) // MAPS_PER_ROW)
    with house_style():
        figure = new_figure(3.1 * rows)
        panels = figure.subplots(rows, MAPS_PER_ROW, squeeze=False).ravel()
        for axes, item in zip(panels, shown, strict=False):
            _sensor_panel(figure, axes, item)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        return svg(figure, "sensors")


def _sensor_panel(figure: Figure, axes: Axes, item: Sensors) -> None:
    from matplotlib import colormaps

    found = places(item.positions, item.rms, item.bads)
    at, values = flatten(found.positions), found.rms * shown_in(item.unit).factor
    good = np.isfinite(values)
    _head(axes, float(np.linalg.norm(at, axis=1).max(initial=1.0)))
    colours = colormaps["viridis"].resampled(BAR_STEPS)
    dots = axes.scatter(at[good, 0], at[good, 1], c=values[good], s=_dot_area(len(at)), cmap=colours, linewidths=0)
    axes.scatter(at[found.bad, 0], at[found.bad, 1], s=30, marker="x", color=VERMILION, linewidths=1.2)
    bar = figure.colorbar(dots, ax=axes, shrink=0.7, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")  # else thin white lines between its colours
    bar.set_label(f"RMS ({label(shown_in(item.unit).name)})")
    axes.set_title(f"{label(item.channel_type)}, {len(item.bads)} channels, {sum(map(bool, item.bads))} bad")
    axes.set_xlabel(label(item.recording), fontsize=6.5, color=QUIET)


def _dot_area(count: int) -> float:
    return float(np.clip(9000 / max(count, 1), 14, 60))


def _head(axes: Axes, reach: float) -> None:
    """Draw the outline of a head seen from above, nose up, around all sensors."""
    from matplotlib.patches import Circle, Polygon

    radius = reach * 1.12
    axes.add_patch(
        Polygon(
            [(-0.1 * radius, radius * 0.99), (0, radius * 1.12), (0.1 * radius, radius * 0.99)], fill=False, ec=QUIET
        )
    )
    axes.add_patch(Circle((0, 0), radius, fill=True, fc="white", ec=QUIET))
    axes.set_aspect("equal")
    axes.set_xlim(-1.2 * radius, 1.2 * radius)
    axes.set_ylim(-1.1 * radius, 1.2 * radius)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def rejections(items: Sequence[RejectionFacts]) -> str:
    """Draw the windows of each recording along time, channels below each other, a mark for a rejected window."""
    heights = [0.5 + 0.1 * min(len(item.channels), NAMED_CHANNELS) for item in items]
    with house_style():
        figure = new_figure(0.5 + sum(heights) + 0.45 * len(items))
        panels = figure.subplots(len(items), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, item in zip(panels, items, strict=True):
            _rejection_panel(axes, item)
        return svg(figure, "rejected")


def _rejection_panel(axes: Axes, item: RejectionFacts) -> None:
    width, (n_windows, n_channels) = item.window_seconds / SECONDS_IN_MINUTE, item.reasons.shape
    for number, name in enumerate(item.legend[1:], start=1):
        x, y = _marks(item.reasons == number, width)
        axes.plot(x, y, color=REASONS[(number - 1) % len(REASONS)], solid_capstyle="butt", label=label(name))
    for line in axes.lines:
        line.set_linewidth(float(np.clip(100 / max(n_channels, 1), 0.6, 6)))
    axes.set_xlim(0, max(n_windows, 1) * width)
    axes.set_ylim(n_channels - 0.5, -0.5)
    step = max(1, ceil(n_channels / NAMED_CHANNELS))
    axes.set_yticks(range(0, n_channels, step), [label(name, 12) for name in item.channels[::step]], fontsize=6)
    axes.grid(visible=False)
    axes.set_title(f"{label(item.recording, 70)}, {np.mean(item.reasons > 0):.1%} of windows rejected")
    axes.set_xlabel("minutes")
    if len(item.legend) > 1:
        legend_above(axes, len(item.legend) - 1)


def _marks(rejected: NDArray[np.bool_], width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One line for each run of rejected windows of a channel: x and y [3 x run], NaN between the runs."""
    padded = np.pad(rejected.astype(np.int8), ((1, 1), (0, 0)))
    edges = np.diff(padded, axis=0).T  # [channel, edge]
    channel, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    nothing = np.full(len(start), np.nan)
    x = np.stack([start * width, stop * width, nothing], axis=1).ravel()
    return x, np.stack([channel, channel, nothing], axis=1).ravel()


def codebooks(tokenizer: TokenizerFacts | None, usage: CodebookUse | None) -> str:
    """Perplexity of each level, and how often the codes of each level occur, commonest first."""
    with house_style():
        figure = new_figure(2.9)
        left, right = figure.subplots(1, 2)
        size = usage.counts.shape[1] if usage is not None else tokenizer.codebook_size if tokenizer is not None else 1
        _perplexities(left, tokenizer, usage, size)
        if usage is None:
            right.set_axis_off()
        else:
            _ranks(right, usage.shares, tokenizer)
        return svg(figure, "codebooks")


def _perplexities(axes: Axes, tokenizer: TokenizerFacts | None, usage: CodebookUse | None, size: int) -> None:
    series = []
    if tokenizer is not None and tokenizer.levels:
        series.append(("windows of the gate", [level.perplexity for level in tokenizer.levels], "o", BLUE))
    if usage is not None:
        series.append(("token stores", list(perplexity(usage.shares)), "D", ORANGE))
    for shift, (name, values, marker, colour) in zip((-0.12, 0.12), series, strict=False):
        axes.vlines(np.arange(len(values)) + shift, 1, values, color=colour, linewidth=2, alpha=0.5)
        axes.plot(np.arange(len(values)) + shift, values, marker, color=colour, markersize=5.5, label=name)
    axes.axhline(size, color=QUIET, linestyle=(0, (4, 2)), linewidth=1, label=f"all {size} codes alike")
    axes.set_yscale("log", base=2)
    axes.set_ylim(0.9, size * 1.25)
    _plain_numbers(axes.yaxis)
    levels = len(series[0][1]) if series else 0
    named = tokenizer is not None and tokenizer.codebooks
    axes.set_xticks(np.arange(levels), [label(codebook_name(tokenizer, level)) for level in range(levels)])
    if named:
        axes.set_xlim(-0.5, max(levels, 1) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_title("Perplexity of each codebook")
    axes.set_xlabel("" if named else "quantizer level")
    axes.set_ylabel("perplexity (codes)")
    legend_above(axes, len(series) + 1)


def _ranks(axes: Axes, shares: NDArray[np.float64], tokenizer: TokenizerFacts | None) -> None:
    colours = _level_colours(len(shares))
    for level, (row, colour) in enumerate(zip(shares, colours, strict=True)):
        used, name = np.sort(row[row > 0])[::-1], label(codebook_name(tokenizer, level))
        axes.plot(np.arange(1, len(used) + 1), used * 100, color=colour, label=name, marker=".", markersize=2.5)
    axes.axhline(100 / shares.shape[1], color=QUIET, linestyle=(0, (4, 2)), linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(0.9, shares.shape[1] * 1.1)
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    named = tokenizer is not None and tokenizer.codebooks
    axes.set_title(f"How often each code occurs, by {'codebook' if named else 'level'}")
    axes.set_xlabel("codes, commonest first")
    axes.set_ylabel("share of frames (%)")
    legend_above(axes, max(len(shares), 1))


def traces(item: Example) -> str:
    """Draw original and reconstruction of some channels, one above the other, with their correlation."""
    scores = correlations(item.original, item.reconstruction)
    seconds = item.start_seconds + np.arange(item.original.shape[1]) / item.sfreq
    with house_style():
        figure = new_figure(0.8 + 1.05 * len(item.channels))
        panels = figure.subplots(len(item.channels), 1, sharex=True, squeeze=False).ravel()
        for axes, name, before, after, score in zip(
            panels, item.channels, item.original, item.reconstruction, scores, strict=True
        ):
            axes.plot(seconds, before, color=INK, linewidth=0.9, label="original")
            axes.plot(seconds, after, color=VERMILION, linewidth=1.1, label="reconstruction")
            axes.margins(x=0)
            axes.set_ylabel(label(name, 14), rotation=0, ha="right", va="center")
            axes.text(1.008, 0.5, f"r = {score:.2f}", transform=axes.transAxes, va="center", fontsize=7.5)
        panels[0].set_title(label(item.recording, 90))
        legend_above(panels[0], 2)
        panels[-1].set_xlabel(f"time (s); amplitudes {item.amplitudes}")
        return svg(figure, "traces")


def training(run: Training) -> str:
    """Loss, and accuracy of masked codes on each level, over the steps of a run."""
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure = new_figure(2.9)
        left, right = figure.subplots(1, 2)
        _loss(left, run)
        if run.train.per_level.shape[1]:
            _accuracy(right, run)
        else:
            right.set_axis_off()
        for axes in (left, right):
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        return svg(figure, "training")


def _loss(axes: Axes, run: Training) -> None:
    axes.plot(run.train.steps, run.train.loss, color=BLUE, marker=_marker(run.train), markersize=3, label="train")
    if run.validation is not None:
        held_out = run.validation
        axes.plot(held_out.steps, held_out.loss, color=ORANGE, marker="D", markersize=4.5, label="validation")
    if run.train.per_level.shape[1]:
        axes.axhline(log(run.codebook_size), color=QUIET, linestyle=(0, (4, 2)), linewidth=1, label="chance")
        axes.set_title("Loss on masked codes")
        axes.set_ylabel("cross-entropy (nats)")
    else:
        axes.set_title("Loss")
    legend_above(axes, 3)


def _accuracy(axes: Axes, run: Training) -> None:
    n_levels = run.train.per_level.shape[1]
    for level, colour in enumerate(_level_colours(n_levels)):
        values = run.train.per_level[:, level] * 100
        axes.plot(run.train.steps, values, color=colour, marker=_marker(run.train), markersize=3, label=str(level))
        if run.validation is not None:
            axes.plot(run.validation.steps, run.validation.per_level[:, level] * 100, "D", color=colour, markersize=4.5)
    axes.axhline(100 / run.codebook_size, color=QUIET, linestyle=(0, (4, 2)), linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_title("Masked codes predicted right, by level")
    axes.set_ylabel("accuracy (%)")
    legend_above(axes, max(n_levels, 1))


def _plain_numbers(axis: Axis) -> None:
    """Write 100, not a power of ten in the markup of formulas, which is switched off."""
    from matplotlib.ticker import NullFormatter

    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _marker(curve: Curve) -> str:
    few = 40
    return "o" if len(curve.steps) <= few else ""


def _level_colours(count: int) -> list[Any]:
    """One colour map from dark to light: levels are in order, and so are their colours."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * i / max(count - 1, 1)) for i in range(count)]
