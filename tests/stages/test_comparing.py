"""Several tokenizers on the same held-out windows: which windows, at which rate, and what the table says."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError
from neuromill.stages.comparing import Bench, compare_tokenizers, resampled, spread_windows, window_seconds
from neuromill.stages.comparison_table import contents_of, notes_of, table_of
from neuromill.stages.contenders import Contender
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.tokenizers.files import save_pretrained
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig
from support.codec import small_tokenizer
from support.eeg_roads import codebrain_steps
from support.stages import N_CHANNELS, Road, open_workspace, run, save_tiny_tokenizer, tiny_pipeline, workspace_at
from support.tfdual import SMALL, random_tokenizer, table

LEVELS_1000 = {"kind": "quantile", "sfreq": 50.0, "n_codes": 1000}


@pytest.fixture
def opened(walked: Road) -> Iterator[Workspace]:
    workspace = open_workspace(walked.home)
    yield workspace
    workspace.close()


def fixed_pipeline(**tokenizer: object) -> Pipeline:
    document = tiny_pipeline().model_dump(mode="json", exclude_unset=True)
    return Pipeline.model_validate({key: document[key] for key in ("name", "prepare")} | {"tokenizer": tokenizer})


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=5), st.integers(1, 700), st.integers(1, 40))
def test_windows_lie_inside_recordings_apart_and_spread(n_times: list[int], window: int, count: int) -> None:
    found = spread_windows(n_times, window, count)
    assert len(set(found)) == len(found) == min(count, sum(n // window for n in n_times))
    assert list(found) == sorted(found)
    for recording, start in found:
        assert start % window == 0
        assert start + window <= n_times[recording]
    possible = [i for i, n in enumerate(n_times) if n >= window]
    if len(found) > 1:
        assert (found[0][0], found[-1][0]) == (possible[0], possible[-1])


@pytest.mark.parametrize(("sfreq", "new"), [(200.0, 50.0), (50.0, 200.0), (200.0, 256.0), (100.0, 100.0)])
def test_resampling_puts_a_sine_on_the_other_grid(sfreq: float, new: float) -> None:
    times, other = np.arange(round(10 * sfreq)) / sfreq, np.arange(round(10 * new)) / new
    rows = np.stack([np.sin(2 * np.pi * f * times) for f in (3.0, 11.0)]).astype(np.float32)
    expected = np.stack([np.sin(2 * np.pi * f * other) for f in (3.0, 11.0)])
    found = resampled(rows[None], sfreq, new, len(other))[0]
    assert found.dtype == np.float32
    inner = (other > 1.5) & (other < 8.5)
    assert np.abs(found - expected)[:, inner].max() < 1e-4


def test_resampling_keeps_missing_channels_to_themselves() -> None:
    rows = np.ones((2, 2000), np.float32)
    rows[0, 7] = np.nan
    found = resampled(rows, 200.0, 50.0, 500)
    assert np.isnan(found[0]).any()
    assert np.allclose(found[1], 1, atol=1e-5)


def test_length_of_windows() -> None:
    joint, free = random_tokenizer(), small_tokenizer()
    assert window_seconds([free]) == 30.0
    assert window_seconds([free], 5.0) == 5.0
    long = SMALL.model_copy(update={"patch_samples": 400, "width": 100, "heads": 5})
    longer = TfDualTokenizerConfig(network=long, channels=("A",))
    assert window_seconds([random_tokenizer(longer), joint, free]) == 12.0
    for tokenizers, wanted in (([free], 1.0), ([random_tokenizer(longer)], 10.0)):
        with pytest.raises(ConfigError, match="too short"):
            window_seconds(tokenizers, wanted)


def test_a_bench_gives_back_what_the_tokenizer_gives_back() -> None:
    signal = np.random.default_rng(0).standard_normal((2, 8, 500)).astype(np.float32)
    same = Bench(Contender("mu", FixedTokenizer(MuLawConfig(sfreq=100.0, n_codes=4095))), 100.0, 4)
    trip = same.round_trip(signal, table())
    assert trip.codes.shape == (2, 500, 1, 8)
    assert np.abs(trip.back - signal).max() < 0.02
    assert trip.amplitudes == ()
    assert same.speed > 0
    joint = random_tokenizer()  # windows of 240 samples at 200 Hz
    bench = Bench(Contender("joint", joint), 100.0, 8)
    assert bench.pieces(1000) == [(0, 240), (240, 480), (480, 720), (720, 960), (960, 1000)]
    trip = bench.round_trip(signal, table())
    assert (trip.back.shape, trip.codes.shape) == (signal.shape, (2, 25, 2, 8))
    assert [one.frequency.shape for one in trip.amplitudes] == [(2, 8, n, 21) for n in (6, 6, 6, 6, 1)]


def test_pipelines_and_others_in_one_table(walked: Road, opened: Workspace, tmp_path: Path) -> None:
    joint = TfDualTokenizerConfig(
        sfreq=100.0, channels=(), group_channels=4, input={"scaling": "robust"}, network=SMALL
    )
    save_pretrained(random_tokenizer(joint), tmp_path / "joint")
    others = ("mu_law", "quantile", str(tmp_path / "joint"))
    pipelines = (walked.pipeline, fixed_pipeline(**LEVELS_1000))
    found = compare_tokenizers(opened, pipelines, walked.selection, others, n_windows=3, seconds=4.0)
    names = [one.name for one in found.tokenizers]
    assert names == ["tiny (biocodec)", "tiny (quantile)", "mu_law", "quantile", str(tmp_path / "joint")]
    assert (found.n_windows, found.window_seconds, found.sfreq) == (3, 4.0, 50.0)
    assert found.n_rows == 3 * N_CHANNELS
    assert found.split == "train"  # a folder of one's own holds nothing out, and the table says so
    assert "none of them held out" in notes_of(found)[0]
    codec, fine, mu_law, quantile, other = found.tokenizers
    assert (codec.seen, fine.seen) == (True, False)
    assert fine.fidelity.si_sdr_db > quantile.fidelity.si_sdr_db > 30
    assert fine.fidelity.correlation > mu_law.fidelity.correlation > 0.999
    assert abs(codec.fidelity.correlation) < 0.9  # fitted for three steps
    assert (other.resampled, mu_law.resampled) == (True, False)
    assert mu_law.rate.nominal == 8 * 50
    assert codec.rate.nominal == 3 * 4 * 50 / 12
    assert codec.rate.entropy <= codec.rate.nominal
    assert found.band.high == pytest.approx(20.0)
    columns, rows = table_of(found)
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0][0] == "tiny (biocodec) (fitted on these)"
    assert [bool(one.amplitude_error) for one in found.tokenizers] == [False] * 4 + [True]
    (note,) = [note for note in notes_of(found) if "temporal codebook" in note]
    assert "theta" in note
    assert json.loads(json.dumps(found.as_dict()))["tokenizers"][2]["kind"] == "mu_law"
    contents = contents_of(found)
    assert len(contents.contestants) == 5
    assert {one.reconstruction.shape for one in contents.contestants} == {contents.original.shape}


def test_the_same_again_gives_the_same_scores(walked: Road, opened: Workspace) -> None:
    def scores() -> list[dict[str, object]]:
        found = compare_tokenizers(opened, (walked.pipeline,), walked.selection, ("mu_law",), n_windows=2, seconds=4.0)
        documents = [one.as_dict() for one in found.tokenizers]
        return [{key: value for key, value in d.items() if not key.startswith("encode_speed")} for d in documents]

    assert scores() == scores()


def test_a_part_of_the_recordings_with_the_tokenizer_of_all(walked: Road, opened: Workspace) -> None:
    part = walked.selection.model_copy(update={"where": "subject = '02'"})
    found = compare_tokenizers(opened, (walked.pipeline,), part, n_windows=4, seconds=4.0)
    assert all("sub-02" in name for name in found.recordings)
    assert found.tokenizers[0].kind == "biocodec"


@pytest.mark.parametrize(
    ("pipelines", "others", "options", "words"),
    [
        ((), ("mu_law",), {}, "nothing to compare"),
        ((tiny_pipeline(),), (), {"seconds": 60.0}, "shorter than a window of 60 s"),
        ((tiny_pipeline(fit={"steps": 4}),), (), {}, "no tokenizer is fitted"),
        ((tiny_pipeline(),), ("nosuch",), {}, "nosuch"),
        ((tiny_pipeline(prepare={"steps": [{"step": "pick", "picks": ["meg"]}]}),), (), {}, "nothing is prepared"),
    ],
)
def test_what_cannot_be_compared_says_why(
    walked: Road, opened: Workspace, pipelines: tuple[Pipeline, ...], others: tuple[str, ...],
    options: dict[str, float], words: str,
) -> None:  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        compare_tokenizers(opened, pipelines, walked.selection, others, **options)
    assert words in str(refused.value) or words in refused.value.where


def test_a_tokenizer_that_refuses_every_recording_is_named(walked: Road, opened: Workspace, tmp_path: Path) -> None:
    save_pretrained(random_tokenizer(), tmp_path / "eeg")  # wants volts and channels by name
    with pytest.raises(ConfigError, match=r"no recording can be compared on.*eeg"):
        compare_tokenizers(opened, (walked.pipeline,), walked.selection, (str(tmp_path / "eeg"),), seconds=4.0)


# Real recordings: TFDual's own signal through BioCodec, and BioCodec's own signal through TFDual.


def real_pipeline(name: str, steps: list[dict[str, object]], tokenizer: dict[str, object], folder: Path) -> Pipeline:
    document = {"name": name, "prepare": {"steps": steps, "min_seconds": 5.0}, "tokenizer": tokenizer}
    return Pipeline.model_validate(document | {"pretrained": {"source": str(folder)}})


def check_all(found, n: int) -> None:
    assert len(found.tokenizers) == n
    for one in found.tokenizers:
        assert np.isfinite([one.fidelity.correlation, one.fidelity.si_sdr_db, one.rate.entropy]).all()
        assert all(0 <= value < 10 for value in one.fidelity.band_error.values())
        assert (one.usage.perplexity >= 1).all()
        assert one.encode_speed > 0
    fixed = [one for one in found.tokenizers if one.kind in ("mu_law", "quantile")]
    assert min(one.fidelity.correlation for one in fixed) > 0.99


@pytest.mark.data
def test_biocodec_on_real_eeg_beside_tfdual(data: Path, tmp_path: Path) -> None:
    config = TfDualTokenizerConfig(network=SMALL.model_copy(update={"max_channels": 19}))
    save_pretrained(random_tokenizer(config), tmp_path / "tfdual")
    save_tiny_tokenizer(tmp_path / "biocodec")
    pipeline = real_pipeline("eeg", codebrain_steps(multiple_of_seconds=5), config.model_dump(), tmp_path / "tfdual")
    selection = Selection(data=data / "bids" / "eeg-arithmetic", where="subject = '01'")
    with workspace_at(tmp_path / "home") as workspace:
        results = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert results[Stage.PREPARE].failed == 0
        others = (str(tmp_path / "biocodec"), "mu_law", "quantile")
        found = compare_tokenizers(workspace, (pipeline,), selection, others, n_windows=2, seconds=5.0)
    check_all(found, 4)
    assert [one.resampled for one in found.tokenizers] == [False, True, False, False]
    assert list(found.tokenizers[0].fidelity.band_error) == ["delta", "theta", "alpha", "beta"]  # 22 Hz at 50 Hz
    assert 0 < found.n_rows <= 2 * 19


@pytest.mark.data
def test_tfdual_on_real_meg_beside_biocodec(data: Path, tmp_path: Path) -> None:
    wide = SMALL.model_copy(update={"max_channels": 51})
    joint = TfDualTokenizerConfig(channels=(), group_channels=51, input={"scaling": "robust"}, network=wide)
    save_pretrained(random_tokenizer(joint), tmp_path / "tfdual")  # at 200 Hz
    save_tiny_tokenizer(tmp_path / "biocodec")
    steps = [{"step": "pick", "picks": ["mag"]}, *tiny_pipeline().model_dump(mode="json")["prepare"]["steps"][1:]]
    pipeline = real_pipeline("meg", steps, {}, tmp_path / "biocodec")
    selection = Selection(data=data / "bids" / "meg-fif", where="subject = '01'")
    with workspace_at(tmp_path / "home") as workspace:
        run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        others = (str(tmp_path / "tfdual"), "mu_law")
        found = compare_tokenizers(workspace, (pipeline,), selection, others, n_windows=1, seconds=4.0)
    check_all(found, 3)
    assert found.tokenizers[1].n_quantizers == 2
    assert found.n_rows > 90
