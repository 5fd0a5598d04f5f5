"""Statistics in files, from the public functions: shards, merging, and quantizing from a file as from the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxqp
from onnxqp import CalibrateOptions, DataError, DataOptions, MeasureOptions, OutputError, QuantizeOptions, UsageError
from onnxqp import model as model_files
from onnxqp.calibrate import store

QUICK = MeasureOptions(validate=False)


@pytest.fixture
def model(root: Path) -> str:
    return str(root / "sample_models" / "residual_cnn.onnx")


@pytest.fixture
def data(root: Path) -> DataOptions:
    return DataOptions(data=str(root / "sample_models" / "data" / "calib.npz"), samples=12, seed=3)


def same(one: Path, other: Path, *, but_for: tuple[str, ...] = ()) -> bool:
    with np.load(one) as ours, np.load(other) as theirs:
        return all(np.array_equal(ours[name], theirs[name]) for name in ours.files if name not in but_for)


def test_merged_shards_equal_one_pass(model: str, data: DataOptions, tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    result = onnxqp.calibrate(model, options=CalibrateOptions(str(whole)), data=data)
    parts = [str(tmp_path / f"part{i}.npz") for i in (1, 2, 3)]
    for index, name in enumerate(parts, start=1):
        onnxqp.calibrate(model, options=CalibrateOptions(name, shard=(index, 3)), data=data)
    merged = tmp_path / "merged.npz"
    report = onnxqp.calibrate(model, options=CalibrateOptions(str(merged), merge=tuple(parts[::-1]))).report
    assert same(whole, merged, but_for=("header",))
    assert report.warnings == []
    assert result.model is None
    ours, theirs = result.report.calibration, report.calibration
    assert ours is not None
    assert ours == theirs
    assert (ours.samples, ours.source, ours.held_back) == (12, "data", 0)
    assert ours.ranges is not None
    assert ours.ranges["/stages/stages.0/Relu_1_output_0"][0] == 0.0


def test_the_batch_size_changes_no_count(model: str, data: DataOptions, tmp_path: Path) -> None:
    from dataclasses import replace

    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    onnxqp.calibrate(model, options=CalibrateOptions(str(one)), data=data)
    onnxqp.calibrate(model, options=CalibrateOptions(str(other)), data=replace(data, batch_size=5))
    ours, theirs = store.read(one), store.read(other)
    assert ours.samples == theirs.samples == 12
    for name, histogram in ours.histograms.items():
        assert histogram.count == theirs.histograms[name].count
        assert histogram.range == pytest.approx(theirs.histograms[name].range, rel=1e-5)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_quantizing_from_a_file_is_quantizing_from_the_data(
    model: str, data: DataOptions, tmp_path: Path, method: str
) -> None:
    kept, results = str(tmp_path / "kept.npz"), []
    for index, extra in enumerate(({}, {"save_calibration": kept}, {"calibration": kept})):
        options = QuantizeOptions(method=method, target="x64-avx2", **extra)  # type: ignore[arg-type]
        write = onnxqp.WriteOptions(output=str(tmp_path / f"{index}.onnx"))
        results.append(onnxqp.quantize(model, options=options, data=data, measure=QUICK, write=write))
    files = [(tmp_path / f"{index}.onnx").read_bytes() for index in range(3)]
    assert files[1] == files[2]
    models = [model_files.load(tmp_path / f"{index}.onnx") for index in range(2)]
    for ours, theirs in zip(*(model.graph.initializers.values() for model in models), strict=True):
        one, other = (np.asarray(value.const_value, np.float64) for value in (ours, theirs))
        if ours.dtype == ir.DataType.FLOAT:  # one pass or two: what the runtime fuses rounds in other ways
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        elif ours.dtype == ir.DataType.FLOAT16:
            assert one == pytest.approx(other, rel=2e-3, abs=2e-3)
        else:
            steps = 2 if ours.dtype == ir.DataType.INT8 else 4  # what one rounding leaves the next ones take over
            assert np.abs(one - other).max(initial=0) <= steps
            assert (one != other).mean() < 0.05
    sections = [result.report.calibration for result in results]
    assert sections[0] == sections[1] == sections[2]
    assert sections[0] is not None
    assert sections[0].samples == 10  # two are held back


def test_a_file_serves_every_target(model: str, data: DataOptions, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept.npz")
    onnxqp.quantize(
        onnxqp.load(model), options=QuantizeOptions(target="x64-avx2", save_calibration=kept), data=data, measure=QUICK
    )
    for target in ("x64-vnni", "arm64", "portable"):
        hashed = store.read(Path(kept))
        hashed.model = store.model_hash(onnxqp.load(model), Path(model))
        store.save(hashed, Path(kept))
        options = QuantizeOptions(target=target, calibration=kept)  # type: ignore[arg-type]
        write = onnxqp.WriteOptions(output=str(tmp_path / f"{target}.onnx"))
        assert onnxqp.quantize(model, options=options, data=data, measure=QUICK, write=write).model is not None


def test_statistics_of_another_model_are_refused(model: str, data: DataOptions, root: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept.npz")
    onnxqp.calibrate(model, options=CalibrateOptions(kept), data=data)
    other = str(root / "sample_models" / "vit.onnx")
    with pytest.raises(DataError, match="another model") as caught:
        onnxqp.quantize(other, options=QuantizeOptions(calibration=kept), measure=QUICK)
    assert caught.value.hint
    with pytest.raises(DataError, match="another model"):
        onnxqp.calibrate(other, options=CalibrateOptions(str(tmp_path / "merged.npz"), merge=(kept,)))
    assert not (tmp_path / "merged.npz").exists()


def test_missing_shards_are_said(model: str, data: DataOptions, tmp_path: Path) -> None:
    part, merged = str(tmp_path / "part.npz"), str(tmp_path / "merged.npz")
    onnxqp.calibrate(model, options=CalibrateOptions(part, shard=(2, 3)), data=data)
    report = onnxqp.calibrate(options=CalibrateOptions(merged, merge=(part,))).report
    assert report.warnings == ["shards are missing: 1/3, 3/3"]
    assert report.input is None
    assert report.calibration is not None
    assert report.calibration.samples == 4


def test_without_data_the_file_says_so(model: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    report = onnxqp.calibrate(model, options=CalibrateOptions(str(kept)), data=DataOptions(samples=3)).report
    assert any("synth" in warning for warning in report.warnings)
    assert store.read(kept).source == "synthetic"


def test_what_cannot_be_done_is_refused_before_any_work(model: str, data: DataOptions, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    kept.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists") as caught:
        onnxqp.calibrate(model, options=CalibrateOptions(str(kept)), data=data)
    assert "--force" in (caught.value.hint or "")
    with pytest.raises(OutputError, match="exists") as caught:
        onnxqp.quantize(model, options=QuantizeOptions(save_calibration=str(kept)), data=data, measure=QUICK)
    assert "--save-calibration" in (caught.value.hint or "")
    assert kept.read_bytes() == b"mine"
    both = QuantizeOptions(calibration=str(kept), save_calibration=str(tmp_path / "new.npz"))
    with pytest.raises(UsageError, match="together"):
        onnxqp.quantize(onnxqp.load(model), options=both, data=data, measure=QUICK)
    with pytest.raises(UsageError, match=r"ends in \.npz"):
        onnxqp.calibrate(model, options=CalibrateOptions(str(tmp_path / "a.json")), data=data)
    new = str(tmp_path / "new.npz")
    with pytest.raises(UsageError, match="reads no data"):
        onnxqp.calibrate(model, options=CalibrateOptions(new, merge=(str(kept),)), data=data)
    with pytest.raises(UsageError, match="no shard 3/2"):
        onnxqp.calibrate(model, options=CalibrateOptions(new, shard=(3, 2)), data=data)
    with pytest.raises(UsageError, match="shard 13/20 of 12 samples is empty"):
        onnxqp.calibrate(model, options=CalibrateOptions(new, shard=(13, 20)), data=data)
    with pytest.raises(UsageError, match="no model"):
        onnxqp.calibrate(options=CalibrateOptions(new))
