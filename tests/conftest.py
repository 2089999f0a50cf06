"""What every test shares: no telemetry, no network names, the folder of real recordings."""

import os
from pathlib import Path

# Before anything imports Prefect, dandi or huggingface_hub: nothing may phone home from a test.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MNE_LOGGING_LEVEL": "ERROR",
        "NO_ET": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
    }
)

import pytest

from support.paths import data_root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``data`` where the folder is missing, and say so."""
    if data_root().is_dir():
        return
    skip = pytest.mark.skip(reason=f"no folder of real recordings at {data_root()} (set NEUROMILL_TEST_DATA)")
    for item in items:
        if "data" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings; tests that use it carry ``@pytest.mark.data``."""
    return data_root()
