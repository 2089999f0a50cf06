"""The slot layout is fixed."""

import pytest

from neuromill.models import ndt3_batch
from neuromill.records import TokenKind
from neuromill.tokenizers import spike_vocabulary as sv
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spike_vocabulary import VOCABULARY, Vocabulary, vocabulary_digest


@pytest.mark.parametrize(
    ("vocabulary", "bases", "last"),
    [(VOCABULARY, (1, 18, 28, 29), 45), (Vocabulary(n_covariates=3), (1, 4, 14, 15), 17)],
)
def test_first_slots(vocabulary: Vocabulary, bases: tuple[int, ...], last: int) -> None:
    assert (vocabulary.constraint, vocabulary.spike, vocabulary.return_, vocabulary.covariate) == bases
    assert vocabulary.last == last < sv.N_SLOTS
    assert sorted(vocabulary.first_slots().values()) == sorted(bases)


def test_models_know_the_same_vocabulary() -> None:
    """Rooms do not import each other: what the model has to know is written there again."""
    assert ndt3_batch.N_SLOTS == sv.N_SLOTS == sv.PAD_SLOT == 48
    assert ndt3_batch.CHANNELS_PER_PATCH == sv.CHANNELS_PER_PATCH
    assert VOCABULARY.first_slots()[TokenKind.SPIKE] == ndt3_batch.FIRST_SPIKE_SLOT
    assert VOCABULARY.first_slots()[TokenKind.COVARIATE] == ndt3_batch.FIRST_COVARIATE_SLOT


def test_digest_changes_with_what_changes_tokens_and_with_nothing_else() -> None:
    digest = vocabulary_digest(Ndt3TokenizerConfig())
    assert digest == vocabulary_digest(Ndt3TokenizerConfig(chunk_bins=100))
    assert digest == "2cf9ff73d2be7aa446d74947c3a9b0e0a2b37a45c9b6d8185a384ce8c1e1a8f5"
    others = {
        vocabulary_digest(Ndt3TokenizerConfig(**change))
        for change in ({"chunk_bins": 50}, {"parity": True}, {"sanity_rule": False}, {"covariates_in": "trials"})
    }
    assert len(others | {digest}) == 5


def test_chunks_shorter_than_their_own_minimum_are_refused() -> None:
    with pytest.raises(ValueError, match="min_chunk_bins is above chunk_bins"):
        Ndt3TokenizerConfig(chunk_bins=10, min_chunk_bins=11)
