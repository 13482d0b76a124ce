"""What each statement of the program is held to while tests run: engines other than one Postgres.

``watch`` lets every connection that the program opens in this process send its statements through
``objection``, as they are sent: those of SQLAlchemy, of psycopg and of Alembic, and COPY.  It costs
a look into a dictionary per statement, after the first.

What no engine of several machines can run, or runs otherwise, is refused:

- ``VOLATILE``: a function that is evaluated once per row in an UPDATE or a DELETE;
- ``SIBLING``: a WITH that writes a table which another part of the statement reads or writes: what
  that sees depends on all parts having one snapshot;
- ``ROW_PLACE``: ``ctid``, which is unique on one machine and in one partition only;
- ``WALK_ALONE``: a ``walk_id`` that is compared without the account's id beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import psycopg
import pytest

from etl.warehouse import engine
from etl.warehouse.connecting import open_driver_connection

VOLATILE: Final = "a volatile function in an UPDATE or a DELETE"
SIBLING: Final = "a WITH that writes what another part of the statement reads or writes"
ROW_PLACE: Final = "a row by its place (ctid)"
WALK_ALONE: Final = "a walk_id without partner_id beside it"

VOLATILE_FUNCTIONS: Final = frozenset(
    {
        *("clock_timestamp", "timeofday", "random", "gen_random_uuid", "nextval", "setval"),
        *("currval", "lastval", "set_config", "pg_advisory_xact_lock", "pg_try_advisory_xact_lock"),
        *("pg_try_advisory_lock", "pg_sleep", "txid_current", "pg_current_xact_id"),
        *("pg_sequence_last_value", "pg_relation_size", "pg_terminate_backend"),
        "pg_is_in_recovery",
    }
)
"""Those that this program might call; a test compares them with the catalog."""

_NOT_CODE: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_CALL: Final = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(")
_WRITE: Final = re.compile(
    r"\b(?:insert\s+into|delete\s+from|merge\s+into|(?<!do )(?<!for )(?<!no key )update)\s+"
    r"(?:only\s+)?(?P<table>[a-z_][\w.\"]*)"
)
_CHANGE: Final = re.compile(
    r"^(?:with\b.*\)\s*)?(?:update|delete\s+from|merge\s+into)\b", re.DOTALL
)
_WRITING_PART: Final = re.compile(
    r"\bas\s+(?:not\s+)?(?:materialized\s+)?\(\s*(?=insert|update|delete|merge)"
)
_WALK: Final = re.compile(
    r"\bwalk_id\s*(?:=|<>|!=)\s*(?P<joined_after>[a-z_]\w*)\.run_id\b"
    r"|(?:(?P<joined>[a-z_]\w*)\.run_id\s*)?(?:=|<>|!=)\s*(?:[a-z_]\w*\.)*walk_id\b"
    r"|\bwalk_id\s*(?:=|<>|!=|\bin\b|\bnot\s+in\b)"
)


class NotPortable(AssertionError):
    """The program has sent a statement that other engines refuse or understand differently."""


@cache
def objection(statement: str) -> str | None:
    """Why the statement is not portable; None if it is."""
    code = _NOT_CODE.sub("''", statement).strip().lower()
    if re.search(r"\bctid\b", code):
        return ROW_PLACE
    if _is_volatile_change(code):
        return VOLATILE
    if _has_writing_sibling(code):
        return SIBLING
    if _DEFINES.match(code) is None and any(
        not _names_account(_surroundings(code, found.start()), found)
        for found in _WALK.finditer(code)
        # Not a value that is assigned.
        if not re.search(r"(?:\bset|,)\s*$", code[: found.start()])
    ):
        return WALK_ALONE
    return None


_DEFINES: Final = re.compile(r"(?:create|alter|comment|copy)\b")


def _is_volatile_change(code: str) -> bool:
    changed = code if _CHANGE.match(code) else code.partition("do update set")[2]
    parts = [changed, *(_inside(code, found.end()) for found in _WRITING_PART.finditer(code))]
    return any(
        name in VOLATILE_FUNCTIONS
        for part in parts
        if _CHANGE.match(part) or part is changed
        for name in _CALL.findall(part)
    )


def _has_writing_sibling(code: str) -> bool:
    for found in _WRITING_PART.finditer(code):
        part = _inside(code, found.end())
        written = _WRITE.match(part)
        table = (written["table"] if written else "").rpartition(".")[2]
        others = code.replace(part, "", 1)
        if _WRITE.search(others) or re.search(rf"\b{re.escape(table)}\b", others):
            return True
    return False


def _names_account(query: str, found: re.Match[str]) -> bool:
    """Whether the account is compared in the query as well; in a join, that of the joined table."""
    joined = found["joined"] or found["joined_after"]
    return (f"{joined}.partner_id" if joined else "partner_id") in query


def _inside(code: str, begin: int) -> str:
    """From just behind a parenthesis to the one that closes it."""
    depth = 1
    for end in range(begin, len(code)):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        if not depth:
            return code[begin:end]
    return code[begin:]


def _surroundings(code: str, place: int) -> str:
    """The query or the parenthesis around a place, without the parentheses beside it."""
    depth, begin = 0, 0
    for index in range(place - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(code[index], 0)
        # A parenthesis of conditions is not the query yet.
        if depth < 0:
            if re.match(r"\(\s*select\b", code[index:]):
                begin = index + 1
                break
            depth = 0
    return _inside(code, begin) if begin else code


def _checked(statement: Any, connection: Any) -> None:
    if isinstance(statement, bytes):
        text = statement.decode()
    elif isinstance(statement, str):
        text = statement
    else:
        text = statement.as_string(connection)
    found = objection(text)
    if found is not None:
        raise NotPortable(f"{found}: {text}")


class _Watched(psycopg.Cursor[Any]):
    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        _checked(query, self.connection)
        return super().execute(query, *arguments, **options)

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        _checked(query, self.connection)
        super().executemany(query, *arguments, **options)

    def stream(self, query: Any, *arguments: Any, **options: Any) -> Any:
        _checked(query, self.connection)
        return super().stream(query, *arguments, **options)

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        _checked(statement, self.connection)
        return super().copy(statement, *arguments, **options)


class _WatchedServer(psycopg.ServerCursor[Any]):
    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        _checked(query, self.connection)
        return super().execute(query, *arguments, **options)


@contextmanager
def watch() -> Iterator[None]:
    """Hold the statements of all connections that the program opens meanwhile to the rules."""

    def opened(url: str) -> psycopg.Connection[Any]:
        connection = open_driver_connection(url)
        connection.cursor_factory = _Watched
        connection.server_cursor_factory = _WatchedServer
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "open_driver_connection", opened)
        yield
