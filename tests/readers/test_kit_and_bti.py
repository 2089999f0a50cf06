"""KIT and BTi: cut at many places, and the files a BTi recording is made of."""

import shutil
from pathlib import Path

import pytest

from neuromill.readers.bti_files import find_bti_files
from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, Recording, RecordingError, RecordingId, SourceFile
from support.recordings import recording_from_folder

KIT = "bids/meg-kit/sub-01/ses-0/meg/sub-01_ses-0_task-0_meg.sqd"


def recording(path: str, *names: str, kind: str) -> Recording:
    return Recording(RecordingId("d", "1", "r"), path, tuple(SourceFile(name, 1) for name in names), format=kind)


@pytest.mark.data
@pytest.mark.parametrize("kept", [8, 300, 1000, 30_000, 500_000, 1_979_000])
def test_a_kit_file_that_ends_early(kept: int, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a_meg.sqd").write_bytes((data / KIT).read_bytes()[:kept])
    with pytest.raises(RecordingError) as caught:
        open_recording(recording("a_meg.sqd", "a_meg.sqd", kind="kit"), tmp_path)
    assert caught.value.code is FailureCode.TRUNCATED


def test_something_else_named_con(tmp_path: Path) -> None:
    (tmp_path / "a.con").write_bytes(b"this is a text file, long enough for a first entry")
    with pytest.raises(RecordingError) as caught:
        open_recording(recording("a.con", "a.con", kind="kit"), tmp_path)
    assert caught.value.code is FailureCode.UNREADABLE


@pytest.mark.data
def test_markers_are_members_and_must_be_there(data: Path) -> None:
    root = data / "bids" / "meg-kit"
    found = recording_from_folder(root, KIT.split("/", 2)[2])
    assert any(member.name.endswith("_markers.sqd") for member in found.members)
    lost = Recording(
        found.id, found.path, (*found.members, SourceFile("sub-01/ses-0/meg/b_markers.sqd", 1)), format="kit"
    )
    with pytest.raises(RecordingError) as caught:
        open_recording(lost, root)
    assert caught.value.code is FailureCode.MISSING_MEMBER


@pytest.mark.data
@pytest.mark.parametrize("lost", [1, 8, 1000, 100_000, 150_000])
def test_a_bti_file_that_ends_early(lost: int, data: Path, tmp_path: Path) -> None:
    for path in (data / "raw" / "meg-bti").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "test_pdf_linux").write_bytes((tmp_path / "test_pdf_linux").read_bytes()[:-lost])
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(tmp_path, "test_pdf_linux"), tmp_path)
    assert caught.value.code is FailureCode.TRUNCATED


def test_bti_files_are_told_apart_by_name(tmp_path: Path) -> None:
    folder = "sub-1_task-rest_meg"
    names = [f"{folder}/{name}" for name in ("config", "hs_file", "c,rfDC", "e,rfhp1.0Hz,COH")]
    files = find_bti_files(recording(folder, *names, kind="bti"), tmp_path)
    assert (files.pdf.name, files.config.name) == ("c,rfDC", "config")
    assert files.head_shape is not None
    assert files.head_shape.name == "hs_file"


@pytest.mark.parametrize("names", [("x_meg/c,rfDC",), ("x_meg/config", "x_meg/hs_file")])
def test_bti_without_config_or_data(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        find_bti_files(recording("x_meg", *names, kind="bti"), tmp_path)
    assert caught.value.code is FailureCode.MISSING_MEMBER
