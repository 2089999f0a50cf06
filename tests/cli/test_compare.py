"""``neuromill tokenizer compare`` as a user types it."""

from pathlib import Path

from support.command import neuromill

from .conftest import Walked


def test_one_table_for_all(walked: Walked) -> None:
    ended = neuromill(
        "tokenizer",
        "compare",
        *walked.chosen,
        "--with",
        "mu_law",
        "--with",
        "quantile",
        "--n-windows",
        2,
        "--seconds",
        4,
    )
    assert (ended.code, ended.err) == (0, "")
    header, _, *rows = ended.out.splitlines()
    for column in ("tokenizer", "bit/s/ch", "entropy", "corr", "SI-SDR", "delta err", "perplexity", "used %"):
        assert column in header
    assert [row.split()[0] for row in rows[:3]] == ["tiny", "mu_law", "quantile"]
    assert "measured on this machine" in ended.out
    assert "none of them held out" in ended.out


def test_json_and_pictures(walked: Walked, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    ended = neuromill(
        "tokenizer", "compare", *walked.chosen, "--with", "mu_law", "--n-windows", 1, "--seconds", 4,
        "--json", "--html", page, "--png", picture,
    )  # fmt: skip
    assert ended.code == 0, ended
    assert ended.document["n_windows"] == 1
    assert [one["kind"] for one in ended.document["tokenizers"]] == ["biocodec", "mu_law"]
    assert ended.document["tokenizers"][1]["bits_per_second_per_channel"] == 400
    assert "<svg" in page.read_text(encoding="utf-8")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_done_is_said_before_anything_is(walked: Walked, tmp_path: Path) -> None:
    compare = ("tokenizer", "compare", *walked.chosen, "--seconds", 4)
    cases = (
        ((*compare, "--with", "nosuch"), "no tokenizer folder [nosuch]"),
        ((*compare, "--png", tmp_path / "no" / "a.png"), "not a file in a folder that is there"),
        ((*compare, "--html", tmp_path), "not a file in a folder that is there"),
        (("tokenizer", "compare", "--home", walked.home), "nothing to compare"),
        (("tokenizer", "compare", walked.pipeline, "--home", tmp_path / "nohome"), "there is no such home"),
    )
    for arguments, words in cases:
        ended = neuromill(*arguments)
        assert (ended.code, ended.out) == (2, ""), ended
        assert words in ended.err
    assert not list(tmp_path.iterdir())
