"""The picture of a comparison of tokenizers: rate against quality, errors by band, one window through all of them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.reports.style import INK, QUIET, SERIES, house_style, label, new_figure, printable, svg
from neuromill.reports.writing import replace_whole, write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MARKERS = "oDs^vP"
PNG_DPI = 160
FLOOR = 1e-6
"""Errors are drawn down to here."""


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """One tokenizer.

    Attributes
    ----------
    bits, entropy_bits
        Per second and channel.
    band_error
        By band, in the order of ``ComparisonContents.bands``: share of the power that is wrong.
    reconstruction
        float64 [time], of the window shown.
    """

    name: str
    bits: float
    entropy_bits: float
    correlation: float
    si_sdr_db: float
    band_error: tuple[float, ...]
    reconstruction: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonContents:
    """What the picture and its page show.

    Attributes
    ----------
    caption
        A sentence on what was compared.
    bands
        Name of each band with its edges, low to high.
    seconds, original
        float64 [time]: the window shown, in standard deviations.
    shown
        Which recording and channel that is.
    columns, rows
        The table of the page, as texts.
    """

    title: str
    caption: str
    bands: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    seconds: NDArray[np.float64]
    original: NDArray[np.float64]
    shown: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison_svg(contents: ComparisonContents) -> str:
    """One ``<svg>`` element; the same contents give the same bytes."""
    with house_style():
        return svg(_figure(contents), "comparison")


def write_comparison_png(contents: ComparisonContents, path: Path) -> None:
    """Write the picture as PNG; a file that is there is replaced whole."""
    with house_style():
        figure = _figure(contents)
        replace_whole(path, lambda new: figure.savefig(new, format="png", dpi=PNG_DPI, metadata={"Software": None}))


def render_comparison(contents: ComparisonContents) -> str:
    """One HTML page with table and picture, nothing loaded from elsewhere. Names are escaped."""
    head = "".join(f"<th>{_text(name)}</th>" for name in contents.columns)
    body = "\n".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in contents.rows)
    return _PAGE.format(
        title=_text(contents.title),
        caption=_text(contents.caption),
        head=head,
        body=body,
        picture=comparison_svg(contents),
    )


def write_comparison_page(contents: ComparisonContents, path: Path) -> None:
    """Write the page; one that is there is replaced whole."""
    write_page(render_comparison(contents), path)


def _text(value: str) -> str:
    return html.escape(printable(value))


def _figure(contents: ComparisonContents) -> Figure:
    n = len(contents.contestants)
    figure = new_figure(3.1 + 0.85 * n)
    above, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[2.9, 0.2 + 0.85 * n]), object))
    left, right = above.subplots(1, 2)
    _rates(left, contents.contestants)
    _errors(right, contents)
    panels = below.subplots(n, 1, sharex=True, squeeze=False).ravel()
    _traces(panels, contents)
    return figure


def _rates(axes: Axes, contestants: Sequence[Contestant]) -> None:
    """Quality over rate: filled is the rate of the codes as they are, hollow what their entropy needs."""
    for number, one in enumerate(contestants):
        colour, marker = _look(number)
        axes.plot([one.entropy_bits, one.bits], [one.si_sdr_db] * 2, color=colour, linewidth=1, alpha=0.6)
        axes.plot(one.entropy_bits, one.si_sdr_db, marker, color=colour, fillstyle="none", markersize=6)
        axes.plot(one.bits, one.si_sdr_db, marker, color=colour, markersize=6, label=label(one.name, 26))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12, y=0.15)
    axes.set_title("Rate and quality (hollow: entropy of the codes)")
    axes.set_xlabel("bit/s per channel")
    axes.set_ylabel("SI-SDR (dB)")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")


def _errors(axes: Axes, contents: ComparisonContents) -> None:
    places = np.arange(len(contents.bands))
    for number, one in enumerate(contents.contestants):
        colour, marker = _look(number)
        axes.plot(places, np.maximum(one.band_error, FLOOR), marker=marker, color=colour, markersize=5)
    axes.axhline(1.0, color=QUIET, linestyle=(0, (4, 2)), linewidth=1)
    axes.annotate(
        "as good as silence", (0.01, 1.0), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", color=QUIET, fontsize=7,
    )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(places, [label(name).replace(" ", "\n", 1) for name in contents.bands])
    axes.set_title("Share of the power of a band that is wrong")
    axes.grid(visible=False, axis="x")


def _traces(panels: NDArray[np.object_], contents: ComparisonContents) -> None:
    reach = 1.1 * max(float(np.abs(contents.original).max(initial=1.0)), 1.0)
    for number, (axes, one) in enumerate(zip(panels, contents.contestants, strict=True)):
        axes.plot(contents.seconds, contents.original, color=INK, linewidth=0.8, label="original")
        axes.plot(contents.seconds, one.reconstruction, color=_look(number)[0], linewidth=1.1)
        axes.set_ylim(-reach, reach)
        axes.margins(x=0)
        axes.set_ylabel(label(one.name, 18), rotation=0, ha="right", va="center", fontsize=7)
        axes.text(1.008, 0.5, f"r = {_correlation(contents.original, one.reconstruction):.2f}",
                  transform=axes.transAxes, va="center", fontsize=7.5)  # fmt: skip
    panels[0].set_title(f"{label(contents.shown, 90)} (black: original)")
    panels[-1].set_xlabel("time (s); amplitudes in standard deviations of the window")


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if not (np.std(a) > 0 and np.std(b) > 0):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _look(number: int) -> tuple[str, str]:
    return SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 64rem; padding: 2rem 1.5rem; color: #222; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6rem; border-bottom: 3px solid #0072b2; padding-bottom: .5rem; }}
table {{ border-collapse: collapse; font-size: .82rem; display: block; overflow-x: auto; }}
th, td {{ text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #dcdcdc; white-space: nowrap; }}
th {{ color: #5f5f5f; font-weight: 600; }}
figure {{ margin: 1.2rem 0 0; }} figure svg {{ display: block; width: 100%; height: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{caption}</p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<figure>{picture}</figure>
</body>
</html>
"""
