"""Compare two schemas of one database row by row: a warehouse, and its replay.

Rows are compared as text, so byte for byte as a dump would show them.  No statement reads both
schemas, which may be on two machines: each makes hashes of groups of its rows, and the rows of the
groups whose hashes differ are compared here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.schema import DropSchema

from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.page import PageFacts
from etl.warehouse.engine import driver_connection, transaction
from etl.warehouse.load.resolve import VERSION_COLUMNS
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 3_600
ROWS_SHOWN: Final = 20
EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
GROUPS: Final = 4_096
"""The rows of one group of each schema are in memory."""
_RUN_FACTS: Final = (
    *("run_id", "partner_id", "walk_id", "range_from", "range_to", "status", "started_at"),
    *("finished_at", "published_at", "pages", "rows_read", "tokens_read", "inserted", "changed"),
    *("unchanged", "rejected", "absent", "relisted", "unreadable", "listed_before"),
    *("coverage", "open_coverage", "holes", "service"),
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
    """Which rows; of what was pruned in the warehouse, the replay has more."""
    columns: tuple[str, ...] | None = None
    """None: all of them."""


_PARTNERS: Final = sql.SQL("row.partner_id = any(cast(%(partners)s as integer[]))")
_WITH_PAGES: Final = sql.SQL("row.run_id = any(cast(%(runs_with_pages)s as bigint[]))")
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
            "row.partner_id = any(cast(%(partners)s as integer[])) and row.valid_to >= "
            "(cast(%(horizons)s as timestamptz[]))"
            "[array_position(cast(%(partners)s as integer[]), row.partner_id)]"
        ),
    ),
    _Compared(
        "upload_token_status_moment_log",
        ("partner_id", "token_id", "version"),
        # The moments of pruned versions are pruned with them.
        sql.SQL(
            "row.partner_id = any(cast(%(partners)s as integer[])) and row.valid_from >= "
            "(cast(%(horizons)s as timestamptz[]))"
            "[array_position(cast(%(partners)s as integer[]), row.partner_id)]"
        ),
    ),
    _Compared(
        "upload_token_status_count_log",
        ("partner_id", "run_id", "quarter_hour", "status"),
        # Those of earlier runs may have been reckoned back from versions that were left.
        sql.SQL("row.run_id = any(cast(%(runs_not_pruned)s as bigint[]))"),
    ),
    _Compared(
        "upload_bytes_arrival_log",
        ("partner_id", "run_id", "is_long", "utc_day"),
        # What earlier runs told cannot be filled from versions that were pruned.
        sql.SQL("row.run_id = any(cast(%(runs_not_pruned)s as bigint[]))"),
    ),
    _Compared("unobserved_token", ("partner_id", "token_id", "run_id"), _PARTNERS),
    _Compared("rejected_row", ("run_id", "token_id", "reason"), _WITH_PAGES),
    _Compared("sync_page", ("run_id", "seq"), _WITH_PAGES, _PAGE_FACTS),
    _Compared(
        "sync_run",
        ("partner_id", "run_id"),
        sql.SQL("row.run_id = any(cast(%(runs)s as bigint[]))"),
        _RUN_FACTS,
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
    database: Database, replayed: Database, *, partners: Sequence[int], runs: Sequence[int]
) -> list[TableComparison]:
    """Compare the tables of these accounts, and what is kept of these runs."""
    with _snapshot(database) as kept, _snapshot(replayed) as again:
        values = _kept(kept, database, partners, runs)
        return [
            _compare(
                compared,
                _Side(kept, database.schema, values),
                _Side(again, replayed.schema, values),
            )
            for compared in _COMPARED
        ]


def _snapshot(database: Database) -> AbstractContextManager[sa.Connection]:
    engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
    return read_only(replace(database, engine=engine), STATEMENT_SECONDS)


def _kept(
    connection: sa.Connection, database: Database, partners: Sequence[int], runs: Sequence[int]
) -> dict[str, Any]:
    """What the warehouse has not pruned: the parameters of both sides."""
    page, pruning = database.tables.sync_page, database.tables.pruning
    horizons = {
        row.partner_id: row.horizon
        for row in connection.execute(
            sa.select(pruning.c.partner_id, sa.func.max(pruning.c.horizon).label("horizon"))
            .where(pruning.c.kind == "versions")
            .group_by(pruning.c.partner_id)
        )
    }
    with_pages = connection.scalars(
        sa.select(page.c.run_id).where(page.c.run_id.in_(runs)).distinct()
    )
    run = database.tables.sync_run
    published = connection.execute(
        sa.select(run.c.run_id, run.c.partner_id, run.c.published_at).where(
            run.c.run_id.in_(runs), run.c.published_at.is_not(None)
        )
    )
    return {
        "partners": list(partners),
        "horizons": [horizons.get(each, EARLIEST) for each in partners],
        "runs": list(runs),
        "runs_with_pages": list(with_pages),
        "runs_not_pruned": [
            row.run_id
            for row in published
            if row.published_at >= horizons.get(row.partner_id, EARLIEST)
        ],
        "groups": GROUPS,
    }


class _Side(NamedTuple):
    """One of the two schemas."""

    connection: sa.Connection
    schema: str
    values: Mapping[str, Any]

    def groups(self, compared: _Compared) -> dict[int, tuple[int, bytes]]:
        """The number and the hash of the rows of each group, by its number."""
        statement = sql.SQL(
            "select number, count(*), sha256(string_agg(hash, '' order by hash)) from ("
            "select {number} as number, sha256(convert_to({content}, 'UTF8')) as hash "
            "from {table} as row where {where}) as hashed group by number"
        )
        with driver_connection(self.connection).cursor() as cursor:
            cursor.execute(self._filled(statement, compared), self.values)
            return {number: (count, bytes(hashed)) for number, count, hashed in cursor}

    def rows(
        self, compared: _Compared, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Counter[tuple[tuple[Any, ...], str]]]]:
        """The rows of these groups, in their order: keys and content, and how many there are."""
        statement = sql.SQL(
            "select {number}, {content}, {keys} from {table} as row "
            "where {where} and {number} = any(%(numbers)s) order by 1"
        )
        with driver_connection(self.connection).cursor() as cursor:
            found = cursor.stream(
                self._filled(statement, compared), {**self.values, "numbers": list(numbers)}
            )
            for number, rows in groupby(found, key=itemgetter(0)):
                yield number, Counter((tuple(keys), content) for _, content, *keys in rows)

    def _filled(self, statement: sql.SQL, compared: _Compared) -> sql.Composed:
        keys = [sql.Identifier("row", name) for name in compared.keys]
        content: sql.Composable = sql.SQL("row")
        if compared.columns is not None:
            columns = [sql.Identifier("row", name) for name in compared.columns]
            content = sql.SQL("row({})").format(sql.SQL(", ").join(columns))
        return statement.format(
            number=sql.SQL("mod(hashtextextended(concat_ws(' ', {}), 0), %(groups)s)").format(
                sql.SQL(", ").join(keys)
            ),
            content=sql.SQL("cast({} as text)").format(content),
            keys=sql.SQL(", ").join(keys),
            table=sql.Identifier(self.schema, compared.table),
            where=compared.where,
        )


def _compare(compared: _Compared, kept: _Side, replayed: _Side) -> TableComparison:
    ours, theirs = kept.groups(compared), replayed.groups(compared)
    differing = sorted(
        number for number in ours.keys() | theirs if ours.get(number) != theirs.get(number)
    )
    only_kept = only_replayed = 0
    shown: list[tuple[tuple[Any, ...], str]] = []
    if differing:
        there = _by_number(kept.rows(compared, differing), differing)
        again = _by_number(replayed.rows(compared, differing), differing)
        for one, other in zip(there, again, strict=True):
            for word, rows in (("warehouse", one - other), ("archive", other - one)):
                if word == "warehouse":
                    only_kept += rows.total()
                else:
                    only_replayed += rows.total()
                shown += [(keys, word) for keys, _ in rows.elements()]
            shown = sorted(shown, key=_order)[:ROWS_SHOWN]
    return TableComparison(
        table=compared.table,
        in_warehouse=sum(count for count, _ in ours.values()),
        in_archive=sum(count for count, _ in theirs.values()),
        only_in_warehouse=only_kept,
        only_in_archive=only_replayed,
        rows=[
            {"only_in": word} | dict(zip(compared.keys, keys, strict=True)) for keys, word in shown
        ],
    )


def _by_number(
    found: Iterator[tuple[int, Counter[Any]]], numbers: Sequence[int]
) -> Iterator[Counter[Any]]:
    """One for each of ``numbers``, which are in order; some may have no rows."""
    following = next(found, None)
    for number in numbers:
        if following is not None and following[0] == number:
            yield following[1]
            following = next(found, None)
        else:
            yield Counter()


def _order(row: tuple[tuple[Any, ...], str]) -> tuple[Any, ...]:
    """By the keys, None last."""
    keys, word = row
    return *[(key is None, key) for key in keys], word


def copy_suppression(database: Database, replayed: Database) -> None:
    """Give the replay the list of the erased, and its key if the warehouse keeps it.

    What was erased must not come back to be compared.
    """
    for name in ("erasure", "erasure_key"):
        ours: sa.Table = getattr(database.tables, name)
        with transaction(database.engine) as connection:
            rows = [dict(row) for row in connection.execute(sa.select(ours)).mappings()]
        if rows:
            with transaction(replayed.engine) as connection:
                connection.execute(sa.insert(getattr(replayed.tables, name)), rows)


def drop_schema(database: Database) -> None:
    """Drop a schema and all that is in it."""
    with transaction(database.engine) as connection:
        connection.execute(DropSchema(database.schema, cascade=True, if_exists=True))
