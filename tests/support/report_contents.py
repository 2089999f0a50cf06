"""A small hand-made report, and one whose names are hostile."""

from dataclasses import replace

import numpy as np

from neuromill.reports.contents import (
    CodebookUse,
    Curve,
    Example,
    Failure,
    Level,
    Probed,
    RecordingFacts,
    ReportContents,
    Sensors,
    Spectrum,
    StageProgress,
    TokenizerFacts,
    Training,
)

HOSTILE = "<script>alert('x')</script>\"'$\\frac{&\x07\u202e\u6f22"


def spectrum(dataset: str = "ds1", channel_type: str = "mag", line_freq: float | None = 20.0) -> Spectrum:
    freqs = np.arange(1, 51) / 2
    middle = 1e-14 / freqs
    return Spectrum(dataset, channel_type, "T", freqs, middle / 2, middle, middle * 2, 12, 3, line_freq)


def sensors(recording: str = "sub-01_meg", names: tuple[str, ...] = ("A1", "A2", "A3", "A4", "A5")) -> Sensors:
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    positions = 0.1 * np.column_stack([np.cos(angles), np.sin(angles), np.linspace(0, 1, len(names))])
    rms = np.linspace(1, 2, len(names)) * 1e-13
    rms[1] = np.nan
    return Sensors(recording, "mag", "T", names, positions, rms, ("", "flat", *[""] * (len(names) - 2)))


def tokenizer() -> TokenizerFacts:
    levels = (Level(20.25, 0.75, 0.2), Level(3.5, 0.125, 0.6))
    return TokenizerFacts("ab" * 32, 32, 2, 41.7, True, 0.8125, 6.5, 0.25, 0.5625, levels)


def usage() -> CodebookUse:
    counts = np.zeros((2, 32), np.int64)
    counts[0, :16], counts[1, 3] = 7, 112
    return CodebookUse(counts, 3)


def example(channels: tuple[str, ...] = ("MEG 0111", "MEG 0121")) -> Example:
    time = np.linspace(0, 10, 500, dtype=np.float32)
    original = np.stack([np.sin(time * (i + 1)) for i in range(len(channels))])
    return Example("ds1@1/sub-01_meg", "validation", 50.0, 30.0, channels, original, original * 0.5)


def training(*, held_out: bool = True) -> Training:
    steps = np.array([1, 10, 20])
    train = Curve(steps, np.array([3.5, 3.2, 2.9]), np.array([[0.0, 0.0], [0.1, 0.05], [0.25, 0.125]]))
    validation = Curve(steps[-1:], np.array([3.0]), np.array([[0.2, 0.1]]))
    return Training("0123456789abcdef", True, 32, train, validation if held_out else None)


def probed() -> Probed:
    scores = {"balanced_accuracy": 0.8125, "kappa": 0.625, "auroc": 0.9375, "accuracy": 0.75}
    fresh = {"balanced_accuracy": 0.5625, "kappa": 0.125, "auroc": None, "accuracy": 0.5}
    found = {"model": scores, "random weights": fresh}
    return Probed("group", "linear", "/runs/x/model", {"ill": 18, "well": 1800}, 6, "subjects", 3, 36, 0.5, found)


def full() -> ReportContents:
    recordings = (
        RecordingFacts("ds1@1/sub-01_meg", "ds1", "train", 5400.0),
        RecordingFacts("ds1@1/sub-02_meg", "ds1", "validation", 1800.0),
        RecordingFacts("ds2@1/sub-01_meg", "ds2", "test", None),
    )
    stages = (
        StageProgress("ingest", "raw", 3, 0, 0),
        StageProgress("prepare", "aa", 2, 1, 0),
        StageProgress("tokenize", "bb", 1, 0, 1),
    )
    failure = Failure("ds2@1/sub-01_meg", "prepare", "truncated", "the file ends early", "fetch it again")
    return ReportContents(
        pipeline="meg-xl",
        title="A title",
        version="1.2.3",
        own_folder=False,
        recordings=recordings,
        stages=stages,
        failures=(failure,),
        spectra=(spectrum(), spectrum("ds2"), spectrum(channel_type="grad", line_freq=60.0)),
        sensors=(sensors(),),
        tokenizer=tokenizer(),
        usage=usage(),
        example=example(),
        training=training(),
        probes=(probed(),),
        identities={"prepared signals": "aa"},
    )


def empty() -> ReportContents:
    """What there is before anything ran."""
    recording = RecordingFacts("ds1@1/sub-01_meg", "ds1", "train", None)
    return ReportContents("meg-xl", "", "1.2.3", False, (recording,), (StageProgress("ingest", "raw", 0, 0, 1),))


def hostile() -> ReportContents:
    """Every text that can come from an archive or a file is an attack."""
    h = HOSTILE
    return replace(
        full(),
        pipeline=h,
        title=h,
        recordings=(RecordingFacts(h, h, h, 1.0),),
        stages=(StageProgress(h, h, 1, 0, 0),),
        failures=(Failure(h, h, h, h, h),),
        spectra=(spectrum(h, h),),
        sensors=(replace(sensors(h, (h, h, h)), channel_type=h, unit=h, bads=(h, h, "")),),
        example=replace(example((h, h)), recording=h, split=h),
        training=replace(training(), identity=h),
        probes=(replace(probed(), task=h, model=h, classes={h: 1}, scores={h: {"kappa": None}}, notes=(h,)),),
        identities={h: h},
    )
