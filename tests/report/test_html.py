"""The HTML report: one file that needs nothing, runs nothing, and shows names from models as mere text."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample_reports as reports
from PIL import Image

from onnxqp.report import html
from onnxqp.report.records import FrontierPoint, Group, Histogram, Latency, NodeNote, PinnedGroup, Report, TensorError

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202e\x1b[31m\ud800\n"
VOID = {"meta", "rect", "br"}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVERY: dict[str, Callable[[], Report]] = {
    "quantize": reports.quantized,
    "prune": reports.pruned,
    "bench": reports.benched,
    "inspect": reports.inspected,
    "compress": reports.searched,
    "debug": reports.traced,
    "nothing": lambda: reports.report(input=None),
}


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains of what is not closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def evil() -> Report:
    """A report in which every text is an attack."""
    pruned = reports.pruned(warnings=[EVIL], input=reports.summary(EVIL), output=reports.summary(EVIL, sha256=EVIL))
    quantization = reports.quantized().quantization
    assert pruned.pruning is not None
    assert quantization is not None
    quantization = dataclasses.replace(quantization, left_float=[NodeNote(EVIL, EVIL, EVIL)])
    return dataclasses.replace(
        pruned,
        command=EVIL,
        quantization=quantization,
        pruning=dataclasses.replace(
            pruned.pruning, groups=[Group(EVIL, [EVIL], 8, 4, EVIL)], pinned=[PinnedGroup(EVIL, [EVIL], EVIL)]
        ),
        machine=dataclasses.replace(pruned.machine, cpu=EVIL, target=EVIL, features=[EVIL]),
        versions={EVIL: EVIL},
        seconds={EVIL: 1.0},
        frontier=[FrontierPoint(speed, {EVIL: EVIL}, False, agreement=90.0 + speed) for speed in (1.0, 2.0)],
        tensors=[TensorError(EVIL, EVIL, 20.0 + place, EVIL, place) for place in (1, 2)],
    )


@pytest.mark.parametrize("kind", EVERY)
def test_it_is_whole_and_needs_nothing(kind: str) -> None:
    page = html.render(EVERY[kind]())
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert {"script", "link", "img", "iframe", "object", "form", "a"}.isdisjoint(parsed.tags)
    assert not re.search(r"https?:|url\(|@import|src=", page)
    assert "default-src 'none'" in page
    assert '<meta name="viewport" content="width=device-width' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_every_text_is_only_text() -> None:
    page = html.render(evil())
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    parsed = Page(page)
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href")]
    assert parsed.text.count("<script>alert(1)</script>") >= 12
    page.encode("utf-8")


def test_it_says_what_the_other_views_say() -> None:
    text = Page(
        html.render(reports.quantized(gates=[reports.MISSED, reports.KEPT], passed=False, warnings=["noisy"]))
    ).text
    for words in (
        "FAILED",
        "3.56x",
        "net.int8.onnx",
        "88.04 %",
        "noisy",
        "Softmax",
        "two consumers",
        "max-drop",
        "MISSED",
    ):
        assert words in text
    pruned = Page(html.render(reports.pruned())).text
    for words in ("passed", "conv1.weight", "16 → 8", "reaches the graph output y", "proof: pruned equals masked"):
        assert words in pruned


def test_many_groups_are_drawn_in_part_and_listed_in_full() -> None:
    report = reports.pruned()
    groups = [Group(f"g{i}", [f"conv{i}"], 16, 8, "l1") for i in range(100)]
    page = html.render(dataclasses.replace(report, pruning=dataclasses.replace(report.pruning, groups=groups)))
    assert page.count('class="bar"') < 60
    assert "60 more groups in the table below" in page
    assert "conv99" in page


@pytest.mark.parametrize("speedup", [0.5, 1.0, 2.0])
def test_bars_stay_inside_their_drawing(speedup: float) -> None:
    latency = reports.latency(2.0, 2.0 / speedup)
    report = reports.quantized(
        latency=latency, gates=[dataclasses.replace(reports.MISSED, name="min-speedup", limit=9.0)]
    )
    for x, width in re.findall(r'<rect x="([\d.-]+)" y="\d+" width="([\d.-]+)"', html.render(report)):
        assert 0 <= float(x) <= 1000
        assert 0 < float(width) <= 1000


def test_the_frontier_is_drawn_with_what_was_taken() -> None:
    page = html.render(reports.searched())
    assert "Candidates of the search" in page
    dots = re.findall(r'<path class="dot ([\w-]+)" d="M([\d.]+) ([\d.]+)h', page)
    assert sorted(style for style, _, _ in dots) == ["dot-after", "dot-before", "dot-good"]
    assert dots[-1][0] == "dot-good", "what was taken lies on top"
    assert all(0 < float(x) < 1000 and 0 < float(y) < 400 for _, x, y in dots)
    assert page.count('<path class="line"') == 1
    assert "3.00x, 98: weights int8" in page


def test_a_frontier_without_classes_is_drawn_by_its_noise() -> None:
    points = [FrontierPoint(speed, {}, speed == 2.0, sqnr_db=level) for speed, level in ((1.0, 120.0), (2.0, 26.5))]
    page = html.render(reports.searched(frontier=points, accuracy=None))
    assert "SQNR in dB (at most 60)" in page
    assert "2.00x, 26.5" in page


def test_the_error_of_every_layer_is_drawn_by_its_cause() -> None:
    page = html.render(reports.traced())
    assert "Error along the graph" in page
    assert re.findall(r'class="dot ([\w-]+)"', page) == ["dot-after", "dot-warm"]
    assert "relu2: 20.0 dB, clipping" in page


def test_how_long_each_run_took_is_drawn_on_one_axis() -> None:
    edges = [1.0, 2.0, 4.0, 8.0]
    before, after = (
        dataclasses.replace(reports.stats(p50), histogram=Histogram(edges, counts))
        for p50, counts in ((3.0, [0, 5, 15]), (1.5, [20, 0, 0]))
    )
    page = html.render(
        reports.quantized(latency=dataclasses.replace(reports.latency(), baseline=before, candidate=after))
    )
    Page(page)
    assert re.findall(r'<path class="(fill-\w+)" d="([^"]+)"', page) == [
        ("fill-before", "M0 60V60.0H333.3V40.0H666.7V0.0H1000.0V60Z"),
        ("fill-after", "M0 60V0.0H333.3V60.0H666.7V60.0H1000.0V60Z"),
    ]
    assert "From 1.00 ms on the left to 8.00 ms or longer" in page
    assert "How long each run took" not in html.render(reports.quantized())


@pytest.mark.parametrize("speedups", [(1.0, 1.0), (1e-9, 1e9), (float("inf"), 2.0), (2.0,)])
def test_degenerate_candidates_are_drawn_too(speedups: tuple[float, ...]) -> None:
    points = [FrontierPoint(speedup, {}, True, agreement=100.0) for speedup in speedups]
    page = html.render(reports.searched(frontier=points))
    Page(page)
    assert "nan" not in page.lower().replace("nanosecond", "")


def test_degenerate_numbers_are_drawn_too() -> None:
    none = dataclasses.replace(reports.stats(1.0), p50_ms=0.0, p90_ms=0.0, p99_ms=0.0)
    still = Latency(none, none, 0.0, (0.0, 0.0), 0.0, 1, 1)
    Page(html.render(reports.quantized(latency=still)))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page was only parsed, not looked at")
@pytest.mark.parametrize("width", [1280, 500])  # a headless window is no narrower than 500
def test_a_browser_shows_it(tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(html.render(reports.searched()), encoding="utf-8")
    picture = tmp_path / "report.png"
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    flags = ["--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", *(f"--disable-{it}" for it in quiet)]
    subprocess.run(
        [
            BROWSER,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},1500",
            f"--screenshot={picture}",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        timeout=90,
        check=False,
    )
    with Image.open(picture) as image:
        assert image.size == (width, 1500)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert (9, 105, 218) in colours, "the bars of the result are drawn"
    assert len(colours) > 50
