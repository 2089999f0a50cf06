"""Where the real recordings lie."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def data_root() -> Path:
    """Folder of real recordings: ``NEUROMILL_TEST_DATA``, else ``../shared/data`` seen from the project."""
    return Path(os.environ.get("NEUROMILL_TEST_DATA", PROJECT.parent / "shared" / "data"))
