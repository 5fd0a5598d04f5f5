"""One combination of pruning and quantization, as a model and in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxqp.compress.goal import Goal, Measured
from onnxqp.quantize.candidate import Candidate as Quantized
from onnxqp.recover import Stage
from onnxqp.report.records import FrontierPoint, Quantization


@dataclass(frozen=True, eq=False)
class Candidate:
    """`stage`: how far it was pruned. `made`: how it was quantized; None: not at all."""

    model: ir.Model
    stage: Stage
    measured: Measured
    made: Quantized | None = None

    @property
    def integers(self) -> int:
        """How many nodes compute on integers."""
        return 0 if self.made is None else self.made.integers

    def quantization(self) -> Quantization | None:
        """The report's section; opens the model to see what the runtime makes of it."""
        return None if self.made is None else self.made.record()

    @property
    def settings(self) -> dict[str, Any]:
        """How it was made, for the report."""
        kept = self.stage.pruning.macs_ratio if self.stage.records else 1.0
        return {
            "macs_ratio": None if kept is None else round(kept, 3),
            "weights": "float" if self.made is None else "int8",
            "weights_packed": self.made.packed or None if self.made is not None else None,
            "nodes_on_integers": self.integers,
        }

    def point(self, goal: Goal, *, chosen: bool) -> FrontierPoint:
        """As the report shows it: what it is worth on the samples held back."""
        found = self.measured
        return FrontierPoint(
            speedup=round(found.speedup, 3),
            settings={name: value for name, value in self.settings.items() if value is not None},
            chosen=chosen,
            kept=goal.keeps(found),
            agreement=found.closeness.agreement,
            sqnr_db=round(found.closeness.sqnr_db, 2) if found.closeness.agreement is None else None,
            size_ratio=round(found.size_ratio, 3),
        )
