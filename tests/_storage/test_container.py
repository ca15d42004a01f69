"""Files that are damaged or made to do harm are refused with a ValueError."""

import json
import struct
import tracemalloc

import numpy as np
import pytest

from admc_sklearn._storage import container
from admc_sklearn._storage.container import BadFile, read, write


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(30, 4)), "b": np.arange(5), "c": np.zeros((0, 3))}
    write(path, arrays, {"words": ["x", 1.5, None]}, "0.2.0")
    return path


def parts_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(path, header, data):
    """Write a file as somebody would who knows how the checksum is made."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    if not isinstance(header, bytes):
        about = header["__metadata__"]
        about["checksum"] = container._checksum(path, 8 + len(text), header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_arrays_and_content_come_back(file):
    arrays, content = read(file)
    assert content == {"words": ["x", 1.5, None]}
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(arrays["a"], rng.normal(size=(30, 4)))
    assert arrays["b"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["c"].shape == (0, 3)
    header, data = parts_of(file)
    assert read(put_together(file, header, data))[1] == content


def test_a_file_is_replaced_as_a_whole_or_not_at_all(file):
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write(file, {}, {"object": object()}, "0.2.0")
    with pytest.raises(ValueError, match="MB of text"):
        write(file, {}, "x" * container.MAX_HEADER, "0.2.0")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
    write(file, {}, {}, "0.2.0")
    assert read(file) == ({}, {})


def test_cut_short_anywhere(file):
    data = file.read_bytes()
    for end in range(0, len(data), 64):
        file.write_bytes(data[:end])
        with pytest.raises(BadFile):
            read(file)


def test_any_bit_flipped(file):
    data, rng = file.read_bytes(), np.random.default_rng(1)
    for place in [*range(0, len(data), 7), *range(8)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(bytes(damaged))
        with pytest.raises(BadFile):
            read(file)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**60]},
        {"shape": [-1]},
        {"shape": [0, 2**60], "data_offsets": [0, 0]},
        {"shape": [1] * 100},
        {"shape": "long"},
        {"shape": [1.5]},
        {"shape": [True]},
        {"shape": None},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [0]},
        {"dtype": "OBJECT"},
        {"dtype": ["F64"]},
        {"more": 1},
    ],
)
def test_shapes_are_checked_before_anything_is_allocated(file, change):
    header, data = parts_of(file)
    header["a"].update(change)
    put_together(file, header, data)
    tracemalloc.start()
    with pytest.raises(BadFile):
        read(file)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_arrays_that_share_bytes_or_leave_some(file):
    header, data = parts_of(file)
    header["again"] = header["a"]  # a kB of file would be many of memory
    with pytest.raises(BadFile, match="overlap"):
        read(put_together(file, header, data))
    del header["again"], header["b"]
    with pytest.raises(BadFile):
        read(put_together(file, header, data))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"__metadata__": {}}',
        b'{"__metadata__": {"format": 1, "package": 1, "content": 1, "checksum": 1}}',
    ],
)
def test_headers_that_are_none(file, text):
    with pytest.raises(BadFile):
        read(put_together(file, text, b""))


@pytest.mark.parametrize(
    "content", ["{", "[" * 100_000, '{"a": 1, "a": 1}', "[Infinity]", ""]
)
def test_content_that_is_none(file, content):
    header, data = parts_of(file)
    header["__metadata__"]["content"] = content
    with pytest.raises(BadFile):
        read(put_together(file, header, data))


def test_a_header_longer_than_the_file(file):
    data = file.read_bytes()
    for length in (len(data), 2**40, 2**63):
        file.write_bytes(struct.pack("<Q", length) + data[8:])
        with pytest.raises(BadFile):
            read(file)


def test_an_unknown_format_names_those_that_are_known(file):
    header, data = parts_of(file)
    header["__metadata__"].update(format="9", package="3.1")
    with pytest.raises(BadFile, match=r"format '9'.*3\.1.*reads format 1"):
        read(put_together(file, header, data))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        write(tmp_path / "folder" / "model", {}, {}, "0.2.0")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
