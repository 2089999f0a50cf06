"""The train stage for EEGSSM: signals and tokens from the stores, rejected windows, what names the run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import ModelInput
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.eegssm_training import input_of, open_coded, unchecked_input
from neuromill.stages.forecast import forecast
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.probing import run_probe
from neuromill.stages.report import Silent
from neuromill.stages.running import plan_stage, run_pipeline, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.training import halves
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.tokenizers.files import save_pretrained
from neuromill.tokenizers.tfdual_config import CHANNELS_10_20, TfDualInputConfig
from neuromill.training.metrics import MetricsFile
from neuromill.training.probe_config import LabelConfig, ProbeConfig
from support.codec import small_tokenizer
from support.eeg_roads import SMALL_TFDUAL
from support.stages import Listener, workspace_at
from support.tfdual import random_tokenizer, table
from support.tiny_eeg import HOP, MODEL, SFREQ, TOKENIZER, WINDOW, one_artefact, pipeline_of, write_eeg

SUBJECTS_TASK = ProbeConfig(labels=LabelConfig(source="entity", column="subject"), window_seconds=6)
TIMES_TASK = ProbeConfig(labels=LabelConfig(source="events"), window_seconds=2)
EVENTS = "onset\tduration\ttrial_type\n1\t0\teven\n9\t0\todd\n13\t0\teven\n19\t0\todd\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eeg")
    save_pretrained(random_tokenizer(TOKENIZER), folder / "tokenizer")
    write_eeg(folder / "lab", ("01", "02", "03"), one_artefact, events=EVENTS)
    return folder


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Iterator[Workspace]:
    with workspace_at(folder / "home") as opened:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            result = run_stage(opened, pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab"), stage)
            assert (result.done, result.failed) == (3, 0)
        yield opened


def test_a_run_reads_both_stores_and_is_done_once(workspace: Workspace, folder: Path) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab")
    listener = Listener()
    result = run_stage(workspace, pipeline, selection, Stage.TRAIN, listener)
    assert result.note.startswith("loss ")
    rows = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()
    assert rows[0]["loss"] == pytest.approx(2 * np.log(300), abs=1)
    assert len(rows[0]["per_quantizer"]) == len(rows[0]["commonest"]) == 2
    model = from_pretrained(workspace.run_folder(result.identity) / "model", EEGSSM)
    assert (model.config.codebook_size_t, model.config.codebook_size_f) == (300, 300)
    assert model.config.input == ModelInput(SFREQ, 100e-6)
    assert run_stage(workspace, pipeline, selection, Stage.TRAIN).note == "nothing to do"
    other = run_stage(workspace, pipeline_of(folder / "tokenizer", mask_share=0.4), selection, Stage.TRAIN)
    assert other.identity != result.identity


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"sfreq": 200}, "a signal at 50 Hz for a model trained at 200 Hz"),
        ({"unit_volts": 1e-6}, "in units of 100 uV for a model trained on one in units of 1 uV"),
    ],
)
def test_settings_that_name_another_rate_or_unit_than_the_tokens(
    workspace: Workspace, folder: Path, facts: dict[str, float], told: str
) -> None:
    pipeline = pipeline_of(folder / "tokenizer", model=MODEL | facts)
    with pytest.raises(ConfigError, match=told):
        run_stage(workspace, pipeline, Selection(data=folder / "lab"), Stage.TRAIN)


@pytest.mark.parametrize(
    ("known", "given", "told"),
    [
        (ModelInput(50.0, 1e-4), ModelInput(50.0, 1e-4), ""),
        (ModelInput(50.0, "segment"), ModelInput(50.0, "segment"), ""),
        (ModelInput(), ModelInput(50.0, 1e-4), "rate nor its unit: it was given 50 Hz in units of 100 uV"),
        (ModelInput(), ModelInput(50.0, "segment"), "rate nor its unit: it was given 50 Hz scaled segment by segment"),
        (ModelInput(50.0), ModelInput(50.0, 1e-6), "unit: it was given 50 Hz in units of 1 uV"),  # the published class
        (ModelInput(None, 1e-4), ModelInput(62.5, 1e-4), "rate: it was given 62.5 Hz in units of 100 uV"),
    ],
)
def test_what_is_said_of_a_model_that_does_not_tell_its_input(known: ModelInput, given: ModelInput, told: str) -> None:
    assert unchecked_input(known, given) == (f"the model does not tell its {told}, unchecked" if told else "")


def test_what_a_model_of_scaled_segments_is_given() -> None:
    robust = TOKENIZER.model_copy(update={"input": TfDualInputConfig(scaling="robust")})
    assert input_of(random_tokenizer(robust)) == ModelInput(SFREQ, "segment")


OTHER_KIND = r"train\.kind eegssm takes tokens of tfdual, the tokenizer is biocodec"


@pytest.mark.parametrize("name", ["ingest", "prepare", "tokenize", "run", "forecast", "forecast of train", "flow"])
def test_a_published_tokenizer_of_another_kind_is_refused_before_any_work(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """BioCodec's `scale` divides normalised rows: over it the model would be given some 1e-5 volts."""
    save_pretrained(small_tokenizer(), tmp_path / "tokenizer")
    pipeline, selection = pipeline_of(tmp_path / "tokenizer"), Selection(data=folder / "lab")
    calls = {
        "run": run_pipeline,
        "forecast": forecast,
        "forecast of train": partial(forecast, stages=[Stage.TRAIN]),
        "flow": partial(plan_stage, stage=Stage.INGEST),
    }
    with workspace_at(tmp_path / "home") as workspace:
        call = calls.get(name) or partial(run_stage, stage=Stage(name))
        with pytest.raises(ConfigError, match=OTHER_KIND):
            call(workspace, pipeline, selection)
        assert not workspace.ledger.rows()
        assert not (workspace.home / "stores").exists()


def test_the_kind_of_a_published_tokenizer_is_told_without_its_weights(folder: Path, tmp_path: Path) -> None:
    """Weights opened when `ingest` is planned would be kept until `tokenize`, and the folder may be another by then."""
    save_pretrained(small_tokenizer(), tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "model.safetensors").unlink()
    with workspace_at(tmp_path / "home") as workspace, pytest.raises(ConfigError, match=OTHER_KIND):
        run_stage(workspace, pipeline_of(tmp_path / "tokenizer"), Selection(data=folder / "lab"), Stage.INGEST)


def test_a_published_tokenizer_that_is_not_there_yet_is_refused_before_it_makes_tokens(
    folder: Path, tmp_path: Path
) -> None:
    """As a repository on a hub: nothing says what it is before `tokenize` opens it.

    Nothing in the file tells the kind, and neither the settings of the model nor the length of its patches may hide it.
    """
    pipeline, selection = pipeline_of(tmp_path / "tokenizer"), Selection(data=folder / "lab")
    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE):
            assert run_stage(workspace, pipeline, selection, stage).done == 3
        save_pretrained(small_tokenizer(), tmp_path / "tokenizer")
        EEGSSM(**MODEL).save_pretrained(tmp_path / "model")  # knows neither rate nor unit
        own = pipeline.model_copy(update={"pretrained_model": str(tmp_path / "model")})
        for stage, one in ((Stage.TOKENIZE, pipeline), (Stage.EMBED, own)):
            with pytest.raises(ConfigError, match=OTHER_KIND):
                run_stage(workspace, one, selection, stage)
        assert {row.key.stage for row in workspace.ledger.rows()} == {"ingest", "prepare"}


def test_tokens_of_another_kind_are_refused_when_they_are_opened() -> None:
    """Those of an older version, which made them first."""
    with pytest.raises(ConfigError, match=OTHER_KIND):
        input_of(small_tokenizer())


def test_the_signal_is_in_the_unit_of_the_tokenizer_and_rejected_windows_are_silent(
    workspace: Workspace, folder: Path
) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab")
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    source = open_coded(workspace, context, halves(workspace, chosen, context).train)
    assert [one.subject for one in source.recordings] == ["01", "02", "03"]
    first = source.recordings[0]
    assert (first.n_frames, first.n_channels, first.segment_frames) == (30, 4, WINDOW)
    expected = np.ones((4, 30), np.bool_)
    expected[0, 6:12] = False  # 7 to 8 s lie in the second window of 6 s
    np.testing.assert_array_equal(source.usable(0, 0, 30), expected)
    store = workspace.store(chosen.selected[0].id.dataset_version, Stage.PREPARE, context.identity(Stage.PREPARE))
    with StoreReader.open(store) as reader:
        volts = reader.read_physical(reader.recordings[0].name)
    out = np.empty((4, 9 * HOP), np.float32)
    source.read_signal(0, 4, 13, out)  # over two seams of segments
    seen = volts[4 * HOP : 13 * HOP].T / TOKENIZER.input.unit_volts
    seen[0, 2 * HOP : 8 * HOP] = 0  # the tokenizer had nothing there
    np.testing.assert_allclose(out, seen, rtol=1e-5, atol=1e-6)
    assert source.code_counts().sum() == 2 * (4 * 30 * 3 - 6)


def test_parity_rejects_whole_windows(workspace: Workspace, folder: Path) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer", parity=True), Selection(data=folder / "lab")
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    source = open_coded(workspace, context, halves(workspace, chosen, context).train)
    assert source.usable(0, 0, 30).all(axis=0).tolist() == [True] * 6 + [False] * 6 + [True] * 18


def test_a_patch_of_another_length_is_refused(workspace: Workspace, folder: Path) -> None:
    pipeline = pipeline_of(folder / "tokenizer", model={**MODEL, "patch_size": 100})
    with pytest.raises(ConfigError, match=r"has 50 samples, a patch of the model 100.*train\.model\.patch_size to 50"):
        run_stage(workspace, pipeline, Selection(data=folder / "lab"), Stage.TRAIN)


def write_card(home: Path, folder: Path) -> None:
    """The folder as a dataset whose third subject is held out."""
    card = {
        "id": "own-eeg", "title": "own", "archive": "local", "version": "1", "folder": str(folder), "modality": "eeg",
        "device": "made up", "licence": "CC0-1.0", "citation": "", "recordings": {"layout": "bids"},
        "splits": {"validation": {"subject": ["03"]}},
    }  # fmt: skip
    (home / "catalogs").mkdir(parents=True, exist_ok=True)
    (home / "catalogs" / "own.yaml").write_text(yaml.safe_dump(card))


def test_a_held_out_subject_is_validated_on_and_probed(folder: Path, tmp_path: Path) -> None:
    write_card(tmp_path, folder / "lab")
    pipeline = pipeline_of(folder / "tokenizer").model_copy(update={"datasets": ("own-eeg",)})
    with workspace_at(tmp_path) as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            assert run_stage(workspace, pipeline, Selection(), stage).done == 3
        with pytest.raises(ConfigError, match="no model is trained"):
            run_probe(workspace, pipeline, Selection(), SUBJECTS_TASK, Silent())
        result = run_stage(workspace, pipeline, Selection(), Stage.TRAIN)
        assert "held out" in result.note
        assert result.note.count("(commonest ") == 2
        assert {"accuracy", "frequencies_accuracy"} <= workspace.ledger.runs("train")[-1].facts.keys()
        rows = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()
        assert [row["kind"] for row in rows] == ["baseline", "train", "train", "train", "validation"]
        assert rows[0]["positions"] == rows[-1]["positions"] > 0
        probed = run_probe(workspace, pipeline, Selection(), TIMES_TASK, Silent())
        assert (probed.split, probed.n_folds, probed.tested) == ("card", 1, 4)
        assert probed.notes == ()
        with pytest.raises(ConfigError, match="03: only tested subjects have it"):
            run_probe(workspace, pipeline, Selection(), SUBJECTS_TASK, Silent())


# Real EEG


@pytest.mark.data
def test_real_eeg_starts_at_chance_and_every_code_stands_for_its_patch(data: Path, tmp_path: Path) -> None:
    """19 channels at 200 Hz, patches of 1 s, two codebooks of 4,096: 2 ln 4096 = 16.6 nats."""
    tokenizer = random_tokenizer(SMALL_TFDUAL)
    save_pretrained(tokenizer, tmp_path / "tokenizer")
    steps = [
        {"step": "pick_montage", "montage": "10-20-19"}, {"step": "resample", "sfreq": 200},
        {"step": "filter", "l_freq": 0.3, "h_freq": 75}, {"step": "crop", "multiple_of_seconds": 30},
        {"step": "reject", "threshold_volts": 1e-4, "window_seconds": 30},
    ]  # fmt: skip
    small = {"res_channels": 16, "skip_channels": 16, "out_channels": 16, "num_res_layers": 2}
    train = {"kind": "eegssm", "model": small, "batch_size": 2, "accumulate_batches": 2, "max_steps": 2}
    pipeline = Pipeline.model_validate(
        {
            "name": "real", "prepare": {"steps": steps}, "tokenizer": SMALL_TFDUAL.model_dump(),
            "fit": {"kind": "tfdual"}, "pretrained": {"source": str(tmp_path / "tokenizer")},
            "train": train | {"accelerator": "cpu", "cpu_threads": 1, "log_every_steps": 1},
        }
    )  # fmt: skip
    selection = Selection(data=data / "bids" / "eeg-arithmetic")
    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            assert run_stage(workspace, pipeline, selection, stage).failed == 0
        result = run_stage(workspace, pipeline, selection, Stage.TRAIN)
        first = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()[0]
        assert first["loss"] == pytest.approx(2 * np.log(4096), abs=0.8)
        chosen = choose(workspace, pipeline, selection)
        context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
        source = open_coded(workspace, context, halves(workspace, chosen, context).train)
    # What the loader hands out, through the tokenizer again: the very codes.
    usable = source.usable(0, 30, 60)
    x, codes = np.empty((19, 6000), np.float32), np.empty((19, 30, 2), np.int32)
    source.read_signal(0, 30, 60, x)
    source.read_codes(0, 30, 60, codes)
    assert usable.any()
    assert np.abs(x.reshape(19, 30, 200)[usable]).max() < 1  # below 100 uV, or it were rejected
    again = tokenizer.encode_segments(x[None] * np.float32(1e-4), table(CHANNELS_10_20), 32).codes[0]
    share = (again.transpose(2, 0, 1) == codes).mean()
    assert share > 0.999  # scaling there and back rounds the last bit
