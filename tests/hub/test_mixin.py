"""Saving, loading and sharing through the mixin; no network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.models.eegssm import EEGSSM
from neuromill.models.ndt3 import Ndt3
from neuromill.records import ConfigError
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.tfdual import TfDualTokenizer
from neuromill.tokenizers.tokenizer import RvqTokenizer
from support.codec import SMALL as CODEC
from support.tfdual import CONFIG

FILES = ["config.json", "model.safetensors"]


def tiny(**settings: Any) -> EEGSSM:
    torch.manual_seed(0)
    return EEGSSM(
        patch_size=50, res_channels=4, skip_channels=4, out_channels=8, num_res_layers=1, s4_lmax=8, pos_kernel=(3, 3),
        codebook_size_t=16, codebook_size_f=8, **settings,
    ).eval()  # fmt: skip


def same(one: EEGSSM, other: EEGSSM) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def cached(model: EEGSSM, cache: Path, name: str = "lab/tiny", commit: str = "a" * 40) -> None:
    """Lay a model out as huggingface_hub's cache has it."""
    root = cache / f"models--{name.replace('/', '--')}"
    model.save_pretrained(root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)


def test_a_folder_goes_and_comes(tmp_path: Path) -> None:
    model = tiny(pretrain_mode=True)
    folder = model.save_pretrained(str(tmp_path / "model"))
    assert sorted(path.name for path in folder.iterdir()) == FILES
    back = EEGSSM.from_pretrained(folder)
    assert same(model, back)
    assert back.config == model.config
    assert not back.training
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "model")
    other = tiny(n_outputs=2)
    other.save_pretrained(tmp_path / "model")
    assert same(EEGSSM.from_pretrained(str(tmp_path / "model")), other)


def test_from_a_cache_of_the_hub(tmp_path: Path) -> None:
    model = tiny()
    cached(model, tmp_path)
    assert same(EEGSSM.from_pretrained("lab/tiny", cache_dir=tmp_path), model)
    assert same(EEGSSM.from_pretrained("lab/tiny", cache_dir=tmp_path, revision="a" * 40), model)
    assert same(EEGSSM.from_pretrained("lab/tiny", cache_dir=tmp_path, local_files_only=True), model)
    with pytest.raises(ConfigError, match="can be reached"):
        EEGSSM.from_pretrained("lab/tiny", cache_dir=tmp_path, revision="b" * 40)


@pytest.mark.parametrize("source", ["lab/missing", "missing", "./lab/missing", "../up", "a/b/c", Path("lab/missing")])
def test_what_is_not_there(tmp_path: Path, source: str | Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder|can be reached"):
        EEGSSM.from_pretrained(source, cache_dir=tmp_path)


def test_another_class(tmp_path: Path) -> None:
    class Narrow(EEGSSM):
        pass

    tiny().save_pretrained(tmp_path / "model")
    assert type(Narrow.from_pretrained(tmp_path / "model")) is Narrow
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({"architecture": "criss_cross", "format_version": 1, "config": {}})
    )
    with pytest.raises(ConfigError, match="criss_cross"):
        Narrow.from_pretrained(tmp_path / "model")


def test_other_models_share_it(tmp_path: Path) -> None:
    config = CrissCrossConfig(latent_dim=16, n_layers=1, n_heads=2, fourier_dim=6, codebook_size=8, codebook_dim=4)
    model = CrissCross(config)
    model.save_pretrained(tmp_path / "model")
    back = CrissCross.from_pretrained(tmp_path / "model")
    assert back.config == config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ConfigError, match="n_layers cannot be changed"):
        CrissCross.from_pretrained(tmp_path / "model", n_layers=2)
    with pytest.raises(ConfigError):
        EEGSSM.from_pretrained(tmp_path / "model")


KINDS = [
    pytest.param(CrissCross, {"latent_dim": 16, "n_layers": 1, "n_heads": 2, "fourier_dim": 6}, {"n_layers": 2}),
    pytest.param(Ndt3, {"n_layers": 1, "hidden_dim": 32, "n_heads": 2}, {"n_layers": 2}),
    pytest.param(EEGSSM, {"patch_size": 50, "num_res_layers": 1, "s4_lmax": 8}, {"n_outputs": 3}),
    pytest.param(RvqTokenizer, {"network": CODEC.model_dump()}, {"normalization": {"clip": 4.0}}),
    pytest.param(TfDualTokenizer, CONFIG.model_dump(mode="json"), {"min_channels": 4}),
    pytest.param(FixedTokenizer, {"kind": "quantile", "sfreq": 50.0}, {"n_codes": 17}),
]


@pytest.mark.parametrize(("kind", "settings", "changes"), KINDS)
def test_settings_go_and_come(kind: type[Any], settings: dict[str, Any], changes: dict[str, Any]) -> None:
    model = kind.from_config(settings)
    config = json.loads(json.dumps(model.get_config()))
    again, other = kind.from_config(config), kind.from_config(config, **changes)
    assert type(again) is kind
    assert again.config == model.config
    assert again.get_config() == config
    assert other.config == type(model.config).model_validate({**config, **changes}) != model.config
    with pytest.raises((ConfigError, TypeError)):
        kind.from_config(config, nosuch=1)


def test_weights_of_a_model_from_settings_are_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = TfDualTokenizer.from_config(CONFIG.model_dump())
    other = TfDualTokenizer.from_config(one.get_config())
    assert one.digest != other.digest
    assert TfDualTokenizer.from_pretrained(one.save_pretrained(tmp_path / "one")).digest == one.digest


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="settings of a TfDualTokenizer, not of a RvqTokenizer"):
        RvqTokenizer.from_config(CONFIG.model_dump())
    with pytest.raises(ConfigError, match="'nosuch' are unknown"):
        RvqTokenizer.from_config({"kind": "nosuch"})
    with pytest.raises(ConfigError, match="settings of the model are wrong"):
        CrissCross.from_config({"n_layers": "many"})


class FakeHub:
    """Stands in for ``huggingface_hub.HfApi``: repositories are folders."""

    root: Path
    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, **settings: Any) -> None:
        self.calls.append(("HfApi", settings))

    def create_repo(self, repo_id: str, **settings: Any) -> None:
        self.calls.append(("create_repo", settings))
        (self.root / repo_id).mkdir(parents=True, exist_ok=settings["exist_ok"])

    def file_exists(self, repo_id: str, filename: str, **_: Any) -> bool:
        return (self.root / repo_id / filename).is_file()

    def upload_folder(self, *, repo_id: str, folder_path: Path, **settings: Any) -> SimpleNamespace:
        self.calls.append(("upload_folder", settings))
        for path in Path(folder_path).iterdir():
            assert path.name in settings["allow_patterns"]
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    kind = type("Hub", (FakeHub,), {"root": tmp_path / "hub", "calls": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", kind)
    return kind


def test_push_makes_a_repository_that_opens(fake_hub: type[FakeHub]) -> None:
    model = tiny(n_outputs=2)
    address = model.push_to_hub("lab/tiny", private=True, token="secret", commit_message="first")
    assert address == "https://hub/lab/tiny/commit/1"
    assert same(EEGSSM.from_pretrained(fake_hub.root / "lab/tiny"), model)
    calls = dict(fake_hub.calls)
    assert calls["HfApi"]["token"] == "secret"
    assert calls["create_repo"] == {"private": True, "exist_ok": True}
    assert calls["upload_folder"]["commit_message"] == "first"
    card = (fake_hub.root / "lab/tiny/README.md").read_text()
    assert "EEGSSM.from_pretrained('lab/tiny')" in card
    assert card.startswith("---\nlibrary_name: neuromill\n")


def test_push_keeps_a_card_unless_given_another(fake_hub: type[FakeHub]) -> None:
    card = fake_hub.root / "lab/tiny/README.md"
    card.parent.mkdir(parents=True)
    card.write_text("written by hand")
    tiny().push_to_hub("lab/tiny")
    assert card.read_text() == "written by hand"
    tiny().push_to_hub("lab/tiny", card="new")
    assert card.read_text() == "new"


def test_push_without_network_or_name() -> None:
    with pytest.raises(ConfigError, match="refused"):
        tiny().push_to_hub("lab/tiny", token="x")
    with pytest.raises(ConfigError, match="name"):
        tiny().push_to_hub("tiny")
