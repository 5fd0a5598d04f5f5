"""Killed at any moment: the result is absent, old, or complete and valid; what was under way is swept up later.

`ONNXQP_KILLS` sets how often a run is killed at a random moment (50 for the whole truth).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from fault_graphs import SHAPE, network
from place import OLD, PRODUCTS, PRUNE, QUANTIZE, Place

KILLS = int(os.environ.get("ONNXQP_KILLS", "4"))
# The program, which kills itself at the n-th call of one function.
SUICIDE = """
import os, signal, sys
from pathlib import Path
owner, name, count = {owner}, {name!r}, {count}
real = getattr(owner, name)
def act(*arguments, **options):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.{signal})
    return real(*arguments, **options)
setattr(owner, name, act)
from onnxqp.cli import main
sys.exit(main({arguments!r}))
"""


def works(path: Path) -> bool:
    """Whether the file is a whole model that answers."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.isfinite(np.asarray(session.run(None, {"x": np.ones((1, *SHAPE), np.float32)})[0])).all().item()


def sound(place: Place, product: str) -> bool:
    """The output is the old one, or a new one that works; never missing, since there was an old one."""
    path = place.folder / product
    return path.read_bytes() == OLD or works(path)


def swept(place: Place) -> None:
    """The next run leaves nothing but its result."""
    place.done(*PRUNE)
    assert not list(place.folder.glob(".onnxqp-*"))


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [("Path", "write_bytes", 1), ("os", "fsync", 1), ("Path", "replace", 1), ("os", "fsync", 2)],
)
def test_killed_at_every_step_of_writing(place: Place, owner: str, name: str, count: int) -> None:
    place.put(network())
    script = SUICIDE.format(owner=owner, name=name, count=count, signal="SIGKILL", arguments=list(PRUNE))
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    assert sound(place, "m.pruned.onnx")
    swept(place)


@pytest.mark.parametrize(("number", "code", "name"), [("SIGTERM", 143, "write_bytes"), ("SIGINT", 130, "replace")])
def test_stopped_while_writing(place: Place, number: str, code: int, name: str) -> None:
    place.put(network())
    before = place.files()
    script = SUICIDE.format(owner="Path", name=name, count=1, signal=number, arguments=list(QUANTIZE))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == code
    assert [line.split(":")[0] for line in ran.stderr.splitlines()][-2:] == ["error", "hint"]
    assert place.files() == before


def test_killed_at_random_moments(place: Place) -> None:
    place.put(network())
    command = [sys.executable, "-m", "onnxqp", *QUANTIZE]
    start = time.monotonic()
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    whole = time.monotonic() - start
    draw, ended = random.Random(0), 0
    for turn in range(KILLS):
        (place.folder / PRODUCTS["quantize"]).write_bytes(OLD)
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep((turn + draw.random()) / KILLS * whole)
        run.kill()
        ended += run.wait(60) == -signal.SIGKILL
        assert sound(place, PRODUCTS["quantize"])
    assert ended, "no run was killed in time"
    swept(place)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_of_work(place: Place, root: Path, number: int, code: int) -> None:
    """While it calibrates and measures on a real model: it leaves at once, and the folder is as it was."""
    place.put((root / "sample_models" / "residual_cnn.onnx").read_bytes())
    before = place.files()
    data = str(root / "sample_models" / "data" / "calib.npz")
    words = ["quantize", "m.onnx", "--data", data, "--force", "--debug"]
    run = subprocess.Popen([sys.executable, "-m", "onnxqp", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(3.0)
    assert run.poll() is None
    run.send_signal(number)
    start = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err.decode()
    assert time.monotonic() - start < 5, "a second, on a machine that does nothing else"
    assert place.files() == before


# The program, deep in one call that does not come back to Python's own instructions, while it writes.
DEAF = """
import sys
from pathlib import Path
import numpy as np
matrix = np.random.default_rng(0).random((3000, 3000))
def act(self, content):
    open(self, "wb").write(content[:9])
    print("writing", flush=True)
    np.linalg.svd(matrix)
    raise AssertionError("it ended by itself")
Path.write_bytes = act
sys.argv[1:] = {arguments!r}
from onnxqp.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_call_that_does_not_end_is_left_within_a_second(place: Place, number: int, code: int) -> None:
    """One long call into a library: Python would only look at the signal when it is over."""
    place.put(network())
    before = place.files()
    script = DEAF.format(arguments=list(PRUNE))
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "writing\n"
    time.sleep(0.2)
    start = time.monotonic()
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    taken = time.monotonic() - start
    assert run.returncode == code, err
    assert [line.split(":")[0] for line in err.splitlines()][-2:] == ["error", "hint"]
    assert taken < 2, "a second, on a machine that does nothing else"
    assert place.files() == before
