"""The views: what comes from a model is shown literally, whatever the form."""

from __future__ import annotations

import dataclasses
import io
import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sample_reports import KEPT, MISSED, pruned, quantized, summary

from onnxqp.report import junit, markdown, table
from onnxqp.report.records import NodeNote, Proof, Report


def screen(report: Report, **options: bool) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(table.render(report, **options))
    return stream.getvalue()


def with_name(name: str) -> Report:
    quantization = dataclasses.replace(
        quantized().quantization, left_float=[NodeNote(name, "Conv", f"because of {name}")]
    )
    return quantized(input=summary(name), quantization=quantization, warnings=[f"node {name}"])


def test_screen_shows_the_numbers_and_keeps_ascii() -> None:
    text = screen(quantized(gates=[MISSED, KEPT]))
    assert "1.50x faster" in text
    assert "MISSED" in text
    assert text.isascii()


def test_screen_takes_no_markup_from_names() -> None:
    text = screen(with_name("[red]conv[/red] :smile:"), every=True)
    assert "[red]conv[/red] :smile:" in text


def test_screen_leaves_warnings_to_the_other_stream() -> None:
    assert "inputs were synthesised" not in screen(quantized(warnings=["inputs were synthesised"]))


def test_markdown_is_a_document_with_tables_and_warnings() -> None:
    text = markdown.render(quantized(warnings=["inputs were synthesised"], gates=[KEPT]))
    assert text.startswith("# onnxqp quantize: passed\n")
    assert "- inputs were synthesised" in text
    assert "| size | 1.10 MB | 308 kB | 3.56x smaller |" in text
    assert "| --- | ---: | ---: | ---: |" in text


def test_markdown_says_when_a_gate_was_missed() -> None:
    assert markdown.render(quantized(passed=False, gates=[MISSED])).startswith("# onnxqp quantize: FAILED\n")


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab|`*_<>[]()!&#@\n\r\\~$:/w.\x1b"), max_size=12))
def test_markdown_escapes_names(name: str) -> None:
    escaped = markdown.escape(name)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*[|`*_<>\[\]~$]", escaped)
    assert not re.search(r"@|www\.|://", escaped)
    for line in markdown.render(with_name(name)).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (4, 5)


def test_junit_has_a_case_per_gate_and_one_for_the_verification() -> None:
    suite = ElementTree.fromstring(junit.render(quantized(passed=False, gates=[MISSED, KEPT]))).find("testsuite")
    assert suite is not None
    assert [case.get("name") for case in suite.findall("testcase")] == ["verification", "max-drop", "max-size"]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "0")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "max-drop missed: value 0.14, limit 0.10"


def test_junit_shows_the_proof_as_it_went() -> None:
    def outcome(proof: Proof) -> list[str]:
        report = pruned(pruning=dataclasses.replace(pruned().pruning, proof=proof))
        case = ElementTree.fromstring(junit.render(report)).find("testsuite/testcase[@name='proof']")
        assert case is not None
        return [child.tag for child in case]

    assert outcome(Proof(True, 1e-7, 1e-3)) == []
    assert outcome(Proof(False, None, 1e-3, "does not run")) == ["skipped"]
    assert outcome(Proof(False, 0.3, 1e-3)) == ["failure"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12))
def test_junit_is_xml_whatever_a_model_is_called(name: str) -> None:
    ElementTree.fromstring(junit.render(with_name(name)))
