from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxqp.report import text


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345_678, "12.3 MB"), (2.5e9, "2.50 GB")]
)
def test_sizes_are_decimal(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(("count", "shown"), [(9_999, "9999"), (271_117, "271 k"), (41_000_000, "41.0 M")])
def test_quantities(count: int, shown: str) -> None:
    assert text.quantity(count) == shown


def test_a_hundred_percent_means_all_of_it() -> None:
    assert text.percent(100) == "100.0 %"
    assert text.percent(99.98) == "99.98 %"


def test_changes() -> None:
    assert text.change(10, 5) == "-50.0 %"
    assert text.change(0, 5) == "new"
    assert text.change(5, 5) == "same"


@given(st.text())
def test_names_from_a_model_cannot_control_a_terminal(name: str) -> None:
    shown = text.printable(name)
    assert shown.isprintable()
    assert text.printable(shown) == shown


def test_escapes_are_readable() -> None:
    assert text.printable("a\x1b[31m\nb\u202e") == r"a\x1b[31m\nb\u202e"
    assert text.printable("Größe") == "Größe"
