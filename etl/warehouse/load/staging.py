"""Staging: what the pages and look-ups of a walk said that differs from what is known.

One transaction a batch: compare, then save the coverage, the pages, the rejected rows and the
differences together.  The comparison comes before the fence, so that the ledger row is updated
once, with all counters; nothing that outlives the transaction is written before the fence, and a
run that has lost its lease gets no further.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import insert

from etl.coverage import Coverage
from etl.errors import EtlError
from etl.tokens.decode import TOKEN_COLUMNS, Rejected, Token
from etl.warehouse.engine import copy_rows, transaction
from etl.warehouse.ledger.lease import fence
from etl.warehouse.ledger.run import (
    DUPLICATE_ID,
    BatchResult,
    Database,
    OpenRun,
    StagedPage,
    time_of_page_end,
)
from etl.warehouse.load.compare import SQL_TYPES, Differences, compare_batch, json_of, of_walk
from etl.warehouse.load.observations import Seen, duplicate, newest_of_each, seconds_of, taken_by

_STAGING_COLUMNS: Final = [
    ("walk_id", "int8"),
    ("partner_id", "int4"),
    *[(name, SQL_TYPES.get(name, "text")) for name in TOKEN_COLUMNS],
    ("kind", "text"),
    ("from_lookup", "bool"),
    ("observed_at", "timestamptz"),
]
_INSERT_ROWS_MAX = 1_000


def stage_batch(
    database: Database,
    run: OpenRun,
    pages: Sequence[StagedPage],
    *,
    coverage: Coverage,
    open_coverage: Coverage | None,
    holes: list[dict[str, Any]],
    requests: int,
    retries: int,
) -> BatchResult:
    """Save what the pages said; see ``Warehouse.stage_batch``."""
    pages = [taken_by(run, page) for page in pages]
    coverage = coverage.within(run.range)
    open_coverage = run.open_coverage if open_coverage is None else open_coverage
    open_only = any(page.open_only for page in pages)
    if open_only and not all(page.open_only or page.asked is not None for page in pages):
        raise EtlError("pages of the whole list and of the open tokens need batches of their own")
    seen, rejected = newest_of_each(pages)
    spans = Coverage(page.span for page in pages if page.span is not None)
    with transaction(database.engine) as connection:
        if run.known_before == 0:
            found = Differences(list(range(len(seen))), [], [])
        else:
            found = compare_batch(
                connection,
                database,
                run,
                [each.token for each in seen],
                seconds=Coverage(seconds_of(page) for page in pages if page.tokens),
                spans=spans,
                open_only=open_only,
                rejected_ids=[
                    each.token_id
                    for each in rejected
                    # A rejected twin says nothing of the known token.
                    if each.token_id is not None and each.reason != DUPLICATE_ID
                ],
            )
        rejected += [duplicate(seen[ordinal]) for ordinal in found.older]
        rows = [
            _present(run, seen[ordinal].token, seen[ordinal].observed_at, from_lookup=False)
            for ordinal in found.differing
            if not run.has_later(seen[ordinal].token, seen[ordinal].observed_at)
        ]
        if found.missing:
            observed_at = min(page.received_at for page in pages)
            rows += [
                _gone(run, token_id, created_at, "missing", observed_at)
                for token_id, created_at in found.missing
            ]
        result = BatchResult(len(rows) - len(found.missing), len(found.missing), len(rejected))
        _save(
            connection,
            database,
            run,
            pages,
            rows=rows,
            rejected=rejected,
            coverage=coverage.to_sql(),
            open_coverage=open_coverage.to_sql(),
            holes=holes,
            requests=requests,
            retries=retries,
        )
    _count(run, pages, rows, rejected)
    run.remember(pages)
    run.coverage, run.open_coverage, run.holes = coverage, open_coverage, holes
    return result


def stage_lookup(
    database: Database,
    run: OpenRun,
    asked: Sequence[str],
    page: StagedPage,
    *,
    absence_grace: timedelta,
) -> None:
    """Save the answer to a look-up by id; see ``Warehouse.stage_lookup``."""
    run.absence_grace = absence_grace
    seen, rejected = newest_of_each([page])
    answered = {each.token.token_id for each in seen} | {each.token_id for each in rejected}
    silent = [token_id for token_id in asked if token_id not in answered]
    with transaction(database.engine) as connection:
        rows = [_present(run, each.token, each.observed_at, from_lookup=True) for each in seen]
        rows += [
            _gone(run, token_id, created_at, "absent", page.received_at, from_lookup=True)
            for token_id, created_at in _listed_among(connection, database, run, silent)
            # A replica that lags may not have a young token yet.
            if created_at <= page.received_at - absence_grace
        ]
        _save(connection, database, run, [page], rows=rows, rejected=rejected)
        _acquit(connection, database, run, seen)
    _count(run, [page], rows, rejected)


def missing_tokens(
    database: Database, run: OpenRun, *, after: str | None, limit: int
) -> list[tuple[str, datetime]]:
    """Tokens that a look-up must settle; see ``Warehouse.missing_tokens``."""
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
            # By an earlier run of the walk, whose answer counts no more.
            sa.func.bool_or(sa.and_(staging.c.from_lookup, ~of_walk(staging, run))).label("asked"),
            newest(staging.c.observed_at, missing).label("missing_at"),
            newest(staging.c.observed_at, present).label("present_at"),
            sa.func.min(staging.c.created_at).filter(present).label("oldest"),
            newest(staging.c.created_at, present).label("newest"),
        )
        .where(staging.c.walk_id == run.walk_id)
        .group_by(staging.c.token_id)
        .subquery()
    )
    twins = tokens.c.oldest != tokens.c.newest
    moved = sa.and_(
        token.c.created_at != tokens.c.newest,
        token.c.token_id.is_not(None),
    )
    gone = sa.and_(
        tokens.c.missing_at.is_not(None),
        sa.or_(tokens.c.present_at.is_(None), tokens.c.present_at <= tokens.c.missing_at),
    )
    # Tokens with a rejected twin, too, unless the known token was seen unchanged beside it: then
    # nothing of it is staged, and asking every night would be a request and a write for nothing.
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
        .where(~tokens.c.looked_up, sa.or_(gone, twins, moved, tokens.c.asked)),
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


def _present(
    run: OpenRun, token: Token, observed_at: datetime, *, from_lookup: bool
) -> tuple[object, ...]:
    return (
        run.walk_id,
        run.partner_id,
        *token[:12],
        json_of(token.extra),
        "present",
        from_lookup,
        observed_at,
    )


def _gone(
    run: OpenRun,
    token_id: str,
    created_at: datetime,
    kind: str,
    observed_at: datetime,
    *,
    from_lookup: bool = False,
) -> tuple[object, ...]:
    nothing = (token_id, *[None] * 5, created_at, *[None] * 6)
    return (run.walk_id, run.partner_id, *nothing, kind, from_lookup, observed_at)


def _save(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    pages: Sequence[StagedPage],
    *,
    rows: list[tuple[object, ...]],
    rejected: Sequence[Rejected],
    **values: Any,
) -> None:
    """Everything that outlives the transaction, the fence first."""
    tables = database.tables
    numbered = [page for page in pages if page.seq is not None]
    first, last = _total_counts(run, pages)
    fence(
        connection,
        database,
        run,
        pages=run.pages + len(numbered),
        rows_read=run.rows_read + sum(page.rows for page in numbered),
        staged=run.staged + len(rows),
        rejected=run.rejected + len(rejected),
        total_count_first=first,
        total_count_last=last,
        oldest_page_at=_oldest(run, numbered),
        **values,
    )
    if numbered:
        # Rows as parameters: a VALUES list of another length would be compiled anew each time.
        connection.execute(sa.insert(tables.sync_page), [_page_row(run, page) for page in numbered])
    for begin in range(0, len(rejected), _INSERT_ROWS_MAX):
        connection.execute(
            insert(tables.rejected_row)
            .values(
                [
                    {
                        "run_id": run.run_id,
                        "token_id": each.token_id,
                        "reason": each.reason,
                        "payload": bytes(each.payload),
                        "created_second": each.created_second,
                    }
                    for each in rejected[begin : begin + _INSERT_ROWS_MAX]
                ]
            )
            # Pages overlap: the same row may come again.
            .on_conflict_do_nothing()
        )
    if rows:
        staging = tables.upload_token_staging
        copy_rows(connection, sql.Identifier(database.schema, staging.name), _STAGING_COLUMNS, rows)


def _count(
    run: OpenRun,
    pages: Sequence[StagedPage],
    rows: Sequence[object],
    rejected: Sequence[Rejected],
) -> None:
    """The counters of the ledger, after the commit."""
    numbered = [page for page in pages if page.seq is not None]
    run.total_count_first, run.total_count_last = _total_counts(run, pages)
    run.pages += len(numbered)
    run.rows_read += sum(page.rows for page in numbered)
    run.staged += len(rows)
    run.rejected += len(rejected)
    run.oldest_page_at = _oldest(run, numbered)
    run.next_seq = max(
        run.next_seq, *[page.seq + 1 for page in numbered if page.seq is not None], 0
    )


def _oldest(run: OpenRun, pages: Iterable[StagedPage]) -> datetime | None:
    """When the oldest page of the walk was requested, these among them."""
    times = [page.requested_at for page in pages]
    return min(times if run.oldest_page_at is None else [*times, run.oldest_page_at], default=None)


def _total_counts(run: OpenRun, pages: Iterable[StagedPage]) -> tuple[int | None, int | None]:
    """The first and the last totalCount of the walk's pages.

    That of a look-up, or of the list of open tokens, says nothing of it.
    """
    told = [
        page.total_count
        for page in pages
        if page.total_count is not None and page.span is not None and not page.open_only
    ]
    if not told:
        return run.total_count_first, run.total_count_last
    first = told[0] if run.total_count_first is None else run.total_count_first
    return first, told[-1]


def _page_row(run: OpenRun, page: StagedPage) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "seq": page.seq,
        "page_index": page.page_index,
        "page_size": page.page_size,
        "filter": page.filter,
        "requested_at": page.requested_at,
        "received_at": page.received_at,
        "rows": page.rows,
        "total_count": page.total_count,
        "first_created_at": time_of_page_end(page.first_created_at),
        "last_created_at": time_of_page_end(page.last_created_at),
        "span": None if page.span is None else page.span.to_sql(),
        "body_sha256": page.body_sha256,
    }


def _listed_among(
    connection: sa.Connection, database: Database, run: OpenRun, token_ids: Sequence[str]
) -> list[tuple[str, datetime]]:
    """Those of ``token_ids`` that are known and listed, with their createdAt."""
    if not token_ids:
        return []
    token = database.tables.upload_token
    found = connection.execute(
        sa.select(token.c.token_id, token.c.created_at).where(
            token.c.partner_id == run.partner_id,
            token.c.is_listed,
            token.c.token_id.in_(token_ids),
        )
    )
    return [(token_id, created_at) for token_id, created_at in found]


def _acquit(
    connection: sa.Connection, database: Database, run: OpenRun, seen: Sequence[Seen]
) -> None:
    """Take back rejections as a twin of rows that a look-up showed to be the token itself."""
    rejected = database.tables.rejected_row
    winners = [(each.token.token_id, int(each.token.created_at.timestamp())) for each in seen]
    if winners:
        connection.execute(
            sa.delete(rejected).where(
                rejected.c.run_id == run.run_id,
                rejected.c.reason == DUPLICATE_ID,
                sa.tuple_(rejected.c.token_id, rejected.c.created_second).in_(winners),
            )
        )
