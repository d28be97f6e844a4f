"""`nitro-analyze`: the command line. Errors become one sentence and an exit code; see `nitro.errors`."""

from __future__ import annotations

import atexit
import gc
import io
import sys
import warnings
from typing import TextIO

import click

from nitro import __version__, commands
from nitro.errors import NitroError, NitroWarning
from nitro.registry import declared

DEFAULT_COMMAND = "analyze"


class _DefaultGroup(click.Group):
    """A group whose default command runs when the first word is no command, as in `nitro-analyze trace.sqlite`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own_flags = {"--help", "-h", "--version"}
        if args and args[0] not in self.commands and args[0] not in own_flags:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_DefaultGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="nitro-analyze")
def group() -> None:
    """Where time and energy go when a small NVIDIA GPU runs vision-language inference.

    `nitro-analyze trace.sqlite` prints the overview of a trace.
    """


for _command in declared(commands, "COMMAND", click.Command):
    group.add_command(_command)


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001 - the names are those of `warnings.showwarning`
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Print a warning of ours as one sentence; those of libraries are of no use to who runs the command."""
    if issubclass(category, NitroWarning):
        click.echo(f"nitro-analyze: {message}", err=True)


def main() -> None:
    """Run the command line and exit."""
    # One short run makes few reference cycles; looking for them costs more than it frees, at its end too.
    gc.disable()
    atexit.register(gc.freeze)
    warnings.showwarning = _say_warning
    for stream in (sys.stdout, sys.stderr):
        # Where the terminal's encoding lacks a letter, a question mark is better than no answer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(group.main(standalone_mode=False) or 0)
    except NitroError as error:
        click.echo(f"nitro-analyze: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("nitro-analyze: interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
