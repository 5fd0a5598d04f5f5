"""The Reshape rule: labels are reshaped like the elements they stand for.

Input and output axes fall into minimal *segments* of equal product, `[N | S | 3hd] -> [N | S | 3, h, d]`, and labels of
a segment are laid out and reshaped as the elements are. Three things need care:

- An axis that is split keeps its channels only if every block of the new inner axis keeps the same number (`balance`).
- Blocks that were compacted, each at other positions, and are then merged with the inner axis not last, as the channel
  shuffle does ([g, c] -> [c, g] -> [c g]), come out interleaved: the merged axis of the cut graph holds its elements in
  another order than the original axis with some left out. A Gather puts them back (`restore_order`). Tying the blocks'
  positions instead would tie more channels with every shuffle, until ShuffleNet had one class per stage. It is done
  only where the merged axis is still one of several, and each block would need an order of its own.
- Dimensions that are not known to be equal before and after leave one opaque segment between what matches from the
  front and what matches from the back. Of it only the last axis can be cut, where one of its sizes before and after
  divides the other: heads merge with the batch, `[N, S, hd] -> [N, S * h, d]`, and back. Or the first, likewise: a
  group normalisation of open height and width, `[N, C, H, W] -> [N, g, ?]`, and back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family, Labels, Name, spread
from onnxqp.ops.join import dims_of, movable
from onnxqp.ops.rewrite import Insertion

_LARGEST = 2**24  # labels laid out over one set of segments; beyond that the axis is pinned


@dataclass(frozen=True)
class Segment:
    """Axes `before` of the input hold the elements of axes `after` of the output; not `known`: not cut."""

    before: range
    after: range
    known: bool = True

    @property
    def copies(self) -> bool:
        return len(self.before) == 1 and len(self.after) == 1


def symbols(value: ir.Value) -> list[int | str]:
    """Dimensions of a value, unknown ones as names that equal nothing else."""
    if value.shape is None:
        raise CannotCouple("a Reshape of unknown rank")
    named = [size if isinstance(size, int) else size.value for size in value.shape]
    return [f"?{value.name}.{axis}" if size is None else size for axis, size in enumerate(named)]


def solve_dimension(value: ir.Value | None, output: ir.Value) -> list[int | str | None] | None:
    """The shape of a reshaped tensor when a single dimension of it is open: [N, S, 384] -> [N, S, ?, 32]."""
    if value is None or value.shape is None or output.shape is None:
        return None
    before, after = symbols(value), symbols(output)
    names = [size for size in before if isinstance(size, str)]
    open_places = []
    for place, size in enumerate(after):
        if isinstance(size, str):
            if size in names:
                names.remove(size)
            else:
                open_places.append(place)
    known, rest = (math.prod(size for size in side if isinstance(size, int)) for side in (before, after))
    if names or len(open_places) != 1 or not rest or known % rest:
        return None
    shape: list[int | str | None] = [size if isinstance(size, int) else size.value for size in output.shape]
    shape[open_places[0]] = known // rest
    return shape


def split_segments(before: Sequence[int | str], after: Sequence[int | str]) -> list[Segment]:
    """The minimal segments of a reshape. A single unknown on each side is the same when all else agrees."""
    before, after = _match_unknowns(list(before), list(after))
    if 0 in before or 0 in after:
        raise CannotCouple("a Reshape of an empty tensor")
    found, start = _common(before, after, 0, 0)
    if start == (len(before), len(after)):
        return found
    rest_before, rest_after = before[start[0] :], after[start[1] :]
    mirrored, end = _common(rest_before[::-1], rest_after[::-1], 0, 0)
    stop = (len(before) - end[0], len(after) - end[1])
    found.append(Segment(range(start[0], stop[0]), range(start[1], stop[1]), known=False))
    for segment in reversed(mirrored):
        n, m = len(before), len(after)
        found.append(
            Segment(
                range(n - segment.before.stop, n - segment.before.start),
                range(m - segment.after.stop, m - segment.after.start),
            )
        )
    return found


def reshape_families(node: ir.Node, labels: AxisLabels, value: ir.Value, output: ir.Value) -> list[Family]:
    """Families of `output`, whose elements are those of `value` in the same row-major order."""
    families = movable(labels, value)
    if not families:
        return []
    segments = split_segments(symbols(value), symbols(output))
    if len({_home(segments, family) for family in families}) < len(families):
        families = _one_per_segment(node, labels, segments, families)
    sizes = dims_of(value), dims_of(output)
    made = (_reshape_family(node, labels, family, segments, *sizes) for family in families)
    return [family for family in made if family is not None]


def _match_unknowns(before: list[int | str], after: list[int | str]) -> tuple[list[int | str], list[int | str]]:
    """Give the only unknown of either side one name when the products of the rest agree."""
    names = [name for name in before if isinstance(name, str)], [name for name in after if isinstance(name, str)]
    known = [math.prod(size for size in side if isinstance(size, int)) for side in (before, after)]
    if len(names[0]) == len(names[1]) == 1 and known[0] == known[1]:
        after = [names[0][0] if size == names[1][0] else size for size in after]
    return before, after


def _keys(sizes: Sequence[int | str]) -> list[tuple[int, tuple[str, ...]]]:
    """The product before each axis and after the last: of the numbers, and the names in it."""
    product, names = 1, []
    keys: list[tuple[int, tuple[str, ...]]] = [(1, ())]
    for size in sizes:
        if isinstance(size, int):
            product *= size
        else:
            names.append(size)
        keys.append((product, tuple(sorted(names))))
    return keys


def _common(
    before: Sequence[int | str], after: Sequence[int | str], i: int, j: int
) -> tuple[list[Segment], tuple[int, int]]:
    """Segments from the front, as far as products can be matched, and where they end."""
    last = {key: place for place, key in enumerate(_keys(after))}
    ends = {key: place for place, key in enumerate(_keys(before)) if key in last}
    found = []
    for key, stop in ends.items():
        if stop > i or last[key] > j:
            found.append(Segment(range(i, stop), range(j, last[key])))
            i, j = stop, last[key]
    return found, (i, j)


def _home(segments: Sequence[Segment], family: Family) -> int:
    return next(n for n, segment in enumerate(segments) if family.inner in segment.before)


def _one_per_segment(
    node: ir.Node, labels: AxisLabels, segments: Sequence[Segment], families: Sequence[Family]
) -> tuple[Family, ...]:
    """Two channel axes that merge into one: a slice of it would go for either of two reasons. Only the larger stays."""
    kept: dict[int, Family] = {}
    for family in sorted(families, key=lambda family: -family.labels.size):
        home = _home(segments, family)
        if home not in kept:
            kept[home] = family
        else:
            labels.pin(family.labels, node, "merges with another channel axis")
    return tuple(kept.values())


def _reshape_family(
    node: ir.Node,
    labels: AxisLabels,
    family: Family,
    segments: Sequence[Segment],
    before: Sequence[int | None],
    after: Sequence[int | None],
) -> Family | None:
    home = segments[_home(segments, family)]
    if not home.known:
        return _across_unknown(node, labels, family, home, before, after)
    opaque = {axis for segment in segments if not segment.known for axis in segment.before}
    family = labels.coarsen(family, [axis for axis in family.axes if axis not in opaque])
    behind = _behind(family.axes, home)
    made = _reshaped(node, labels, family, segments, before, after)
    if made is not None and behind and len(made.axes) > 1:
        family = labels.coarsen(family, [axis for axis in family.axes if axis not in behind])
        made = _reshaped(node, labels, family, segments, before, after)
    if made is None or len(made.axes) == 1:
        return made
    if made.axes[-2] not in home.after:
        labels.balance(made.labels.reshape(-1, made.labels.shape[-1]))
    elif labels.split(node, made.labels.reshape(-1, made.labels.shape[-1])):
        return _whole(labels, made)
    return made


def _across_unknown(
    node: ir.Node,
    labels: AxisLabels,
    family: Family,
    home: Segment,
    before: Sequence[int | None],
    after: Sequence[int | None],
) -> Family | None:
    """The family on the last axis of an opaque segment, where its place there follows from that before: whatever the
    sizes in front are, element i of a row of 64 stands at i % 16 of a row of 16. Channels of one place are tied."""
    size, new = before[home.before[-1]], after[home.after[-1]] if home.after else None
    if family.inner != home.before[-1] or size is None or new is None or (size % new and new % size):
        return _blocks_across_unknown(node, labels, family, home, before, after)
    row = labels.coarsen(family, [family.inner]).labels
    if size > new:
        rows = row.reshape(-1, new)
        labels.tie(rows[:1], rows)
        row = rows[0]
    return Family((home.after[-1],), np.tile(row, new // len(row)))


def _blocks_across_unknown(
    node: ir.Node,
    labels: AxisLabels,
    family: Family,
    home: Segment,
    before: Sequence[int | None],
    after: Sequence[int | None],
) -> Family | None:
    """The family on the first axis of an opaque segment, where one of its sizes before and after divides the other:
    [N, 32, H, W] -> [N, 8, ?], as a group normalisation begins, and back. Channels of one block are tied."""
    size, new = before[home.before[0]], after[home.after[0]] if home.after else None
    if family.inner != home.before[0] or size is None or new is None or 1 in (size, new) or (size % new and new % size):
        labels.pin(family.labels, node, "reshaped to dimensions that are not known")
        return None
    row = labels.coarsen(family, [family.inner]).labels
    if size > new:
        rows = row.reshape(new, -1)
        labels.tie(rows[:, :1], rows)
        row = rows[:, 0]
    return Family((home.after[0],), np.repeat(row, new // len(row)))


def _whole(labels: AxisLabels, family: Family) -> Family:
    """Heads as channels: the family over the blocks, whose labels are tied along the axis inside them."""
    family = labels.coarsen(family, family.axes[:-1])
    if len(family.axes) > 1:
        labels.balance(family.labels.reshape(-1, family.labels.shape[-1]))
    return family


def _behind(axes: Sequence[Name], home: Segment) -> set[Name]:
    """Outer axes that merge with the inner axis and stand behind it: their blocks come out interleaved."""
    inner = axes[-1]
    inside = [axis for axis in home.before if axis in axes]
    return set(inside[inside.index(inner) + 1 :]) if isinstance(inner, int) else set()


def _reshaped(
    node: ir.Node,
    labels: AxisLabels,
    family: Family,
    segments: Sequence[Segment],
    before: Sequence[int | None],
    after: Sequence[int | None],
) -> Family | None:
    """The family over the output axes along which its labels vary; the last of those it was split into is inner."""
    home = segments[_home(segments, family)]
    touched = [s for s in segments if any(axis in s.before for axis in family.axes)]
    laid_out, axes = _lay_out(node, labels, family, touched, before, after)
    if laid_out is None:
        return None
    varying = [n for n, axis in enumerate(axes) if (laid_out != laid_out.take([0], axis=n)).any()]
    inside = [n for n in varying if axes[n] in home.after]
    if not inside:
        labels.pin(family.labels, node, "no axis is left to cut")
        return None
    inner = inside[-1]
    if axes[inner] != 1 and node.outputs[0].name in labels.images and 1 in (axes[n] for n in inside):
        inner = axes.index(1)  # [N, C * H * W] -> [N, C, H, W]: of the axes it is split into, the one with the channels
        rows = np.moveaxis(laid_out, inner, 0).reshape(laid_out.shape[inner], -1)
        labels.tie(rows[:, :1], rows)
        return Family((1,), rows[:, 0])
    order = [n for n in varying if n != inner] + [inner]
    still = tuple(n for n in range(len(axes)) if n not in order)
    shaped = laid_out.transpose(*still, *order).reshape(-1, *(laid_out.shape[n] for n in order))[0]
    return Family(tuple(axes[n] for n in order), shaped)


def restore_order(node: ir.Node, cut: Cut) -> None:
    """Put a Gather behind a reshape that interleaves blocks of which each kept other positions.

    The output then holds the kept elements in their original order, which is what every reader was planned for. Nothing
    is added where all blocks keep the same positions.
    """
    value, output = node.inputs[0], node.outputs[0]
    if value is None or not any(len(axes) > 1 for axes, _ in cut.masks(value)):
        return
    for (axis, *more), kept in cut.masks(output):
        order = None if more else _order(value, output, axis, kept, cut)
        if order is None:
            continue
        uses, name = list(output.uses()), output.name
        insertion = Insertion(node, behind=True)
        attributes = [ir.AttrInt64("axis", axis)]
        indices = insertion.constant(order, np.int64)
        restored = insertion.add("Gather", [output, indices], like=output, attributes=attributes)
        output.name, restored.name = restored.name, name  # readers find labels under the old name, and the old shape
        output.shape = ir.Shape([None] * len(dims_of(output)))
        for user, index in uses:
            user.replace_input_with(index, restored)


def _order(
    value: ir.Value, output: ir.Value, axis: int, kept: npt.NDArray[np.bool_], cut: Cut
) -> npt.NDArray[np.int64] | None:
    """Where the kept positions of an output axis, in ascending order, stand after the reshape; None if in order."""
    home = next(s for s in split_segments(symbols(value), symbols(output)) if axis in s.after)
    entry = next((e for e in cut.masks(value) if e[0][-1] in home.before and _behind(e[0], home)), None)
    if entry is None:
        return None
    axes, mask = entry
    here = [n for n, a in enumerate(axes) if a in home.before]
    mask = mask.transpose(*(n for n in range(len(axes)) if n not in here), *here)
    mask = mask.reshape(-1, *mask.shape[-len(here) :])[0]  # blocks elsewhere keep the same, or there were more axes
    sizes = [[dims_of(v)[a] or 1 for a in axes] for v, axes in ((value, home.before), (output, home.after))]
    ids = np.arange(math.prod(sizes[0])).reshape(sizes[0])
    places = np.nonzero(mask)[-1].reshape(*mask.shape[:-1], -1)
    local = [home.before.index(axes[n]) for n in here]
    found = np.take_along_axis(ids, spread(places, local, ids.ndim), axis=local[-1])
    wanted = ids.reshape(sizes[1]).take(np.flatnonzero(kept), axis=home.after.index(axis))
    first = np.moveaxis(found.reshape(wanted.shape), home.after.index(axis), 0).reshape(int(kept.sum()), -1)[:, 0]
    return None if (np.diff(first) > 0).all() else np.argsort(first).astype(np.int64)


def _lay_out(
    node: ir.Node,
    labels: AxisLabels,
    family: Family,
    touched: Sequence[Segment],
    before: Sequence[int | None],
    after: Sequence[int | None],
) -> tuple[Labels | None, list[int]]:
    """The labels over all output axes of the touched segments, and these axes."""
    inside = [axis for segment in touched for axis in segment.before]
    axes = [axis for segment in touched for axis in segment.after]
    sizes = [before[axis] for axis in inside]
    if any(size is None for size in sizes):
        labels.pin(family.labels, node, "merges with a dimension that is not known")
        return None, axes
    whole = [size for size in sizes if size is not None]
    if math.prod(whole) > _LARGEST:
        labels.pin(family.labels, node, "merges with very large axes")
        return None, axes
    order = sorted(range(len(family.axes)), key=lambda n: inside.index(family.axes[n]))  # type: ignore[arg-type]
    shape = [size if axis in family.axes else 1 for axis, size in zip(inside, whole, strict=True)]
    spread = family.labels.transpose(order).reshape(shape)
    return np.broadcast_to(spread, whole).reshape([after[axis] or 1 for axis in axes]), axes


def renumber(families: Sequence[Family], new: dict[int, int]) -> list[Family]:
    """Families after axes moved: `new` maps old axis numbers to new ones."""
    return [family.renamed(new) for family in families]
