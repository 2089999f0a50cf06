"""Parts of a report that read signals themselves: a window before and after the tokenizer, and rejected windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.reports.contents import Example, RejectionFacts
from neuromill.stages.channels import good_channels
from neuromill.stages.rejections import rejection_of
from neuromill.stages.report_groups import SPLITS_BY_HONESTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.stages.choosing import Chosen
    from neuromill.stages.report_groups import Published
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.tokenizer import RvqTokenizer

    Rows = NDArray[np.float32]

EXAMPLE_SECONDS = 10.0
EXAMPLE_CHANNELS = 4
AS_SEEN = "normalised as the tokenizer sees them"
IN_PHYSICAL_UNITS = "over the standard deviation of the original"


def example_of(
    chosen: Chosen, tokenizer: Tokenizer, rows_per_forward: int, prepared: Sequence[Published]
) -> Example | None:
    """Encode and decode a window of a recording that was held out, if one was."""
    from neuromill.tokenizers.tokenizer import RvqTokenizer

    candidates = [one for one in prepared if good_channels(one.channels)]
    if not candidates:
        return None
    best = min(candidates, key=lambda one: _rank(chosen, one))
    good = good_channels(best.channels)
    if isinstance(tokenizer, RvqTokenizer):
        start, stop = best.middle(EXAMPLE_SECONDS)
        picks, amplitudes = _spread(good), AS_SEEN
        original, reconstruction = _by_rows(tokenizer, best.signal(start, stop)[picks])
    else:
        start, original, reconstruction = _by_segment(tokenizer, best, rows_per_forward)
        whole = np.isfinite(reconstruction).all(axis=1) & (np.std(original, axis=1) > 0)
        picks, amplitudes = _spread([i for i in good if whole[i]]), IN_PHYSICAL_UNITS
        if not picks:
            return None
        spread = np.std(original[picks], axis=1, keepdims=True)
        original, reconstruction = original[picks] / spread, reconstruction[picks] / spread
    return Example(
        recording=str(best.recording.id),
        split=chosen.split_of(best.recording),
        sfreq=best.group.sfreq,
        start_seconds=start / best.group.sfreq,
        channels=tuple(best.channels.names[i] for i in picks),
        original=original,
        reconstruction=reconstruction,
        amplitudes=amplitudes,
    )


def _rank(chosen: Chosen, one: Published) -> tuple[int, bool, int, str]:
    """Held-out ones first, then long enough ones, then many channels, then by name."""
    split = chosen.split_of(one.recording)
    order = SPLITS_BY_HONESTY.index(split) if split in SPLITS_BY_HONESTY else len(SPLITS_BY_HONESTY)
    short = one.group.n_rows < EXAMPLE_SECONDS * one.group.sfreq
    return order, short, -one.group.n_channels, str(one.recording.id)


def _spread(channels: Sequence[int]) -> list[int]:
    places = np.unique(np.linspace(0, len(channels) - 1, EXAMPLE_CHANNELS).round().astype(int)) if channels else ()
    return [channels[i] for i in places]


def _by_rows(tokenizer: RvqTokenizer, signal: Rows) -> tuple[Rows, Rows]:
    """Signal as the tokenizer sees it, and what comes back from its codes: float32 [channel, time]."""
    import torch

    rows = torch.from_numpy(np.ascontiguousarray(signal))
    with torch.inference_mode():
        seen = tokenizer.normalize(rows)
        back = tokenizer.decode(tokenizer.encode(rows), rows.shape[1])
    return seen.cpu().numpy(), back.cpu().numpy()


def _by_segment(tokenizer: Tokenizer, one: Published, rows_per_forward: int) -> tuple[int, Rows, Rows]:
    """First sample, signal, and what comes back of one segment of all channels: float32 [channel, time]."""
    import torch

    wanted = EXAMPLE_SECONDS if tokenizer.window_samples is None else tokenizer.window_samples / one.group.sfreq
    start, stop = one.middle(wanted)
    signal, rejection = np.ascontiguousarray(one.signal(start, stop)), rejection_of(one.reader, one.name)
    given = signal if rejection is None or not tokenizer.is_joint else rejection.hidden(signal.T, start).T
    with torch.inference_mode():
        block = tokenizer.encode_segments(np.ascontiguousarray(given)[None], one.channels, rows_per_forward)
        back = tokenizer.decode_segments(block, one.channels, signal.shape[1], rows_per_forward)[0]
    shown = round(EXAMPLE_SECONDS * one.group.sfreq)
    return start, signal[:, :shown], back[:, :shown]


def rejection_facts(prepared: Sequence[Published]) -> tuple[RejectionFacts, ...]:
    """Windows that preparation marked, of the recordings that lost the largest share; () where it looked at none."""
    found = [_rejection(one) for one in prepared if "rejected" in one.group.arrays]
    found.sort(key=lambda one: (-float((one.reasons > 0).mean()), one.recording))
    return tuple(found)


def _rejection(one: Published) -> RejectionFacts:
    about = one.group.arrays["rejected"].spec.attributes
    return RejectionFacts(
        recording=str(one.recording.id),
        channels=one.channels.names,
        window_seconds=int(about["window_samples"]) / one.group.sfreq,
        reasons=np.asarray(one.reader.read(one.name, "rejected"), np.uint8),
        legend=tuple(str(name) for name in about["legend"]),
    )
