"""Settings: light to import, strict, and with the published numbers as defaults."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from neuromill.tokenizers.config import BioCodecConfig, FitConfig, NormalizationConfig, TokenizeConfig


def test_settings_need_no_torch():
    code = "import sys, neuromill.tokenizers.config, neuromill.tokenizers.protocol; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b"False"


def test_published_numbers():
    assert BioCodecConfig().hop_samples == 12
    assert NormalizationConfig().block_samples == 150
    assert TokenizeConfig().non_defaults() == {}


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (BioCodecConfig, {"codebook_size": 257}),
        (BioCodecConfig, {"strides": [2, 0]}),
        (BioCodecConfig, {"colour": "blue"}),
        (NormalizationConfig, {"clip": 0}),
        (FitConfig, {"betas": [0.5, 1.0]}),
        (FitConfig, {"precision": "float16"}),
        (TokenizeConfig, {"precision": "bfloat16"}),
        (FitConfig, {"losses": {"stft_windows": [30]}}),
    ],
)
def test_wrong_values_are_refused(model, values):
    with pytest.raises(ValidationError):
        model.model_validate(values)
