"""The nouns: digests, identities, names, spans."""

import hashlib
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import (
    ChannelTable,
    Digest,
    FailureCode,
    PartId,
    RecordingError,
    RecordingId,
    SourceFile,
    cut,
    identity,
    safe_name,
)


def test_git_sha1_is_the_blob_id_of_git() -> None:
    # `printf 'hello\n' | git hash-object --stdin`
    assert Digest.of(b"hello\n", "git-sha1").hex == "ce013625030ba8dba906f756967f9e9ca394464a"


@given(st.binary())
def test_digest_text_round_trip(data: bytes) -> None:
    digest = Digest.of(data)
    assert Digest.parse(str(digest)) == digest
    assert digest.hex == hashlib.sha256(data).hexdigest()


def test_identity_ignores_order_and_sees_every_part() -> None:
    base = {"config": {"a": 1, "b": 2}, "code_versions": {"filter": "1"}, "inputs": ["x", "y"]}
    same = identity("prepare", config={"b": 2, "a": 1}, code_versions={"filter": "1"}, inputs=["y", "x"])
    assert identity("prepare", **base) == same
    assert identity("tokenize", **base) != same
    assert identity("prepare", **{**base, "code_versions": {"filter": "2"}}) != same
    assert identity("prepare", **{**base, "inputs": ["x"]}) != same


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "a\\b", ".hidden", "-rf", "a\nb", "a\x00", "x" * 201, "cafe\u0301", "a..b", "a b", "$(x)"]
)
def test_hostile_recording_names_are_refused(name: str) -> None:
    with pytest.raises(RecordingError) as caught:
        RecordingId("ds", "1", name)
    assert caught.value.code is FailureCode.HOSTILE_NAME


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a\nb", "a\\b", "a" * 900])
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(RecordingError) as caught:
        SourceFile(path, 1)
    assert caught.value.code is FailureCode.HOSTILE_NAME


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sub-01/meg/a_meg.fif", "sub-01__meg__a_meg.fif"),
        ("rec one.edf", "rec-one.edf"),
        ("cafe\u0301.edf", "café.edf"),
    ],
)
def test_safe_names(path: str, name: str) -> None:
    assert safe_name(path) == name


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_cut_covers_everything_once(n: int, length: int) -> None:
    spans = list(cut(n, length))
    assert sum(map(len, spans)) == n
    assert all(a.stop == b.start for a, b in itertools.pairwise(spans))


@given(st.integers(1, 20), st.integers(0, 1000))
def test_every_item_belongs_to_exactly_one_part(count: int, position: int) -> None:
    assert sum(PartId(i, count).owns(position) for i in range(1, count + 1)) == 1


def test_errors_survive_a_worker_process() -> None:
    error = RecordingError(FailureCode.EMPTY, "no samples", where="a.fif", next_step="drop it")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, str(copy)) == (error.code, "no samples [a.fif] -> drop it")


def table(names: tuple[str, ...]) -> ChannelTable:
    n = len(names)
    blank, xyz = ("",) * n, np.full((n, 3), np.nan)
    return ChannelTable(names, ("mag",) * n, blank, ("T",) * n, xyz, xyz, blank)


def test_channel_table_picks_marks_and_refuses_duplicates() -> None:
    channels = table(("A", "B", "C")).with_bads({1: "flat"}).pick([2, 1])
    assert channels.names == ("C", "B")
    assert channels.bads == ("", "flat")
    with pytest.raises(RecordingError) as caught:
        table(("A", "A")).require_unique_names("x.fif")
    assert caught.value.code is FailureCode.DUPLICATE_CHANNELS
