"""Everything that can go wrong, and the exit code it means.

OnnxqpError                a user can do something about it: two lines, no traceback
├── VerificationError  1   the result does not do what it must: nothing was written
├── UsageError         2   options or configuration
├── ModelError         3   a model that cannot be read or is invalid
├── DataError          4   calibration or evaluation data that cannot be read or is invalid
├── UnsupportedError   5   valid, but this cannot be done with it
├── OutputError        6   the output cannot be written
└── ResourceError      7   a limit on memory, time or size
InternalError         70   a bug in onnxqp; deliberately not an OnnxqpError
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_GATE_MISSED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class OnnxqpError(Exception):
    """A fault that the user can mend.

    `message` says what is wrong, with found and expected values; `where` names the file, node or value;
    `hint` says what to do next.
    """

    code: ClassVar[int]
    kind: ClassVar[str]

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def to_dict(self) -> dict[str, object]:
        """The `error` object that `--json` prints."""
        fields = {
            "code": self.code,
            "kind": self.kind,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }
        return {key: value for key, value in fields.items() if value is not None}


class VerificationError(OnnxqpError):
    """The rewritten model does not load, does not run, or disagrees with its proof."""

    code = 1
    kind = "verification"


class UsageError(OnnxqpError):
    """An option, an argument or a configuration file that makes no sense."""

    code = 2
    kind = "usage"


class ModelError(OnnxqpError):
    """A model file that cannot be read, or that is not a valid model."""

    code = 3
    kind = "model"


class DataError(OnnxqpError):
    """Inputs that cannot be read, or that do not fit the model."""

    code = 4
    kind = "data"


class UnsupportedError(OnnxqpError):
    """A valid request that cannot be met: nothing to change, already quantized, beyond the runtime."""

    code = 5
    kind = "unsupported"


class OutputError(OnnxqpError):
    """The output exists, is the input, or cannot be written."""

    code = 6
    kind = "output"


class ResourceError(OnnxqpError):
    """A limit was reached: memory, time, file size."""

    code = 7
    kind = "resource"


class InternalError(Exception):
    """A bug in onnxqp: an assumption of our own that does not hold."""
