from pathlib import Path

import numpy as np
import pytest

from neuromill.store.filesystem import LocalFileSystem
from neuromill.store.scaling import encode_block, measure, scaling_of
from neuromill.store.spool import Spool


def spooled(folder: Path, values: np.ndarray) -> Spool:
    spool = Spool(LocalFileSystem(folder), values.shape[1:], "float32")
    spool.append(values.astype(np.float32))
    return spool


@pytest.mark.parametrize("offset", [0.0, 1e-12, 1e-9])
def test_statistics_survive_a_large_offset(offset: float, tmp_path: Path) -> None:
    """A drift of ten thousand standard deviations: one pass of squares would lose every digit."""
    values = (np.random.default_rng(0).standard_normal((60_000, 20)) * 1e-13 + offset).astype(np.float32)
    spool = spooled(tmp_path, values)
    found = measure(spool)
    np.testing.assert_allclose(found.mean, values.mean(axis=0, dtype=np.float64), rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(found.rms, values.std(axis=0, dtype=np.float64), rtol=1e-9)
    assert found.reasons == {}
    spool.close()


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([1.0, 1.0, 1.0], "flat"),
        ([0.0, 0.0, 0.0], "flat"),
        ([0.0, 1e-45, 0.0], "flat"),  # its scale is no normal float32
        ([1.0, np.nan, 2.0], "non_finite"),
        ([1.0, np.inf, 2.0], "non_finite"),
        ([-np.inf, np.inf, 2.0], "non_finite"),
        ([1.0, 1.0000001, 1.0], ""),
        ([-3e38, 3e38, 0.0], ""),
    ],
)
def test_unusable_channels(column: list[float], reason: str, tmp_path: Path) -> None:
    values = np.stack([column, [0.0, 1.0, 2.0]], axis=1)
    spool = spooled(tmp_path, values)
    found = measure(spool)
    spool.close()
    assert found.reasons.get(0, "") == reason
    assert found.usable.tolist() == [not reason, True]


def test_values_are_stored_in_standard_deviations(tmp_path: Path) -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    spool = spooled(tmp_path, values)
    statistics = measure(spool)
    scaling = scaling_of(statistics, statistics.usable, "float16")
    assert scaling.scale.tolist()[0] == 1.0
    assert scaling.offset.tolist()[0] == 2.0
    stored = encode_block(values.astype(np.float32), scaling)
    spool.close()
    assert stored.dtype == np.float16
    assert stored[:, 0].tolist() == [-1.0, 1.0]
    assert np.isnan(stored[:, 1]).all()
