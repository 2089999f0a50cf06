"""The pictures of a spike pipeline: splits over time, a raster, rates, tokens, training, decoded behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.reports.contents import SECONDS_IN_HOUR, SECONDS_IN_MINUTE
from neuromill.reports.parts import without_dataset
from neuromill.reports.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    SERIES,
    SPLITS,
    VERMILION,
    house_style,
    label,
    legend_above,
    new_figure,
    svg,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neuromill.reports.spike_contents import (
        Activity,
        Decoded,
        Rates,
        SpikeCurve,
        SpikeRecordingFacts,
        SpikeTraining,
        TokenNumbers,
    )

MOST_BARS = 30
MOST_RATES = 24
MOST_DOTS = 150
MOST_TRACES = 6
ROW_HEIGHT = 0.27
DASHED = (0, (4, 2))
LOWEST_R2 = -0.25
"""Before it has learned a model may be as bad as -20: below this the curve leaves the picture."""
KINDS = ("spike", "covariate", "constraint", "return")
BASELINES = {"ridge": ORANGE, "mean": QUIET, "scratch": "#009E73"}


def splits_over_time(recordings: Sequence[SpikeRecordingFacts]) -> str:
    """One bar per recording from its first to its last bin, coloured by split; guards between them are grey."""
    shown = recordings[:MOST_BARS]
    unit, name = time_unit(max(one.seconds for one in shown))
    with house_style():
        figure = new_figure(1.0 + ROW_HEIGHT * len(shown))
        axes = figure.subplots()
        for row, one in enumerate(shown):
            axes.barh(row, one.seconds / unit, height=0.6, color="#DADADA")
            for stretch in one.stretches:
                width = (stretch.stop - stretch.start) / unit
                axes.barh(row, width, left=stretch.start / unit, height=0.6, color=SPLITS.get(stretch.split, SERIES[3]))
        splits = [split for split in SPLITS if any(s.split == split for one in shown for s in one.stretches)]
        for split in splits:
            axes.barh([np.nan], [np.nan], color=SPLITS[split], label=split)
        axes.barh([np.nan], [np.nan], color="#DADADA", label="guard")
        short = without_dataset([one.name for one in shown])
        axes.set_yticks(range(len(shown)), [label(short[one.name]) for one in shown])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.5, -0.6)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        more = f", first {len(shown)} of {len(recordings)} recordings" if len(recordings) > len(shown) else ""
        axes.set_title(f"Splits over time{more}")
        axes.set_xlabel(f"{name} from the first bin")
        legend_above(axes, len(splits) + 1)
        return svg(figure, "splits")


def time_unit(seconds: float) -> tuple[int, str]:
    """Unit in which a time axis up to ``seconds`` is easily read."""
    if seconds >= 2 * SECONDS_IN_HOUR:
        return SECONDS_IN_HOUR, "hours"
    return (SECONDS_IN_MINUTE, "minutes") if seconds >= 2 * SECONDS_IN_MINUTE else (1, "seconds")


def rates(items: Sequence[Rates]) -> str:
    """Mean rates of the units of each array: every unit, the middle half, the median."""
    from matplotlib.ticker import LogLocator, NullLocator

    shown = items[:MOST_RATES]
    with house_style():
        figure = new_figure(0.9 + 0.36 * len(shown))
        axes = figure.subplots()
        for row, one in enumerate(shown):
            _rate_row(axes, row, one.hertz, SERIES[_dataset_number(one, shown) % len(SERIES)])
        axes.set_yticks(range(len(shown)), [_rate_name(one) for one in shown])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        more = f", first {len(shown)} of {len(items)} arrays" if len(items) > len(shown) else ""
        axes.set_title(f"Mean rate of the units of each array{more}")
        axes.set_xlabel("spikes per second")
        return svg(figure, "rates")


def _dataset_number(one: Rates, shown: Sequence[Rates]) -> int:
    return list(dict.fromkeys(each.dataset for each in shown)).index(one.dataset)


def _rate_name(one: Rates) -> str:
    return f"{label(one.dataset, 20)} {label(one.array or 'no array', 16)} ({len(one.hertz):,})"


def _rate_row(axes: Axes, row: int, hertz: NDArray[np.float64], colour: str) -> None:
    firing = hertz[hertz > 0]
    if not len(firing):
        return
    places = np.unique(np.linspace(0, len(firing) - 1, min(MOST_DOTS, len(firing))).round().astype(int))
    axes.plot(
        firing[places], np.full(len(places), row), "|", color=colour, markersize=9, markeredgewidth=0.7, alpha=0.6
    )
    low, middle, high = np.percentile(firing, (25, 50, 75))
    axes.hlines(row, low, high, color=colour, linewidth=5, alpha=0.45)
    axes.plot(middle, row, "o", color="white", markeredgecolor=colour, markersize=6)


def activity(item: Activity) -> str:
    """Spikes of some units, one row each, above the behaviour of the same seconds."""
    n_traces = min(len(item.covariates), MOST_TRACES)
    heights = [max(1.2, 0.075 * len(item.units)), *[0.62] * n_traces]
    with house_style():
        figure = new_figure(0.7 + sum(heights))
        panels = figure.subplots(1 + n_traces, 1, sharex=True, squeeze=False, height_ratios=heights).ravel()
        _raster(panels[0], item)
        seconds = item.start_seconds + (np.arange(item.counts.shape[1]) + 0.5) * item.bin_seconds
        for axes, name, unit, values in zip(
            panels[1:], item.covariates, item.covariate_units, item.values, strict=False
        ):
            axes.plot(seconds, values, color=INK, linewidth=0.9)
            _name_trace(axes, name, unit)
        panels[0].set_title(f"{label(item.recording, 80)}, {len(item.units)} of {item.n_units} units")
        panels[-1].set_xlabel("time (s)")
        panels[-1].set_xlim(item.start_seconds, item.start_seconds + item.counts.shape[1] * item.bin_seconds)
        return svg(figure, "activity")


def _raster(axes: Axes, item: Activity) -> None:
    """Draw each unit as one path: thousands of single marks would be most of the page."""
    arrays = list(dict.fromkeys(item.arrays))
    for row, (array, counts) in enumerate(zip(item.arrays, item.counts, strict=True)):
        seconds = item.start_seconds + (np.flatnonzero(counts) + 0.5) * item.bin_seconds
        x = np.stack([seconds, seconds, np.full(len(seconds), np.nan)], axis=1).ravel()
        y = np.tile([row - 0.4, row + 0.4, np.nan], len(seconds))
        axes.plot(x, y, color=SERIES[arrays.index(array) % len(SERIES)], linewidth=0.7, solid_capstyle="butt")
    middles = [float(np.mean([i for i, one in enumerate(item.arrays) if one == array])) for array in arrays]
    axes.set_yticks(middles, [label(array or "units", 14) for array in arrays])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(item.units) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def _name_trace(axes: Axes, name: str, unit: str) -> None:
    text = f"{label(name, 18)}\n({label(unit, 10)})" if unit else label(name, 18)
    axes.set_ylabel(text, rotation=0, ha="right", va="center")
    axes.margins(x=0)
    axes.yaxis.set_major_locator(_few_ticks())


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3, min_n_ticks=2)


def tokens(items: Sequence[TokenNumbers]) -> str:
    """Tokens per second of each dataset, by kind."""
    with house_style():
        figure = new_figure(1.05 + ROW_HEIGHT * len(items[:MOST_BARS]))
        axes = figure.subplots()
        shown = items[:MOST_BARS]
        begin = np.zeros(len(shown))
        for kind, colour in zip(KINDS, SERIES, strict=False):
            values = np.array([one.by_kind.get(kind, 0) / max(one.seconds, 1e-9) for one in shown])
            axes.barh(np.arange(len(shown)), values, left=begin, height=0.66, color=colour, label=kind)
            begin += values
        axes.set_yticks(range(len(shown)), [label(one.dataset) for one in shown])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.5, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_title("Tokens per second of recording, by kind")
        axes.set_xlabel("tokens per second")
        legend_above(axes, len(KINDS))
        return svg(figure, "tokens")


def training(run: SpikeTraining) -> str:
    """Both losses and the R2 of decoded behaviour over the steps of a run, the baselines as lines."""
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure = new_figure(2.9)
        panels = figure.subplots(1, 3)
        _curves(panels[0], run, lambda curve: curve.spike_loss, "Loss on spikes", "nats per channel and bin")
        _curves(panels[1], run, lambda curve: curve.covariate_loss, "Loss on behaviour", "squared error, normalised")
        _r2(panels[2], run)
        for axes in panels:
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        return svg(figure, "training")


def _curves(
    axes: Axes, run: SpikeTraining, of: Callable[[SpikeCurve], NDArray[np.float64]], title: str, unit: str
) -> None:
    axes.plot(run.train.steps, of(run.train), color=BLUE, marker=_marker(run.train), markersize=3, label="train")
    if run.validation is not None:
        held_out = run.validation
        axes.plot(held_out.steps, of(held_out), color=ORANGE, marker="D", markersize=4.5, label="validation")
    axes.set_title(title)
    axes.set_ylabel(unit)
    legend_above(axes, 2)


def _r2(axes: Axes, run: SpikeTraining) -> None:
    held_out = run.validation
    curve, name, colour = (held_out, "model, held out", ORANGE) if held_out is not None else (run.train, "train", BLUE)
    axes.plot(curve.steps, curve.r2, color=colour, marker="D", markersize=4.5, label=name, clip_on=True)
    for row in run.baselines:
        if row.r2 is not None:
            colour = BASELINES.get(row.name, VERMILION)
            axes.axhline(row.r2, color=colour, linestyle=DASHED, linewidth=1, label=label(row.name, 10))
    known = [float(v) for v in (*curve.r2, *(row.r2 for row in run.baselines if row.r2 is not None)) if np.isfinite(v)]
    low = min([0.0, *known])
    axes.set_ylim(max(LOWEST_R2, low * 1.1 - 0.03), 1.02)
    axes.set_title("Decoded behaviour")
    axes.set_ylabel("R²")
    legend_above(axes, 3)


def decoded(item: Decoded) -> str:
    """Draw the decoded behaviour over the true one."""
    shown = min(len(item.covariates), MOST_TRACES)
    seconds = item.start_seconds + (np.arange(item.true.shape[1]) + 0.5) * item.bin_seconds
    with house_style():
        figure = new_figure(0.8 + 1.15 * shown)
        panels = figure.subplots(shown, 1, sharex=True, squeeze=False).ravel()
        for axes, name, unit, true, guess in zip(
            panels, item.covariates, item.units, item.true, item.decoded, strict=False
        ):
            axes.plot(seconds, true, color=INK, linewidth=0.9, label="true")
            axes.plot(seconds, guess, color=VERMILION, linewidth=1.1, label="decoded")
            _name_trace(axes, name, unit)
            score = r2(true, guess)
            text = "R² -" if score is None else f"R² {score:.2f}"
            axes.text(1.008, 0.5, text, transform=axes.transAxes, va="center", fontsize=7.5)
        panels[0].set_title(label(item.recording, 90))
        legend_above(panels[0], 2)
        panels[-1].set_xlabel("time (s)")
        return svg(figure, "decoded")


def r2(true: NDArray[np.float32], guess: NDArray[np.float32]) -> float | None:
    """R2 of float32 [bin] over the bins that have both; None where nothing varies."""
    both = np.isfinite(true) & np.isfinite(guess)
    values, error = true[both].astype(np.float64), (true[both] - guess[both]).astype(np.float64)
    total = float(np.sum((values - values.mean()) ** 2)) if len(values) else 0.0
    return 1 - float(np.sum(error**2)) / total if total > 0 else None


def _marker(curve: SpikeCurve) -> str:
    few = 40
    return "o" if len(curve.steps) <= few else ""
