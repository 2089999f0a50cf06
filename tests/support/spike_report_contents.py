"""A small hand-made report of a spike pipeline, and one whose names are hostile."""

from dataclasses import replace

import numpy as np

from neuromill.reports.contents import RecordingFacts, ReportContents
from neuromill.reports.spike_contents import (
    Activity,
    Decoded,
    Note,
    R2Scores,
    Rates,
    SpikeContents,
    SpikeCurve,
    SpikeRecordingFacts,
    SpikeTraining,
    Stretch,
    TokenNumbers,
)
from support.report_contents import HOSTILE, full

NAME = "000129@1/sub-Indy_ses-1"


def recording(name: str = NAME, dataset: str = "000129", array: str = "M1") -> SpikeRecordingFacts:
    return SpikeRecordingFacts(
        name=name, dataset=dataset, n_units=98, masked={"non_finite": 2}, arrays={array: 96, "": 2}, seconds=600.0,
        observed_share=0.875, covariates=("cursor_vel_x",), n_trials=120, n_successes=90, n_spikes=123_456,
        n_outside=7, n_saturated=0, stretches=(Stretch("train", 0.0, 480.0), Stretch("validation", 481.0, 600.0)),
    )  # fmt: skip


def activity(name: str = NAME, unit: str = "m/s") -> Activity:
    rng = np.random.default_rng(0)
    time = np.linspace(0, 10, 500, dtype=np.float32)
    values = np.stack([np.sin(time)])
    values[0, :50] = np.nan
    return Activity(
        name, "validation", 481.0, 0.02, ("u1", "u2", "u3"), ("M1", "M1", ""),
        rng.poisson(0.3, (3, 500)).astype(np.uint8), 96, (name,), (unit,), values,
    )  # fmt: skip


def training(name: str = NAME, *, held_out: bool = True) -> SpikeTraining:
    steps = np.array([1, 100, 200])
    train = SpikeCurve(steps, np.array([3.0, 0.8, 0.6]), np.array([0.5, 0.2, 0.1]), np.array([-13.0, 0.1, 0.5]))
    last = SpikeCurve(steps[-1:], np.array([0.7]), np.array([0.15]), np.array([0.4375]))
    model = R2Scores("model", 0.4375, {"cursor_vel_x": 0.4375}, {name: 0.25})
    ridge = R2Scores("ridge", 0.375, {"cursor_vel_x": 0.375}, {name: None}, calibrated=(name,))
    tested = R2Scores("model", 0.3125, {"cursor_vel_x": 0.3125}, {name: 0.1875})
    beside = R2Scores("ridge", 0.28125, {"cursor_vel_x": 0.28125}, {name: None})
    return SpikeTraining(
        "0123456789abcdef", True, train, last if held_out else None, model, (ridge,), tested, (beside,)
    )  # fmt: skip


def decoded(name: str = NAME) -> Decoded:
    time = np.linspace(0, 20, 1000, dtype=np.float32)
    true = np.stack([np.sin(time), np.cos(time), np.zeros_like(time)])
    guess = true * np.float32(0.5)
    guess[0, :100] = np.nan
    return Decoded(name, "validation", 481.0, 0.02, 2.0, ("x", "y", "force"), ("m/s", "m/s", ""), true, guess)


def spikes() -> SpikeContents:
    kinds = {"spike": 300, "covariate": 100, "constraint": 4, "return": 2}
    return SpikeContents(
        recordings=(recording(),),
        rates=(Rates("000129", "M1", np.array([0.0, 1.0, 4.0, 30.0]), 1),),
        activity=activity(),
        tokens=(TokenNumbers("000129", 1, 30, 60.0, kinds, {"no_spikes": 10, "too_short": 0}),),
        training=training(),
        decoded=decoded(),
        notes=(Note(NAME, "two units were sorted"), Note("000129@1/other", "two units were sorted")),
    )


def full_spikes() -> ReportContents:
    facts = RecordingFacts(NAME, "000129", "train", 600.0, (("train", 480.0), ("validation", 119.0)))
    return ReportContents(
        "ndt3", "Spikes", "1.2.3", False, (facts,), full().stages, identities={"tokens": "bb"}, spikes=spikes()
    )


def empty_spikes() -> ReportContents:
    return replace(full_spikes(), recordings=full().recordings[2:], spikes=SpikeContents())


def hostile_spikes() -> ReportContents:
    h = HOSTILE
    tokens = replace(spikes().tokens[0], dataset=h, left_out={h: 3})
    made = SpikeContents(
        recordings=(replace(recording(h, h, h), covariates=(h,), masked={h: 1}),),
        rates=(replace(spikes().rates[0], dataset=h, array=h),),
        activity=replace(activity(h, h), arrays=(h, h, h)),
        tokens=(tokens,),
        training=replace(training(h), identity=h, baselines=(replace(training().baselines[0], name=h),)),
        decoded=replace(decoded(h), covariates=(h, h, h), units=(h, h, h)),
        notes=(Note(h, h),),
    )
    return replace(full_spikes(), pipeline=h, title=h, spikes=made)
