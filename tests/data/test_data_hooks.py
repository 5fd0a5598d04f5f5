"""Python hooks, feeds as Python objects, and `test_data_set_*` folders."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxqp.data import PRESETS, from_feeds, read
from onnxqp.errors import DataError
from onnxqp.specs import InputSpec

FLOAT = np.dtype(np.float32)
ONE = [InputSpec("x", FLOAT, ("N", 2))]
HEAD = "import numpy as np\n"


def hook(folder: Path, body: str, name: str = "load") -> str:
    (folder / "hook.py").write_text(HEAD + body, encoding="utf-8")
    return f"{folder / 'hook.py'}:{name}"


def refused(spec: str, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read(spec, ONE, **options))
    assert caught.value.hint
    return caught.value


COUNTING = """
def load():
    for i in range(100):
        yield {"x": np.full((1, 2), i, np.float32)}, i % 10
"""


def test_a_hook_is_drawn_from_as_a_whole_and_with_its_labels(tmp_path):
    spec = hook(tmp_path, COUNTING)
    drawn = read(spec, ONE, samples=10, seed=5, classes=10)
    values = [int(feed["x"][0, 0]) for feed in drawn.feeds()]
    assert len(values) == 10
    assert values == sorted(values)
    assert max(values) >= 50
    assert drawn.labels == [value % 10 for value in values]
    assert [sample.origin for sample in drawn.samples()] == [f"{spec}[{value}]" for value in values]
    again = read(spec, ONE, samples=10, seed=5)
    assert [int(feed["x"][0, 0]) for feed in again.feeds()] == values
    assert [int(f["x"][0, 0]) for f in read(spec, ONE, samples=10, seed=6).feeds()] != values


def test_the_reservoir_is_uniform():
    feeds = [{"x": np.full((1, 2), i, np.float32)} for i in range(20)]
    counts = np.zeros(20)
    for seed in range(600):
        for feed in from_feeds(feeds, ONE, samples=5, seed=seed).feeds():
            counts[int(feed["x"][0, 0])] += 1
    # 600 draws of 5 in 20: each expects 150, standard deviation 10.6
    assert counts.sum() == 3000
    assert np.abs(counts - 150).max() < 5 * 10.6


def test_all_samples_of_a_hook(tmp_path):
    drawn = read(hook(tmp_path, COUNTING), ONE, samples=None)
    assert len(drawn) == 100
    assert [int(feed["x"][0, 0]) for feed in drawn.feeds()] == list(range(100))


LARGE = """
def load():
    for i in range(90):
        yield {"x": np.full((1 << 20, 2), i, np.float32)}, i
"""


def test_a_large_source_is_asked_again_instead_of_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxqp.data.hooks._KEPT_BYTES", 1 << 25)
    spec = hook(tmp_path, LARGE)  # 720 MB in all
    tracemalloc.start()
    drawn = read(spec, ONE, samples=None)
    for _ in range(2):
        assert [int(sample.feed["x"][0, 0]) for sample in drawn.samples()] == drawn.labels == list(range(90))
    assert tracemalloc.get_traced_memory()[1] < 150_000_000
    tracemalloc.stop()
    assert [int(s.feed["x"][0, 0]) for s in drawn.subset([3, 88]).samples()] == [3, 88]


@pytest.mark.parametrize("change", ["range(90 - calls)", "range(90)"])
def test_a_hook_that_changes_between_passes(tmp_path, monkeypatch, change):
    monkeypatch.setattr("onnxqp.data.hooks._KEPT_BYTES", 100)
    body = f"""
calls = -1
def load():
    global calls
    calls += 1
    for i in {change}:
        yield {{"x": np.zeros((1, 2), np.float32)}}, i + calls
"""
    drawn = read(hook(tmp_path, body), ONE, samples=None)
    with pytest.raises(DataError, match="other samples each time"):
        list(drawn)


def test_buffers_that_a_hook_reuses_are_copied(tmp_path):
    body = """
def load():
    buffer = np.zeros((1, 2), np.float32)
    for i in range(4):
        buffer[:] = i
        yield {"x": buffer}
"""
    assert [int(feed["x"][0, 0]) for feed in read(hook(tmp_path, body), ONE).feeds()] == [0, 1, 2, 3]


def test_names_with_dots_and_a_module_getattr(tmp_path):
    body = """
class Sets:
    def train():
        return [{"x": np.zeros((1, 2), np.float32)}]

def __getattr__(name):
    if name != "net1.1_small":
        raise AttributeError(name)
    return Sets.train
"""
    spec = hook(tmp_path, body)
    for name in ("Sets.train", "net1.1_small"):
        assert len(read(spec.replace(":load", ":" + name), ONE)) == 1
    assert "there is no 'net1.2'" in str(refused(spec.replace(":load", ":net1.2")))
    assert "there is no 'other'" in str(refused(spec.replace(":load", ":other")))


def test_a_path_with_a_colon_is_split_at_the_last(tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    assert len(read(hook(folder, COUNTING), ONE)) == 100


def test_a_hooks_own_folder_is_on_the_path_only_while_it_runs(tmp_path):
    (tmp_path / "beside_hook_one.py").write_text("value = 1\n")
    (tmp_path / "beside_hook_two.py").write_text("value = 2\n")
    body = """
import beside_hook_one
def load():
    import beside_hook_two
    yield {"x": np.full((1, 2), beside_hook_one.value + beside_hook_two.value, np.float32)}
"""
    before, modules = list(sys.path), set(sys.modules)
    drawn = read(hook(tmp_path, body), ONE)
    assert float(next(drawn.feeds())["x"][0, 0]) == 3
    assert sys.path == before
    assert "hook" not in sys.modules
    assert not list(tmp_path.rglob("hook*.pyc"))
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_loader_module.py").write_text(HEAD + COUNTING)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert len(read("my_loader_module:load", ONE)) == 100
    assert sys.path == before
    del sys.modules["my_loader_module"]


def test_what_a_hook_prints_goes_to_stderr(tmp_path, capsys):
    body = """
print("loading")
def load():
    print("called")
    yield {"x": np.zeros((1, 2), np.float32)}
"""
    list(read(hook(tmp_path, body), ONE))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split() == ["loading", "called"]


def test_uint8_pictures_of_a_hook_go_through_the_preprocessing():
    spec = [InputSpec("x", FLOAT, (1, 3, 4, 4))]
    picture = np.full((4, 4, 3), 51, np.uint8)
    for array in (picture, picture[None], picture.transpose(2, 0, 1)[None]):
        drawn = from_feeds([{"x": array}], spec, preprocess=PRESETS["unit"])
        np.testing.assert_allclose(next(drawn.feeds())["x"], np.full((1, 3, 4, 4), 0.2), atol=1e-6)
        assert drawn.warnings == ()
    with pytest.raises(DataError, match="found uint8"):
        from_feeds([{"x": picture.transpose(2, 0, 1)[None]}], spec)
    floats = from_feeds([{"x": np.zeros((1, 3, 4, 4), np.float32)}], spec, preprocess=PRESETS["unit"])
    assert "not applied" in floats.warnings[0]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def load(): return []", "yields no samples"),
        ("def load(): return [1]", "yields int"),
        ("def load(): return [np.zeros((1, 2))]", "yields ndarray"),
        ("def load(): return None", "returns None"),
        ("def load(a): return []", "raised TypeError"),
        ("def load(): raise RuntimeError('no disk')", "raised RuntimeError: no disk"),
        ("def load():\n yield {'x': np.zeros((1, 2))}\n raise KeyError('k')", "raised KeyError: 'k'"),
        ("def load(): raise SystemExit(3)", "raised SystemExit"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("def load(:", "raised SyntaxError"),
        ("load = 3", "is no function"),
        ("def load(): return [{'y': np.zeros((1, 2))}]", "no array for input 'x'"),
        ("def load(): return [{'x': np.zeros((1, 2)), 'xx': 1}]", "'xx' is no input"),
        ("def load(): return [{'x': np.zeros(2)}]", "found shape [2], expected [N, 2]"),
        ("def load(): return [{'x': np.zeros((1, 2), bool)}]", "found bool, expected float32"),
        ("def load(): return [{'x': [[1.0, float('nan')]]}]", "NaN"),
        ("def load(): return [{'x': [[1.0], [1.0, 2.0]]}]", "is no array"),
        ("def load(): return [({'x': np.zeros((1, 2))}, 1), {'x': np.zeros((1, 2))}]", "1 of 2 samples have no label"),
        ("def load(): return [({'x': np.zeros((1, 2))}, 3)]", "label 3 is out of range"),
        ("def load():\n while True: yield {'x': np.zeros((1, 2))}", "yields more than 50 samples"),
    ],
)
def test_faults_of_a_hook(tmp_path, monkeypatch, body, told):
    monkeypatch.setattr("onnxqp.data.hooks._MOST_SAMPLES", 50)
    error = refused(hook(tmp_path, body), classes=3)
    assert told in str(error)
    assert "hook.py" in str(error.where)


def test_the_missing_batch_axis_is_explained(tmp_path):
    error = refused(hook(tmp_path, "def load(): return [{'x': np.zeros(2)}]"))
    assert "leading axis" in str(error.hint)


@pytest.mark.parametrize("spec", ["nothing_here.py:load", "no_such_module_at_all:load", "https://x/y.npz", ":load"])
def test_hooks_that_are_missing(spec):
    refused(spec)


def test_a_file_without_a_function(tmp_path):
    hook(tmp_path, COUNTING)
    assert ":function" in str(refused(str(tmp_path / "hook.py")).hint)
    assert "names no function" in str(refused(str(tmp_path / "hook.py") + ":"))


# ---- Python objects ------------------------------------------------------------------------------------------


def test_an_iterator_is_kept_and_a_list_may_be_used_again():
    feeds = [{"x": np.full((1, 2), i, np.float32)} for i in range(5)]
    for given in (feeds, iter(feeds), lambda: iter(feeds)):
        drawn = from_feeds(given, ONE, samples=None)
        for _ in range(2):
            assert [int(feed["x"][0, 0]) for feed in drawn.feeds()] == [0, 1, 2, 3, 4]
        assert drawn.labels is None


def test_scalars_may_come_as_arrays_of_one_element():
    drawn = from_feeds([{"sr": np.array([16000])}], [InputSpec("sr", np.dtype(np.int64), ())])
    assert next(drawn.feeds())["sr"].shape == ()


# ---- test_data_set_* -----------------------------------------------------------------------------------------

TWO = [InputSpec("a", FLOAT, (1, 2)), InputSpec("b", np.dtype(np.int64), ())]


def data_set(folder: Path, *arrays: np.ndarray, names: tuple[str, ...] = ("", "")) -> Path:
    folder.mkdir(parents=True)
    for number, (array, name) in enumerate(zip(arrays, names, strict=False)):
        tensor = numpy_helper.from_array(np.asarray(array), name)
        (folder / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    return folder


def test_test_data_sets_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        data_set(tmp_path / f"test_data_set_{number}", np.full((1, 2), number, np.float32), np.int64(number))
    drawn = read(str(tmp_path), TWO)
    assert [int(feed["b"]) for feed in drawn.feeds()] == [0, 2, 10]
    assert drawn.labels is None
    alone = read(str(tmp_path / "test_data_set_2"), TWO)
    assert [int(feed["b"]) for feed in alone.feeds()] == [2]


def test_tensors_are_matched_by_name_where_they_have_the_models(tmp_path):
    data_set(tmp_path / "test_data_set_0", np.int64(7), np.zeros((1, 2), np.float32), names=("b", "a"))
    assert int(next(read(str(tmp_path), TWO).feeds())["b"]) == 7


def test_faults_of_test_data_sets(tmp_path):
    def told(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            list(read(str(folder), TWO))
        return str(caught.value)

    assert "1 files input_*.pb, the model has 2" in told(data_set(tmp_path / "a", np.zeros((1, 2), np.float32)))
    assert "found shape [1, 3]" in told(data_set(tmp_path / "b", np.zeros((1, 3), np.float32), np.int64(1)))
    folder = data_set(tmp_path / "c", np.zeros((1, 2), np.float32), np.int64(1))
    (folder / "input_1.pb").write_bytes(b"\xff\xff\xff")
    assert "no tensor" in told(folder)
    (folder / "input_1.pb").write_bytes(b"")
    assert "no tensor with its own data" in told(folder)
    liar = TensorProto(dims=[1 << 40], data_type=TensorProto.INT64, raw_data=bytes(8))
    (folder / "input_1.pb").write_bytes(liar.SerializeToString())
    assert "damaged tensor" in told(folder)
    outside = TensorProto(dims=[1], data_type=TensorProto.INT64, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    (folder / "input_1.pb").write_bytes(outside.SerializeToString())
    assert "its own data" in told(folder)


def test_the_data_sets_that_onnx_ships_can_be_read():
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-operator"
    read_sets = 0
    for folder in sorted(root.iterdir())[:20]:
        graph = onnx.load(folder / "model.onnx").graph
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [
            InputSpec(
                value.name,
                np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
                tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in graph.input
            if value.name not in constants
        ]
        read_sets += len(list(read(str(folder), inputs)))
    assert read_sets >= 20
