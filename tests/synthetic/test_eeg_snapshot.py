"""The synthetic EEG, read back the way a user reads OpenNeuro, and what a cap should show."""

import hashlib
from pathlib import Path

import mne
import numpy as np
import pytest

from neuromill.catalog.cards import load_card
from neuromill.catalog.discovery import discover
from neuromill.catalog.splits import check_expected, check_split
from neuromill.readers.opening import open_recording
from neuromill.records import ConfigError, Manifest
from neuromill.sources.cache import RawCache
from neuromill.sources.opening import Endpoints, open_source
from neuromill.synthetic import eeg
from neuromill.synthetic.edf import write_edf
from neuromill.synthetic.eeg_snapshot import EegSnapshotSpec, write_eeg_snapshot
from support.paths import PROJECT
from support.snapshots import reader_of

SPEC = EegSnapshotSpec(seconds=120)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """Manifest and files, fetched through the source."""
    folder = tmp_path_factory.mktemp("eeg")
    place = write_eeg_snapshot(folder / "upstream", SPEC)
    endpoints = Endpoints(git_url=place.git_url, bucket_url=place.bucket_url, cache_folder=folder / "cache")
    source = open_source("openneuro", place.dataset, endpoints)
    listing = source.listing(place.version)
    assert listing.skipped == ()
    cache = RawCache(folder / "raw")
    for file in listing.manifest.files:
        cache.ensure(source, file)
    return listing.manifest, cache.materialise(listing.manifest.files, folder / "tree")


def raw_of(tree: Path, subject: str = "01") -> mne.io.BaseRaw:
    path = tree / f"sub-{subject}/eeg/sub-{subject}_task-eyes_eeg.edf"
    return mne.io.read_raw_edf(path, preload=True, verbose="error")


def test_the_card_says_what_is_there(written: tuple[Manifest, Path]) -> None:
    manifest, tree = written
    card = load_card(PROJECT / "catalogs" / "openneuro" / "ds999003.yaml")
    found = discover(manifest, card.recordings, reader_of(tree))
    assert check_expected(found.recordings, card) == ()
    assert check_split(found.recordings, card) == ()
    assert [card.split_of(r) for r in found.recordings] == ["train", "train", "validation"]
    assert (card.version, card.line_freq) == (EegSnapshotSpec().version, EegSnapshotSpec().line_freq)
    with open_recording(found.recordings[0], tree) as signal:
        assert signal.channels.names == (*eeg.SCALP, *eeg.EXTRA)
        assert signal.channels.types == ("eeg",) * 19 + ("eog", "ecg")
        assert set(signal.channels.units) == {"V"}
        assert len(signal.events) == SPEC.seconds / eeg.BLOCK_SECONDS


def test_amplitudes_are_those_of_a_cap(written: tuple[Manifest, Path]) -> None:
    signal = raw_of(written[1]).filter(0.5, 45, verbose="error").get_data()[:19] * 1e6
    assert 5 < np.median(signal.std(axis=1)) < 40
    windows = np.abs(signal.reshape(19, -1, 1250)).max(axis=2)  # 5 s
    share = float((windows >= 100).mean())
    assert 0.005 < share < 0.3  # some windows of some channels are too large, most are not
    frontal = windows[:2].max()
    assert frontal > 100


def test_alpha_is_strongest_at_the_back_with_closed_eyes(written: tuple[Manifest, Path]) -> None:
    raw = raw_of(written[1]).filter(8, 12, verbose="error")
    power = raw.get_data()[:19] ** 2
    closed = eeg.eyes_closed(power.shape[1], SPEC.sfreq)
    names = list(eeg.SCALP)
    back, front = [names.index(n) for n in ("O1", "O2")], [names.index(n) for n in ("F3", "F4")]
    assert power[back][:, closed].mean() > 2 * power[back][:, ~closed].mean()
    assert power[back][:, closed].mean() > 2 * power[front][:, closed].mean()


def test_the_spectrum_falls_and_the_mains_stand_out(written: tuple[Manifest, Path]) -> None:
    spectrum = raw_of(written[1]).compute_psd(n_fft=1000, picks=list(eeg.SCALP), verbose="error")
    power, freqs = spectrum.get_data().mean(axis=0), spectrum.freqs

    def at(freq: float) -> float:
        return float(power[np.argmin(np.abs(freqs - freq))])

    assert at(2) > 2 * at(6) > 4 * at(35)
    assert at(50) > 20 * max(at(46), at(54))


def test_the_same_seed_gives_the_same_bytes_and_another_another(tmp_path: Path) -> None:
    def digests(name: str, **changes: int) -> dict[str, str]:
        spec = EegSnapshotSpec(seconds=10, subjects=1, **changes)
        write_eeg_snapshot(tmp_path / name, spec)
        files = sorted((tmp_path / name / "objects").rglob("*.edf"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    assert digests("a") == digests("b") != digests("c", seed=1)
    with pytest.raises(ConfigError, match="there already"):
        write_eeg_snapshot(tmp_path / "a", EegSnapshotSpec(seconds=10))


def test_edf_keeps_values_to_a_tenth_of_a_microvolt_and_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((3, 500)) * 50e-6
    signal[2, 10] = 1.0
    write_edf(tmp_path / "a.edf", signal, ("Fp1", "A channel of 16c", "X"), 250)
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", verbose="error")
    assert raw.ch_names == ["Fp1", "A channel of 16c", "X"]
    assert raw.info["sfreq"] == 250
    difference = np.abs(raw.get_data() - signal)
    assert difference[2, 10] > 0.9
    difference[2, 10] = 0
    assert difference.max() <= 0.0501e-6


@pytest.mark.parametrize(("names", "n_times"), [(("a" * 17,), 250), (("a",), 251)])
def test_edf_refuses_what_the_format_cannot_hold(names: tuple[str, ...], n_times: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_edf(tmp_path / "a.edf", np.zeros((1, n_times)), names, 250)
    assert not (tmp_path / "a.edf").exists()
