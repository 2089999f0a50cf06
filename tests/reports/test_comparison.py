"""The picture of a comparison: drawn from plain contents, the same each time, with foreign names shown as text."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from neuromill.reports.comparison import (
    ComparisonContents,
    Contestant,
    comparison_svg,
    render_comparison,
    write_comparison_page,
    write_comparison_png,
)

HOSTILE = "<script>alert(1)</script>\x1b[2J"


def contents(n: int = 3) -> ComparisonContents:
    rng = np.random.default_rng(0)
    original = rng.standard_normal(300)
    contestants = tuple(
        Contestant(f"codec {i}", 14.0 * 10**i, 12.0 * 10**i, 0.5, 3.0 * i - 5, (0.9, 0.1), original * 0.8)
        for i in range(n)
    )
    return ComparisonContents(
        title="Tokenizers compared", caption="Two windows.", bands=("delta 0.5-4 Hz", "alpha 8-13 Hz"),
        contestants=contestants, seconds=np.arange(300) / 100, original=original, shown="sub-01, Cz",
        columns=("tokenizer", "corr"), rows=tuple((one.name, "0.5") for one in contestants),
    )  # fmt: skip


def test_the_picture_is_well_formed_and_always_the_same() -> None:
    drawn = comparison_svg(contents())
    assert drawn == comparison_svg(contents())
    ET.fromstring(drawn.replace("xlink:href", "href"))
    for word in ("codec 2", "SI-SDR", "alpha", "sub-01, Cz"):
        assert word in drawn


def test_any_number_of_tokenizers_and_reconstructions_of_nothing() -> None:
    for n in (1, 8):
        assert f"codec {n - 1}" in comparison_svg(contents(n))
    one = contents(1)
    silent = replace(one.contestants[0], reconstruction=np.zeros(300), band_error=(1.0, 0.0))
    assert "r = 0.00" in comparison_svg(replace(one, contestants=(silent,)))


def test_names_are_text_in_the_page() -> None:
    one = contents(1)
    named = replace(one, shown=HOSTILE, title=HOSTILE, rows=((HOSTILE, "1"),))
    page = render_comparison(named)
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "http:" not in page.replace("http://www.w3.org", "")


def test_files(tmp_path: Path) -> None:
    page, picture = tmp_path / "a.html", tmp_path / "a.png"
    for _ in range(2):  # the second replaces the first
        write_comparison_page(contents(), page)
        write_comparison_png(contents(), picture)
    assert page.read_text(encoding="utf-8") == render_comparison(contents())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.png"]
