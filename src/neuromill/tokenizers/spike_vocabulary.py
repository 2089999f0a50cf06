"""The slots of NDT3's tokens, fixed once for all data sets.

In the published code the slots move with the number of covariates a run allows, so that a fine-tuned model addressed
rows of its slot table that had meant something else before. Here the layout is part of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.records import TokenKind
from neuromill.records.digests import Digest, canonical_json

if TYPE_CHECKING:
    from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig

VERSION = 1
N_SLOTS = 48
PAD_SLOT = 48
CHANNELS_PER_PATCH = 32
HORIZON_BINS = 500
MAX_RETURN = 49  # the return table has 51 rows: the dummy, then 0 to 49


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Slots for ``n_covariates`` covariates and ``n_patches`` patches of channels; slot 0 means nothing.

    Within a bin the order of slots is the order of tokens: constraints, spikes, return, covariates.
    """

    n_covariates: int = 17
    n_patches: int = 10

    @property
    def constraint(self) -> int:
        """Slot of the constraint of the first covariate."""
        return 1

    @property
    def spike(self) -> int:
        """Slot of the first patch."""
        return 1 + self.n_covariates

    @property
    def return_(self) -> int:
        """Slot of return and reward."""
        return self.spike + self.n_patches

    @property
    def covariate(self) -> int:
        """Slot of the first covariate."""
        return self.return_ + 1

    @property
    def last(self) -> int:
        """Slot of the last covariate."""
        return self.covariate + self.n_covariates - 1

    def first_slots(self) -> dict[TokenKind, int]:
        """First slot of each kind of token."""
        return {
            TokenKind.SPIKE: self.spike,
            TokenKind.COVARIATE: self.covariate,
            TokenKind.CONSTRAINT: self.constraint,
            TokenKind.RETURN: self.return_,
        }


VOCABULARY = Vocabulary()


def vocabulary_digest(config: Ndt3TokenizerConfig) -> str:
    """SHA-256, hex, of all that decides how bins become tokens: vocabulary and settings that are not defaults.

    Tokens of equal digest mean the same; a model may be trained on them together.
    """
    document = {
        "version": VERSION,
        "n_slots": N_SLOTS,
        "first_slots": {kind.name.lower(): slot for kind, slot in VOCABULARY.first_slots().items()},
        "channels_per_patch": CHANNELS_PER_PATCH,
        "horizon_bins": HORIZON_BINS,
        "settings": config.non_defaults(),
    }
    return Digest.of(canonical_json(document)).hex
