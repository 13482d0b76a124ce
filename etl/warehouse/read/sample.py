"""A sample of known tokens, and its comparison with what the service lists now.

By the loader's own rules (``etl.warehouse.load.compare``): a difference here is one for which a run
would write a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from etl.tokens.token import COMPARED, TOKEN_COLUMNS, Token
from etl.warehouse.load.compare import changed_columns
from etl.warehouse.load.witnesses import last_seen_at, load_witnesses
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 600
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Compared:
    """A known token and, if the service lists it, what differs there."""

    token_id: str
    is_listed: bool
    version: int
    run_id: int
    witnessed_at: datetime
    """No later than this it was as it is stored: no published run has seen it after that."""
    differing: tuple[str, ...]
    """Columns that differ; empty if the service does not list the token."""
    stored: dict[str, Any]
    """The values of ``COMPARED``."""


def sample_tokens(
    database: Database, partner_id: int, *, is_listed: bool, size: int, seed: int
) -> list[str]:
    """At most ``size`` ids of known tokens, chosen by a hash: the same ones for the same seed."""
    token = database.tables.upload_token
    query = (
        sa.select(token.c.token_id)
        .where(
            token.c.partner_id == partner_id,
            token.c.is_listed.is_(is_listed),
            # Such an id cannot be asked for: a comma separates ids.
            token.c.token_id != "",
            sa.func.strpos(token.c.token_id, ",") == 0,
        )
        .order_by(
            sa.func.hashtextextended(token.c.token_id, sa.literal(seed, sa.BigInteger)),
            token.c.token_id,
        )
        .limit(size)
    )
    with read_only(database, STATEMENT_SECONDS) as connection:
        return list(connection.scalars(query))


def compare_sample(
    database: Database, partner_id: int, asked: Sequence[str], listed: Sequence[Token]
) -> list[Compared]:
    """The tokens ``asked`` as they are stored, against ``listed``, the service's answer.

    ``listed`` has at most one row of an id.
    """
    known = database.tables.upload_token
    new = _relation(known, listed)
    with read_only(database, STATEMENT_SECONDS) as connection:
        seen_at = last_seen_at(
            database, known, partner_id, load_witnesses(connection, database, partner_id)
        )
        query = (
            sa.select(
                known,
                changed_columns(new.c, known.c).label("differing"),
                sa.func.greatest(known.c.observed_at, seen_at).label("witnessed_at"),
                new.c.token_id.is_not(None).label("answered"),
            )
            .select_from(known.outerjoin(new, new.c.token_id == known.c.token_id))
            .where(known.c.partner_id == partner_id, known.c.token_id.in_(asked))
            .order_by(known.c.token_id)
        )
        rows = connection.execute(query).mappings().all()
    return [
        Compared(
            token_id=row["token_id"],
            is_listed=row["is_listed"],
            version=row["version"],
            run_id=row["run_id"],
            witnessed_at=row["witnessed_at"],
            differing=tuple(row["differing"]) if row["answered"] else (),
            stored={name: row[name] for name in COMPARED},
        )
        for row in rows
    ]


def _relation(known: sa.Table, tokens: Sequence[Token]) -> sa.Subquery:
    """Tokens as a relation, sent as one JSON parameter."""
    rows = [
        token._asdict() | {"extra": None if token.extra is None else msgspec.Raw(token.extra)}
        for token in tokens
    ]
    sent = sa.bindparam("listed_rows", _encode(rows).decode(), type_=sa.Text)
    relation = (
        sa.func.json_to_recordset(sa.cast(sent, sa.JSON))
        .table_valued(*[sa.column(name, known.c[name].type) for name in TOKEN_COLUMNS])
        .render_derived(with_types=True)
    )
    return sa.select(relation).subquery("listed")
