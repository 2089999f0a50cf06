"""Same identity, same bytes: what changes a name, and what must not."""

from dataclasses import replace
from typing import Any

import pytest

from neuromill.records import Digest, Recording, RecordingId, SourceFile
from neuromill.stages.identities import (
    embed_identity,
    fit_identity,
    prepare_config,
    prepare_identity,
    tokenize_identity,
    train_identity,
)
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.shipped import find_pipeline
from support.stages import filtered, tiny_pipeline

STEPS = tiny_pipeline().prepare.model_dump(mode="json")["steps"]
STAGES = ("prepare", "fit", "tokenize", "train", "embed")


def a_recording(content: bytes = b"1", name: str = "sub-01_meg") -> Recording:
    return Recording(RecordingId("ds1", "1", name), "a.fif", (SourceFile("a.fif", 1, Digest.of(content)),))


ONE = (a_recording(),)


def identities(pipeline: Pipeline, recordings: tuple[Recording, ...] = ONE) -> dict[str, str]:
    """Names of all stages; the fitted tokenizer and the trained model stand for their bytes, as identities do."""
    fit = fit_identity(pipeline, recordings)
    tokens = tokenize_identity(pipeline, fit)
    train = train_identity(pipeline, tokens, recordings)
    return dict(
        zip(
            STAGES,
            (prepare_identity(pipeline), fit, tokens, train, embed_identity(pipeline, tokens, train)),
            strict=True,
        )
    )


def changed(one: Pipeline, other: Pipeline) -> list[str]:
    before, after = identities(one), identities(other)
    return [stage for stage in STAGES if before[stage] != after[stage]]


def test_an_identity_is_the_same_every_time_and_a_safe_name() -> None:
    assert identities(tiny_pipeline()) == identities(tiny_pipeline())
    names = identities(tiny_pipeline()).values()
    assert len(set(names)) == len(STAGES)
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in names)


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("meg-xl", "e52c906c0f4696f6"),
        ("codebrain", "274eaa53ee8673c5"),
        ("ndt3", "5f70be4796544d1e"),
        ("demo", "e52c906c0f4696f6"),
        ("demo-eeg", "a86c25d17e5f7c1a"),
        ("demo-spikes", "5f70be4796544d1e"),
    ],
)
def test_shipped_pipelines_are_renamed_on_purpose_only(pipeline: str, name: str) -> None:
    """Another name, and everybody prepares everything again: write why here where one has to change."""
    assert prepare_identity(load_pipeline(find_pipeline(pipeline))) == name


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"prepare": filtered(0.5)}, "prepare"),
        ({"prepare": filtered(1.0, sfreq=25.0), "tokenizer": {"normalization": {"sfreq": 25.0}}}, "prepare"),
        ({"prepare": {"dtype": "float32"}}, "prepare"),
        ({"prepare": {"min_seconds": 2.0}}, "prepare"),
        ({"fit": {"seed": 1}}, "fit"),
        ({"gate": {"min_frames": 2}}, "fit"),
        ({"tokenizer": {"normalization": {"clip": 4.0}}}, "fit"),
        ({"tokenize": {"segment_seconds": 6.0}}, "tokenize"),
        ({"tokenize": {"rows_per_forward": 4}}, "tokenize"),
        ({"train": {"max_steps": 4}}, "train"),
        ({"train": {"seed": 1}}, "train"),
        ({"train": {"devices": 2}}, "train"),
        ({"train": {"precision": "bf16-mixed"}}, "train"),
    ],
    ids=str,
)
def test_a_change_renames_its_stage_and_those_after_it_and_none_before(change: dict[str, Any], first: str) -> None:
    assert changed(tiny_pipeline(), tiny_pipeline(**change)) == list(STAGES[STAGES.index(first) :])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"title": "other"},
        {"datasets": ("ds000001",)},
        {"where": "subject = '01'"},
        {"keep_raw": False},
        {"train": {"accelerator": "auto", "strategy": "ddp", "loader_threads": 7, "keep_checkpoints": 1}},
        {"prepare": {"dtype": "float16", "min_seconds": 1.0}},  # the defaults, said aloud
        {"tokenize": {"precision": "float32"}},
    ],
    ids=str,
)
def test_what_decides_no_byte_changes_no_name(change: dict[str, Any]) -> None:
    assert changed(tiny_pipeline(), tiny_pipeline(**change)) == []


def test_the_order_of_steps_counts() -> None:
    pick, band, resample = STEPS
    swapped = tiny_pipeline(prepare={"steps": [pick, resample, band]})
    assert changed(tiny_pipeline(), swapped) == list(STAGES)


def test_steps_at_their_defaults_are_told_apart_by_name() -> None:
    """``non_defaults`` of a step leaves out even its name: without care these would all be one identity."""
    pick, notch = {"step": "pick", "picks": ["meg"]}, {"step": "notch_filter"}
    band = {"step": "filter", "l_freq": 1.0, "h_freq": None}
    orders = [[pick], [notch], [pick, notch], [notch, pick], [notch, notch], [pick, notch, band], [pick, band, notch]]
    names = [prepare_identity(tiny_pipeline(prepare={"steps": steps})) for steps in orders]
    assert len(set(names)) == len(orders)
    assert [step["step"] for step in prepare_config(tiny_pipeline())["steps"]] == ["pick", "filter", "resample"]


def test_other_code_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare_identity(tiny_pipeline())
    monkeypatch.setattr("neuromill.signals.steps.Filter.code_version", "next")
    assert prepare_identity(tiny_pipeline()) != before


def test_other_code_of_a_step_nobody_uses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare_identity(tiny_pipeline())
    monkeypatch.setattr("neuromill.signals.steps.NotchFilter.code_version", "next")
    assert prepare_identity(tiny_pipeline()) == before


def test_other_readers_are_another_identity_of_signals_and_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2: the slower channels of EDF files had depended on the block they were read in."""
    pipelines = (tiny_pipeline(), load_pipeline(find_pipeline("ndt3")))
    now = [prepare_identity(pipeline) for pipeline in pipelines]
    monkeypatch.setattr("neuromill.stages.identities.READER_CODE", "1")
    assert not set(now) & {prepare_identity(pipeline) for pipeline in pipelines}


def test_what_a_tokenizer_saw_is_part_of_its_name_in_any_order() -> None:
    pipeline, two = tiny_pipeline(), (a_recording(), a_recording(name="sub-02_meg"))
    names = {fit_identity(pipeline, recordings) for recordings in (ONE, two, (a_recording(b"2"),))}
    assert len(names) == 3
    assert fit_identity(pipeline, two) == fit_identity(pipeline, two[::-1])
    assert train_identity(pipeline, "t", two) == train_identity(pipeline, "t", two[::-1])


def test_which_half_of_the_split_a_recording_is_in_is_part_of_the_name_of_a_run() -> None:
    pipeline, other = tiny_pipeline(), (a_recording(name="sub-02_meg"),)
    splits = [((*ONE, *other), ()), (ONE, other), (other, ONE), (ONE, ())]
    assert len({train_identity(pipeline, "t", training, held_out) for training, held_out in splits}) == len(splits)


def test_a_published_tokenizer_does_not_depend_on_what_is_prepared() -> None:
    pipeline = tiny_pipeline(pretrained={"source": "lab/biocodec", "revision": "1"})
    two = (*ONE, a_recording(name="sub-02_meg"))
    assert fit_identity(pipeline, ONE) == fit_identity(pipeline, two)
    other = tiny_pipeline(pretrained={"source": "lab/biocodec", "revision": "2"})
    assert fit_identity(pipeline, ONE) != fit_identity(other, ONE)


def test_tokens_and_features_name_the_very_weights() -> None:
    pipeline = tiny_pipeline()
    assert tokenize_identity(pipeline, "a") != tokenize_identity(pipeline, "b")
    assert embed_identity(pipeline, "t", "a") != embed_identity(pipeline, "t", "b")


def test_an_input_digest_does_not_depend_on_the_order_of_members() -> None:
    files = (SourceFile("a.fif", 1, Digest.of(b"1")), SourceFile("b.tsv", 2, Digest.of(b"2")))
    one = replace(a_recording(), members=files)
    assert one.input_digest == replace(one, members=files[::-1]).input_digest
