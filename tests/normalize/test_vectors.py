"""Equal vectors that an exporter keeps once do not tie layers."""

import numpy as np
from prune_checks import Build, prunes

from onnxqp.graph import constant
from onnxqp.normalize.vectors import own_vectors
from onnxqp.runtime import Session


def two_layers():
    b = Build()
    bias = b.const(np.zeros(8), np.float32)
    x = b.input(1, 4, 6, 6)
    first = b.op("Relu", b.op("Conv", x, b.weight(8, 4, 1, 1), bias))
    second = b.op("Relu", b.op("Conv", first, b.weight(8, 8, 1, 1), bias))
    return b, b.conv(second, 8, 2)


def test_layers_that_share_a_bias_are_two_groups():
    b, y = two_layers()
    prunes(b, y, groups=[8, 8])


def test_every_reader_gets_the_same_numbers():
    b, y = two_layers()
    model = b.model(y)
    biases = [node.inputs[2] for node in model.graph if node.op_type == "Conv"][:2]
    assert biases[0] is not biases[1]
    np.testing.assert_array_equal(constant(biases[0]), constant(biases[1]))
    assert not own_vectors(model)
    Session(model).run(b.feed)


def test_matrices_and_integers_stay_shared():
    b = Build()
    weight, index = b.weight(8, 8), b.const([3])
    x = b.op("MatMul", b.op("Relu", b.op("MatMul", b.input(3, 8), weight)), weight)
    model = b.model(b.op("Gather", b.op("Gather", x, index, axis=1), b.const([0]), axis=1))
    products = [node.inputs[1] for node in model.graph if node.op_type == "MatMul"]
    assert products[0] is products[1]
