"""The file named by ``VARIABLE_FILE``: settings, usually secrets, outside the environment.

Either lines of ``NAME=VALUE`` (blank lines and ``#`` comments, optional ``export`` and quotes) or
one JSON object.  Nothing is expanded or executed, and no message repeats a line of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from etl.errors import ConfigurationError
from etl.settings.private_file import read_private_file

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_COMMENT_AFTER_VALUE = re.compile(r"\s+#.*$")


def read_variable_file(path: Path) -> dict[str, str]:
    """Return the variables of the file; raise ``ConfigurationError`` if it cannot be trusted."""
    body = read_private_file(path, named_by="VARIABLE_FILE")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} is not UTF-8 text; save it as UTF-8."
        ) from None
    if text.lstrip().startswith("{"):
        return _parse_json(path, text)
    return _parse_lines(path, text)


def variable_lines(values: Mapping[str, str]) -> str:
    """The content of such a file; ``values`` are of one line."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())


def _quoted(value: str) -> str:
    """The value as ``_unquote`` reads it back."""
    if value[:1] not in ("'", '"', "#") and value == value.strip() and not re.search(r"\s#", value):
        return value
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def _parse_json(path: Path, text: str) -> dict[str, str]:
    def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(
                    f"VARIABLE_FILE: {name} appears twice in {path}; keep one."
                )
        return dict(pairs)

    try:
        loaded = json.loads(text, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as exc:
        line = f" (line {exc.lineno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} starts like JSON but is not valid JSON{line}."
        ) from None
    values: dict[str, str] = {}
    for name, value in loaded.items():
        if isinstance(value, bool):
            values[name] = "yes" if value else "no"
        elif isinstance(value, str | int | float):
            values[name] = str(value)
        elif value is not None:
            raise ConfigurationError(
                f"VARIABLE_FILE: {name} in {path} must be a text or a number, "
                "not a list or an object."
            )
    return values


def _parse_lines(path: Path, text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigurationError(f"VARIABLE_FILE: line {number} of {path} is not NAME=VALUE.")
        name, value = match[1], match[2]
        if name in values:
            raise ConfigurationError(
                f"VARIABLE_FILE: line {number} of {path} sets {name} a second time; keep one."
            )
        values[name] = _unquote(path, number, value)
    return values


def _unquote(path: Path, number: int, value: str) -> str:
    if value[:1] not in ("'", '"'):
        return _COMMENT_AFTER_VALUE.sub("", value) if not value.startswith("#") else ""
    quote = value[0]
    inner = r"((?:[^\"\\]|\\.)*)" if quote == '"' else "([^']*)"
    match = re.fullmatch(rf"{quote}{inner}{quote}\s*(?:#.*)?", value)
    if match is None:
        raise ConfigurationError(
            f"VARIABLE_FILE: line {number} of {path} has a quote that is not closed, or text "
            "after it."
        )
    return re.sub(r"\\([\"\\$`])", r"\1", match[1]) if quote == '"' else match[1]
