"""Keys, links, pointers and logs of git-annex."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import Digest
from neuromill.sources.annex import (
    POINTER_MAX_BYTES,
    AnnexKey,
    KeyLogs,
    LogName,
    ObjectVersion,
    parse_exports,
    parse_locations,
    parse_remote_metadata,
)
from support.annexed import log_path

MD5 = "039e9fe1f7eb245865899c55ff3464be"
SHA = "6e797c26bb74096b01db8df2cc7df0988483901885f177aa93d7d8699c108d62"
KEY = f"MD5E-s373698155--{MD5}.fif"
U1, U2 = "31124688-3792-11e3-9e3b-1d2e2c2b7cd1", "e605dca6-446a-11e0-8b2a-002170d25c55"


@pytest.mark.parametrize(
    ("text", "backend", "size", "digest"),
    [
        (KEY, "MD5E", 373698155, Digest("md5", MD5)),
        (f"SHA256E-s5937848--{SHA}.nii.gz", "SHA256E", 5937848, Digest("sha256", SHA)),
        (f"SHA256-s5--{SHA}", "SHA256", 5, Digest("sha256", SHA)),
        (f"MD5E-s0--{MD5}", "MD5E", 0, Digest("md5", MD5)),
        (f"MD5E--{MD5}.fif", "MD5E", None, Digest("md5", MD5)),
        (f"MD5E-s7-m1289--{MD5}.fif", "MD5E", 7, Digest("md5", MD5)),
        ("WORM-s3-m1289924402--name with-blank", "WORM", 3, None),
        ("URL--http://example.org/a", "URL", None, None),
        (f"SHA512E-s1--{'a' * 128}.x", "SHA512E", 1, None),
        (f"MD5E-s1--{MD5[:-1]}.fif", "MD5E", 1, None),
        (f"MD5E-s1--{MD5}0.fif", "MD5E", 1, None),
        (f"MD5-s1--{MD5}.fif", "MD5", 1, None),  # only the E backends carry an extension
        ("MD5E-s1--../../etc/passwd", "MD5E", 1, None),
    ],
)
def test_keys(text: str, backend: str, size: int | None, digest: Digest | None) -> None:
    key = AnnexKey.parse(text)
    assert key is not None
    assert (key.backend, key.size, key.digest, key.text) == (backend, size, digest, text)


@pytest.mark.parametrize("text", ["", "README", "MD5E-s5-", "md5e-s5--x", "MD5E--", "MD5E-sx--y"])
def test_what_is_no_key(text: str) -> None:
    assert AnnexKey.parse(text) is None


@pytest.mark.parametrize(
    "target",
    [
        f"../../.git/annex/objects/Zx/q9/{KEY}/{KEY}",
        f".git/annex/objects/Zx/q9/{KEY}/{KEY}",
        f"../.git/modules/sub/annex/objects/abc/def/{KEY}/{KEY}",
        f"..\\.git\\annex\\objects\\Zx\\q9\\{KEY}\\{KEY}",
    ],
)
def test_links(target: str) -> None:
    key = AnnexKey.from_link(target)
    assert key is not None
    assert key.text == KEY


@pytest.mark.parametrize("target", ["README", "../sub-01/a.fif", "/etc/passwd", "x/objects/a", f"annexe/objects/{KEY}"])
def test_other_links(target: str) -> None:
    assert AnnexKey.from_link(target) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"/annex/objects/{KEY}\n".encode(), KEY),
        (f"/annex/objects/{KEY}".encode(), KEY),
        (f"/annex/objects/{KEY}\r\n".encode(), KEY),
        (f"/annex/objects/{KEY}\n/annex/later use\n".encode(), KEY),
        (b"/annex/objects/URL--http&c%%x%y\n", "URL--http://x/y"),
        (b"/annex/objects/\n", None),
        (b"/annex/objects/\xff\xfe", None),
        (f" /annex/objects/{KEY}\n".encode(), None),
        (b"{}", None),
        (b"", None),
        (f"/annex/objects/{KEY}\n".encode() + b"x" * POINTER_MAX_BYTES, None),
    ],
)
def test_pointers(content: bytes, expected: str | None) -> None:
    key = AnnexKey.from_pointer(content)
    assert (key.text if key else None) == expected


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)


@given(names)
def test_escaped_names_come_back(name: str) -> None:
    text = f"WORM-s3-m1--{name}"
    found = LogName.parse(log_path(text))
    assert found == LogName(text, remote_metadata=True)
    assert LogName.parse(log_path(text, ".log")) == LogName(text, remote_metadata=False)
    for other in (".log.met", ".log.web", ".log.cnk"):
        assert LogName.parse(log_path(text, other)) is None


@given(st.binary(max_size=200))
def test_no_log_breaks_the_parsers(log: bytes) -> None:
    parse_remote_metadata(log)
    parse_locations(log)
    parse_exports(log)
    AnnexKey.from_pointer(log)
    AnnexKey.from_pointer(b"/annex/objects/" + log)


def value(version: str, path: str) -> str:
    text = f"{version}#{path}"
    return "!" + base64.b64encode(text.encode()).decode() if " " in text or text.startswith("!") else text


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from("abc"), names), max_size=8))
def test_the_newest_statement_about_each_value_counts(statements) -> None:
    """Order of the lines does not matter: git merges logs by union."""
    lines = [
        f"15830000{stamp}.5s {U1}:V {'+' if is_set else '-'}{value(version, path)}\n"
        for stamp, is_set, version, path in statements
        if not any(c.isspace() and c != " " for c in path)
    ]
    forward = parse_remote_metadata("".join(lines).encode())
    assert forward == parse_remote_metadata("".join(reversed(lines)).encode())
    newest: dict[tuple[str, str], tuple[int, bool]] = {}
    for stamp, is_set, version, path in statements:
        if any(c.isspace() and c != " " for c in path):
            continue
        old = newest.get((version, path), (-1, False))
        if stamp > old[0] or (stamp == old[0] and not is_set):
            newest[version, path] = (stamp, is_set)
    expected = {pair for pair, (_, is_set) in newest.items() if is_set}
    assert {(found.version, found.key) for found in forward} == expected


def test_a_real_looking_metadata_log() -> None:
    blank = base64.b64encode(b"v3#ds1/a b.fif").decode()
    log = (
        f"1583000001.25s {U1}:V +v1#ds1/a.fif +v2#ds1/a.fif\n"
        f"1583000002s {U1}:V -v1#ds1/a.fif\n"
        f"1583000003s {U2}:V +!{blank} {U1}:other +x {U1}:V +v4#ds1/c.fif\n"
        "garbage\n"
        f"1583000004s {U1}:V +!!!notbase64 +noversion +#nokey +v9#\n"
    )
    found = parse_remote_metadata(log.encode())
    assert [(v.remote, v.version, v.key) for v in found] == [
        (U1, "v2", "ds1/a.fif"),
        (U1, "v4", "ds1/c.fif"),
        (U2, "v3", "ds1/a b.fif"),
    ]


def test_locations_and_exports() -> None:
    log = f"1583000005s 0 {U1}\n1583000001.5s 1 {U1}\n1583000001s 1 {U2}\n1s X dead\nbroken\n"
    assert parse_locations(log.encode()) == {U1: False, U2: True, "dead": False}
    remotes = (
        f"{U1} type=S3 exporttree=yes fileprefix=ds1/ name=s3-PUBLIC timestamp=2s\n"
        f"{U1} type=S3 exporttree=yes fileprefix=old/ name=s3-PUBLIC timestamp=1s\n"
        f"{U2} type=S3 exporttree=no fileprefix=private/ timestamp=1s\n"
    )
    assert parse_exports(remotes.encode()) == {U1: "ds1/"}


def version_of(version: str, key: str, stamp: int, remote: str = U1) -> ObjectVersion:
    (found,) = parse_remote_metadata(f"{stamp}s {remote}:V +{version}#{key}\n".encode())
    return found


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        (KeyLogs(), None),
        (KeyLogs((version_of("v1", "ds1/a.fif", 1), version_of("v2", "ds1/a.fif", 2))), ("v2", "ds1/a.fif")),
        (KeyLogs((version_of("v1", "ds1/a.fif", 1), version_of("v2", "ds1/copy.fif", 2))), ("v1", "ds1/a.fif")),
        (KeyLogs((version_of("v2", "ds1/copy.fif", 2),)), ("v2", "ds1/copy.fif")),
        (KeyLogs((version_of("v1", "ds1/a.fif", 1),), {U1: False}), None),
        (KeyLogs((version_of("v1", "ds1/a.fif", 1),), {U1: False, U2: True}), ("", "ds1/a.fif")),
        (KeyLogs((), {U2: True}), ("", "ds1/a.fif")),
        (KeyLogs((), {"elsewhere": True}), None),
    ],
)
def test_where_a_file_comes_from(logs: KeyLogs, expected: tuple[str, str] | None) -> None:
    found = logs.locate("a.fif", {U2: "ds1/"})
    assert ((found.version, found.key) if found else None) == expected


@pytest.mark.data
def test_keys_of_every_real_listing(data: Path) -> None:
    count = 0
    for listing in sorted((data / "openneuro").glob("*/listing.tsv")):
        for line in listing.read_text().splitlines()[1:]:
            path, where, size, algorithm, checksum = line.split("\t")
            if where != "annex":
                continue
            extensions = "".join(Path(path).suffixes)
            key = AnnexKey.parse(f"{algorithm.upper()}E-s{size}--{checksum}{extensions}")
            assert key is not None
            assert (key.size, key.digest) == (int(size), Digest(algorithm, checksum))
            count += 1
    assert count > 3000
