"""Small made-up sessions of spikes and behaviour, as the tokenizer of NDT3 takes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromill.records import SpikeTokens
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spikes import tokenize_spikes


@dataclass(frozen=True)
class Session:
    """The arguments of ``tokenize_spikes``."""

    counts: NDArray[np.uint8]
    arrays: tuple[str, ...]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scale: NDArray[np.float32]
    segment: NDArray[np.int32]

    def tokens(self, config: Ndt3TokenizerConfig | None = None, **more) -> tuple[SpikeTokens, NDArray[np.uint8]]:
        config = config or Ndt3TokenizerConfig()
        return tokenize_spikes(
            config, self.counts, self.arrays, self.values, self.valid, self.scale, self.segment, **more
        )


def make_session(n_times: int = 100, units: tuple[int, ...] = (96,), n_covariates: int = 2, seed: int = 0) -> Session:
    """One segment, everything valid; array ``a<i>`` has ``units[i]`` units."""
    rng = np.random.default_rng(seed)
    return Session(
        counts=rng.poisson(0.4, (n_times, sum(units))).astype(np.uint8),
        arrays=tuple(f"a{i}" for i, n in enumerate(units) for _ in range(n)),
        values=rng.normal(size=(n_times, n_covariates)).astype(np.float32),
        valid=np.ones((n_times, n_covariates), bool),
        scale=np.full(n_covariates, 2, np.float32),
        segment=np.zeros(n_times, np.int32),
    )
