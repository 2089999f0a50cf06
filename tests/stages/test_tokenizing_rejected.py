"""What preparation rejects of one channel is in no code of the others, where a tokenizer sees them jointly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from neuromill.records import ChannelTable
from neuromill.stages.channels import channel_table
from neuromill.stages.compared import Comparison
from neuromill.stages.comparing import compare_tokenizers
from neuromill.stages.identities import tokenize_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.rejections import rejection_of
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.store.reader import StoreReader
from neuromill.store.usage import codebook_usage
from neuromill.tokenizers.encoding import encode_segments, grid_for
from neuromill.tokenizers.files import open_tokenizer, save_pretrained
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.training.config import TrainConfig
from support.stages import workspace_at
from support.tfdual import random_tokenizer
from support.tiny_eeg import HOP, SFREQ, TOKENIZER, WINDOW, pipeline_of, write_eeg

C3, OTHERS = 0, [1, 2, 3]
HIT = slice(WINDOW, 2 * WINDOW)  # frames of the second of five windows
STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)


def artefact(volts: float, *seconds: int) -> Callable[[int, np.ndarray], None]:
    """One of this size on C3 in each of these seconds."""

    def change(_: int, signal: np.ndarray) -> None:
        for second in seconds:
            signal[C3, second * 100 : (second + 1) * 100] += volts * np.sin(np.linspace(0, 60, 100))

    return change


@dataclass(frozen=True)
class Road:
    """A recording and what became of it: signal [time, channel], codes, scale [segment, channel]."""

    pipeline: Pipeline
    signal: np.ndarray
    channels: ChannelTable
    codes: np.ndarray
    scale: np.ndarray
    usage: np.ndarray
    again: np.ndarray


def walk(home: Path, volts: float, pipeline: Pipeline) -> Road:
    """Take a recording with an artefact through all stages to tokens; ``again`` is every window encoded once more."""
    if not (home / "lab").is_dir():
        write_eeg(home / "lab", ("01",), artefact(volts, 7))
    selection = Selection(data=home / "lab")
    with workspace_at(home / "home") as workspace:
        results = {stage: run_stage(workspace, pipeline, selection, stage) for stage in STAGES}
        assert all((result.done, result.failed) == (1, 0) for result in results.values())
        stores = {stage: home / "home/stores/lab@local" / stage.value / results[stage].identity for stage in STAGES}
    opened = open_tokenizer(Path(pipeline.pretrained.source))
    with (
        StoreReader.of_groups(stores[Stage.TOKENIZE]) as tokens,
        StoreReader.of_groups(stores[Stage.PREPARE]) as reader,
    ):
        name = tokens.recordings[0].name
        signal, channels, rejection = (
            reader.read_physical(name),
            channel_table(reader, name),
            rejection_of(reader, name),
        )
        assert rejection is not None
        assert np.argwhere(rejection.rejected).tolist() == [[1, C3]]
        segments = grid_for(opened, pipeline.tokenize, len(signal)).segments
        parts = encode_segments(opened, lambda a, b: signal[a:b], segments, pipeline.tokenize, channels, rejection)
        again = np.concatenate([part.codes for part in parts])
        read = {key: np.asarray(tokens.read(name, key)) for key in ("codes", "scale")}
        return Road(pipeline, signal, channels, **read, usage=codebook_usage(tokens, name), again=again)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Road, Road]:
    """The same recording with an artefact of 2 mV, and of 20 mV."""
    folder = tmp_path_factory.mktemp("joint")
    save_pretrained(random_tokenizer(TOKENIZER), folder / "tokenizer")
    pipeline = pipeline_of(folder / "tokenizer")
    one, other = (walk(folder / f"{volts:g}", volts, pipeline) for volts in (2e-3, 2e-2))
    return one, other


def test_codes_of_other_channels_are_those_beside_a_missing_one(joint: tuple[Road, Road]) -> None:
    tokenizer = random_tokenizer(TOKENIZER)
    for road in joint:
        window = road.signal[HIT.start * HOP : HIT.stop * HOP].T[None]
        missing = window.copy()
        missing[:, C3] = np.nan
        expected, blind = (tokenizer.encode_segments(x, road.channels, 16).codes[0] for x in (missing, window))
        np.testing.assert_array_equal(road.codes[HIT], expected)
        assert (road.codes[HIT][..., OTHERS] != blind[..., OTHERS]).mean() > 0.2
    assert np.ptp(joint[0].signal[:, C3]) * 5 < np.ptp(joint[1].signal[:, C3])
    np.testing.assert_array_equal(joint[0].codes[HIT], joint[1].codes[HIT])


def test_a_rejected_window_is_marked_and_not_counted(joint: tuple[Road, Road]) -> None:
    for road in joint:
        assert np.argwhere(np.isnan(road.scale)).tolist() == [[1, C3]]
        assert road.usage.sum() == road.codes.size - 2 * WINDOW


def test_any_window_again_gives_the_stored_codes(joint: tuple[Road, Road]) -> None:
    for road in joint:
        np.testing.assert_array_equal(road.again, road.codes)


def test_where_channels_do_not_see_each_other_everything_is_encoded(tmp_path: Path) -> None:
    folder = save_pretrained(FixedTokenizer(MuLawConfig(sfreq=SFREQ)), tmp_path / "mu_law")
    pipeline = pipeline_of(folder).model_copy(update={"train": TrainConfig()})  # eegssm takes no tokens of mu_law
    road = walk(tmp_path, 2e-3, pipeline)
    assert np.isfinite(road.scale).all()
    np.testing.assert_array_equal(road.again, road.codes)
    assert len(np.unique(road.codes[HIT.start * HOP : HIT.stop * HOP, 0, C3])) > 10


def test_only_tokens_of_joint_tokenizers_on_marked_signals_have_another_name() -> None:
    marked = pipeline_of(Path("tokenizer"))
    steps = [step.model_dump() for step in marked.prepare.steps if step.step != "reject"]
    plain = marked.model_copy(update={"prepare": type(marked.prepare).model_validate({"steps": steps})})
    assert tokenize_identity(plain, "a", joint=True) == tokenize_identity(plain, "a")
    assert tokenize_identity(marked, "a", joint=True) != tokenize_identity(marked, "a")


def test_a_comparison_hides_it_as_well(tmp_path: Path) -> None:
    """Scores of the kept channels do not depend on what the rejected one holds."""
    save_pretrained(random_tokenizer(TOKENIZER), tmp_path / "tokenizer")
    pipeline = pipeline_of(tmp_path / "tokenizer")

    def compared(volts: float) -> Comparison:
        home = tmp_path / f"{volts:g}"
        write_eeg(home / "lab", ("01",), artefact(volts, 2, 7), seconds=12.0)
        selection = Selection(data=home / "lab")
        with workspace_at(home / "home") as workspace:
            for stage in STAGES[:2]:
                assert run_stage(workspace, pipeline, selection, stage).failed == 0
            return compare_tokenizers(workspace, (pipeline,), selection, ("mu_law",), n_windows=2)

    one, other = compared(2e-3), compared(2e-2)
    assert (one.n_rows, one.n_left_out) == (other.n_rows, other.n_left_out) == (6, 2)
    for first, second in zip(one.tokenizers, other.tokenizers, strict=True):
        assert first.fidelity == second.fidelity
        np.testing.assert_array_equal(first.usage.counts, second.usage.counts)
