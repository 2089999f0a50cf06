"""Writes a dataset as OpenNeuro's git mirror holds it: a real repository with annex keys and a git-annex branch."""

import base64
import hashlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REMOTE = "31124688-3792-11e3-9e3b-1d2e2c2b7cd1"
REMOTE_LOG = (
    f"{REMOTE} bucket=openneuro.org datacenter=US exporttree=yes fileprefix={{dataset}}/ name=s3-PUBLIC "
    "publicurl=https://s3.amazonaws.com/openneuro.org type=S3 versioning=yes timestamp=1583000000.5s\n"
)
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def annex_key(content: bytes, name: str, algorithm: str = "md5") -> str:
    suffix = "".join(Path(name).suffixes[-1:])
    return f"{algorithm.upper()}E-s{len(content)}--{hashlib.new(algorithm, content).hexdigest()}{suffix}"


def rmet_line(path: str, version: str, stamp: str = "1583000001.25s", sign: str = "+") -> str:
    """A line as git-annex writes it: plain, or base64 where the value has blanks."""
    value = f"{version}#{path}"
    if " " in value:
        value = "!" + base64.b64encode(value.encode()).decode()
    return f"{stamp} {REMOTE}:V {sign}{value}\n"


def log_path(key: str, kind: str = ".log.rmet") -> str:
    escaped = key.replace("&", "&a").replace("%", "&s").replace(":", "&c").replace("/", "%")
    digest = hashlib.md5(key.encode()).hexdigest()
    return f"{digest[:3]}/{digest[3:6]}/{escaped}{kind}"


@dataclass
class MirrorWriter:
    """Collects commits and tags, then writes the repository with one ``git fast-import``."""

    dataset: str
    tree: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    stream: list[bytes] = field(default_factory=list)
    serial: int = 0

    def plain(self, path: str, content: bytes) -> None:
        self.tree[path] = ("100644", content)

    def link(self, path: str, target: str) -> None:
        self.tree[path] = ("120000", target.encode())

    def annexed(self, path: str, key: str, *, pointer: bool = False) -> None:
        if pointer:
            self.plain(path, f"/annex/objects/{key}\n".encode())
        else:
            self.link(path, "../" * path.count("/") + f".git/annex/objects/Zx/q9/{key}/{key}")

    def stored(self, key: str, *lines: str) -> None:
        """Append remote metadata lines for a key."""
        path = log_path(key)
        self.logs[path] = self.logs.get(path, b"") + "".join(lines).encode()

    def located(self, key: str, *lines: str) -> None:
        self.logs[log_path(key, ".log")] = "".join(lines).encode()

    def tag(self, version: str) -> None:
        self._commit("refs/heads/main", self.tree)
        self.stream.append(b"reset refs/tags/%s\nfrom refs/heads/main\n\n" % version.encode())

    def _commit(self, ref: str, tree: dict[str, tuple[str, bytes]]) -> None:
        self.serial += 1
        who = b"committer Test <test@localhost> %d +0000\n" % (1_583_000_000 + self.serial)
        self.stream.append(b"commit %s\n%sdata 4\ntest\ndeleteall\n" % (ref.encode(), who))
        for path, (mode, content) in sorted(tree.items()):
            quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
            if mode == "160000":
                self.stream.append(b"M 160000 %s %s\n" % (content, quoted.encode("utf-8", "surrogateescape")))
                continue
            head = f"M {mode} inline {quoted}\ndata {len(content)}\n".encode("utf-8", "surrogateescape")
            self.stream.append(head + content + b"\n")

    def write(self, folder: Path, *, filters: bool = True) -> str:
        """Write the bare repository; returns its ``file://`` address."""
        if self.logs:
            logs = self.logs | {"remote.log": REMOTE_LOG.format(dataset=self.dataset).encode()}
            self._commit("refs/heads/git-annex", {path: ("100644", content) for path, content in logs.items()})
        repository = folder / f"{self.dataset}.git"
        if not repository.exists():
            git("init", "--quiet", "--bare", "--initial-branch=main", str(repository))
        git("-C", str(repository), "config", "uploadpack.allowFilter", str(filters).lower())
        git("-C", str(repository), "fast-import", "--quiet", "--force", feed=b"".join(self.stream))
        self.stream.clear()
        return repository.as_uri()


def git(*arguments: str, feed: bytes = b"") -> bytes:
    done = subprocess.run(["git", *arguments], input=feed, capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
