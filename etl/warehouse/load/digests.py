"""Digests of stored tokens: made again from their columns, to fill them in and to check them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import Coverage, Span
from etl.tokens.columns import PageTokens
from etl.tokens.digest import NO_USER
from etl.tokens.token import TOKEN_COLUMNS, Token, time_of_second
from etl.warehouse.engine import SETTINGS, require_row_count, transaction
from etl.warehouse.load.fingerprint import digested, known_digests
from etl.warehouse.schema.database import Database

TOKENS_AT_ONCE: Final = 5_000
TOKENS_PER_INTERVAL: Final = 500
INTERVAL_TRIES: Final = 3
STATEMENT_SECONDS: Final = 3_600
BY_PRIMARY_KEY: Final = {
    **SETTINGS,
    **dict.fromkeys(("enable_sort", "enable_bitmapscan", "enable_hashjoin"), "off"),
    "enable_mergejoin": "off",
}
"""Each step reads on from where the one before ended, whatever the statistics say."""


def fill_digests(
    database: Database, partner_id: int, run_id: int, *, check: Callable[[], None]
) -> int:
    """Make the digests that tokens of the account lack; returns how many.

    They are missing after a migration and after an erasure.  The run, which has published, counts
    them in its row.  Each step is a transaction that locks the rows which it has read, so that an
    erasure comes before or after it; rows that another transaction has locked are left to a later
    run, so that none waits for the other.  ``check`` is called between steps and may raise.
    """
    token, sync_run = database.tables.upload_token, database.tables.sync_run
    after, filled = "", 0
    while True:
        check()
        with transaction(
            database.engine, statement_seconds=STATEMENT_SECONDS, **BY_PRIMARY_KEY
        ) as connection:
            rows = connection.execute(
                _stored(token, partner_id, after)
                .where(~digested(token))
                .with_for_update(skip_locked=True)
            ).all()
            if not rows:
                return filled
            ids, digests, users = _made_again(rows)
            new = (
                sa.func.unnest(
                    sa.cast(ids, sa.ARRAY(sa.Text(collation="C"))),
                    sa.cast(digests, sa.ARRAY(sa.BigInteger)),
                    sa.cast(users, sa.ARRAY(sa.BigInteger)),
                )
                .table_valued(
                    sa.column("token_id", sa.Text(collation="C")),
                    sa.column("digest", sa.BigInteger),
                    sa.column("user_digest", sa.BigInteger),
                )
                .render_derived(name="new")
            )
            done = connection.execute(
                sa.update(token)
                .where(token.c.partner_id == partner_id, token.c.token_id == new.c.token_id)
                .values(digest=new.c.digest, user_digest=new.c.user_digest)
            )
            require_row_count(token.name, changed=done.rowcount, meant=len(rows))
            counted = connection.execute(
                sa.update(sync_run)
                .where(sync_run.c.run_id == run_id)
                .values(digests_filled=sync_run.c.digests_filled + len(rows))
            )
            require_row_count(sync_run.name, changed=counted.rowcount, meant=1)
        filled += len(rows)
        after = ids[-1]


def known_accounts(database: Database) -> list[int]:
    """The accounts that the ledger knows."""
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        return list(
            connection.scalars(sa.select(sync_run.c.partner_id).distinct().order_by("partner_id"))
        )


def wrong_digests(
    database: Database, partner_id: int, *, check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Tokens of the account whose digests are not those of their columns.

    All are derived again, ``TOKENS_AT_ONCE`` in memory; a missing digest is not wrong.
    """
    token = database.tables.upload_token
    after = ""
    while True:
        check()
        with transaction(database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
            rows = connection.execute(
                _stored(token, partner_id, after, token.c.digest, token.c.user_digest)
            ).all()
        if not rows:
            return
        ids, digests, users = _made_again(rows)
        for row, digest, user_digest in zip(rows, digests, users, strict=True):
            stored = (row.digest, row.user_digest)
            if row.digest is not None and stored not in ((digest, user_digest), (digest, None)):
                yield {"partner_id": partner_id, "token_id": row.token_id}
        after = ids[-1]


def wrong_fingerprints(
    database: Database, partner_id: int, *, intervals: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Random intervals of createdAt whose fingerprint is not that of their tokens' columns.

    The one is read as a run does, from the index of listed tokens; the other is made again.  An
    account with no more tokens than an interval should have is one interval.
    """
    token = database.tables.upload_token
    listed = (token.c.partner_id == partner_id, token.c.is_listed)
    random = Random(seed)  # noqa: S311 - a sample
    with transaction(database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
        first, last, tokens = connection.execute(
            sa.select(
                sa.func.min(token.c.created_at), sa.func.max(token.c.created_at), sa.func.count()
            ).where(*listed)
        ).one()
    if not tokens:
        return
    begin, end = int(first.timestamp()), int(last.timestamp()) + 1
    spans = [Span(begin, end)]
    if tokens > TOKENS_PER_INTERVAL:
        width = max(1, (end - begin) * TOKENS_PER_INTERVAL // tokens)
        lowers = [random.randrange(begin, end) for _ in range(intervals)]
        spans = [Span(lower, lower + random.randint(1, 2 * width)) for lower in lowers]
    for span in spans:
        # Its two sides are two statements: a run may publish between them, but hardly each time.
        if not any(_agrees(database, partner_id, span) for _ in range(INTERVAL_TRIES)):
            yield {"partner_id": partner_id, "interval": span.to_sql()}


def _agrees(database: Database, partner_id: int, span: Span) -> bool:
    token = database.tables.upload_token
    spans = Coverage([span])
    with transaction(database.engine, statement_seconds=STATEMENT_SECONDS) as connection:
        known = known_digests(connection, database, partner_id, seconds=spans, spans=spans)
        rows = connection.execute(
            sa.select(*_columns(token)).where(
                token.c.partner_id == partner_id,
                token.c.is_listed,
                digested(token),
                token.c.created_at >= time_of_second(span.lower),
                token.c.created_at < time_of_second(span.upper),
            )
        ).all()
    _, digests, users = _made_again(rows)
    again = dict(zip(digests, [user or NO_USER for user in users], strict=True))
    return again == known.every and known.inside == again.keys()


def _stored(
    token: sa.Table, partner_id: int, after: str, *more: sa.ColumnElement[Any]
) -> sa.Select[Any]:
    return (
        sa.select(*_columns(token), *more)
        .where(token.c.partner_id == partner_id, token.c.token_id > after)
        .order_by(token.c.token_id)
        .limit(TOKENS_AT_ONCE)
    )


def _columns(token: sa.Table) -> list[sa.ColumnElement[Any]]:
    """The columns of a token; ``extra`` as text, which JSON numbers outlive."""
    return [
        sa.cast(token.c[name], sa.Text).label(name) if name == "extra" else token.c[name]
        for name in TOKEN_COLUMNS
    ]


def _made_again(rows: Sequence[Any]) -> tuple[list[str], list[int], list[int | None]]:
    """Ids, digests and user digests of stored rows, which begin with the columns of a token."""
    tokens = PageTokens.of(Token(*row[: len(TOKEN_COLUMNS)]) for row in rows)
    users = [None if digest == NO_USER else digest for digest in tokens.user_digests()]
    return list(tokens.token_ids), list(tokens.digests()), users
