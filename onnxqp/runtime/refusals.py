"""What onnxruntime says when it does not open or run a model, as errors of our own."""

from __future__ import annotations

import re

from onnxqp.errors import DataError, ModelError, OnnxqpError, ResourceError, UnsupportedError
from onnxqp.runtime.installed import ceilings, ceilings_hint


def _first_line(message: str) -> str:
    """What onnxruntime says, without its prefixes, source lines, C++ signatures and absolute paths."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message.strip())
    text = re.sub(r"^Load model from .+? failed:\s*", "", text)
    text = re.sub(r"/\S*/onnxruntime/\S+:\d+ ", "", text)
    before, status, after = text.partition("Status Message: ")
    text = _without_signature(before) + status + _without_signature(after)
    return text.splitlines()[0][:300] if text else "onnxruntime gave no reason"


def _without_signature(text: str) -> str:
    """Without the C++ function that stands before the message it throws: `void a::f(const b<c>&) message`."""
    start = re.match(r"[^().]*::[~\w]+\(", text)
    if start is None:
        return text
    depth, end = 1, start.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return text[end:].removeprefix(" const").lstrip() if depth == 0 else text


def refused(message: str, where: str | None) -> OnnxqpError:
    """What onnxruntime says when it does not open a model, as one of our errors."""
    line = _first_line(message)
    limit = ceilings_hint()
    told = ("Unsupported model IR version", "under development", "ValidateOpset")
    newer = re.search(r"Could not find an implementation for \w+\((\d+)\)", message)
    if any(text in message for text in told) or (newer and int(newer[1]) > ceilings().opset):
        return UnsupportedError(f"the installed onnxruntime does not read this model: {line}", where=where, hint=limit)
    if any(text in message for text in ("not a registered", "NOT_IMPLEMENTED", "Could not find", "No Op registered")):
        return UnsupportedError(
            f"onnxruntime's CPU provider cannot run this model: {line}",
            where=where,
            hint="custom operators and data types without a CPU kernel must be replaced before export",
        )
    if "two nodes with same node name" in message:  # 1.23 to 1.30 make such pairs themselves, of Conv and Clip
        return UnsupportedError(
            f"onnxruntime finds or makes two nodes of one name: {line}",
            where=where,
            hint="give every node a name of its own, or install a newer onnxruntime",
        )
    if "bad_alloc" in message or "Failed to allocate" in message:
        return ResourceError(f"not enough memory to open the model: {line}", where=where, hint="use a smaller model")
    return ModelError(
        f"onnxruntime refuses the model: {line}",
        where=where,
        hint="check that the exporting tool runs its own file; `onnxqp inspect` names the parts",
    )


def doubtful(message: str, where: str) -> ModelError:
    """What is wrong with a model that opens, does not run on made-up inputs, and cannot be worked on either."""
    return ModelError(
        f"the model opens, but does not run: {_first_line(message)}",
        where=where,
        hint="check that the exporting tool runs its own file",
    )


def run_error(message: str) -> OnnxqpError:
    line = _first_line(message)
    if any(text in message for text in ("bad_alloc", "Failed to allocate", "would require more than")):
        return ResourceError(f"not enough memory to run the model: {line}", hint="lower --batch-size or fix --shape")
    if "INVALID_ARGUMENT" in message and "while running" not in message:
        return DataError(
            f"the inputs do not fit the model: {line}", hint="`onnxqp inspect` prints the names, types and shapes"
        )
    return DataError(
        f"the model cannot be run on these inputs: {line}", hint="pass real inputs with --data, or sizes with --shape"
    )
