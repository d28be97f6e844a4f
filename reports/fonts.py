"""Whether this machine can draw Korean on paper."""

from __future__ import annotations

import ctypes
import ctypes.util


def has_korean_font() -> bool:
    """Return whether fontconfig, which picks the fonts of a PDF, knows a font with Korean letters.

    Without fontconfig there is no PDF either, so its absence counts as no.
    """
    name = ctypes.util.find_library("fontconfig")
    if name is None:
        return False
    library = ctypes.CDLL(name)
    library.FcNameParse.restype = ctypes.c_void_p
    library.FcNameParse.argtypes = [ctypes.c_char_p]
    library.FcObjectSetCreate.restype = ctypes.c_void_p
    library.FcFontList.restype = ctypes.POINTER(_FontSet)
    library.FcFontList.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.FcFontSetDestroy.argtypes = [ctypes.POINTER(_FontSet)]
    library.FcObjectSetDestroy.argtypes = [ctypes.c_void_p]
    library.FcPatternDestroy.argtypes = [ctypes.c_void_p]
    pattern, no_fields = library.FcNameParse(b":lang=ko"), library.FcObjectSetCreate()
    found = library.FcFontList(None, pattern, no_fields)
    is_there = bool(found) and found.contents.count > 0
    if found:
        library.FcFontSetDestroy(found)
    library.FcObjectSetDestroy(no_fields)
    library.FcPatternDestroy(pattern)
    return is_there


class _FontSet(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int), ("room", ctypes.c_int), ("fonts", ctypes.c_void_p))
