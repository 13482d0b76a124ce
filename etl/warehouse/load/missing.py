"""Missing tokens: known tokens that are not on their page; a lookup must settle each."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from etl.tokens.token import DUPLICATE_ID
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.planning import in_walk, known_row, of_walk, whole_walk
from etl.warehouse.schema.database import Database


def missing_tokens(
    database: Database, run: OpenRun, *, after: str | None, limit: int = 500
) -> list[tuple[str, datetime]]:
    """Tokens after the id ``after`` that must be looked up by id, in the order of their ids.

    They are the tokens missing from their page, and those with two rows of different createdAt (or
    one row with another createdAt than known).  Each call reads the walk's staging once, so a large
    ``limit`` is cheaper.  A token that a lookup has settled is no longer returned.
    """
    tokens = _observed(database, run, after)
    known = known_row(database, run, tokens.c.token_id, ("token_id", "created_at"))
    gone = sa.and_(
        tokens.c.missing_at.is_not(None),
        sa.or_(tokens.c.present_at.is_(None), tokens.c.present_at <= tokens.c.missing_at),
    )
    two_rows = tokens.c.oldest != tokens.c.newest
    moved = sa.and_(known.c.token_id.is_not(None), known.c.created_at != tokens.c.newest)
    # Unless the known token was seen unchanged beside its duplicate: then nothing of it is staged,
    # and a lookup every night would be a useless request and write.
    twin = sa.and_(tokens.c.has_duplicate, tokens.c.is_staged)
    wanted = (
        sa.select(tokens.c.token_id, tokens.c.created_at)
        .select_from(tokens.outerjoin(known, sa.true()))
        .where(~tokens.c.looked_up, sa.or_(gone, two_rows, moved, tokens.c.asked, twin))
        .order_by(tokens.c.token_id)
        .limit(limit)
    )
    with whole_walk(database, run) as connection:
        return [(token_id, created_at) for token_id, created_at in connection.execute(wanted)]


def _observed(database: Database, run: OpenRun, after: str | None) -> sa.Subquery:
    """What the walk has staged of each token, and its rejected duplicates: in one pass."""
    staging, rejected = database.tables.upload_token_staging, database.tables.rejected_row
    counts = of_walk(staging, run)
    staged = sa.select(
        staging.c.token_id,
        staging.c.created_at,
        staging.c.observed_at,
        staging.c.kind,
        staging.c.from_lookup,
        counts.label("counts"),
    ).where(in_walk(staging, run))
    duplicates = sa.select(
        rejected.c.token_id,
        sa.func.to_timestamp(rejected.c.created_second),
        sa.cast(sa.null(), sa.DateTime(timezone=True)),
        sa.literal(DUPLICATE_ID),
        sa.false(),
        sa.false(),
    ).where(
        rejected.c.run_id == run.run_id,
        rejected.c.reason == DUPLICATE_ID,
        rejected.c.token_id.is_not(None),
    )
    if after is not None:
        staged = staged.where(staging.c.token_id > after)
        duplicates = duplicates.where(rejected.c.token_id > after)
    row = sa.union_all(staged, duplicates).subquery("observation").c
    present = sa.and_(row.kind == "present", ~row.from_lookup)
    missing = row.kind == "missing"
    return (
        sa.select(
            row.token_id,
            sa.func.min(row.created_at).label("created_at"),
            sa.func.bool_or(row.counts).label("is_staged"),
            sa.func.bool_or(sa.and_(row.from_lookup, row.counts)).label("looked_up"),
            # By an earlier run of the walk, whose answer no longer counts.
            sa.func.bool_or(sa.and_(row.from_lookup, ~row.counts)).label("asked"),
            sa.func.bool_or(row.kind == DUPLICATE_ID).label("has_duplicate"),
            sa.func.max(row.observed_at).filter(missing).label("missing_at"),
            sa.func.max(row.observed_at).filter(present).label("present_at"),
            sa.func.min(row.created_at).filter(present).label("oldest"),
            sa.func.max(row.created_at).filter(present).label("newest"),
        )
        .group_by(row.token_id)
        .subquery("observed")
    )
