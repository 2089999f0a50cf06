"""Features of EEGSSM: those of the model on the prepared signal, NaN where it saw nothing, and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from neuromill.models.eegssm import EEGSSM
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError, FailureCode
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.forecast import forecast
from neuromill.stages.identities import embed_identity
from neuromill.stages.looking import notes_of
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.work import _input_damage
from neuromill.stages.workspace import Workspace
from neuromill.store.errors import CorruptStoreError
from neuromill.store.reader import StoreReader
from neuromill.tokenizers.files import save_pretrained
from support.command import neuromill
from support.stages import Road, workspace_at
from support.tfdual import random_tokenizer
from support.tiny_eeg import HOP, MODEL, TOKENIZER, WINDOW, one_artefact, pipeline_of, write_eeg

BEFORE = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.TRAIN)
WIDTH = int(str(MODEL["out_channels"]))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Two recordings of 28 s up to a trained model; not to be changed."""
    folder = tmp_path_factory.mktemp("features")
    save_pretrained(random_tokenizer(TOKENIZER), folder / "tokenizer")
    lab = write_eeg(folder / "lab", ("01", "02"), one_artefact, seconds=28.0)
    pipeline = pipeline_of(folder / "tokenizer")
    with workspace_at(folder / "home") as workspace:
        results = {stage: run_stage(workspace, pipeline, Selection(data=lab), stage) for stage in BEFORE}
    return Road(folder / "home", lab, pipeline, results)


@pytest.fixture
def home(walked: Road, tmp_path: Path) -> Iterator[Workspace]:
    """A copy that a test may change."""
    shutil.copytree(walked.home, tmp_path / "home", symlinks=True)
    with workspace_at(tmp_path / "home") as workspace:
        yield workspace


def embed(workspace: Workspace, walked: Road, pipeline: Pipeline | None = None) -> StageResult:
    return run_stage(workspace, pipeline or walked.pipeline, walked.selection, Stage.EMBED)


def store_of(workspace: Workspace, walked: Road, stage: Stage, result: StageResult) -> Path:
    version = workspace.ledger.rows()[0].key.recording_id.dataset_version
    return workspace.store(version, stage, result.identity)


def test_features_are_those_of_the_model_on_the_prepared_signal(home: Workspace, walked: Road) -> None:
    result = embed(home, walked)
    assert (result.done, result.failed, result.note) == (2, 0, "")
    model = from_pretrained(home.run_folder(walked.results[Stage.TRAIN].identity) / "model", EEGSSM)
    stores = {stage: store_of(home, walked, stage, walked.results[stage]) for stage in (Stage.PREPARE, Stage.TOKENIZE)}
    with (
        StoreReader.open(store_of(home, walked, Stage.EMBED, result)) as features,
        StoreReader.open(stores[Stage.PREPARE]) as prepared,
        StoreReader.open(stores[Stage.TOKENIZE]) as tokens,
    ):
        for number, one in enumerate(features.recordings):
            assert (one.kind, one.main.dtype) == ("features", np.dtype("float16"))
            assert one.attributes["channel_names"] == tokens.recording(one.name).attributes["channel_names"]
            assert one.attributes["tokenizer"] == tokens.recording(one.name).attributes["tokenizer"]
            got = features.read(one.name, "features")
            assert got.shape == (28, 4, WIDTH)
            signal = prepared.read_physical(one.name).T[:, : 28 * HOP] / np.float32(TOKENIZER.input.unit_volts)
            usable = np.ones((4, 28), np.bool_)
            if number == 0:
                usable[0, WINDOW : 2 * WINDOW] = False  # 7 to 8 s lie in the second window
                signal[0, WINDOW * HOP : 2 * WINDOW * HOP] = 0
            for start in (0, WINDOW, 2 * WINDOW, 3 * WINDOW, 28 - WINDOW):
                inside = torch.from_numpy(signal[None, :, start * HOP : (start + WINDOW) * HOP].copy())
                with torch.no_grad():
                    expected = model.features(inside)[0].permute(1, 0, 2).numpy()
                rows = slice(max(start, 24) if start == 28 - WINDOW else start, start + WINDOW)
                np.testing.assert_allclose(
                    np.nan_to_num(got[rows]), np.where(usable.T[rows, :, None], expected[rows.start - start :], 0),
                    atol=4e-3,
                )  # fmt: skip
            np.testing.assert_array_equal(np.isnan(got).all(axis=2), ~usable.T)
    assert embed(home, walked).nothing_to_do
    facts = next(row.facts for row in home.ledger.rows() if row.key.stage == "embed")
    assert facts | {"wall": 0} == {"n_frames": 28, "n_channels": 4, "n_dims": WIDTH, "wall": 0}


def test_what_names_the_features(walked: Road) -> None:
    def name(**train: object) -> str:
        return embed_identity(pipeline_of(Path("/t"), **train), "tokens", "model")

    assert name() == name(max_steps=9)
    assert len({name(), name(windows={"window_patches": 3}), name(parity=True)}) == 3


def test_a_model_of_another_kind_or_another_patch_is_refused(home: Workspace, walked: Road, tmp_path: Path) -> None:
    EEGSSM(**(MODEL | {"patch_size": 100})).save_pretrained(tmp_path / "other")
    own = walked.pipeline.model_copy(update={"pretrained_model": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="a patch of the model has 100 samples, a frame of the tokens 50"):
        embed(home, walked, own)
    for number, facts in enumerate(({"sfreq": 200}, {"unit_volts": 1e-6}, {"unit_volts": "segment"})):
        EEGSSM(**MODEL, **facts).save_pretrained(tmp_path / str(number))
        with pytest.raises(ConfigError, match="for a model trained"):
            embed(home, walked, walked.pipeline.model_copy(update={"pretrained_model": str(tmp_path / str(number))}))
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text().replace('"eegssm"', '"ndt3"'))
    with pytest.raises(ConfigError, match=r"no such model|a model of kind ndt3, but tiny-eeg has train\.kind: eegssm"):
        embed(home, walked, own)


def test_another_model_makes_other_features(home: Workspace, walked: Road, tmp_path: Path) -> None:
    EEGSSM(**MODEL).save_pretrained(tmp_path / "other")
    own = walked.pipeline.model_copy(update={"pretrained_model": str(tmp_path / "other")})
    assert forecast(home, own, walked.selection, [Stage.EMBED])[0].todo == 2
    result = embed(home, walked, own)
    assert result.done == 2
    assert result.identity != embed(home, walked).identity


UNKNOWN = "the model does not tell its rate nor its unit: it was given 50 Hz in units of 100 uV, unchecked"


def test_a_model_that_does_not_tell_its_rate_and_unit_is_named_as_such(
    home: Workspace, walked: Road, tmp_path: Path
) -> None:
    """In the result, as a note of each recording, and by the command in both its forms."""
    EEGSSM(**MODEL).save_pretrained(tmp_path / "old")
    result = embed(home, walked, walked.pipeline.model_copy(update={"pretrained_model": str(tmp_path / "old")}))
    assert (result.done, result.note) == (2, UNKNOWN)
    rows = [row for row in home.ledger.rows() if row.key.stage == "embed"]
    assert [row.facts["notes"] for row in rows] == [[UNKNOWN]] * 2
    assert notes_of(home, str(rows[0].key.recording_id)) == (("embed", UNKNOWN),)
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(walked.pipeline.model_dump(mode="json")))
    where = (file, "--home", home.home, "--data", walked.data, "--engine", "serial", "--model", tmp_path / "old")
    told = f"nothing to do; {UNKNOWN}"
    (document,) = neuromill("embed", *where, "--json").document
    assert (document["already_done"], document["note"]) == (2, told)
    assert told in neuromill("embed", *where).out
    (own,) = neuromill("embed", *where[:-2], "--json").document
    assert (own["done"], own["note"]) == (2, "")


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("{0}/signal/c/0/0", "prepare"),
        ("{0}/codes/c/0/0/0", "tokenize"),
        ("{0}/zarr.json", "tokenize"),
        ("", "tokenize"),
    ],
)
def test_damage_of_either_store_names_the_stage_that_mends_it(
    home: Workspace, walked: Road, file: str, stage: str
) -> None:
    """A reader names a file below the store, so the one that has such a file is meant."""
    context = work_context(home, walked.pipeline, choose(home, walked.pipeline, walked.selection), Stage.EMBED)
    (item, *_) = plan_stage(home, walked.pipeline, walked.selection, Stage.EMBED).todo
    group = min(context.prepared_store(item).glob("*.zarr")).name
    found = _input_damage(context, item, CorruptStoreError("file is short", where=file.format(group)))
    assert found is not None
    assert found.code is FailureCode.TRUNCATED
    assert f"`neuromill {stage} PIPELINE` makes it again" in found.next_step


def test_without_the_prepared_signal_a_recording_waits(home: Workspace, walked: Road) -> None:
    store = store_of(home, walked, Stage.PREPARE, walked.results[Stage.PREPARE])
    shutil.rmtree(min(store.glob("*.zarr")))
    result = embed(home, walked)
    assert (result.done, result.failed, result.note) == (1, 0, "1 waiting")
