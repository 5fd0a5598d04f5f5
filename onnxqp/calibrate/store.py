"""What calibration saw of a model, kept in a file: written by one run, merged with others, read by a later one.

A file is a `.npz` of plain arrays (no pickle, not compressed): `header`, a JSON text in bytes, names the model by its
SHA-256 and the values in order; the other arrays hold, value after value, the state of their observers. Histograms
keep only the bins that hold something.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp import outputs
from onnxqp.calibrate.observers import BINS, LEAST_EXPONENT, ChannelMean, Histogram
from onnxqp.calibrate.statistics import Part, Statistics
from onnxqp.errors import DataError, UsageError
from onnxqp.model import file_hash, to_bytes

SUFFIX = ".npz"
FORMAT = "onnxqp calibration"
VERSION = 2  # 2: the sums of the extremes of every sample, and the scales of channels
_NO_EXPONENT = np.iinfo(np.int32).min  # of a histogram that saw zeros alone
_MOST_EXPONENT = 128  # no float32 needs wider bins

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


def model_hash(model: ir.Model, path: Path | None) -> str:
    """SHA-256 of a model, in hexadecimal: of its file; with weights in files of their own, of all of them together."""
    if path is None:
        return hashlib.sha256(to_bytes(model)).hexdigest()
    files = {
        Path(value.const_value.path)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    own = file_hash(path)
    if not files:
        return own
    return hashlib.sha256("".join([own, *(file_hash(file) for file in sorted(files))]).encode()).hexdigest()


# ---- writing ------------------------------------------------------------------------------------------------


def check_name(path: Path) -> None:
    """Raise UsageError for a name that does not end as these files do."""
    if path.suffix.lower() != SUFFIX:
        raise UsageError("a calibration file ends in .npz", where=str(path), hint=f"name it {path.stem}{SUFFIX}")


def save(statistics: Statistics, path: Path) -> None:
    """Write the file, whole or not at all; raises OutputError."""
    check_name(path)
    outputs.write(path, lambda file: np.savez(file, allow_pickle=False, **_pack(statistics)))


def _pack(statistics: Statistics) -> Arrays:
    histograms, means = statistics.histograms.values(), statistics.means.values()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": statistics.model,
        "parts": [asdict(part) for part in statistics.parts],
        "scales": statistics.scales,
        "bins": BINS,
        "histograms": list(statistics.histograms),
        "means": list(statistics.means),
    }
    filled = [np.flatnonzero(each.counts) for each in histograms]
    tallies = [each.counts[bins] for each, bins in zip(histograms, filled, strict=True)]
    totals = [np.zeros(0) if each.total is None else each.total for each in means]
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "low": np.array([each.low for each in histograms], np.float64),
        "high": np.array([each.high for each in histograms], np.float64),
        "count": np.array([each.count for each in histograms], np.int64),
        "invalid": np.array([each.invalid for each in histograms], np.int64),
        "zeros": np.array([each.zeros for each in histograms], np.int64),
        "samples": np.array([each.samples for each in histograms], np.int64),
        "low_sum": np.array([each.low_sum for each in histograms], np.float64),
        "high_sum": np.array([each.high_sum for each in histograms], np.float64),
        "exponent": np.array([_exponent(each) for each in histograms], np.int32),
        "filled": np.array([bins.size for bins in filled], np.int64),
        "bins": _joined(filled, np.uint16),
        "tallies": _joined(tallies, np.int64),
        "mean_axis": np.array([each.axis for each in means], np.int64),
        "mean_count": np.array([each.count for each in means], np.int64),
        "mean_size": np.array([total.size for total in totals], np.int64),
        "mean_total": _joined(totals, np.float64),
    }


def _exponent(histogram: Histogram) -> int:
    return _NO_EXPONENT if histogram.exponent is None else histogram.exponent


def _joined(arrays: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """End to end; whole numbers in the smallest type that holds them."""
    whole = np.concatenate([np.zeros(0, dtype), *(array.astype(dtype) for array in arrays)])
    if whole.dtype == np.int64 and whole.size and whole.max() < 2**32:
        return whole.astype(np.uint32)
    return whole


# ---- reading ------------------------------------------------------------------------------------------------


def read(path: Path) -> Statistics:
    """Read a file that `save` wrote; raises DataError for anything else."""
    try:
        arrays = _arrays(path)
        header = json.loads(arrays.pop("header").tobytes())
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise KeyError("header")
        if header.get("version") != VERSION or header.get("bins") != BINS:
            raise DataError(
                f"the calibration file is of version {header.get('version')}, this onnxqp reads {VERSION}",
                where=str(path),
                hint="calibrate again with this version of onnxqp",
            )
        return _unpack(header, arrays)
    except FileNotFoundError as err:
        raise DataError(
            "no such file", where=str(path), hint="write one with `onnxqp calibrate MODEL -o FILE`"
        ) from err
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror or err}", where=str(path), hint="check the path") from err
    except (LookupError, TypeError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as err:
        raise DataError(
            "is not a calibration file of onnxqp, or is damaged",
            where=str(path),
            hint="samples belong to --data; write this file with `onnxqp calibrate MODEL -o FILE`",
        ) from err


def _arrays(path: Path) -> Arrays:
    """The arrays of the file. Nothing in it may unpack to more bytes than the file has."""
    size = path.stat().st_size
    with path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > size:
                raise ValueError("a compressed member")
        file.seek(0)
        with np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _unpack(header: Mapping[str, Any], arrays: Arrays) -> Statistics:
    names, mean_names = list(map(str, header["histograms"])), list(map(str, header["means"]))
    parts = [
        Part(int(p["samples"]), _source(p["source"]), _shard(p["shard"]), int(p["drawn"]), int(p["seed"]))
        for p in header["parts"]
    ]
    bins = _split(arrays["bins"], arrays["filled"], len(names))
    tallies = _split(arrays["tallies"], arrays["filled"], len(names))
    totals = _split(arrays["mean_total"], arrays["mean_size"], len(mean_names))
    statistics = Statistics(str(header["model"]), parts=parts, scales=_scales(header["scales"]))
    for index, name in enumerate(names):
        statistics.histograms[name] = _histogram(arrays, index, bins[index], tallies[index])
    for index, name in enumerate(mean_names):
        mean = ChannelMean(int(arrays["mean_axis"][index]))
        mean.count = int(arrays["mean_count"][index])
        mean.total = totals[index].astype(np.float64) if totals[index].size else None
        statistics.means[name] = mean
    return statistics


def _scales(found: object) -> dict[str, tuple[int, ...]] | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise TypeError("no scales")
    scales = {str(name): tuple(map(int, powers)) for name, powers in found.items()}
    if any(abs(power) > _MOST_EXPONENT for powers in scales.values() for power in powers):
        raise ValueError("scales that no model has")
    return scales


def _source(text: object) -> Literal["data", "synthetic"]:
    if text == "data":
        return "data"
    if text == "synthetic":
        return "synthetic"
    raise ValueError(f"no source: {text!r}")


def _shard(text: object) -> str:
    index, total = map(int, str(text).split("/"))
    if not 1 <= index <= total <= 1_000_000:
        raise ValueError(f"no shard: {text!r}")
    return f"{index}/{total}"


def _histogram(arrays: Arrays, index: int, bins: npt.NDArray[Any], tallies: npt.NDArray[Any]) -> Histogram:
    histogram = Histogram()
    histogram.low, histogram.high = float(arrays["low"][index]), float(arrays["high"][index])
    histogram.count, histogram.invalid = int(arrays["count"][index]), int(arrays["invalid"][index])
    histogram.zeros, histogram.samples = int(arrays["zeros"][index]), int(arrays["samples"][index])
    histogram.low_sum, histogram.high_sum = float(arrays["low_sum"][index]), float(arrays["high_sum"][index])
    exponent = int(arrays["exponent"][index])
    histogram.exponent = None if exponent == _NO_EXPONENT else exponent
    histogram.counts[bins.astype(np.int64)] = tallies
    whole = int(histogram.counts.sum()) + histogram.zeros == histogram.count and int(histogram.counts.min()) >= 0
    if not whole or not (exponent == _NO_EXPONENT or LEAST_EXPONENT <= exponent <= _MOST_EXPONENT):
        raise ValueError("counts that do not add up")
    return histogram


def _split(whole: npt.NDArray[Any], sizes: npt.NDArray[Any], number: int) -> list[npt.NDArray[Any]]:
    if len(sizes) != number or whole.ndim != 1 or int(sizes.sum()) != whole.size or (sizes < 0).any():
        raise ValueError("arrays that do not fit together")
    return np.split(whole, np.cumsum(sizes)[:-1]) if number else []
