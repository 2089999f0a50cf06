"""The page: what it says, what it leaves out, and what it never does."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from neuromill.reports.page import MOST_FAILURES, render
from neuromill.reports.parts import duration
from support.report_contents import empty, full, hostile, tokenizer, usage

CASES = {"full": full(), "hostile": hostile(), "empty": empty()}


@cache
def rendered(case: str) -> str:
    return render(CASES[case])


class Page(HTMLParser):
    """Elements, attributes and texts, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(rendered("full"))


@pytest.mark.parametrize(
    "words",
    [
        "A title",
        "Pipeline meg-xl , report by NeuroMill 1.2.3",
        "recordings 3",
        "length 2.0 h",
        "failed recordings 1",
        "codes 224",
        "reconstruction r 0.812",
        "validation accuracy 15.00 %",
        "group model 0.812 0.625 0.938 0.750 group random weights 0.562 0.125 - 0.500 group chance 0.500 0.000 0.500 -",
        "group linear ill 18, well 1,800 6 3 folds over subjects 36 /runs/x/model",
        "ds1 train 1 1.5 h 0",
        "ds1 validation 1 30.0 min 0",
        "ds2 test 1 unknown 1",
        "prepare truncated 1",
        "ds2@1/sub-01_meg truncated the file ends early fetch it again",
        "sub-01_meg A2 flat",
        "SI-SDR 6.5 dB",
        "squared error, normalised 0.2500",
        "squared error of predicting the mean 0.5625",
        "codes per frame 2, each one of 32",
        "0 20.2 16.0 50.0% 6.2%",
        "1 3.5 1.0 3.1% 100.0%",
        "112 frames of good channels, 3 recordings",
        "10.0 s of a recording of the validation split, encoded and decoded",
        "finished at step 20",
        "0 20.00% 6.25% 3.12%",
        "1 10.00% 100.00% 3.12%",
        "prepared signals aa",
    ],
)
def test_says(page: Page, words: str) -> None:
    assert words in page.text


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("svg") == 6


def test_same_contents_same_bytes() -> None:
    assert render(full()) == rendered("full")


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_loaded_and_nothing_runs(case: str) -> None:
    text = rendered(case)
    page = Page(text)
    assert "://" not in text
    assert not {"script", "link", "img", "image", "iframe", "object", "embed", "foreignobject"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "data", "action"}]
    assert all(value.startswith("#") for value in links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("case", ["full", "hostile"])
def test_ids_are_unique_and_references_are_met(case: str) -> None:
    text = rendered(case)
    ids = [value for name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used
    assert used <= set(ids)


def test_hostile_names_are_text() -> None:
    text = rendered("hostile")
    page = Page(text)
    assert page.open == []
    assert "<script" not in text
    assert "<script>alert('x')</script>" in page.text  # shown, as text
    assert not re.search("[\x07\u202e]", text)  # nothing turns the direction of our own words
    assert set(page.tags) == set(Page(rendered("full")).tags)


def test_is_light() -> None:
    assert len(rendered("full").encode()) < 400_000


@pytest.mark.parametrize(
    ("section", "command"),
    [
        ("spectra", "neuromill prepare meg-xl"),
        ("sensors", "neuromill prepare meg-xl"),
        ("tokenizer", "neuromill tokenizer fit meg-xl"),
        ("codebooks", "neuromill tokenize meg-xl"),
        ("example", "neuromill tokenizer fit meg-xl"),
        ("training", "neuromill train meg-xl"),
    ],
)
def test_missing_parts_name_their_command(section: str, command: str) -> None:
    text = rendered("empty")
    part = text[text.index(f'<section id="{section}">') :]
    part = part[: part.index("</section>")]
    assert f"<code>{command}</code>" in part
    assert "<svg" not in part


def test_a_command_can_be_pasted() -> None:
    own = replace(empty(), own_folder=True)
    assert own.command("fit") == "neuromill tokenizer fit meg-xl --data FOLDER"
    contents = replace(empty(), pipeline="x; rm -rf ~")
    assert contents.command("train") == "neuromill train 'x; rm -rf ~'"


def test_long_lists_are_cut_and_say_so() -> None:
    text = Page(render(replace(empty(), failures=full().failures * (MOST_FAILURES + 5)))).text
    assert "5 more failures: `neuromill status --failures` lists them all." in text
    assert text.count("the file ends early") == MOST_FAILURES


def test_published_tokenizer_without_measurements() -> None:
    bare = replace(tokenizer(), correlation=None, si_sdr_db=None, mse=None, baseline_mse=None, levels=())
    page = Page(render(replace(empty(), tokenizer=bare, usage=usage())))
    assert "reconstruction r" not in page.text
    assert "correlation with the original -" in page.text
    assert "0 - 16.0 50.0% 6.2%" in page.text


def test_codebooks_before_anything_is_tokenized() -> None:
    text = Page(render(replace(empty(), tokenizer=tokenizer()))).text
    assert "codes used, gate" in text
    assert "0 20.2 - 75.0% 20.0%" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1.0 min"), (3600, "1.0 h"), (36e6, "10,000.0 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
