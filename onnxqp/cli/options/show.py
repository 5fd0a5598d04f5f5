"""What is shown, and where the report goes."""

from __future__ import annotations

from onnxqp.cli import settings
from onnxqp.cli.options.declare import SHOW, gathered, option, switch
from onnxqp.cli.screen import Screen, screen_of

_json = switch(SHOW, "--json", "as_json", help="The report as one JSON object, alone on stdout.")
_debug = switch(SHOW, "--debug", help="Show the traceback of an error.")


def _screen(as_json: bool, report: tuple[str, ...], quiet: bool, verbose: bool, config: None, debug: bool) -> Screen:
    return screen_of(as_json, report, quiet, verbose, debug)


reporting = gathered(
    "screen",
    _screen,
    _json,
    option(
        SHOW,
        "--report",
        metavar="PATH",
        multiple=True,
        help="Also write the report, by suffix: .json, .md, .html, .xml (JUnit). Repeatable.",
    ),
    option(
        SHOW,
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=settings.apply,
        help="The configuration: onnxqp.toml, or [tool.onnxqp] in pyproject.toml; found by itself in the current "
        "folder. The command line beats it.",
    ),
    switch(SHOW, "-q", "--quiet", help="No progress and no warnings on stderr."),
    switch(SHOW, "-v", "--verbose", help="Name every node and layer, not only kinds of them."),
    _debug,
)
plain = gathered("screen", lambda as_json, debug: screen_of(as_json, (), False, False, debug), _json, _debug)
