"""The Jinja2 environment of the documents: ours behind the user's templates, everything escaped."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from nitro.errors import NitroError, UsageError

from .names import printable

_OPTIONAL = "user.css"
_HAS_USERS = "has_user_templates"
_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class _UsersTemplates(jinja2.FileSystemLoader):
    """The folder of the user."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Return a file of the folder, see Jinja2."""
        try:
            return super().get_source(environment, template)
        except UnicodeDecodeError:
            raise UsageError(f"{template} of --template: this is not UTF-8; save it as UTF-8.") from None


def environment(user_templates: Path | None) -> jinja2.Environment:
    """Return the environment; files of `user_templates` stand in front of ours of the same name.

    Raises:
        UsageError: the folder does not exist.
    """
    loaders: list[jinja2.BaseLoader] = [jinja2.PackageLoader("nitro", "templates")]
    if user_templates is not None:
        if not user_templates.is_dir():
            raise UsageError(f"{user_templates}: this is no folder; --template takes a folder of templates and CSS.")
        loaders.insert(0, _UsersTemplates(user_templates))
    # A template of a stranger may loop and escape, but not call into Python.
    made = SandboxedEnvironment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals[_HAS_USERS] = user_templates is not None
    return made


def raw(made: jinja2.Environment, *names: str) -> Markup:
    """Return files of the template folders as they are, one after the other; stylesheets and scripts are no templates.

    A file that does not exist adds nothing: a user's `user.css` need not be there.
    """
    return Markup("\n".join(_source(made, name) for name in names))


def _source(made: jinja2.Environment, name: str) -> str:
    assert made.loader is not None
    try:
        return made.loader.get_source(made, name)[0]
    except jinja2.TemplateNotFound:
        if name == _OPTIONAL:
            return ""
        raise


def rendered(made: jinja2.Environment, name: str, values: Mapping[str, Any]) -> str:
    """Render a template.

    Raises:
        UsageError: a template of the user has a mistake; the message names the file and the line.
    """
    try:
        return made.get_template(name).render(values)
    except jinja2.TemplateSyntaxError as error:
        where = f"{error.filename or error.name}, line {error.lineno}"
        raise UsageError(f"{where}: {error.message}; mend the template.") from None
    except NitroError:
        raise
    except Exception as error:
        if not made.globals[_HAS_USERS]:
            raise
        # Whatever a user's template does wrong happens in a frame that bears its name.
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".html")]
        where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
        raise UsageError(f"{where}: {type(error).__name__}: {error}; mend the template.") from None


def json_in_script(value: Any) -> Markup:
    """Return a value as JSON that may stand in a script element, whatever is in its texts."""
    text = json.dumps(_clean(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_IN_SCRIPT))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(part) for part in value]
    return value
