"""Sessions of onnxruntime's CPU execution provider."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxqp.protos import keep_needed, proto_and_weights
from onnxqp.runtime.refusals import refused, run_error
from onnxqp.specs import Feed, InputSpec

Source: TypeAlias = Path | bytes | ir.Model
Specs: TypeAlias = tuple[InputSpec, ...]
_Declared: TypeAlias = tuple[str, str, Sequence[Any] | None]  # name, type and shape, as onnxruntime has them
Signature: TypeAlias = tuple[Sequence[_Declared], Sequence[_Declared]]  # inputs and outputs

AHEAD = 2  # inferences at once, each on one thread
AHEAD_BYTES = 64 * 2**20  # results of one inference up to which the next runs while somebody looks at them...
AHEAD_TWICE_BYTES = 24 * 2**20  # ...and up to which the next two do
LARGE_WEIGHTS = 100_000_000  # bytes; to lay them out anew takes longer than some runs
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_DUMPED_WEIGHTS = "optimized.weights"
_DUMP = {  # whoever reads an optimised graph wants its nodes: the weights go elsewhere
    "session.optimized_model_external_initializers_file_name": _DUMPED_WEIGHTS,
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
    {"session.disable_quant_qdq": "1"}. `taps` are values inside the graph to return beside its outputs, or with `alone`
    instead of them: what they do not follow from is then not computed. `brief`: for a few runs that nobody times; large
    weights are then not rewritten into the layouts that make many runs fast, and memory is shared with other such
    sessions.
    With the `signature` of a model that is known to open, the first run opens it.
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int = 1,
        optimize: bool = True,
        options: Mapping[str, str] | None = None,
        taps: Sequence[str] = (),
        alone: bool = False,
        dump: Path | None = None,
        profile: Path | None = None,
        brief: bool = False,
        signature: Signature | None = None,
    ) -> None:
        self._how = (source, threads, optimize, dict(options or {}), (tuple(taps), alone), dump, profile)
        self._brief = brief
        self._session: ort.InferenceSession | None = None
        inputs, outputs = signature or _declared(self._open())
        self.inputs = _without_false_scalars(tuple(_spec(*each) for each in inputs), source, "input")
        self.outputs = _without_false_scalars(tuple(_spec(*each) for each in outputs), source, "output")

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
            _write_no_weights(dump.parent)
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        payload, self._weights = _payload(source, *taps, settings)
        large = sum(array.nbytes for array in self._weights) > LARGE_WEIGHTS
        if self._brief and optimize and large:
            settings.graph_optimization_level = level.ORT_ENABLE_EXTENDED
        if self._brief and not large and _shares_memory():  # what is shared is kept: not the layouts of large weights
            settings.add_session_config_entry("session.use_env_allocators", "1")
            settings.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
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
            raise run_error(str(err)) from err
        return dict(zip(wanted, results, strict=True))

    def run_each(
        self, feeds: Iterable[Feed], names: Sequence[str] | None = None
    ) -> Iterator[tuple[Feed, dict[str, npt.NDArray[Any]]]]:
        """Every feed with its results, in order. While the caller looks at one the next two run, unless results
        are so large that more of them would weigh in memory."""
        with ThreadPoolExecutor(AHEAD) as beside:
            waiting: list[tuple[Feed, Future[dict[str, npt.NDArray[Any]]]]] = []
            ahead = 0
            for feed in feeds:
                if ahead:
                    waiting.append((feed, beside.submit(self.run, feed, names)))
                    if len(waiting) > ahead:
                        earlier, future = waiting.pop(0)
                        yield earlier, future.result()
                    continue
                results = self.run(feed, names)
                size = sum(each.nbytes for each in results.values() if isinstance(each, np.ndarray))  # no lists
                ahead = AHEAD if size <= AHEAD_TWICE_BYTES else 1 if size <= AHEAD_BYTES else 0
                yield feed, results
            for earlier, future in waiting:
                yield earlier, future.result()

    def end_profiling(self) -> Path:
        """Write the profile of a session opened with `profile`, the beginning of the file's name; the whole name."""
        return Path(self._open().end_profiling())


def as_array(output: object) -> npt.NDArray[Any]:
    """An output as one array; a sequence or a map (of arrays or numbers) as the vector of all its numbers."""
    if isinstance(output, Mapping):
        return as_array([output[key] for key in sorted(output, key=str)])
    if isinstance(output, list | tuple):
        return np.concatenate([as_array(item).ravel() for item in output]) if output else np.zeros(0)
    return np.asarray(output)


@functools.cache
def _shares_memory() -> bool:
    """Whether sessions that nobody times can take their memory from one arena, which grows by what is asked for.

    Each has its own by default, and that doubles whenever it is full: twice the memory, for results that are kept for
    a while.
    """
    try:
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    except Exception:  # another part of this process has one already, or this onnxruntime none
        return False
    return True


def _payload(
    source: Source, taps: Sequence[str], alone: bool, settings: ort.SessionOptions
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
    if alone:
        kept = [output for output in proto.graph.output if output.name in taps]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
        read = keep_needed(proto.graph, taps)
        arrays = {name: array for name, array in arrays.items() if name in read}
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


def _write_no_weights(folder: Path) -> None:
    """Let the weights of an optimised graph go where nothing is kept: to write 100 MB takes as long as to open them."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # no links here, or one that is there already
            (folder / _DUMPED_WEIGHTS).symlink_to(os.devnull)


def _in_files(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return (value.const_value for value in values if isinstance(value.const_value, ir.ExternalTensor))


def utf8_name(path: Path) -> str | None:
    """The path as onnxruntime takes it, which knows no locale: UTF-8, or None where it is not."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _declared(session: ort.InferenceSession) -> Signature:
    inputs, outputs = (
        [(each.name, each.type, each.shape) for each in side] for side in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _spec(name: str, kind: str, shape: Sequence[Any] | None) -> InputSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", kind)
    dtype = np.dtype(_DTYPES[match.group(1)]) if match and match.group(1) in _DTYPES else None
    known = None if shape is None else tuple(d if isinstance(d, int | str) else None for d in shape)
    return InputSpec(name, dtype, known)


def _without_false_scalars(specs: Specs, source: Source, end: Literal["input", "output"]) -> Specs:
    """onnxruntime says of a value without a shape what it says of a scalar: look into the model which it is."""
    if all(spec.shape != () for spec in specs):
        return specs
    if isinstance(source, ir.Model):
        values = source.graph.inputs if end == "input" else source.graph.outputs
        open_ones = {value.name for value in values if value.shape is None}
    else:
        content = source.read_bytes() if isinstance(source, Path) else source
        graph = onnx.load_model_from_string(content).graph
        declared = graph.input if end == "input" else graph.output
        open_ones = {value.name for value in declared if not value.type.tensor_type.HasField("shape")}
    return tuple(replace(spec, shape=None) if spec.name in open_ones else spec for spec in specs)
