"""Where the weights of a model file lie: its protobuf wire format, read without reading the weights.

A parsed message holds a copy of every weight, beside the file's own bytes. For a large model that is most of the memory
of a run; so the messages around the weights are parsed, and the weights stay in the file. Field numbers are those of
onnx.proto3: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9. Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


@dataclass
class Light:
    """A model file without its big weights: `content` parses as a ModelProto in which these have no data.

    `weights` gives for each of them, by its place among the graph's initializers, offset and length in the file.
    """

    content: bytes
    weights: dict[int, tuple[int, int]] = field(default_factory=dict)


def lighten(content: Buffer, smallest: int) -> Light | None:
    """Leave the raw data of at least `smallest` bytes out; None for what is not as expected, and best parsed whole."""
    weights: dict[int, tuple[int, int]] = {}
    pieces: list[Buffer] = []
    graphs = 0
    try:
        for number, kind, begin, start, end in _fields(content, 0, len(content)):
            if number == _GRAPH and kind == _DELIMITED:
                graphs += 1
                inner = _graph(content, start, end, smallest, weights)
                pieces += [_tag(_GRAPH, sum(map(len, inner))), *inner]
            else:
                pieces.append(content[begin:end])
    except (IndexError, ValueError):
        return None
    return Light(b"".join(pieces), weights) if graphs == 1 else None


def _graph(content: Buffer, start: int, end: int, smallest: int, weights: dict[int, tuple[int, int]]) -> list[Buffer]:
    pieces: list[Buffer] = []
    index, kept = 0, start  # everything from `kept` on is still to be copied
    for number, kind, begin, first, last in _fields(content, start, end):
        if number != _INITIALIZER or kind != _DELIMITED:
            continue
        if last - first >= smallest:
            data = [each for each in _fields(content, first, last) if each[0] == _RAW_DATA]
            if len(data) == 1 and data[0][1] == _DELIMITED and data[0][4] - data[0][3] >= smallest:
                _, _, before, offset, after = data[0]
                weights[index] = (offset, after - offset)
                pieces += [content[kept:begin], _tag(_INITIALIZER, (before - first) + (last - after))]
                pieces += [content[first:before], content[after:last]]
                kept = last
        index += 1
    return [*pieces, content[kept:end]]


def _fields(content: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, where the field begins, where its content starts, and where it ends."""
    place = start
    while place < end:
        begin = place
        key, place = _varint(content, place)
        kind = key & 7
        first = place
        if kind == _VARINT:
            _, place = _varint(content, place)
        elif kind == _FIXED64:
            place += 8
        elif kind == _FIXED32:
            place += 4
        elif kind == _DELIMITED:
            length, first = _varint(content, place)
            place = first + length
        else:
            raise ValueError(f"wire type {kind}")
        if place > end:
            raise ValueError("a field is longer than what it is in")
        yield key >> 3, kind, begin, first, place


def _varint(content: Buffer, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _tag(number: int, length: int) -> bytes:
    """The head of a field that holds so many bytes."""
    head = bytearray([number << 3 | _DELIMITED])
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)
