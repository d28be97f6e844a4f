"""C++ names of kernels: readable again where a tool recorded the mangled form."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import cache

_MANGLED = re.compile(r"_Z[NLKrV]*\d|_Z[NS]")
# The C++ runtimes of Linux and macOS. Either has __cxa_demangle, which is part of the C++ ABI.
_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.1.dylib")


def demangled(name: str) -> str:
    """Return a C++ name as it was written; the name itself where it is not mangled or no C++ runtime is at hand."""
    if not _MANGLED.match(name):
        return name
    convert = _demangler()
    return (convert(name) if convert else None) or name


def function_name(name: str) -> str:
    """Return the function name alone: without return type, namespaces, template arguments and parameters.

    A mangled name is cut out of its mangled form.
    """
    if name.startswith("_Z"):
        return _last_part(name) or name
    depth = 0
    kept = []
    for letter in name.replace("(anonymous namespace)", "").replace("operator()", "operator"):
        if letter in "<(":
            depth += 1
            if letter == "(" and depth == 1:
                break
        elif letter in ">)":
            depth -= 1
        elif depth == 0:
            kept.append(letter)
    words = "".join(kept).replace("::", " ").split()
    return words[-1] if words else name


def _last_part(mangled: str) -> str | None:
    """Return the last of the length-prefixed names at the head of a mangled name."""
    position = re.compile(r"_ZN?[KVrO]*L?").match(mangled)
    start, found = (position.end() if position else 0), None
    while (length := re.compile(r"\d+").match(mangled, start)) is not None:
        end = length.end() + int(length.group())
        found, start = mangled[length.end() : end], end
    return found


@cache
def _demangler() -> Callable[[str], str | None] | None:
    for library in _RUNTIMES:
        try:
            return _demangler_of(ctypes.CDLL(library))
        except (OSError, AttributeError):  # noqa: PERF203 - two or three tries
            continue
    return None


def _demangler_of(runtime: ctypes.CDLL) -> Callable[[str], str | None]:
    demangle, release = runtime.__cxa_demangle, ctypes.CDLL(None).free
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    demangle.restype = ctypes.c_void_p
    release.argtypes = [ctypes.c_void_p]
    release.restype = None

    def convert(name: str) -> str | None:
        status = ctypes.c_int()
        made = demangle(name.encode(), None, None, ctypes.byref(status))
        if not made:
            return None
        text = ctypes.string_at(made).decode(errors="replace")
        release(made)
        return text

    return convert
