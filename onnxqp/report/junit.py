"""The report as JUnit XML: one test case per gate, one for the verification of the result, one for the proof.

The dialect is what GitLab, Jenkins and Azure read: `testsuites/testsuite/testcase` with `failure` or `skipped`.
"""

from __future__ import annotations

from xml.etree import ElementTree

from onnxqp.report.outline import gate_value
from onnxqp.report.records import Gate, Proof, Report
from onnxqp.report.text import printable


def render(report: Report) -> bytes:
    """The document, UTF-8 with its XML declaration."""
    suite = ElementTree.Element("testsuite", name=_name(report))
    if report.output is not None and report.command != "inspect":
        _case(suite, report, "verification")
    if report.pruning is not None and report.pruning.proof is not None:
        _proof(suite, report, report.pruning.proof)
    for gate in report.gates:
        _gate(suite, report, gate)
    if len(suite) == 0:
        _case(suite, report, "completed")
    if report.warnings:
        ElementTree.SubElement(suite, "system-err").text = "\n".join(map(printable, report.warnings))
    totals = {
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(len(suite.findall("testcase/failure"))),
        "skipped": str(len(suite.findall("testcase/skipped"))),
        "errors": "0",
        "time": f"{sum(report.seconds.values()):.3f}",
    }
    for key, value in totals.items():
        suite.set(key, value)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _name(report: Report) -> str:
    return printable(f"onnxqp {report.command} {report.input.path}" if report.input else f"onnxqp {report.command}")


def _case(suite: ElementTree.Element, report: Report, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=f"onnxqp.{report.command}", name=printable(name))


def _gate(suite: ElementTree.Element, report: Report, gate: Gate) -> None:
    case = _case(suite, report, gate.name)
    found = f"value {gate_value(gate, gate.value)}, limit {gate_value(gate, gate.limit)}"
    if gate.passed:
        ElementTree.SubElement(case, "system-out").text = printable(found)
    else:
        ElementTree.SubElement(case, "failure", message=printable(f"{gate.name} missed: {found}"), type="gate")


def _proof(suite: ElementTree.Element, report: Report, proof: Proof) -> None:
    case = _case(suite, report, "proof")
    if proof.checked:
        return
    if proof.skipped_reason is not None:
        ElementTree.SubElement(case, "skipped", message=printable(proof.skipped_reason))
        return
    message = f"pruned and masked differ by {proof.max_abs_diff}, tolerance {proof.tolerance}"
    ElementTree.SubElement(case, "failure", message=message, type="proof")
