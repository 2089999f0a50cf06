"""The roads that EEG and intracranial recordings take in tests: which one by rule, and with what small networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromill.readers.opening import open_recording
from neuromill.records import Recording, RecordingError
from neuromill.signals.montage import match_montage
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.shipped import find_pipeline
from neuromill.tokenizers.files import save_pretrained
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig, TfDualTokenizerConfig
from support.stages import save_tiny_tokenizer, tiny_pipeline
from support.tfdual import random_tokenizer

WINDOW_SECONDS = 30.0
TFDUAL, BIOCODEC, MU_LAW = "tfdual", "biocodec", "mu_law"
ROADS = (TFDUAL, BIOCODEC, MU_LAW)
# The published interface (19 channels, 30 patches of 200 samples, codes below 4096) behind a small network.
SMALL_TFDUAL = TfDualTokenizerConfig(
    network=TfDualNetworkConfig(width=50, depth=1, heads=5, mlp_ratio=1, decoder_depth=1, max_channels=19)
)
# Anything else in volts: whatever data channels there are, in the band that every recording has.
DATA_STEPS = [
    {"step": "pick", "picks": ["data"]},
    {"step": "filter", "l_freq": 1.0, "h_freq": 20.0},
    {"step": "resample", "sfreq": 50.0},
]


@dataclass(frozen=True)
class Tokenizers:
    """Folders of the saved tokenizers, by road."""

    folders: dict[str, Path]


def save_tokenizers(folder: Path) -> Tokenizers:
    """Random weights: what is tested is the road."""
    save_pretrained(random_tokenizer(SMALL_TFDUAL), folder / TFDUAL)
    save_tiny_tokenizer(folder / BIOCODEC)
    save_pretrained(FixedTokenizer(MuLawConfig(sfreq=50.0)), folder / MU_LAW)
    return Tokenizers({road: folder / road for road in ROADS})


def codebrain_steps(**crop: Any) -> list[dict[str, Any]]:
    """The steps a user of ``codebrain`` runs, with nothing cut but what fills no window, unless ``crop`` says more."""
    prepare = load_pipeline(find_pipeline("codebrain")).prepare
    steps = [dict(step) for step in prepare.model_dump(mode="json")["steps"]]
    return [
        {"step": "crop", "multiple_of_seconds": WINDOW_SECONDS} | crop if step["step"] == "crop" else step
        for step in steps
    ]


def road_pipeline(road: str, tokenizers: Tokenizers) -> Pipeline:
    """The pipeline of a road."""
    pretrained = {"source": str(tokenizers.folders[road])}
    if road == TFDUAL:
        prepare = {"steps": codebrain_steps(), "min_seconds": WINDOW_SECONDS}
        changes = {"tokenizer": SMALL_TFDUAL.model_dump(), "fit": {"kind": "tfdual"}, "tokenize": {}}
        return _pipeline(road, prepare, pretrained, changes)
    tokenizer = {"kind": MU_LAW, "sfreq": 50.0} if road == MU_LAW else {}
    return _pipeline(road, {"steps": DATA_STEPS}, pretrained, {"tokenizer": tokenizer} if tokenizer else {})


def _pipeline(road: str, prepare: dict[str, Any], pretrained: dict[str, Any], changes: dict[str, Any]) -> Pipeline:
    document = tiny_pipeline().model_dump(mode="json", exclude_unset=True)
    if road != BIOCODEC:
        document.pop("fit"), document.pop("tokenizer")
    if road == TFDUAL:
        document.pop("tokenize")
    return Pipeline.model_validate(document | {"name": road, "prepare": prepare, "pretrained": pretrained} | changes)


def road_of(recording: Recording, root: Path) -> str:
    """TFDual where the 19 channels and a whole window are there; µ-law for electrodes in the brain; BioCodec else.

    A recording that cannot be opened takes the last one, and fails on it with its code.
    """
    try:
        with open_recording(recording, root) as signal:
            match = match_montage("10-20-19", signal.channels)
            seconds, types = signal.n_times / signal.sfreq, set(signal.channels.types)
    except RecordingError:
        return BIOCODEC
    if not match.missing and not match.twice and seconds >= WINDOW_SECONDS:
        return TFDUAL
    return MU_LAW if types & {"ecog", "seeg", "dbs"} else BIOCODEC
