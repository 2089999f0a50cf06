"""Files of weights: what is not tensors and plain values is refused by name, and never run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neuromill.hub.disk import flush, load_plain, read_weights, replace_file, whole_folder
from neuromill.records import ConfigError


class Foreign:
    """Leaves a trace where its code is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3), "step": 4, "names": ["a"]}, tmp_path / "a.pt")
    found = load_plain(tmp_path / "a.pt", "")
    assert torch.equal(found.pop("w"), torch.arange(3))
    assert found == {"step": 4, "names": ["a"]}


def test_objects_are_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"w": Foreign(tmp_path / "trace")}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"objects of type .*save it alone"):
        load_plain(tmp_path / "a.pt", "save it alone")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_every_truncation_is_an_error_of_ours(legacy: bool, tmp_path: Path) -> None:  # noqa: FBT001
    whole = tmp_path / "whole.pt"
    torch.save({"w": torch.arange(6.0)}, whole, _use_new_zipfile_serialization=not legacy)
    content = whole.read_bytes()
    for length in range(0, len(content) - 1, 1 + len(content) // 400):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(ConfigError, match="cannot be read"):
            load_plain(tmp_path / "cut.pt", "fetch it again")


def test_what_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plain(tmp_path / "nosuch.pt", "")


def test_files_and_folders_can_be_flushed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    flush(tmp_path / "a", tmp_path)
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "b")


def test_weights_come_back_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.arange(3)}, path)
    assert torch.equal(read_weights(path).pop("w"), torch.arange(3))
    path.write_bytes(path.read_bytes()[:-1])
    for wrong in (path, tmp_path / "nosuch.safetensors"):
        with pytest.raises(ConfigError, match="weights cannot be read") as caught:
            read_weights(wrong)
        assert caught.value.where == str(wrong)


def write_half(path: Path) -> None:
    path.write_text("ha")
    raise OSError("disk full")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, lambda new: new.write_text("first"))
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, write_half)
    assert path.read_text() == "first"
    replace_file(path, lambda new: new.write_text("second"))
    assert path.read_text() == "second"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_new_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with pytest.raises(OSError, match="disk full"), whole_folder(folder) as place:
        write_half(place / "left over")
    assert not folder.exists()
    with whole_folder(folder) as place:
        assert not list(place.iterdir())
        (place / "a").write_text("a")
        assert not folder.exists()
    assert [one.name for one in folder.parent.iterdir()] == ["model"]
    assert (folder / "a").read_text() == "a"


def test_a_folder_that_exists_is_filled_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("stays")
    with whole_folder(tmp_path) as place:
        assert place == tmp_path
    assert (tmp_path / "other").exists()
