"""One table per runtime and CPU family: what fuses, what saturates, what is worth it. Keyed by the form of a role."""

from __future__ import annotations

from collections.abc import Collection

from onnxqp.errors import UsageError
from onnxqp.targets.tables import TARGETS
from onnxqp.targets.target import Kernel, Move, Rate, Target, Work

_VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


def resolve(name: str, cpu_features: Collection[str]) -> Target:
    """The target of that name; `auto` is the one of a CPU with these features, as Linux names them.

    Raises UsageError for a name that is no target.
    """
    if name != "auto":
        if name not in TARGETS:
            raise UsageError(f"no target {name!r}", hint=f"choose auto or one of {', '.join(TARGETS)}")
        return TARGETS[name]
    if any(feature in cpu_features for feature in _VNNI):
        return TARGETS["x64-vnni"]
    if "avx2" in cpu_features:
        return TARGETS["x64-avx2"]
    if any(feature.startswith("asimd") for feature in cpu_features):
        return TARGETS["arm64"]
    return TARGETS["portable"]


__all__ = ["TARGETS", "Kernel", "Move", "Rate", "Target", "Work", "resolve"]
