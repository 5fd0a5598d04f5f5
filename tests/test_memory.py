from __future__ import annotations

import time

import numpy as np
import pytest

from onnxqp.memory import PeakMemory, anonymous_bytes


@pytest.mark.skipif(anonymous_bytes() is None, reason="the kernel does not tell anonymous memory")
def test_the_peak_sees_what_was_freed_again() -> None:
    with PeakMemory() as memory:
        block = np.ones(40_000_000, np.uint8)
        time.sleep(1.5)
        del block
    now = anonymous_bytes()
    assert memory.peak is not None
    assert now is not None
    assert memory.peak - now > 30_000_000
