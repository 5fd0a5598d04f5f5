"""Sessions of onnxruntime's CPU execution provider. The only importer of onnxruntime."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxqp.errors import DataError, ModelError, OnnxqpError, ResourceError, UnsupportedError
from onnxqp.protos import proto_and_weights
from onnxqp.specs import Feed, InputSpec

Source: TypeAlias = Path | bytes | ir.Model

AHEAD = 2  # inferences at once, each on one thread
AHEAD_BYTES = 64 * 2**20  # results of one inference up to which the next runs while somebody looks at them
LARGE_WEIGHTS = 100_000_000  # bytes; to lay them out anew takes longer than some runs
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_DUMP = {  # whoever reads an optimised graph wants its nodes: the weights go elsewhere
    "session.optimized_model_external_initializers_file_name": "optimized.weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
_DTYPES: dict[str, Any] = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}


class Session:
    """One model, opened. Inputs and outputs are numpy arrays by name.

    `optimize=False` runs the graph as written. `options` are onnxruntime session configuration entries, such as
    {"session.disable_quant_qdq": "1"}. `taps` are values inside the graph to return beside its outputs. `brief`: for
    a few runs that nobody times; large weights are then not rewritten into the layouts that make many runs fast.
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int = 1,
        optimize: bool = True,
        options: Mapping[str, str] | None = None,
        taps: Sequence[str] = (),
        dump: Path | None = None,
        profile: Path | None = None,
        brief: bool = False,
    ) -> None:
        self._how = (source, threads, optimize, dict(options or {}), tuple(taps), dump, profile)
        self._brief = brief
        self._session: ort.InferenceSession | None = None
        session = self._open()
        self.inputs = _without_false_scalars(tuple(_spec(i) for i in session.get_inputs()), source)
        self.outputs = tuple(_spec(o) for o in session.get_outputs())

    def _open(self) -> ort.InferenceSession:
        if self._session is not None:
            return self._session
        source, threads, optimize, options, taps, dump, profile = self._how
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        for key, text in options.items():
            settings.add_session_config_entry(key, text)
        if dump is not None:
            settings.optimized_model_filepath = str(dump)
            for key, text in _DUMP.items():
                settings.add_session_config_entry(key, text)
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        payload, self._weights = _payload(source, taps, settings)
        if self._brief and optimize and sum(array.nbytes for array in self._weights) > LARGE_WEIGHTS:
            settings.graph_optimization_level = level.ORT_ENABLE_EXTENDED
        try:
            self._session = ort.InferenceSession(payload, settings, providers=["CPUExecutionProvider"])
        except Exception as err:  # onnxruntime's exception types differ between versions
            raise refused(str(err), str(source) if isinstance(source, Path) else None) from err
        self._how = (source, threads, optimize, options, taps, None, profile)  # opened again, it need not tell again
        return self._session

    def close(self) -> None:
        """Give its memory back for the time being: the next run opens it again."""
        self._session, self._weights = None, []

    def run(self, feed: Feed, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name (all, taps included, or only `names`)."""
        wanted = list(names) if names is not None else [o.name for o in self.outputs]
        session = self._open()
        try:
            results = session.run(wanted, feed)
        except Exception as err:
            raise _run_error(str(err)) from err
        return dict(zip(wanted, results, strict=True))

    def run_each(
        self, feeds: Iterable[Feed], names: Sequence[str] | None = None
    ) -> Iterator[tuple[Feed, dict[str, npt.NDArray[Any]]]]:
        """Every feed with its results, in order. While the caller looks at one the next two run, unless results
        are so large that more of them would weigh in memory."""
        with ThreadPoolExecutor(AHEAD) as beside:
            waiting: list[tuple[Feed, Future[dict[str, npt.NDArray[Any]]]]] = []
            small = False
            for feed in feeds:
                if small:
                    waiting.append((feed, beside.submit(self.run, feed, names)))
                    if len(waiting) > AHEAD:
                        earlier, future = waiting.pop(0)
                        yield earlier, future.result()
                    continue
                results = self.run(feed, names)
                sizes = (each.nbytes for each in results.values() if isinstance(each, np.ndarray))  # no lists
                small = sum(sizes) <= AHEAD_BYTES
                yield feed, results
            for earlier, future in waiting:
                yield earlier, future.result()

    def end_profiling(self) -> Path:
        """Write the profile of a session opened with `profile`, the beginning of the file's name; the whole name."""
        return Path(self._open().end_profiling())


def _payload(
    source: Source, taps: Sequence[str], settings: ort.SessionOptions
) -> tuple[str | bytes, list[npt.NDArray[Any]]]:
    """What onnxruntime opens: the path or bytes as given, or the graph alone; and the weights that it then reads where
    they lie, which must outlive the session.
    """
    if isinstance(source, bytes) and not taps:
        return source, []
    if isinstance(source, Path) and not taps:
        name = utf8_name(source)
        if name is not None:
            return name, []
    folder, arrays = None, dict[str, npt.NDArray[Any]]()
    if isinstance(source, ir.Model):
        proto, arrays = proto_and_weights(source)
        folder = next((tensor.base_dir for tensor in _in_files(source)), None)
    elif isinstance(source, Path):
        proto, folder = onnx.load_model(str(source), load_external_data=False), source.parent
    else:
        proto = onnx.load_model_from_string(source)
    present = {output.name for output in proto.graph.output}
    for name in taps:
        if name not in present:
            proto.graph.output.add(name=name)
    name = None if folder is None else utf8_name(Path(folder).resolve())
    if name is not None:
        settings.add_session_config_entry(_EXTERNAL_FOLDER, name)
    if arrays:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
        settings.add_external_initializers(list(arrays), values)
    return bytes(proto.SerializeToString()), list(arrays.values())


def _in_files(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return (value.const_value for value in values if isinstance(value.const_value, ir.ExternalTensor))


def utf8_name(path: Path) -> str | None:
    """The path as onnxruntime takes it, which knows no locale: UTF-8, or None where it is not."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _spec(argument: Any) -> InputSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", argument.type)
    dtype = np.dtype(_DTYPES[match.group(1)]) if match and match.group(1) in _DTYPES else None
    shape = argument.shape
    known = None if shape is None else tuple(d if isinstance(d, int | str) else None for d in shape)
    return InputSpec(argument.name, dtype, known)


def _without_false_scalars(inputs: tuple[InputSpec, ...], source: Source) -> tuple[InputSpec, ...]:
    """onnxruntime says of an input without a shape what it says of a scalar: look into the model which it is."""
    if all(spec.shape != () for spec in inputs):
        return inputs
    if isinstance(source, ir.Model):
        open_ones = {value.name for value in source.graph.inputs if value.shape is None}
    else:
        content = source.read_bytes() if isinstance(source, Path) else source
        declared = onnx.load_model_from_string(content).graph.input
        open_ones = {value.name for value in declared if not value.type.tensor_type.HasField("shape")}
    return tuple(replace(spec, shape=None) if spec.name in open_ones else spec for spec in inputs)


def _first_line(message: str) -> str:
    """What onnxruntime says, without its prefixes, source lines, C++ signatures and absolute paths."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message.strip())
    text = re.sub(r"^Load model from .+? failed:\s*", "", text)
    text = re.sub(r"/\S*/onnxruntime/\S+:\d+ ", "", text)
    before, status, after = text.partition("Status Message: ")
    text = _without_signature(before) + status + _without_signature(after)
    return text.splitlines()[0][:300] if text else "onnxruntime gave no reason"


def _without_signature(text: str) -> str:
    """Without the C++ function that stands before the message it throws: `void a::f(const b<c>&) message`."""
    start = re.match(r"[^().]*::[~\w]+\(", text)
    if start is None:
        return text
    depth, end = 1, start.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return text[end:].removeprefix(" const").lstrip() if depth == 0 else text


def refused(message: str, where: str | None) -> OnnxqpError:
    """What onnxruntime says when it does not open a model, as one of our errors."""
    line = _first_line(message)
    limit = ceilings_hint()
    told = ("Unsupported model IR version", "under development", "ValidateOpset")
    newer = re.search(r"Could not find an implementation for \w+\((\d+)\)", message)
    if any(text in message for text in told) or (newer and int(newer[1]) > ceilings().opset):
        return UnsupportedError(f"the installed onnxruntime does not read this model: {line}", where=where, hint=limit)
    if any(text in message for text in ("not a registered", "NOT_IMPLEMENTED", "Could not find", "No Op registered")):
        return UnsupportedError(
            f"onnxruntime's CPU provider cannot run this model: {line}",
            where=where,
            hint="custom operators and data types without a CPU kernel must be replaced before export",
        )
    if "two nodes with same node name" in message:  # 1.23 to 1.30 make such pairs themselves, of Conv and Clip
        return UnsupportedError(
            f"onnxruntime finds or makes two nodes of one name: {line}",
            where=where,
            hint="give every node a name of its own, or install a newer onnxruntime",
        )
    if "bad_alloc" in message or "Failed to allocate" in message:
        return ResourceError(f"not enough memory to open the model: {line}", where=where, hint="use a smaller model")
    return ModelError(
        f"onnxruntime refuses the model: {line}",
        where=where,
        hint="check that the exporting tool runs its own file; `onnxqp inspect` names the parts",
    )


def doubtful(message: str, where: str) -> ModelError:
    """What is wrong with a model that opens, does not run on made-up inputs, and cannot be worked on either."""
    return ModelError(
        f"the model opens, but does not run: {_first_line(message)}",
        where=where,
        hint="check that the exporting tool runs its own file",
    )


def _run_error(message: str) -> OnnxqpError:
    line = _first_line(message)
    if any(text in message for text in ("bad_alloc", "Failed to allocate", "would require more than")):
        return ResourceError(f"not enough memory to run the model: {line}", hint="lower --batch-size or fix --shape")
    if "INVALID_ARGUMENT" in message and "while running" not in message:
        return DataError(
            f"the inputs do not fit the model: {line}", hint="`onnxqp inspect` prints the names, types and shapes"
        )
    return DataError(
        f"the model cannot be run on these inputs: {line}", hint="pass real inputs with --data, or sizes with --shape"
    )


def optimized_graph(source: Source, *, threads: int = 1, options: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The graph that onnxruntime really runs, after all its optimisations, fusions and layout changes."""
    return _open_with_graph(source, threads, options)[1]


@dataclass(frozen=True)
class RunningNode:
    """A node of a graph as it really runs."""

    name: str
    op_type: str


def open_and_look(source: Source, *, threads: int = 1) -> tuple[Session, list[RunningNode]]:
    """A session, and the nodes that it really runs, those in bodies of If, Loop and Scan included."""
    session, proto = _open_with_graph(source, threads, None)
    return session, [RunningNode(node.name, node.op_type) for node in all_nodes(proto.graph)]


def _open_with_graph(
    source: Source, threads: int, options: Mapping[str, str] | None
) -> tuple[Session, onnx.ModelProto]:
    with tempfile.TemporaryDirectory(prefix="onnxqp-") as folder:
        path = Path(folder) / "optimized.onnx"
        session = Session(source, threads=threads, options=options, dump=path)
        return session, onnx.load_model(str(path), load_external_data=False)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of the graph and of the bodies of its If, Loop and Scan nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


@dataclass(frozen=True)
class Ceilings:
    """The highest IR version and default-domain opset that the installed onnxruntime reads."""

    ir_version: int
    opset: int


def _reads(ir_version: int, opset: int) -> bool:
    """Whether a model with Q and DQ runs: onnxruntime 1.32 opens opset 28, for which it has no kernel of either."""
    parameters = ["scale", "zero"]
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", *parameters], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", *parameters], ["y"]),
    ]
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("x", "y")]
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
    weights = [onnx.helper.make_tensor(n, kind, [], [1]) for n, kind in zip(parameters, kinds, strict=True)]
    graph = onnx.helper.make_graph(nodes, "probe", info[:1], info[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception:  # whatever it says, it does not read it
        return False
    return True


@functools.cache
def ceilings() -> Ceilings:
    """Probed with hand-made models, once: no API tells (onnxruntime issue 14932)."""
    ir_version, opset = 8, 17
    while ir_version < 40 and _reads(ir_version + 1, opset):
        ir_version += 1
    while opset < 60 and _reads(ir_version, opset + 1):
        opset += 1
    return Ceilings(ir_version, opset)


def ceilings_hint() -> str:
    limit = ceilings()
    return (
        f"onnxruntime {ort.__version__} reads IR up to {limit.ir_version} and opset up to {limit.opset}: "
        "export with a lower opset, or install a newer onnxruntime"
    )


def versions() -> dict[str, str]:
    """The versions that decide a result."""
    found = {"onnxqp": importlib.metadata.version("onnxqp")}
    for key, package in (("onnx", "onnx"), ("onnx_ir", "onnx-ir"), ("onnxruntime", "onnxruntime")):
        found[key] = importlib.metadata.version(package)
    return {**found, "python": platform.python_version()}


@dataclass(frozen=True)
class Cpu:
    name: str
    features: frozenset[str]  # as the kernel names them: avx2, avx512_vnni, avx_vnni, asimddp, i8mm
    cores: int
    machine: str  # x86_64, aarch64


_INTERESTING = re.compile(r"^(sse4_1|avx2|fma|avx512[a-z]*|avx512_\w+|avx_vnni\w*|amx_\w+|asimd\w*|i8mm|sve\w*)$")


@functools.cache
def cpu() -> Cpu:
    """This machine's processor, from the kernel where it tells."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, text = line.partition(":")
            if key.strip() == "model name":
                name = text.strip()
            elif key.strip() in ("flags", "Features"):
                flags.update(text.split())
    features = frozenset(flag for flag in flags if _INTERESTING.match(flag))
    return Cpu(name, features, os.cpu_count() or 1, platform.machine())
