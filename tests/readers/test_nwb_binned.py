"""Files that hold counts or a raster in place of spike times."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromill.records import RecordingError
from support.nwb import Nodes, open_nodes

PATH = "acquisition/binned_spikes"
COUNTS = np.random.default_rng(1).poisson(0.5, (500, 6))
STAMPS = 0.02 * np.arange(1, 501)
LAYOUT = {"units": {"path": PATH, "kind": "counts", "bin_edge": "end"}, "covariates": [], "trials": None}


def opened(folder: Path, counts: Any = COUNTS, stamps: Any = STAMPS, **units: Any):
    nodes = Nodes().series(PATH, counts, stamps)
    return open_nodes(nodes, folder, LAYOUT | {"units": {**LAYOUT["units"], **units}})


def test_counts_as_they_are(tmp_path: Path) -> None:
    for counts in (COUNTS, COUNTS.astype(float), COUNTS.astype(np.int8)):
        with opened(tmp_path, counts) as recording:
            assert recording.binned is not None
            assert recording.binned.counts.dtype == np.uint8
            np.testing.assert_array_equal(recording.binned.counts, COUNTS)
            assert recording.binned.width_seconds == 0.02
            assert recording.binned.bin_edge == "end"
            np.testing.assert_allclose(recording.observation.intervals, [[0, 10]], atol=1e-12)
            assert recording.units.names == ("0", "1", "2", "3", "4", "5")
            assert recording.spike_times(0).size == 0


def test_wide_counts_and_dropped_columns(tmp_path: Path) -> None:
    counts = COUNTS.copy()
    counts[400, 2] = 300
    with opened(tmp_path, counts, drop_rows=(0,), bin_edge="start") as recording:
        assert recording.binned.counts.dtype == np.uint16
        np.testing.assert_array_equal(recording.binned.counts, counts[:, 1:])
        np.testing.assert_allclose(recording.observation.intervals, [[0.02, 10.02]], atol=1e-12)


def test_columns_that_are_no_counts_are_masked(tmp_path: Path) -> None:
    counts = COUNTS.astype(float)
    counts[3, 1], counts[499, 2], counts[0, 4] = np.nan, -1, 0.5
    with opened(tmp_path, counts) as recording:
        assert recording.units.bads == ("", "non_finite", "not_counts", "", "not_counts", "")
        good = [0, 3, 5]
        np.testing.assert_array_equal(recording.binned.counts[:, good], COUNTS[:, good])
        assert not recording.binned.counts[:, [1, 2, 4]].any()


def test_holes_end_what_was_observed(tmp_path: Path) -> None:
    stamps = np.concatenate([STAMPS[:200], STAMPS[200:] + 1])
    with opened(tmp_path, stamps=stamps) as recording:
        np.testing.assert_allclose(recording.observation.intervals, [[0, 4], [5, 11]], atol=1e-9)


def test_a_clock_that_was_reset(tmp_path: Path) -> None:
    stamps = np.concatenate([STAMPS[:200], STAMPS[:300]])
    with pytest.raises(RecordingError) as caught:
        opened(tmp_path, stamps=stamps)
    assert caught.value.code == "bad_timestamps"
    nodes = Nodes().series(PATH, COUNTS, stamps)
    with open_nodes(nodes, tmp_path, LAYOUT | {"restarts": "blocks"}) as recording:
        np.testing.assert_allclose(recording.observation.intervals, [[0, 4], [63.98, 69.98]], atol=1e-9)
        assert recording.observation.joins == pytest.approx((34.0,))
        assert (np.diff(recording.binned.stamps) > 0).all()


CODES = [
    ({"stamps": np.concatenate([STAMPS[:10], STAMPS[9:499]])}, "bad_timestamps"),
    ({"stamps": STAMPS[:-1]}, "bad_timestamps"),
    ({"stamps": None}, "missing_fact"),
    ({"counts": COUNTS[:1], "stamps": STAMPS[:1]}, "missing_fact"),
    ({"counts": COUNTS[:, 0]}, "unreadable"),
    ({"counts": COUNTS[:0], "stamps": []}, "no_spikes"),
    ({"counts": np.full((500, 2), 1e12)}, "unreadable"),
    ({"counts": np.full((500, 2), np.nan)}, "no_usable_channels"),
    ({"path": "acquisition/none"}, "no_spikes"),
]


@pytest.mark.parametrize(("change", "code"), CODES)
def test_codes(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        opened(tmp_path, **change)
    assert caught.value.code == code
