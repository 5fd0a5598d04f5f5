"""Faults of the machine, the folder, the terminal and the people: what surrounds a run."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from fault_graphs import network
from place import INSPECT, OLD, PRODUCTS, PRUNE, QUANTIZE, WRITING, Place

from onnxqp import probe


def program(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "timeout": 120, "check": False, "encoding": "utf-8"} | options
    return subprocess.run([sys.executable, "-m", "onnxqp", *arguments], **settings)  # type: ignore[call-overload]


# ---- the output ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("where", ["write", "sync", "rename"])
def test_disk_full_or_read_only(place: Place, monkeypatch: pytest.MonkeyPatch, number: int, where: str) -> None:
    """Wherever it happens while the result is written."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    place.put(network())
    monkeypatch.setattr(
        *{"write": (Path, "write_bytes"), "sync": (os, "fsync"), "rename": (Path, "replace")}[where], fail
    )
    for command in WRITING:
        place.refused(6, *command)


def test_a_limit_on_the_size_of_files(place: Place) -> None:
    """Not a simulated one: the system refuses the last block."""
    place.put(network())
    before = place.files()
    limits = "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    script = limits + "sys.argv[0] = 'onnxqp'; runpy.run_module('onnxqp', run_name='__main__')"
    ran = subprocess.run(
        [sys.executable, "-c", script, *PRUNE], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 6, ran.stderr
    assert "Traceback" not in ran.stderr
    assert place.files() == before


@pytest.mark.parametrize(
    "output", ["no/such/folder.onnx", ".", "m.onnx/inside.onnx", "/proc/self/result.onnx", "n" * 300]
)
def test_an_output_that_cannot_be(place: Place, output: str) -> None:
    place.put(network())
    for command in WRITING:
        place.refused(6, *command, "-o", output)


@pytest.mark.parametrize("report", ["no/such/report.md", "n" * 300 + ".md", "/proc/self/report.json"])
def test_a_report_that_cannot_be(place: Place, report: str) -> None:
    place.put(network())
    place.refused(6, *INSPECT, "--report", report)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(place: Place) -> None:
    place.put(network())
    place.folder.chmod(0o500)
    try:
        for command in WRITING:
            place.refused(6, *command)
    finally:
        place.folder.chmod(0o700)


@pytest.mark.parametrize("name", ["m.onnx", "./m.onnx", "link.onnx", "hard.onnx", "sub/../m.onnx"])
def test_output_is_the_input(place: Place, name: str) -> None:
    place.put(network())
    (place.folder / "sub").mkdir()
    (place.folder / "link.onnx").symlink_to("m.onnx")
    os.link(place.folder / "m.onnx", place.folder / "hard.onnx")
    for command in WRITING:
        place.refused(2, *command, "-o", name)


def test_an_existing_output_needs_force(place: Place) -> None:
    place.put(network())
    for command in WRITING:
        place.refused(6, *(word for word in command if word != "--force"), says="--force")


def test_what_a_killed_run_left_is_swept_away(place: Place) -> None:
    place.put(network())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale, alive = place.folder / f".onnxqp-{dead.pid}-abc", place.folder / f".onnxqp-{os.getpid()}-abc"
    stale.mkdir()
    alive.mkdir()
    (stale / "m.int8.onnx").write_bytes(b"half")
    (place.folder / ".onnxqp-notes").mkdir()
    assert place.run(*QUANTIZE).code == 0
    assert not stale.exists()
    assert alive.exists()
    assert (place.folder / ".onnxqp-notes").exists()


def test_two_runs_at_once_on_one_output(place: Place) -> None:
    place.put(network())
    runs = [
        subprocess.Popen([sys.executable, "-m", "onnxqp", *PRUNE, "--seed", str(seed)], stderr=subprocess.DEVNULL)
        for seed in range(2)
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    onnx.checker.check_model(place.folder / "m.pruned.onnx")
    assert not list(place.folder.glob(".onnxqp-*"))


def test_an_output_that_appears_meanwhile_is_not_overwritten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --force, also where another run was faster by a moment."""
    from onnxqp import outputs

    place.put(network())
    (place.folder / "m.pruned.onnx").unlink()

    def meanwhile(path: Path) -> None:
        (place.folder / "m.pruned.onnx").write_bytes(OLD)

    monkeypatch.setattr(outputs, "sync", meanwhile)
    ran = place.run("prune", "m.onnx", "--ratio", "0.5", "--no-validate")
    assert ran.code == 6
    assert (place.folder / "m.pruned.onnx").read_bytes() == OLD


# ---- memory, crashes, hangs --------------------------------------------------------------------------------------


def test_out_of_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(network())

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("onnxqp.job.gather", fail)
    for command in WRITING:
        place.refused(7, *command, says="--batch-size")


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Replace what the child process does when it looks at a model."""
    probe.stop()

    def replace(body: str) -> None:
        script = tmp_path_factory.mktemp("child") / "child.py"
        source = (Path(probe.__file__).parent / "child.py").read_text(encoding="utf-8")
        marked = source.replace(
            "    import onnxruntime\n\n    settings", f"    {body}\n    import onnxruntime\n\n    settings"
        )
        assert marked != source
        script.write_text(marked, encoding="utf-8")
        monkeypatch.setattr(probe, "_CHILD", script)

    yield replace
    probe.stop()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL"])
def test_a_native_crash_is_exit_3_with_a_sentence(place: Place, child: Callable[[str], None], name: str) -> None:
    place.put(network())
    child(f"os.kill(os.getpid(), signal.{name})")
    for command in (INSPECT, QUANTIZE):
        place.refused(3, *command, says=f"crashes on this model ({name})")


def test_a_child_that_the_system_kills_for_memory(place: Place, child: Callable[[str], None]) -> None:
    place.put(network())
    child("os.kill(os.getpid(), signal.SIGKILL)")
    place.refused(7, *QUANTIZE, says="memory")


def test_a_child_that_runs_out_of_memory(place: Place, child: Callable[[str], None]) -> None:
    place.put(network())
    child("bytearray(1 << 50)")
    place.refused(7, *QUANTIZE, says="memory")


def test_a_hang_ends(place: Place, child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(network())
    child("while True: pass")
    monkeypatch.setattr(probe, "BASE_SECONDS", 1.0)
    place.refused(7, *INSPECT, says="seconds")


def test_after_a_crash_the_next_model_is_looked_at(place: Place, child: Callable[[str], None]) -> None:
    place.put(network(), "other.onnx")
    place.put(network())
    child("if path.endswith('/m.onnx'): os.kill(os.getpid(), signal.SIGSEGV)")
    place.refused(3, *INSPECT)
    place.done("inspect", "other.onnx")


def test_an_idle_child_that_left_is_replaced(place: Place, child: Callable[[str], None]) -> None:
    place.put(network())
    child("pass")
    place.done(*INSPECT)
    probe.process().terminate()
    probe.process().wait()
    place.done(*INSPECT)


def test_the_child_leaves_with_its_parent(place: Place) -> None:
    place.put(network())
    script = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom onnxqp import probe\n"
        "probe.examine(Path('m.onnx'), 1000)\nprint(probe.process().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    for _ in range(100):
        state = Path(f"/proc/{ran.stdout.strip()}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        signal.sigtimedwait([], 0.1)
    pytest.fail("the child outlived its parent")


def test_the_child_imports_nothing_from_the_current_folder(place: Place) -> None:
    """A folder that was cloned must not run its own onnx.py."""
    place.put(network())
    for name in ("onnx", "onnxruntime", "json", "selectors", "signal"):
        (place.folder / f"{name}.py").write_text("open('trapped', 'w').close()")
    entry = Path(sys.executable).parent / "onnxqp"
    ran = subprocess.run([entry, *INSPECT], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not (place.folder / "trapped").exists()


# ---- paths, locales, terminals, networks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "模型 é", "-dash", "a'b\"c$(d)", "…" * 60], ids=ascii)
def test_unicode_spaces_and_quotes_in_paths(place: Place, name: str) -> None:
    folder = place.folder / name
    folder.mkdir()
    place.put(network(), f"{name}/{name}.onnx")
    for command in ("quantize", "prune"):
        ratio = ["--ratio", "0.5"] if command == "prune" else []
        ran = place.run(command, f"./{name}/{name}.onnx", "--no-validate", "--samples", "8", *ratio)
        assert ran.code == 0, ran.err
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.int8.onnx",
        f"{name}.onnx",
        f"{name}.pruned.onnx",
    ]


def test_locale_c_without_home(place: Place) -> None:
    place.put(network(), "m\u00e9.onnx")
    bare = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    bare |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = program("prune", "m\u00e9.onnx", "--ratio", "0.5", "--no-validate", env=bare)
    assert ran.returncode == 0, ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    assert (place.folder / "m\u00e9.pruned.onnx").exists()


@pytest.mark.parametrize("columns", ["0", "1", "20", "nonsense"])
def test_any_width(place: Place, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    place.put(network())
    place.done(*INSPECT)


def test_current_folder_deleted(place: Place) -> None:
    path = place.put(network())
    gone = place.folder / "gone"
    leave = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
    script = leave + "import sys, onnxqp.cli; sys.exit(onnxqp.cli.main())"
    for arguments, codes in ((["inspect", str(path)], (0,)), (["inspect", "m.onnx"], (3,)), (["inspect"], (2,))):
        gone.mkdir()
        ran = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode in codes, ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_dash_is_no_path(place: Place) -> None:
    place.refused(3, "inspect", "-", says="no such file")


def test_no_network(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("onnxqp opens no sockets")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    place.put(network())
    for command in (INSPECT, *WRITING):
        place.done(*command)


def test_nothing_of_the_machine_is_written_into_a_result(place: Place) -> None:
    """No absolute path, no user, no host: the file is the same wherever it is made."""
    place.put(network())
    for command in WRITING:
        assert place.run(command[0], str(place.folder / "m.onnx"), *command[2:]).code == 0
        content = (place.folder / PRODUCTS[command[0]]).read_bytes()
        for secret in (str(place.folder), socket.gethostname(), str(Path.home())):
            assert secret.encode() not in content
