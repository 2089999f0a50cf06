"""Pipeline files: what loads, what an override may do, what a mistake is told."""

from pathlib import Path

import pytest

from neuromill.records import ConfigError
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.shipped import find_pipeline, pipeline_names, shipped_folder

TEXT = """\
name: mine
prepare:
  steps:
    - {step: pick, picks: [meg]}
    - {step: filter, l_freq: 0.1, h_freq: 40.0}
    - {step: resample, sfreq: 50.0}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("name", pipeline_names())
def test_shipped_pipelines_load_and_name_cards_that_exist(name: str) -> None:
    pipeline = load_pipeline(find_pipeline(name))
    cards = {path.stem for path in shipped_folder("catalogs").rglob("*.yaml")}
    assert pipeline.name == name
    assert set(pipeline.datasets) <= cards
    assert pipeline.datasets


def test_there_are_shipped_pipelines() -> None:
    assert {"demo", "meg-xl"} <= set(pipeline_names())


def test_defaults_are_the_published_values(file: Path) -> None:
    pipeline = load_pipeline(file)
    assert pipeline.tokenizer.network.n_quantizers == 6
    assert pipeline.train.model.latent_dim == 512
    assert pipeline.tokenize.segment_seconds == 150.0
    assert (pipeline.keep_raw, pipeline.datasets, pipeline.pretrained) == (True, (), None)


@pytest.mark.parametrize(
    ("override", "look", "value"),
    [
        ("prepare.steps.filter.l_freq=0.5", lambda p: p.prepare.steps[1].l_freq, 0.5),
        ("prepare.steps.1.l_freq=0.5", lambda p: p.prepare.steps[1].l_freq, 0.5),
        ("prepare.steps.filter.l_freq=null", lambda p: p.prepare.steps[1].l_freq, None),
        ("prepare.dtype=float32", lambda p: p.prepare.dtype, "float32"),
        ("train.max_steps=7", lambda p: p.train.max_steps, 7),
        ("train.model.n_layers=2", lambda p: p.train.model.n_layers, 2),
        ("datasets=[ds000117]", lambda p: p.datasets, ("ds000117",)),
        ("where=subject = '01'", lambda p: p.where, "subject = '01'"),
        ("keep_raw=false", lambda p: p.keep_raw, False),
        ("pretrained.source=/a/folder", lambda p: p.pretrained and p.pretrained.source, "/a/folder"),
        ("prepare.steps.2={step: resample, sfreq: 25}", lambda p: p.prepare.steps[2].sfreq, 25.0),
    ],
)
def test_an_override_changes_one_value(file: Path, override: str, look, value: object) -> None:
    assert look(load_pipeline(file)) != value
    assert look(load_pipeline(file, [override])) == value


def test_later_overrides_win_and_the_file_stays(file: Path) -> None:
    pipeline = load_pipeline(file, ["train.max_steps=7", "train.max_steps=8"])
    assert pipeline.train.max_steps == 8
    assert file.read_text() == TEXT


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("prepare.steps.filter", "prepare.steps.filter"),
        ("=1", "=1"),
        ("prepare.steps.notch_filter.freqs=[50]", "prepare.steps.notch_filter.freqs=[50]"),
        ("prepare.steps.7.l_freq=1", "prepare.steps.7.l_freq=1"),
        ("prepare.steps.-1.l_freq=1", "prepare.steps.-1.l_freq=1"),
        ("name.first=1", "name.first=1"),
        ("prepare.steps.filter.lfreq=1", "prepare.steps.1.filter.lfreq"),
        ("prepare.steps.filter.l_freq=often", "prepare.steps.1.filter.l_freq"),
        ("prepare.steps.filter.l_freq=50", "l_freq must lie below h_freq"),
        ("train.modle.n_layers=2", "train.modle"),
        ("train.max_steps=0", "train.max_steps"),
        ("prepare.steps.filter.step=fliter", "prepare.steps.1"),
        ("where=[", "where=["),
        ("train=5", "train"),
        ("train.=5", "train."),
        ("train..max_steps=5", "train.: "),
    ],
)
def test_a_wrong_override_is_refused_and_its_place_named(file: Path, override: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file, [override])
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_step_named_twice_needs_its_position(file: Path) -> None:
    file.write_text(TEXT + "    - {step: filter, l_freq: null, h_freq: 30.0}\n")
    with pytest.raises(ConfigError, match="neither a position nor the name of one step"):
        load_pipeline(file, ["prepare.steps.filter.h_freq=20"])
    assert load_pipeline(file, ["prepare.steps.3.h_freq=20"]).prepare.steps[3].h_freq == 20.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TEXT + "colour: red\n", "colour: there is no such key"),
        ("name: mine\n", "prepare: Field required"),
        (TEXT.replace("0.1", "often"), "prepare.steps.1.filter.l_freq"),
        ("- a\n- b\n", "a pipeline file is a YAML mapping"),
        ("", "a pipeline file is a YAML mapping"),
        ("name: [\n", "not a YAML file"),
        ("name: !!python/object/apply:os.system ['true']\n", "not a YAML file"),
        (TEXT + "tokenize: {segment_seconds: -1}\nfit: {steps: 0}\n", "tokenize.segment_seconds"),
    ],
)
def test_a_wrong_file_is_refused_and_each_place_named(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file)
    assert told in caught.value.what
    assert caught.value.where == str(file)
    assert "\n" not in str(caught.value)


def test_every_wrong_place_is_named_at_once(file: Path) -> None:
    file.write_text(TEXT + "tokenize: {segment_seconds: -1}\nfit: {steps: 0}\n")
    with pytest.raises(ConfigError, match=r"fit\.steps.*tokenize\.segment_seconds"):
        load_pipeline(file)


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not a YAML file"):
        load_pipeline(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such pipeline file"):
        load_pipeline(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["meg-xl", "meg-xl.yaml", "pipelines/meg-xl.yaml"])
def test_a_shipped_pipeline_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_pipeline(name) == shipped_folder("pipelines") / "meg-xl.yaml"


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meg-xl.yaml").write_text(TEXT)
    assert find_pipeline("meg-xl.yaml") == Path("meg-xl.yaml")


@pytest.mark.parametrize("name", ["meg-xxl", "elsewhere/meg-xl.yaml", "meg-xl.json", ""])
def test_an_unknown_pipeline_lists_the_known_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="meg-xl"):
        find_pipeline(name)


def test_a_pipeline_survives_json() -> None:
    pipeline = load_pipeline(find_pipeline("meg-xl"))
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(find_pipeline("demo").read_text() + "\nname: another\n")
    with pytest.raises(ConfigError, match="'name' occurs twice"):
        load_pipeline(path)


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        (
            "demo-eeg",
            ["prepare.steps.resample.sfreq=256"],
            "prepare.steps.resample.sfreq is 256 Hz, tokenizer.sfreq 200",
        ),
        ("meg-xl", ["prepare.steps.resample.sfreq=60"], "60 Hz, tokenizer.normalization.sfreq 50 Hz"),
        ("demo-eeg", ["tokenizer.sfreq=250"], "resample.sfreq is 200 Hz, tokenizer.sfreq 250 Hz"),
        ("demo-eeg", ["tokenizer={kind: mu_law, sfreq: 100}", "train={}"], "200 Hz, tokenizer.sfreq 100 Hz"),
        ("demo-eeg", ["train.model.patch_size=200"], "patch_size is 200 samples, a frame of the tokenizer has 100"),
        (
            "codebrain",
            ["tokenizer={kind: biocodec, normalization: {sfreq: 200}}", "fit={}"],
            "train.kind eegssm takes tokens of tfdual, tokenizer.kind is biocodec",
        ),
        ("codebrain", ["tokenizer={kind: mu_law}"], "takes tokens of tfdual, tokenizer.kind is mu_law"),
        ("codebrain", ["tokenizer={kind: quantile}"], "takes tokens of tfdual, tokenizer.kind is quantile"),
        ("demo-eeg", ["train.model.sfreq=250"], "a signal at 200 Hz for a model trained at 250 Hz"),
        (
            "demo-eeg",
            ["train.model.unit_volts=1.0e-6"],
            "in units of 100 uV for a model trained on one in units of 1 uV",
        ),
        ("demo-eeg", ["train.windows.window_patches=15"], "train.windows are 15 patches every 15"),
        ("demo-eeg", ["tokenize.segment_seconds=30"], "segment_seconds is 30, the tokenizer sees windows of 5 s"),
        ("demo-eeg", ["train={kind: criss_cross}"], "criss_cross takes tokens of biocodec, tokenizer.kind is tfdual"),
        ("meg-xl", ["train={kind: ndt3}"], "ndt3 takes tokens of ndt3, tokenizer.kind is biocodec"),
        ("ndt3", ["train={kind: eegssm}"], "tokenizer.kind is ndt3"),
        ("demo-eeg", ["fit={steps: 3}"], "fit.kind is biocodec, tokenizer.kind tfdual"),
        ("demo", ["fit={kind: tfdual}"], "fit.kind is tfdual, tokenizer.kind biocodec"),
        ("ndt3", ["tokenizer={kind: biocodec}", "train={}"], "prepare.kind is spikes"),
        ("meg-xl", ["tokenizer={kind: ndt3}"], "prepare.kind is signal"),
        ("demo-eeg", ["prepare.steps.0={step: pick_bipolar}"], "pick_bipolar leaves 0 of the 19 channels"),
        ("meg-xl", ["tokenizer={kind: tfdual, sfreq: 50}"], "keeps MEG alone"),
    ],
)
def test_sections_that_rule_each_other_out_are_refused_before_anything_is_made(
    name: str, overrides: list[str], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(find_pipeline(name), overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("demo-eeg", ["prepare.steps.resample.sfreq=256", "tokenizer.sfreq=256"]),
        ("demo-eeg", ["prepare.steps.resample.sfreq=256", "pretrained.source=/a/folder"]),
        (
            "demo-eeg",
            [
                "tokenizer.network={patch_samples: 50, width: 112, heads: 4}",
                "train.model.patch_size=50",
                "train.windows={}",
            ],
        ),
        ("demo-eeg", ["train.windows.window_patches=20"]),
        ("demo-eeg", ["train.windows.window_patches=5"]),
        ("demo-eeg", ["tokenize.segment_seconds=5"]),
        ("demo-eeg", ["tokenizer={kind: mu_law}", "train={}"]),
        ("demo-eeg", ["prepare.steps.0={step: pick_bipolar, pairs: [FZ-CZ]}", "tokenizer.channels=[fz-cz]"]),
        ("demo-eeg", ["prepare.steps.0={step: pick, picks: [eeg]}"]),
        ("meg-xl", ["tokenizer={kind: tfdual, sfreq: 50, channels: [], input: {scaling: robust}}", "tokenize={}"]),
    ],
)
def test_sections_that_agree_load(name: str, overrides: list[str]) -> None:
    assert load_pipeline(find_pipeline(name), overrides).name == name


def test_codebrain_says_what_was_published_and_what_was_not() -> None:
    """By hand from the paper's two stages; what differs stands in the table of docs/eegssm.md, and nowhere else."""
    pipeline = load_pipeline(find_pipeline("codebrain"))
    tokenizer, fit, train = pipeline.tokenizer, pipeline.fit, pipeline.train
    network = tokenizer.network
    assert (network.width, network.depth, network.heads, network.mlp_ratio, network.decoder_depth) == (
        200,
        12,
        10,
        4,
        3,
    )
    assert (network.codebook_size, network.codebook_dim, network.patch_samples, network.window_patches) == (
        4096,
        32,
        200,
        30,
    )
    assert (tokenizer.sfreq, tokenizer.input.unit_volts, tokenizer.input.clip) == (200, 100e-6, None)
    assert (fit.batch_size, fit.steps, fit.min_lr) == (256, 20 * (1_109_545 // 256), 1e-5)
    assert fit.lr == pytest.approx(1e-4 * fit.batch_size / 128)
    assert (fit.betas, fit.weight_decay, fit.max_grad_norm, fit.ema_decay) == ((0.9, 0.999), 1e-4, None, 0.99)
    assert set(fit.losses.model_dump().values()) == {1.0, 0.1}
    assert (train.optim.lr, train.optim.weight_decay, train.optim.clip_norm) == (1e-4, 5e-3, 5)
    assert (train.optim.warmup_steps, train.cosine_length, train.epochs) == (0, 40, 10)
    assert train.optim.lr * train.optim.final_lr_share == pytest.approx(1e-5)
    assert train.batch_size * train.accumulate_batches == 256
    assert (train.mask_share, train.seed, train.precision) == (0.5, 42, "32-true")
    ours = (
        tokenizer.n_bins,
        tokenizer.uses_angle,
        fit.warmup_share,
        fit.kmeans_init,
        fit.revival.enabled,
        train.parity,
    )
    assert ours == (101, False, 0.05, True, True, False)
    published = tokenizer.model_copy(update={"parity": True})
    assert (published.n_bins, published.uses_angle) == (200, True)
