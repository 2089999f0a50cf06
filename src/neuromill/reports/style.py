"""How every picture looks, and how a figure becomes SVG whose bytes depend on nothing but the figure."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every common colour vision.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, QUIET, GRID = "#222222", "#767676", "#E4E4E4"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)
SPLITS = {"train": BLUE, "validation": ORANGE, "test": GREEN}
STATES = {"done": BLUE, "failed": VERMILION, "waiting": "#C4C4C4"}
WIDTH = 9.0
"""Of every figure, inches."""
MAX_LABEL = 40

_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the layout is the same on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a channel may be called "$\\frac{"
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with our settings, whatever the user's own matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # Only its width is guessed with another glyph; the page's own fonts draw the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]  # a plain dict; its keys are literals in the stubs
        yield


def new_figure(height: float) -> Figure:
    """Return a figure that pyplot does not know, so there is nothing to close."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height))


def legend_above(axes: Axes, columns: int) -> None:
    """Put the legend between title and axes, where it hides no data."""
    axes.set_title(axes.get_title(loc="left"), pad=19)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.995), ncols=columns, borderaxespad=0.3, columnspacing=1.2)


def printable(text: str) -> str:
    """Replace what is neither a character to see nor a blank: controls, line breaks, changes of writing direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def label(text: str, most: int = MAX_LABEL) -> str:
    """Return a foreign name for a picture: one line, no control characters, not longer than there is room."""
    clean = printable(text)
    return clean if len(clean) <= most else f"{clean[: most - 9]}…{clean[-8:]}"


def svg(figure: Figure, name: str) -> str:
    """Write a figure as an ``<svg>`` element for a page; ids start with ``name``, so pictures do not share any."""
    import matplotlib as mpl

    buffer = io.StringIO()
    mpl.rcParams["svg.hashsalt"] = name
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return _tidy(text[text.index("<svg") :].strip(), name)


_REFERENCE = r'(?:href="#|url\(#)([^")]+)'


def _tidy(text: str, name: str) -> str:
    """Round coordinates to a hundredth of a point, number the ids that are used, drop what HTML does not need.

    Matplotlib's own ids are hashes of coordinates to the last bit, which the layout's solver does not always hit alike.
    """
    used = {old: str(number) for number, old in enumerate(dict.fromkeys(re.findall(_REFERENCE, text)))}

    def one_tag(match: re.Match[str]) -> str:
        tag = (
            re.sub(r' (?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", match[0])
            if _is_root(match[0])
            else match[0]
        )
        tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{used[m[1]]}"' if m[1] in used else "", tag)
        tag = re.sub(_REFERENCE, lambda m: m[0].replace(m[1], f"{name}-{used[m[1]]}"), tag)
        return re.sub(r'(?<= )(d|x|y|width|height|transform|points)="[^"]*"', _rounded, tag)

    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"<[^!][^>]*>", one_tag, text) + "\n"  # ">" in texts is escaped: tags are all that match


def _is_root(tag: str) -> bool:
    return tag.startswith("<svg")


def _rounded(match: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[0])
