"""What a report says, whatever the view."""

from __future__ import annotations

import dataclasses

import pytest
from sample_reports import KEPT, MISSED, benched, inspected, latency, pruned, quantized, report, summary

from onnxqp.report.blocks import Block
from onnxqp.report.outline import outline
from onnxqp.report.records import Gate, NodeNote, Proof, Report, Size


def said(blocks: list[Block]) -> str:
    """Everything in the blocks, as one text."""
    parts = [block.title for block in blocks]
    parts += [" | ".join(row) for block in blocks for row in (block.columns, *block.rows)]
    return "\n".join([*parts, *(line.text for block in blocks for line in block.lines)])


def rows(report: Report, title: str, *, every: bool = False, groups: bool = False) -> list[tuple[str, ...]]:
    return [row for block in outline(report, every=every, groups=groups) if block.title == title for row in block.rows]


def test_every_row_has_a_cell_per_column() -> None:
    for sample in (quantized(), pruned(), benched(), inspected(), inspected(output=summary("b.onnx", operators={}))):
        for block in outline(sample, every=True, groups=True):
            assert all(len(row) == len(block.columns) for row in block.rows), block.title


def test_before_and_after_of_a_quantized_model() -> None:
    table = {row[0]: row[1:] for row in rows(quantized(), "net.onnx -> net.int8.onnx")}
    assert table["size"] == ("1.10 MB", "308 kB", "3.56x smaller")
    assert table["latency p50"] == ("1.20 ms", "0.800 ms", "1.50x faster")
    assert table["top1"] == ("88.04 %", "87.90 %", "-0.14 points")
    assert table["nodes"] == ("73", "190", "+160.3 %")
    assert table["parameters"][2] == "same"


def test_speedup_comes_with_interval_and_noise() -> None:
    text = said(outline(quantized()))
    assert "speed-up 1.50x (95 % interval 1.45 to 1.55, noise 0.4 %); 1 thread, batch 1, 200 runs each" in text
    assert "top1 on 5000 labelled samples: drop 0.14 (95 % interval -0.10 to 0.40), 25 predictions changed" in text
    assert "top-1 agreement 99.5 %, cosine 0.9995 (worst 0.9800), SQNR 31.5 dB" in text
    assert "calibrated on 205 samples of the data, 51 held back, method percentile" in text


@pytest.mark.parametrize(
    "same",
    [latency(1.0, 0.98, speedup_ci=(0.97, 1.06)), latency(1.0, 0.9, speedup_ci=(1.05, 1.2), noise=0.2)],
    ids=["interval holds 1", "inside the noise"],
)
def test_a_speedup_that_may_be_chance_says_so(same: object) -> None:
    assert "not distinguishable from 1" in said(outline(quantized(latency=same)))


def test_slower_and_larger_are_called_so() -> None:
    worse = quantized(latency=latency(1.0, 2.0), size=Size(100, 200, 0.5))
    text = said(outline(worse))
    assert "2.00x slower" in text
    assert "2.00x larger" in text


def test_a_metric_that_is_no_percentage_keeps_its_unit() -> None:
    accuracy = dataclasses.replace(quantized().accuracy, metric="mAP", baseline=0.617, candidate=0.6, drop=0.017)
    table = {row[0]: row[1:] for row in rows(quantized(accuracy=accuracy), "net.onnx -> net.int8.onnx")}
    assert table["mAP"] == ("0.617", "0.6", "-0.02")


def test_reasons_are_counted_by_kind_and_named_on_demand() -> None:
    assert rows(quantized(), "left in float") == [("Softmax", "no integer kernel", "2")]
    assert [row[0] for row in rows(quantized(), "left in float", every=True)] == ["sm", "sm2"]


def test_a_plan_is_not_told_as_a_deed() -> None:
    planned = quantized(arguments={"dry_run": True}, output=None)
    assert "20 of 22 quantizable nodes would be quantized" in said(outline(planned))
    assert "integer kernels" not in said(outline(planned))
    assert "20 of 22 quantizable nodes quantized; 19 run as integer kernels" in said(outline(quantized()))


def test_many_kinds_of_reasons_are_cut_and_the_rest_is_counted() -> None:
    notes = [NodeNote(f"n{i}", "Op", f"reason {chr(97 + i)}") for i in range(20)]
    many = quantized(quantization=dataclasses.replace(quantized().quantization, left_float=notes))
    assert len(rows(many, "left in float")) == 12
    assert "and 8 more kinds" in said(outline(many))


def test_reasons_that_differ_in_names_and_figures_alone_are_one_kind() -> None:
    told = ["its input 'a/b' is float", "its input 'c' is float", "saves 0.05 us of int8", "saves 3.5e+03 us of int8"]
    notes = [NodeNote(f"n{i}", "Op", reason) for i, reason in enumerate([*told, "it ends in opset 13"])]
    some = quantized(quantization=dataclasses.replace(quantized().quantization, left_float=notes))
    assert rows(some, "left in float") == [
        ("Op", "its input … is float", "2"),
        ("Op", "saves … us of int8", "2"),
        ("Op", "it ends in opset 13", "1"),
    ]
    assert [row[2] for row in rows(some, "left in float", every=True)] == [*told, "it ends in opset 13"]


def test_pruning_shows_channels_proof_and_reasons() -> None:
    text = said(outline(pruned()))
    assert "channels | 688 | 344 | -50.0 %" in text
    assert "proof: pruned equals masked: largest difference 3.1e-07 (tolerance 1.0e-03)" in text
    assert "reaches the graph output y | 1" in text
    assert "conv1.weight" not in text
    assert "conv1.weight, conv2.weight | 16 | 8 | l1" in said(outline(pruned(), groups=True))


def test_a_pruning_plan_promises_no_figures() -> None:
    text = said(outline(pruned(arguments={"dry_run": True}, output=None)))
    assert "1 pinned; 1 would be cut" in text
    assert "of the original" not in text


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (Proof(False, None, 1e-3, "the model does not run"), "proof: skipped, the model does not run"),
        (Proof(False, 0.5, 1e-3), "pruned and masked differ by 0.5"),
    ],
)
def test_a_proof_that_did_not_hold_is_never_shown_as_one(proof: Proof, words: str) -> None:
    text = said(outline(pruned(pruning=dataclasses.replace(pruned().pruning, proof=proof))))
    assert words in text
    assert "equals" not in text


def test_gates_in_their_units_and_the_verdict() -> None:
    missed = quantized(passed=False, gates=[MISSED, KEPT, Gate("min-agreement", 99, 99.5, True)])
    assert rows(missed, "gates") == [
        ("max-drop", "0.10", "0.14", "MISSED"),
        ("max-size", "500 kB", "308 kB", "passed"),
        ("min-agreement", "99.0 %", "99.5 %", "passed"),
    ]
    assert "FAILED: max-drop missed" in said(outline(missed))
    assert "FAILED" not in said(outline(quantized(gates=[KEPT])))


def test_inspect_lists_operators_and_on_demand_layers() -> None:
    assert rows(inspected(), "operators") == [("Conv", "21"), ("Relu", "19")]
    assert not rows(inspected(), "layers")
    assert rows(inspected(), "layers", every=True) == [("conv1", "Conv", "1x16x32x32", "448", "442 k")]


def test_inspect_of_two_models_shows_what_differs() -> None:
    other = summary("b.onnx", bytes=1000, operators={"Conv": 21, "Relu": 1, "Add": 2})
    both = inspected(output=other)
    assert rows(both, "operators") == [("Relu", "19", "1", "-18"), ("Add", "0", "2", "+2")]
    assert ("size", "1.10 MB", "1.00 kB", "1096.27x smaller") in rows(both, "net.onnx -> b.onnx")
    same = inspected(output=inspected().input)
    assert "the same in both models" in said(outline(same))


def test_bench_compares_with_the_first_model() -> None:
    assert [(row[0], row[-1]) for row in rows(benched(), "latency")] == [("a.onnx", "1.00x"), ("b.onnx", "2.00x")]


def test_a_report_with_almost_nothing_is_no_trouble() -> None:
    assert "took 3.3 s" in said(outline(report(input=None)))


def test_the_end_says_what_was_written() -> None:
    missed = quantized(passed=False, gates=[MISSED])
    assert "wrote net.int8.onnx" in said(outline(quantized()))
    assert "nothing written" in said(outline(missed))
    assert "wrote net.int8.onnx" in said(outline(dataclasses.replace(missed, arguments={"keep_failed": True})))
    assert "dry run: nothing written" in said(outline(quantized(arguments={"dry_run": True}, output=None)))
    assert "written" not in said(outline(benched()))
