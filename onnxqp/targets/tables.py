"""The targets. Fusions: onnxruntime 1.31.1's QDQ selectors; rates: one thread, measured or scaled as each says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnxqp.targets.target import Kernel, Move, Rate, Target

CONV_MULTIPLE = (4, 16)  # ConvSym of MLAS on x64: C_in % 4 == 0, C_out % 16 == 0
DEPTHWISE_MULTIPLE = (1, 16)
GROUP_LEAST = 28  # each group is a matrix product of its own: narrow ones are mostly overhead

_LEFT_FLOAT: Mapping[str, str] = MappingProxyType(
    {
        "Softmax": "the integer Softmax is several times slower than the float one",
        "AveragePoolPartly": "the integer AveragePool is twenty times slower than the float one, and no convolution "
        "can stand for it where windows at the border are divided by what is inside alone",
        "Sub": "no integer kernel, but minus a constant is an Add",
        "Div": "no integer kernel, but by a constant it is a Mul",
        "ReduceMean": "no integer kernel, but over the axes of space it is a GlobalAveragePool",
        "HardSwish": "no integer kernel; the Conv before it writes integers all the same",
        "HardSigmoid": "no integer kernel; the Conv before it writes integers all the same",
        "LSTM": "but where --target auto finds it faster: int8 weights, inputs quantized at every inference",
        "ConvTranspose": "onnxruntime has no integer ConvTranspose on the CPU",
    }
)

_BARRED = frozenset(("AveragePool", "AveragePoolPartly", "Softmax"))

_MOVES: Mapping[str, Move] = MappingProxyType(
    {
        **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), Move(0.0, 0.0)),
        **dict.fromkeys(("Slice", "Split", "Gather", "GatherElements", "Expand", "Tile"), Move(0.05, 0.1)),
        **dict.fromkeys(("Transpose", "DepthToSpace"), Move(0.3, 0.4)),
        "ResizeNearest": Move(0.3, 0.4),
        **dict.fromkeys(("ReduceMax", "ReduceMin"), Move(1.0, 2.0, follows=True)),
        "Pad": Move(0.1, 0.15, by_hand=True, follows=True),
        # alone it runs in NCHW forty times slower; beside an integer Conv it becomes NhwcMaxPool
        "MaxPool": Move(0.4, 0.6, fused=("NhwcMaxPool",), guarded=True, follows=True),
    }
)


@dataclass(frozen=True)
class _Speed:
    """The rates of one CPU family that differ from another's."""

    conv: tuple[Rate, Rate, Rate, Rate]  # float, integer, float unaligned, integer unaligned
    depthwise: tuple[Rate, Rate, Rate, Rate]
    grouped: tuple[Rate, Rate, Rate, Rate]
    matmul: tuple[Rate, Rate]
    elementwise: float  # nanoseconds per element of a float Add


def _kernels(speed: _Speed, *, saturates: bool) -> Mapping[str, Kernel]:
    unit = speed.elementwise

    def simple(fused: str, floats: float, integers: float, remark: str = "") -> Kernel:
        return Kernel((fused,), Rate(0, floats * unit), Rate(0, integers * unit), follows=True, remark=remark)

    conv, depthwise = speed.conv, speed.depthwise
    return MappingProxyType(
        {
            "Conv": Kernel(
                *(("QLinearConv",), *conv),
                multiple=CONV_MULTIPLE,
                saturates=saturates,
                rounds_bias=True,
                adds_zeros=True,
            ),
            "GroupedConv": Kernel(
                *(("QLinearConv",), *speed.grouped),
                least=GROUP_LEAST,
                saturates=saturates,
                rounds_bias=True,
                adds_zeros=True,
            ),
            "DepthwiseConv": Kernel(
                ("QLinearConv",), *depthwise, multiple=DEPTHWISE_MULTIPLE, rounds_bias=True, adds_zeros=True
            ),
            "Gemm": Kernel(("QGemm",), *speed.matmul, writes_float=True, saturates=saturates),
            "MatMul": Kernel(
                ("QLinearMatMul", "MatMulIntegerToFloat", "QGemm"),
                *speed.matmul,
                writes_float=True,
                saturates=saturates,
                remark=" with a constant matrix; of two activations only where it is measured to pay",
            ),
            # quantizing two activations costs what the product gains: this price keeps it out, a clock may know better
            "MatMulActivations": Kernel(
                ("QLinearMatMul", "MatMulIntegerToFloat"), Rate(0, unit), Rate(0, 40 * unit), writes_float=True
            ),
            "Add": simple("QLinearAdd", 1.0, 1.3),
            "Mul": simple("QLinearMul", 1.8, 2.0),
            "Sigmoid": simple("QLinearSigmoid", 2.6, 2.2),
            "LeakyRelu": simple("QLinearLeakyRelu", 1.5, 2.2),
            "Concat": simple("QLinearConcat", 1.2, 1.0),
            "Where": simple("QLinearWhere", 1.0, 1.5),
            "AveragePool": simple("QLinearConv", 2.5, 3.5, " as a depthwise convolution of ones"),
            "GlobalAveragePool": simple("QLinearGlobalAveragePool", 1.0, 1.0),
        }
    )


def _target(name: str, speed: _Speed, evidence: str, *, border_ns: float, channel_step: int, saturates: bool) -> Target:
    return Target(
        name=name,
        kernels=_kernels(speed, saturates=saturates),
        moves=_MOVES,
        absorbed=frozenset(("Relu", "Clip")),
        left_float=_LEFT_FLOAT,
        barred=_BARRED,
        border_ns=border_ns,
        node_ns=1500.0,
        channel_step=channel_step,
        evidence=evidence,
    )


_VNNI = _Speed(
    conv=(Rate(18, 0.05), Rate(5.3, 0.15), Rate(25, 0.4), Rate(18, 0.8)),
    depthwise=(Rate(36, 0.05), Rate(45, 0.1), Rate(50, 0.1), Rate(150, 0.3)),
    grouped=(Rate(25, 0.1), Rate(8, 0.3), Rate(25, 0.1), Rate(35, 3.0)),
    matmul=(Rate(18, 0.05), Rate(5.5, 0.1)),
    elementwise=0.11,
)
_AVX2 = _Speed(
    conv=(Rate(45, 0.1), Rate(18, 0.3), Rate(60, 0.6), Rate(48, 1.2)),
    depthwise=(Rate(62, 0.1), Rate(110, 0.3), Rate(90, 0.2), Rate(250, 0.5)),
    grouped=(Rate(48, 0.2), Rate(24, 0.6), Rate(48, 0.2), Rate(90, 6.0)),
    matmul=(Rate(110, 0.1), Rate(65, 0.2)),
    elementwise=0.25,
)
_ARM64 = _Speed(
    conv=(Rate(60, 0.2), Rate(24, 0.3), Rate(75, 0.8), Rate(48, 1.2)),
    depthwise=(Rate(80, 0.2), Rate(110, 0.3), Rate(110, 0.3), Rate(250, 0.5)),
    grouped=(Rate(65, 0.3), Rate(30, 0.6), Rate(65, 0.3), Rate(90, 6.0)),
    matmul=(Rate(60, 0.1), Rate(20, 0.2)),
    elementwise=0.4,
)

_LIST = (
    _target(
        "x64-vnni",
        _VNNI,
        "measured on AVX512-VNNI, onnxruntime 1.31.1",
        border_ns=0.2,
        channel_step=16,
        saturates=False,
    ),
    _target(
        "x64-avx2",
        _AVX2,
        "measured on AVX2 without VNNI, onnxruntime 1.31.1",
        border_ns=0.45,
        channel_step=8,
        saturates=True,
    ),
    _target(
        "arm64",
        _ARM64,
        "estimated from the kernels of MLAS, not measured",
        border_ns=0.5,
        channel_step=8,
        saturates=False,
    ),
    _target(
        "portable",
        _AVX2,
        "as x64-avx2, the least capable of the others",
        border_ns=0.45,
        channel_step=8,
        saturates=True,
    ),
)
TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _LIST})
