"""Weights and settings on disk: round trips, refusals, and the published checkpoint formats."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuromill.records import ConfigError
from neuromill.tokenizers.config import BioCodecConfig, NormalizationConfig, TokenizerConfig
from neuromill.tokenizers.files import (
    from_pretrained,
    import_published,
    load_checkpoint,
    read_facts,
    save_checkpoint,
    save_pretrained,
)
from neuromill.tokenizers.tokenizer import RvqTokenizer
from support.codec import SMALL, meg_like, small_tokenizer


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    tokenizer = small_tokenizer()
    return tokenizer, save_pretrained(tokenizer, tmp_path / "deep" / "tok", facts={"loss": [3.0, 1.5]})


def test_round_trip(saved):
    tokenizer, folder = saved
    again = from_pretrained(folder)
    x = torch.from_numpy(meg_like(3, 400))
    assert again.config == tokenizer.config
    assert again.digest == tokenizer.digest
    assert torch.equal(again.encode(x).codes, tokenizer.encode(x).codes)
    assert torch.equal(again.decode(again.encode(x), 400), tokenizer.decode(tokenizer.encode(x), 400))
    assert read_facts(folder) == {"loss": [3.0, 1.5]}
    assert names_in(folder) == ["config.json", "model.safetensors"]
    assert names_in(folder.parent) == ["tok"]


def test_same_tokenizer_same_bytes(saved, tmp_path):
    _, folder = saved
    other = save_pretrained(from_pretrained(folder), tmp_path / "other", facts={"loss": [3.0, 1.5]})
    assert all((folder / n).read_bytes() == (other / n).read_bytes() for n in names_in(folder))


def test_never_overwritten(saved):
    tokenizer, folder = saved
    with pytest.raises(ConfigError, match="never overwritten"):
        save_pretrained(tokenizer, folder)


def test_nothing_is_left_of_a_failed_save(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        save_pretrained(small_tokenizer(), tmp_path / "tok", facts={"loss": float("nan")})
    assert names_in(tmp_path) == []


def test_digest_covers_weights_and_settings():
    digests = {
        small_tokenizer(seed=0).digest,
        small_tokenizer(seed=1).digest,
        RvqTokenizer(
            TokenizerConfig(network=SMALL, normalization=NormalizationConfig(clip=4)), small_tokenizer().codec
        ).digest,
    }
    assert len(digests) == 3
    assert small_tokenizer().digest in digests


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "not the settings of a NeuroMill tokenizer"),
        ({"format_version": 99}, "format version 99"),
        ({"config": {"kind": "biocodec", "nonsense": 1}}, "settings of the tokenizer are wrong"),
        ({"config": {"kind": "biocodec"}}, "weights do not fit"),
        ({"digest": "0" * 64}, "not the ones the digest names"),
    ],
)
def test_wrong_settings_are_refused(saved, changes, match):
    _, folder = saved
    edit(folder, **changes)
    with pytest.raises(ConfigError, match=match):
        from_pretrained(folder)


def test_changed_weights_are_noticed(saved):
    _, folder = saved
    state = load_file(folder / "model.safetensors")
    state["decoder.model.0.conv.conv.bias"][0] += 1e-3
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="not the ones the digest names"):
        from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b"\xff\xfe"])
def test_broken_settings_are_refused(saved, content):
    _, folder = saved
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ConfigError):
        from_pretrained(folder)


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_truncated_weights_are_refused(saved, size):
    _, folder = saved
    os.truncate(folder / "model.safetensors", size)
    with pytest.raises(ConfigError, match="weights cannot be read"):
        from_pretrained(folder)


@pytest.mark.parametrize("source", ["/no/such/folder", "./nowhere", "one/two/three", "plain"])
def test_no_folder(source):
    with pytest.raises(ConfigError, match="no tokenizer folder"):
        from_pretrained(source)


def test_hub_repository_that_cannot_be_reached_offline():
    with pytest.raises(ConfigError, match="neither a folder nor a repository"):
        from_pretrained("neuromill-tests/does-not-exist", revision="0" * 40)


def test_hub_repository_in_the_local_cache(saved, tmp_path, monkeypatch):
    """The layout of huggingface_hub's cache: one snapshot folder per commit, no network needed for a pinned one."""
    tokenizer, folder = saved
    commit = "1234567890" * 4
    snapshot = tmp_path / "hub" / "models--lab--codec" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert from_pretrained("lab/codec", revision=commit).digest == tokenizer.digest


# Published checkpoints


@pytest.fixture(scope="module")
def golden(data):
    folder = data / "golden"
    return load_file(folder / "biocodec_random.safetensors"), load_file(folder / "biocodec_io.safetensors")


def published(state):
    """What the training loop of BioCodec writes: compiled module names, optimiser and scheduler beside them."""
    return {
        "epoch": 19,
        "model_state_dict": {f"_orig_mod.{name}": t for name, t in state.items()},
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]},
        "scheduler_state_dict": {"last_epoch": 19},
    }


def megxl(state):
    """A Lightning checkpoint of MEG-XL: the codec under ``tokenizer.``, other modules beside it."""
    other = {"model.mask_token": torch.zeros(512), "head.weight": torch.zeros(4, 4)}
    return {"state_dict": {**other, **{f"model.tokenizer.{name}": t for name, t in state.items()}}, "global_step": 5}


def megxl_top(state):
    return {"state_dict": {"head.weight": torch.zeros(4), **{f"tokenizer.{name}": t for name, t in state.items()}}}


def megxl_compiled(state):
    return {"state_dict": {f"_orig_mod.tokenizer._orig_mod.{name}": t for name, t in state.items()}}


@pytest.mark.data
@pytest.mark.parametrize("form", [published, megxl, megxl_top, megxl_compiled, dict])
def test_published_formats(golden, tmp_path, form):
    state, io = golden
    torch.save(form(state), tmp_path / "x.pt")
    tokenizer = import_published(tmp_path / "x.pt")
    assert tokenizer.config == TokenizerConfig()
    assert torch.equal(tokenizer.codec.encode(io["x"]).codes, io["codes"])
    assert from_pretrained(save_pretrained(tokenizer, tmp_path / "saved")).digest == tokenizer.digest


def drop(state):
    del state["decoder.model.0.conv.conv.bias"]


def add(state):
    state["discriminator.weight"] = torch.zeros(3)


def reshape(state):
    state["quantizer.vq.layers.3._codebook.embed"] = torch.zeros(512, 16)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (drop, "missing decoder.model.0.conv.conv.bias"),
        (add, "unknown discriminator.weight"),
        (reshape, r"embed is \(512, 16\), expected \(256, 16\)"),
    ],
)
def test_names_and_shapes_are_checked(tmp_path, damage, match):
    state = small_tokenizer(config=BioCodecConfig()).codec.state_dict()
    damage(state)
    torch.save(published(state), tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=match):
        import_published(tmp_path / "x.pt")


class Hostile:
    """Unpickling this would run code."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"model_state_dict": {}, "x": Hostile()}, path),
        lambda path: path.write_bytes(pickle.dumps(Hostile(), protocol=2)),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 truncated"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"model_state_dict": {"epoch": 3}}, path),
        lambda path: None,
    ],
    ids=["hostile", "hostile pickle", "empty", "truncated", "list", "no tensors", "missing"],
)
def test_unsafe_or_broken_checkpoints_are_refused(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pt")
    with pytest.raises(ConfigError):
        import_published(tmp_path / "x.pt")
    assert not (tmp_path / "pwned").exists()


def test_checkpoint_of_a_fit(tmp_path):
    state = {"identity": "abc", "codec": {"w": torch.arange(3.0)}, "optimizer": {"state": {0: {"step": 1}}}}
    save_checkpoint(tmp_path / "a" / "fit.pt", state)
    again = load_checkpoint(tmp_path / "a" / "fit.pt")
    assert again["identity"] == "abc"
    assert torch.equal(again["codec"]["w"], state["codec"]["w"])
    assert names_in(tmp_path / "a") == ["fit.pt"]
    (tmp_path / "a" / "fit.pt").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="delete it to start over"):
        load_checkpoint(tmp_path / "a" / "fit.pt")
