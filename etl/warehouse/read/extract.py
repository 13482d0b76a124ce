"""Rows of views and tables as CSV text, all from one snapshot: what ``etl.export`` writes.

COPY sends them as they come, so memory does not depend on their number.  Every type of Postgres
becomes one of a few kinds that files have too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from psycopg import sql

from etl.errors import ConfigurationError, LeaseHeld, UsageError
from etl.resources import sql_directory
from etl.warehouse.access.privileges import RIGHTS
from etl.warehouse.engine import LOCK_NOT_AVAILABLE, sqlstate_of, transaction
from etl.warehouse.read.queries import Reader, reading
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.views import view_files

STATEMENT_SECONDS: Final = 6 * 3_600
"""Of one view of one account.  The snapshot keeps VACUUM from removing rows that long."""

Kind = Literal[
    "bool", "int", "float", "decimal", "text", "time", "date", "list", "int_list", "float_list"
]
_KINDS: Final[dict[str, Kind]] = {
    "bool": "bool",
    **dict.fromkeys(("int2", "int4", "int8"), "int"),
    **dict.fromkeys(("float4", "float8", "interval"), "float"),
    "numeric": "decimal",
    "timestamptz": "time",
    "date": "date",
    "_text": "list",
    **dict.fromkeys(("_int4", "_int8"), "int_list"),
    "_float8": "float_list",
}
"""By type of Postgres; any other is text: jsonb and ranges as Postgres writes them."""

_LEFT_OUT: Final = frozenset(
    {
        *("upload_status_now", "upload_status_passed", "upload_status_stay"),
        *("upload_token_earlier_stay", "upload_token_status_moment", "upload_token_status_count"),
        *("upload_bytes_arrival", "upload_failure", "upload_token_snapshot_dbt"),
    }
)
"""Of the views that are exported unasked: parts, or other names, of what another one has."""
_CUT_BY: Final = ("day", "valid_from", "created_at", "started_at")
"""Which column says to what day a row belongs: the first of these that there is."""

_SIGNS: Final = r"=+\-@\uFF1D\uFF0B\uFF0D\uFF20"
"""What a formula begins with.

The last four are = + - @ in full width: a spreadsheet in Japanese or Chinese takes them for these.
"""
_BEGIN: Final = rf"^(?='*[{_SIGNS}\t\r\n])"
_CELL: Final = rf"(?<=[;\t\r\n])(?=['\x22]*[{_SIGNS}])"
"""A cell within a text, where lists have semicolons: a spreadsheet then cuts this file at them.

Quotes are no help: what begins with the text before them is no quoted cell to it, so it cuts there
at line breaks, too.
"""
_FORMULA: Final = rf"^'*[{_SIGNS}\t\r\n]|[;\t\r\n]['\x22]*[{_SIGNS}]"
"""A text that has a place of those, however often it has been made safe before."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export."""

    name: str
    kind: Kind
    source: str
    """Its name in Postgres: an interval has its unit in the name of the export only."""
    type_name: str
    """Its type in Postgres, such as ``timestamptz``."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account as of the snapshot."""

    partner_id: int
    run_id: int
    """Its last published run."""
    published_at: datetime
    changes: str
    """Changes with every erasure and pruning, which change the history without a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows: all, those of some days (both included), or those published after a run."""

    first_day: date | None = None
    last_day: date | None = None
    since_run: int | None = None
    published: bool = False
    """Of runs, only the published ones."""

    def cut_by(self, columns: Sequence[Column]) -> str | None:
        """The column that decides, of these; None if there is none."""
        names = {column.source for column in columns}
        if self.since_run is not None:
            return "run_id" if "run_id" in names else None
        return next((name for name in _CUT_BY if name in names), None)

    @property
    def is_all(self) -> bool:
        return (self.first_day, self.last_day, self.since_run) == (None, None, None)


def exported_unasked() -> list[str]:
    """The views that are exported if none is named."""
    views = (file.name for file in view_files() if not file.is_function)
    return sorted(set(views) - _LEFT_OUT)


def exportable() -> list[str]:
    """Every view, and the tables that analysts read."""
    views = {file.name for file in view_files() if not file.is_function}
    return sorted(views | set(RIGHTS["analyst"].tables))


class Extract:
    """Reads in the transaction that ``extracting`` opened."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def accounts(self, partner_id: int | None) -> list[Account]:
        """Those with a published run, in order; of ``partner_id`` only, if that is given."""
        return [
            Account(
                row["partner_id"],
                row["run_id"],
                row["published_at"],
                f"{row['pruning_id'] or 0} {row['erased'] or 0}",
            )
            for row in self._reader.rows("accounts", partner_id=partner_id)
        ]

    def published_at(self, partner_id: int, run_id: int) -> datetime | None:
        """When a run of the account was published; None if it was not."""
        rows = self._reader.rows("published", partner_id=partner_id, run_id=run_id)
        return rows[0]["published_at"] if rows else None

    def account_was_erased(self, partner_id: int) -> bool:
        rows = self._reader.rows("account_was_erased", partner_id=partner_id)
        return bool(rows[0]["erased"])

    def columns(self, relation: str) -> list[Column]:
        """Raises ConfigurationError if there is no such view or table."""
        rows = self._reader.rows("columns", relation=relation)
        if not rows:
            raise ConfigurationError(
                f"The schema has no {relation}: run 'kaltura-etl migrate', or 'kaltura-etl migrate "
                "--repair' if there is nothing to migrate.",
                reason="schema_version",
            )
        names = {row["name"] for row in rows}
        columns = []
        for row in rows:
            name, type_name = row["name"], row["type"]
            if type_name == "interval":
                if f"{name}_seconds" in names:
                    continue  # the view tells it in seconds itself
                name = f"{name}_seconds"
            columns.append(Column(name, _KINDS.get(type_name, "text"), row["name"], type_name))
        return columns

    def rows(
        self,
        relation: str,
        columns: Sequence[Column],
        *,
        partner_id: int | None,
        selection: Selection,
        for_people: bool,
    ) -> Iterator[bytes]:
        """The rows, each a line of CSV without a header; NULL is empty, and empty text is ``""``.

        Times are in ISO 8601 and UTC, lists are JSON.  ``for_people``: where a spreadsheet would
        take a text for a formula, or what follows a semicolon or a line break in it, an apostrophe
        comes first.  Without ``partner_id`` those of all accounts.
        """
        conditions = [*self._conditions(columns, selection)]
        if partner_id is not None:
            conditions.append(sql.SQL("partner_id = {}").format(sql.Literal(partner_id)))
        return self._reader.copy(
            sql.SQL(
                "copy (select {} from {} where {}) to stdout (format csv, encoding 'UTF8')"
            ).format(
                sql.SQL(", ").join(_expression(column, for_people) for column in columns),
                sql.Identifier(relation),
                sql.SQL(" and ").join(conditions or [sql.SQL("true")]),
            )
        )

    def _conditions(
        self, columns: Sequence[Column], selection: Selection
    ) -> Iterator[sql.Composable]:
        if selection.published:
            yield sql.SQL("published_at is not null")
        name = selection.cut_by(columns)
        if selection.is_all or name is None:
            return
        cut = sql.Identifier(name)
        if selection.since_run is not None:
            run_id = sql.Literal(selection.since_run)
            names = {column.source for column in columns}
            # A version that was the latest then has an end now.
            ended = name if "superseded_by_run_id" not in names else "superseded_by_run_id"
            yield sql.SQL("({} > {} or {} > {})").format(cut, run_id, sql.Identifier(ended), run_id)
            return
        for day, operator in (
            (selection.first_day, ">="),
            (selection.last_day and selection.last_day + timedelta(days=1), "<"),
        ):
            if day is not None:
                begin = (
                    sql.SQL("cast({} as date)")
                    if name == "day"
                    else sql.SQL("cast({} as timestamp) at time zone kaltura_time_zone()")
                ).format(sql.Literal(day.isoformat()))
                yield sql.SQL("{} {} {}").format(cut, sql.SQL(operator), begin)


@contextmanager
def extracting(url: str, schema: str, *, time_zone: str = "UTC") -> Iterator[Extract]:
    """One transaction that reads one snapshot; views cut their days in ``time_zone``.

    Raises UsageError if Postgres does not know the time zone, and what ``reading`` raises.
    """
    folder = sql_directory() / "export"
    with reading(url, schema, folder, statement_seconds=STATEMENT_SECONDS) as reader:
        if time_zone != "UTC" and not reader.knows_time_zone(time_zone):
            raise UsageError(f"--time-zone: Postgres knows no time zone named {time_zone}.")
        reader.set_time_zone(time_zone)
        yield Extract(reader)


@contextmanager
def target_locked(url: str, schema: str, place: str, *, alone: bool) -> Iterator[None]:
    """Keep exports to one place and erasures in it apart: exports share it, an erasure is alone.

    Take it before the snapshot is: what an export writes must be no older than an erasure that was
    there before it.  Raises LeaseHeld if it is not granted in time.
    """
    take = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
    key = sa.func.hashtextextended(f"kaltura-etl export {place}", sa.literal(0, sa.BigInteger))
    with (
        open_database(url, schema) as database,
        # It waits for its user, however long that takes.
        transaction(database.engine, idle_in_transaction_session_timeout="0") as connection,
    ):
        try:
            connection.execute(sa.select(take(key)))
        except sa.exc.DBAPIError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise LeaseHeld(
                f"An export to {place} or an erasure there is at work: wait until it has ended.",
                reason="target_busy",
            ) from None
        yield


def _expression(column: Column, for_people: bool) -> sql.Composable:
    """The column as text of its kind."""
    text = _as_text(column).format(sql.Identifier(column.source))
    if column.type_name == "jsonb" and for_people:
        # No cell begins within it, and it is the same JSON: a semicolon is in a string.
        return sql.SQL(r"replace({text}, ';', '\u003b')").format(text=text)
    if column.kind == "text" and for_people:
        return sql.SQL(
            "case when {text} ~ {formula} "
            "then regexp_replace({text}, {places}, '''', 'g') else {text} end"
        ).format(
            text=text,
            formula=sql.Literal(_FORMULA),
            places=sql.Literal(f"(?:{_BEGIN}|{_CELL})"),
        )
    return text


def _as_text(column: Column) -> sql.SQL:
    special: Any = {
        "timestamptz": "to_char({} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')",
        "interval": "cast(extract(epoch from {}) as double precision)",
        # As many digits as a decimal of a file has after its point.
        "numeric": "trim_scale(round({}, 9))",
        **dict.fromkeys(("_text", "_int4", "_int8", "_float8"), "to_json({})"),
        "bytea": "encode({}, 'hex')",
    }.get(column.type_name, "cast({} as text)")
    return sql.SQL(special)
