"""Small EEG data sets, a pipeline that prepares and tokenizes them, and a model: for tests of training and probing."""

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np

from neuromill.stages.pipeline import Pipeline
from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig, TfDualTokenizerConfig
from support.tfdual import eeg_like

SFREQ, HOP, WINDOW = 50.0, 50, 6
RAW_SFREQ = 100.0
NAMES = ("C3", "C4", "CZ", "PZ")
NETWORK = TfDualNetworkConfig(
    patch_samples=HOP, window_patches=WINDOW, width=60, depth=1, heads=6, mlp_ratio=1, decoder_depth=1,
    stem_stride=10, codebook_size=300, codebook_dim=8, max_channels=4, max_patches=WINDOW,
)  # fmt: skip
TOKENIZER = TfDualTokenizerConfig(sfreq=SFREQ, network=NETWORK, channels=NAMES, min_channels=1)
MODEL = {
    "patch_size": HOP, "res_channels": 16, "skip_channels": 16, "out_channels": 16, "num_res_layers": 1,
    "pos_kernel": [3, 3], "s4_lmax": 64,
}  # fmt: skip
TRAIN = {
    "kind": "eegssm", "model": MODEL, "windows": {"window_patches": WINDOW}, "batch_size": 2, "accumulate_batches": 1,
    "max_steps": 3, "log_every_steps": 1, "accelerator": "cpu", "cpu_threads": 1,
}  # fmt: skip
Change = Callable[[int, np.ndarray], None]


def one_artefact(number: int, signal: np.ndarray) -> None:
    """C3 of the first subject is far too large from 7 to 8 s."""
    if number == 0:
        signal[0, 700:800] += 2e-3 * np.sin(np.linspace(0, 60, 100))


def write_eeg(
    root: Path,
    subjects: tuple[str, ...],
    change: Change = lambda _, __: None,
    seconds: float = 30.0,
    events: str = "",
) -> Path:
    """EEG of four channels as FIF in a BIDS tree; ``change`` is given the number of a subject and its signal."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.9.0"}\n')
    for number, subject in enumerate(subjects):
        n_times = int(seconds * RAW_SFREQ)
        signal = eeg_like(1, len(NAMES), n_times, seed=number, sfreq=RAW_SFREQ)[0].astype(np.float64)
        change(number, signal)
        file = root / f"sub-{subject}" / "eeg" / f"sub-{subject}_task-rest_eeg.fif"
        file.parent.mkdir(parents=True)
        info = mne.create_info(list(NAMES), RAW_SFREQ, "eeg")
        mne.io.RawArray(signal, info, verbose="error").save(file, verbose="error")
        if events:
            file.with_name(f"sub-{subject}_task-rest_events.tsv").write_text(events)
    return root


def pipeline_of(tokenizer: Path, **train: object) -> Pipeline:
    """Four channels at 50 Hz, windows of 6 s rejected above 400 uV."""
    return Pipeline.model_validate(
        {
            "name": "tiny-eeg",
            "prepare": {
                "steps": [
                    {"step": "pick", "picks": ["eeg"]},
                    {"step": "resample", "sfreq": SFREQ},
                    {"step": "reject", "threshold_volts": 4e-4, "window_seconds": WINDOW * HOP / SFREQ},
                ]
            },
            "tokenizer": TOKENIZER.model_dump(),
            "fit": {"kind": "tfdual"},
            "pretrained": {"source": str(tokenizer)},
            "train": TRAIN | train,
        }
    )
