"""Staging: the observations of a walk's pages and lookups that differ from the warehouse.

One transaction per batch: compare, then save the coverage, the pages, the rejected rows and the
differences together.  The comparison comes before the fence, so that the ledger row is updated
once, with all counters; nothing that outlives the transaction is written before the fence, where
a run that has lost its lease fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import insert

from etl.coverage import Coverage
from etl.errors import EtlError
from etl.tokens.digest import NO_USER
from etl.tokens.keys import SHOWN_ANYHOW
from etl.tokens.page import Page
from etl.tokens.token import (
    CREATED_SECOND_END,
    CREATED_SECOND_MIN,
    DUPLICATE_ID,
    TOKEN_COLUMNS,
    Rejected,
    time_of_second,
)
from etl.warehouse.engine import SETTINGS, copy_rows, require_row_count, transaction
from etl.warehouse.ledger.lease import fence
from etl.warehouse.ledger.run import OpenRun, WalkCounts
from etl.warehouse.load.compare import JSON_ROWS_MAX, SQL_TYPES, compare_batch, json_of
from etl.warehouse.load.fingerprint import (
    COLUMNS,
    FINGERPRINT,
    FULL,
    KnownDigests,
    goes_by_columns,
    known_digests,
    require_unlike,
    staged_in,
    unlike,
)
from etl.warehouse.load.observations import Seen, duplicate, newest_of_each, seconds_of, taken_by
from etl.warehouse.load.planning import known_rows
from etl.warehouse.load.untold import told_in_full
from etl.warehouse.schema.database import Database

_PLAIN_COLUMNS: Final = tuple(name for name in TOKEN_COLUMNS if name != "extra")
_STAGING_COLUMNS: Final = [
    ("walk_id", "int8"),
    ("partner_id", "int4"),
    *[(name, SQL_TYPES.get(name, "text")) for name in (*_PLAIN_COLUMNS, "extra")],
    ("kind", "text"),
    ("from_lookup", "bool"),
    ("observed_at", "timestamptz"),
    ("digest", "int8"),
    ("user_digest", "int8"),
]
_INSERT_ROWS_MAX = 1_000


def stage_batch(
    database: Database,
    run: OpenRun,
    pages: Sequence[Page],
    *,
    coverage: Coverage,
    open_coverage: Coverage | None = None,
    holes: list[dict[str, Any]],
    requests: int,
    retries: int,
    compare: str = FINGERPRINT,
    json_rows_max: int = JSON_ROWS_MAX,
) -> None:
    """Save pages, what differs on them, and the coverage of the walk including them.

    ``open_coverage`` is that of the list of open tokens, whose pages need separate batches; None:
    unchanged.  ``requests`` and ``retries`` are totals of this run.  ``compare`` is how the pages
    are compared, ``FINGERPRINT`` or ``FULL``; ``json_rows_max``: see ``compare_batch``.  Pages
    may be passed in any order and in batches of any size, and compared in either way: the outcome
    is the same.  For a run with a range, rows and coverage outside it are ignored.

    Raises LeaseHeld if the run no longer holds its lease, and DataRefused
    (``digest_mismatch``) where a stored digest is wrong.
    """
    walk = run.walk
    pages = [taken_by(run, page) for page in pages]
    coverage = coverage.within(run.range)
    open_coverage = walk.open_coverage if open_coverage is None else open_coverage
    if len({page.open_only for page in pages if page.asked is None}) > 1:
        raise EtlError("pages of the whole list and of the open tokens need separate batches")
    with transaction(database.engine, **SETTINGS) as connection:
        pages = told_in_full(connection, database, run, pages)
        if run.baseline.knows_tokens:
            found = _compare(connection, database, run, pages, compare, json_rows_max)
        else:
            found = _Found(*newest_of_each(pages), missing=[], compared_by={})
        rows = [
            present_row(run, seen, from_lookup=False)
            for seen in found.seen
            if not walk.memory.has_later(seen.token, seen.observed_at)
        ]
        if found.missing:
            observed_at = min(page.facts.received_at for page in pages)
            rows += [
                absence_row(run, token_id, created_at, "missing", observed_at)
                for token_id, created_at in found.missing
            ]
        counts = _save(
            connection,
            database,
            run,
            pages,
            rows=rows,
            rejected=found.rejected,
            compared_by=found.compared_by,
            coverage=coverage.to_sql(),
            open_coverage=open_coverage.to_sql(),
            holes=holes,
            requests=requests,
            retries=retries,
        )
    _count(run, pages, counts)
    walk.memory.remember(pages)
    walk.coverage, walk.open_coverage, walk.holes = coverage, open_coverage, holes
    walk.note_uncovered(pages)


class _Found(NamedTuple):
    """What a batch showed that must be saved."""

    seen: list[Seen]
    """Rows that differ from what is known."""
    rejected: list[Rejected]
    missing: list[tuple[str, datetime]]
    compared_by: dict[int, str]
    """How each page was compared, by its number in the run."""


def _compare(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    pages: Sequence[Page],
    compare: str,
    json_rows_max: int,
) -> _Found:
    """What of the batch differs: by the digests first, by the columns where they do not agree."""
    spans = Coverage(page.span for page in pages if page.span is not None)
    seconds = Coverage(seconds_of(page) for page in pages if page.tokens).union(spans)
    open_only = any(page.open_only for page in pages)
    staged = staged_in(connection, database, run, seconds)
    by_columns = [compare == FULL or goes_by_columns(run, page) for page in pages]
    known: KnownDigests | None = None
    ids: set[str] | None = None
    unaccounted: list[int] | None = None
    beside_digests = staged
    if compare == FINGERPRINT:
        known = known_digests(
            connection, database, run.partner_id, seconds=seconds, spans=spans, open_only=open_only
        )
        if known.undigested:
            # All of the batch: digests may be filled in between this statement and the next one, by
            # a run that has published; then a token would be neither undigested nor unaccounted
            # for.
            run.walk.undigested = True
            by_columns = [True] * len(pages)
        else:
            ids, unaccounted, colliding = unlike(pages, by_columns, known)
            beside_digests = staged | colliding
            ids |= staged
    seen, rejected = newest_of_each(pages, only=ids)
    ways = {
        page.seq: COLUMNS if columns else FINGERPRINT
        for page, columns in zip(pages, by_columns, strict=True)
        if page.seq is not None and page.asked is None
    }
    if ids is not None and not ids and not unaccounted:
        return _Found(seen, rejected, [], ways)
    found = compare_batch(
        connection,
        database,
        run,
        [each.token for each in seen],
        seconds=seconds,
        spans=spans,
        staged=staged,
        rejected_ids=[
            each.token_id
            for each in rejected
            # A row that was loaded in part is compared.
            if each.token_id is not None and each.reason not in SHOWN_ANYHOW
        ],
        unaccounted=unaccounted,
        open_only=open_only,
        json_rows_max=json_rows_max,
    )
    differing = [seen[ordinal] for ordinal in found.differing]
    older = [seen[ordinal] for ordinal in found.older]
    if known is not None:
        # A token that was staged before is staged again, whatever this row shows; and of two that
        # share their digest, it does not say anything.
        fresh = [each for each in (*differing, *older) if each.token.token_id not in beside_digests]
        require_unlike(known, fresh)
    return _Found(differing, [*rejected, *map(duplicate, older)], found.missing, ways)


def stage_lookup(database: Database, run: OpenRun, page: Page, *, absence_grace: timedelta) -> None:
    """Save the answer to a lookup by id (at most a few thousand ids: ``page.asked``).

    Known listed tokens that do not answer are confirmed absent, unless they were created less than
    ``absence_grace`` before the answer.  The page's span must be None.  Raises LeaseHeld if the
    run no longer holds its lease.
    """
    received_at = page.facts.received_at
    with transaction(database.engine, **SETTINGS) as connection:
        seen, rejected = newest_of_each(told_in_full(connection, database, run, [page]))
        answered = {each.token.token_id for each in seen} | {each.token_id for each in rejected}
        silent = [token_id for token_id in page.asked or () if token_id not in answered]
        rows = [present_row(run, each, from_lookup=True) for each in seen]
        rows += [
            absence_row(run, token_id, created_at, "absent", received_at, from_lookup=True)
            for token_id, created_at in _listed_among(connection, database, run, silent)
            # A lagging replica may not have a young token yet.
            if created_at <= received_at - absence_grace
        ]
        counts = _save(connection, database, run, [page], rows=rows, rejected=rejected)
        unreject_twins(connection, database, run, seen)
    _count(run, [page], counts)


def present_row(run: OpenRun, seen: Seen, *, from_lookup: bool) -> tuple[object, ...]:
    """The staging row of a token that was shown."""
    token = seen.token
    return (
        run.walk.walk_id,
        run.partner_id,
        *token[:-1],
        json_of(token.extra),
        "present",
        from_lookup,
        seen.observed_at,
        seen.digest,
        None if seen.user_digest == NO_USER else seen.user_digest,
    )


def absence_row(
    run: OpenRun,
    token_id: str,
    created_at: datetime,
    kind: str,
    observed_at: datetime,
    *,
    from_lookup: bool = False,
) -> tuple[object, ...]:
    """The staging row of a known token that was not shown: ``kind`` is missing or absent."""
    values = {"token_id": token_id, "created_at": created_at}
    plain = [values.get(name) for name in _PLAIN_COLUMNS]
    facts = (kind, from_lookup, observed_at)
    return (run.walk.walk_id, run.partner_id, *plain, None, *facts, None, None)


def _save(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    pages: Sequence[Page],
    *,
    rows: list[tuple[object, ...]],
    rejected: Sequence[Rejected],
    compared_by: Mapping[int, str] = MappingProxyType({}),
    **values: Any,
) -> WalkCounts:
    """Write everything that outlives the transaction, the fence first; returns the new counts."""
    tables = database.tables
    counts = run.walk.counts.plus(pages, staged=len(rows), rejected=len(rejected))
    fence(
        connection,
        database,
        run,
        oldest_page_at=run.walk.oldest_with(pages),
        **counts.columns(),
        **values,
    )
    # Rows as parameters: a VALUES list of another length would be compiled again each time.
    if pages:
        done = connection.execute(
            sa.insert(tables.sync_page),
            [_page_row(run, page, compared_by) for page in pages],
            execution_options={"preserve_rowcount": True},
        )
        require_row_count(tables.sync_page.name, changed=done.rowcount, meant=len(pages))
    for begin in range(0, len(rejected), _INSERT_ROWS_MAX):
        some = rejected[begin : begin + _INSERT_ROWS_MAX]
        done = connection.execute(
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
                    for each in some
                ]
            )
            # Pages overlap: the same row may occur again.
            .on_conflict_do_nothing(),
            execution_options={"preserve_rowcount": True},
        )
        if done.rowcount < len(some):
            _require_rejected(connection, tables.rejected_row, run, some)
    if rows:
        staging = tables.upload_token_staging
        copy_rows(connection, sql.Identifier(database.schema, staging.name), _STAGING_COLUMNS, rows)
    return counts


def _require_rejected(
    connection: sa.Connection, table: sa.Table, run: OpenRun, rejected: Sequence[Rejected]
) -> None:
    """Raise DataRefused unless all of these rows are there, from this page or from another."""
    keys = {(each.reason, hashlib.sha256(bytes(each.payload)).digest()) for each in rejected}
    key = sa.tuple_(table.c.reason, sa.func.sha256(table.c.payload))
    stored = sa.select(sa.func.count()).where(table.c.run_id == run.run_id, key.in_(keys))
    require_row_count(table.name, changed=connection.scalar(stored) or 0, meant=len(keys))


def _count(run: OpenRun, pages: Sequence[Page], counts: WalkCounts) -> None:
    """Update the walk in memory after the commit."""
    walk = run.walk
    walk.counts = counts
    walk.oldest_page_at = walk.oldest_with(pages)
    walk.next_seq = max([walk.next_seq, *[page.seq + 1 for page in pages if page.seq is not None]])


def _page_row(run: OpenRun, page: Page, compared_by: Mapping[int, str]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "seq": page.seq,
        **msgspec.structs.asdict(page.facts),
        "first_created_at": _time_of_page_end(page.first_created_second),
        "last_created_at": _time_of_page_end(page.last_created_second),
        "span": None if page.span is None else page.span.to_sql(),
        "compared_by": None if page.seq is None else compared_by.get(page.seq),
    }


def _time_of_page_end(second: int | None) -> datetime | None:
    """The time of a page's first or last row, whose createdAt may be nonsense: then None."""
    if second is None or not CREATED_SECOND_MIN <= second < CREATED_SECOND_END:
        return None
    return time_of_second(second)


def _listed_among(
    connection: sa.Connection, database: Database, run: OpenRun, token_ids: Sequence[str]
) -> list[tuple[str, datetime]]:
    """Those of ``token_ids`` that are known and listed, with their createdAt."""
    if not token_ids:
        return []
    found, known = known_rows(database, run, token_ids)
    rows = connection.execute(
        sa.select(known.c.token_id, known.c.created_at).select_from(found).where(known.c.is_listed)
    )
    return [(token_id, created_at) for token_id, created_at in rows]


def unreject_twins(
    connection: sa.Connection, database: Database, run: OpenRun, seen: Sequence[Seen]
) -> None:
    """Delete ``duplicate_id`` rejections of rows that a lookup showed to be the token itself."""
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
