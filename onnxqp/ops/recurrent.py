"""Recurrent layers: pinned, measured."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class LSTM(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("LSTM",)


class GRU(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("GRU",)


class RNN(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("RNN",)
