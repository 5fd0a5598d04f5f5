"""What is installed and what it reads, and the processor of this machine."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort


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
