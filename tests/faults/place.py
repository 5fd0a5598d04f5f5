"""A folder with a model in it and older results beside it, and the command line run there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxqp.cli import main

OLD = b"an older result, which no failure may touch"
QUANTIZE = ("quantize", "m.onnx", "--no-validate", "--samples", "8", "--force")
PRUNE = ("prune", "m.onnx", "--ratio", "0.5", "--no-validate", "--samples", "8", "--force")
INSPECT = ("inspect", "m.onnx", "--groups")
WRITING = (QUANTIZE, PRUNE)
PRODUCTS = {"quantize": "m.int8.onnx", "prune": "m.pruned.onnx"}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


class Place:
    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture
        for name in PRODUCTS.values():
            (folder / name).write_bytes(OLD)

    def put(self, model: onnx.ModelProto | bytes, name: str = "m.onnx") -> Path:
        path = self.folder / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    def run(self, *arguments: str) -> Ran:
        self._capture.readouterr()
        code = main(arguments)
        out, err = self._capture.readouterr()
        return Ran(code, out, err)

    def refused(self, code: int, *arguments: str, says: str = "") -> str:
        """Run what must fail: with this code, in two lines, leaving every file as it was. Returns what it said."""
        before = self.files()
        ran = self.run(*arguments)
        assert ran.code == code, f"exit {ran.code}: {ran.out}{ran.err}"
        assert "Traceback" not in ran.err
        errors = [line for line in ran.err.splitlines() if not line.startswith("warning: ")]
        assert [line.split(":")[0] for line in errors] == ["error", "hint"], ran.err
        assert says.lower() in ran.err.lower(), ran.err
        assert ran.out == ""
        assert self.files() == before
        self._same_in_json(code, arguments)
        return ran.err

    def _same_in_json(self, code: int, arguments: tuple[str, ...]) -> None:
        before = self.files()
        ran = self.run(*arguments, "--json")
        error = json.loads(ran.out)["error"]
        assert (ran.code, error["code"]) == (code, code)
        assert {"code", "kind", "message", "hint"} <= error.keys() <= {"code", "kind", "message", "where", "hint"}
        assert self.files() == before

    def done(self, *arguments: str) -> str:
        """Run what must succeed, and leave nothing behind but its result. Returns what it said on stderr."""
        before = self.files().keys()
        ran = self.run(*arguments)
        assert ran.code == 0, ran.err
        assert self.files().keys() <= before | set(PRODUCTS.values())
        return ran.err

    def files(self) -> dict[str, str]:
        """Every file and link below the folder, with the hash of what it holds."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_symlink():
                found[name] = f"link to {path.readlink()}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[name] = "folder" if path.is_dir() else "special"
        return found

    def same_answers(self, product: str, *, tolerance: float, **feed: np.ndarray) -> None:
        """The product answers as the model does, within `tolerance` of the range of each output."""
        old, new = (
            ort.InferenceSession(self.folder / name, providers=["CPUExecutionProvider"]).run(None, feed)
            for name in ("m.onnx", product)
        )
        for ours, theirs in zip(old, new, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=tolerance * float(np.ptp(ours)), rtol=0)
