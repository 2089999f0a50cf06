"""The table of expected outcomes, as rows."""

import csv
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "expected_outcomes.tsv"
TOKENS = "tokens"


@dataclass(frozen=True)
class Expected:
    """One recording (or damaged case) of the test data and what must become of it."""

    path: str
    modality: str
    outcome: str
    reason: str


def expected_outcomes() -> tuple[Expected, ...]:
    """All rows, in file order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(Expected(**row) for row in csv.DictReader(file, delimiter="\t"))
