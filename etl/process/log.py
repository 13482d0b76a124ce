"""Logs: text on a terminal, else one JSON object per line, on standard error, without secrets.

Modules log with ``logging.getLogger(__name__)`` and pass facts in ``extra=``, which become keys of
the JSON object, or ``key=value`` in text.  Only ``etl`` is logged below WARNING: the libraries'
DEBUG lines show headers and statements.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO

from etl.process.log_context import add_log_fields
from etl.process.secrets import scrub

TEXT_LENGTH_LIMIT = 8_000
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Format characters (bidi overrides, zero width) reorder or hide text on a terminal.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` on one line, bounded, without control characters."""
    text = text if len(text) <= TEXT_LENGTH_LIMIT else text[:TEXT_LENGTH_LIMIT] + "…"
    text = _SURROGATE.sub("\ufffd", text)
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def exception_text(exc: BaseException) -> str:
    """Type and first line of the message: in an exception of a database driver, the lines after it
    contain a statement or the values of a row."""
    first_line = str(exc).strip().partition("\n")[0][:500]
    name = type(exc).__name__
    return scrub(f"{name}: {first_line}" if first_line else name)


def exception_places(exc: BaseException) -> list[str]:
    """``module:line function`` for each frame, outermost first.  No source text, no locals."""
    places: list[str] = []
    traceback = exc.__traceback__
    while traceback is not None and len(places) < 50:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{module}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a wrong % in a log call must neither end a run nor hide the line
        return f"{record.msg} (its arguments do not fit)"


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields = {
        key: value
        for key, value in vars(record).items()
        if key not in STANDARD_FIELDS and not key.startswith("_")
    }
    if record.exc_info and record.exc_info[1] is not None:
        fields["exception"] = exception_text(record.exc_info[1])
        fields["places"] = exception_places(record.exc_info[1])
    return fields


def _json_value(value: object, length_limit: int | None) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON has no NaN and no infinities.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {scrub(str(key)): _json_value(each, length_limit) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(each, length_limit) for each in value]
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return _SURROGATE.sub("\ufffd", scrub(str(value))[:length_limit])


def json_text(value: object, *, length_limit: int | None = TEXT_LENGTH_LIMIT) -> str:
    """Any value as one line of JSON, scrubbed; what JSON cannot represent becomes text.

    ``length_limit``: characters of each text in it; None for no limit.
    """
    return json.dumps(_json_value(value, length_limit), ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        event: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message_of(record),
        }
        fields = _fields_of(record)
        if "event" in fields:  # the name of the event for machines, beside its sentence
            event["message"], event["event"] = event["event"], fields.pop("event")
        for key, value in fields.items():
            event[key if key not in event else f"{key}_"] = value
        return json_text(event)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created).astimezone()
        parts = [f"{at:%H:%M:%S} {record.levelname.lower():<7} {_message_of(record)}"]
        for key, value in _fields_of(record).items():
            if key in ("places", "event") or value is None:
                continue
            text = value if isinstance(value, str) else json_text(value)
            bare = text != "" and " " not in text and '"' not in text
            parts.append(f"{key}={text if bare or not isinstance(value, str) else repr(text)}")
        return printable(scrub("  ".join(parts)))


class StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Writes lines to standard error; one that is closed or full never ends the program."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Anything: a pipe closed by the orchestrator, a full disk.  Later lines go nowhere.
        del record
        self.addFilter(lambda _record: False)
        abandon_stream(self.stream)


def abandon_stream(stream: TextIO | None) -> None:
    """Redirect a broken stream to /dev/null, so that the interpreter's last flush succeeds."""
    with contextlib.suppress(Exception):
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def is_at_terminal() -> bool:
    """Whether a person at a terminal has started the program: standard input or standard error is
    one.  Standard output may go into a pipe or a file, as may one of these."""
    return is_terminal(sys.stdin) or is_terminal(sys.stderr)


def wants_json(log_format: str) -> bool:
    """Whether ``auto``, ``text`` or ``json`` means JSON on standard error."""
    return log_format == "json" or (log_format == "auto" and not is_terminal(sys.stderr))


def setup_logging(
    *, level: str = "INFO", log_format: str = "auto", secrets: Iterable[str] = ()
) -> StandardErrorHandler:
    """Send the logs of the process to standard error.  May be called again: the last call wins.

    ``level`` applies to ``etl``; everything else is logged from WARNING, or from a higher level.
    """
    scrub.add(*secrets)
    logging.raiseExceptions = False
    handler = StandardErrorHandler(sys.stderr)
    handler.addFilter(add_log_fields)
    handler.setFormatter(JsonFormatter() if wants_json(log_format) else TextFormatter())
    root, ours = logging.getLogger(), logging.getLogger("etl")
    for logger in (root, ours):
        for old in [each for each in logger.handlers if isinstance(each, StandardErrorHandler)]:
            logger.removeHandler(old)
    root.addHandler(handler)
    ours.setLevel(level)
    root.setLevel(max(logging.WARNING, ours.level))
    logging.captureWarnings(True)
    return handler
