"""What counts as a difference: a batch, or a walk's staging, against ``upload_token``.

The rows of a batch whose digests do not settle them (``etl.warehouse.load.fingerprint``) are sent
to the server as a relation, and one SELECT returns which of them differ and which known tokens are
missing from its spans.  The relation is

- ``json_to_recordset`` of one parameter, as long as they are few,
- else a temporary table filled by COPY, created once per server connection: the faster way for
  many rows, but it writes tens of kilobytes of WAL to the catalogs.

Volatile columns (``upload_url``, ``auto_finalize``) are never compared, and not even sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy.dialects.postgresql import JSONB, array
from sqlalchemy.schema import CreateTable

from etl.coverage import Coverage
from etl.tokens.token import COMPARED, Token
from etl.warehouse.engine import copy_rows
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.fingerprint import digested
from etl.warehouse.load.planning import intervals, known_row, listed_within
from etl.warehouse.schema.database import Database

KEPT_WHEN_ABSENT: Final = frozenset({"user_id", "auto_finalize", "upload_url"})
"""Columns whose known value is kept when a row has none."""
SQL_TYPES: Final = {
    "status": "int2",
    "file_size_bytes": "int8",
    "uploaded_size_bytes": "int8",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "auto_finalize": "bool",
    "extra": "jsonb",
    "digest": "int8",
    "user_digest": "int8",
}
"""Types of the columns that are not text, for COPY."""
_SENT_PLAIN: Final = ("token_id", *[name for name in COMPARED if name != "extra"])
_SENT: Final = (*_SENT_PLAIN, "extra")
DECIDING: Final = ("is_listed", *_SENT)
"""Of a known row: what decides whether another one is a new version of it."""
_sent_values: Final = attrgetter(*_SENT_PLAIN)
_CORE_TYPES: Final[dict[str, sa.types.TypeEngine[Any]]] = {
    "int2": sa.SmallInteger(),
    "int8": sa.BigInteger(),
    "timestamptz": sa.DateTime(timezone=True),
    "jsonb": JSONB(),
    "text": sa.Text(collation="C"),
}


def _batch_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("ordinal", sa.Integer),
        *[sa.Column(name, _CORE_TYPES[SQL_TYPES.get(name, "text")]) for name in _SENT],
    ]


# The name contains a number because a connection behind PgBouncer may still have the table of an
# older program version: change it with the columns.
_BATCH_NAME = "kaltura_etl_batch_1"
_BATCH = sa.Table(
    _BATCH_NAME,
    sa.MetaData(),
    *_batch_columns(),
    schema="pg_temp",
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DELETE ROWS",
)
_CREATE_BATCH = CreateTable(_BATCH, if_not_exists=True)
_BATCH_COPY_COLUMNS = [
    ("ordinal", "int4"),
    *[(name, SQL_TYPES.get(name, "text")) for name in _SENT],
]
JSON_ROWS_MAX: Final = 1_000
_encode = msgspec.json.Encoder().encode


class Differences(NamedTuple):
    """The result of comparing a batch; ordinals count its tokens from 0."""

    differing: list[int]
    older: list[int]
    """Rows whose createdAt is before the known one: possibly a duplicate id."""
    missing: list[tuple[str, datetime]]
    """token_id and created_at of known tokens that are missing from a span."""


def json_of(extra: bytes | None) -> Jsonb | None:
    """``extra`` for COPY: its text is sent unchanged (a str would become a JSON string)."""
    return None if extra is None else Jsonb(extra, dumps=bytes)


def compare_batch(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    tokens: Sequence[Token],
    *,
    seconds: Coverage,
    spans: Coverage,
    staged: Collection[str] = (),
    rejected_ids: Sequence[str] = (),
    unaccounted: Sequence[int] | None = None,
    open_only: bool = False,
    json_rows_max: int = JSON_ROWS_MAX,
) -> Differences:
    """Compare tokens (distinct ids) with the known ones.

    ``seconds`` contains the createdAt of all of them.  In ``spans`` the batch shows everything that
    was listed, or with ``open_only`` everything that was listed as open; ``rejected_ids`` were on
    its pages too, in rows that could not be loaded.  ``staged`` are tokens that the walk has staged
    before.  With ``unaccounted``, only the known tokens with these digests or without one can be
    missing: the rows of the others are settled.
    """
    if len(tokens) <= json_rows_max:
        batch: sa.FromClause = _json_batch(tokens)
    else:
        batch = _BATCH
        connection.execute(_CREATE_BATCH)
        copy_rows(
            connection,
            sql.Identifier("pg_temp", _BATCH_NAME),
            _BATCH_COPY_COLUMNS,
            (
                (ordinal, *_sent_values(token), json_of(token.extra))
                for ordinal, token in enumerate(tokens)
            ),
        )
    known = _known_around(
        database, run, seconds.union(spans), unaccounted=unaccounted, open_only=open_only
    )
    parts = [
        _differing(database, run, batch, known),
        _staged_before(database, run, batch, staged),
        _missing(batch, known, spans, rejected_ids),
    ]
    differing: set[int] = set()
    older: set[int] = set()
    missing: list[tuple[str, datetime]] = []
    for ordinal, is_older, token_id, created_at in connection.execute(sa.union_all(*parts)):
        if ordinal is None:
            missing.append((token_id, created_at))
        else:
            (older if is_older else differing).add(ordinal)
    return Differences(sorted(differing), sorted(older), missing)


def differs(new: Any, known: Any) -> sa.ColumnElement[bool]:
    """Whether row ``new`` of a known token is a new version; both have the token's columns."""
    return sa.or_(*[_column_differs(name, new, known) for name in COMPARED])


def changed_columns(new: Any, known: Any) -> sa.ColumnElement[Any]:
    """The array of the compared columns that differ, in the order of the table."""
    names: list[sa.ColumnElement[Any]] = [
        sa.case((_column_differs(name, new, known), sa.literal(name))) for name in COMPARED
    ]
    all_names: array[Any] = array(names, type_=sa.Text)
    return sa.func.array_remove(all_names, sa.null())


def _column_differs(name: str, new: Any, known: Any) -> sa.ColumnElement[bool]:
    different: sa.ColumnElement[bool] = new[name].is_distinct_from(known[name])
    if name in KEPT_WHEN_ABSENT:
        return sa.and_(new[name].is_not(None), different)
    return different


def _known_around(
    database: Database,
    run: OpenRun,
    seconds: Coverage,
    *,
    unaccounted: Sequence[int] | None,
    open_only: bool,
) -> sa.CTE:
    """The known listed tokens in the seconds of the batch, read once from the index.

    A token that is open now and was not is looked up by primary key, like a new one.
    """
    token, parts = database.tables.upload_token, intervals(seconds)
    unsettled: sa.ColumnElement[bool] = sa.true()
    if unaccounted is not None:
        digests = sa.cast(list(unaccounted), sa.ARRAY(sa.BigInteger))
        unsettled = sa.or_(token.c.digest == sa.any_(digests), sa.not_(digested(token)))
    known = listed_within(database, run.partner_id, parts, _SENT, unsettled, open_only=open_only)
    return (
        sa.select(*known.c)
        .select_from(parts.join(known, sa.true()))
        .cte("known")
        .prefix_with("materialized")
    )


def _differing(
    database: Database, run: OpenRun, batch: sa.FromClause, known: sa.CTE
) -> sa.Select[Any]:
    """Rows that differ.

    Nearly all rows have an equal in ``known`` and are dropped by one hash join; fetching each of
    them by primary key would cost four times as much.  Only the rest is fetched that way.
    """
    unequal = (
        sa.select(batch)
        .where(
            sa.not_(
                sa.exists().where(
                    known.c.token_id == batch.c.token_id, sa.not_(differs(batch.c, known.c))
                )
            )
        )
        .subquery("unequal")
    )
    token = known_row(database, run, unequal.c.token_id, DECIDING)
    return _outcome(unequal, token).where(
        sa.or_(
            token.c.token_id.is_(None),
            token.c.is_listed.is_(False),
            differs(unequal.c, token.c),
        )
    )


def _staged_before(
    database: Database, run: OpenRun, batch: sa.FromClause, staged: Collection[str]
) -> sa.Select[Any]:
    """Rows of tokens that an earlier page of the walk showed differently, or did not show.

    The later observation must win, even if it shows no change.
    """
    ids = sa.cast(sorted(staged), sa.ARRAY(_CORE_TYPES["text"]))
    known = known_row(database, run, batch.c.token_id, ("is_listed", "created_at"))
    return _outcome(batch, known).where(batch.c.token_id == sa.any_(ids))


def _outcome(batch: sa.FromClause, token: sa.FromClause) -> sa.Select[Any]:
    is_older = sa.and_(token.c.is_listed, batch.c.created_at < token.c.created_at)
    return sa.select(
        batch.c.ordinal,
        is_older.label("is_older"),
        sa.cast(sa.null(), _CORE_TYPES["text"]).label("token_id"),
        sa.cast(sa.null(), _CORE_TYPES["timestamptz"]).label("created_at"),
    ).select_from(batch.outerjoin(token, sa.true()))


def _missing(
    batch: sa.FromClause, known: sa.CTE, spans: Coverage, rejected_ids: Sequence[str]
) -> sa.Select[Any]:
    parts = intervals(spans)
    return sa.select(
        sa.cast(sa.null(), sa.Integer),
        sa.cast(sa.null(), sa.Boolean),
        known.c.token_id,
        known.c.created_at,
    ).where(
        sa.exists().where(known.c.created_at >= parts.c.lower, known.c.created_at < parts.c.upper),
        # An older row of the same id is a duplicate id, and does not show the known token.
        sa.not_(
            sa.exists().where(
                batch.c.token_id == known.c.token_id, batch.c.created_at >= known.c.created_at
            )
        ),
        known.c.token_id != sa.all_(sa.cast(list(rejected_ids), sa.ARRAY(_CORE_TYPES["text"]))),
    )


def _json_batch(tokens: Sequence[Token]) -> sa.FromClause:
    rows = [
        dict(
            zip(
                ("ordinal", *_SENT),
                (
                    ordinal,
                    *_sent_values(token),
                    None if token.extra is None else msgspec.Raw(token.extra),
                ),
                strict=True,
            )
        )
        for ordinal, token in enumerate(tokens)
    ]
    text = sa.bindparam("batch_rows", _encode(rows).decode(), type_=sa.Text)
    rows_of_json = (
        sa.func.json_to_recordset(sa.cast(text, sa.JSON))
        .table_valued(*[sa.column(column.name, column.type) for column in _batch_columns()])
        .render_derived(with_types=True)
    )
    # A CTE that is used twice is evaluated once.
    return sa.select(rows_of_json).cte("batch")
