"""What an error in a layer's outputs is worth at the outputs of the model."""

from __future__ import annotations

import numpy as np
import pytest

from onnxqp.recover.loudness import Passage, loudness


def passage(matrix: np.ndarray, entering: list[int], leaving: list[int] | None, variance: list[float]) -> Passage:
    made = None if leaving is None else np.array([leaving])
    return Passage(matrix[None], np.array([entering]), made, np.ones((1, len(entering))), np.array([variance]))


def test_linear_layers_pass_errors_on_as_they_do() -> None:
    random = np.random.default_rng(0)
    first, second, third = random.normal(size=(4, 5)), random.normal(size=(5, 6)), random.normal(size=(6, 3))
    chain = [
        passage(first, [0, 1, 2, 3], [4, 5, 6, 7, 8], [1.0] * 5),
        passage(second, [4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14], [1.0] * 6),
        passage(third, [9, 10, 11, 12, 13, 14], None, [2.0, 1.0, 1.0]),
    ]
    weights = loudness(chain, 15)
    assert weights[2] == pytest.approx(np.full((1, 3), 1 / 4))
    assert weights[1][0] == pytest.approx(np.square(third).sum(axis=1) / 4)
    expected = np.square(second) @ np.square(third).sum(axis=1) / 4  # errors are taken for independent
    assert weights[0][0] == pytest.approx(expected)


def test_a_channel_that_nobody_hears_counts_next_to_nothing() -> None:
    matrix = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    chain = [passage(np.ones((2, 3)), [0, 1], [2, 3, 4], [1.0] * 3), passage(matrix, [2, 3, 4], None, [1.0, 1.0])]
    loud, also, silent = loudness(chain, 5)[0][0]
    assert loud == also == pytest.approx(1.0)
    assert 0 < silent < 1e-5


def test_outputs_that_are_not_all_read_later_count_alike() -> None:
    chain = [passage(np.ones((2, 2)), [0, 1], [2, 3], [3.0, 1.0]), passage(np.ones((1, 1)), [2], None, [1.0])]
    assert loudness(chain, 4)[0] == pytest.approx(np.full((1, 2), 1 / 4))


def test_a_stream_is_heard_by_all_that_read_it_later() -> None:
    """The second layer adds to the channel that the third reads too, not to what the first has read before."""
    layers = [
        passage(np.full((1, 1), 100.0), [0], [1], [1.0]),
        passage(np.ones((1, 1)), [1], [0], [1.0]),
        passage(np.full((1, 1), 2.0), [0], None, [1.0]),
    ]
    assert loudness(layers, 2)[1][0, 0] == pytest.approx(4.0)
