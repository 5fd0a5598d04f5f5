"""What a layer of a pruned model reads, with what it should compute: rows to fit on, and rows that judge the fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.calibrate.moments import Moments
from onnxqp.ops.contraction import Gates
from onnxqp.recover.clipped import Row
from onnxqp.recover.layers import Layer, clipping, shortcuts
from onnxqp.recover.sampling import Batch, choose_positions, held_out, least_damping
from onnxqp.recover.walk import Arrays, Walk

Array: TypeAlias = npt.NDArray[Any]

ROWS = 32768  # that a layer is fitted on, where there are so many
KEPT = 320 * 2**20  # bytes of rows that are looked at again, where a layer ends in a clipping activation
HELD = 5  # of fewer samples than this, every fifth row is held out


class Pairs:
    """Rows of a layer's inputs in the pruned model, with its targets from the original."""

    def __init__(
        self, layer: Layer, source: ir.Node, cuts: Sequence[Cut], ours: Walk, theirs: Walk, samples: int, seed: int
    ) -> None:
        self.layer = layer
        self.source = source
        self.cuts = cuts
        self.ours = ours
        self.theirs = theirs
        self.samples = samples
        self.seed = seed
        self.random = np.random.default_rng(seed)
        values = {str(value.name): value for node in theirs.order for value in (*node.inputs, *node.outputs) if value}
        self.others = [
            (value, values[str(value.name)])
            for value in (shortcuts(layer) if not isinstance(layer.contraction, Gates) else ())
            if value.name in values
            and ours.before(value, layer.node)
            and theirs.before(values[str(value.name)], source)
        ]
        self.gates = isinstance(layer.contraction, Gates)
        self.clipping = None if self.gates else clipping(layer)
        self.least = 0.0  # damping
        self.kept: tuple[list[Row], list[Row]] = ([], [])  # rows to fit on and held out, while they fit KEPT bytes
        if not self.gates and len(self.others) != len(shortcuts(layer)):
            self.others, self.clipping = [], None

    def moments(self, rows: Iterable[tuple[int, Row]]) -> tuple[Moments, Moments]:
        """Of the samples to fit on, and of those held out; `rows` with the number of the sample they are from."""
        sets: tuple[Moments, ...] = ()
        for number, (x, y, added) in rows:
            if not sets:
                origins = x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)
                sets = Moments.about(*origins), Moments.about(*origins)
                waiting = Batch(sets[0]), Batch(sets[1])
                if (x.nbytes + 2 * y.nbytes) * self.samples > KEPT:
                    self.clipping = None
            if self.samples >= HELD:
                self._add(waiting, held_out(number, self.samples), (x, y, added))
            else:
                away = np.arange(x.shape[1]) % HELD == HELD - 1
                self._add(waiting, False, (x[:, ~away], y[:, ~away], added[:, ~away]))
                self._add(waiting, True, (x[:, away], y[:, away], added[:, away]))
        for batch in waiting:
            batch.flush()
        return sets[0], sets[1]

    def _add(self, waiting: tuple[Batch, Batch], apart: bool, row: Row) -> None:
        waiting[apart].add(*row[:2])
        if self.clipping is None:
            self.kept = ([], [])
        else:
            self.kept[apart].append(row)

    @property
    def entering(self) -> list[ir.Value]:
        """The values of the pruned model that `row` looks at."""
        return [self.layer.data, *(ours for ours, _ in self.others)]

    @property
    def leaving(self) -> list[ir.Value]:
        """Those of the original."""
        if self.gates:
            return [self.source_data]
        return [self.source.outputs[0], *(theirs for _, theirs in self.others)]

    @property
    def source_data(self) -> ir.Value:
        value = self.source.inputs[self.layer.contraction.data]
        assert value is not None
        return value

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Those of every sample, with its number."""
        mine = self.ours.run(self.layer.node, self.entering)
        before = self.theirs.run(self.source, self.leaving, through=True)
        for number, (found, expected) in enumerate(zip(mine, before, strict=True)):
            yield number, self.row(found, expected)

    def row(self, found: Arrays, expected: Arrays) -> Row:
        """Inputs, targets, and what is added to the output before it is clipped, of one sample."""
        if self.gates:
            return self.gate_row(found[str(self.layer.data.name)], expected[str(self.source_data.name)])
        contraction, output = self.layer.contraction, self.source.outputs[0]
        target = self.compact(output, expected[str(output.name)])
        added = np.zeros_like(target)
        for value, source in self.others:
            there, here = self.compact(source, expected[str(source.name)]), found[str(value.name)]
            if there.shape == here.shape == target.shape:
                target, added = target + (there - here), added + here
            else:
                self.clipping = None
        data = found[str(self.layer.data.name)]
        positions = contraction.positions(target.shape)
        self.least = least_damping(self.layer, positions, self.samples)
        chosen = self.choose(positions)
        rows, plain = contraction.rows(data, target.shape, chosen), contraction.targets(target, chosen)
        return rows, plain, self.shifted(contraction.targets(added, chosen))

    def gate_row(self, data: Array, there: Array) -> Row:
        """Of a recurrent layer: inputs, and what the original made of its own with its own weight."""
        contraction, original = self.layer.contraction, Layer(self.source, self.layer.contraction, None)
        value = self.source.inputs[contraction.weight]
        positions = math.prod(data.shape[:-1])
        self.least = least_damping(self.layer, positions, self.samples)
        chosen = self.choose(positions)
        made = contraction.rows(there, (), chosen) @ original.matrix().astype(there.dtype)
        made = made + original.bias()[:, None].astype(there.dtype)
        for cut in self.cuts:
            entry = cut.mask(value, 1)
            if entry is not None:
                kept = np.broadcast_to(entry[1], (made.shape[0], made.shape[2]))
                made = np.stack([each[:, own] for each, own in zip(made, kept, strict=True)])
        return contraction.rows(data, (), chosen), made, np.zeros_like(made)

    def shifted(self, added: Array) -> Array:
        """With the constants that are added behind the layer, `[groups, rows, outputs]`."""
        shift = self.clipping.shift if self.clipping is not None else np.zeros(1)
        if not shift.any():
            return added
        groups, _, outputs = added.shape
        spread = np.broadcast_to(shift, (groups * outputs,)).reshape(groups, 1, outputs)
        return np.asarray(added + spread.astype(added.dtype))

    def compact(self, value: ir.Value, array: Array) -> Array:
        """An array of the original model as the pruned model would have it."""
        for cut in self.cuts:
            array = cut.compact(value, array)
        return array

    def choose(self, positions: int) -> npt.NDArray[np.int64]:
        """Flat positions of one sample's output that become rows, a random few where there are many."""
        return choose_positions(self.layer, positions, self.samples, self.random, ROWS)
