"""The plan of the house, held against the imports of the code."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import onnxqp

PACKAGE = Path(onnxqp.__file__).parent

# A room may import rooms of its own level and of those below.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("compression",),
    ("job",),
    (
        "calibration",
        "compress",
        "elementary",
        "frontier",
        "gather",
        "inventory",
        "judge",
        "profile",
        "sensitivity",
        "steps",
    ),
    ("config", "data", "debugging", "evaluate", "normalize", "prune", "quantize", "recover", "report", "soundness"),
    (
        "calibrate",
        "graph",
        "integrity",
        "kernel_times",
        "memory",
        "model",
        "ops",
        "probe",
        "protos",
        "runtime",
        "targets",
    ),
    ("axes", "errors", "measurements", "options", "outputs", "plan", "specs", "wire"),
)
LEVEL = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}
FREE = ("onnxqp.report.records",)  # data only: every room may speak in reports

# Which rooms may import a library, as prefixes of module names.
ONLY = {
    "onnxruntime": ("onnxqp.runtime", "onnxqp.probe.child"),
    "onnx": (
        "onnxqp.model",
        "onnxqp.protos",
        "onnxqp.integrity",
        "onnxqp.kernel_times",
        "onnxqp.runtime",
        "onnxqp.probe.child",
        "onnxqp.normalize",
        "onnxqp.steps",
        "onnxqp.data.onnx_test_data",
    ),
    "click": ("onnxqp.cli",),
    "rich": ("onnxqp.cli", "onnxqp.report.table"),
    "PIL": ("onnxqp.data",),
    "torch": (),
    "onnxscript": (),
}
NOTATION = ("Constant", "QuantizeLinear", "DequantizeLinear")
# Arithmetic that must be testable without a model.
NUMPY_ONLY = (
    "onnxqp.calibrate.observers",
    "onnxqp.calibrate.ranges",
    "onnxqp.quantize.arithmetic",
    "onnxqp.ops.contraction",
    "onnxqp.compress.goal",
    "onnxqp.calibrate.moments",
    "onnxqp.recover.least_squares",
)


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def imported(module: str, *, at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Absolute names of what a module imports, with lines; `at_import`: only what runs when it is imported."""
    for node in _statements(MODULES[module], at_import):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in MODULES else node.module or ""), node.lineno


def _statements(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _statements(node, at_import)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "onnxqp"


def test_every_room_has_a_level() -> None:
    rooms = {room(module) for module in MODULES} - {"onnxqp"}
    assert rooms <= set(LEVEL), "give the new room a level in this file, and say why"


def test_imports_go_down() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for name, line in imported(module)
        if name.startswith("onnxqp.") and room(module) != "onnxqp" and name not in FREE
        if LEVEL[room(name)] < LEVEL[room(module)]
    ]
    assert wrong == []


def test_nobody_imports_the_command_line() -> None:
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        for name, line in imported(module)
        if name.startswith("onnxqp.cli") and room(module) not in ("cli", "__main__")
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(ONLY))
def test_a_library_stays_in_its_room(library: str) -> None:
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        for name, line in imported(module)
        if name.split(".")[0] == library
        if not any(module == home or module.startswith(f"{home}.") for home in ONLY[library])
    ]
    assert wrong == []


@pytest.mark.parametrize("module", NUMPY_ONLY)
def test_arithmetic_needs_no_model(module: str) -> None:
    foreign = {name.split(".")[0] for name, _ in imported(module)} & {"onnx", "onnx_ir", "onnxruntime", "rich", "click"}
    assert not foreign


def test_modules_import_each_other_without_cycles() -> None:
    graph = {
        module: {name for name, _ in imported(module, at_import=True) if name in MODULES and name != module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"import cycle: {' -> '.join(cycle.args[1])}")


def test_rooms_of_one_level_import_each_other_without_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        names = {name for name, _ in imported(module, at_import=True) if name in MODULES and name not in FREE}
        graph.setdefault(room(module), set()).update({room(name) for name in names} - {room(module), "onnxqp"})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"rooms that need each other: {' -> '.join(cycle.args[1])}")


def test_nothing_prints_or_reads_the_environment_outside_the_command_line() -> None:
    wrong = []
    for module, tree in MODULES.items():
        if room(module) == "cli":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
                wrong.append(f"{module}:{node.lineno} {node.func.id}")
            elif isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                wrong.append(f"{module}:{node.lineno} {node.attr}")
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.exit"):
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    allowed = {"__main__": "sys.exit", "evaluate": "sys.stderr", "data": "sys.stderr"}  # prints of hooks: off stdout
    assert [item for item in wrong if allowed.get(room(item.split(":")[0])) != item.split()[-1]] == []


def test_only_operators_and_targets_ask_for_an_operator_type() -> None:
    """The one record per operator: nothing generic compares `op_type` with a name.

    Those of NOTATION are no operators in this sense: Constant is the format's other spelling of an initializer, and
    the Q/DQ pair is what the quantizer itself writes.
    """
    wrong = []
    for module, tree in MODULES.items():
        if room(module) in ("ops", "targets", "normalize"):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            asks = any(isinstance(side, ast.Attribute) and side.attr == "op_type" for side in sides)
            names = any(
                isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value not in NOTATION
                for side in sides
                for part in ast.walk(side)
            )
            if asks and names:
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_no_module_is_a_drawer() -> None:
    forbidden = ("utils", "util", "helpers", "helper", "misc", "common", "manager", "handler", "wrapper", "engine")
    assert [module for module in MODULES if module.rsplit(".", 1)[-1] in forbidden] == []


# ---- the public names -----------------------------------------------------------------------------------------


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by name alone, and only a run of all of them would notice."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_all_public_names_exist_and_stand_in_order() -> None:
    assert list(onnxqp.__all__) == sorted(onnxqp.__all__)
    for name in onnxqp.__all__:
        assert getattr(onnxqp, name) is not None
    assert set(onnxqp.__all__) <= set(dir(onnxqp))


def test_public_functions_and_classes_say_what_they_are() -> None:
    silent = [name for name in onnxqp.__all__ if callable(item := getattr(onnxqp, name)) and not item.__doc__]
    assert silent == []


def test_functions_win_over_rooms_of_the_same_name() -> None:
    for name in ("quantize", "prune", "compress"):
        room = importlib.import_module(f"onnxqp.{name}")
        assert callable(getattr(onnxqp, name))
        assert getattr(onnxqp, name) is not room


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = onnxqp.quantise  # type: ignore[attr-defined]


def test_every_module_can_be_imported_by_itself() -> None:
    for module in MODULES:
        if module != "onnxqp.__main__":
            assert importlib.import_module(module).__doc__ or _path(module).stat().st_size == 0, (
                f"{module}: no docstring"
            )


def _path(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
