"""Missing tokens: known tokens that are not on their page; a lookup must settle each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from etl.tokens.token import DUPLICATE_ID
from etl.warehouse.engine import transaction
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import of_walk
from etl.warehouse.schema.database import Database


def missing_tokens(
    database: Database, run: OpenRun, *, after: str | None, limit: int = 500
) -> list[tuple[str, datetime]]:
    """Tokens after the id ``after`` that must be looked up by id, in the order of their ids.

    They are the tokens missing from their page, and those with two rows of different createdAt (or
    one row with another createdAt than known).  Each call reads the walk's staging once, so a large
    ``limit`` is cheaper.  A token that a lookup has settled is no longer returned.
    """
    staging, token = database.tables.upload_token_staging, database.tables.upload_token
    rejected = database.tables.rejected_row
    present = sa.and_(staging.c.kind == "present", ~staging.c.from_lookup)
    missing = staging.c.kind == "missing"

    def newest(value: Any, condition: Any) -> Any:
        return sa.func.max(value).filter(condition)

    tokens = (
        sa.select(
            staging.c.token_id,
            sa.func.min(staging.c.created_at).label("created_at"),
            sa.func.bool_or(sa.and_(staging.c.from_lookup, of_walk(staging, run))).label(
                "looked_up"
            ),
            # By an earlier run of the walk, whose answer no longer counts.
            sa.func.bool_or(sa.and_(staging.c.from_lookup, ~of_walk(staging, run))).label("asked"),
            newest(staging.c.observed_at, missing).label("missing_at"),
            newest(staging.c.observed_at, present).label("present_at"),
            sa.func.min(staging.c.created_at).filter(present).label("oldest"),
            newest(staging.c.created_at, present).label("newest"),
        )
        .where(staging.c.walk_id == run.walk.walk_id)
        .group_by(staging.c.token_id)
        .subquery()
    )
    two_rows = tokens.c.oldest != tokens.c.newest
    moved = sa.and_(
        token.c.created_at != tokens.c.newest,
        token.c.token_id.is_not(None),
    )
    gone = sa.and_(
        tokens.c.missing_at.is_not(None),
        sa.or_(tokens.c.present_at.is_(None), tokens.c.present_at <= tokens.c.missing_at),
    )
    # Also tokens with a rejected duplicate, unless the known token was seen unchanged beside it:
    # then nothing of it is staged, and a lookup every night would be a useless request and write.
    looked_up, also_staged = staging.alias("looked_up"), staging.alias("also_staged")
    duplicates = (
        sa.select(
            rejected.c.token_id,
            sa.func.to_timestamp(sa.func.min(rejected.c.created_second)).label("created_at"),
        )
        .where(
            rejected.c.run_id == run.run_id,
            rejected.c.reason == DUPLICATE_ID,
            rejected.c.token_id.is_not(None),
            sa.exists().where(
                of_walk(also_staged, run),
                also_staged.c.token_id == rejected.c.token_id,
            ),
            sa.not_(
                sa.exists().where(
                    of_walk(looked_up, run),
                    looked_up.c.token_id == rejected.c.token_id,
                    looked_up.c.from_lookup,
                )
            ),
        )
        .group_by(rejected.c.token_id)
    )
    union = sa.union_all(
        sa.select(tokens.c.token_id, tokens.c.created_at)
        .select_from(
            tokens.outerjoin(
                token,
                sa.and_(
                    token.c.partner_id == run.partner_id, token.c.token_id == tokens.c.token_id
                ),
            )
        )
        .where(~tokens.c.looked_up, sa.or_(gone, two_rows, moved, tokens.c.asked)),
        duplicates,
    ).subquery()
    wanted = (
        sa.select(union.c.token_id, sa.func.min(union.c.created_at))
        .group_by(union.c.token_id)
        .order_by(union.c.token_id)
        .limit(limit)
    )
    if after is not None:
        wanted = wanted.where(union.c.token_id > after)
    with transaction(database.engine) as connection:
        return [(token_id, created_at) for token_id, created_at in connection.execute(wanted)]
