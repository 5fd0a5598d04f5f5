"""`test_data_set_*/input_*.pb`: the folders of tensors that ONNX models are published with.

The only file of `data/` that imports onnx, and that when such a folder is met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxqp.data.check import Signature
from onnxqp.data.files import files_in, require_file, subfolders
from onnxqp.errors import DataError
from onnxqp.specs import Array, Feed

_MAX_BYTES = 1 << 31  # protobuf's own limit


def test_data_sets(folder: Path) -> list[Path]:
    """The folder itself if it holds `input_*.pb`, else its `test_data_set_*` folders, in the order of their numbers."""
    if _inputs(folder):
        return [folder]
    found = [path for path in subfolders(folder) if path.name.startswith("test_data_set")]
    return sorted(found, key=lambda path: (_number(path.name), path.name))


@dataclass(frozen=True)
class TestDataSource:
    """One sample per folder."""

    __test__ = False  # for pytest: not a test

    folders: tuple[Path, ...]
    signature: Signature
    labels: None = None
    files: None = None

    def __len__(self) -> int:
        return len(self.folders)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        for index in indices:
            folder = self.folders[index]
            yield self.signature.feed(self._arrays(folder), str(folder)), str(folder)

    def _arrays(self, folder: Path) -> dict[str, Array]:
        """By the tensors' names if these are the model's, else `input_K.pb` is the K-th input."""
        paths = _inputs(folder)
        names = [spec.name for spec in self.signature.inputs]
        if len(paths) != len(names):
            raise DataError(
                f"{len(paths)} files input_*.pb, the model has {len(names)} inputs: {', '.join(map(repr, names))}",
                where=str(folder),
                hint="one file per input, numbered in the model's order",
            )
        tensors = [_read_tensor(path) for path in paths]
        if sorted(name for name, _ in tensors) == sorted(names):
            return dict(tensors)
        return {name: array for name, (_, array) in zip(names, tensors, strict=True)}


def _inputs(folder: Path) -> list[Path]:
    found = [path for path in files_in(folder, ".pb") if re.fullmatch(r"input_\d+\.pb", path.name)]
    return sorted(found, key=lambda path: _number(path.name))


def _number(name: str) -> int:
    digits = re.search(r"(\d+)", name)
    return int(digits[1]) if digits else -1


def _read_tensor(path: Path) -> tuple[str, Array]:
    from onnx import TensorProto, numpy_helper

    if require_file(path) > _MAX_BYTES:
        raise DataError("is larger than 2 GB", where=str(path), hint="write the data as .npz")
    tensor = TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, whose package has no types
        raise DataError(
            f"is no tensor: {error}", where=str(path), hint="expected a serialised ONNX TensorProto"
        ) from error
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.UNDEFINED:
        raise DataError(
            "holds no tensor with its own data", where=str(path), hint="sequences and external data are not supported"
        )
    try:
        return tensor.name, numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise DataError(f"is a damaged tensor: {error}", where=str(path), hint="write the file again") from error
