"""The program `onnxqp` and its commands."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from onnxqp import __version__
from onnxqp.cli.bench import bench
from onnxqp.cli.calibrate import calibrate
from onnxqp.cli.compress import compress
from onnxqp.cli.debug import debug
from onnxqp.cli.doctor import doctor
from onnxqp.cli.inspect import inspect
from onnxqp.cli.ops import ops
from onnxqp.cli.prune import prune
from onnxqp.cli.quantize import quantize
from onnxqp.cli.sensitivity import sensitivity
from onnxqp.cli.usage import nearest
from onnxqp.cli.validate import validate
from onnxqp.errors import UsageError


class Program(click.Group):
    """The group of commands, in the order in which they are read, not in that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            near = nearest(args[0], self.commands)
            hint = f"did you mean onnxqp {near}?" if near else f"commands: {', '.join(self.commands)}"
            raise UsageError(f"no such command: {args[0]}", hint=hint)
        return super().resolve_command(ctx, args)


def _versions(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"onnxqp {__version__}")
    for name, distribution in (("onnx", "onnx"), ("onnx_ir", "onnx-ir"), ("onnxruntime", "onnxruntime")):
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = "not installed"
        click.echo(f"{name} {version}")
    click.echo(f"python {platform.python_version()}")
    context.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="onnxqp COMMAND --help shows the options of a command, with examples.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_versions, help="Show versions and exit."
)
@click.pass_context
def onnxqp(context: click.Context) -> None:
    """Make a trained ONNX model smaller and faster, and prove that it still works."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        raise UsageError("no command given", hint="choose one of the commands above, for example onnxqp inspect MODEL")


for command in (inspect, quantize, prune, compress, validate, bench, debug, sensitivity, calibrate, ops, doctor):
    onnxqp.add_command(command)
