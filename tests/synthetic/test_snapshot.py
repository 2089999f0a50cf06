"""The synthetic snapshot, read back the way a user reads OpenNeuro."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from neuromill.records import ConfigError, Manifest
from neuromill.sources.cache import RawCache
from neuromill.sources.opening import Endpoints, open_source
from neuromill.synthetic.repository import SnapshotPlace
from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot

SPEC = SnapshotSpec(seconds=30.0)


@dataclass
class Written:
    place: SnapshotPlace
    manifest: Manifest
    tree: Path

    def raw(self, subject: str, run: str) -> mne.io.BaseRaw:
        name = f"sub-{subject}/meg/sub-{subject}_task-listening_run-{run}_meg.fif"
        return mne.io.read_raw_fif(self.tree / name, verbose="error")


def read_back(folder: Path, place: SnapshotPlace) -> Written:
    endpoints = Endpoints(git_url=place.git_url, bucket_url=place.bucket_url, cache_folder=folder / "cache")
    source = open_source("openneuro", place.dataset, endpoints)
    listing = source.listing(place.version)
    assert listing.skipped == ()
    cache = RawCache(folder / "raw")
    for file in listing.manifest.files:
        cache.ensure(source, file)
    return Written(place, listing.manifest, cache.materialise(listing.manifest.files, folder / "tree"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("snapshot with a blank")
    return read_back(folder, write_snapshot(folder / "upstream", SPEC))


def test_two_subjects_with_two_runs_of_306_channels(written: Written) -> None:
    fifs = [file for file in written.manifest.files if file.path.endswith(".fif")]
    assert len(fifs) == 4
    assert {str(file.digest).split(":")[0] for file in fifs} == {"md5", "sha256"}
    info = written.raw("01", "01").info
    assert len(mne.pick_types(info, meg="mag")) == 102
    assert len(mne.pick_types(info, meg="grad")) == 204
    assert info["sfreq"] == SPEC.sfreq
    assert info["line_freq"] == SPEC.line_freq


def test_alpha_and_mains_stand_out(written: Written) -> None:
    spectrum = written.raw("01", "01").compute_psd(picks="mag", n_fft=1000, verbose="error")
    power, freqs = spectrum.get_data().mean(axis=0), spectrum.freqs

    def at(freq: float) -> float:
        return float(power[np.argmin(np.abs(freqs - freq))])

    assert power[(freqs > 9) & (freqs < 11)].max() > 3 * max(at(7.5), at(13))
    assert at(50) > 100 * max(at(47), at(53))
    assert at(2) > 2 * at(5) > 4 * at(30)  # 1/f


def test_background_is_correlated_in_space(written: Written) -> None:
    raw = written.raw("01", "01").load_data(verbose="error").filter(1, 8, verbose="error")
    sites = np.corrcoef(raw.get_data(picks="mag"))
    assert np.median(np.sort(np.abs(sites), axis=1)[:, -3]) > 0.8


def test_the_head_sits_differently_in_every_run(written: Written) -> None:
    heads = [written.raw(s, r).info["dev_head_t"]["trans"] for s in ("01", "02") for r in ("01", "02")]
    for i, one in enumerate(heads):
        assert np.allclose(one[:3, :3] @ one[:3, :3].T, np.eye(3), atol=1e-6)
        for other in heads[:i]:
            assert np.linalg.norm(one[:3, 3] - other[:3, 3]) > 5e-4


def test_responses_follow_the_events_of_the_table(written: Written) -> None:
    raw = written.raw("02", "01")
    lines = (written.tree / "sub-02/meg/sub-02_task-listening_run-01_events.tsv").read_text().splitlines()[1:]
    table = [line.split("\t") for line in lines]
    found = mne.find_events(raw, stim_channel="STI101", verbose="error")
    assert [(int(row[4]), int(row[3])) for row in table] == [(int(e[0]), int(e[2])) for e in found]
    assert [float(row[0]) for row in table] == pytest.approx(found[:, 0] / SPEC.sfreq)
    raw.load_data(verbose="error").filter(2, 30, verbose="error")
    epochs = mne.Epochs(raw, found, {"tone": 1}, -0.2, 0.4, picks="mag", verbose="error")
    field = epochs.average().data.std(axis=0)
    assert field[epochs.times > 0.05].max() > 2 * np.median(field[epochs.times < 0])


def test_the_same_seed_gives_the_same_bytes(written: Written, tmp_path: Path) -> None:
    again = read_back(tmp_path, write_snapshot(tmp_path / "upstream", SPEC))
    assert again.manifest == written.manifest  # commit, paths, digests, object versions
    other = read_back(tmp_path / "b", write_snapshot(tmp_path / "b" / "upstream", SnapshotSpec(seconds=30.0, seed=1)))
    assert other.manifest.revision != written.manifest.revision


def test_a_second_snapshot_in_one_place_is_refused(tmp_path: Path) -> None:
    spec = SnapshotSpec(subjects=1, runs=1, seconds=5.0)
    write_snapshot(tmp_path, spec)
    with pytest.raises(ConfigError, match="already"):
        write_snapshot(tmp_path, spec)


def test_a_snapshot_that_was_begun_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SnapshotSpec(subjects=1, runs=1, seconds=5.0)
    run, calls = subprocess.run, []

    def killed(command: list[str], **options: Any) -> Any:
        calls.append(command)
        if "fast-import" in command:
            raise KeyboardInterrupt
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        write_snapshot(tmp_path / "snapshot", spec)
    monkeypatch.undo()
    assert len(calls) == 3
    assert not SnapshotPlace(tmp_path / "snapshot", spec.dataset, spec.version).repository.exists()
    place = write_snapshot(tmp_path / "snapshot", spec)
    assert [path.name for path in place.repository.parent.iterdir()] == [f"{spec.dataset}.git"]
    assert len(read_back(tmp_path, place).manifest.files) > 5
