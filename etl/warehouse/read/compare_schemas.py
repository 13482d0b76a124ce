"""Compare two schemas of one database row by row: a warehouse, and its replay.

Rows are compared as text, so byte for byte as a dump would show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy.schema import DropSchema

from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.page import PageFacts
from etl.warehouse.engine import driver_connection, transaction
from etl.warehouse.load.resolve import VERSION_COLUMNS
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 3_600
ROWS_SHOWN: Final = 20
_RUN_FACTS: Final = (
    *("run_id", "partner_id", "walk_id", "range_from", "range_to", "status", "started_at"),
    *("finished_at", "published_at", "pages", "rows_read", "tokens_read", "inserted", "changed"),
    *("unchanged", "rejected", "absent", "relisted", "unreadable", "listed_before"),
    *("coverage", "open_coverage", "holes"),
)
"""What a replay keeps of a published run."""
_PAGE_FACTS: Final = (
    *("run_id", "seq", *PageFacts.__struct_fields__),
    *("first_created_at", "last_created_at", "span"),
)
"""And of a page: not the way in which it was compared."""


@dataclass(frozen=True, slots=True)
class _Compared:
    table: str
    keys: tuple[str, ...]
    where: sql.SQL
    """Which rows; ``{kept}`` is the schema of the warehouse, where old rows may be pruned."""
    columns: tuple[str, ...] | None = None
    """None: all of them."""


_PARTNERS: Final = sql.SQL("row.partner_id = any(%(partners)s)")
_WITH_PAGES: Final = sql.SQL(
    "row.run_id = any(%(runs)s) and row.run_id in (select run_id from {kept}.sync_page)"
)
_COMPARED: Final = (
    _Compared(
        "upload_token",
        ("partner_id", "token_id", "version"),
        _PARTNERS,
        # Not the digests, which are made from these columns, perhaps later.
        (*[name for name in VERSION_COLUMNS if name not in DIGEST_COLUMNS], "valid_from", "run_id"),
    ),
    _Compared(
        "upload_token_superseded",
        ("partner_id", "token_id", "version"),
        sql.SQL(
            "row.partner_id = any(%(partners)s) and row.valid_to >= coalesce((select max(horizon) "
            "from {kept}.pruning as pruned where pruned.kind = 'versions' "
            "and pruned.partner_id = row.partner_id), '-infinity')"
        ),
    ),
    _Compared("unobserved_token", ("partner_id", "token_id", "run_id"), _PARTNERS),
    _Compared("rejected_row", ("run_id", "token_id", "reason"), _WITH_PAGES),
    _Compared("sync_page", ("run_id", "seq"), _WITH_PAGES, _PAGE_FACTS),
    _Compared(
        "sync_run", ("partner_id", "run_id"), sql.SQL("row.run_id = any(%(runs)s)"), _RUN_FACTS
    ),
)


@dataclass(frozen=True, slots=True)
class TableComparison:
    """What differs in one table; ``rows`` are the keys of at most ``ROWS_SHOWN``."""

    table: str
    in_warehouse: int
    in_archive: int
    only_in_warehouse: int
    only_in_archive: int
    rows: list[dict[str, Any]]

    @property
    def equal(self) -> bool:
        return self.only_in_warehouse == self.only_in_archive == 0


def compare_schemas(
    database: Database, replayed: str, *, partners: Sequence[int], runs: Sequence[int]
) -> list[TableComparison]:
    """Compare the tables of these accounts, and what is kept of these runs."""
    values = {"partners": list(partners), "runs": list(runs), "shown": ROWS_SHOWN}
    found = []
    for compared in _COMPARED:
        with (
            read_only(database, STATEMENT_SECONDS) as connection,
            driver_connection(connection).cursor(row_factory=dict_row) as cursor,
        ):
            cursor.execute(_statement(compared, database.schema, replayed), values)
            rows = cursor.fetchall()
        (counts,) = [row for row in rows if row["number"] == 0]
        found.append(
            TableComparison(
                table=compared.table,
                in_warehouse=counts["in_kept"],
                in_archive=counts["in_replayed"],
                only_in_warehouse=counts["only_in_kept"],
                only_in_archive=counts["only_in_replayed"],
                rows=[
                    {"only_in": row["only_in"]} | {name: row[name] for name in compared.keys}
                    for row in rows
                    if row["number"] > 0
                ],
            )
        )
    return found


def copy_suppression(database: Database, replayed: Database) -> None:
    """Give the replay the list of the erased, and its key if the warehouse keeps it.

    What was erased must not come back to be compared.
    """
    with transaction(replayed.engine) as connection:
        for ours, theirs in (
            (database.tables.erasure, replayed.tables.erasure),
            (database.tables.erasure_key, replayed.tables.erasure_key),
        ):
            names = [column.name for column in ours.c]
            connection.execute(
                sa.insert(theirs).from_select(names, sa.select(*[ours.c[name] for name in names]))
            )


def drop_schema(database: Database) -> None:
    """Drop a schema and all that is in it."""
    with transaction(database.engine) as connection:
        connection.execute(DropSchema(database.schema, cascade=True, if_exists=True))


def _statement(compared: _Compared, kept: str, replayed: str) -> sql.Composed:
    """One row of counts (number 0), then the keys of rows that only one side has."""
    keys = sql.SQL(", ").join(sql.Identifier(name) for name in compared.keys)
    if compared.columns is None:
        content: sql.Composable = sql.SQL("row")
    else:
        content = sql.SQL("row({})").format(
            sql.SQL(", ").join(sql.Identifier("row", name) for name in compared.columns)
        )

    def side(schema: str) -> sql.Composed:
        return sql.SQL(
            "select {keys}, cast({content} as text) as content from {table} as row where {where}"
        ).format(
            keys=sql.SQL(", ").join(sql.Identifier("row", name) for name in compared.keys),
            content=content,
            table=sql.Identifier(schema, compared.table),
            where=compared.where.format(kept=sql.Identifier(kept)),
        )

    return sql.SQL(
        """
        with kept as materialized ({kept}), replayed as materialized ({replayed}),
        only_kept as materialized (select * from kept except all select * from replayed),
        only_replayed as materialized (select * from replayed except all select * from kept),
        differing as (
            select {keys}, 'warehouse' as only_in from only_kept
            union all select {keys}, 'archive' from only_replayed
        )
        select
            0 as number, (select count(*) from kept) as in_kept,
            (select count(*) from replayed) as in_replayed,
            (select count(*) from only_kept) as only_in_kept,
            (select count(*) from only_replayed) as only_in_replayed,
            null as only_in, {nulls}
        union all
        select row_number() over (), null, null, null, null, shown.only_in, {keys}
        from (select * from differing order by {keys}, only_in limit %(shown)s) as shown
        order by number
        """
    ).format(
        kept=side(kept),
        replayed=side(replayed),
        keys=keys,
        nulls=sql.SQL(", ").join(
            sql.SQL("null as {}").format(sql.Identifier(name)) for name in compared.keys
        ),
    )
