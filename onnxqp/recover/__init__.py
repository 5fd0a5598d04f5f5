"""Recovery without training: layers are refitted to the original from second moments of unlabelled samples."""

from __future__ import annotations

from onnxqp.recover.reconstruct import Recovered, recover_model, recovery_kind

__all__ = ["Recovered", "recover_model", "recovery_kind"]
