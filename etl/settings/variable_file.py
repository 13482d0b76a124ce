"""Read the file named by ``VARIABLE_FILE``: settings, usually secrets, outside the environment.

Either lines of ``NAME=VALUE`` (blank lines and ``#`` comments, optional ``export`` and quotes) or
one JSON object.  Nothing is expanded or executed, and no message repeats a line of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from pathlib import Path

from etl.errors import ConfigurationError

SIZE_LIMIT_BYTES = 64 * 1024
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_COMMENT_AFTER_VALUE = re.compile(r"\s+#.*$")


def read_variable_file(path: Path) -> dict[str, str]:
    """Return the variables of the file; raise ``ConfigurationError`` if it cannot be trusted."""
    body = _read_private(path)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} is not UTF-8 text; save it as UTF-8."
        ) from None
    if text.lstrip().startswith("{"):
        return _parse_json(path, text)
    return _parse_lines(path, text)


def _read_private(path: Path) -> bytes:
    """Read a file that no other user can read or replace."""
    try:
        real = path.resolve(strict=True)
        # Kubernetes mounts secrets as links that stay inside the mounted directory; a link that
        # leads elsewhere may have been planted.
        if not real.is_relative_to(path.parent.resolve()):
            raise ConfigurationError(
                f"VARIABLE_FILE: {path} is a link that leads out of its directory; "
                "name the file itself."
            )
        # The checks below look at the opened file, so that it cannot be replaced in between;
        # O_NONBLOCK keeps a FIFO from blocking the open.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigurationError(
            f"VARIABLE_FILE: there is no file {path}; create it or unset VARIABLE_FILE."
        ) from None
    except (OSError, RuntimeError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "not a usable path"
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} cannot be read ({reason}); check its path and its owner."
        ) from None
    try:
        _refuse_if_others_can_touch_it(path, real, os.fstat(descriptor))
        with contextlib.suppress(OSError), open(descriptor, "rb", closefd=False) as file:
            body = file.read(SIZE_LIMIT_BYTES + 1)
            if len(body) <= SIZE_LIMIT_BYTES:
                return body
    finally:
        os.close(descriptor)
    raise ConfigurationError(
        f"VARIABLE_FILE: {path} cannot be read or is larger than {SIZE_LIMIT_BYTES} bytes; "
        "is it the right file?"
    )


def _refuse_if_others_can_touch_it(path: Path, real: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} is not a regular file; name a file of NAME=VALUE lines."
        )
    # The group may read: Kubernetes' fsGroup gives a container access to a secret that way.
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(
            f"VARIABLE_FILE: other users can read or change {path} "
            f"(mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}"
        )
    us = os.geteuid()
    if us != 0 and status.st_uid not in (0, us):
        raise ConfigurationError(
            f"VARIABLE_FILE: {path} belongs to another user; it must belong to you or to root."
        )
    folder = real.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise ConfigurationError(
            f"VARIABLE_FILE: other users can replace files in {real.parent}; "
            f"run: chmod o-w {real.parent}"
        )


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
