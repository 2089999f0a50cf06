import pytest

from neuromill.catalog.bids import Sidecars, parse_name, positive_number, read_json
from neuromill.records import Entities, FailureCode, RecordingError, SourceFile


@pytest.mark.parametrize(
    ("path", "datatype", "suffix", "extension", "entities"),
    [
        (
            "sub-01/ses-0/meg/sub-01_ses-0_task-a_acq-b_run-02_proc-sss_split-01_meg.fif", "meg", "meg", ".fif",
            Entities("01", "0", "a", "b", "02", "sss", split="01"),
        ),
        ("sub-01/meg/sub-01_task-a_meg.ds", "meg", "meg", ".ds", Entities("01", task="a")),
        ("sub-01_task-a_eeg.edf", "eeg", "eeg", ".edf", Entities("01", task="a")),  # no folder: the suffix says it
        ("sub-01/ieeg/sub-01_space-mni_electrodes.tsv", "ieeg", "electrodes", ".tsv", Entities("01", space="mni")),
        ("sub-01/meg/sub-01_hemi-L_meg.fif", "meg", "meg", ".fif", Entities("01")),  # an entity we do not know
        ("sub-01/eeg/sub-01_task-u\u0308bung_eeg.edf", "eeg", "eeg", ".edf", Entities("01", task="\u00fcbung")),
        ("README", "", "README", "", Entities()),
    ],
)  # fmt: skip
def test_parse_name(path: str, datatype: str, suffix: str, extension: str, entities: Entities) -> None:
    name = parse_name(path)
    assert (name.datatype, name.suffix, name.extension) == (datatype, suffix, extension)
    assert name.entities == entities


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (60, 60.0), (50.5, 50.5), ("60", 60.0), (" 50 ", 50.0),
        ("n/a", None), ("60 Hz", None), ("", None), (None, None),
        (True, None), (0, None), (-1, None), (float("nan"), None), (float("inf"), None), ("inf", None), ([60], None),
        ({}, None), (10**400, None),
    ],
)  # fmt: skip
def test_positive_number(value: object, expected: float | None) -> None:
    assert positive_number(value) == expected


@pytest.mark.parametrize("data", [b'\xef\xbb\xbf{"a": 1}', b'{\r\n"a": 1\r\n}\r\n', b'{"b": NaN, "a": 1}'])
def test_json_that_is_odd_but_fine(data: bytes) -> None:
    assert read_json(SourceFile("x.json", 1), lambda _: data)["a"] == 1


@pytest.mark.parametrize("data", [b"", b'{"a": 1,}', b"// c\n{}", b"[1]", b"null", b'{"a": "\xe9"}', b"[" * 100_000])
def test_json_that_is_not(data: bytes) -> None:
    with pytest.raises(RecordingError) as caught:
        read_json(SourceFile("x.json", 1), lambda _: data)
    assert caught.value.code is FailureCode.UNREADABLE
    assert caught.value.where == "x.json"


def test_a_huge_sidecar_is_not_even_read() -> None:
    with pytest.raises(RecordingError) as caught:
        read_json(SourceFile("x.json", 10**9), lambda _: pytest.fail("was read"))
    assert caught.value.code is FailureCode.TOO_LARGE


CONTENT = {
    "meg.json": b'{"PowerLineFrequency": 50, "SamplingFrequency": 1000, "MEGChannelCount": 306}',
    "task-a_meg.json": b'{"PowerLineFrequency": 60}',
    "task-b_meg.json": b'{"PowerLineFrequency": 16.7}',
    "eeg.json": b'{"SamplingFrequency": 1}',
    "sub-01/sub-01_meg.json": b'{"RecordingDuration": 30}',
    "sub-01/meg/sub-01_task-a_run-1_meg.json": b'{"SamplingFrequency": 500}',
    "sub-01/meg/sub-01_task-a_run-2_meg.json": b'{"SamplingFrequency": 2}',
    "sub-02/sub-02_meg.json": b'{"RecordingDuration": 99}',
    "task-a_channels.tsv": b"", "sub-01/meg/sub-01_task-a_run-1_channels.tsv": b"", "task-a_events.tsv": b"",
    "task-a_events.json": b"{}", "sub-01/meg/sub-01_coordsystem.json": b"{}",
    "sub-01/meg/sub-01_space-A_electrodes.tsv": b"", "sub-01/meg/sub-01_space-B_electrodes.tsv": b"",
    "sub-01/meg/sub-01_acq-z_coordsystem.json": b"{}", "participants.tsv": b"",
}  # fmt: skip
PATH = "sub-01/meg/sub-01_task-a_run-1_meg.fif"


def sidecars() -> Sidecars:
    found = Sidecars(lambda file: CONTENT[file.path], lambda path, error: pytest.fail(f"{path}: {error}"))
    found.index(SourceFile(path, len(data)) for path, data in CONTENT.items())
    return found


def test_json_is_inherited_from_the_root_down() -> None:
    facts = sidecars().facts(PATH, parse_name(PATH), "meg")
    assert (facts.n_channels, facts.sfreq, facts.duration_seconds, facts.line_freq) == (306, 500, 30, 60)


def test_all_json_and_the_closest_tables_are_members() -> None:
    assert [file.path for file in sidecars().members(PATH, parse_name(PATH), "meg")] == sorted(
        [
            "meg.json",
            "task-a_meg.json",
            "sub-01/sub-01_meg.json",
            "sub-01/meg/sub-01_task-a_run-1_meg.json",
            "sub-01/meg/sub-01_task-a_run-1_channels.tsv",  # not the one at the root
            "task-a_events.tsv",
            "task-a_events.json",
            "sub-01/meg/sub-01_coordsystem.json",  # not that of another acquisition
            "sub-01/meg/sub-01_space-A_electrodes.tsv",
            "sub-01/meg/sub-01_space-B_electrodes.tsv",
        ]
    )


def test_intracranial_channels_add_up() -> None:
    data = b'{"ECOGChannelCount": 64, "SEEGChannelCount": 8, "EEGChannelCount": 2, "SamplingFrequency": "n/a"}'
    found = Sidecars(lambda _: data, lambda *_: None)
    found.index([SourceFile("ieeg.json", 1)])
    path = "sub-01/ieeg/sub-01_ieeg.edf"
    assert found.facts(path, parse_name(path), "ieeg").n_channels == 72
    assert found.facts(path, parse_name(path), "ieeg").sfreq is None
