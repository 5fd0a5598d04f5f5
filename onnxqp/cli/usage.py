"""Click's complaints in our own words: what is wrong, and the nearest thing that exists."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click

from onnxqp.errors import UsageError


def explain(error: click.ClickException) -> UsageError:
    """The UsageError that says what `error` says, with a hint."""
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path} --help" if context is not None else "see onnxqp --help"
    message = error.format_message().strip().rstrip(".")
    if isinstance(error, click.BadOptionUsage):
        return UsageError(message.replace("Option ", "").replace("'", ""), hint=hint)
    if isinstance(error, click.NoSuchOption):
        return UsageError(f"no such option: {error.option_name}", hint=_option_hint(error.option_name, context) or hint)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        option = isinstance(error.param, click.Option)
        name = max(error.param.opts, key=len) if option else error.param.human_readable_name
        return UsageError(f"{name} is missing", hint=_pieces(context) or hint)
    if isinstance(error, click.BadParameter) and error.param is not None:
        return _bad_value(error, error.param, hint)
    return UsageError(message, hint=hint)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def option_names(command: click.Command) -> list[str]:
    """All spellings of a command's options, dashes included."""
    return [name for param in command.params if isinstance(param, click.Option) for name in param.opts]


def _option_hint(name: str, context: click.Context | None) -> str | None:
    if context is None:
        return None
    group = context.find_root().command
    if isinstance(group, click.Group):
        owners = [label for label, command in group.commands.items() if name in option_names(command)]
        if owners:
            return f"{name} is an option of {' and '.join(f'onnxqp {owner}' for owner in owners)}"
    near = nearest(name, [*option_names(context.command), *context.help_option_names])
    return f"did you mean {near}?" if near else None


def _pieces(context: click.Context | None) -> str | None:
    if context is None:
        return None
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f"usage: {context.command_path} {pieces}"


def _bad_value(error: click.BadParameter, param: click.Parameter, hint: str) -> UsageError:
    name = param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name
    if isinstance(param.type, click.Choice):
        value = error.message.split("'")[1] if "'" in error.message else ""
        near = nearest(value, [str(choice) for choice in param.type.choices])
        hint = f"did you mean {near}?" if near else hint
    return UsageError(f"{name}: {error.message.strip().rstrip('.')}", hint=hint)
