"""What the sections of one pipeline file say of each other, so that a contradiction costs no preparation.

Only what the file alone decides: two sections that are written down, and lead to a refusal on every recording.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neuromill.models.eegssm_config import ModelInput
from neuromill.signals.bipolar import declared_pairs
from neuromill.signals.montage import MONTAGES
from neuromill.signals.steps import GROUPS, Pick, PickBipolar, PickMontage, Resample
from neuromill.stages.prepare_config import PrepareConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig
from neuromill.training.eegssm_config import EEGSSMTrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuromill.stages.pipeline import Pipeline

SAME_RATE = 1e-6
LEARNED = ("biocodec", "tfdual")
TOKENIZERS_OF = {
    "criss_cross": ("biocodec",),
    "ndt3": ("ndt3",),
    "eegssm": ("tfdual",),
}
"""Tokenizers whose tokens a model of each kind of training takes.

EEGSSM is given the stored signal over the divisor stored with the codes: the tokenizer's own input for TFDual alone.
BioCodec's divides rows that it has normalised before, and a code of a fixed tokenizer is one sample, never a patch.
"""


def contradictions(pipeline: Pipeline) -> tuple[str, ...]:
    """Each place where one section of a pipeline rules another one out, as a sentence.

    A section that is not written in the file is not compared: its defaults may never be used. Neither is anything with
    a tokenizer that exists already (``pretrained``), whose settings are its own.
    """
    if pipeline.pretrained is not None:
        return ()
    written = pipeline.model_fields_set
    found: list[str] = []
    if "tokenizer" in written:
        found += [*_preparation(pipeline), *_windows(pipeline)]
        if "fit" in written:
            found += _fit(pipeline)
    if "train" in written and ("kind" in pipeline.train.model_fields_set):
        found += _training(pipeline)
    return tuple(found)


def model_input(tokenizer: TfDualTokenizerConfig) -> ModelInput:
    """What a model is given that learns the codes of a tokenizer: signals at its rate, over the divisor it stored."""
    if tokenizer.input.scaling == "fixed":
        return ModelInput(tokenizer.sfreq, tokenizer.input.unit_volts)
    return ModelInput(tokenizer.sfreq, "segment")


def _preparation(pipeline: Pipeline) -> Iterator[str]:
    prepare, tokenizer = pipeline.prepare, pipeline.tokenizer
    of_spikes = isinstance(tokenizer, Ndt3TokenizerConfig)
    if of_spikes == isinstance(prepare, PrepareConfig):
        yield f"prepare.kind is {prepare.kind}, a tokenizer of kind {tokenizer.kind} takes the other one"
    if not isinstance(prepare, PrepareConfig) or isinstance(tokenizer, Ndt3TokenizerConfig):
        return
    rates = [step.sfreq for step in prepare.steps if isinstance(step, Resample)]
    if rates and not math.isclose(rates[-1], tokenizer.sfreq, rel_tol=SAME_RATE):
        place = "tokenizer.normalization.sfreq" if tokenizer.kind == "biocodec" else "tokenizer.sfreq"
        yield f"prepare.steps.resample.sfreq is {rates[-1]:g} Hz, {place} {tokenizer.sfreq:g} Hz"
    if isinstance(tokenizer, TfDualTokenizerConfig):
        yield from _channels(prepare, tokenizer)


def _channels(prepare: PrepareConfig, tokenizer: TfDualTokenizerConfig) -> Iterator[str]:
    """Channels that a TFDual tokenizer looks for by name, and the unit it takes."""
    for step in prepare.steps:
        if isinstance(step, Pick) and tokenizer.input.scaling == "fixed" and set(step.picks) <= {"meg", *GROUPS["meg"]}:
            yield "prepare.steps.pick.picks keeps MEG alone; tokenizer.input.scaling fixed takes volts: take robust"
        if not isinstance(step, PickMontage | PickBipolar) or not tokenizer.channels:
            continue
        names = MONTAGES[step.montage] if isinstance(step, PickMontage) else declared_pairs(step)
        there = {name.upper() for name in names} & {name.upper() for name in tokenizer.channels}
        least = tokenizer.min_channels or len(tokenizer.channels)
        if len(there) < least:
            yield (
                f"prepare.steps.{step.step} leaves {len(there)} of the {least} channels that the tokenizer needs: "
                "name those it makes in tokenizer.channels"
            )


def _windows(pipeline: Pipeline) -> Iterator[str]:
    """A tokenizer with windows of its own is asked for no others."""
    tokenizer, tokenize = pipeline.tokenizer, pipeline.tokenize
    if isinstance(tokenizer, TfDualTokenizerConfig) and "segment_seconds" in tokenize.model_fields_set:
        own = tokenizer.window_samples / tokenizer.sfreq
        if tokenize.segment_seconds != own:
            yield f"tokenize.segment_seconds is {tokenize.segment_seconds:g}, the tokenizer sees windows of {own:g} s"


def _fit(pipeline: Pipeline) -> Iterator[str]:
    kind, fitted = pipeline.tokenizer.kind, "tfdual" if isinstance(pipeline.fit, TfDualFitConfig) else "biocodec"
    if kind in LEARNED and fitted != kind:
        yield f"fit.kind is {fitted}, tokenizer.kind {kind}"


def _training(pipeline: Pipeline) -> Iterator[str]:
    train, tokenizer = pipeline.train, pipeline.tokenizer
    takes = TOKENIZERS_OF[train.kind]
    if tokenizer.kind not in takes:
        yield f"train.kind {train.kind} takes tokens of {' or '.join(takes)}, tokenizer.kind is {tokenizer.kind}"
    elif isinstance(train, EEGSSMTrainConfig) and isinstance(tokenizer, TfDualTokenizerConfig):
        if train.model.patch_size != tokenizer.hop_samples:
            yield (
                f"train.model.patch_size is {train.model.patch_size} samples, a frame of the tokenizer has "
                f"{tokenizer.hop_samples}: tokenizer.network.patch_samples"
            )
        if conflict := train.model.input.conflict(model_input(tokenizer)):
            yield f"train.model: {conflict}; leave it out, it is taken from the tokens"
        yield from _signal_windows(train, tokenizer.network.window_patches)


def _signal_windows(train: EEGSSMTrainConfig, own: int) -> Iterator[str]:
    """Windows of the model lie within those of the tokenizer, or hold them whole."""
    windows = train.windows
    length, stride = windows.window_patches, windows.stride_patches or windows.window_patches
    if own < min(length, windows.min_patches or length) and (length % own or stride % own):
        yield (
            f"train.windows are {length} patches every {stride}, those of the tokenizer {own}: "
            "take a multiple of them, or at most as many"
        )
