"""Imports that most commands never need, put off until they are.

onnx_ir imports sympy, 0.3 s of every command, for arithmetic with symbolic sizes, which nothing here asks of it. The
LazyLoader of importlib does not help: it executes a module at the first import statement that finds it.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class _Deferred(ModuleType):
    """A module that is executed once somebody asks for what it does not have yet."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer_sympy() -> None:
    """Let sympy, and the part of onnx_ir that uses it, load when somebody looks into them; nothing where one has."""
    if "sympy" in sys.modules or "onnx_ir" in sys.modules:
        return
    package = find_spec("onnx_ir")
    within = None if package is None else package.submodule_search_locations
    part = PathFinder.find_spec("onnx_ir._symbolic_shapes", within) if within is not None else None
    for spec in (find_spec("sympy"), part):
        if spec is not None:
            _defer(spec)


def _defer(spec: ModuleSpec) -> None:
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules[spec.name] = module
