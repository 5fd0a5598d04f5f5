"""What `debug` found, shown: the worst first, causes in words, and the picture along the graph."""

from __future__ import annotations

import sample_reports

from onnxqp.report import markdown
from onnxqp.report.blocks import Block
from onnxqp.report.outline import outline
from onnxqp.report.records import Report, TensorError

FOUND = [
    TensorError("late", "n2", 11.25, "inherited", 2, source="early", local_sqnr_db=44.0, clipped=0.0),
    TensorError("early", "n1", 12.5, "clipping", 1, local_sqnr_db=12.5, clipped=0.031),
    TensorError("x", "", 45.0, "rounding", 0, local_sqnr_db=45.0, clipped=0.0),
    TensorError("same", "n3", None, "none", 3),
]


def debugged(found: list[TensorError]) -> Report:
    return sample_reports.report("debug", tensors=found)


def blocks(found: list[TensorError], *, every: bool = False) -> dict[str, Block]:
    return {block.title: block for block in outline(debugged(found), every=every)}


def test_worst_values_with_their_causes() -> None:
    block = blocks(FOUND)["worst values first"]
    assert block.columns == ("value", "cause", "SQNR", "made here")
    assert block.rows == (
        ("late", "inherited from early", "11.2 dB", "44.0 dB"),
        ("early", "clipping of 3.1 % of the elements", "12.5 dB", "12.5 dB"),
        ("x", "rounding", "45.0 dB", "45.0 dB"),
        ("same", "none", "identical", "identical"),
    )
    assert blocks(FOUND, every=True)["worst values first"].rows[2][:2] == ("x", "(input)")


def test_the_picture_follows_the_graph() -> None:
    block = blocks(FOUND)["error along the graph"]
    assert [row[0] for row in block.rows] == ["x", "early", "late", "same"]
    lengths = [len(row[1]) for row in block.rows]
    assert lengths == [10, 32, 32, 0]
    assert block.rows[-1][2] == "identical"


def test_a_long_graph_is_shown_in_stretches() -> None:
    many = [TensorError(f"v{place}", f"n{place}", 50.0 - place % 7, "rounding", place) for place in range(1000)]
    many.sort(key=lambda each: each.sqnr_db or 0)
    shown = blocks(many)
    assert len(shown["error along the graph"].rows) <= 24
    assert {row[2] for row in shown["error along the graph"].rows} == {"44.0 dB"}
    assert shown["error along the graph"].rows[-1][0] == "v999"
    assert len(shown["worst values first"].rows) == 15
    assert "985 better ones" in shown["worst values first"].lines[0].text
    assert len(blocks(many, every=True)["worst values first"].rows) == 1000


def test_causes_are_counted() -> None:
    (line,) = (line.text for block in outline(debugged(FOUND)) for line in block.lines if "compared" in line.text)
    assert line == "4 values compared; causes: 1 inherited, 1 clipping, 1 rounding"
    none = [TensorError("y", "n", None, "none", 0)]
    assert any("no error at all" in line.text for block in outline(debugged(none)) for line in block.lines)


def test_other_views_and_json() -> None:
    assert "| late | inherited from early |" in markdown.render(debugged(FOUND))
    first, *_, last = debugged(FOUND).to_dict()["tensors"]
    assert first == {
        "name": "late",
        "node": "n2",
        "sqnr_db": 11.25,
        "cause": "inherited",
        "place": 2,
        "source": "early",
        "local_sqnr_db": 44.0,
        "clipped": 0.0,
    }
    assert last == {"name": "same", "node": "n3", "cause": "none", "place": 3}
