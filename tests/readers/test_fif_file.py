"""FIF: split, gzip, MaxShield, gaps, cuts at every place."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from neuromill.readers.fif_file import IAS_RAW_DATA, RAW_DATA, check_fif, walk
from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, Recording, RecordingError, RecordingId, SourceFile


def write_fif(path: Path, seconds: float = 2.0, **options: object) -> np.ndarray:
    import mne

    info = mne.create_info(["MEG0111", "MEG0121"], 200.0, "mag")
    values = np.random.default_rng(0).normal(0, 1e-12, (2, round(200 * seconds)))
    mne.io.RawArray(values, info, verbose="error").save(path, buffer_size_sec=0.5, verbose="error", **options)
    return values.astype(np.float32).astype(np.float64)


def recording(root: Path, main: str) -> Recording:
    files = sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    members = tuple(SourceFile(path.relative_to(root).as_posix(), path.lstat().st_size) for path in files)
    return Recording(RecordingId("d", "1", "r"), main, members, format="fif")


def code_of(root: Path, main: str) -> FailureCode:
    with pytest.raises(RecordingError) as caught:
        open_recording(recording(root, main), root)
    return caught.value.code


def set_block_kind(path: Path, old: int, new: int) -> None:
    """Turn the blocks of one kind into another: start and end tags are (104 | 105, int, 4 bytes, next, kind)."""
    content = path.read_bytes()
    for kind in (104, 105):
        head = struct.pack(">iii", kind, 3, 4)
        at = content.index(head)
        while struct.unpack_from(">i", content, at + 16)[0] != old:
            at = content.index(head, at + 1)
        content = content[: at + 16] + struct.pack(">i", new) + content[at + 20 :]
    path.write_bytes(content)


def insert_skip(path: Path, before_buffer: int) -> None:
    """Insert a tag that skips one buffer (kind 301, one int32) before buffer ``before_buffer``."""
    content, at = path.read_bytes(), -1
    for _ in range(before_buffer + 1):
        at = content.index(struct.pack(">ii", 300, 4), at + 1)
    path.write_bytes(content[:at] + struct.pack(">iiiii", 301, 3, 4, 0, 1) + content[at:])


def test_split_parts_are_one_recording_also_through_links(tmp_path: Path) -> None:
    real, links = tmp_path / "real", tmp_path / "links"
    real.mkdir()
    links.mkdir()
    values = write_fif(real / "sub-1_meg.fif", 900, split_size=1_500_000, split_naming="bids")
    for number, part in enumerate(sorted(real.iterdir())):
        (tmp_path / f"blob{number}").write_bytes(part.read_bytes())
        (links / part.name).symlink_to(tmp_path / f"blob{number}")
    for root in (real, links):
        assert len(list(root.iterdir())) > 1
        with open_recording(recording(root, "sub-1_split-01_meg.fif"), root) as signal:
            assert signal.n_times == values.shape[1]
            np.testing.assert_allclose(signal.read(100_000, 140_000), values[:, 100_000:140_000], rtol=1e-6)


def test_every_part_of_a_split_must_be_there_and_be_a_member(tmp_path: Path) -> None:
    write_fif(tmp_path / "sub-1_meg.fif", 900, split_size=1_500_000, split_naming="bids")
    whole = recording(tmp_path, "sub-1_split-01_meg.fif")
    first = Recording(whole.id, whole.path, whole.members[:1], format="fif")
    with pytest.raises(RecordingError) as caught:
        open_recording(first, tmp_path)
    assert caught.value.code is FailureCode.MISSING_MEMBER
    last = max(tmp_path.iterdir())
    last.unlink()
    with pytest.raises(RecordingError) as caught:
        open_recording(whole, tmp_path)
    assert caught.value.code is FailureCode.MISSING_MEMBER
    assert caught.value.where == last.name


def test_gzip_is_read_and_a_cut_stream_is_not(tmp_path: Path) -> None:
    values = write_fif(tmp_path / "a_raw.fif.gz")
    with open_recording(recording(tmp_path, "a_raw.fif.gz"), tmp_path) as signal:
        np.testing.assert_allclose(signal.read(0, 400), values, rtol=1e-6)
    content = (tmp_path / "a_raw.fif.gz").read_bytes()
    (tmp_path / "a_raw.fif.gz").write_bytes(content[:-200])
    assert code_of(tmp_path, "a_raw.fif.gz") is FailureCode.TRUNCATED


def test_gzip_under_a_plain_name(tmp_path: Path) -> None:
    write_fif(tmp_path / "a_raw.fif")
    (tmp_path / "a_raw.fif").write_bytes(gzip.compress((tmp_path / "a_raw.fif").read_bytes()))
    assert code_of(tmp_path, "a_raw.fif") is FailureCode.UNREADABLE


def test_maxshield(tmp_path: Path) -> None:
    write_fif(tmp_path / "a_raw.fif")
    set_block_kind(tmp_path / "a_raw.fif", RAW_DATA, IAS_RAW_DATA)
    assert code_of(tmp_path, "a_raw.fif") is FailureCode.MAXSHIELD


def test_mne_agrees_that_the_patched_file_is_maxshield(tmp_path: Path) -> None:
    import mne

    write_fif(tmp_path / "a_raw.fif")
    set_block_kind(tmp_path / "a_raw.fif", RAW_DATA, IAS_RAW_DATA)
    with pytest.raises(ValueError, match=r"(?i)maxshield"):
        mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")


@pytest.mark.parametrize(("before", "gap"), [(0, 0), (2, 1)])
def test_a_pause_inside_is_a_gap_and_one_before_the_start_is_not(tmp_path: Path, before: int, gap: int) -> None:
    write_fif(tmp_path / "a_raw.fif")
    insert_skip(tmp_path / "a_raw.fif", before)
    if gap:
        assert code_of(tmp_path, "a_raw.fif") is FailureCode.NOT_CONTINUOUS
    else:
        check_fif(tmp_path / "a_raw.fif", "a")


def test_averages_are_no_recording(tmp_path: Path) -> None:
    import mne

    info = mne.create_info(["MEG0111"], 100.0, "mag")
    mne.EvokedArray(np.zeros((1, 10)), info, verbose="error").save(tmp_path / "a-ave.fif", verbose="error")
    assert code_of(tmp_path, "a-ave.fif") is FailureCode.UNSUPPORTED_FORMAT


def test_a_file_cut_anywhere_is_never_accepted(tmp_path: Path) -> None:
    write_fif(tmp_path / "a_raw.fif")
    path = tmp_path / "a_raw.fif"
    content = path.read_bytes()
    boundaries, at = [], 0
    for tag in walk(path, "a"):
        boundaries.append(at)
        at += 16 + tag.size
    for length in sorted({*range(1, len(content), 97), *boundaries[1:], len(content) - 1}):
        path.write_bytes(content[:length])
        with pytest.raises(RecordingError) as caught:
            check_fif(path, "a")
        assert caught.value.code is FailureCode.TRUNCATED, length


def test_a_link_to_content_that_was_never_fetched(tmp_path: Path) -> None:
    (tmp_path / "a_raw.fif").symlink_to(tmp_path / ".git" / "annex" / "objects" / "MD5E-s1--x.fif")
    assert code_of(tmp_path, "a_raw.fif") is FailureCode.MISSING_MEMBER


def test_annotations_count_from_the_first_sample(tmp_path: Path) -> None:
    import mne

    info = mne.create_info(["MEG0111"], 100.0, "mag")
    values = np.random.default_rng(0).normal(0, 1e-12, (1, 1000))
    raw = mne.io.RawArray(values, info, first_samp=700, verbose="error")
    raw.set_meas_date(1_000_000_000)
    raw.set_annotations(mne.Annotations([2.0], [0.5], ["go"]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    with open_recording(recording(tmp_path, "a_raw.fif"), tmp_path) as signal:
        np.testing.assert_allclose(signal.events.onsets, [2.0], atol=1e-9)
        assert signal.events.descriptions == ("go",)


def test_reading_outside_the_recording_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    write_fif(tmp_path / "a_raw.fif")
    with open_recording(recording(tmp_path, "a_raw.fif"), tmp_path) as signal:
        assert signal.read(5, 5).shape == (2, 0)
        assert signal.read(0, 5, []).shape == (0, 5)
        for start, stop in ((-1, 5), (0, 401), (6, 5)):
            with pytest.raises(ValueError, match="not within"):
                signal.read(start, stop)
