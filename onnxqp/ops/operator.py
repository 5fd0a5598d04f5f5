"""One record per operator: all that onnxqp knows of it stands in one subclass of `Operator`.

How its axes couple (pruning), what must be rewritten when an axis shrinks, what it is to a quantizer, what it costs.
Everything else in the package is generic and never tests `op_type`. Adding an operator is adding one small class in a
file of its family and naming its types in `op_types`; `onnxqp ops` prints the class docstring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from onnxqp.specs import Float, Role

if TYPE_CHECKING:
    from onnxqp.axes import AxisLabels, Cut


class Operator:
    """An operator that nobody described: its axes are pinned and it stays in float."""

    op_types: ClassVar[tuple[str, ...]] = ()  # "Conv", or "com.microsoft.FusedConv" outside the default domain

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        """Tie the axis labels of inputs, outputs and weights that must shrink together."""
        labels.pin_node(node, f"no pruning rule for operator {node.op_type}")

    def resize(self, node: ir.Node, cut: Cut) -> None:
        """Rewrite attributes and shape constants of `node` after its tensors were cut."""

    def quantization(self, node: ir.Node) -> Role:
        """What this node is to a quantizer."""
        return Float(f"no integer rule for operator {node.op_type}")

    def macs(self, node: ir.Node) -> int:
        """Multiply-accumulates of one inference at the static shapes of the graph; 0 where negligible."""
        return 0
