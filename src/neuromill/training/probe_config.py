"""Settings of a probe: what is to be told from what, and how. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from neuromill.records import Config


def folded(label: str) -> str:
    """Return a label without what is easily written in two ways: capitals, spaces at the ends and double spaces."""
    return " ".join(label.split()).casefold()


class LabelConfig(Config):
    """Where the labels of a task are written.

    Attributes
    ----------
    source
        ``events``: an event is an example, its description (``trial_type``, else ``value`` of ``events.tsv``) the
        label. ``participants``: every window of a recording has what ``participants.tsv`` says of its subject.
        ``entity``: it has a BIDS entity of the recording.
    column
        Column of ``participants.tsv``, or the entity by its long name (``task``).
    classes
        Labels, in this order; what has none of them is left out. Empty: all that occur.
    ignore_case
        Labels that differ in capitals or spaces alone are one, written as in ``classes``, else as the first of them in
        the order of characters. Without it such labels are refused, unless ``classes`` names them all.
    """

    source: Literal["events", "participants", "entity"]
    column: str = ""
    classes: tuple[str, ...] = ()
    ignore_case: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.source == "events") == bool(self.column):
            raise ValueError("column goes with participants and entity, and only with them")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a task has at least two different classes")
        if self.ignore_case and len({folded(name) for name in self.classes}) < len(self.classes):
            raise ValueError("with ignore_case classes differ in more than capitals and spaces")
        return self


class LinearConfig(Config):
    """Logistic regression on standardised features of the frozen backbone.

    Attributes
    ----------
    l2
        Penalty: half of it times the squared weights is added to the mean cross-entropy.
    """

    l2: float = Field(default=0.01, gt=0)


class FineTuneConfig(Config):
    """All weights are trained, as CodeBrain does downstream.

    Attributes
    ----------
    head
        ``mean``: linear on the mean patch. ``flatten``: the published three layers on all patches.
    """

    head: Literal["mean", "flatten"] = "mean"
    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class ProbeConfig(Config):
    """A labelled task on prepared recordings.

    Attributes
    ----------
    window_seconds
        Length of an example; cut to whole patches of the model.
    offset_seconds
        From the onset of an event to the start of its window.
    pool
        Features of the linear probe: ``mean`` over channels and patches, ``channels`` (mean over patches, channels
        side by side), or ``flatten`` (all of them).
    unit_volts
        Volts per unit of the model's input. None: what the model says; 100 uV where it does not say it.
    folds
        Where the cards hold nobody out: parts that the subjects are dealt into, each tested once.
    compare_random
        Tell what the same probe reads from a backbone with random weights, too.
    model
        Folder or Hub id of the model; "" is the one that the pipeline has trained.
    """

    name: str = ""
    labels: LabelConfig
    window_seconds: float = Field(gt=0)
    offset_seconds: float = 0.0
    mode: Literal["linear", "finetune"] = "linear"
    pool: Literal["mean", "channels", "flatten"] = "mean"
    linear: LinearConfig = LinearConfig()
    finetune: FineTuneConfig = FineTuneConfig()
    unit_volts: float | None = Field(default=None, gt=0)
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=42, ge=0)
    compare_random: bool = True
    model: str = ""
