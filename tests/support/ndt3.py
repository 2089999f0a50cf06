"""A small NDT3 and batches for it."""

import torch

from neuromill.models.ndt3 import Ndt3
from neuromill.models.ndt3_batch import Chunk, SpikeTokenBatch, collate
from neuromill.models.ndt3_config import Ndt3Config
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from support.spike_sessions import Session, make_session

TINY = Ndt3Config(hidden_dim=64, n_layers=2, n_heads=4)


def tiny(seed: int = 0, **changes) -> Ndt3:
    torch.manual_seed(seed)
    return Ndt3(TINY.model_copy(update=changes)).eval()


def chunks_of(session: Session, config: Ndt3TokenizerConfig | None = None, **more) -> list[Chunk]:
    tokens, patch_channels = session.tokens(config or Ndt3TokenizerConfig(chunk_bins=12), **more)
    return [Chunk.of(tokens, number, patch_channels) for number in range(tokens.n_chunks)]


def batch_of(
    n_times: int = 12, units: tuple[int, ...] = (40,), n_covariates: int = 2, seed: int = 0
) -> SpikeTokenBatch:
    return collate(chunks_of(make_session(n_times, units, n_covariates, seed)))
