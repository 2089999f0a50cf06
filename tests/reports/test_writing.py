"""Files of reports: what is there stays until the new one is whole."""

from pathlib import Path

import pytest

from neuromill.reports.writing import replace_whole, write_page


def write_half(path: Path) -> None:
    path.write_text("<ht")
    raise OSError("disk full")


def test_a_page_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert write_page("first\n", page) == page
    with pytest.raises(OSError, match="disk full"):
        replace_whole(page, write_half)
    assert page.read_bytes() == b"first\n"
    write_page("µ\n", page)
    assert page.read_bytes() == "µ\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
