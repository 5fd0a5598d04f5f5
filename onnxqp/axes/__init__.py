"""Axis labels: which slices of which tensors disappear together.

Every index of every cuttable axis of every value carries an integer *label*. Operator rules *tie* labels; tied labels
form a *class*, and removing a class removes every slice that carries one of its labels. Labels are born on the axes of
constants (weights) and in padding; activations only carry them on, so one forward pass over the nodes is enough.

A value's labels come in *families*. A family `(axes, labels)` says that the slice at `labels[i, ..., k]` of the named
axes goes when that label goes. All axes but the last are *outer*: they number blocks and are never cut. The last axis
is *inner*: each block is compacted along it, so every block must keep the same number (`balance`). An axis that is no
family's inner axis is never cut. Two families may share outer axes; an inner axis belongs to one family.

The method and its reasons: design page "The heart of pruning". Only numpy is imported here.
"""

from __future__ import annotations

from onnxqp.axes.cut import Cut, spread
from onnxqp.axes.family import Family, Labels, Name, components
from onnxqp.axes.labels import AxisLabels
from onnxqp.axes.readings import CannotCouple, Consumption, Pin, Reduction, Scale, Weight, Zero

__all__ = [
    "AxisLabels",
    "CannotCouple",
    "Consumption",
    "Cut",
    "Family",
    "Labels",
    "Name",
    "Pin",
    "Reduction",
    "Scale",
    "Weight",
    "Zero",
    "components",
    "spread",
]
