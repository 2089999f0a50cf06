"""Sessions of spikes in the stand-in of DANDI, a card for them, and a home folder that asks it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuromill.records import RecordingId
from neuromill.sources.opening import Endpoints
from neuromill.stages.outcomes import Stage
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.synthetic.dandi_archive import DandiArchive, Request, Response, ServedAsset
from support.dandi import Mangle
from support.nwb import Nodes, write_hdf5
from support.patience import FAST
from support.stages import SERIAL, workspace_at

DANDISET, VERSION = "000777", "0.260101.1200"
SECONDS, WIDTH, N_UNITS = 12.0, 0.02, 3
RAW = "acquisition/raw/data"


@dataclass
class SpoiltArchive(DandiArchive):
    """Answers ``times`` requests for the content of one asset (of all for ""), after ``skip`` good ones, by ``mangle``.

    ``sent`` counts the bytes of content that were answered, and ``spoilt`` the answers that were not as they should be.
    """

    mangle: Mangle | None = None
    content_id: str = ""
    skip: int = 0
    times: int = 0
    sent: int = 0
    spoilt: int = 0

    def respond(self, request: Request) -> Response:
        response = super().respond(request)
        if request.path.startswith("/api/"):
            return response
        self.sent += len(response.body)
        if self.mangle is None or self.content_id not in request.path:
            return response
        if self.skip or not self.times:
            self.skip = max(0, self.skip - 1)
            return response
        self.times, self.spoilt = self.times - 1, self.spoilt + 1
        return self.mangle(response)

    def heal(self) -> None:
        """Answer as it should from now on."""
        self.mangle = None


def trains(seed: int) -> list[np.ndarray]:
    """Spike times of each unit, ascending, none on the edge of a bin."""
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.uniform(0, SECONDS, 40 * (unit + 1))) for unit in range(N_UNITS)]
    return [one[np.abs(one / WIDTH - np.round(one / WIDTH)) > 1e-6] for one in times]


def session(seed: int, raw_bytes: int = 0) -> Nodes:
    """Units and the position of a cursor; raw voltage that no layout names lies between them in the file."""
    stamps = np.arange(0, SECONDS, 0.01)
    nodes = Nodes()
    nodes.ragged("units/obs_intervals", [[[0.0, SECONDS]]] * N_UNITS)
    nodes.arrays["units/obs_intervals"] = np.tile([0.0, SECONDS], (N_UNITS, 1))
    nodes.arrays["units/obs_intervals_index"] = np.arange(1, N_UNITS + 1)
    if raw_bytes:
        nodes.arrays[RAW] = np.random.default_rng(seed).integers(-2000, 2000, raw_bytes // 2).astype(np.int16)
    nodes.units(trains(seed))
    nodes.series("cursor", np.stack([np.sin(stamps + seed), np.cos(stamps)], axis=1), stamps)
    return nodes


def write_session(path: Path, seed: int, raw_bytes: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_hdf5(session(seed, raw_bytes), path)


def objects_below(folder: Path) -> dict[str, bytes]:
    """Files of a Zarr store by key."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def real_asset(data: Path, dandiset: str) -> ServedAsset:
    """The asset of a real dandiset whose file is in the test data, with the ids and digests of its real listing.

    With ones of our own where the listing has the file no more (000207: it was replaced by one without the images).
    """
    from support.dandi import real_assets

    folder = data / "dandi" / dandiset
    (file,) = folder.rglob("*.nwb")
    path = file.relative_to(folder).as_posix()
    listed = [replace(asset, body=file) for asset in real_assets(folder) if asset.path == path]
    return listed[0] if listed else ServedAsset.of(dandiset, path, file)


def write_card(home: Path, **changes: Any) -> None:
    """A card of our own for the dandiset; sections given replace."""
    card: dict[str, Any] = {
        "id": DANDISET,
        "title": "Sessions of a test",
        "archive": "dandi",
        "version": VERSION,
        "modality": "spikes",
        "device": "one array",
        "licence": "CC0",
        "citation": "none",
        "recordings": {"layout": "dandi"},
        "spikes": {"need_covariates": True},
    }
    card |= changes
    (home / "catalogs").mkdir(parents=True, exist_ok=True)
    (home / "catalogs" / f"{card['id']}.yaml").write_text(yaml.safe_dump(card))


@contextmanager
def asking(archive: DandiArchive, home: Path, **changes: Any) -> Iterator[Workspace]:
    """A workspace whose DANDI is the stand-in."""
    endpoints = Endpoints(dandi_url=archive.url, patience=FAST)
    with workspace_at(home, **({"engine": SERIAL, "endpoints": endpoints} | changes)) as workspace:
        yield workspace


def prepared(workspace: Workspace, identity: str) -> Path:
    """Store of the prepared dandiset."""
    return workspace.store(RecordingId(DANDISET, VERSION, "x").dataset_version, Stage.PREPARE, identity)


def counts_of(store: Path) -> dict[str, np.ndarray]:
    """Published counts by name of the recording."""
    if not store.is_dir():
        return {}
    with StoreReader.open(store) as reader:
        return {one.name: np.asarray(reader.read(one.name, "counts")) for one in reader.recordings}


def truth(seed: int) -> np.ndarray:
    """Counts [time, unit] of a session, by numpy alone."""
    edges = np.arange(round(SECONDS / WIDTH) + 1) * WIDTH
    return np.stack([np.histogram(one, edges)[0] for one in trains(seed)], axis=1).astype(np.uint8)


def assert_true(published: Mapping[str, np.ndarray], seeds: Mapping[str, int]) -> None:
    """Every published recording has the counts of its session; ``seeds`` by the end of its name."""
    for name, counts in published.items():
        (seed,) = (seed for subject, seed in seeds.items() if f"sub-{subject}" in name)
        np.testing.assert_array_equal(counts, truth(seed), err_msg=name)
