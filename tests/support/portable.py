"""What each statement of the program is held to while tests run: engines other than one Postgres.

``hold`` lets every connection that a process opens send its statements through ``objection``, as
they are sent: those of SQLAlchemy, of psycopg and of Alembic, and COPY.  It costs a look into a
dictionary per statement, after the first.  ``watch`` does so in this process, and the folder
``watched`` in the processes of the program that tests start.

What no engine of several machines can run, or runs otherwise, is refused:

- ``VOLATILE``: a function that is, or may be, evaluated once per row in an UPDATE or a DELETE;
- ``SIBLING``: a WITH that writes a table which another part of the statement reads or writes: what
  that sees depends on all parts having one snapshot;
- ``ROW_PLACE``: ``ctid``, which is unique on one machine and in one partition only, and the row
  that a cursor is at;
- ``WALK_ALONE``: a ``walk_id`` that is compared without the account's id beside it, for each of the
  tables that are compared;
- ``SESSION``: what outlasts the transaction in the session, which is that of one machine, and of
  whoever gets it next from a pooler; a temporary table may, if its rows do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import psycopg

VOLATILE: Final = "a function that is not known to be stable in an UPDATE or a DELETE"
SIBLING: Final = "a WITH that writes what another part of the statement reads or writes"
ROW_PLACE: Final = "a row by its place (ctid)"
WALK_ALONE: Final = "a walk_id without partner_id beside it"
SESSION: Final = "a setting, a lock or a statement that the session keeps"

STABLE_FUNCTIONS: Final = frozenset(
    {
        *("array_agg", "array_cat", "array_length", "array_position", "array_remove"),
        *("bool_and", "bool_or", "btrim", "cardinality", "coalesce", "concat", "convert_to"),
        *("count", "current_setting", "date_part", "date_trunc", "decode", "encode", "extract"),
        *("floor", "format", "generate_series", "greatest", "hashtextextended"),
        *("int8multirange", "int8range", "isempty", "json_to_recordset", "jsonb_agg"),
        *("jsonb_array_elements", "jsonb_build_object", "jsonb_object_agg"),
        *("jsonb_strip_nulls", "lag", "lead", "least", "left", "length", "lower", "lower_inf"),
        *("make_interval", "max", "md5", "min", "now", "nullif", "octet_length"),
        *("percentile_cont", "range_agg", "regexp_replace", "replace", "right", "round"),
        *("row_number", "sha256", "starts_with", "statement_timestamp", "string_agg", "strpos"),
        *("substring", "sum", "timezone", "to_jsonb", "to_regclass", "to_timestamp"),
        *("tstzrange", "unnest", "upper", "upper_inf", "width_bucket"),
    }
)
"""Those that an UPDATE or a DELETE may call: none of them is volatile, as a test asks the catalog.

Others are refused, those of extensions too: nobody can list all that are volatile.
"""
LIMITS: Final = frozenset({"lock_timeout", "statement_timeout"})
"""What may be set for a session in autocommit mode: an index that is built concurrently needs them,
and no transaction may contain it.  A worker that is not told waits longer."""
DEMO: Final = "kaltura-etl demo"
"""The name of the one lock of a session: no pooler stands in front of the embedded server."""

_COMMENT_OR_TEXT: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL
)
_QUOTED: Final = re.compile(r'"([a-z_]\w*)"')
_CALL: Final = re.compile(r"(?:\b(?P<before>as|into|table) )?(?:\w+\.)?\b(?P<name>[a-z_]\w*) ?\(")
_NO_FUNCTIONS: Final = frozenset(
    {
        *("all", "and", "any", "as", "between", "by", "case", "cast", "conflict", "distinct"),
        *("else", "except", "exists", "filter", "from", "group", "having", "in", "intersect"),
        *("into", "is", "join", "lateral", "like", "materialized", "not", "on", "or", "over"),
        *("returning", "select", "set", "some", "then", "union", "using", "values", "when"),
        *("where", "with", "array", "row", "numeric", "varchar", "char", "bit"),
    }
)
"""Words that may stand before a parenthesis."""
_WRITE: Final = re.compile(
    r"\b(?:insert into|delete from|merge into|(?<!do )(?<!for )(?<!no key )update) "
    r"(?:only )?(?P<table>[a-z_][\w.]*)"
)
_CHANGE: Final = re.compile(r"^(?:with\b.*\) ?)?(?:update|delete from|merge into)\b")
_WRITING_PART: Final = re.compile(
    r"\bas (?:not )?(?:materialized )?\( ?(?=insert|update|delete|merge)"
)
_COMPARES: Final = (
    r"(?:<=|>=|<>|!=|=|<|>|is (?:not )?distinct from\b|(?:not )?(?:in|between|like)\b)"
)
_OF: Final = r"(?:[a-z_]\w*\.)*?\b(?P<{}>[a-z_]\w*)\."
"""A table, with or without its schema, before its column."""
_WALK: Final = re.compile(
    # Also as a part of a row, or of what a function makes of it: up to the next parenthesis.
    rf"(?:{_OF.format('own')})?\bwalk_id\b(?:::\w+)?(?:[^()]*\))*? ?{_COMPARES}"
    rf"(?: ?{_OF.format('joined_after')}(?:run_id|walk_id)\b)?"
    rf"|(?:{_OF.format('joined')}run_id ?)?{_COMPARES} ?(?:[a-z_]\w* ?)?"
    rf"(?:\((?:(?!\bwhere\b)[^()])*?)*(?:{_OF.format('compared')})?\bwalk_id\b"
)
_USING: Final = re.compile(r"\busing ?\((?P<columns>[^()]*)\)")
_NATURAL: Final = re.compile(r"\bnatural (?:\w+ )*?join\b")
_ASSIGNS: Final = re.compile(r"\bset\b(?:(?!\b(?:where|from|select|returning)\b).)*$")
_DEFINES: Final = re.compile(r"(?:create|alter|comment)\b|copy (?!\()")
_PLACE: Final = re.compile(r"\bctid\b|\bwhere current of\b")
_KEPT_BY_SESSION: Final = re.compile(
    r"(?:set (?!local\b|transaction\b|constraints\b)(?:session )?(?P<set>[\w.]+)"
    r"|reset (?P<reset>\w+)|(?:discard|listen|unlisten|prepare(?! transaction)|deallocate|load)\b)"
    # The rows of a temporary table that another transaction finds there are not its own.
    r"|create (?:global |local )?temp(?:orary)? table (?!.*\bon commit d)|.*\binto temp\b"
    r"|.*\bpg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)? ?\(|declare .*\bwith hold\b"
)
_SET_CONFIG: Final = re.compile(r"\bset_config ?\(")
_PARAMETER: Final = re.compile(r"%(?:\((?P<name>\w+)\))?[sbt]")


class NotPortable(AssertionError):
    """The program has sent a statement that other engines refuse or understand differently."""


def objection(statement: str, values: Any = None, *, autocommit: bool = False) -> str | None:
    """Why the statement is not portable; None if it is.

    ``values`` are those of its placeholders.  ``autocommit``: it is not part of a transaction.
    """
    found, settings = _judged(statement)
    if found == SESSION and isinstance(values, Mapping) and DEMO in values.values():
        return None
    if found is None and any(
        # What is not known to end with the transaction does not.
        _value(is_local, values) not in (True, "true")
        and not (autocommit and _value(name, values) in LIMITS)
        for name, is_local in settings
    ):
        return SESSION
    return found


def code_of(statement: str) -> str:
    """The statement in small letters on one line, without comments and what is quoted."""
    bare = _COMMENT_OR_TEXT.sub(lambda part: "''" if part[0][0] in "'$" else " ", statement)
    return re.sub(r"\s+", " ", _QUOTED.sub(r"\1", bare.lower())).strip()


@cache
def _judged(statement: str) -> tuple[str | None, list[tuple[str, str]]]:
    """The objection, and (name, whether for the transaction only) of each setting, as written."""
    settings: list[tuple[str, str]] = []
    for code in code_of(statement).split(";"):
        part = code.strip()
        reason = _reason(part)
        if reason is not None:
            return reason, []
        kept = _KEPT_BY_SESSION.match(part)
        if kept is not None:
            name = kept["set"] or kept["reset"]
            if name is None:
                return SESSION, []
            settings.append((name, "false"))
        for call in _SET_CONFIG.finditer(part):
            name, _, is_local = _arguments(_inside(part, call.end()))
            settings.append((name, is_local))
    return None, settings


def _reason(code: str) -> str | None:
    if _PLACE.search(code):
        return ROW_PLACE
    if functions_in_change(code) - STABLE_FUNCTIONS:
        return VOLATILE
    if _has_writing_sibling(code):
        return SIBLING
    if _DEFINES.match(code) is None and _has_walk_alone(code):
        return WALK_ALONE
    return None


def functions_in_change(code: str) -> set[str]:
    """The functions that an UPDATE, a DELETE or a MERGE in the statement calls."""
    changed = code if _CHANGE.match(code) else code.partition("do update set")[2]
    parts = [_inside(code, found.end()) for found in _WRITING_PART.finditer(code)]
    return {
        call["name"]
        for part in [changed, *(part for part in parts if _CHANGE.match(part))]
        for call in _CALL.finditer(part)
        if call["before"] is None and call["name"] not in _NO_FUNCTIONS
    }


def _has_writing_sibling(code: str) -> bool:
    for found in _WRITING_PART.finditer(code):
        part = _inside(code, found.end())
        written = _WRITE.match(part)
        table = (written["table"] if written else "").rpartition(".")[2]
        others = code.replace(part, "", 1)
        if _WRITE.search(others) or re.search(rf"\b{re.escape(table)}\b", others):
            return True
    return False


def _has_walk_alone(code: str) -> bool:
    if "walk_id" not in code and _NATURAL.search(code) is None:
        return False
    for found in _USING.finditer(code):
        columns = set(re.findall(r"\w+", found["columns"]))
        if "walk_id" in columns and "partner_id" not in columns:
            return True
    return _NATURAL.search(code) is not None or any(
        not _names_account(_surroundings(code, place), found)
        for found in _WALK.finditer(code)
        if not _ASSIGNS.search(code[: (place := code.index("walk_id", found.start()))])
    )


def _names_account(query: str, found: re.Match[str]) -> bool:
    """Whether the query names the account as well: that of each table that the comparison names."""
    tables = {name for name in found.groupdict().values() if name is not None}
    return "partner_id" in query and all(
        re.search(rf"\b{re.escape(name)}\.partner_id\b", query) for name in tables
    )


def _inside(code: str, begin: int) -> str:
    """From just behind a parenthesis to the one that closes it."""
    depth = 1
    for end in range(begin, len(code)):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        if not depth:
            return code[begin:end]
    return code[begin:]


def _arguments(code: str) -> list[str]:
    """What commas outside of parentheses separate."""
    parts, depth = [""], 0
    for letter in code:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _surroundings(code: str, place: int) -> str:
    """The query or the parenthesis around a place, without the parentheses beside it."""
    depth, begin = 0, 0
    for index in range(place - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(code[index], 0)
        # A parenthesis of conditions is not the query yet.
        if depth < 0:
            if re.match(r"\( ?select\b", code[index:]):
                begin = index + 1
                break
            depth = 0
    return _inside(code, begin) if begin else code


def _value(argument: str, values: Any) -> object:
    """What an argument of ``set_config`` is; itself where it is no placeholder that has a name."""
    found = _PARAMETER.search(argument)
    if found is not None and found["name"] and isinstance(values, Mapping):
        return values.get(found["name"], argument)
    return argument


def _checked(statement: Any, values: Any, connection: Any) -> None:
    if isinstance(statement, bytes):
        text = statement.decode()
    elif isinstance(statement, str):
        text = statement
    else:
        text = statement.as_string(connection)
    found = objection(text, values, autocommit=connection.autocommit)
    if found is not None:
        raise NotPortable(f"{found}: {text}")


class _Watched(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        _checked(query, params, self.connection)
        return super().execute(query, params, **options)

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        _checked(query, None, self.connection)
        super().executemany(query, *arguments, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Any:
        _checked(query, params, self.connection)
        return super().stream(query, params, **options)

    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        _checked(statement, None, self.connection)
        return super().copy(statement, *arguments, **options)


class _WatchedServer(psycopg.ServerCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        _checked(query, params, self.connection)
        return super().execute(query, params, **options)


@contextmanager
def watch() -> Iterator[None]:
    """Hold the statements of all connections that this process opens meanwhile to the rules."""
    from etl.warehouse import engine

    module: Any = engine
    before = module.open_driver_connection
    hold(module)
    try:
        yield
    finally:
        module.open_driver_connection = before


def hold(engine: Any) -> None:
    """The same from now on; ``engine`` is ``etl.warehouse.engine``."""
    opening = engine.open_driver_connection

    def opened(url: str) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = opening(url)
        connection.cursor_factory = _Watched
        connection.server_cursor_factory = _WatchedServer
        return connection

    engine.open_driver_connection = opened
