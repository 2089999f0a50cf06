"""Both kinds of tree say the same about the same content; damage and strange links are codes."""

import io
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.trees import Tree, open_hdf5, scalar, stated_end
from neuromill.readers.zarr_tree import FolderStore, ZarrTree, open_zarr
from neuromill.records import FailureCode, RecordingError
from support.nwb import Nodes, write_hdf5, write_zarr

ARRAYS: dict[str, Any] = {
    "a/float": np.linspace(0, 1, 1000).reshape(100, 10),
    "a/int": np.arange(7, dtype=np.int16),
    "a/bool": np.arange(10) % 3 == 0,
    "a/b/text": np.array(["één", "", "three"], dtype=object),
    "a/b/empty": np.empty((0, 3)),
    "cube": np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
}
NODES = Nodes(ARRAYS, {"": {"version": "2.0", "n": 3}, "a": {"x": 1.5, "words": ["p", "q"], "on": True}})


@pytest.fixture(params=["hdf5", "file object", "zarr", "zarr without consolidated metadata"])
def tree(request: pytest.FixtureRequest, tmp_path: Path):
    opened: Tree
    if request.param.startswith("zarr"):
        folder = write_zarr(NODES, tmp_path / "a.zarr", consolidate=request.param == "zarr")
        opened = open_zarr(FolderStore(folder), "here")
    else:
        path = write_hdf5(NODES, tmp_path / "a.h5", chunks=True)
        opened = open_hdf5(path if request.param == "hdf5" else io.BytesIO(path.read_bytes()), "here")
    yield opened
    opened.close()


def test_structure(tree: Tree) -> None:
    assert tree.where == "here"
    assert sorted(tree.children("")) == ["a", "cube"]
    assert sorted(tree.children("a")) == ["b", "bool", "float", "int"]
    assert [tree.kind(path) for path in ("", "a", "/a/b/", "a/int", "no", "a/int/no", "a/no/no")] == [
        "group", "group", "group", "array", "", "", "",
    ]  # fmt: skip
    assert tree.children("a/int") == ()
    assert tree.children("no") == ()
    assert tree.attributes("no") == {}


def test_attributes(tree: Tree) -> None:
    assert tree.attributes("")["version"] == "2.0"
    assert tree.attributes("")["n"] == 3
    found = tree.attributes("a")
    assert (found["x"], found["words"], found["on"]) == (1.5, ("p", "q"), True)


@pytest.mark.parametrize("path", ARRAYS)
def test_arrays(tree: Tree, path: str) -> None:
    array, expected = tree.array(path), ARRAYS[path]
    assert array.shape == expected.shape
    kinds = {"f": "number", "i": "number", "u": "number", "b": "bool", "O": "text"}
    assert array.values == kinds[expected.dtype.kind]
    np.testing.assert_array_equal(array.read(), expected)
    for start, stop in ((0, 0), (0, 1), (1, 3), (2, None), (5, 2), (len(expected), None), (1, 10**6)):
        np.testing.assert_array_equal(array.read(start, stop), expected[start:stop])
    if expected.dtype != object:
        assert array.read().dtype == expected.dtype


def test_no_array_is_unreadable(tree: Tree) -> None:
    for path in ("a", "no"):
        with pytest.raises(RecordingError) as caught:
            tree.array(path)
        assert caught.value.code == FailureCode.UNREADABLE


def test_scalar_takes_the_first(tree: Tree) -> None:
    assert scalar(tree, "a/b/text") == "één"
    assert scalar(tree, "a/int") == 0
    assert scalar(tree, "a/b/empty") is None
    assert scalar(tree, "a") is None


def code(action: Any) -> str:
    with pytest.raises(RecordingError) as caught:
        action()
    return str(caught.value.code)


# HDF5


@pytest.mark.parametrize("libver", ["earliest", "latest", "v108", "v110"])
@pytest.mark.parametrize("userblock", [0, 512, 2048])
def test_every_superblock_states_the_size_and_every_cut_is_seen(libver: str, userblock: int, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        file["x"] = np.arange(10000)
    whole = path.read_bytes()
    open_hdf5(path, "a").close()
    assert stated_end(whole[userblock : userblock + 128]) == len(whole)
    path.write_bytes(whole[:-1])
    assert code(lambda: open_hdf5(path, "a")) == "truncated"


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda b: b"\x89HDF\r\n\x1a\n" + b))
def test_any_bytes_are_refused_with_a_code(content: bytes) -> None:
    assert code(lambda: open_hdf5(io.BytesIO(content), "x")) in ("unreadable", "truncated")


def test_an_absurd_superblock_is_refused() -> None:
    header = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + struct.pack("<QQQQ", 0, 2**64 - 1, 10, 48)
    assert code(lambda: open_hdf5(io.BytesIO(header), "x")) == "unreadable"


def test_links_within_and_to_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["g/x"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/g")
        file["g/relative"] = h5py.SoftLink("x")
        file["hard"] = file["g"]
        file["dangling"] = h5py.SoftLink("/no/where")
        file["round"] = h5py.SoftLink("/again")
        file["again"] = h5py.SoftLink("/round")
    tree = open_hdf5(path, "a")
    for name in ("soft/x", "hard/x", "g/relative", "soft/relative"):
        np.testing.assert_array_equal(tree.array(name).read(), [0, 1, 2])
    assert code(lambda: tree.kind("dangling")) == "missing_member"
    assert code(lambda: tree.kind("dangling/x")) == "missing_member"
    assert code(lambda: tree.kind("round")) == "unreadable"


def test_links_to_other_files_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (tmp_path / "secret.h5", folder / "beside.h5"):
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(4)
    (folder / "text.h5").write_text("no HDF5")
    path = folder / "a.h5"
    targets = {
        "good": "beside.h5",
        "up": "../secret.h5",
        "root": str(tmp_path / "secret.h5"),
        "none": "no.h5",
        "bad": "text.h5",
    }
    with h5py.File(path, "w") as file:
        for name, target in targets.items():
            file[name] = h5py.ExternalLink(target, "/x")
        file["through"] = h5py.SoftLink("/up")
    tree = open_hdf5(path, "a")
    np.testing.assert_array_equal(tree.array("good").read(), np.arange(4))
    for name in ("up", "root", "none", "through"):
        assert code(lambda name=name: tree.kind(name)) == "missing_member"
    assert code(lambda: tree.kind("bad")) == "unreadable"
    streamed = open_hdf5(io.BytesIO(path.read_bytes()), "a")
    assert code(lambda: streamed.kind("good")) == "missing_member"


def test_values_that_lie_in_other_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    (tmp_path / "raw.bin").write_bytes(bytes(80))
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", (10,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 80)])
        layout = h5py.VirtualLayout((10,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "x", (10,))
        file.create_virtual_dataset("virtual", layout)
    tree = open_hdf5(path, "a")
    for name in ("raw", "virtual"):
        assert code(lambda name=name: tree.array(name)) == "unsupported_format"


def test_references_lead_to_arrays_without_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["hidden/x"] = np.arange(3)
        file["hidden/x"].attrs["class"] = np.bytes_("int")
        refs = file.create_dataset("refs", (2, 2), dtype=h5py.ref_dtype)
        refs[0, 0], refs[0, 1] = file["hidden/x"].ref, file["hidden"].ref
        refs[1, 1] = file["hidden/x"].ref
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        virtual = file.create_virtual_dataset("virtual", layout)
        file.create_dataset("strange", (1,), dtype=h5py.ref_dtype)[0] = virtual.ref
        file["number"] = 1.0
    tree = open_hdf5(tmp_path / "a.h5", "here")
    monkeypatch.setattr(h5py.Dataset, "name", property(lambda _: pytest.fail("a name was looked up")))
    found = tree.array("refs").referents()
    assert [one is None for one in found] == [False, True, True, False]
    assert found[0] is not None
    np.testing.assert_array_equal(found[0].read(), [0, 1, 2])
    assert (found[0].attribute("class"), found[0].attribute("no")) == ("int", None)
    for path, code in (("number", FailureCode.UNREADABLE), ("strange", FailureCode.UNSUPPORTED_FORMAT)):
        with pytest.raises(RecordingError) as caught:
            tree.array(path).referents()
        assert caught.value.code is code
    tree.close()


def test_references_are_paths_and_odd_types_are_other(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("g/one")
        file.create_dataset("refs", data=np.array([group.ref, h5py.Reference()], dtype=object), dtype=h5py.ref_dtype)
        file["refs"].attrs["table"] = group.ref
        file["compound"] = np.zeros(3, dtype=[("a", int), ("b", float)])
        file["null"] = h5py.Empty("f8")
        file["fixed"] = np.array([b"ab", b"c"])
    tree = open_hdf5(path, "a")
    assert tree.array("refs").values == "reference"
    assert tree.array("refs").read().tolist() == ["g/one", ""]
    assert tree.attributes("refs")["table"] == "g/one"
    assert tree.array("compound").values == "other"
    assert tree.array("null").shape == (0,)
    assert tree.array("null").read().size == 0
    assert tree.array("fixed").read().tolist() == ["ab", "c"]


def test_text_that_is_no_utf8_is_text_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["text"] = "aQQQ"
        file.attrs["nameQQQ"] = 1
        file.create_group("groupQQQ")
    path.write_bytes(path.read_bytes().replace(b"QQQ", b"Q\x83Q"))
    tree = open_hdf5(path, "a")
    assert tree.attributes("") == {"text": "aQ\ufffdQ"}
    assert tree.children("") == ()


def test_a_chunk_that_does_not_decompress_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", data=np.arange(1000), chunks=(1000,), compression="gzip")
        info = made.id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset : info.byte_offset + 50] = bytes(50)
    path.write_bytes(raw)
    tree = open_hdf5(path, "a")
    assert code(lambda: tree.array("x").read()) == "unreadable"


class Broken(io.BytesIO):
    """A file object whose source fails after it was opened, with a code of its own."""

    broken = False

    def readinto(self, buffer: Any, /) -> int:
        if self.broken:
            raise RecordingError(FailureCode.CHANGED_UPSTREAM, "other bytes")
        return super().readinto(buffer)


def test_a_code_of_the_file_object_comes_through(tmp_path: Path) -> None:
    path = write_hdf5(NODES, tmp_path / "a.h5", chunks=True)
    file = Broken(path.read_bytes())
    tree = open_hdf5(file, "a")
    array = tree.array("a/float")
    file.broken = True
    assert code(array.read) == "changed_upstream"
    file.broken = False


# Zarr


class Objects(dict[str, bytes]):
    """A store that can be asked for objects and nothing else is needed."""


def objects(**documents: Any) -> Objects:
    return Objects({key: json.dumps(value).encode() for key, value in documents.items()})


ARRAY = {"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<f8", "compressor": None, "fill_value": "NaN",
         "order": "C", "filters": None}  # fmt: skip


def store_of(array: dict[str, Any], **chunks: bytes) -> Objects:
    made = objects(**{".zgroup": {"zarr_format": 2}, "x/.zarray": ARRAY | array})
    made.update({f"x/{key.lstrip('c')}": value for key, value in chunks.items()})
    return made


def test_absent_chunks_are_the_fill_value() -> None:
    tree = open_zarr(store_of({}, c1=np.arange(2.0).tobytes()), "z")
    np.testing.assert_array_equal(tree.array("x").read(), [np.nan, np.nan, 0, 1])
    tree = open_zarr(store_of({"fill_value": None, "dtype": "<i2"}), "z")
    np.testing.assert_array_equal(tree.array("x").read(), [0, 0, 0, 0])


def test_column_order_and_nested_keys() -> None:
    values = np.arange(6.0).reshape(2, 3)
    array = {"shape": [2, 3], "chunks": [2, 3], "order": "F", "dimension_separator": "/"}
    store = store_of(array, **{"c0/0": values.tobytes(order="F")})
    np.testing.assert_array_equal(open_zarr(store, "z").array("x").read(), values)


ZARR_CODES = [
    (store_of({}, c0=b"short"), "unreadable"),
    (store_of({}, c0=np.arange(1.0).tobytes()), "truncated"),
    (store_of({"compressor": {"id": "zstd", "level": 1}}, c0=b"no zstd"), "unreadable"),
    (
        store_of({"filters": [{"id": "pickle", "protocol": 5}], "dtype": "|O"}, c0=b"cos\nsystem\n."),
        "unsupported_format",
    ),
    (store_of({"chunks": [2, 2]}), "unreadable"),
    (store_of({"chunks": [2**40]}), "unreadable"),
    (store_of({"dtype": "nonsense"}), "unreadable"),
    (store_of({"shape": None}), "unreadable"),
    (objects(**{"zarr.json": {"zarr_format": 3}}), "unsupported_format"),
    (objects(), "unreadable"),
    (objects(**{".zmetadata": {}}), "unreadable"),
    (Objects({".zmetadata": b"{"}), "unreadable"),
]


@pytest.mark.parametrize(("store", "expected"), ZARR_CODES)
def test_damaged_stores(store: Objects, expected: str) -> None:
    assert code(lambda: open_zarr(store, "z").array("x").read()) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [-5]), ("shape", ["a"]), ("shape", [True]), ("shape", 4), ("shape", [2**63]), ("shape", [1] * 33),
        ("chunks", [0]), ("chunks", [2.0]), ("chunks", []), ("chunks", [2**40]),
        ("dtype", "nonsense"), ("dtype", 5), ("dtype", []), ("dtype", [["a"]]), ("dtype", "(1,"),
        ("dtype", "|S99999999999"),
        ("order", "X"), ("order", ["C"]), ("dimension_separator", 5),
        ("compressor", 5), ("compressor", {"level": 1}), ("compressor", {"id": "zstd", "size": 1}),
        ("filters", 5), ("filters", ["delta"]), ("filters", [{"id": "delta"}]),
        ("fill_value", "abc"), ("fill_value", [1.0]), ("fill_value", {}), ("zarr_format", "2"),
    ],
)  # fmt: skip
def test_a_damaged_key_of_an_array_is_named(key: str, value: Any) -> None:
    tree = open_zarr(store_of({key: value}), "z")
    assert tree.kind("x") == "array"
    with pytest.raises(RecordingError, match=f"x/.zarray: {key} is ") as caught:
        tree.array("x").read()
    assert caught.value.code == FailureCode.UNREADABLE


@pytest.mark.parametrize(("dtype", "fill"), [("|u1", 300), ("|u1", -1), ("<i4", 1.5), ("<i4", "NaN"), ("<f8", "1.0")])
def test_a_fill_value_is_one_of_the_type(dtype: str, fill: Any) -> None:
    tree = open_zarr(store_of({"dtype": dtype, "fill_value": fill}), "z")
    with pytest.raises(RecordingError, match="fill_value"):
        tree.array("x")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("x/.zattrs", [], "x/.zattrs"), ("x/.zattrs", "text", "x/.zattrs"),
        ("g/.zattrs", {"zarr_link": 5}, "zarr_link"),
        ("g/.zattrs", {"zarr_link": ["x"]}, "zarr_link"), ("g/.zgroup", 5, "g/.zgroup"), ("x/.zarray", [], "x/.zarray"),
        (".zgroup", [], ".zgroup"), (".zgroup", {}, "zarr_format"), (".zmetadata", [], ".zmetadata"),
    ],
)  # fmt: skip
def test_damaged_documents_are_named(key: str, value: Any, words: str) -> None:
    store = store_of({})
    store.update(objects(**{"g/.zgroup": {"zarr_format": 2}}))
    store.update(objects(**{key: value}))

    def use() -> None:
        tree = open_zarr(store, "z")
        for path in ("x", "g"):
            tree.kind(path), tree.attributes(path), tree.children(path)
        tree.array("x").read()

    with pytest.raises(RecordingError, match=words) as caught:
        use()
    assert caught.value.code == FailureCode.UNREADABLE


@pytest.mark.parametrize("shape", [[10**12], [2**62], [10**6, 10**6], [2**30]])
def test_what_a_zarr_array_declares_is_bounded(shape: list[int]) -> None:
    array = open_zarr(store_of({"shape": shape, "chunks": [2] * len(shape)}), "z").array("x")
    assert code(array.read) == "too_large"
    assert array.read(5, 5).size == 0
    if len(shape) == 1:
        assert array.read(10**6, 10**6 + 3).size == 3


CODEC_NAMES = ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4"]


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_a_chunk_decodes_to_its_declared_bytes_and_no_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = numcodecs.get_codec({"id": name})
    array = {"shape": [1000], "chunks": [1000], "compressor": codec.get_config()}
    values = np.arange(1000.0)
    good = open_zarr(store_of(array, c0=bytes(codec.encode(values.tobytes()))), "z")
    np.testing.assert_array_equal(good.array("x").read(), values)
    short = open_zarr(store_of(array, c0=bytes(codec.encode(values[:999].tobytes()))), "z")
    assert code(short.array("x").read) == "truncated"
    cut = open_zarr(store_of(array, c0=bytes(codec.encode(values.tobytes()))[:-9]), "z")
    assert code(cut.array("x").read) == "unreadable"
    bomb = store_of(array, c0=bytes(codec.encode(bytes(2**26))))
    tracemalloc.start()
    try:
        assert code(open_zarr(bomb, "z").array("x").read) == "unreadable"
        assert tracemalloc.get_traced_memory()[1] < 2**24  # lzma has a dictionary of 8 MiB
    finally:
        tracemalloc.stop()


def test_text_that_states_more_items_than_a_chunk_has_is_not_decoded() -> None:
    array = {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}]}
    store = store_of(array, c0=struct.pack("<I", 2**31 - 1) + bytes(100))
    assert code(open_zarr(store, "z").array("x").read) == "unreadable"


def test_what_a_sparse_hdf5_array_declares_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (12 * 10**9,), "f8", chunks=(1000,))
        file.create_dataset("small", (2**31,), "u1", chunks=(1000,))  # read as float64
    array = open_hdf5(path, "a").array("x")
    with pytest.raises(RecordingError, match=r"x declares .* 89.4 GiB") as caught:
        array.read()
    assert caught.value.code == FailureCode.TOO_LARGE
    assert caught.value.next_step
    assert array.read(10**9, 10**9 + 5).tolist() == [0] * 5
    assert code(open_hdf5(path, "a").array("small").read) == "too_large"


def test_a_store_that_cannot_list_needs_consolidated_metadata() -> None:
    class OnlyGet:
        def get(self, key: str, /) -> bytes | None:
            return store_of({}).get(key)

    assert code(lambda: open_zarr(OnlyGet(), "z")) == "unsupported_format"


def test_links_and_references_of_hdmf_zarr() -> None:
    link = {"name": "stamps", "source": ".", "path": "/x"}
    away = {"name": "away", "source": "../other.zarr", "path": "/x"}
    store = store_of({}, c0=np.arange(2.0).tobytes(), c1=np.arange(2.0).tobytes())
    attrs = {"zarr_link": [link, away], "table": {"zarr_dtype": "object", "value": {"source": ".", "path": "/a/b"}}}
    store.update(objects(**{"g/.zgroup": {"zarr_format": 2}, "g/.zattrs": attrs}))
    tree = open_zarr(store, "z")
    assert isinstance(tree, ZarrTree)
    assert tree.children("g") == ("stamps", "away")
    np.testing.assert_array_equal(tree.array("g/stamps").read(), [0, 1, 0, 1])
    assert tree.attributes("g") == {"table": "a/b"}
    assert code(lambda: tree.kind("g/away")) == "missing_member"
