"""Small recordings, small networks and a workspace for tests that run stages."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np

from neuromill.catalog.work import Counts, Scope
from neuromill.records import DatasetVersion
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.settings import EngineKind, EngineSettings, Settings
from neuromill.stages.workspace import Workspace
from neuromill.synthetic.helmet import MAGNETOMETER, helmet
from support.codec import SMALL, small_tokenizer

SERIAL = EngineSettings(kind=EngineKind.SERIAL, workers=1)
ALL_STAGES = tuple(Stage)
N_CHANNELS = 6
SFREQ = 100.0

# Classes of the published pipeline with numbers so small that a stage takes a second.
TINY: dict[str, Any] = {
    "name": "tiny",
    "prepare": {
        "steps": [
            {"step": "pick", "picks": ["meg"]},
            {"step": "filter", "l_freq": 1.0, "h_freq": 20.0},
            {"step": "resample", "sfreq": 50.0},
        ]
    },
    "tokenizer": {"network": SMALL.model_dump()},
    "fit": {
        "segment_seconds": 2.0,
        "batch_size": 8,
        "steps": 3,
        "kmeans_iterations": 2,
        "losses": {"stft_windows": [32]},
    },
    "gate": {
        "min_used_share": 0.0,
        "min_perplexity_share": 0.0,
        "max_dominant_share": 1.0,
        "min_frames": 1,
        "n_windows": 1,
    },
    "tokenize": {"segment_seconds": 3.0, "rows_per_forward": 8},
    "train": {
        "model": {"latent_dim": 16, "n_layers": 1, "n_heads": 2, "fourier_dim": 8, "dropout": 0.0},
        "windows": {"window_frames": 12},
        "max_steps": 3,
        "log_every_steps": 1,
        "validate_every_steps": 3,
        "checkpoint_every_steps": 3,
        "accelerator": "cpu",
    },
}


def tiny_pipeline(**changes: Any) -> Pipeline:
    """The tiny pipeline with whole sections merged: ``gate={"min_frames": 5}``; anything else replaces."""
    document = dict(TINY)
    for name, value in changes.items():
        old = document.get(name)
        document[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return Pipeline.model_validate(document)


def filtered(l_freq: float, sfreq: float = 50.0) -> dict[str, Any]:
    """A prepare section that differs in one step."""
    pick, _, resample = TINY["prepare"]["steps"]
    middle = {"step": "filter", "l_freq": l_freq, "h_freq": 20.0}
    return {"steps": [pick, middle, resample | {"sfreq": sfreq}]}


def save_tiny_tokenizer(folder: Path, seed: int = 0) -> Path:
    """Write a tokenizer with random weights, as ``pretrained.source`` takes it."""
    from neuromill.tokenizers.files import save_pretrained

    save_pretrained(small_tokenizer(seed), folder)
    return folder


def open_workspace(home: Path, engine: EngineSettings = SERIAL, **changes: Any) -> Workspace:
    return Workspace(Settings.at(home, engine=engine, **changes))


@contextmanager
def workspace_at(home: Path, engine: EngineSettings = SERIAL, **changes: Any) -> Iterator[Workspace]:
    workspace = open_workspace(home, engine, **changes)
    try:
        yield workspace
    finally:
        workspace.close()


def write_fif(path: Path, *, seconds: float = 9.0, seed: int = 0, sfreq: float = SFREQ) -> None:
    """Six magnetometers of a helmet and a trigger channel, noise of 1e-12 T."""
    coils = helmet()
    chosen = np.flatnonzero(coils.coils == MAGNETOMETER)[:: 102 // N_CHANNELS][:N_CHANNELS]
    info = mne.create_info([*(coils.names[i] for i in chosen), "STI101"], sfreq, ["mag"] * N_CHANNELS + ["stim"])
    for channel, i in zip(info["chs"], chosen, strict=False):
        channel["coil_type"] = MAGNETOMETER
        channel["loc"] = np.concatenate([coils.positions[i], coils.axes[i].ravel()])
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((N_CHANNELS + 1, round(seconds * sfreq))) * 1e-12
    signal[-1] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    mne.io.RawArray(signal, info, verbose="error").save(path, fmt="single", overwrite=True, verbose="error")


def bids_path(root: Path, subject: str, run: int = 1) -> Path:
    return root / f"sub-{subject}" / "meg" / f"sub-{subject}_task-rest_run-{run:02d}_meg.fif"


def write_bids(
    root: Path, *, subjects: Iterable[str] = ("01", "02"), runs: int = 1, seconds: float = 9.0, sfreq: float = SFREQ
) -> Path:
    """A BIDS folder of small runs."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.9.0"}\n')
    for subject in subjects:
        for run in range(1, runs + 1):
            seed = int(subject) * 100 + run
            write_fif(bids_path(root, subject, run), seconds=seconds + 0.4 * run, seed=seed, sfreq=sfreq)
    return root


def run(workspace: Workspace, pipeline: Pipeline, selection: Selection, *stages: Stage) -> dict[Stage, StageResult]:
    return {stage: run_stage(workspace, pipeline, selection, stage) for stage in stages}


def counts(workspace: Workspace, result: StageResult, version: DatasetVersion | None = None) -> Counts:
    return workspace.ledger.counts(Scope(version, result.stage.value, result.identity))


def tree_digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file: equal where nothing was written again."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def leftovers(home: Path) -> list[str]:
    """What killed writers left: staging entries, scratch folders, half downloads, locks."""
    staged = [path for path in home.rglob("*") if path.name.startswith((".tmp-", ".new-", "recording-"))]
    partial = list((home / "cache").rglob("*.part*"))
    return sorted(path.relative_to(home).as_posix() for path in [*staged, *partial])


@dataclass(frozen=True)
class Road:
    """A home folder in which every stage has run, and what the stages said."""

    home: Path
    data: Path
    pipeline: Pipeline
    results: dict[Stage, StageResult]

    @property
    def selection(self) -> Selection:
        return Selection(data=self.data)

    def store(self, stage: Stage) -> Path:
        return self.home / "stores" / "lab@local" / stage.value / self.results[stage].identity


class Listener:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[str, float]] = []
        self.advanced = 0.0

    def begin(self, task: str, total: float, unit: str) -> None:
        self.begun.append((task, total))

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.advanced += amount

    def end(self, note: str = "") -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)
