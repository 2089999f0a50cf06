"""Examples of a labelled task: which windows of which prepared recordings, whose they are, and what they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from neuromill.catalog.strict_yaml import parse_yaml
from neuromill.records import ENTITIES, ConfigError
from neuromill.training.probe_config import ProbeConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.records import Recording, RecordingId
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.datasets import Dataset
    from neuromill.stages.workspace import Workspace
    from neuromill.store.reader import StoreReader

PARTICIPANTS = "participants.tsv"
_PAGE = "see docs/training.md"


@dataclass(frozen=True, slots=True)
class Example:
    """One window: samples ``start`` and following of a prepared recording, with the number of its class."""

    recording: Recording
    split: str
    start: int
    label: int

    @property
    def dataset(self) -> str:
        """Data set of the recording."""
        return self.recording.id.dataset

    @property
    def subject(self) -> str:
        """Subject of the recording."""
        return self.recording.entities.subject


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a task.

    Attributes
    ----------
    classes
        Their names, by number.
    left_out
        How many windows or recordings are no examples, by reason.
    """

    rows: tuple[Example, ...]
    classes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Number of the class of each example."""
        return np.array([one.label for one in self.rows], np.int64)

    @property
    def subjects(self) -> tuple[tuple[str, str], ...]:
        """(data set, subject) of each example."""
        return tuple((one.dataset, one.subject) for one in self.rows)


def load_probe(path: Path) -> ProbeConfig:
    """Read the file of a task.

    Raises
    ------
    ConfigError
        It is missing, is not YAML, has unknown keys or wrong values.
    """
    import yaml
    from pydantic import ValidationError

    from neuromill.stages.pipeline import describe

    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
        return ProbeConfig.model_validate({"name": path.stem} | document if isinstance(document, dict) else document)
    except FileNotFoundError:
        raise ConfigError("no such task file", where=str(path), next_step="check the path") from None
    except ValidationError as error:
        raise ConfigError(describe(error), where=str(path), next_step=_PAGE) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"not a YAML file: {' '.join(str(error).split())}", where=str(path), next_step=_PAGE
        ) from None


def find_examples(
    workspace: Workspace,
    chosen: Chosen,
    recordings: Sequence[Recording],
    readers: Mapping[str, StoreReader],
    task: ProbeConfig,
    patch_size: int,
) -> Examples:
    """Cut prepared recordings into examples.

    Parameters
    ----------
    readers
        Prepared store of each dataset version, by its name.
    patch_size
        Samples of a patch of the model.

    Raises
    ------
    ConfigError
        Nothing is labelled, fewer than two classes occur, or labels are not where the task says.
    """
    counter: Counter[str] = Counter()
    found: list[tuple[Recording, int, str]] = []
    labels = _labels_of_recordings(workspace, chosen, recordings, task)
    for recording in recordings:
        reader = readers[str(recording.id.dataset_version)]
        for start, label in _windows(reader, recording, labels.get(recording.id, ""), task, patch_size, counter):
            if not label or (task.labels.classes and label not in task.labels.classes):
                counter["without a label of the task"] += 1
            elif not usable_patches(reader, recording.id.name, start, task, patch_size).any():
                counter["rejected in every channel"] += 1
            else:
                found.append((recording, start, label))
    occur = {label for _, _, label in found}
    classes = task.labels.classes or tuple(sorted(occur))
    missing = [name for name in classes if name not in occur]
    if missing or len(classes) < 2:  # noqa: PLR2004 - something must be told from something
        raise ConfigError(
            f"no example of {', '.join(missing)}"
            if missing
            else f"a task needs two classes, found: {', '.join(classes)}",
            where=f"labels: {task.labels.source} {task.labels.column}".strip(),
            next_step="check labels and window_seconds; " + _PAGE,
        )
    rows = tuple(Example(one, chosen.split_of(one), start, classes.index(label)) for one, start, label in found)
    return Examples(rows, classes, dict(counter))


def _windows(
    reader: StoreReader, recording: Recording, label: str, task: ProbeConfig, patch_size: int, counter: Counter[str]
) -> Iterator[tuple[int, str]]:
    about = reader.recording(recording.id.name)
    length = window_samples(task, about.sfreq, patch_size)
    if task.labels.source != "events":
        yield from ((start, label) for start in range(0, about.n_rows - length + 1, length))
        return
    if "event_onset" not in about.arrays:
        return
    onsets = reader.read(recording.id.name, "event_onset")
    for onset, description in zip(onsets, about.attributes["event_descriptions"], strict=True):
        start = round((float(onset) + task.offset_seconds) * about.sfreq)
        if 0 <= start <= about.n_rows - length:
            yield start, str(description)
        else:
            counter["not wholly inside the recording"] += 1


def usable_patches(reader: StoreReader, name: str, start: int, task: ProbeConfig, patch_size: int) -> NDArray[np.bool_]:
    """Whether the patches of a window are fit for use: the channel is good and not rejected; bool [channel, patch]."""
    from neuromill.training.store_coded_signals import kept_patches

    about = reader.recording(name)
    length = window_samples(task, about.sfreq, patch_size)
    good = np.array([one not in about.attributes["bads"] for one in about.attributes["channel_names"]])
    usable = np.repeat(good[:, None], length // patch_size, axis=1)
    if "rejected" in about.arrays:
        window = int(about.arrays["rejected"].spec.attributes["window_samples"])
        starts = np.arange(start, start + length, patch_size)
        usable &= kept_patches(reader.read(name, "rejected") == 0, window, starts, patch_size).T
    return usable


def window_samples(task: ProbeConfig, sfreq: float, patch_size: int) -> int:
    """Whole patches that a window holds, in samples."""
    n_patches = round(task.window_seconds * sfreq) // patch_size
    if not n_patches:
        raise ConfigError(
            f"a window of {task.window_seconds:g} s holds no patch of {patch_size} samples at {sfreq:g} Hz",
            where="window_seconds",
            next_step=f"take at least {patch_size / sfreq:g} s",
        )
    return n_patches * patch_size


def _labels_of_recordings(
    workspace: Workspace, chosen: Chosen, recordings: Sequence[Recording], task: ProbeConfig
) -> dict[RecordingId, str]:
    """Label of each recording; empty for events."""
    source, column = task.labels.source, task.labels.column
    if source == "events":
        return {}
    if source == "entity":
        if column not in ENTITIES:
            raise ConfigError(
                f"{column!r} is no entity", where="labels.column", next_step=f"one of {', '.join(ENTITIES)}"
            )
        return {recording.id: getattr(recording.entities, column) for recording in recordings}
    labels: dict[RecordingId, str] = {}
    for dataset in chosen.datasets:
        mine = [one for one in recordings if one.id.dataset_version == dataset.card.dataset_version]
        by_subject = _participants(workspace, dataset, column) if mine else {}
        labels |= {one.id: by_subject.get(one.entities.subject, "") for one in mine}
    return labels


def _participants(workspace: Workspace, dataset: Dataset, column: str) -> dict[str, str]:
    """Column of ``participants.tsv`` by subject; "" where it says n/a."""
    from neuromill.readers.sidecars import NOT_AVAILABLE, read_rows

    source = dataset.origin.open(workspace.settings)
    files = {file.path: file for file in source.manifest(dataset.card.version).files}
    if PARTICIPANTS not in files:
        raise ConfigError(f"no {PARTICIPANTS} in this dataset", where=dataset.card.id, next_step="take other labels")
    rows = read_rows(source.read(files[PARTICIPANTS]))
    if rows and not {"participant_id", column} <= rows[0].keys():
        raise ConfigError(
            f"{PARTICIPANTS} has no column {column!r}",
            where=dataset.card.id,
            next_step=f"columns: {', '.join(rows[0])}",
        )
    return {
        row["participant_id"].removeprefix("sub-"): "" if row[column].lower() in NOT_AVAILABLE else row[column]
        for row in rows
    }
