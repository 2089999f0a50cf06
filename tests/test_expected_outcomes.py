"""The table of expected outcomes names every recording of the test data, and only outcomes that exist."""

import csv
import re
from pathlib import Path

import pytest

from neuromill.records import FailureCode
from support.outcomes import TOKENS, expected_outcomes

SIGNAL_NAME = re.compile(r"(_(meg|eeg|ieeg)\.(fif|ds|sqd|con|edf|bdf|vhdr|set)|\.nwb)$")
PLAIN_NAME = re.compile(r"(?i)(\.(edf|bdf|vhdr|set)|_pdf_linux)$")
ROWS = expected_outcomes()


def test_every_outcome_is_tokens_or_a_failure_code() -> None:
    assert {row.outcome for row in ROWS} <= {TOKENS, *map(str, FailureCode)}
    assert {row.modality for row in ROWS} == {"meg", "eeg", "ieeg", "spikes"}


def test_every_row_is_there_once_and_says_why() -> None:
    assert len({row.path for row in ROWS}) == len(ROWS)
    assert all(row.reason for row in ROWS)


@pytest.mark.data
def test_the_table_covers_exactly_the_recordings_of_the_test_data(data: Path) -> None:
    with (data / "malformed" / "cases.tsv").open(encoding="utf-8", newline="") as file:
        recordings = {f"malformed/{case['path']}" for case in csv.DictReader(file, delimiter="\t")}
    for folder, name in (("bids", SIGNAL_NAME), ("dandi", SIGNAL_NAME), ("nwb", SIGNAL_NAME), ("raw", PLAIN_NAME)):
        paths = (path.relative_to(data) for path in (data / folder).rglob("*"))
        recordings |= {p.as_posix() for p in paths if name.search(p.name) and "derivatives" not in p.parts}
    assert {row.path for row in ROWS} == recordings
    assert len(ROWS) == 131  # 102 damaged cases and 29 real recordings
