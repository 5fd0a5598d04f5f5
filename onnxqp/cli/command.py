"""How commands are made: options in sections, examples below them, configuration above them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import click

from onnxqp.cli import settings
from onnxqp.cli.boundary import Stopped
from onnxqp.cli.parameters import Option

_MODELS = ("model", "models", "baseline")  # names of arguments that are files of models


class Command(click.Command):
    """A command whose help shows its options in sections and ends with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        attributes.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(*arguments, **attributes)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # the parser does not always say which command it was reading for
            raise
        settings.refuse_code(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        if any(param.name in _MODELS for param in self.params):
            from onnxqp import probe

            probe.warm()  # the child that looks at models first starts while this process imports what it needs
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # click would print a line of its own
            raise Stopped(signal.SIGINT) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                section = param.section if isinstance(param, Option) else "Reporting"
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if any(param.name == "preprocess" for param in self.params):
            from onnxqp.data.preprocess import PRESETS

            with formatter.section("Presets of --preprocess"):
                formatter.write_dl([(name, preset.describe()) for name, preset in PRESETS.items()])
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
