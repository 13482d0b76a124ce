"""Witnesses: the published runs that have seen the latest version of a token."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from etl.tokens.token import OPEN_STATUSES
from etl.warehouse.schema.database import Database


def last_seen_at(database: Database, known: sa.Table) -> sa.ColumnElement[Any]:
    """The last time at which a row of upload_token is known to have been current.

    It is the start of the last published walk that saw it: the one that published its version, or a
    later one that covered its second and does not list it in unobserved_token.  By the arrival of a
    reply the token may have changed already.
    """
    unobserved_token = database.tables.unobserved_token
    published = database.tables.sync_run.alias("published")
    first = database.tables.sync_run.alias("first_run")
    second = sa.cast(sa.func.floor(sa.extract("epoch", known.c.created_at)), sa.BigInteger)
    overlooked = (
        sa.exists()
        .where(
            unobserved_token.c.partner_id == known.c.partner_id,
            unobserved_token.c.token_id == known.c.token_id,
            unobserved_token.c.run_id == published.c.run_id,
        )
        # Not a FROM of the subquery: another "known" would hide the correlated one.
        .correlate(known, published)
    )
    seen = (
        sa.select(sa.func.max(first.c.started_at))
        .select_from(published.join(first, first.c.run_id == published.c.walk_id))
        .where(
            published.c.partner_id == known.c.partner_id,
            published.c.published_at.is_not(None),
            sa.or_(
                published.c.run_id == known.c.run_id,
                sa.and_(_covered(published, known, second), sa.not_(overlooked)),
            ),
        )
        .correlate(known)
        .scalar_subquery()
    )
    return sa.func.coalesce(seen, known.c.observed_at)


def _covered(
    published: Any, known: sa.Table, second: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Whether a run covered the token's second in the whole list, or in the open one if it is open.

    The list of open tokens says nothing about an absent token.
    """
    return sa.or_(
        published.c.coverage.contains(second),
        sa.and_(
            known.c.is_listed,
            known.c.status.in_(OPEN_STATUSES),
            published.c.open_coverage.contains(second),
        ),
    )
