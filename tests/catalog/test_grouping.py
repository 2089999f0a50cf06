import pytest

from neuromill.catalog.grouping import Group, group_files
from neuromill.records import SourceFile


def groups(*paths: str, header: bytes = b"") -> dict[str, Group]:
    found = group_files([SourceFile(path, 7) for path in paths], lambda _: header)
    return {group.path: group for group in found}


def names(group: Group) -> list[str]:
    return [file.path for file in group.files]


@pytest.mark.parametrize(
    ("paths", "main", "kind"),
    [
        (["a_split-01_meg.fif", "a_split-02_meg.fif", "a_split-03_meg.fif"], "a_split-01_meg.fif", "fif"),
        (["a_raw.fif", "a_raw-1.fif", "a_raw-2.fif"], "a_raw.fif", "fif"),
        (["a_meg.fif.gz", "a_meg-1.fif.gz"], "a_meg.fif.gz", "fif"),
        (["x.ds/x.res4", "x.ds/x.meg4", "x.ds/hz.ds/hz.res4", "x.ds/BadChannels"], "x.ds", "ctf"),
        (["b/x.mefd/c.timd/s.segd/s.tdat", "b/x.mefd/x.rdat"], "b/x.mefd", "mefd"),
        (["a.vhdr", "a.eeg", "a.vmrk"], "a.vhdr", "brainvision"),
        (["a.set", "a.fdt"], "a.set", "eeglab"),
        (["m/c,rfDC", "m/config", "m/hs_file"], "m/c,rfDC", "bti"),
        (["test_pdf_linux", "test_config_linux", "test_hs_linux"], "test_pdf_linux", "bti"),
        (["a.EDF"], "a.EDF", "edf"),
        (["run1.con", "run1.mrk", "run1.elp", "run1.hsp"], "run1.con", "kit"),
        (
            ["sub-1_task-a_meg.sqd", "sub-1_task-a_markers.sqd", "sub-1_acq-ELP_headshape.pos",
             "sub-1_acq-HSP_headshape.pos"],
            "sub-1_task-a_meg.sqd", "kit",
        ),
    ],
)  # fmt: skip
def test_files_that_are_one_recording(paths: list[str], main: str, kind: str) -> None:
    found = groups(*reversed(paths))
    assert set(names(found[main])) == set(paths)
    assert (found[main].format, found[main].missing) == (kind, [])
    assert set(found) - {main} <= {"sub-1_task-a_markers.sqd"}  # markers look like a run; discovery drops them


def test_parts_stay_in_order() -> None:
    assert names(groups(*(f"a_raw-{i}.fif" for i in range(11, 0, -1)), "a_raw.fif")["a_raw.fif"])[8:] == [
        "a_raw-8.fif", "a_raw-9.fif", "a_raw-10.fif", "a_raw-11.fif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "missing"),
    [
        (["a_split-02_meg.fif"], ["part 1"]),
        (["a_split-01_meg.fif", "a_split-04_meg.fif"], ["part 2", "part 3"]),
        (["a_raw.fif", "a_raw-2.fif"], ["part 1"]),
        (["x.ds/x.meg4"], ["x.ds/*.res4"]),
        (["x.ds/x.res4"], ["x.ds/*.meg4"]),
        (["b/a.vhdr", "b/a.vmrk"], ["b/a.eeg"]),
        (["a.vhdr", "a.eeg"], ["a.vmrk"]),
    ],
)
def test_what_is_not_there_is_said(paths: list[str], missing: list[str]) -> None:
    (group,) = groups(*paths).values()
    assert len(group.missing) == len(missing)
    assert all(said.startswith(start) for said, start in zip(group.missing, missing, strict=True))


def test_runs_of_one_session_keep_their_own_markers() -> None:
    found = groups(*(f"sub-1_task-{t}_{kind}.con" for t in "ab" for kind in ("meg", "markers")))
    assert names(found["sub-1_task-a_meg.con"]) == ["sub-1_task-a_meg.con", "sub-1_task-a_markers.con"]


def test_a_brainvision_header_says_what_its_files_are_called() -> None:
    header = b"Brain Vision\r\n[Common Infos]\r\nDataFile=old.eeg\r\nMarkerFile = $b.vmrk\r\n"
    (group,) = groups("new.vhdr", "old.eeg", "new.vmrk", header=header).values()
    assert names(group) == ["new.vhdr", "old.eeg", "new.vmrk"]
    (group,) = groups("new.vhdr", header=b"DataFile=../../../etc/passwd\nMarkerFile=\xff").values()
    assert names(group) == ["new.vhdr"]  # only files of the same folder of the snapshot
    assert len(group.missing) == 2


def test_what_is_derived_or_unknown_is_no_recording() -> None:
    assert groups("a-eve.fif", "a_epo.fif", "sub-1-trans.fif", "a.txt", "a.eeg", "notes_pdf.txt", "config") == {}


def test_an_nwb_zarr_asset_is_one_file_in_an_archive_and_a_folder_on_disk() -> None:
    asset = groups("sub-1/sub-1_ecephys.nwb.zarr")["sub-1/sub-1_ecephys.nwb.zarr"]
    assert (asset.format, asset.stem, asset.missing) == ("nwb", "sub-1_ecephys", [])
    paths = ["x.nwb.zarr/.zgroup", "x.nwb.zarr/units/id/0", "x.nwb.zarr/units/id/.zarray"]
    (folder,) = groups(*paths).values()
    assert (folder.path, folder.format, folder.missing, set(names(folder))) == ("x.nwb.zarr", "nwb", [], set(paths))
    assert groups("x.nwb.zarr/units/id/0")["x.nwb.zarr"].missing == ["x.nwb.zarr/.zgroup"]


def test_a_mat_file_is_a_recording_only_where_spikes_are_asked_for() -> None:
    from neuromill.catalog.grouping import SPIKE_FORMATS

    files = [SourceFile("a.mat", 7), SourceFile("a.set", 7), SourceFile("a.nwb", 7)]
    assert {g.path: g.format for g in group_files(files, lambda _: b"")} == {"a.set": "eeglab", "a.nwb": "nwb"}
    assert {g.path: g.format for g in group_files(files, lambda _: b"", SPIKE_FORMATS)} == {
        "a.mat": "mat", "a.set": "eeglab", "a.nwb": "nwb",
    }  # fmt: skip
