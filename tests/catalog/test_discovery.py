from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.catalog.cards import load_card
from neuromill.catalog.discovery import Discovery, discover
from neuromill.catalog.index import read_index, write_index
from neuromill.catalog.rules import RecordingRules
from neuromill.records import Entities, FailureCode, Manifest, Recording, RecordingError, SourceFile
from support.paths import PROJECT, data_root
from support.snapshots import folder_manifest, listing_manifest, made_manifest, reader_of

BIDS = RecordingRules()
PLAIN = RecordingRules(layout="plain")


def empty_json(_: SourceFile) -> bytes:
    return b"{}"


def found(*paths: str, rules: RecordingRules = BIDS, lost: tuple[str, ...] = ()) -> Discovery:
    return discover(made_manifest(paths, lost), rules, empty_json)


def names(discovery: Discovery) -> list[str]:
    return [recording.id.name for recording in discovery.recordings]


# Made listings


DANDI = RecordingRules(layout="dandi")
PLAIN_SPIKES = RecordingRules(layout="plain", datatypes=("spikes",))


@pytest.mark.parametrize(
    ("path", "name", "suffix", "entities"),
    [
        (
            "sub-C/sub-C_ses-CO-20131003_behavior+ecephys.nwb", "sub-C_ses-CO-20131003_behavior+ecephys",
            "behavior+ecephys", Entities("C", "CO-20131003"),
        ),
        ("sub-H-in/sub-H-in_ses-1.nwb", "sub-H-in_ses-1", "", Entities("H-in", "1")),
        ("sub-1/sub-1_desc-test_image.nwb.zarr", "sub-1_desc-test_image", "image", Entities("1", description="test")),
        ("sub-1/sub-1_tis-x_obj-1ab_icephys.nwb", "sub-1_tis-x_obj-1ab_icephys", "icephys", Entities("1")),
    ],
)  # fmt: skip
def test_names_of_dandi(path: str, name: str, suffix: str, entities: Entities) -> None:
    (recording,) = found(path, "dandiset.yaml", "sub-C/sub-C_eeg.json", rules=DANDI).recordings
    assert (recording.id.name, recording.suffix, recording.entities) == (name, suffix, entities)
    assert (recording.format, recording.datatype, len(recording.members)) == ("nwb", "spikes", 1)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("session.nwb", "no subject in its name"), ("sub-1/sub-1_eeg.edf", "no NWB file")],
)
def test_what_dandi_rules_leave_out(path: str, reason: str) -> None:
    discovery = found(path, rules=DANDI)
    assert (names(discovery), [left.reason for left in discovery.left_out]) == ([], [reason])


def test_dandi_rules_select_by_entity_and_path() -> None:
    rules = RecordingRules(layout="dandi", exclude_entities={"subject": ("*minival",)}, exclude=("*_image.nwb",))
    paths = ["sub-a/sub-a_ecephys.nwb", "sub-a/sub-a_image.nwb", "sub-a-minival/sub-a-minival_ecephys.nwb"]
    assert names(found(*paths, rules=rules)) == ["sub-a_ecephys"]


def test_an_nwb_file_of_ieeg_stays_ieeg() -> None:
    (recording,) = found("sub-1/ieeg/sub-1_task-a_ieeg.nwb").recordings
    assert (recording.datatype, recording.format) == ("ieeg", "nwb")


def test_mat_files_are_recordings_of_spikes_and_of_nothing_else() -> None:
    paths = ["a/x_1.mat", "a/x_2.nwb", "a/x_3.edf"]
    assert names(found(*paths, rules=PLAIN)) == ["a__x_2.nwb", "a__x_3.edf"]
    assert {r.id.name: r.datatype for r in found(*paths, rules=PLAIN_SPIKES).recordings} == {
        "a__x_1.mat": "spikes", "a__x_2.nwb": "spikes", "a__x_3.edf": "",
    }  # fmt: skip
    assert names(found("sub-1/eeg/sub-1_task-a_eeg.mat", "sub-1/eeg/sub-1_task-a_eeg.set")) == ["sub-1_task-a_eeg"]


def test_a_path_pattern_gives_entities_and_the_one_datatype() -> None:
    rules = RecordingRules(
        layout="plain", datatypes=("eeg",), path_pattern="edf/*/{subject}/{session}_*/*/{subject}_{session}_{run}.edf"
    )
    path = "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf"
    discovery = found(path, "edf/000/README.edf", rules=rules)
    (recording,) = discovery.recordings
    assert recording.entities == Entities("aaaaaaaa", "s001", run="t000")
    assert (recording.datatype, recording.format, recording.suffix) == ("eeg", "edf", "")
    assert [(left.path, left.reason[:12]) for left in discovery.left_out] == [("edf/000/README.edf", "path pattern")]


def test_entities_of_a_path_pattern_are_selected_by() -> None:
    rules = RecordingRules(
        layout="plain", datatypes=("spikes",), path_pattern="{subject}_{session}.mat", entities={"subject": ("indy",)}
    )
    assert names(found("indy_1.mat", "loco_1.mat", rules=rules)) == ["indy_1.mat"]


def test_hidden_files_of_a_zarr_folder_belong_to_it() -> None:
    (recording,) = found("sub-1_x.nwb.zarr/.zgroup", "sub-1_x.nwb.zarr/a/.zarray", ".x/a.nwb", rules=DANDI).recordings
    assert (recording.id.name, recording.path, len(recording.members)) == ("sub-1_x", "sub-1_x.nwb.zarr", 2)


def test_a_split_recording_is_one() -> None:
    paths = [f"sub-01/meg/sub-01_task-a_split-0{i}_meg.fif" for i in (1, 2)]
    (recording,) = found(*paths, "sub-01/meg/sub-01_task-a_meg.json").recordings
    assert recording.id.name == "sub-01_task-a_meg"
    assert recording.path == paths[0]
    assert recording.entities.split == ""
    assert [m.path for m in recording.members] == [*paths, "sub-01/meg/sub-01_task-a_meg.json"]


def test_a_bti_folder_bears_the_name() -> None:
    folder = "sub-01/meg/sub-01_task-a_meg"
    (recording,) = found(f"{folder}/c,rfDC", f"{folder}/config", f"{folder}/hs_file").recordings
    assert (recording.id.name, recording.path, recording.format) == ("sub-01_task-a_meg", f"{folder}/c,rfDC", "bti")
    assert (recording.datatype, recording.suffix, recording.entities.task) == ("meg", "meg", "a")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("derivatives/x/sub-01/meg/sub-01_task-a_meg.fif", "not raw data"),
        ("sub-01/derivatives/meg/sub-01_task-a_meg.fif", "not raw data"),
        ("sourcedata/sub-01/meg/sub-01_task-a_meg.fif", "not raw data"),
        ("Code/sub-01_task-a_meg.fif", "not raw data"),
        ("stimuli/sub-01_task-a_meg.fif", "not raw data"),
        ("sub-01/meg/._sub-01_task-a_meg.fif", "hidden file"),
        (".git/annex/sub-01_task-a_meg.fif", "hidden file"),
        ("sub-01/meg/sub-01_acq-crosstalk_meg.fif", "calibration of the device"),
        ("sub-01/meg/recording.fif", "no subject in its name"),
        ("sub-01/beh/sub-01_task-a_beh.edf", "suffix 'beh' is no recording"),
    ],
)
def test_left_out(path: str, reason: str) -> None:
    discovery = found(path, "sub-02/meg/sub-02_task-a_meg.fif")
    assert names(discovery) == ["sub-02_task-a_meg"]
    assert [left.reason for left in discovery.left_out] == [reason]
    assert path.startswith(discovery.left_out[0].path)


def test_rules_apply_and_say_so() -> None:
    rules = RecordingRules(datatypes=("meg",), exclude_entities={"task": ("noise",)})
    discovery = found(
        "sub-1/meg/sub-1_task-a_meg.fif",
        "sub-1/meg/sub-1_task-noise_meg.fif",
        "sub-1/eeg/sub-1_task-a_eeg.edf",
        rules=rules,
    )
    assert names(discovery) == ["sub-1_task-a_meg"]
    assert [left.reason for left in discovery.left_out] == ["datatype eeg is not asked for", "entities are excluded"]


def test_a_lost_file_is_a_state() -> None:
    lost = ("sub-1/meg/sub-1_task-a_meg.fif", "sub-1/meg/sub-1_task-a_meg.json")

    def read(_: SourceFile) -> bytes:
        raise AssertionError("a lost file was asked for")

    discovery = discover(made_manifest(["sub-2/meg/sub-2_task-a_meg.fif"], lost), BIDS, read)
    assert names(discovery) == ["sub-1_task-a_meg", "sub-2_task-a_meg"]
    assert {(p.path, p.code, p.recording) for p in discovery.problems} == {
        (path, FailureCode.UNREACHABLE_UPSTREAM, "sub-1_task-a_meg") for path in lost
    }


def test_a_missing_part_is_a_problem_of_its_recording() -> None:
    discovery = found("sub-1/meg/sub-1_task-a_split-02_meg.fif")
    assert [(p.code, p.recording) for p in discovery.problems] == [(FailureCode.MISSING_MEMBER, "sub-1_task-a_meg")]
    assert names(discovery) == ["sub-1_task-a_meg"]


@pytest.mark.parametrize(
    "bad",
    [
        "sub-1/meg/sub-1_task-a b_meg.fif",
        "sub-1/meg/sub-1_task-$(x)_meg.fif",
        f"sub-1/meg/sub-1_task-{'x' * 200}_meg.fif",
        "sub-1/meg/sub-1_task-..x_meg.fif",
    ],
)
def test_a_hostile_name_stops_nobody_else(bad: str) -> None:
    discovery = found(bad, "sub-2/meg/sub-2_task-a_meg.fif")
    assert names(discovery) == ["sub-2_task-a_meg"]
    assert [(p.path, p.code, p.recording) for p in discovery.problems] == [(bad, FailureCode.HOSTILE_NAME, "")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sub-1/eeg/sub-1_task-a_eeg.edf", "sub-1/eeg/sub-1_task-a_eeg.set"),
        ("sub-1/meg/sub-1_task-A_meg.fif", "sub-1/meg/sub-1_task-a_meg.fif"),  # one file on many file systems
        ("rest/sub-1/meg/sub-1_meg.fif", "task/sub-1/meg/sub-1_meg.fif"),
    ],
)
def test_names_are_unique(first: str, second: str) -> None:
    discovery = found(second, first)
    assert [recording.path for recording in discovery.recordings] == [first]
    assert [(p.path, p.code) for p in discovery.problems] == [(second, FailureCode.HOSTILE_NAME)]
    assert [left.path for left in discovery.left_out] == [second]


def test_a_decomposed_name_becomes_nfc_and_the_path_stays() -> None:
    path = "sub-1/meg/sub-1_task-u\u0308bung_meg.fif"  # as a Mac writes it
    discovery = found(path)
    assert names(discovery) == ["sub-1_task-\u00fcbung_meg"]
    assert discovery.recordings[0].path == path
    assert discovery.problems == ()


def test_a_folder_of_another_subject_is_a_warning() -> None:
    discovery = found("sub-1/meg/sub-2_task-a_meg.fif")
    assert discovery.recordings[0].entities.subject == "2"
    assert [(p.code, p.recording) for p in discovery.problems] == [(FailureCode.HOSTILE_NAME, "")]


def test_an_unreachable_sidecar_is_a_warning_said_once() -> None:
    def read(file: SourceFile) -> bytes:
        raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "no answer", where=file.path)

    paths = [f"sub-{i}/meg/sub-{i}_task-a_meg.fif" for i in (1, 2)]
    discovery = discover(made_manifest([*paths, "task-a_meg.json"]), BIDS, read)
    assert [(p.path, p.code, p.recording) for p in discovery.problems] == [
        ("task-a_meg.json", FailureCode.UNREACHABLE_UPSTREAM, "")
    ]
    assert [r.sfreq for r in discovery.recordings] == [None, None]


pieces = st.sampled_from(
    [
        "sub-1",
        "ses-2",
        "meg",
        "eeg",
        "derivatives",
        "sub-1_task-a_meg.fif",
        "sub-1_split-02_meg.fif",
        "x.ds",
        "x.vhdr",
        "config",
        "c,rfDC",
        "a-1.fif",
        "a.fif",
        ".x",
        "sub-1_meg.json",
        "sub-é_eeg.set",
        "_",
        "-",
        "sub-_meg.fif",
    ]
)
listings = st.lists(st.lists(pieces, min_size=1, max_size=4).map("/".join), max_size=12, unique=True)


@given(listings, st.sampled_from([BIDS, PLAIN]))
def test_any_listing_gives_consistent_recordings(paths: list[str], rules: RecordingRules) -> None:
    discovery = found(*paths, rules=rules)
    for recording in discovery.recordings:
        members = [member.path for member in recording.members]
        assert set(members) <= set(paths)
        assert len(set(members)) == len(members)
        assert any(path == recording.path or path.startswith(f"{recording.path}/") for path in members)
        assert recording.format
    assert len({name.casefold() for name in names(discovery)}) == len(discovery.recordings)
    assert discovery == found(*reversed(paths), rules=rules)


# Real listings

REAL = {
    # dataset: recordings by format, members of a recording, what the bundled sidecars say
    "ds000117": ({"fif": 104}, {"meg": 104}, None),
    "ds000246": ({"ctf": 3}, {"meg": 3}, (274, 2400.0, 60.0)),
    "ds000248": ({"fif": 2}, {"meg": 2}, (306, 600.614990234375, 60.0)),
    "ds002778": ({"bdf": 46}, {"eeg": 46}, (40, 512.0, 60.0)),
    "ds003029": ({"brainvision": 106}, {"ieeg": 106}, (115, 1000.0, 60.0)),
    "ds003498": ({"brainvision": 184}, {"ieeg": 184}, (50, 2000.0, 50.0)),
    "ds003645": ({"fif": 116, "eeglab": 108}, {"meg": 116, "eeg": 108}, (306, 1100.0, 50.0)),
    "ds004078": ({"fif": 360}, {"meg": 360}, (306, 1000.0, 60.0)),
    "ds004194": ({"brainvision": 209}, {"ieeg": 209}, (64, 2048.0, 50.0)),
    "ds004362": ({"eeglab": 84}, {"eeg": 84}, (64, 160.0, 60.0)),
    "ds004408": ({"brainvision": 120}, {"eeg": 120}, (128, 512.0, None)),
    "ds004504": ({"eeglab": 88}, {"eeg": 88}, (19, 500.0, 50.0)),
    "ds005356": ({"fif": 85}, {"meg": 85}, (306, 1000.0, 60.0)),
    "ds005555": ({"edf": 256}, {"eeg": 256}, (11, 256.0, 50.0)),
}


def listed(dataset: str) -> tuple[Manifest, Discovery, dict[str, int]]:
    folder, asked = data_root() / "openneuro" / dataset, {}
    manifest = listing_manifest(folder)
    return manifest, discover(manifest, BIDS, reader_of(folder, asked)), asked


@pytest.mark.data
def test_every_bundled_listing_is_in_the_table(data: Path) -> None:
    assert {path.name for path in (data / "openneuro").iterdir()} == set(REAL)


@pytest.mark.data
@pytest.mark.parametrize("dataset", sorted(REAL))
def test_real_listings(dataset: str, tmp_path: Path) -> None:
    formats, datatypes, facts = REAL[dataset]
    manifest, discovery, asked = listed(dataset)
    assert Counter(r.format for r in discovery.recordings) == formats
    assert Counter(r.datatype for r in discovery.recordings) == datatypes
    said = {(r.n_channels, r.sfreq, r.line_freq) for r in discovery.recordings}
    assert facts in said if facts else said == {(None, None, None)}
    # Only the sidecars of the first participants are bundled; nothing else is wrong with these datasets.
    assert {p.code for p in discovery.problems} <= {FailureCode.UNREACHABLE_UPSTREAM}
    assert all(count == 1 for count in asked.values())
    check_no_file_is_in_two_recordings(manifest, discovery.recordings)
    write_index(tmp_path / "index.parquet", discovery.recordings)
    assert read_index(tmp_path / "index.parquet") == discovery.recordings


def check_no_file_is_in_two_recordings(manifest: Manifest, recordings: tuple[Recording, ...]) -> None:
    """Every raw data file of the listing is in exactly one recording (counted by hand: big, annexed, not elsewhere)."""
    data = (".fif", ".ds", ".meg4", ".eeg", ".set", ".fdt", ".edf", ".bdf", ".vhdr", ".vmrk")
    owners = Counter(m.path for r in recordings for m in r.members if m.path.endswith(data))
    assert set(owners.values()) <= {1}
    raw = [f.path for f in manifest.files if f.path.endswith(data) and f.path.startswith("sub-")]
    assert set(raw) - set(owners) <= {p for p in raw if "_acq-crosstalk_" in p or "/beh/" in p}


@pytest.mark.data
def test_smn4lang_as_bundled(data: Path) -> None:
    """The bundled listing has six of the twelve participants: 360 of the 720 recordings of the card."""
    card = load_card(PROJECT / "catalogs" / "openneuro" / "ds004078.yaml")
    folder = data / "openneuro" / "ds004078"
    recordings = discover(listing_manifest(folder, card.version), card.recordings, reader_of(folder)).recordings
    assert Counter(r.entities.subject for r in recordings) == {f"{i:02}": 60 for i in range(1, 7)}
    assert {r.entities.run for r in recordings} == {str(i) for i in range(1, 61)}
    first = next(r for r in recordings if r.id.name == "sub-01_task-RDR_run-1_meg")
    assert str(first.id) == "ds004078@1.0.4/sub-01_task-RDR_run-1_meg"
    assert first.duration_seconds == 445.999
    assert [m.name.split("_")[-1] for m in first.members] == [
        "meg.fif", "coordsystem.json", "channels.tsv", "events.tsv", "meg.json",
    ]  # fmt: skip
    assert Counter(card.split_of(r) for r in recordings) == {"train": 300, "validation": 60}


@pytest.mark.data
def test_split_recordings_of_a_real_dataset() -> None:
    _, discovery, _ = listed("ds005356")
    parts = Counter(sum(m.name.endswith(".fif") for m in r.members) for r in discovery.recordings)
    assert parts == {1: 55, 2: 30}
    assert all(r.path.endswith("_split-01_meg.fif") for r in discovery.recordings if len(r.members) == 7)


@pytest.mark.data
def test_a_real_ctf_folder_is_one_recording() -> None:
    _, discovery, _ = listed("ds000246")
    recording = discovery.recordings[0]
    assert recording.path == "sub-0001/meg/sub-0001_task-AEF_run-01_meg.ds"
    assert sum(m.path.startswith(f"{recording.path}/") for m in recording.members) == 11
    assert "sub-emptyroom_task-noise_run-01_meg" in names(discovery)


# Real folders

FOLDERS = {
    "eeg-arithmetic": {"edf": 5},
    "eeg-captrak": {"brainvision": 1},
    "eeg-motorimagery": {"edf": 3},
    "ieeg-epilepsy": {"edf": 1},
    "ieeg-hfo": {"brainvision": 1},
    "ieeg-stn": {"brainvision": 1},
    "meg-ctf": {"ctf": 1},
    "meg-fif": {"fif": 3},
    "meg-kit": {"kit": 1},
}


@pytest.mark.data
@pytest.mark.parametrize("dataset", sorted(FOLDERS))
def test_real_folders(data: Path, dataset: str) -> None:
    folder = data / "bids" / dataset
    discovery = discover(folder_manifest(folder), BIDS, reader_of(folder))
    assert Counter(r.format for r in discovery.recordings) == FOLDERS[dataset]
    assert discovery.problems == ()
    for recording in discovery.recordings:
        assert None not in {recording.n_channels, recording.sfreq, recording.duration_seconds, recording.line_freq}
        assert recording.entities.subject


@pytest.mark.data
def test_a_real_kit_run_has_its_markers_and_head_shape(data: Path) -> None:
    folder = data / "bids" / "meg-kit"
    (recording,) = discover(folder_manifest(folder), BIDS, reader_of(folder)).recordings
    members = {m.name.removeprefix("sub-01_ses-0_") for m in recording.members}
    assert recording.id.name == "sub-01_ses-0_task-0_meg"
    assert {"task-0_meg.sqd", "task-0_markers.sqd", "acq-ELP_headshape.pos", "acq-HSP_headshape.pos"} <= members
    assert {"task-0_meg.json", "task-0_channels.tsv", "task-0_events.tsv", "coordsystem.json"} <= members


DAMAGED = {  # what is not like bids_ok: the number of recordings, the codes
    "bids_no_recording": (0, []),
    "bids_runs_differ_in_channels": (2, []),
    "bids_runs_differ_in_rate": (2, []),
    "bids_same_recording_twice": (2, []),
    "bids_sidecar_invalid_json": (1, [FailureCode.UNREADABLE]),
    "bids_name_mismatch": (1, [FailureCode.HOSTILE_NAME]),
}


@pytest.mark.data
def test_damaged_folders(data: Path) -> None:
    folders = sorted((data / "malformed" / "bids").iterdir())
    assert set(DAMAGED) <= {folder.name for folder in folders}
    for folder in folders:
        discovery = discover(folder_manifest(folder), BIDS, reader_of(folder))
        number, codes = DAMAGED.get(folder.name, (1, []))
        assert (len(discovery.recordings), [p.code for p in discovery.problems]) == (number, codes), folder.name
        assert all(not left.path.endswith("eeg.edf") or "/._" in left.path for left in discovery.left_out)


@pytest.mark.data
def test_plain_folders(data: Path) -> None:
    discovery = discover(folder_manifest(data / "raw"), PLAIN, reader_of(data / "raw"))
    assert {r.id.name: [m.name for m in r.members[1:]] for r in discovery.recordings} == {
        "eeg-bdf__multiple_annotation_chans.bdf": [],
        "eeg-bdf__test.bdf": [],
        "eeg-brainvision__test.vhdr": ["test.eeg", "test.vmrk"],
        "eeg-edf__MB0400FU.EDF": [],
        "eeg-edf__SC4001EC-Hypnogram.edf": [],
        "eeg-eeglab__eeglab_data.set": ["eeglab_data.fdt"],
        "meg-bti__test_pdf_linux": ["test_config_linux", "test_hs_linux"],
    }
    only = RecordingRules(layout="plain", include=("eeg-bdf/*",))
    assert len(discover(folder_manifest(data / "raw"), only, reader_of(data / "raw")).recordings) == 2


@pytest.mark.data
def test_damaged_plain_files_are_listed_and_what_is_missing_is_said(data: Path) -> None:
    folder = data / "malformed"
    rules = RecordingRules(layout="plain", exclude=("bids/**", "nwb/**"))
    discovery = discover(folder_manifest(folder), rules, reader_of(folder))
    assert Counter(r.format for r in discovery.recordings) == {
        "edf": 24, "bdf": 1, "fif": 12, "brainvision": 7, "eeglab": 2, "kit": 2, "ctf": 2,
    }  # fmt: skip
    assert [(p.path, p.code) for p in discovery.problems] == [
        ("brainvision/brainvision_no_markers/rec.vhdr", FailureCode.MISSING_MEMBER),
        ("brainvision/brainvision_no_samples/rec.vhdr", FailureCode.MISSING_MEMBER),
        ("ctf/ctf_no_res4_meg.ds", FailureCode.MISSING_MEMBER),
    ]
