"""Which channel stands where: by name, or by rank among its kind."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import FailureCode, RecordingError
from neuromill.tokenizers.montage import MISSING, channel_groups, good_members
from neuromill.tokenizers.tfdual_config import CHANNELS_10_20, TfDualTokenizerConfig
from support.tfdual import table

NAMED = TfDualTokenizerConfig()
ANY = TfDualTokenizerConfig(channels=())


def test_order_of_the_published_table():
    assert len(CHANNELS_10_20) == 19
    assert channel_groups(NAMED, table(CHANNELS_10_20)) == (tuple(range(19)),)


@given(st.permutations([*CHANNELS_10_20, "EKG", "A1", "A2"]))
def test_names_decide_whatever_the_order_and_case(names):
    (group,) = channel_groups(NAMED, table(tuple(name.title() for name in names)))
    assert [names[i] for i in group] == list(CHANNELS_10_20)


def test_missing_names_are_refused_unless_allowed():
    eighteen = table(CHANNELS_10_20[1:])
    with pytest.raises(RecordingError, match=r"18 of the 19 .*FP1") as caught:
        channel_groups(NAMED, eighteen)
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS
    (group,) = channel_groups(NAMED.model_copy(update={"min_channels": 18}), eighteen)
    assert group == (MISSING, *range(18))


def test_names_that_differ_in_case_only_are_no_choice():
    with pytest.raises(RecordingError) as caught:
        channel_groups(NAMED, table((*CHANNELS_10_20, "cz")))
    assert caught.value.code is FailureCode.DUPLICATE_CHANNELS


def kinds(**counts):
    types = tuple(kind for kind, n in counts.items() for _ in range(n))
    return replace(table(tuple(f"{i}" for i in range(len(types)))), types=types)


def test_any_montage_by_rank_within_its_kind():
    groups = channel_groups(ANY, kinds(mag=102, grad=204))
    assert [len(group) for group in groups] == [102, 102, 102]
    assert [i for group in groups for i in group] == list(range(306))


@given(n=st.integers(1, 700), most=st.integers(1, 128))
def test_groups_are_even_and_hold_every_channel_once(n, most):
    groups = channel_groups(ANY.model_copy(update={"group_channels": most}), kinds(eeg=n))
    sizes = [len(group) for group in groups]
    assert [i for group in groups for i in group] == list(range(n))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) == -(-n // most)


def test_nothing_to_tokenize():
    with pytest.raises(RecordingError) as caught:
        channel_groups(ANY, table(()))
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS


def test_bad_channels_stand_as_missing():
    assert good_members((1, MISSING, 0), ("", "flat")) == (MISSING, MISSING, 0)
