"""How an option is declared, and how the values of several become one record."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeAlias, cast

import click

from onnxqp.cli import settings
from onnxqp.cli.parameters import Option

Command: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Command], Command]


def gathered(
    keyword: str, build: Callable[..., object], *options: Decorator, without: Collection[str] = ()
) -> Decorator:
    """Add `options` to a command, which gets their values as one record `keyword`, made by `build`.

    The parameters of `build` are named as the options are; those named in `without` keep their defaults.
    """
    names = tuple(name for name in inspect.signature(build).parameters if name not in without)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(**values: object) -> object:
            record = build(**{name: values.pop(name) for name in names})
            return command(**{keyword: record}, **values)

        return functools.reduce(lambda inner, add: add(inner), reversed(options), cast(Command, call))

    return decorate


def option(section: str, *declarations: str, **attributes: Any) -> Decorator:
    return click.option(*declarations, cls=Option, section=section, **attributes)


def switch(section: str, *declarations: str, help: str) -> Decorator:
    return option(section, *declarations, is_flag=True, help=help)


WHAT, WHICH, DATA, MEASURE, GATE, WRITE, SHOW = (
    "How",
    "Which nodes",
    "Data",
    "Measuring",
    settings.GATE,
    "Output",
    "Reporting",
)
