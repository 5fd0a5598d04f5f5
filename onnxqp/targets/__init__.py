"""One table per runtime and CPU family: what fuses, what saturates, what is worth it. Keyed by the form of a role."""

from __future__ import annotations

from collections.abc import Collection

from onnxqp.errors import UsageError
from onnxqp.targets.tables import TARGETS
from onnxqp.targets.target import Kernel, Move, Rate, Target, Work

_VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


def resolve(name: str, cpu_features: Collection[str] | None = None) -> Target:
    """The target of that name; `auto` is the one of a CPU with these features, as Linux names them (None: this CPU).

    Raises UsageError for a name that is no target.
    """
    if name != "auto":
        if name not in TARGETS:
            raise UsageError(f"no target {name!r}", hint=f"choose auto or one of {', '.join(TARGETS)}")
        return TARGETS[name]
    if cpu_features is None:
        from onnxqp.runtime import cpu  # opens onnxruntime: only where it is needed

        cpu_features = cpu().features
    if any(feature in cpu_features for feature in _VNNI):
        return TARGETS["x64-vnni"]
    if "avx2" in cpu_features:
        return TARGETS["x64-avx2"]
    if any(feature.startswith("asimd") for feature in cpu_features):
        return TARGETS["arm64"]
    return TARGETS["portable"]


def describe(op_type: str, target: str) -> str:
    """In a few words, what becomes of an operator on a target: its integer kernel, or why it stays in float."""
    table = resolve(target)
    if op_type in table.kernels:
        kernel = table.kernels[op_type]
        words = " or ".join(name for name in kernel.fused) + kernel.remark
        return f"{words}, where its inputs are integers already" if kernel.follows else words
    for form, move in table.moves.items():
        if op_type == form:
            return "moves integers, after an integer kernel" if move.follows else "moves integers"
        if form.startswith(op_type):  # a special case of the operator, as ResizeNearest
            return f"moves integers when {form.removeprefix(op_type).lower()}"
    if op_type in table.absorbed:
        return "absorbed by the integer kernel before it"
    return f"float: {table.left_float.get(op_type, 'no integer kernel')}"


__all__ = ["TARGETS", "Kernel", "Move", "Rate", "Target", "Work", "describe", "resolve"]
