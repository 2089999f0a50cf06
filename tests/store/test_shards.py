import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.store.errors import CorruptStoreError
from neuromill.store.shards import encode_index, index_size, parse_index


@given(st.integers(1, 50), st.integers(0, 20), st.integers(1, 10**6))
def test_round_trip(n_written: int, n_absent: int, chunk_bytes: int) -> None:
    n_chunks = n_written + n_absent
    data = encode_index(n_written, n_chunks, chunk_bytes)
    assert len(data) == index_size(n_chunks)
    size = n_written * chunk_bytes + len(data)
    found = parse_index(data, n_used=n_written, chunk_bytes=chunk_bytes, file_bytes=size, where="x")
    assert found.base == 0
    assert found.offsets.tolist() == [i * chunk_bytes for i in range(n_written)]


def test_absent_chunks_are_not_in_order() -> None:
    data = encode_index(2, 4, 10)
    found = parse_index(data, n_used=3, chunk_bytes=10, file_bytes=20 + len(data), where="x")
    assert found.base is None
    assert found.offsets.tolist() == [0, 10, -1]


@pytest.mark.parametrize(
    ("chunk_bytes", "file_bytes"), [(10, 19 + 68), (11, 40 + 68)], ids=["chunk after the end", "chunk of another size"]
)
def test_entries_that_cannot_be_raise(chunk_bytes: int, file_bytes: int) -> None:
    data = encode_index(2, 4, 10)
    with pytest.raises(CorruptStoreError, match="points outside"):
        parse_index(data, n_used=2, chunk_bytes=chunk_bytes, file_bytes=file_bytes, where="x")


@given(st.integers(0, 67), st.integers(0, 7))
def test_any_flipped_bit_raises(byte: int, bit: int) -> None:
    data = bytearray(encode_index(3, 4, 10))
    data[byte] ^= 1 << bit
    with pytest.raises(CorruptStoreError, match="checksum"):
        parse_index(bytes(data), n_used=3, chunk_bytes=10, file_bytes=98, where="x")


def test_the_checksum_is_the_published_one() -> None:
    """RFC 3720 B.4: 32 bytes of zeros have the crc32c 0x8a9136aa; so has an index of two chunks of no bytes at 0."""
    assert encode_index(2, 2, 0)[-4:] == (0x8A9136AA).to_bytes(4, "little")
    assert np.frombuffer(encode_index(2, 2, 0)[:-4], "<u8").tolist() == [0, 0, 0, 0]
