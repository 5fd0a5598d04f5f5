"""A disk that is really full: a small one of memory, in a name space of its own, with real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_graphs import network
from place import OLD

SPACE = ["unshare", "--user", "--map-root-user", "--mount"]
# In the folder given: a disk of so many bytes, filled but for some; commands in it; then what it holds, as JSON.
SCRIPT = """
import json, pathlib, subprocess, sys
folder, model, room, *commands = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=262144", "tmpfs", folder], check=True)
place = pathlib.Path(folder)
old = json.loads(commands.pop())
for name in ("m.onnx", *old):
    (place / name).write_bytes(pathlib.Path(model).read_bytes() if name == "m.onnx" else b"OLD")
with open(place / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        filler.truncate(filler.tell() - int(room))
before = sorted(path.name for path in place.iterdir())
runs = []
for command in commands:
    ran = subprocess.run([sys.executable, "-m", "onnxqp", *command.split()], cwd=folder, capture_output=True, text=True)
    runs.append([ran.returncode, ran.stderr])
left = {path.name: path.read_bytes().decode("latin-1") for path in place.iterdir() if path.name in old}
print(json.dumps([runs, before == sorted(path.name for path in place.iterdir()), left]))
"""


def _spaces() -> bool:
    """Whether this system lets us mount a disk of our own."""
    if shutil.which("unshare") is None:
        return False
    tried = [*SPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _spaces(), reason="no name spaces of our own here: no disk was filled")
@pytest.mark.parametrize("room", [0, 8192])
def test_nothing_is_lost_on_a_full_disk(tmp_path: Path, room: int) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(network().SerializeToString())
    disk = tmp_path / "disk"
    disk.mkdir()
    few = "--no-validate --samples 8 --target x64-avx2"
    commands = [
        f"prune m.onnx --ratio 0.1 --recover none --force {few}",
        f"quantize m.onnx --save-calibration s.npz --force {few}",
        "calibrate m.onnx -o s.npz --force --samples 8",
        "inspect m.onnx --groups --report r.html",
    ]
    old = ["m.pruned.onnx", "m.int8.onnx", "s.npz", "r.html"]
    script = [sys.executable, "-c", SCRIPT.replace('b"OLD"', repr(OLD)), disk, model, str(room)]
    ran = subprocess.run([*SPACE, *script, *commands, json.dumps(old)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    runs, same, left = json.loads(ran.stdout)
    assert [code for code, _ in runs] == [6] * 4, runs
    for _, said in runs:
        assert "No space left on device" in said
        assert "Traceback" not in said
    assert same, "no draft stays behind"
    assert left == dict.fromkeys(old, OLD.decode())
