"""Pages of tokenizers that are no residual quantizer, of models without levels, and of rejected windows."""

from dataclasses import replace

import numpy as np
import pytest

from neuromill.reports import pictures
from neuromill.reports.contents import RejectionFacts
from neuromill.reports.page import render
from support.report_contents import HOSTILE, empty, full, tokenizer, training

from .test_page import Page

NAMES = ("temporal", "frequency")


def rejected(name: str = "ds1@1/sub-01_eeg") -> RejectionFacts:
    reasons = np.zeros((20, 4), np.uint8)
    reasons[5:10, 2], reasons[3, :] = 1, 2
    return RejectionFacts(name, ("Fp1", "Fp2", name, "Cz"), 30.0, reasons, ("kept", "amplitude", "flat"))


def test_codebooks_have_their_names() -> None:
    text = Page(render(replace(full(), tokenizer=replace(tokenizer(), codebooks=NAMES)))).text
    assert "temporal 20.2 16.0 50.0% 6.2%" in text
    assert "frequency 3.5 1.0" in text
    assert "temporal 20.00% 6.25% 3.12%" in text
    assert "by codebook" in text


def test_a_tokenizer_by_rule_was_not_fitted() -> None:
    bare = replace(tokenizer(), by_rule=True, correlation=None, si_sdr_db=None, mse=None, baseline_mse=None, levels=())
    text = Page(render(replace(empty(), tokenizer=bare))).text
    assert "follow from a rule" in text
    assert "Measured on" not in text
    assert "42 bit/s" in text


def test_a_model_without_levels_has_a_loss() -> None:
    run = training()
    bare = replace(run, train=replace(run.train, per_level=np.empty((3, 0))))
    bare = replace(bare, validation=replace(run.validation, per_level=np.empty((1, 0))))
    text = Page(render(replace(full(), training=bare, probes=()))).text
    assert "validation loss 3.000" in text
    assert "accuracy" not in text
    assert "chance" not in text


def test_rejected_windows() -> None:
    page = Page(render(replace(full(), rejections=(rejected(), rejected(HOSTILE)))))
    assert page.open == []
    assert "20 of 30 s 6.25% 5.00% 70.0%" in page.text
    assert 'id="rejected"' not in render(full())


@pytest.mark.parametrize("reasons", [np.zeros((3, 2), np.uint8), np.ones((3, 2), np.uint8)])
def test_all_or_nothing_rejected(reasons: np.ndarray) -> None:
    text = pictures.rejections([RejectionFacts("r", ("A", "B"), 30.0, reasons, ("kept", "amplitude"))])
    assert f"{reasons.mean():.1%} of windows rejected" in text
    assert "nan" not in text.lower()
