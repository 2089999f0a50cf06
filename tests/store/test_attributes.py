import pickle

import pytest
from pydantic import ValidationError

from neuromill.records import Digest, Entities, Recording, RecordingId, SourceFile
from neuromill.store.attributes import SignalAttributes, recording_facts
from neuromill.store.errors import CorruptStoreError


def test_facts_of_a_recording() -> None:
    members = (SourceFile("b.fif", 2, Digest("md5", "00")), SourceFile("a.fif", 1, locator="version-1"))
    entities = Entities(subject="01", task="rest")
    recording = Recording(RecordingId("ds1", "1.0.0", "sub-01_meg"), "b.fif", members, entities, datatype="meg")
    attributes = SignalAttributes(**recording_facts(recording), sfreq=50.0)
    assert attributes.recording_id == "ds1@1.0.0/sub-01_meg"
    assert attributes.entities == {"subject": "01", "task": "rest"}
    assert list(attributes.sources.items()) == [("a.fif", "version-1"), ("b.fif", "md5:00")]
    assert attributes.line_freq is None


@pytest.mark.parametrize("change", [{"sfreq": 0.0}, {"sfreq": -1.0}, {"created": "today"}, {"modality": None}])
def test_attributes_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    given = {"recording_id": "x", "dataset": "d", "version": "1", "modality": "meg", "sfreq": 50.0}
    with pytest.raises(ValidationError):
        SignalAttributes(**{**given, **change})


def test_store_errors_survive_the_trip_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(CorruptStoreError("a", where="b", next_step="c")))
    assert isinstance(error, CorruptStoreError)
    assert str(error) == "a [b] -> c"
