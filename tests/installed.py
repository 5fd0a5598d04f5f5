"""The version of the installed onnxruntime, for tests of what older ones lack or do wrongly."""

from __future__ import annotations

import onnxruntime

RUNTIME = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
