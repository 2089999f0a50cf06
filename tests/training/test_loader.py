"""Batches of tokens."""

import hashlib
import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuromill.training.config import MaskingConfig, WindowConfig
from neuromill.training.loader import BatchLoader, LoaderConfig, TokenBatch
from neuromill.training.task import Drawing
from neuromill.training.tokens import MemoryTokens
from neuromill.training.windows import plan_windows
from support.tokens import memory_tokens, recording

TOKENS = memory_tokens(
    recording("a", 130, 20), recording("b", 70, 24, n_bad=2), recording("c", 90, 40, dataset="other")
)


def loader(tokens: MemoryTokens = TOKENS, **changes: object) -> BatchLoader:
    drawing = Drawing(**({"batch_size": 3, "seed": 9} | changes))
    windows = plan_windows(tokens.recordings, WindowConfig(window_frames=40))
    return BatchLoader(tokens, windows, LoaderConfig(drawing, 40, MaskingConfig()))


def digest(batch: TokenBatch) -> str:
    tensors = [batch.codes, *batch.sensors, batch.masked_frames, batch.frame_mask]
    parts = [b"-" if t is None else t.contiguous().numpy().tobytes() for t in tensors]
    return hashlib.sha256(b"|".join([*parts, repr(batch.ids).encode()])).hexdigest()


def digests(one: BatchLoader, epoch: int = 0, first: int = 0) -> list[str]:
    return [digest(batch) for batch in one.epoch(epoch, first)]


def test_rows_are_the_windows_their_ids_say() -> None:
    by_name = {r.name: (r, codes) for r, codes in zip(TOKENS.recordings, TOKENS.codes, strict=True)}
    seen = set()
    for batch in loader().epoch(0):
        n_channels, n_frames = batch.codes.shape[1], batch.codes.shape[3]
        channels = batch.sensors.mask if batch.sensors.mask is not None else torch.ones(len(batch.ids), n_channels) > 0
        frames = batch.frame_mask if batch.frame_mask is not None else torch.ones(len(batch.ids), n_frames) > 0
        for row, one in enumerate(batch.ids):
            source, codes = by_name[one.recording]
            length = one.stop - one.start
            got = batch.codes[row, : source.n_channels, :, :length].numpy()
            np.testing.assert_array_equal(got, codes[one.start : one.stop].transpose(2, 1, 0))
            assert not batch.codes[row, source.n_channels :].any()
            assert not batch.codes[row, :, :, length:].any()
            wide = np.pad(source.geometry.mask, (0, n_channels - source.n_channels))
            np.testing.assert_array_equal(channels[row].numpy(), wide)
            assert frames[row].sum() == length
            assert not batch.masked_frames[row, length:].any()
            seen.add((one.recording, one.start, one.stop))
    assert len(seen) == len(loader().windows)


def test_masks_are_left_out_where_everything_is_real() -> None:
    tokens = memory_tokens(recording("a", 80, 20))
    batch = next(iter(loader(tokens).epoch(0)))
    assert batch.sensors.mask is None
    assert batch.frame_mask is None


@pytest.mark.parametrize("threads", [2, 5])
def test_same_bytes_whatever_the_number_of_threads(threads: int) -> None:
    assert digests(loader(threads=threads)) == digests(loader(threads=1))


def test_an_epoch_can_be_entered_anywhere() -> None:
    whole = digests(loader(), epoch=2)
    assert len(whole) == len(loader()) > 3
    assert [digests(loader(), 2, first) for first in range(len(whole))] == [whole[i:] for i in range(len(whole))]


def test_limit_and_early_end_leave_no_thread_behind() -> None:
    before = threading.active_count()
    assert len(list(loader(threads=3).epoch(0, 1, limit=2))) == 2
    for _ in loader(threads=3).epoch(0):
        break
    assert threading.active_count() == before


def test_buffers_are_recycled() -> None:
    one = loader(threads=1, batch_size=1)
    addresses = {batch.codes.data_ptr() for batch in one.epoch(0)}
    assert len(addresses) <= 3 < len(one)


def test_masks_change_with_the_epoch_unless_fixed() -> None:
    def masks(epoch: int, **changes: object) -> dict[object, tuple[bool, ...]]:
        batches = loader(**changes).epoch(epoch)
        return {i: tuple(m.tolist()) for b in batches for i, m in zip(b.ids, b.masked_frames, strict=True)}

    assert masks(0) != masks(1)
    assert masks(0, mask_epoch=0) == masks(1, mask_epoch=0)


def test_a_failing_read_reaches_the_caller() -> None:
    class Broken(MemoryTokens):
        def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
            if recording == 1:
                raise OSError("disk is gone")
            super().read_codes(recording, start, stop, out)

    with pytest.raises(OSError, match="disk is gone"):
        digests(loader(Broken(TOKENS.recordings, TOKENS.codes)))


def test_moving_a_batch_keeps_everything() -> None:
    batch = next(iter(loader().epoch(0)))
    assert digest(batch.to(torch.device("cpu"))) == digest(batch)
