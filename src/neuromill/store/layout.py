"""What a store looks like on disk: names, array specifications, Zarr v3 metadata documents. No I/O."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuromill.records import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "neuromill"
FORMAT_VERSION = 1
GROUP_SUFFIX = ".zarr"
METADATA_FILE = "zarr.json"
MANIFEST_FILE = "manifest/zarr.json"
INDEX_FILE = "index.parquet"
CHUNK_SECONDS = 12.0
CHUNK_FRAMES = 50
MAX_SHARD_BYTES = 128 * 2**20
MAX_UINT8_CODEBOOK = 256
INT16_STEP = 0.001  # of the channel's standard deviation: 70.8 dB over +-32.767 of them
INT16_FILL = -(2**15)

SignalEncoding = Literal["float16", "float32", "int16"]
BYTES_CODEC: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
INDEX_CODECS: list[dict[str, Any]] = [BYTES_CODEC, {"name": "crc32c"}]


@dataclass(frozen=True, slots=True)
class StoreId:
    """One identity of one stage of one dataset version.

    Parameters
    ----------
    dataset_version
        ``ds004078@1.2.1``.
    stage
        ``prepare``, ``tokenize``, ``embed``.
    identity
        Hex digits that name the work (``neuromill.records.identity``).
    """

    dataset_version: str
    stage: str
    identity: str

    def __post_init__(self) -> None:
        for part in (self.dataset_version, self.stage, self.identity):
            check_name(part)

    @property
    def relative(self) -> str:
        """``stores/<dataset>@<version>/<stage>/<identity>``, below any home."""
        return f"stores/{self.dataset_version}/{self.stage}/{self.identity}"

    def path(self, home: Path) -> Path:
        """Folder of the store below a local home."""
        return Path(home) / self.relative


def group_name(recording: str) -> str:
    """Folder name of a recording's group."""
    return check_name(recording) + GROUP_SUFFIX


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array: only the first axis is split; chunks and shards span every other axis.

    Attributes
    ----------
    chunk_rows
        Rows of an inner chunk (the whole array where ``shard_rows`` is None).
    shard_rows
        Rows of a shard, a multiple of ``chunk_rows``; None for a small array in a single plain chunk.
    fill
        Value of what was never written, as JSON ("NaN" for not a number).
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    shard_rows: int | None
    fill: float | str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def n_shards(self) -> int:
        """Number of shard files."""
        return -(-self.shape[0] // (self.shard_rows or self.chunk_rows))

    def file(self, shard: int) -> str:
        """Path of a shard inside the group."""
        return "/".join([self.name, "c", str(shard), *("0" for _ in self.row_shape)])


def signal_chunk_samples(sfreq: float, hop_samples: int = 12) -> int:
    """Return the samples of an inner chunk: the first whole number of token frames that reaches 12 s."""
    return math.ceil(round(CHUNK_SECONDS * sfreq, 6) / hop_samples) * hop_samples


def shard_rows(n_rows: int, chunk_rows: int, row_bytes: int, max_bytes: int = MAX_SHARD_BYTES) -> int:
    """Rows of a shard: the whole recording in whole chunks, or as many chunks as ``max_bytes`` holds (at least one)."""
    needed = -(-n_rows // chunk_rows)
    return max(1, min(needed, max_bytes // (chunk_rows * row_bytes))) * chunk_rows


def plain_spec(
    name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: str, attributes: Mapping[str, Any] | None = None
) -> ArraySpec:
    """Specify a small array that is one plain chunk."""
    return ArraySpec(name, dims, shape, dtype, shape[0], None, plain_fill(dtype), attributes or {})


def plain_fill(dtype: str) -> float | str:
    """Fill value of an array whose zeros mean nothing else: NaN, False, 0, as JSON."""
    if dtype == "bool":
        return False
    return "NaN" if dtype.startswith("float") else 0


def array_document(spec: ArraySpec) -> dict[str, Any]:
    """Zarr v3 metadata of an array."""
    rest = list(spec.row_shape)
    codecs: list[dict[str, Any]] = [BYTES_CODEC]
    if spec.shard_rows is not None:
        configuration = {
            "chunk_shape": [spec.chunk_rows, *rest],
            "codecs": [BYTES_CODEC],
            "index_codecs": INDEX_CODECS,
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    grid = {"chunk_shape": [spec.shard_rows or spec.chunk_rows, *rest]}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": spec.fill,
        "codecs": codecs,
        "attributes": dict(spec.attributes),
        "dimension_names": list(spec.dims),
        "storage_transformers": [],
    }


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Zarr v3 metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def metadata_bytes(document: Mapping[str, Any]) -> bytes:
    """Bytes of a metadata file: sorted, indented, UTF-8, no NaN literal."""
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()
