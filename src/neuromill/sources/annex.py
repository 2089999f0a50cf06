"""git-annex on the wire: keys, links, pointer files and the logs of the ``git-annex`` branch. Pure parsing.

Formats: git-annex's page "internals" and its key format page.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from neuromill.records import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POINTER_MAX_BYTES = 32 * 1024  # git-annex looks no further than this for a pointer
BRANCH = "git-annex"

_KEY = re.compile(r"(?P<backend>[A-Z0-9_]+)(?P<fields>(?:-[a-zA-Z]-?\d{1,18})*)--(?P<name>.+)", re.DOTALL)
_SIZE = re.compile(r"-s(\d{1,18})")
_DIGESTS = {"MD5": ("md5", 32), "SHA1": ("sha1", 40), "SHA256": ("sha256", 64)}
_STAMP = re.compile(r"\d+(\.\d+)?s")
_ESCAPES = {"%": "/", "&s": "%", "&c": ":", "&a": "&"}
_LINK = re.compile(r"(?:^|/)annex/objects/(?:[^/]+/)*(?P<name>[^/]+)$")
_LOG = re.compile(r"[0-9a-f]{3}/[0-9a-f]{3}/(?P<name>[^/]+)\.log(?P<kind>\.rmet)?")


@dataclass(frozen=True, slots=True)
class AnnexKey:
    """A key: what git keeps in place of a large file.

    ``size`` and ``digest`` are None where the key does not carry them (``URL``, ``WORM`` or an exotic hash).
    """

    text: str
    backend: str
    size: int | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``MD5E-s<size>--<md5>.ext`` and its relatives; None where the text is no key."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        size = _SIZE.search(match["fields"])
        return cls(text, match["backend"], int(size[1]) if size else None, _digest(match["backend"], match["name"]))

    @classmethod
    def from_file_name(cls, name: str) -> Self | None:
        """Read a key as it is spelt in file names (``/``, ``%``, ``:`` and ``&`` are escaped there)."""
        return cls.parse(re.sub(r"%|&[sca]", lambda m: _ESCAPES[m[0]], name))

    @classmethod
    def from_link(cls, target: str) -> Self | None:
        """Key of a symbolic link's target; None for a link that is not git-annex's."""
        match = _LINK.search(target.replace("\\", "/"))
        return cls.from_file_name(match["name"]) if match else None

    @classmethod
    def from_pointer(cls, content: bytes) -> Self | None:
        """Key of a pointer file's content; None for any other file."""
        if len(content) > POINTER_MAX_BYTES or not content.startswith(b"/annex/objects/"):
            return None
        line = content.split(b"\n", 1)[0].rstrip(b"\r")
        try:
            return cls.from_link(line.decode())
        except UnicodeDecodeError:
            return None


def _digest(backend: str, name: str) -> Digest | None:
    extended = backend.endswith("E")
    algorithm, length = _DIGESTS.get(backend.removesuffix("E"), ("", 0))
    hexdigits, rest = name[:length], name[length:]
    if not algorithm or not re.fullmatch(r"[0-9a-f]+", hexdigits) or len(hexdigits) != length:
        return None
    if rest and not (extended and rest.startswith(".")):
        return None
    return Digest(algorithm, hexdigits)


@dataclass(frozen=True, slots=True)
class LogName:
    """A file of the git-annex branch that tells about one key."""

    key: str
    remote_metadata: bool

    @classmethod
    def parse(cls, path: str) -> Self | None:
        """Read ``xxx/yyy/<key>.log`` and ``xxx/yyy/<key>.log.rmet``; None for every other log."""
        match = _LOG.fullmatch(path)
        key = AnnexKey.from_file_name(match["name"]) if match else None
        return cls(key.text, bool(match and match["kind"])) if key else None


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One stored object that holds a key's bytes; ``version`` "" stands for the object's newest version."""

    remote: str
    version: str
    key: str
    stamp: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class KeyLogs:
    """What the branch says about one key: object versions that hold it, and remotes that have it or do not."""

    versions: tuple[ObjectVersion, ...] = ()
    present: Mapping[str, bool] = field(default_factory=dict)

    def locate(self, path: str, exports: Mapping[str, str]) -> ObjectVersion | None:
        """Choose where the bytes of ``path`` come from; None where no remote can hand them out.

        An object version of the same path goes before a namesake's, the newer before the older. ``exports`` maps
        the remotes that mirror the tree to the prefix of their objects: where such a remote says it has the key but
        recorded no version, the newest version is tried, and the key's digest decides whether it is the right one.
        """
        known = [v for v in self.versions if self.present.get(v.remote, True)]
        if known:
            return max(known, key=lambda v: (v.key.endswith("/" + path), v.stamp, v.version))
        holders = sorted(remote for remote, prefix in exports.items() if prefix and self.present.get(remote))
        return ObjectVersion(holders[0], "", exports[holders[0]] + path) if holders else None


def parse_remote_metadata(log: bytes) -> tuple[ObjectVersion, ...]:
    """Object versions of a ``.log.rmet``: ``<time>s <uuid>:V +<versionId>#<key>``, newest statement per value.

    A later ``-value`` takes a ``+value`` back. Values with blanks are base64 behind ``!``. Lines that cannot be
    read are passed over, as git-annex does.
    """
    newest: dict[tuple[str, str], tuple[Decimal, bool]] = {}
    for stamp, rest in _lines(log):
        for remote, is_set, value in _values(rest):
            statement = (stamp, is_set)
            # min on the flag: of two statements of the same moment the retraction counts.
            if (old := newest.get((remote, value))) is None or (stamp, not is_set) > (old[0], not old[1]):
                newest[remote, value] = statement
    found = []
    for (remote, value), (stamp, is_set) in newest.items():
        version, hash_sign, key = value.partition("#")
        if is_set and hash_sign and version and key:
            found.append(ObjectVersion(remote, version, key, stamp))
    return tuple(sorted(found, key=lambda v: (v.stamp, v.remote, v.version, v.key)))


def _values(tokens: list[str]) -> Iterator[tuple[str, bool, str]]:
    remote = ""
    for token in tokens:
        if token[0] not in "+-":
            uuid, _, name = token.rpartition(":")
            remote = uuid if name == "V" else ""
        elif remote and (value := _plain(token[1:])) is not None:
            yield remote, token[0] == "+", value


def _plain(value: str) -> str | None:
    if not value.startswith("!"):
        return value
    try:
        return base64.b64decode(value[1:], validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def parse_locations(log: bytes) -> dict[str, bool]:
    """Remotes of a location log: ``<time>s <1|0|X> <uuid>``; True where the newest line says present."""
    newest: dict[str, tuple[Decimal, bool]] = {}
    for stamp, rest in _lines(log):
        status, *uuid = rest
        if status in ("0", "1", "X") and len(uuid) == 1:
            newest[uuid[0]] = max(newest.get(uuid[0], (Decimal(-1), False)), (stamp, status == "1"))
    return {uuid: present for uuid, (_, present) in newest.items()}


def parse_exports(log: bytes) -> dict[str, str]:
    """S3 remotes of ``remote.log`` that export the tree, with the prefix of their objects."""
    exports: dict[str, tuple[Decimal, str]] = {}
    for line in log.decode(errors="replace").splitlines():
        uuid, *settings = line.split()[:1] + line.split()[1:] or [""]
        fields = dict(setting.partition("=")[::2] for setting in settings)
        if fields.get("type") != "S3" or fields.get("exporttree") != "yes":
            continue
        stamp = fields.get("timestamp", "")
        moment = Decimal(stamp[:-1]) if _STAMP.fullmatch(stamp) else Decimal(0)
        exports[uuid] = max(exports.get(uuid, (Decimal(-1), "")), (moment, fields.get("fileprefix", "")))
    return {uuid: prefix for uuid, (_, prefix) in exports.items()}


def _lines(log: bytes) -> Iterator[tuple[Decimal, list[str]]]:
    for line in log.decode(errors="replace").splitlines():
        tokens = line.split()
        if len(tokens) > 1 and _STAMP.fullmatch(tokens[0]):
            yield Decimal(tokens[0][:-1]), tokens[1:]
