"""Preparation of real EEG: against MNE, against units that are not what they say."""

import math
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from neuromill.readers.opening import open_recording
from neuromill.readers.plausibility import check_plausible
from neuromill.records import FailureCode, RecordingError
from neuromill.signals.chain import Chain, plan_chain, run_chain
from neuromill.signals.montage import MONTAGES
from neuromill.signals.quality import ChainReport
from neuromill.signals.steps import BaseStep, Crop, ExpectAmplitude, Filter, NotchFilter, PickMontage, Resample
from support.recordings import dataset_root, recording_from_folder

pytestmark = pytest.mark.data

TOLERANCE = 1e-5  # relative, 0.3 to 70 Hz, 12 s from the ends; measured: 3e-7 (500 Hz), 1.5e-6 (160 Hz)
REST = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-rest_eeg.edf"
MOTION = "bids/eeg-motorimagery/sub-001/eeg/sub-001_task-motion_run-4_eeg.edf"
ICTAL = "bids/ieeg-epilepsy/sub-ecog01/ses-presurgery/ieeg/sub-ecog01_ses-presurgery_task-ictal_run-01_ieeg.edf"
WITH_MONTAGE = (
    REST,
    MOTION,
    "bids/eeg-arithmetic/sub-03/eeg/sub-03_task-arithmetic_eeg.edf",
    "bids/eeg-motorimagery/sub-002/eeg/sub-002_task-motion_run-1_eeg.edf",
    "raw/eeg-edf/MB0400FU.EDF",
    "raw/eeg-bdf/test.bdf",
)
SCALP = (*WITH_MONTAGE, "raw/eeg-brainvision/test.vhdr", "raw/eeg-eeglab/eeglab_data.set")
ELECTRODES = (*SCALP, "raw/eeg-bdf/multiple_annotation_chans.bdf", ICTAL)
SPEC: tuple[BaseStep, ...] = (Resample(sfreq=200.0), Filter(l_freq=0.3, h_freq=75.0), NotchFilter(freqs=(50.0,)))


def prepared(
    data: Path, path: str, steps: tuple[BaseStep, ...], factor: float = 1.0
) -> tuple[Chain, NDArray[np.float32], ChainReport]:
    root, main = dataset_root(data, path)
    with open_recording(recording_from_folder(root, main), root) as signal:
        chain = plan_chain(steps, signal.channels, signal.sfreq, signal.n_times, where=path)
        run = run_chain(chain, lambda start, stop: factor * signal.read(start, stop, chain.picks))
        return chain, np.concatenate(list(run), axis=1), run.report


@pytest.mark.parametrize("path", [REST, MOTION])
def test_the_order_of_the_paper_against_mne(data: Path, path: str) -> None:
    chain, made, _ = prepared(data, path, (PickMontage(), *SPEC))
    raw = mne.io.read_raw_edf(data / path, preload=True)
    assert chain.facts.montage is not None  # type: ignore[attr-defined]
    raw.pick(list(chain.facts.montage.sources)).reorder_channels(list(chain.facts.montage.sources))  # type: ignore[attr-defined]
    raw.resample(200.0, npad=4000)
    raw.filter(0.3, 75.0)
    oracle = raw.notch_filter([50.0]).get_data()
    n = min(made.shape[1], oracle.shape[1])
    assert abs(made.shape[1] - oracle.shape[1]) <= 1
    inside = slice(2400, n - 2400)
    window = np.hanning(n - 4800)
    freqs = np.fft.rfftfreq(len(window), 1 / 200)
    band = (freqs >= 0.3) & (freqs <= 70)
    difference = np.fft.rfft((made[:, :n] - oracle[:, :n])[:, inside] * window)[:, band]
    expected = np.fft.rfft(oracle[:, :n][:, inside] * window)[:, band]
    error = np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < TOLERANCE


@pytest.mark.parametrize("path", WITH_MONTAGE)
def test_all_nineteen_are_found(data: Path, path: str) -> None:
    chain, made, _ = prepared(data, path, (PickMontage(), Resample(sfreq=200.0)))
    assert chain.channels.names == MONTAGES["10-20-19"]
    root, main = dataset_root(data, path)
    with open_recording(recording_from_folder(root, main), root) as signal:
        by_name = dict(zip(signal.channels.names, signal.read(0, signal.n_times), strict=True))
    sources = chain.facts.montage.sources  # type: ignore[attr-defined]
    for row, source in enumerate(sources):  # the samples moved with the names
        mine = np.interp(np.arange(by_name[source].size) / chain.input_sfreq, np.arange(made.shape[1]) / 200, made[row])
        assert np.corrcoef(mine, by_name[source])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("path", "n_missing"),
    [
        ("raw/eeg-brainvision/test.vhdr", 2),
        ("raw/eeg-eeglab/eeglab_data.set", 4),
        ("raw/eeg-bdf/multiple_annotation_chans.bdf", 9),
        (ICTAL, 19),
    ],
)
def test_what_is_missing(data: Path, path: str, n_missing: int) -> None:
    with pytest.raises(RecordingError, match=f"{19 - n_missing} of the 19") as caught:
        prepared(data, path, (PickMontage(), *SPEC))
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS
    if n_missing < 19:
        chain, _, _ = prepared(data, path, (PickMontage(require_all=False), *SPEC))
        assert len(chain.facts.montage.missing) == n_missing  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ELECTRODES)
def test_amplitudes_of_real_recordings_are_as_expected(data: Path, path: str) -> None:
    _, _, report = prepared(data, path, (*SPEC, ExpectAmplitude()))
    assert report.typical_volts is not None
    assert 7e-6 < report.typical_volts < 80e-6


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e-2, 1e2, 1e3, 1e6])
@pytest.mark.parametrize("path", ELECTRODES)
def test_a_factor_of_100_is_caught(data: Path, path: str, factor: float) -> None:
    with pytest.raises(RecordingError) as caught:
        prepared(data, path, (*SPEC, ExpectAmplitude()), factor)
    assert caught.value.code is FailureCode.UNIT_CONFLICT


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("path", ELECTRODES)
def test_a_factor_of_a_million_is_seen_when_a_file_is_opened(data: Path, path: str, factor: float) -> None:
    """In any number of channels: a quarter of them is bad, more fail the recording."""
    root, main = dataset_root(data, path)
    with open_recording(recording_from_folder(root, main), root) as signal:
        blocks = {part: signal.read(part, part + length) for part, length in looks(signal.n_times, signal.sfreq)}
        table, n_times, sfreq = signal.channels, signal.n_times, signal.sfreq
    kinds = ("eeg", "seeg", "ecog", "dbs")
    good = [i for i, (kind, bad) in enumerate(zip(table.types, table.bads, strict=True)) if kind in kinds and not bad]
    n = len(good)
    for k in sorted({1, 2, n // 4, n // 4 + 1, n // 2, n - 1, n}):
        scale = np.ones((len(table), 1))
        scale[good[:k]] = factor

        def read(start: int, _stop: int, picks: list[int], scale: NDArray[np.float64] = scale) -> NDArray[np.float64]:
            return (scale * blocks[start])[picks]

        wrong = SimpleNamespace(channels=table, n_times=n_times, sfreq=sfreq, read=read)
        if k <= max(1, n / 4):
            assert check_plausible(wrong, path) == dict.fromkeys(good[:k], "implausible")  # type: ignore[arg-type]
            continue
        with pytest.raises(RecordingError) as caught:
            check_plausible(wrong, path)  # type: ignore[arg-type]
        assert caught.value.code is FailureCode.UNIT_CONFLICT


def looks(n_times: int, sfreq: float) -> list[tuple[int, int]]:
    """Starts and lengths of what is looked at."""
    length = min(n_times, math.ceil(10 * sfreq))
    return [(part * (n_times - length) // 4, length) for part in range(4)]


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1e2, 1e6])
@pytest.mark.parametrize("path", SCALP)
def test_a_factor_in_some_channels_is_seen_whatever_their_number(data: Path, path: str, factor: float) -> None:
    """The filters are linear: what they made of one run is what they would have made of channels times a factor."""
    chain, made, report = prepared(data, path, (*SPEC, ExpectAmplitude()))
    table = chain.channels.with_bads(report.bads)
    order = [i for i, bad in enumerate(table.bads) if not bad]
    n = len(order)
    for k in sorted({1, 2, n // 4, n // 4 + 1, n // 2, n // 2 + 1, n - 1, n}):
        wrong = made.astype(np.float64)
        wrong[order[:k]] *= factor
        chain = plan_chain((ExpectAmplitude(),), table, 200.0, made.shape[1])
        run = run_chain(chain, lambda start, stop, wrong=wrong: wrong[:, start:stop])
        if k > n // 4:
            with pytest.raises(RecordingError) as caught:
                list(run)
            assert caught.value.code is FailureCode.UNIT_CONFLICT
            continue
        list(run)
        assert {i for i, why in run.report.bads.items() if why == "implausible"} == set(order[:k])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("raw/eeg-bdf/test.bdf", {"EXG1", "EXG5", "EXG8"}),
        ("raw/eeg-edf/MB0400FU.EDF", {"POL $A1", "POL $A2"}),
        ("bids/ieeg-hfo/sub-01/ses-interictalsleep/ieeg/sub-01_ses-interictalsleep_run-01_ieeg.vhdr", {"AL8"}),
        *((path, set()) for path in ELECTRODES if path not in ("raw/eeg-bdf/test.bdf", "raw/eeg-edf/MB0400FU.EDF")),
    ],
)
def test_what_is_implausible_in_real_recordings(data: Path, path: str, expected: set[str]) -> None:
    """Inputs with nothing plugged in, and a dead contact; the other channels are within a factor of 7."""
    chain, _, report = prepared(data, path, (*SPEC, ExpectAmplitude()))
    table = chain.channels.with_bads(report.bads)
    assert {name for name, bad in zip(table.names, table.bads, strict=True) if bad == "implausible"} == expected


def test_trimming_a_real_recording(data: Path) -> None:
    steps = (PickMontage(), *SPEC)
    _, whole, _ = prepared(data, REST, steps)
    chain, made, _ = prepared(data, REST, (*steps, Crop(first_seconds=60, last_seconds=60, multiple_of_seconds=30)))
    assert chain.n_times == 2 * 6000
    np.testing.assert_array_equal(made, whole[:, 12000:24000])
