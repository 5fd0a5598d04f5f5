"""What went besides channels, in words: whole layers, places in space, and single weights."""

from __future__ import annotations

from collections.abc import Iterator

from onnxqp.report import text
from onnxqp.report.blocks import Line
from onnxqp.report.records import Pruning

_NAMED = 8  # layers that are named


def dropped_layers(found: Pruning) -> Iterator[Line]:
    """Which layers were dropped."""
    layers = found.dropped or []
    if layers:
        names = ", ".join(layer.id for layer in layers[:_NAMED])
        rest = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        yield Line(f"{text.plural(len(layers), 'layer')} dropped: {names}{rest}")
        yield Line(f"they cost {max(layer.cost for layer in layers):.3g} of the outputs' squared signal", "quiet")


def perforated(found: Pruning) -> Iterator[Line]:
    """Which averages are taken over fewer places."""
    for each in found.perforated or []:
        steps = " x ".join(str(step) for step in each.steps)
        means, members = ", ".join(each.means), ", ".join(each.members)
        yield Line(f"averaged over one of {steps} places: {means}; strides grew in {members}")
        yield Line(f"that costs {each.cost:.3g} of the outputs' squared signal", "quiet")


def narrowed(found: Pruning) -> Iterator[Line]:
    """Which images are cut at their ends."""
    for each in found.narrowed or []:
        kept, size = (" x ".join(map(str, sizes)) for sizes in (each.kept, each.size))
        yield Line(f"looks at the first {kept} of {size} places of {each.input}, averaged by {', '.join(each.means)}")
        yield Line(f"that costs {each.cost:.3g} of the outputs' squared signal", "quiet")


def sparsity(found: Pruning) -> Iterator[Line]:
    """How many weights are zero."""
    facts = found.sparsity
    if facts is None:
        return
    share, many = text.percent(100 * facts.ratio), text.plural(facts.weights, "weight array")
    yield Line(f"{facts.pattern}: {share} of {text.quantity(facts.elements)} elements in {many} are zero")
    if facts.packed:
        yield Line(f"{text.plural(facts.packed, 'array')} stored without their zeros", "quiet")
    if facts.left:
        yield Line(f"{text.plural(len(facts.left), 'layer')} left dense: {facts.left[0].reason}", "quiet")
