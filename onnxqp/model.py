"""Model files: the only reader and writer of them.

Reading looks at the bytes before it believes them, and checks what onnxruntime would only find late. Writing is
atomic: a temporary sibling, proven by the caller, then a rename; the old file survives anything that goes wrong.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxqp import integrity, outputs, protos
from onnxqp.errors import ModelError, UnsupportedError
from onnxqp.graph import put_in_order, renew_names
from onnxqp.report.records import ModelSummary
from onnxqp.wire import Buffer, Light, lighten

# Weights that came in a file of their own go back into one, unless they are small.
EXTERNAL_LIMIT = 64_000_000
PROTOBUF_LIMIT = 2**31 - 1
# From this size on a file's weights of at least so many bytes each stay in it, memory-mapped.
MAPPED_FILE = 16_000_000
DENSE_LIMIT = 1 << 28  # elements of a sparse weight once it is unpacked
_HINT = "export the model again, with dense weights"

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model", "run `git lfs pull` to fetch the file"),
    (0, b"PK\x03\x04", "a zip archive, probably a PyTorch checkpoint", "export it with torch.onnx.export first"),
    (0, b"\x80\x02", "a Python pickle, probably a PyTorch checkpoint", "export it with torch.onnx.export first"),
    (0, b"\x80\x04", "a Python pickle", "onnxqp never opens pickles: export the model to ONNX"),
    (4, b"ORTM", "an onnxruntime .ort file", "give the .onnx file that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite file", "convert it to ONNX first, for example with tf2onnx"),
    (0, b"\x89HDF", "an HDF5 file, probably a Keras model", "export it to ONNX first, for example with tf2onnx"),
    (0, b"\xff\xd8\xff", "a JPEG image", "give the .onnx file"),
    (0, b"\x89PNG", "a PNG image", "give the .onnx file"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
)


# ---- reading -----------------------------------------------------------------------------------------------


def load(path: str | Path) -> ir.Model:
    """Read and check a model file. Weights in files of their own stay there, memory-mapped.

    Raises ModelError for anything unreadable or invalid, UnsupportedError for what the runtime cannot read.
    """
    path = Path(path)
    content = _content(path)
    light = lighten(content, protos.LARGE_TENSOR) if isinstance(content, memoryview) else None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(bytes(content) if light is None else light.content)
    except DecodeError as err:
        if "MaxDepth" in str(err):
            raise ModelError(
                "bodies of If, Loop or Scan are nested too deeply (protobuf reads some 30 levels)",
                where=str(path),
                hint="export the model with fewer nested branches; onnxruntime cannot read it either",
            ) from err
        raise ModelError(
            f"not a readable ONNX file ({len(content)} bytes)",
            where=str(path),
            hint="it looks cut short or is no model at all: fetch or export it again",
        ) from err
    mapped = {} if light is None else _mapped(proto, content, light)
    integrity.check(proto, path, mapped)
    model = from_proto(proto)
    for index, array in mapped.items():
        name = proto.graph.initializer[index].name
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    ir.external_data.set_base_dir(model.graph, path.parent)
    model.meta["path"] = path
    return model


def _mapped(proto: onnx.ModelProto, content: Buffer, light: Light) -> dict[int, npt.NDArray[Any]]:
    """The weights that stay in the file, by their place among the initializers; what numpy cannot map is read.

    So are weights whose bytes are not those of their shape, which the checks refuse, and all where names come twice.
    """
    arrays: dict[int, npt.NDArray[Any]] = {}
    names = Counter(tensor.name for tensor in proto.graph.initializer)
    for index, (offset, length) in light.weights.items():
        tensor = proto.graph.initializer[index]
        dtype = protos.ARRAY_DTYPES.get(tensor.data_type)
        if dtype is None or names[tensor.name] > 1 or length != math.prod(tensor.dims) * dtype.itemsize:
            tensor.raw_data = bytes(content[offset : offset + length])
        else:
            array = np.frombuffer(content, dtype, length // dtype.itemsize, offset)
            arrays[index] = array.reshape(tuple(tensor.dims))
    return arrays


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """An onnx_ir model from a proto in memory, its nodes in topological order. Of its structure it believes `proto`."""
    if proto.graph.sparse_initializer:
        proto = _densified(proto)
    try:
        model = protos.from_proto(proto)
        put_in_order(model)
        model.meta["dropped"] = ["training information"] if proto.training_info else []
        return model
    except Exception as err:  # onnx_ir raises many kinds, all about what the proto holds
        raise ModelError(
            f"the model's structure is broken: {str(err).splitlines()[0][:200]}",
            hint="export the model again, or run onnx.checker on it",
        ) from err


def _densified(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose sparse weights are dense ones, as every pass wants them."""
    dense = onnx.ModelProto()
    dense.CopyFrom(proto)
    del dense.graph.sparse_initializer[:]
    for sparse in proto.graph.sparse_initializer:
        name, shape = sparse.values.name, tuple(sparse.dims)
        if math.prod(shape) > DENSE_LIMIT:
            raise UnsupportedError(
                f"the sparse weight {name!r} of shape {list(shape)} is too large to unpack", hint=_HINT
            )
        try:
            values, places = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
            array = np.zeros(shape, values.dtype)
            array[np.unravel_index(places, shape) if places.ndim == 1 else tuple(places.T)] = values
        except (ValueError, IndexError) as err:
            raise ModelError(f"the sparse weight {name!r} contradicts itself: {err}", hint=_HINT) from err
        dense.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return dense


def _content(path: Path) -> Buffer:
    """The bytes of the file; those of a large one are mapped, and read where somebody looks at them."""
    try:
        _check_kind(path)
        content: Buffer = path.read_bytes() if path.stat().st_size < MAPPED_FILE else _map(path)
    except FileNotFoundError as err:
        raise ModelError("no such file", where=str(path), hint="check the path of the model") from err
    except OSError as err:
        raise ModelError(
            f"cannot be read: {err.strerror or err}", where=str(path), hint="check the file's permissions"
        ) from err
    except ValueError as err:  # a null character
        raise ModelError("is no path", where=str(path), hint="check the path of the model") from err
    if not content:
        raise ModelError("the file is empty", where=str(path), hint="fetch or export it again")
    head = bytes(content[:64])
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html")):
        hint = "the download failed: open the address in a browser"
        raise ModelError("this is an HTML page, not a model", where=str(path), hint=hint)
    if head.startswith(b"PK") and head[30:].split(b".npy")[0] != head[30:]:  # the name of the first file inside
        raise ModelError("this is a NumPy archive, not a model", where=str(path), hint="samples belong to --data")
    for offset, magic, what, hint in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            raise ModelError(f"this is {what}", where=str(path), hint=hint)
    return content


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_kind(path: Path) -> None:
    """Refuse what cannot be a model before it is read: reading a pipe or a device might never end."""
    if path.is_dir():
        inside = sorted(path.glob("*.onnx"))
        hint = f"did you mean {inside[0]}?" if len(inside) == 1 else "give the .onnx file"
        raise ModelError("is a folder, not a model file", where=str(path), hint=hint)
    if path.exists() and not path.is_file():
        raise ModelError("is no regular file", where=str(path), hint="save the model to a file first")
    if path.stat().st_size > PROTOBUF_LIMIT:
        raise ModelError(
            f"{path.stat().st_size} bytes are more than a protobuf message can hold",
            where=str(path),
            hint="no ONNX file is larger than 2 GB: its weights stand in a file beside it",
        )


# ---- copies and bytes ---------------------------------------------------------------------------------------


def clone(model: ir.Model) -> ir.Model:
    """A model with a graph of its own whose weights are shared with the old one: cheap."""
    copy = model.clone()
    copy.meta.update(model.meta)
    renew_names(copy)
    return copy


def to_bytes(model: ir.Model) -> bytes:
    """The whole model as the bytes of a file, deterministic, weights inside."""
    return bytes(protos.to_proto(model).SerializeToString(deterministic=True))


# ---- writing ------------------------------------------------------------------------------------------------


def save(
    model: ir.Model,
    path: str | Path,
    *,
    force: bool = False,
    inputs: Sequence[Path] = (),
    verify: Callable[[Path], None] | None = None,
) -> None:
    """Write a model, atomically.

    It is written into a temporary folder beside `path`, `verify` is called with it (and may raise), then it is
    renamed. Weights go inside the file, or beside it when they are too many for that; such a data file has the
    hash of its content in its name, so that the old pair stays whole until the new model is in place.
    """
    path = Path(path)
    outputs.check(path, force=force, inputs=inputs)
    with outputs.failing(path), outputs.drafting(path) as folder:
        draft = folder / path.name
        data = _write(model, draft)
        if verify is not None:
            verify(draft)
        for file in (draft, *([data] if data else [])):
            outputs.sync(file)
        old = _external_files(path)
        if data is not None:
            data.replace(path.parent / data.name)
        outputs.rename(draft, path, force=force)
        outputs.sync(path.parent)
        for file in old - ({path.parent / data.name} if data else set()):
            file.unlink(missing_ok=True)


def _write(model: ir.Model, path: Path) -> Path | None:
    """Write beside each other the model and, where needed, its data; returns the data's path."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    total = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    external = any(isinstance(tensor, ir.ExternalTensor) or _is_mapped(tensor) for tensor in tensors)
    if total < protos.EMBED_LIMIT and not (external and total > EXTERNAL_LIMIT):
        path.write_bytes(protos.lean(protos.to_proto(model), model).SerializeToString(deterministic=True))
        return None
    draft = f"{path.name}.data"
    ir.save(model, path, external_data=draft, max_workers=1)
    digest = file_hash(path.parent / draft)[:12]
    data = path.parent / f"{path.name}.{digest}.data"
    (path.parent / draft).rename(data)
    proto = protos.lean(onnx.load_model(str(path), load_external_data=False), model)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return data


def _is_mapped(tensor: ir.TensorProtocol | None) -> bool:
    """Whether a tensor was made in a mapped file: written into the model, it would all be in memory at once."""
    array = tensor.raw if isinstance(tensor, ir.Tensor) else None
    return isinstance(array, np.memmap) or isinstance(getattr(array, "base", None), np.memmap)


def _external_files(path: Path) -> set[Path]:
    """Our own data files of an older output of the same name."""
    return set(path.parent.glob(f"{path.name}.????????????.data")) if path.exists() else set()


# ---- what a model is ----------------------------------------------------------------------------------------


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_bytes(path: Path, model: ir.Model) -> int:
    """Bytes on disk, external data files included."""
    files = {
        Path(value.const_value.path)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    return path.stat().st_size + sum(file.stat().st_size for file in files)


def written_bytes(path: Path) -> int:
    """Bytes of a model that `save` has written, with its data file."""
    return sum(file.stat().st_size for file in (path, *_external_files(path)))


def parameters(model: ir.Model) -> int:
    """Elements of floating-point or integer weights: initializers and constants of more than one element.

    Where a byte holds two codes of four bits it counts as two.
    """
    total = 0
    for graph in model.graphs():
        total += sum(
            (2 if _holds_codes(value) else 1) * _weight_elements(value.const_value)
            for value in graph.initializers.values()
        )
        for node in graph:
            attribute = node.attributes.get("value") if node.op_type == "Constant" else None
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
                total += _weight_elements(attribute.as_tensor())
    return total


def _holds_codes(value: ir.Value) -> bool:
    """Whether bytes in a row are read as indices alone: those of pairs of levels (`quantize.packing`)."""
    if value.dtype != ir.DataType.UINT8 or value.shape is None or len(value.shape) != 1:
        return False
    kinds = (use.node.attributes.get("to") for use in value.uses())
    return all(kind is not None and kind.as_int() == ir.DataType.INT32 for kind in kinds) and bool(value.uses())


def _weight_elements(tensor: ir.TensorProtocol | None) -> int:
    if tensor is None or tensor.dtype in (ir.DataType.STRING, ir.DataType.BOOL, ir.DataType.INT64):
        return 0
    return tensor.size if tensor.size > 1 else 0


def summarize(
    model: ir.Model,
    path: Path,
    *,
    name: str | None = None,
    macs: int | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> ModelSummary:
    """The record of a model file; `name` is the path as the user gave it, `size` its bytes and `sha256` where known."""
    return ModelSummary(
        path=name or str(path),
        sha256=sha256 or file_hash(path),
        bytes=file_bytes(path, model) if size is None else size,
        parameters=parameters(model),
        macs=macs,
        nodes=sum(len(graph) for graph in model.graphs()),
        opset=model.opset_imports.get("", 0),
        ir_version=model.ir_version,
    )
