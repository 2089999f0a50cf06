"""The reader of MATLAB 5 files: what scipy writes it reads as scipy does, and no damage does more than give a code."""

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from neuromill.readers.flint_mat import open_flint
from neuromill.readers.mat5 import read_mat5
from neuromill.records import FailureCode, RecordingError, SpikeLayout
from support.mat import FlintTrial, structs, write_flint

VALUES = [
    np.arange(6, dtype=float).reshape(2, 3), np.array([[1.5]]), np.array([[7]], np.uint8), np.ones((3, 1), np.float32),
    np.arange(-4, 4, dtype=np.int16)[None], np.array([[2**40]]), np.empty((0, 0)), np.empty((5, 0)),
    np.arange(24, dtype=np.int32).reshape(2, 3, 4),
]  # fmt: skip


@pytest.mark.parametrize("compressed", [True, False])
def test_struct_arrays_and_numbers_equal_those_of_scipy(tmp_path: Path, *, compressed: bool) -> None:
    rows = [{"a": value, "long_name_of_a_field": value * 2, "text": "abc"} for value in VALUES]
    savemat(tmp_path / "a.mat", {"before": np.ones(3), "S": structs(rows)}, do_compression=compressed)
    theirs = np.ravel(loadmat(tmp_path / "a.mat")["S"])
    ours = read_mat5(tmp_path / "a.mat", "S", "a.mat").structs()
    assert len(ours) == len(theirs) == len(VALUES)
    for mine, its in zip(ours, theirs, strict=True):
        assert list(mine) == list(its.dtype.names)
        for name in ("a", "long_name_of_a_field"):
            np.testing.assert_array_equal(mine[name].numbers(), its[name])
            assert mine[name].numbers().shape == its[name].shape


def test_what_is_no_number_or_no_struct_is_unreadable(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"S": structs([{"text": "abc", "z": np.array([[1j]]), "cell": structs([{"x": 1.0}])}])})
    (row,) = read_mat5(tmp_path / "a.mat", "S", "a.mat").structs()[:1]
    for name in ("text", "cell", "z"):
        with pytest.raises(RecordingError, match="no numbers"):
            row[name].numbers()
    with pytest.raises(RecordingError, match="no struct array"):
        row["text"].structs()


@pytest.mark.parametrize(("version", "code"), [(b"\x00\x02", "unsupported_format"), (b"\x00\x01", "unreadable")])
def test_other_versions_are_told_apart(tmp_path: Path, version: bytes, code: str) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB".ljust(124) + version + b"IM")
    with pytest.raises(RecordingError) as caught:
        read_mat5(tmp_path / "a.mat", "S", "a.mat")
    assert caught.value.code == FailureCode(code)


@pytest.mark.parametrize("compressed", [True, False])
def test_no_damage_does_more_than_give_a_code(tmp_path: Path, *, compressed: bool) -> None:
    """``loadmat`` dies of a segmentation fault on some of these."""
    trial = FlintTrial(np.arange(50) / 100, [np.array([0.1]), np.array([0.2, 0.3])])
    path = write_flint(tmp_path / "a.mat", [trial, FlintTrial(1 + np.arange(50) / 100, [np.array([1.1]), np.empty(0)])])
    if compressed:
        savemat(path, {"Subject": loadmat(path)["Subject"]}, do_compression=True)
    whole, chance = path.read_bytes(), random.Random(0)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 4, 16])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "b.mat").write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
        try:
            with open_flint(tmp_path / "b.mat", "b.mat", SpikeLayout(format="flint")) as recording:
                assert recording.spike_times(0).ndim == 1
            outcomes.add("opened")
        except RecordingError as error:
            outcomes.add(error.code)
    assert {FailureCode.TRUNCATED, FailureCode.UNREADABLE} <= outcomes
