"""A fit does not learn from what preparation rejected: the samples there may be anything."""

from pathlib import Path

import numpy as np
import pytest

from neuromill.records import ConfigError
from neuromill.records.rejection import Rejection
from neuromill.stages.fitting import Windows
from neuromill.stages.identities import fit_identity, prepare_identity, tokenize_identity
from neuromill.stages.pipeline import Pipeline
from neuromill.store.reader import StoreReader
from neuromill.store.writer import SignalWriter
from neuromill.tokenizers.tfdual_config import TfDualFitConfig
from neuromill.tokenizers.tfdual_fitting import TfDualFitReport, fit_tfdual
from support.stages import TINY, tiny_pipeline
from support.stores import channel_table, signal_attributes
from support.tfdual import SMALL, eeg_like

N_TIMES, N_CHANNELS, REJECT_SAMPLES = 1550, 3, 100
MARKS = np.zeros((16, N_CHANNELS), np.uint8)
MARKS[1:4, 0] = 1
MARKS[6:9] = 2
MARKS[10, 1:] = 1
MARKS[15] = 1
REJECTED = np.repeat(MARKS != 0, REJECT_SAMPLES, axis=0)[:N_TIMES]
TOKENIZER = {
    "kind": "tfdual", "sfreq": 50.0, "channels": [], "group_channels": 4, "input": {"scaling": "robust"},
    "network": SMALL.model_dump() | {"depth": 1, "codebook_size": 16},
}  # fmt: skip
FIT = {"kind": "tfdual", "batch_size": 4, "steps": 4, "kmeans_iterations": 2, "log_every": 2, "cpu_threads": 1}


def joint_pipeline() -> Pipeline:
    return Pipeline.model_validate({key: TINY[key] for key in TINY if key not in ("fit", "tokenize")} | {
        "tokenizer": TOKENIZER, "fit": FIT,
    })  # fmt: skip


def prepared(store: Path, marks: np.ndarray | None, garbage: float | None = None) -> StoreReader:
    """A store of one recording, as it is or with noise of this size in the rejected samples."""
    values = eeg_like(1, N_CHANNELS, N_TIMES)[0].T.copy()
    if garbage is not None:
        values[REJECTED] = np.random.default_rng(int(garbage)).standard_normal(int(REJECTED.sum())) * garbage * 1e-6
    with SignalWriter(store, "a_meg", n_channels=N_CHANNELS, sfreq=50.0, encoding="float32") as writer:
        writer.write(values)
        windows = None if marks is None else Rejection(marks, REJECT_SAMPLES, ("kept", "amplitude", "flat"))
        writer.publish(signal_attributes("a_meg"), channel_table(N_CHANNELS), rejection=windows)
    return StoreReader.of_groups(store, ("a_meg",))


def fitted(pipeline: Pipeline, reader: StoreReader) -> TfDualFitReport:
    windows = Windows.of(pipeline, (reader,), 4, 0)
    config = TfDualFitConfig.model_validate(FIT)
    held_out = [Windows.of(pipeline, (reader,), 1, 9).batch(step) for step in range(6)]
    return fit_tfdual(pipeline.tokenizer, config, windows.batch, validation=held_out, contrast_silence=False)


def test_rejected_samples_have_no_influence_on_a_joint_fit_or_its_gate(tmp_path: Path) -> None:
    with prepared(tmp_path / "1", MARKS, 500) as one, prepared(tmp_path / "2", MARKS, 3000) as other:
        reports = [fitted(joint_pipeline(), reader) for reader in (one, other)]
    with prepared(tmp_path / "3", None, 500) as one, prepared(tmp_path / "4", None, 3000) as other:
        blind = [fitted(joint_pipeline(), reader) for reader in (one, other)]
    assert reports[0].tokenizer.digest == reports[1].tokenizer.digest
    assert reports[0].losses == reports[1].losses
    assert reports[0].summary() == reports[1].summary()
    assert blind[0].tokenizer.digest != blind[1].tokenizer.digest


def test_joint_windows_are_nan_where_rejected_and_never_wholly(tmp_path: Path) -> None:
    with prepared(tmp_path, MARKS) as reader:
        windows = Windows.of(joint_pipeline(), (reader,), 4, 0)
        whole = reader.read_physical("a_meg")
        batches = [windows.batch(step).numpy() for step in range(40)]
        for step, batch in enumerate(batches):
            for pick, found in zip(windows.plan.batch(step), batch, strict=True):
                part = slice(pick.start, pick.start + windows.plan.window_samples)
                np.testing.assert_array_equal(found, np.where(REJECTED[part], np.nan, whole[part]).T)
    everything = np.concatenate(batches)
    assert np.isfinite(everything).all(axis=-1).any(axis=-1).all()
    assert np.isnan(everything).any()


def test_rows_hold_no_rejected_sample(tmp_path: Path) -> None:
    """Rejected samples are a thousand times larger than any other."""
    with prepared(tmp_path / "marked", MARKS, 1e6) as marked, prepared(tmp_path / "not", None, 1e6) as unmarked:
        largest = [
            max(float(Windows.of(tiny_pipeline(), (reader,), 8, 0).batch(step).abs().max()) for step in range(30))
            for reader in (marked, unmarked)
        ]
    assert largest[0] < 1e-3 < largest[1]


@pytest.mark.parametrize("pipeline", [joint_pipeline(), tiny_pipeline()], ids=["joint", "rows"])
def test_marks_that_keep_everything_change_nothing(tmp_path: Path, pipeline: Pipeline) -> None:
    with prepared(tmp_path / "1", None) as without, prepared(tmp_path / "2", np.zeros_like(MARKS)) as kept:
        for step in range(5):
            one, other = (Windows.of(pipeline, (reader,), 4, 0).batch(step) for reader in (without, kept))
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_everything_rejected_is_told(tmp_path: Path) -> None:
    with prepared(tmp_path, np.ones_like(MARKS)) as reader:
        for pipeline in (joint_pipeline(), tiny_pipeline()):
            windows = Windows.of(pipeline, (reader,), 4, 0)
            assert windows.plan.is_empty
            with pytest.raises(ConfigError, match="preparation did not reject"):
                windows.batch(0)


def test_only_fits_on_marked_signals_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that were given before; the readers were those of version 1 then."""
    monkeypatch.setattr("neuromill.stages.identities.READER_CODE", "1")
    steps = TINY["prepare"]["steps"]
    reject = {"step": "reject", "threshold_volts": 1e-4, "window_seconds": 2}
    marked, plain = tiny_pipeline(prepare={"steps": [*steps, reject]}), tiny_pipeline()
    assert fit_identity(plain, ()) == "767791f670b3fe8f"
    assert prepare_identity(marked) == "bab66c922dc472f5"
    assert tokenize_identity(marked, "sha256:1") == "7e7dcb0639c30d4a"
    assert fit_identity(marked, ()) != "2e7e30cf35971341"
