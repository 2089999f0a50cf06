"""Pipelines of spikes with numbers so small that a stage takes a second."""

from typing import Any

from neuromill.stages.pipeline import Pipeline

TINY_SPIKES: dict[str, Any] = {
    "name": "tiny-spikes",
    "prepare": {"kind": "spikes"},
    "tokenizer": {"kind": "ndt3"},
    "train": {
        "kind": "ndt3",
        "model": {"hidden_dim": 32, "n_layers": 1, "n_heads": 2, "dropout": 0.0},
        "batch_size": 4,
        "max_steps": 3,
        "log_every_steps": 1,
        "validate_every_steps": 3,
        "checkpoint_every_steps": 3,
        "accelerator": "cpu",
    },
}


def tiny_spike_pipeline(**changes: Any) -> Pipeline:
    """The tiny pipeline with whole sections merged; anything else replaces."""
    document = dict(TINY_SPIKES)
    for name, value in changes.items():
        old = document.get(name)
        document[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return Pipeline.model_validate(document)
