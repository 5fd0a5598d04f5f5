"""What the command line leaves unsaid: values from the configuration file, and which model is meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxqp import config
from onnxqp.cli.parameters import Number, Option, Size, Step
from onnxqp.cli.usage import explain
from onnxqp.errors import UsageError

GATE = "Gates (a missed one: exit code 1)"  # the heading of the options that [budgets] may hold
_META = "onnxqp.configuration"
_ONLY_HERE = ("help", "config", "debug")  # options that make no sense in a file
_PRODUCTS = (".int8.onnx", ".pruned.onnx", ".compressed.onnx")
_SHOWN = 8  # models listed when the choice between them is the user's


def apply(context: click.Context, parameter: click.Parameter, given: str | None) -> None:
    """Read the configuration and make its values the defaults of this command's options."""
    path = config.find(Path()) if given is None else Path(given)
    if path is None:
        return
    program = context.find_root().command
    commands = program.commands if isinstance(program, click.Group) else {}
    known = {name: _keys(command) for name, command in commands.items() if _configurable(command)}
    gates = {_key(option) for command in commands.values() for option in _options(command) if option.section == GATE}
    found = config.read(path, known, trusted=given is not None, gates=gates)
    context.meta[_META] = found
    values = found.values(context.info_name or "")
    context.default_map = {
        option.name: _accepted(option, context, values[_key(option)], path)
        for option in _options(context.command)
        if option.name is not None and _key(option) in values
    }


def configuration(context: click.Context) -> config.Configuration:
    found = context.meta.get(_META)
    return found if isinstance(found, config.Configuration) else config.Configuration()


def refuse_code(context: click.Context) -> None:
    """Raise UsageError when a value that names code came from a file which nobody named."""
    for key in config.CODE_KEYS:
        if key in context.params and context.get_parameter_source(key) is ParameterSource.DEFAULT_MAP:
            configuration(context).refuse_code(key, context.params[key])


def preprocessing(spec: str | None) -> str | Mapping[str, Any] | None:
    """The table of the configuration that `spec` names, else `spec` itself."""
    tables = configuration(click.get_current_context()).preprocess
    return tables.get(spec, spec) if spec is not None else None


def layer_ratios() -> tuple[tuple[str, float], ...]:
    """The ratios of layers that the configuration has for this command, by glob, in its order."""
    context = click.get_current_context()
    return tuple(configuration(context).layers.get(context.info_name or "", {}).items())


def _accepted(option: click.Option, context: click.Context, value: Any, path: Path) -> Any:
    """`value`, which the option takes; raises UsageError that names the file when it does not."""
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        error.ctx, error.param = context, option
        fault = explain(error)
        raise UsageError(fault.message.removeprefix("--"), where=str(path), hint=fault.hint) from error
    return value


def _configurable(command: click.Command) -> bool:
    return any(param.name == "config" for param in command.params)


def _options(command: click.Command) -> list[Option]:
    return [param for param in command.params if isinstance(param, Option) and _key(param) not in _ONLY_HERE]


def _key(option: click.Option) -> str:
    return max(option.opts, key=len).lstrip("-")


def _keys(command: click.Command) -> dict[str, config.Kind]:
    return {_key(option): _kind(option) for option in _options(command)} | {"model": config.Kind.TEXT}


def _kind(option: click.Option) -> config.Kind:
    if option.is_flag:
        return config.Kind.FLAG
    if option.multiple:
        return config.Kind.TEXTS
    if isinstance(option.type, click.types.IntParamType):
        return config.Kind.INTEGER
    if isinstance(option.type, Number):
        return config.Kind.NUMBER
    return config.Kind.SCALAR if isinstance(option.type, Size | Step) else config.Kind.TEXT


# ---- MODEL left out --------------------------------------------------------------------------------------------


def the_model(given: str | None) -> str:
    """The model that is meant: named, else configured, else the only one in the current folder."""
    if given is not None:
        return given
    context = click.get_current_context()
    configured = configuration(context).values(context.info_name or "").get("model")
    return str(configured) if configured is not None else _only_model(Path())


def _only_model(folder: Path) -> str:
    found = sorted(str(path) for path in folder.glob("*.onnx") if not path.name.endswith(_PRODUCTS))
    if len(found) == 1:
        return found[0]
    if not found:
        products = sorted(path.name for path in folder.glob("*.onnx"))
        rest = f", only results of onnxqp: {_listed(products)}" if products else ""
        raise UsageError(
            f"no MODEL given, and the current folder holds no .onnx file{rest}",
            hint="name the model, or set `model` in onnxqp.toml",
        )
    raise UsageError(
        f"no MODEL given, and the current folder holds {len(found)}: {_listed(found)}",
        hint="name the one you mean, or set `model` in onnxqp.toml",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
