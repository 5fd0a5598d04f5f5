"""Does the baseline know anything at all? If not, the data are prepared or labelled wrongly, and any drop is noise."""

from __future__ import annotations

import math

import numpy as np

from onnxqp.evaluate.scores import Indices

ERRORS = 2.0  # standard errors above chance that still count as chance
TELLING = 20  # samples below which no pattern is looked for


def suspicions(labels: Indices, guesses: Indices, hits: int, classes: int, k: int) -> list[str]:
    """Warnings about a baseline whose top-k accuracy is within two standard errors of guessing, else nothing.

    `labels` and `guesses` (the top-1 classes) have shape (samples,), `hits` counts the top-k hits. Looks for the usual
    causes: labels shifted by one constant (a background class), labels in another order, one class for everything.
    """
    samples, chance = labels.size, k / classes
    if samples == 0 or chance >= 1 or hits / samples > _luck(chance, samples):
        return []
    cause = _cause(labels, guesses, 1 / classes) if samples >= TELLING else None
    return [
        f"the baseline's accuracy of {100 * hits / samples:.1f} % on {samples} samples is near chance "
        f"({100 * chance:.1f} % for {classes} classes): {cause or 'check preprocessing and the order of the labels'}"
    ]


def _luck(chance: float, samples: int) -> float:
    """The share of hits that guessing reaches with luck."""
    return chance + ERRORS * math.sqrt(chance * (1 - chance) / samples)


def _cause(labels: Indices, guesses: Indices, chance: float) -> str | None:
    samples = labels.size
    remarkable = max(2 * chance, chance + 5 * math.sqrt(chance * (1 - chance) / samples))
    favourite, often = _mode(guesses)
    if often > max(0.5 * samples, 2 * _mode(labels)[1]):
        return (
            f"it predicts class {favourite} for {100 * often / samples:.0f} % of them, "
            "so the inputs are probably preprocessed wrongly (scale, mean, layout or colour order)"
        )
    offset, fitting = _mode(guesses - labels)
    shifted, permuted = fitting / samples, _permuted(labels, guesses)
    if offset and shifted > max(remarkable, 0.9 * permuted):  # a shift is a permutation too, and the simpler reason
        return (
            f"with {abs(offset)} {'added to' if offset > 0 else 'taken from'} every label it would be "
            f"{100 * shifted:.1f} %, so the labels are probably shifted (a background class?)"
        )
    if permuted > remarkable:
        return (
            f"in another order of the classes it would be about {100 * permuted:.0f} %, "
            "so the labels are probably in the wrong order (classes.txt gives the model's own)"
        )
    return None


def _permuted(labels: Indices, guesses: Indices) -> float:
    """Accuracy on every second sample, if each predicted class means the label it most often met in the others.

    0 when too few of the predictions have been met to tell.
    """
    known = {int(guess): _mode(labels[::2][guesses[::2] == guess])[0] for guess in np.unique(guesses[::2])}
    pairs = zip(guesses[1::2].tolist(), labels[1::2].tolist(), strict=True)
    tested = [known[guess] == label for guess, label in pairs if guess in known]
    return sum(tested) / len(tested) if len(tested) >= TELLING // 2 else 0.0


def _mode(values: Indices) -> tuple[int, int]:
    """The most frequent value and how often it occurs."""
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    return int(found[most]), int(counts[most])
