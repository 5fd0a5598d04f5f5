"""What comes of a model: refused by all, looked at but never written, or worked on as if nothing were the matter."""

from __future__ import annotations

import numpy as np
import onnx
from fault_graphs import SHAPE
from place import INSPECT, PRODUCTS, PRUNE, QUANTIZE, WRITING, Place

IMAGES = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
ROWS = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
QUANTIZED, CUT = 0.25, 3.0  # how far answers may lie from the model's: of a quantized one, of a halved one


def refused(place: Place, proto: onnx.ModelProto, code: int, says: str = "") -> None:
    """Whoever reads the model refuses it, and says the same."""
    place.put(proto)
    for command in (INSPECT, *WRITING):
        place.refused(code, *command, says=says)


def writes(place: Place, proto: onnx.ModelProto, code: int, says: str = "") -> None:
    """It can be looked at, but neither quantized nor pruned."""
    place.put(proto)
    place.done(*INSPECT)
    for command in WRITING:
        place.refused(code, *command, says=says)


def works(place: Place, proto: onnx.ModelProto, says: str = "", feed: np.ndarray = IMAGES) -> None:
    """Quantized and pruned as if nothing were the matter."""
    place.put(proto)
    place.done(*INSPECT)
    for command, tolerance in ((QUANTIZE, QUANTIZED), (PRUNE, CUT)):
        assert says in place.done(*command)
        place.same_answers(PRODUCTS[command[0]], tolerance=tolerance, x=feed)
