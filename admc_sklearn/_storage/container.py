"""One safetensors file: arrays by name, and JSON beside them. Nothing in it is code.

The file is not trusted. Its header is checked before anything is allocated: sizes
against the file's, names for being unique, the arrays for lying one after the other.
A checksum over everything finds accidents; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = 1  # the number of the format that is written
READABLE = (1,)  # and of those that are read
KEYS = {"format", "package", "content", "checksum"}
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}
# The header of a large model has some hundred kB: JSON of more than this is no header.
MAX_HEADER = 32_000_000
CHUNK = 1_000_000
BLANK = "0" * 64


class BadFile(ValueError):
    """A file that is not what this package writes; the message says why."""


def write(path, arrays, content, package):
    """Write a file, which is there as a whole or not at all.

    Parameters
    ----------
    path : str or Path
    arrays : dict of arrays, by name
        Of numbers or truth values.
    content : JSON
        Whatever else there is; floats are finite.
    package : str
        Version of this package.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    if len(text) > MAX_HEADER // 2:
        raise ValueError(
            f"The model is described by {len(text) / 1e6:.0f} MB of text, more than a "
            "file takes: there are too many columns or levels."
        )
    header = {"format": str(FORMAT), "package": package, "content": text}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for {path.name}.")
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(arrays, draft, {**header, "checksum": BLANK})
        _fill_in(draft)
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _fill_in(path):
    """Write the checksum of a file where it has a blank one."""
    header, start = _header(path)
    found = _checksum(path, start, header)
    with open(path, "r+b") as file:
        # Quotes inside of the content are escaped: this occurs once.
        place = file.read(start).index(f'"checksum":"{BLANK}"'.encode())
        file.seek(place + len('"checksum":"'))
        file.write(found.encode())


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path):
    """Read a file: its arrays by name, and its content.

    Raises
    ------
    BadFile
        If it is no file of a format that is known, or damaged.
    OSError
        If it cannot be opened.
    """
    header, start = _header(path)
    about = header["__metadata__"]
    if about["checksum"] != _checksum(path, start, header):
        raise BadFile(f"{path} is damaged: its checksum does not match.")
    content = _json(about["content"], path)
    names = [name for name in header if name != "__metadata__"]
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in names}, content
    except SafetensorError as error:
        raise BadFile(f"{path} is no safetensors file: {error}") from None


def _header(path):
    """Header of a file as a dict, checked, and where its data begin."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise BadFile(f"{path} is no model file: it has {size} bytes.")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, MAX_HEADER):
            raise BadFile(f"{path} is cut short, or no model file.")
        header = _json(file.read(length), path)
    _check_about(header, path)
    _check_arrays(header, size - 8 - length, path)
    return header, 8 + length


def _check_about(header, path):
    about = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(about, dict) or set(about) != KEYS:
        raise BadFile(f"{path} is no file that `save` of admc_sklearn wrote.")
    if not all(isinstance(text, str) for text in about.values()):
        raise BadFile(f"{path} is damaged: its header holds more than text.")
    if about["format"] not in map(str, READABLE):
        known = ", ".join(map(str, READABLE))
        raise BadFile(
            f"{path} has format {about['format'][:20]!r}, written by admc_sklearn "
            f"{about['package'][:20]}; this version reads format {known}. Install the "
            "version that wrote it, or a later one."
        )


def _check_arrays(header, n_bytes, path):
    """Check that arrays of the stated shapes lie one after the other in the data."""
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or set(entry) != {
            "dtype",
            "shape",
            "data_offsets",
        }:
            raise BadFile(f"{path} is damaged: array {name[:50]!r} is not described.")
        shape, offsets = entry["shape"], entry["data_offsets"]
        counts = [*shape, *offsets] if _are_lists(shape, offsets) else [-1]
        if entry["dtype"] not in [*DTYPES] or not all(
            type(count) is int and 0 <= count < 2**48 for count in counts
        ):
            raise BadFile(f"{path} is damaged: array {name[:50]!r} has no valid shape.")
        size = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
        if len(offsets) != 2 or offsets[1] - offsets[0] != size:
            raise BadFile(f"{path} is damaged: array {name[:50]!r} has another size.")
        spans.append(tuple(offsets))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise BadFile(f"{path} is damaged: its arrays overlap, or leave gaps.")
        end = stop
    if end != n_bytes:
        raise BadFile(f"{path} is damaged: it has {n_bytes} bytes of data, not {end}.")


def _are_lists(*values):
    return all(isinstance(value, list) and len(value) < 64 for value in values)


def _json(text, path):
    """Parse strict JSON: no name twice, no NaN, no depth that ends the interpreter."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadFile(f"{path} is damaged: its header has a name twice.")
        return found

    def refuse(constant):
        raise BadFile(f"{path} is damaged: its header holds {constant}.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        reason = type(error).__name__
        raise BadFile(
            f"{path} is damaged: its header is not JSON ({reason})."
        ) from None
    except BadFile:
        raise
    except ValueError as error:  # numbers of thousands of digits
        raise BadFile(f"{path} is damaged: {error}.") from None


def _checksum(path, start, header):
    """SHA-256 of the header, without the checksum itself, and of the data."""
    about = {k: v for k, v in header["__metadata__"].items() if k != "checksum"}
    arrays = {k: v for k, v in header.items() if k != "__metadata__"}
    text = json.dumps([about, arrays], sort_keys=True)
    found = hashlib.sha256(text.encode())
    with open(path, "rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()
