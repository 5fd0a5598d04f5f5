"""One combination of pruning and quantization, as a model and in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxqp.compress.goal import Measured
from onnxqp.recover import Stage
from onnxqp.report.records import FrontierPoint, Quantization


@dataclass(frozen=True, eq=False)
class Candidate:
    """`stage`: how far it was pruned. `quantization` tells what was quantized, once somebody asks; None: nothing.

    `integers`: nodes that compute on integers.
    """

    model: ir.Model
    stage: Stage
    measured: Measured
    integers: int = 0
    quantization: Callable[[], Quantization] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """How it was made, for the report."""
        kept = self.stage.pruning.macs_ratio if self.stage.records else 1.0
        return {
            "macs_ratio": None if kept is None else round(kept, 3),
            "weights": "float" if self.quantization is None else "int8",
            "nodes_on_integers": self.integers,
        }

    def point(self, *, chosen: bool) -> FrontierPoint:
        """As the report shows it: what it is worth on the samples held back."""
        found = self.measured
        return FrontierPoint(
            speedup=round(found.speedup, 3),
            settings={name: value for name, value in self.settings.items() if value is not None},
            chosen=chosen,
            agreement=found.closeness.agreement,
            sqnr_db=round(found.closeness.sqnr_db, 2) if found.closeness.agreement is None else None,
            size_ratio=round(found.size_ratio, 3),
        )
