"""The Jinja2 environment of the documents: ours behind the user's templates, everything escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nitro.errors import UsageError

from .names import printable

_HAS_USERS = "has_user_templates"
_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def environment(user_templates: Path | None) -> jinja2.Environment:
    """Return the environment; files of `user_templates` stand in front of ours of the same name.

    Raises:
        UsageError: the folder does not exist.
    """
    loaders: list[jinja2.BaseLoader] = [jinja2.PackageLoader("nitro", "templates")]
    if user_templates is not None:
        if not user_templates.is_dir():
            raise UsageError(f"{user_templates}: this is no folder; --template takes a folder of templates and CSS.")
        loaders.insert(0, jinja2.FileSystemLoader(user_templates))
    made = jinja2.Environment(
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
    assert made.loader is not None
    known = set(made.list_templates())
    there = (name for name in names if name != "user.css" or name in known)
    return Markup("\n".join(made.loader.get_source(made, name)[0] for name in there))


def rendered(made: jinja2.Environment, name: str, values: Mapping[str, Any]) -> str:
    """Render a template.

    Raises:
        UsageError: a template of the user has a mistake; the message names the file and the line.
    """
    try:
        return made.get_template(name).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(
            f"{error.filename or error.name}, line {error.lineno}: {error.message}; mend the template."
        ) from None
    except jinja2.UndefinedError as error:
        if not made.globals.get(_HAS_USERS):
            raise
        raise UsageError(f"{name}: {error}; mend the template of --template.") from None


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
