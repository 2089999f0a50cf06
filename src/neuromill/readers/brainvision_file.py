"""Look over a BrainVision header: are the files it names there, do the samples fill whole frames.

MNE 1.13 reads an ``.eeg`` file that ends in the middle of a frame, and one without its marker file, with a warning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neuromill.readers.complaints import empty, missing, truncated
from neuromill.readers.sidecars import decode

if TYPE_CHECKING:
    from pathlib import Path

FIELD = re.compile(r"^[ \t]*(\w+)[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
SAMPLE_BYTES = {"INT_16": 2, "IEEE_FLOAT_32": 4}


def check_brainvision(path: Path, where: str) -> None:
    """Check the files that a ``.vhdr`` names; raises ``missing_member``, ``empty`` or ``truncated``."""
    fields = dict(FIELD.findall(decode(path.read_bytes())))
    companions = {key: fields[key].replace("$b", path.stem) for key in ("DataFile", "MarkerFile") if fields.get(key)}
    for name in companions.values():
        if not (path.parent / name).is_file():
            raise missing(f"the header names {name}, which is not there", where)
    if "DataFile" not in companions:
        return
    size = (path.parent / companions["DataFile"]).stat().st_size
    if size == 0:
        raise empty(f"{companions['DataFile']} has 0 bytes", where)
    width, channels = SAMPLE_BYTES.get(fields.get("BinaryFormat", ""), 0), fields.get("NumberOfChannels", "")
    frame = width * int(channels) if channels.isdecimal() else 0
    # Where the count of channels contradicts the list of channels, MNE says so better than a length can.
    if frame and size % frame and len(re.findall(r"^Ch\d+=", decode(path.read_bytes()), re.MULTILINE)) >= int(channels):
        raise truncated(f"{companions['DataFile']} ends in the middle of a frame of {frame} bytes", where)
