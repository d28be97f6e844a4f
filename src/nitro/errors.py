"""The errors that a user can meet, each with the exit code of its family.

A message is one sentence with the thing, the fact and the way out. `nitro.cli.main` prints it and exits;
anything else that escapes is a bug.
"""

from __future__ import annotations


class NitroError(Exception):
    """Base of every error that is reported to the user as one sentence."""

    exit_code = 1


class UsageError(NitroError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class ToolError(NitroError):
    """Something outside Nitro that the work needs is missing or failed: a program, a library, a font."""

    exit_code = 5


class NitroWarning(UserWarning):
    """Something that the user should know, in one sentence, while the work goes on."""


class InputError(NitroError):
    """An input file is missing, damaged, or not something that Nitro reads."""

    exit_code = 3
