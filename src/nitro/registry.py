"""Discovery of plug-ins: every module of a package declares one object under an agreed name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def declared(package: ModuleType, constant: str, kind: type[T]) -> tuple[T, ...]:
    """Return what the modules of `package` declare as `constant`, in the order of the module names.

    Modules whose name starts with an underscore are helpers and are passed over.

    Raises:
        TypeError: a module lacks the constant, or it is not a `kind`.
    """
    found: list[T] = []
    for module_info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        value = getattr(module, constant, None)
        if not isinstance(value, kind):
            raise TypeError(f"{module.__name__} must declare {constant}, a {kind.__name__}")
        found.append(value)
    return tuple(found)
