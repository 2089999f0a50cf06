"""Token stores as training data."""

from pathlib import Path

import numpy as np
import pytest

from neuromill.models.config import CrissCrossConfig
from neuromill.records import ConfigError, FailureCode
from neuromill.store.index import rebuild_index
from neuromill.store.writer import TokenWriter
from neuromill.training.config import MaskingConfig, TrainConfig, WindowConfig
from neuromill.training.criss_cross_task import train
from neuromill.training.loader import BatchLoader, LoaderConfig
from neuromill.training.store_tokens import StoreTokens
from neuromill.training.task import Drawing
from neuromill.training.windows import plan_windows
from support.descriptors import open_below
from support.stores import channel_table, token_attributes
from support.tokens import codebooks

COILS = ("VV_MAG_T1", "VV_PLANAR_T1", "MAGNES_GRAD", "CTF_GRAD")


def write(store: Path, name: str, lengths: list[tuple[int, int]], **options: object) -> np.ndarray:
    """Write a recording of four channels; ``lengths`` are (frames, valid samples) of its segments."""
    attributes = {k: options.pop(k) for k in ("tokenizer", "segment_samples") if k in options}
    rng = np.random.default_rng(len(name) + sum(map(sum, lengths)))
    codes = rng.integers(0, 256, (sum(n for n, _ in lengths), 6, 4), dtype=np.uint8)
    done = 0
    with TokenWriter(store, name, n_channels=4, n_quantizers=6, codebook_size=256) as writer:
        for n_frames, n_valid in lengths:
            writer.write_segment(codes[done : done + n_frames], np.ones(4, np.float32), n_valid)
            done += n_frames
        table = channel_table(4, **{"coils": COILS, **options})
        writer.publish(token_attributes(name, **{"segment_samples": 600, **attributes}), table)
    return codes


def test_a_recording_is_what_its_group_says(tmp_path: Path) -> None:
    codes = write(tmp_path, "sub-07_meg", [(50, 600), (50, 600), (21, 245)], bads=("", "marked", "", ""))
    rebuild_index(tmp_path)
    tokens = StoreTokens.open([tmp_path])
    (one,) = tokens.recordings
    assert (one.name, one.dataset, one.subject) == ("ds000001@1.0.0/sub-07_meg", "ds000001", "07")
    assert (one.n_frames, one.segment_frames, one.n_quantizers, one.n_channels) == (121, 50, 6, 4)
    assert one.geometry.mask.tolist() == [True, False, True, True]
    assert one.geometry.types.tolist() == [1, 0, 0, 0]
    assert StoreTokens.open([tmp_path], parity=True).recordings[0].geometry.types.tolist() == [1, 0, 1, 0]
    out = np.empty((30, 6, 4), np.uint8)
    tokens.read_codes(0, 90, 120, out)
    np.testing.assert_array_equal(out, codes[90:120])


@pytest.mark.parametrize(
    ("lengths", "n_frames"),
    [
        ([(50, 600), (50, 1)], 51),  # the tokenizer padded the tail to the grid: one frame is real
        ([(50, 600), (50, 600)], 100),
        ([(50, 13)], 2),
        ([(13, 150)], 13),
    ],
)
def test_frames_of_padding_alone_do_not_count(tmp_path: Path, lengths: list[tuple[int, int]], n_frames: int) -> None:
    write(tmp_path, "sub-01_meg", lengths)
    rebuild_index(tmp_path)
    assert StoreTokens.open([tmp_path]).recordings[0].n_frames == n_frames


def test_recordings_are_picked_by_what_the_index_says(tmp_path: Path) -> None:
    for subject in ("01", "02", "03"):
        write(tmp_path, f"sub-{subject}_meg", [(50, 600)])
    rebuild_index(tmp_path, extra={"sub-02_meg": {"split": "validation"}})
    held_out = StoreTokens.open([tmp_path], pick=lambda r: r.extra["split"] == "validation")
    assert [r.subject for r in held_out.recordings] == ["02"]


def test_a_recording_without_geometry_is_left_out_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path, "sub-01_meg", [(50, 600)], positions=np.full((4, 3), np.nan))
    kept = write(tmp_path, "sub-02_meg", [(50, 600)])
    rebuild_index(tmp_path)
    tokens = StoreTokens.open([tmp_path])
    assert [r.subject for r in tokens.recordings] == ["02"]
    assert [e.code for e in tokens.left_out] == [FailureCode.NO_USABLE_CHANNELS]
    out = np.empty((50, 6, 4), np.uint8)
    tokens.read_codes(0, 0, 50, out)
    np.testing.assert_array_equal(out, kept)


def test_codes_of_two_tokenizers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "sub-01_meg", [(50, 600)])
    write(tmp_path, "sub-02_meg", [(50, 600)], tokenizer="sha256:22")
    rebuild_index(tmp_path)
    with pytest.raises(ConfigError, match=r"differ in tokenizer: sha256:11, sha256:22"):
        StoreTokens.open([tmp_path])


def test_a_store_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        StoreTokens.open([tmp_path])


def test_from_store_to_batches_and_to_a_trained_model(tmp_path: Path) -> None:
    store = tmp_path / "store"
    written = {f"ds000001@1.0.0/sub-0{i}_meg": write(store, f"sub-0{i}_meg", [(50, 600), (30, 359)]) for i in (1, 2, 3)}
    rebuild_index(store)
    tokens = StoreTokens.open([store], pick=lambda r: r.entities["subject"] != "03")
    windows = WindowConfig(window_frames=25)
    config = LoaderConfig(Drawing(batch_size=2, seed=0), window_frames=25, masking=MaskingConfig())
    rows = 0
    for batch in BatchLoader(tokens, plan_windows(tokens.recordings, windows), config).epoch(0):
        for row, one in enumerate(batch.ids):
            got = batch.codes[row, ..., : one.stop - one.start].numpy()
            np.testing.assert_array_equal(got, written[one.recording][one.start : one.stop].transpose(2, 1, 0))
            rows += 1
    assert rows == 2 * 4
    model = CrissCrossConfig(latent_dim=16, n_layers=1, n_heads=2, fourier_dim=8)
    held_out = StoreTokens.open([store], pick=lambda r: r.entities["subject"] == "03")
    settings = TrainConfig(model=model, windows=windows, max_steps=3, batch_size=2, accelerator="cpu")
    result = train(settings, tokens, held_out, codebooks(), tmp_path / "run")
    assert result.steps == 3
    assert result.validation is not None
    assert list(result.validation.per_dataset) == ["ds000001"]


def test_opening_leaves_no_file_open(tmp_path: Path) -> None:
    write(tmp_path, "sub-07_meg", [(50, 600)])
    rebuild_index(tmp_path)
    tokens = StoreTokens.open([tmp_path])
    assert open_below(tmp_path) == []
    tokens.read_codes(0, 0, 10, np.empty((10, 6, 4), np.uint8))
    assert open_below(tmp_path) == ["sub-07_meg.zarr/codes/c/0/0/0"]
