"""The results of a study on disk: a file a case, written as soon as it is measured, and one document of all of them.

The document (`study.json`):

    format            version of this layout
    identity          device, driver, compiler, library and device source that all cases were measured with
    protocol          budget of SMs (null: the whole GPU), rungs of tuning, judging samples, what counts as a tie
    summary           geometric means, targets, prediction, regret, winners; see `study_summary`
    rows              the numbers of the table, a case each; see `study_summary.row`
    cases             everything measured; see `study_results.CaseResult`
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from nitro.errors import InputError

from . import nvrtc
from .json_types import UNREADABLE, reason
from .runtime import DeviceFacts, Runtime
from .sm_budget import Budget
from .study import EXHAUSTIVE, Lab
from .study_results import RESULT_FORMAT, CaseResult, check_rounds
from .study_summary import TIE, row, summarise
from .subjects import subjects
from .tuner import Rung, source_digest, write_whole
from .vendor import Library


@dataclass(frozen=True, slots=True)
class _Identity:
    """What `identity_of` says, to check a file with."""

    device: DeviceFacts
    nvrtc: str
    library: dict[str, str] | None
    device_source: str | None


@dataclass(frozen=True, slots=True)
class _CaseFile:
    format: int
    identity: dict[str, Any]
    result: CaseResult


@dataclass(frozen=True, slots=True)
class _Protocol:
    """What `protocol_of` says, to check a file with."""

    budget: Budget | None
    tuning: tuple[Rung, ...]
    judging: Rung
    exhaustive: Rung | None
    tie: float


@dataclass(frozen=True, slots=True)
class _Document:
    """What is read of a document; the rest follows from it."""

    format: int
    identity: _Identity
    protocol: _Protocol
    cases: tuple[CaseResult, ...]


def identity_of(runtime: Runtime, library: Library | None) -> dict[str, Any]:
    """Return what results depend on beside the case: they are only put together if it is the same."""
    return {
        "device": asdict(runtime.facts),
        "nvrtc": ".".join(map(str, nvrtc.find().version)),
        "library": library.versions if library else None,
        "device_source": source_digest(),
    }


def protocol_of(lab: Lab) -> dict[str, Any]:
    """Return how cases are measured."""
    return {
        "budget": asdict(lab.budget) if lab.budget else None,
        "tuning": [asdict(rung) for rung in lab.rungs],
        "judging": asdict(lab.judging),
        "exhaustive": asdict(EXHAUSTIVE),
        "tie": TIE,
    }


class CaseFiles:
    """The files of the cases in a folder."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Use a folder, which need not exist."""
        self.folder, self.identity = folder, identity

    def path(self, name: str) -> Path:
        """Return where the result of a case is kept."""
        return self.folder / f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}.json"

    def write(self, result: CaseResult) -> None:
        """Keep a result.

        Raises:
            InputError: it cannot be written.
        """
        content = {"format": RESULT_FORMAT, "identity": self.identity, "result": result.as_dict()}
        write_whole(self.path(result.name), json.dumps(content))

    def note_failure(self, name: str, reason: str) -> None:
        """Remember that a case failed, so that it does not stand in the way of the others next time.

        Raises:
            InputError: it cannot be written.
        """
        write_whole(self.path(name).with_suffix(".failed"), reason)

    def has_failed(self, name: str) -> bool:
        """Tell whether a case failed before."""
        return self.path(name).with_suffix(".failed").exists()

    def read(self, name: str) -> CaseResult | None:
        """Return a result with the same identity, None if there is none."""
        try:
            content = msgspec.json.decode(self.path(name).read_bytes(), type=_CaseFile)
        except (OSError, *UNREADABLE):
            return None
        return content.result if content.format == RESULT_FORMAT and content.identity == self.identity else None


def budget_of(protocol: Mapping[str, Any]) -> Budget | None:
    """Return the part of a GPU that a study was measured on; None for a whole one."""
    budget = dict(protocol).get("budget")
    return Budget(**budget) if budget else None


def document(results: Sequence[CaseResult], identity: dict[str, Any], protocol: dict[str, Any]) -> str:
    """Return the document of a study: JSON with one case a line."""
    head = {
        "format": RESULT_FORMAT,
        "identity": identity,
        "protocol": protocol,
        "summary": summarise(results, budget_of(protocol)),
        "rows": [row(one) for one in results],
    }
    text = json.dumps(head, indent=1)
    lines = ",\n".join(json.dumps(one.as_dict(), separators=(",", ":")) for one in results)
    return f'{text[:-2]},\n "cases": [\n{lines}\n ]\n}}'


def read_document(path: Path) -> tuple[list[CaseResult], dict[str, Any]]:
    """Return the results of a study and its whole document.

    Raises:
        InputError: it cannot be read, or is no such document.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        form = content.get("format")
        if form != RESULT_FORMAT:
            raise InputError(
                f"{path}: this study has format {form!a}, this version reads {RESULT_FORMAT}; "
                "read it with the version that wrote it."
            )
        results = msgspec.convert(content, _Document).cases
        for one in results:
            check_rounds(one)
        return list(results), content
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: this is no study of fused kernels ({reason(error)}); name another file.") from error


def merged(paths: Sequence[Path]) -> str:
    """Return the document of a study that was measured in parts, the cases in their committed order.

    Raises:
        InputError: a part cannot be read, was measured with something else, or has a case that another one has.
    """
    results: dict[str, CaseResult] = {}
    first: dict[str, Any] | None = None
    for path in paths:
        part, content = read_document(path)
        first = first or content
        for what in ("identity", "protocol"):
            if content[what] != first[what]:
                raise InputError(f"{path}: its {what} is not that of {paths[0]}; measure both in the same way.")
        for one in part:
            if one.name in results:
                raise InputError(f"{path}: {one.name} is in another part as well; leave one of them out.")
            results[one.name] = one
    if first is None:
        raise InputError("there is no part of a study to put together; name at least one.")
    order = {subject.name: index for index, subject in enumerate(subjects())}
    ordered = sorted(results.values(), key=lambda one: order.get(one.name, len(order)))
    return document(ordered, first["identity"], first["protocol"])
