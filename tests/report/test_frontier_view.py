"""The candidates of a search, as the report shows them."""

import sample_reports

from onnxqp.report.outline import outline
from onnxqp.report.records import FrontierPoint


def blocks(points):
    return [b for b in outline(sample_reports.report("quantize", frontier=points)) if b.title == "candidates judged"]


def test_every_candidate_has_a_row_and_the_taken_one_says_so():
    points = [
        FrontierPoint(2.0, {"nodes_on_integers": 12}, chosen=False, accuracy=88.0, agreement=97.5),
        FrontierPoint(1.5, {"nodes_on_integers": 7}, chosen=True, accuracy=89.25, agreement=99.0),
    ]
    (block,) = blocks(points)
    assert block.columns == ("", "int8 nodes", "speed-up", "accuracy", "agreement")
    assert block.rows == (("", "12", "2.00x", "88.00", "97.5 %"), ("taken", "7", "1.50x", "89.25", "99.0 %"))


def test_columns_that_nobody_has_are_left_out():
    (block,) = blocks([FrontierPoint(1.25, {}, chosen=True, size_ratio=3.5)])
    assert block.columns == ("", "speed-up", "smaller")
    assert block.rows == (("taken", "1.25x", "3.50x"),)


def test_without_a_search_there_is_no_table():
    assert blocks(None) == []


def test_it_says_what_keeps_the_budgets_and_why_one_was_taken():
    settings = {"macs_ratio": 0.5, "weights_packed": 3}
    points = [FrontierPoint(1.5, settings, chosen=True, kept=True), FrontierPoint(2.0, {}, chosen=False, kept=False)]
    report = sample_reports.report("compress", frontier=points, choice="taken is the fastest")
    (block,) = (each for each in outline(report) if each.title == "candidates judged")
    assert block.columns == ("", "MACs left", "4-bit weights", "speed-up", "budgets")
    assert [row[-1] for row in block.rows] == ["kept", "missed"]
    assert [line.text for line in block.lines] == ["taken is the fastest"]
