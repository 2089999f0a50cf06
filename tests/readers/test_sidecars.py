"""Sloppy sidecars: what is kept, what is left out, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.sidecars import decode, number, read_channels, read_events, read_json, read_rows
from neuromill.records import FailureCode, RecordingError


@pytest.mark.parametrize(
    ("status", "bad"),
    [("bad", True), ("BAD", True), ("Bad ", True), ("", False), ("n/a", False), ("good", False), ("badly", False)],
)
def test_status_is_bad_in_any_capitals_and_nothing_else_is(status: str, *, bad: bool) -> None:
    (row,) = read_channels(f"name\ttype\tunits\tstatus\nA1\tEEG\tuV\t{status}\n".encode(), "channels.tsv")
    assert (row.name, row.type, row.units, row.bad) == ("A1", "EEG", "uV", bad)


def test_byte_order_mark_and_line_ends_change_nothing() -> None:
    plain = b"name\ttype\tunits\nA1\tEEG\tuV\nA2\tEOG\tn/a\n"
    windows = b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")
    assert read_channels(plain, "") == read_channels(windows, "")
    assert [row.units for row in read_channels(plain, "")] == ["uV", ""]


def test_a_channel_with_two_rows_is_refused() -> None:
    with pytest.raises(RecordingError) as caught:
        read_channels(b"name\tstatus\nA1\tgood\nA2\tgood\nA1\tbad\n", "channels.tsv")
    assert caught.value.code is FailureCode.DUPLICATE_CHANNELS
    assert "A1" in caught.value.what


def test_short_and_long_rows_are_read_as_far_as_they_go() -> None:
    assert read_rows(b"a\tb\n1\n1\t2\t3\n\n") == ({"a": "1", "b": ""}, {"a": "1", "b": "2"})


def test_a_quote_in_a_cell_is_a_character() -> None:
    assert read_rows(b'onset\ttrial_type\n1\t"open\n2\tnext\n')[0]["trial_type"] == '"open'


@pytest.mark.parametrize("text", [b"{", b'{"a": 1,}', b"[1]", b"", b"// comment\n{}"])
def test_a_json_sidecar_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(RecordingError) as caught:
        read_json(text, "meg.json")
    assert caught.value.code is FailureCode.UNREADABLE


@given(st.binary(max_size=200))
def test_any_bytes_have_a_text(content: bytes) -> None:
    assert isinstance(decode(content), str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1.5", 1.5), (50, 50.0), ("n/a", None), ("NaN", None), ("inf", None), ("", None), (None, None), ("soon", None)],
)
def test_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected


def test_events_are_sorted_and_those_without_a_place_are_left_out_and_counted() -> None:
    table = (
        b"onset\tduration\ttrial_type\tvalue\n9\t4\tn/a\t7\n1\tn/a\tgo\t1\nsoon\t1\tgo\t1\n-3\t1\tgo\t1\n10\t0\tgo\t1\n"
    )
    events, notes = read_events(table, 10.0)
    np.testing.assert_array_equal(events.onsets, [1.0, 9.0])
    np.testing.assert_array_equal(events.durations, [0.0, 4.0])
    assert events.descriptions == ("go", "7")
    assert notes == (
        "events.tsv: 1 events without a usable onset left out",
        "events.tsv: 2 events outside the recording left out",
    )


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"onset,duration\n1,2\n", "no onset column"), (b"onset\tduration\n", None)]
)
def test_tables_without_events(content: bytes, said: str | None) -> None:
    events, notes = read_events(content, 10.0)
    assert len(events) == 0
    assert (said is None and notes == ()) or (said is not None and said in notes[0])


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 5)), max_size=30))
def test_every_event_is_used_or_counted(rows: list[tuple[float, float]]) -> None:
    table = "onset\tduration\n" + "".join(f"{onset!r}\t{length!r}\n" for onset, length in rows)
    events, notes = read_events(table.encode(), 10.0)
    assert len(events) == sum(0 <= onset < 10 for onset, _ in rows)
    assert (np.diff(events.onsets) >= 0).all()
    assert bool(notes) == (len(events) < len(rows))
