"""What compute-bound and memory-bound bodies share: the members of their parameters, and what both check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nitro.errors import UsageError

from .problems import ELEMENT_BYTES, DType, Problem, operation_of

FieldKind = Literal["const pointer", "pointer", "int", "int64", "float"]
CPP_ELEMENT: dict[DType, str] = {"float32": "float", "float16": "nitro::half_t", "int32": "int"}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a body's `Params` in `csrc/`: its name, kind and, for a pointer, its element type."""

    name: str
    kind: FieldKind
    dtype: DType = "float32"

    @property
    def cpp(self) -> str:
        """Return the C++ type of the member."""
        if self.kind == "const pointer":
            return f"const {CPP_ELEMENT[self.dtype]}*"
        if self.kind == "pointer":
            return f"{CPP_ELEMENT[self.dtype]}*"
        return {"int": "int", "int64": "long long", "float": "float"}[self.kind]


def fields_of(dtype: DType, inputs: str, scalars: str) -> tuple[Field, ...]:
    """Return fields from names: inputs, the output y, then ints (a name ending in '.' is a float, in '+' an int64)."""
    kinds: dict[str, FieldKind] = {".": "float", "+": "int64"}
    return (
        *(Field(name, "const pointer", "int32" if name == "ids" else dtype) for name in inputs.split()),
        Field("y", "pointer", dtype),
        *(Field(name.rstrip(".+"), kinds.get(name[-1], "int")) for name in scalars.split()),
    )


def flag(value: bool) -> str:
    """Return a value as C++ writes it."""
    return "true" if value else "false"


def pack_width(dtype: DType, aligned: bool, *sizes: int) -> int:
    """Return how many elements can move at once: 16 bytes of them where every size and pointer allows it, else 1."""
    width = 16 // ELEMENT_BYTES[dtype]
    return width if aligned and all(size % width == 0 for size in sizes) else 1


def check_operation(operation: str, dtype: DType, problem: Problem) -> None:
    """Raise UsageError if a body for an operation and element type is not one for a problem."""
    wanted = operation_of(problem)
    if wanted != operation:
        raise UsageError(f"a body for {operation} cannot solve {wanted}; choose a body for {wanted}.")
    if problem.dtype != dtype:
        raise UsageError(f"{operation}: the body is built for {dtype}, the arrays are {problem.dtype}; convert them.")


def check_width(body: str, what: str, size: int, width: int) -> None:
    """Raise UsageError if a size, told what it is, is no multiple of what a body moves at once."""
    if size % width:
        raise UsageError(
            f"{body} moves {width} elements at once and {what} is {size}, no multiple of it; use a body of width 1."
        )
