"""Pictures are SVG that is the same everywhere, and leave nothing behind."""

from collections.abc import Callable
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from neuromill.reports import pictures
from neuromill.reports.contents import RecordingFacts
from neuromill.reports.style import label
from support.report_contents import HOSTILE, example, full, sensors, spectrum, tokenizer, training, usage

PICTURES: dict[str, Callable[[], str]] = {
    "overview": lambda: pictures.overview(full().recordings, full().stages),
    "spectra": lambda: pictures.spectra(full().spectra),
    "sensors": lambda: pictures.sensor_maps([sensors()]),
    "codebooks": lambda: pictures.codebooks(tokenizer(), usage()),
    "codebooks-before-tokenize": lambda: pictures.codebooks(tokenizer(), None),
    "codebooks-published": lambda: pictures.codebooks(replace(tokenizer(), levels=()), usage()),
    "traces": lambda: pictures.traces(example()),
    "training": lambda: pictures.training(training()),
    "training-all": lambda: pictures.training(training(held_out=False)),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_same_bytes_whatever_the_reader_has_set(draw: Callable[[], str]) -> None:
    before = draw()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "figure.dpi": 17}):
        settings = dict(mpl.rcParams)
        assert draw() == before
        assert dict(mpl.rcParams) == settings
    assert before.startswith("<svg ")
    assert before.endswith("</svg>\n")
    assert "NaN" not in before
    assert "nan" not in before
    assert "$" not in before  # no markup of formulas
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("line", "words"), [(20.0, "mains 20 Hz"), (60.0, "mains 60 Hz is above this band"), (None, "")]
)
def test_line_frequency_is_marked(line: float | None, words: str) -> None:
    text = pictures.spectra([spectrum(line_freq=line)])
    assert (f">{words}</text>" in text) if words else ("mains" not in text)


def test_traces_say_how_alike_they_are() -> None:
    item = example()
    back = item.original * 0.5
    back[1] = np.random.default_rng(0).standard_normal(back.shape[1])
    r = np.corrcoef(item.original[1], back[1])[0, 1]
    text = pictures.traces(replace(item, reconstruction=back))
    assert "r = 1.00" in text
    assert f"r = {r:.2f}" in text.replace("\N{MINUS SIGN}", "-")


def test_many_datasets_are_cut() -> None:
    recordings = [RecordingFacts(f"r{i}", f"ds{i:03}", "train", float(i + 1)) for i in range(40)]
    text = pictures.overview(recordings, full().stages)
    assert "longest 30 of 40 datasets" in text
    assert "ds039" in text
    assert "ds000" not in text


@pytest.mark.parametrize(
    ("seconds", "unit"), [(4000.0, "hours"), (90.0, "minutes"), (2.0, "seconds"), (None, "recordings")]
)
def test_lengths_in_a_unit_that_fits(seconds: float | None, unit: str) -> None:
    text = pictures.overview([RecordingFacts("r", "ds", "train", seconds)] * 2, ())
    assert f">{unit}</text>" in text
    assert ("Length by split" in text) == (seconds is not None)


def test_sensors_without_any_known_level() -> None:
    item = sensors()
    silent = replace(item, rms=np.full(5, np.nan), bads=("flat",) * 5)
    assert "5 channels, 5 bad" in pictures.sensor_maps([silent])


@pytest.mark.parametrize("text", [HOSTILE, "a\nb", "x" * 400])
def test_labels_are_one_short_line(text: str) -> None:
    short = label(text)
    assert len(short) <= 40
    assert short.isprintable()
