"""Examples of a labelled task: which windows of which prepared recordings, whose they are, and what they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from neuromill.catalog.strict_yaml import parse_yaml
from neuromill.records import ConfigError
from neuromill.stages.probe_labels import class_names, recording_labels
from neuromill.training.probe_config import ProbeConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.workspace import Workspace
    from neuromill.store.reader import StoreReader

NO_CLASS = "without a label of the task"
NOT_INSIDE = "not wholly inside the recording"
TWO_LABELS = "with two labels at one onset"
OTHER_CLASS = "in which an event of another class begins or lasts"
TOLD_TWICE = "that are told twice"
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
        Nothing is labelled, fewer than two classes occur, labels are not where the task says, contradict each other or
        differ in capitals alone.
    """
    counter: Counter[str] = Counter()
    found: list[tuple[Recording, int, str]] = []
    for recording, windows in _labelled(workspace, chosen, recordings, readers, task, patch_size, counter):
        reader = readers[str(recording.id.dataset_version)]
        for start, label in windows:
            if usable_patches(reader, recording.id.name, start, task, patch_size).any():
                found.append((recording, start, label))
            else:
                counter["rejected in every channel"] += 1
    occur = {label for _, _, label in found}
    classes = task.labels.classes or tuple(sorted(occur))
    missing = [name for name in classes if name not in occur]
    if missing or len(classes) < 2:  # noqa: PLR2004 - something must be told from something
        what = f"no example of {', '.join(missing)}" if missing else _too_few(classes)
        left_out = ", ".join(f"{count} windows {reason}" for reason, count in (+counter).items())
        raise ConfigError(
            what + (f"; left out: {left_out}" if left_out else ""),
            where=f"labels: {task.labels.source} {task.labels.column}".strip(),
            next_step="check labels and window_seconds; " + _PAGE,
        )
    rows = tuple(Example(one, chosen.split_of(one), start, classes.index(label)) for one, start, label in found)
    return Examples(rows, classes, dict(+counter))


def _too_few(classes: Sequence[str]) -> str:
    return f"a task needs two classes, found: {', '.join(classes)}" if classes else "no window has a label"


def _labelled(
    workspace: Workspace,
    chosen: Chosen,
    recordings: Sequence[Recording],
    readers: Mapping[str, StoreReader],
    task: ProbeConfig,
    patch_size: int,
    counter: Counter[str],
) -> Iterator[tuple[Recording, list[tuple[int, str]]]]:
    """Windows of each recording: first sample and name of the class; counts those that are none."""
    labels = recording_labels(workspace, chosen, recordings, task.labels)
    by_event = task.labels.source == "events"
    events = {one.id: _events(readers[str(one.id.dataset_version)], one.id.name) for one in recordings if by_event}
    written = {event.label for some in events.values() for event in some} if by_event else labels.values()
    names = class_names(written, task.labels)
    for recording in recordings:
        about = readers[str(recording.id.dataset_version)].recording(recording.id.name)
        length = window_samples(task, about.sfreq, patch_size)
        if by_event:
            named = [replace(event, label=names[event.label]) for event in events[recording.id]]
            grid = WindowGrid(about.sfreq, about.n_rows, length, task.offset_seconds)
            yield recording, event_windows(named, grid, counter)
            continue
        starts, label = range(0, about.n_rows - length + 1, length), names[labels.get(recording.id, "")]
        if not label:
            counter[NO_CLASS] += len(starts)
        yield recording, [(start, label) for start in starts if label]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a recording; ``label`` is "" where it is of no class of the task."""

    onset: float
    duration: float
    label: str


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Where windows of events may lie: rate, samples of the recording and of a window, seconds after an onset."""

    sfreq: float
    n_rows: int
    length: int
    offset_seconds: float = 0.0


def event_windows(events: Sequence[Event], grid: WindowGrid, counter: Counter[str]) -> list[tuple[int, str]]:
    """First sample and label of the window of each event, without those whose label the signal contradicts.

    That is, a window in which an event of another class begins or still lasts, and an event that has another label at
    the same onset. An event that is told twice is one example. What is left out is counted by reason.
    """
    labelled = [event for event in events if event.label]
    counter[NO_CLASS] += len(events) - len(labelled)
    onsets = np.array([round(event.onset * grid.sfreq) for event in labelled], np.int64)
    ends = np.array([round((event.onset + event.duration) * grid.sfreq) for event in labelled], np.int64)
    ends = np.maximum(ends, onsets + 1)
    _, classes = np.unique([event.label for event in labelled], return_inverse=True)
    kept: dict[tuple[int, str], None] = {}
    for event, onset, mine in zip(labelled, onsets, classes, strict=True):
        start = round((event.onset + grid.offset_seconds) * grid.sfreq)
        others = classes != mine
        if not 0 <= start <= grid.n_rows - grid.length:
            counter[NOT_INSIDE] += 1
        elif (others & (onsets == onset)).any():
            counter[TWO_LABELS] += 1
        elif (others & (onsets < start + grid.length) & (ends > start)).any():
            counter[OTHER_CLASS] += 1
        elif (start, event.label) in kept:
            counter[TOLD_TWICE] += 1
        else:
            kept[start, event.label] = None
    return list(kept)


def _events(reader: StoreReader, name: str) -> list[Event]:
    about = reader.recording(name)
    if "event_onset" not in about.arrays:
        return []
    columns = (reader.read(name, "event_onset").tolist(), reader.read(name, "event_duration").tolist())
    rows = zip(*columns, about.attributes["event_descriptions"], strict=True)
    return [Event(onset, duration, str(description)) for onset, duration, description in rows]


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
