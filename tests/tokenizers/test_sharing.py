"""Tokenizers share the mixin of the models: a folder, the class, the same codes."""

import pytest
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.tokenizers.tokenizer import RvqTokenizer
from support.codec import small_tokenizer


def test_a_tokenizer_comes_back_from_its_folder(tmp_path):
    tokenizer = small_tokenizer(0)
    tokenizer.save_pretrained(tmp_path / "codec")
    again = RvqTokenizer.from_pretrained(tmp_path / "codec")
    signal = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    assert again.digest == tokenizer.digest
    assert torch.equal(again.encode(signal).codes, tokenizer.encode(signal).codes)


def test_another_class_is_refused_by_name(tmp_path):
    FixedTokenizer(MuLawConfig()).save_pretrained(tmp_path / "fixed")
    with pytest.raises(ConfigError, match="FixedTokenizer, not a RvqTokenizer"):
        RvqTokenizer.from_pretrained(tmp_path / "fixed")
