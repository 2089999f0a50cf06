"""The page of a spike pipeline: what it says, what it leaves out, and that its pictures are the same everywhere."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import matplotlib as mpl
import numpy as np
import pytest

from neuromill.reports import spike_pictures
from neuromill.reports.page import render
from neuromill.reports.parts import without_dataset
from support.spike_report_contents import (
    decoded,
    empty_spikes,
    full_spikes,
    hostile_spikes,
    recording,
    spikes,
    training,
)

from .test_page import Page

CASES = {"full": full_spikes(), "hostile": hostile_spikes(), "empty": empty_spikes()}


@cache
def rendered(case: str) -> str:
    return render(CASES[case])


@pytest.mark.parametrize(
    "words",
    [
        "000129 train 1 8.0 min 0",
        "000129 validation 1 2.0 min 0",
        "good units 96",
        "R² held out 0.438",
        "R² ridge 0.375",
        "sub-Indy_ses-1 98 2 non_finite M1 96, unnamed 2 10.0 min 87.5% cursor_vel_x 120 90",
        "sub-Indy_ses-1 123,456 7 0",
        "two units were sorted 2 000129@1/sub-Indy_ses-1",
        "1 good unit without a spike",
        "10.0 s of the validation split, in bins of 20 ms",
        "000129 1 1.0 min 30 300 100 4 2 406",
        "000129 no unit fired 10 25.0%",
        "finished at step 200",
        "cursor_vel_x 0.438 0.375",
        "sub-Indy_ses-1 0.250 -",
        "R² test 0.312",
        "covariate R² test, model R² test, ridge cursor_vel_x 0.312 0.281",
        "recording R² test, model R² test, ridge sub-Indy_ses-1 0.188 -",
        "The test split was scored once, when the run ended.",
        "Ridge has seen a part of 1 held-out session",
        "20.0 s of the validation split, in chunks of 2 s",
        "tokens bb",
    ],
)
def test_says(words: str) -> None:
    assert words in Page(rendered("full")).text


@pytest.mark.parametrize("case", CASES)
def test_is_whole_and_loads_nothing(case: str) -> None:
    text = rendered(case)
    page = Page(text)
    assert page.open == []
    assert "://" not in text
    assert not {"script", "img", "image", "iframe", "foreignobject"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert not re.search("[\x07\u202e]", text)


def test_no_section_of_signals() -> None:
    assert not re.search('id="(spectra|sensors|codebooks|example)"', rendered("full"))


@pytest.mark.parametrize(
    ("section", "command"),
    [
        ("prepared", "prepare"),
        ("rates", "prepare"),
        ("activity", "prepare"),
        ("tokens", "tokenize"),
        ("training", "train"),
        ("decoded", "train"),
    ],
)
def test_missing_parts_name_their_command(section: str, command: str) -> None:
    text = rendered("empty")
    part = text[text.index(f'<section id="{section}">') :]
    part = part[: part.index("</section>")]
    assert f"<code>neuromill {command} ndt3</code>" in part
    assert "<svg" not in part


def test_a_trained_model_with_nothing_to_decode() -> None:
    bare = replace(full_spikes(), spikes=replace(spikes(), decoded=None))
    assert "No tokenized recording has a covariate" in Page(render(bare)).text


PICTURES: dict[str, Callable[[], str]] = {
    "splits": lambda: spike_pictures.splits_over_time([recording()]),
    "rates": lambda: spike_pictures.rates(spikes().rates),
    "activity": lambda: spike_pictures.activity(spikes().activity),
    "activity-alone": lambda: spike_pictures.activity(
        replace(spikes().activity, covariates=(), covariate_units=(), values=np.empty((0, 500), np.float32))
    ),
    "tokens": lambda: spike_pictures.tokens(spikes().tokens),
    "training": lambda: spike_pictures.training(training()),
    "training-all": lambda: spike_pictures.training(training(held_out=False)),
    "decoded": lambda: spike_pictures.decoded(decoded()),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_same_bytes_whatever_the_reader_has_set(draw: Callable[[], str]) -> None:
    before = draw()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw() == before
    assert before.startswith("<svg ")
    assert "nan" not in before.lower()
    assert "$" not in before  # no markup of formulas


def test_r2_of_the_bins_that_have_both() -> None:
    item = decoded()
    true, guess = item.true[0, 100:].astype(float), item.decoded[0, 100:].astype(float)
    expected = 1 - ((true - guess) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert spike_pictures.r2(item.true[0], item.decoded[0]) == pytest.approx(expected)
    assert spike_pictures.r2(item.true[2], item.decoded[2]) is None
    text = spike_pictures.decoded(item)
    assert f"R² {expected:.2f}" in text
    assert "R² -<" in text


def test_long_lists_are_cut_and_say_so() -> None:
    many = tuple(recording(f"000129@1/sub-{i:03}") for i in range(45))
    text = Page(render(replace(full_spikes(), spikes=replace(spikes(), recordings=many)))).text
    assert "first 30 of 45 recordings" in text
    assert "5 more rows are left out." in text
    assert "sub-039 98" in text
    assert "sub-040 98" not in text


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["d@1/a", "d@1/b"], ["a", "b"]),
        (["d@1/a", "e@1/a"], ["d@1/a", "e@1/a"]),
        (["a"], ["a"]),
        ([], []),
    ],
)
def test_datasets_that_all_share_are_not_repeated(names: list[str], shown: list[str]) -> None:
    assert list(without_dataset(names).values()) == shown


def test_the_page_says_of_which_step_the_model_is() -> None:
    run = replace(training(), best_step=1200)
    text = Page(render(replace(full_spikes(), spikes=replace(spikes(), training=run)))).text
    assert "The model is that of step 1,200, its best validation." in text
    assert "best validation" not in Page(rendered("full")).text


def test_without_a_test_split_the_page_speaks_of_none() -> None:
    run = replace(training(), test=None, test_baselines=())
    text = Page(render(replace(full_spikes(), spikes=replace(spikes(), training=run)))).text
    assert "R² held out 0.438" in text
    assert "R² test" not in text
    assert "test split" not in text
