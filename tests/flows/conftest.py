"""One Prefect server for all fast tests of the flows: heartbeat off, batched recorder, nothing kept."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill_flows.environment import ENVIRONMENT, SERVER

# Before Prefect is imported: own home, the server settings that a real server gets, no profile of whoever runs this.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="neuromill-prefect-")
os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
os.environ.pop("PREFECT_API_URL", None)
os.environ.update({setting.name: setting.value for setting in (*SERVER, *ENVIRONMENT)})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect 3.8.8 and its libraries raise deprecation warnings of their own; ours stay errors."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for module in ("prefect", "pydantic", "websockets", "httpx", "starlette", "fastapi", "docket", "fakeredis"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::DeprecationWarning:{module}"))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """Address of the API of a server that lives as long as the tests."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield PREFECT_API_URL.value()
