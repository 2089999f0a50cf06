"""What a layout refuses when it is written, so that no recording fails for it."""

from typing import Any

import pytest
from pydantic import ValidationError

from neuromill.records import SpikeLayout

TWICE = {"path": "processing/behavior/cursor"}


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"covariates": [{"path": "a", "factor": 0}]}, "factor"),
        ({"covariates": [{"path": "a", "factor": float("inf")}]}, "factor"),
        ({"covariates": [{"path": "a", "factor": float("nan")}]}, "factor"),
        ({"covariates": [{"path": "a", "axes": ["x", "x"]}]}, "more than once"),
        ({"covariates": [{"path": "a", "columns": [1, 1]}]}, "more than once"),
        ({"covariates": [{"path": "a", "columns": [-1]}]}, "columns"),
        ({"covariates": [TWICE, {"path": "/processing/behavior/cursor/"}]}, "declared twice"),
        ({"covariates": [TWICE | {"name": "c"}, TWICE | {"name": "c", "derivative": "after"}]}, "declared twice"),
        ({"units": {"drop_rows": [-1]}}, "drop_rows"),
        ({"block_gap_seconds": float("inf")}, "block_gap_seconds"),
        ({"block_gap_seconds": float("nan")}, "block_gap_seconds"),
        ({"block_gap_seconds": 0}, "block_gap_seconds"),
    ],
)
def test_refused(layout: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SpikeLayout.model_validate(layout)


def test_taken() -> None:
    named = [TWICE | {"name": "position"}, TWICE | {"name": "velocity", "derivative": "after", "factor": -1}]
    layout = SpikeLayout.model_validate({"covariates": named, "units": {"drop_rows": [0, 3]}})
    assert [one.name for one in layout.covariates if one != "auto"] == ["position", "velocity"]
    assert SpikeLayout().digest == SpikeLayout.model_validate({}).digest
