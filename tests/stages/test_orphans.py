"""Sidecars without a recording: listed where the data is really gone, and nowhere else."""

import pytest

from neuromill.catalog.discovery import discover
from neuromill.catalog.rules import RecordingRules
from neuromill.records import DatasetVersion, Manifest, SourceFile
from neuromill.stages.orphans import recordings_without_data

EEG = "sub-01/eeg/sub-01_task-rest"


def orphans(*paths: str, rules: RecordingRules | None = None) -> list[str]:
    rules = rules or RecordingRules()
    files = tuple(SourceFile(path, 1) for path in sorted(paths))
    manifest = Manifest(DatasetVersion("ds1", "1"), files)
    found = discover(manifest, rules, lambda _: b"{}")
    return [recording.path for recording in recordings_without_data(manifest, rules, found)]


def test_a_sidecar_alone_is_a_recording_that_is_gone() -> None:
    files = [f"{EEG}_{name}" for name in ("eeg.json", "channels.tsv", "events.tsv")]
    assert orphans(*files) == [f"{EEG}_eeg"]


def test_its_members_are_what_bears_its_name() -> None:
    paths = [f"{EEG}_eeg.json", f"{EEG}_events.tsv", "sub-01/eeg/sub-01_task-other_events.tsv"]
    manifest = Manifest(DatasetVersion("ds1", "1"), tuple(SourceFile(path, 1) for path in sorted(paths)))
    (recording,) = recordings_without_data(
        manifest, RecordingRules(), discover(manifest, RecordingRules(), lambda _: b"{}")
    )
    assert [member.path for member in recording.members] == [f"{EEG}_eeg.json", f"{EEG}_events.tsv"]
    assert (recording.id.name, recording.entities.subject, recording.datatype) == (
        "sub-01_task-rest_eeg", "01", "eeg",
    )  # fmt: skip


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param([f"{EEG}_eeg.json", f"{EEG}_eeg.edf"], id="it is there"),
        pytest.param([f"{EEG}_eeg.json", f"{EEG}_run-1_eeg.set"], id="a sidecar of several runs"),
        pytest.param(["task-rest_eeg.json"], id="at the top"),
        pytest.param(["sub-01/sub-01_task-rest_eeg.json"], id="above the folder of data"),
        pytest.param([f"derivatives/{EEG}_eeg.json", f"sourcedata/{EEG}_eeg.json"], id="no raw data"),
        pytest.param([f"{EEG}_events.json", f"{EEG}_channels.tsv"], id="says nothing of a recording"),
        pytest.param(["sub-01/meg/sub-01_task-a_meg.json", "sub-01/meg/sub-01_task-a_meg.ds/a.res4"], id="CTF folder"),
        pytest.param(["sub-01/meg/sub-01_task-a_meg.json", "sub-01/meg/sub-01_task-a_split-01_meg.fif"], id="split"),
        pytest.param(["sub-01/meg/sub-01_task-a_meg.json", "sub-01/meg/sub-01_task-a_meg/c,rf"], id="BTi folder"),
        pytest.param(["sub-01/eeg/.sub-01_task-rest_eeg.json"], id="hidden"),
    ],
)
def test_nothing_is_missing(paths: list[str]) -> None:
    assert orphans(*paths) == []


def test_the_rules_of_the_card_hold() -> None:
    assert orphans(f"{EEG}_eeg.json", rules=RecordingRules(datatypes=("meg",))) == []
    assert orphans(f"{EEG}_eeg.json", rules=RecordingRules(exclude_entities={"task": ("rest",)})) == []
    assert orphans(f"{EEG}_eeg.json", rules=RecordingRules(layout="plain")) == []
