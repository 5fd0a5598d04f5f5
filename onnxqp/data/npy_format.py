"""The `.npy` format, read with care: header first, held against the size of the file, then one row at a time.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Nothing pickled is ever loaded.
"""

from __future__ import annotations

import ast
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol, cast

import numpy as np
from numpy.lib import format as numpy_format

from onnxqp.errors import DataError
from onnxqp.specs import Array

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Header:
    """What a `.npy` header says of the array behind it. `offset`: bytes before the data."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], size: int, where: str) -> Header:
    """The header of a `.npy` stream of `size` bytes (format 1.0 to 3.0). DataError if it claims more than there is."""
    with damage(where):
        start = stream.read(8)
        if len(start) < 8 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
            raise DataError("is no .npy array", where=where, hint="write it with numpy.save or numpy.savez")
        header = _parse_header(stream, start[6], where)
    if header.dtype.hasobject:
        raise DataError(
            "contains Python objects (a pickle), which are never loaded",
            where=where,
            hint="save plain numbers: stack the samples, or write a folder of .npz if their shapes differ",
        )
    if min(header.shape, default=0) < 0 or header.offset + header.nbytes > size:
        raise DataError(
            f"the header claims {header.dtype.name} {list(header.shape)} ({header.nbytes} bytes), "
            f"the file holds {size - header.offset}",
            where=where,
            hint="the file is cut short or damaged: write it again",
        )
    return header


def _parse_header(stream: IO[bytes], version: int, where: str) -> Header:
    try:
        code = "<H" if version == 1 else "<I"
        width = struct.calcsize(code)
        (length,) = struct.unpack(code, stream.read(width))
        if length > _MAX_HEADER:
            raise ValueError(f"it claims {length} bytes")
        fields = ast.literal_eval(stream.read(length).decode("utf-8" if version == 3 else "latin1").strip())
        dtype = cast("np.dtype[np.generic]", numpy_format.descr_to_dtype(fields["descr"]))
        shape = tuple(int(dim) for dim in fields["shape"])
        return Header(dtype, shape, bool(fields["fortran_order"]), 8 + width + length)
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError, struct.error, RecursionError) as error:
        raise DataError(f"the header is damaged: {error}", where=where, hint="write the file again") from error


class Rows(Protocol):
    """An array on disk, by rows of its first axis (asked for in ascending order) or whole."""

    def row(self, index: int) -> Array: ...

    def whole(self) -> Array: ...


class MappedRows:
    """The rows of a `.npy` file, through a memory map."""

    def __init__(self, path: Path, header: Header) -> None:
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        self._array: Array = (
            np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
            if header.nbytes
            else np.empty(header.shape, header.dtype)  # nothing cannot be mapped
        )

    def row(self, index: int) -> Array:
        return np.array(self._array[index])

    def whole(self) -> Array:
        return np.array(self._array)


class PackedRows:
    """The rows of an archive's member, unpacked one at a time (all at once in Fortran order)."""

    def __init__(self, stream: IO[bytes], header: Header, where: str) -> None:
        self._stream, self._header, self._where = stream, header, where
        self._next = 0
        self._unpacked: Array | None = None
        self._skip(header.offset)

    def row(self, index: int) -> Array:
        shape = self._header.shape[1:]
        if self._header.fortran and shape:
            if self._unpacked is None:
                self._unpacked = self.whole()
            return np.ascontiguousarray(self._unpacked[index])
        size = math.prod(shape) * self._header.dtype.itemsize
        self._skip((index - self._next) * size)
        self._next = index + 1
        return np.frombuffer(self._exactly(size), self._header.dtype).reshape(shape)

    def whole(self) -> Array:
        flat = np.frombuffer(self._exactly(self._header.nbytes), self._header.dtype)
        return flat.reshape(self._header.shape, order="F" if self._header.fortran else "C")

    def _exactly(self, size: int) -> bytearray:
        data, filled = bytearray(size), 0
        for block in self._blocks(size):
            data[filled : filled + len(block)] = block
            filled += len(block)
        return data

    def _skip(self, size: int) -> None:
        for _ in self._blocks(size):
            pass

    def _blocks(self, size: int) -> Iterator[bytes]:
        while size > 0:
            with damage(self._where):
                block = self._stream.read(min(size, _BLOCK))
            if not block:
                raise DataError("ends too early", where=self._where, hint="it is cut short: write it again")
            size -= len(block)
            yield block


@contextmanager
def damage(where: str) -> Iterator[None]:
    """Turns what the system, zipfile and zlib raise for damaged or locked files into a DataError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"cannot be read: {error}", where=where, hint="the file is damaged or locked") from error
