from __future__ import annotations

import mmap
import time

import pytest

from onnxqp.memory import PeakMemory, anonymous_bytes


@pytest.mark.skipif(anonymous_bytes() is None, reason="the kernel does not tell anonymous memory")
def test_the_peak_sees_what_was_freed_again() -> None:
    with PeakMemory() as memory:
        block = mmap.mmap(
            -1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )  # numpy might be given pages that an earlier test left behind
        block.write(bytes([1]) * len(block))
        time.sleep(1.5)
        block.close()
    now = anonymous_bytes()
    assert memory.peak is not None
    assert now is not None
    assert memory.peak - now > 30_000_000
