"""How often codes occur: kept where the table is small beside the codes, counted elsewhere, the same numbers."""

from pathlib import Path

import numpy as np
import pytest

from neuromill.store import usage as module
from neuromill.store.reader import StoreReader
from neuromill.store.usage import codebook_usage, is_worth_keeping
from neuromill.store.writer import TokenWriter
from support.stores import channel_table, token_attributes

NAME, SIZE = "sub-01_meg", 300
LENGTHS = (625, 625, 50)


def write(store: Path) -> np.ndarray:
    """Three channels, the second bad, the third silent in the first segment; returns the usage as stages count it."""
    rng = np.random.default_rng(0)
    usage = np.zeros((2, SIZE), np.int64)
    with TokenWriter(store, NAME, n_channels=3, n_quantizers=2, codebook_size=SIZE) as writer:
        for number, length in enumerate(LENGTHS):
            codes = rng.integers(0, SIZE, (length, 2, 3))
            writer.write_segment(codes, np.array([1, 1, 1 if number else np.nan], np.float32), 12 * length)
            for channel in (0, 2) if number else (0,):
                for level in range(2):
                    usage[level] += np.bincount(codes[:, level, channel], minlength=SIZE)
        writer.publish(token_attributes(), channel_table(3, bads=("", "marked", "")), usage=usage)
    return usage


@pytest.mark.parametrize(("share", "kept"), [(0.01, False), (10.0, True)])
@pytest.mark.parametrize("block", [1, 5000, 2**22])
def test_a_kept_table_and_a_count_are_the_same(
    share: float, block: int, *, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_TABLE", share)
    monkeypatch.setattr(module, "BLOCK_CODES", block)
    expected = write(tmp_path)
    with StoreReader.of_groups(tmp_path) as reader:
        assert ("codebook_usage" in reader.recording(NAME).arrays) is kept
        counted = codebook_usage(reader, NAME)
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize(
    ("table", "codes", "kept"),
    [
        (2 * 4096 * 8, 3600 * 2 * 19 * 2, False),  # an hour of EEG
        (6 * 256 * 8, 15_000 * 6 * 306, True),  # an hour of MEG
        (1, 100, True),
        (1, 99, False),
    ],
)
def test_what_is_kept(table: int, codes: int, *, kept: bool) -> None:
    assert is_worth_keeping(table, codes) is kept
