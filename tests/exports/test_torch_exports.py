"""What PyTorch's two exporters write goes through normalising, quantizing and pruning, and runs after each."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, which torch.onnx needs, is not installed")

from onnxqp import api  # noqa: E402
from onnxqp.model import from_proto  # noqa: E402
from onnxqp.normalize import normalize  # noqa: E402
from onnxqp.options import MeasureOptions, PruneOptions, QuantizeOptions  # noqa: E402
from onnxqp.runtime import Session  # noqa: E402

nn = torch.nn
EXPORTERS = ("torchscript", "dynamo")
UNMEASURED = MeasureOptions(validate=False)


class ResidualBlock(nn.Module):
    """Convolutions with BatchNorm around a residual addition, and a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.body(x) + self.shortcut(x)).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise convolution with squeeze-and-excite, ReLU6 and hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.BatchNorm2d(24), nn.Hardswish())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(24, 16, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 5))

    def forward(self, x):
        x = self.depthwise(self.expand(x))
        return self.head(self.project(x * self.gate(x)))


class Transformer(nn.Module):
    """`nn.MultiheadAttention` and a GELU network, both behind LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.network = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.network(self.norm2(x))).mean(1))


class FusedAttention(nn.Module):
    """Heads of one projection for queries, keys and values, split by `chunk`, on an embedded stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(12, 64), nn.LayerNorm(64)
        self.qkv, self.project, self.head = nn.Linear(64, 192), nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (part.unflatten(2, (4, 16)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((x + self.project(mixed)).mean(1))


class Tagger(nn.Module):
    """Embedding, bidirectional LSTM, one label per token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True, bidirectional=True)
        self.hidden, self.head = nn.Linear(48, 32), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.lstm(self.embedding(x))[0])))


class UNet(nn.Module):
    """One level of a U-Net: down, up by ConvTranspose, concatenation with the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1))
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 16, 2, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1))

    def forward(self, x):
        skip = self.first(x)
        return self.last(torch.cat([self.up(self.down(skip)), skip], 1))


@dataclass(frozen=True)
class Case:
    """A network, the inputs it takes, and what must at least become of it."""

    network: Callable[[], object]
    sample: Callable[[np.random.Generator], np.ndarray]  # of batch size 1
    quantized: tuple[str, ...]  # operators of which one must become integer; none: too small for integers to pay
    removes_share: float  # of the parameters, at least, when half of the channels go


def _image(random: np.random.Generator) -> np.ndarray:
    return random.normal(size=(1, 3, 16, 16)).astype(np.float32)


CASES = {
    "residual": Case(ResidualBlock, _image, ("Conv",), 0.7),
    "mobile": Case(Mobile, _image, (), 0.6),
    "transformer": Case(Transformer, lambda r: r.normal(size=(1, 33, 64)).astype(np.float32), ("MatMul", "Gemm"), 0.3),
    "fused": Case(FusedAttention, lambda r: r.normal(size=(1, 33, 12)).astype(np.float32), ("MatMul", "Gemm"), 0.6),
    "tagger": Case(Tagger, lambda r: r.integers(0, 50, (1, 7)), (), 0.08),
    "unet": Case(UNet, _image, ("Conv",), 0.7),
}
ALL = pytest.mark.parametrize(("name", "exporter"), [(name, exporter) for name in CASES for exporter in EXPORTERS])


def feeds(name: str, count: int = 12) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(7)
    return [{"x": CASES[name].sample(random)} for _ in range(count)]


def network(name: str):
    """Random weights, and BatchNorm statistics that are not those of a fresh layer."""
    torch.manual_seed(3)
    built = CASES[name].network()
    for part in built.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return built.eval()


@cache
def exported(name: str, exporter: str) -> onnx.ModelProto:
    """The network as ONNX, with the symbolic axis `batch`."""
    example = (torch.from_numpy(np.concatenate([feeds(name)[0]["x"]] * 2)),)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters use what torch itself deprecates
        if exporter == "torchscript":
            axes = {"x": {0: "batch"}, "y": {0: "batch"}}
            torch.onnx.export(
                network(name), example, buffer, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes
            )
            return onnx.load_from_string(buffer.getvalue())
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            network(name),
            example,
            dynamo=True,
            verbose=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=shapes,
        )
        return program.model_proto


def expected(name: str) -> list[np.ndarray]:
    with torch.no_grad():
        built = network(name)
        return [built(torch.from_numpy(feed["x"])).numpy() for feed in feeds(name)]


@ALL
def test_a_normalised_export_computes_what_torch_does(name: str, exporter: str) -> None:
    graph = from_proto(exported(name, exporter))
    normalize(graph)
    assert not [node for node in graph.graph.all_nodes() if node.op_type in ("Constant", "BatchNormalization")]
    session = Session(graph)
    for feed, wanted in zip(feeds(name), expected(name), strict=True):
        np.testing.assert_allclose(session.run(feed)["y"], wanted, rtol=1e-3, atol=1e-4)
    batch = np.concatenate([feed["x"] for feed in feeds(name)])
    np.testing.assert_allclose(session.run({"x": batch})["y"], np.concatenate(expected(name)), rtol=1e-3, atol=1e-4)


@ALL
def test_a_quantized_export_runs_and_stays_near(name: str, exporter: str) -> None:
    options = QuantizeOptions(target="x64-avx2")  # decided alike on every machine, and safe on every machine
    result = api.quantize(exported(name, exporter), options=options, data=feeds(name), measure=UNMEASURED)
    assert result.model is not None
    quantization = result.report.quantization
    assert quantization.nodes_fused == quantization.nodes_quantized
    assert quantization.nodes_quantized + quantization.weights_at_rest > 0
    integer = {node.op_type for node in result.model.graph if _dequantized(node)}
    assert bool(integer) == (quantization.nodes_quantized > 0)
    assert integer & set(CASES[name].quantized) or not CASES[name].quantized
    session = Session(result.model)
    got = np.concatenate([session.run(feed)["y"] for feed in feeds(name)]).astype(np.float64)
    wanted = np.concatenate(expected(name))
    ratio = 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())
    assert ratio > 30, f"{ratio:.1f} dB"


def _dequantized(node) -> bool:
    producers = [value.producer() for value in node.inputs if value is not None]
    return sum(p is not None and p.op_type == "DequantizeLinear" for p in producers) >= 2


@cache
def pruned(name: str, exporter: str) -> api.Result:
    options = PruneOptions(ratio=0.5, round_to=1)
    return api.prune(exported(name, exporter), options=options, data=feeds(name), measure=UNMEASURED)


@ALL
def test_a_pruned_export_runs_at_half_the_width(name: str, exporter: str) -> None:
    result = pruned(name, exporter)
    pruning = result.report.pruning
    assert result.model is not None
    assert pruning.proof is not None
    assert pruning.proof.checked, pruning.proof.skipped_reason
    assert pruning.channels_after < pruning.channels_before
    assert 1 - pruning.params_ratio >= CASES[name].removes_share
    session = Session(result.model)
    for feed, wanted in zip(feeds(name), expected(name), strict=True):
        got = session.run(feed)["y"]
        assert got.shape == wanted.shape
        assert np.isfinite(got).all()


@pytest.mark.parametrize("name", list(CASES))
def test_both_exporters_lose_the_same_parameters(name: str) -> None:
    ratios = [pruned(name, exporter).report.pruning.params_ratio for exporter in EXPORTERS]
    assert ratios[0] == pytest.approx(ratios[1], abs=0.02)
