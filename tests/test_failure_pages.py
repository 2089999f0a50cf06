"""Every failure code has its page in docs/failures, and every page its code."""

import re
from pathlib import Path

import pytest

from neuromill.records import FailureCode

PAGES = Path(__file__).parents[1] / "docs" / "failures"


def test_no_page_without_code_and_no_code_without_page() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} - {"index"} == {str(code) for code in FailureCode}


@pytest.mark.parametrize("code", FailureCode)
def test_page_says_what_it_means_and_what_to_do(code: FailureCode) -> None:
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {code}\n")
    assert re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE) == ["Usual causes.", "What to do.", "Retried?"]
    assert re.search(r"^\*\*Retried\?\*\* Yes:" if code.transient else r"^\*\*Retried\?\*\* No:", text, re.MULTILINE)


def test_index_lists_every_code_with_its_retry() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| .+ \| (yes|no) \|$", (PAGES / "index.md").read_text(), re.MULTILINE
    )
    assert {(name, page, retried) for name, page, retried in rows} == {
        (str(code), str(code), "yes" if code.transient else "no") for code in FailureCode
    }
