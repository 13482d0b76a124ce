"""Resolve staged observations to at most one outcome per token.

Of the observations of a token that count, the latest lookup by id wins; without one, the page
row with the newest createdAt, then the one observed last.  A token that was only missing from its
page, and that no lookup has settled, has no outcome: it is pending and stays unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array, distinct_on

from etl.coverage import EVERYTHING
from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.token import DUPLICATE_ID, OPEN_STATUSES, TIE_ORDER, TOKEN_COLUMNS
from etl.warehouse.engine import transaction
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import (
    KEPT_WHEN_ABSENT,
    changed_columns,
    differs,
    of_walk,
    within,
)
from etl.warehouse.load.witnesses import last_seen_at
from etl.warehouse.schema.database import Database

VERSION_COLUMNS: Final = (
    "partner_id",
    *TOKEN_COLUMNS,
    "is_listed",
    "version",
    "change_kind",
    "changed_columns",
    "observed_at",
    "last_listed_at",
    "absence_confirmed_at",
    *DIGEST_COLUMNS,
)
"""Columns of ``outcomes``: a version without its publication timestamp and run."""


def resolved(database: Database, run: OpenRun) -> sa.CTE:
    """One row of staging per token that has an outcome, in the order of token_id."""
    staged = database.tables.upload_token_staging
    ties = [
        sa.collate(column, "C") if isinstance(column.type, sa.Text) else column
        for column in (staged.c[name] for name in TIE_ORDER)
    ]
    return (
        sa.select(staged)
        .ext(distinct_on(staged.c.token_id))
        .where(of_walk(staged, run), staged.c.kind != "missing")
        .order_by(
            staged.c.token_id,
            staged.c.from_lookup.desc(),
            sa.case((staged.c.from_lookup, staged.c.observed_at)).desc().nulls_last(),
            staged.c.kind.desc(),
            staged.c.created_at.desc(),
            staged.c.observed_at.desc(),
            *[tie.desc().nulls_last() for tie in ties],
        )
        .cte("resolved")
    )


def outcomes(database: Database, run: OpenRun) -> sa.Select[Any]:
    """The versions that the walk would publish (``VERSION_COLUMNS``), unordered."""
    new, known = resolved(database, run), database.tables.upload_token
    kind = sa.case(
        (new.c.kind == "absent", sa.case((known.c.is_listed, "absent"))),
        (known.c.token_id.is_(None), "first_seen"),
        (known.c.is_listed.is_(False), "relisted"),
        (differs(new.c, known.c), "changed"),
    )
    is_absent = new.c.kind == "absent"

    def value(name: str) -> sa.ColumnElement[Any]:
        given: sa.ColumnElement[Any] = new.c[name]
        if name in KEPT_WHEN_ABSENT:
            given = sa.func.coalesce(given, known.c[name])
        return sa.case((is_absent, known.c[name]), else_=given).label(name)

    is_listed_changed: array[Any] = array([sa.literal("is_listed")], type_=sa.Text)
    columns: dict[str, Any] = {
        "partner_id": new.c.partner_id,
        "token_id": new.c.token_id,
        **{name: value(name) for name in TOKEN_COLUMNS if name != "token_id"},
        "is_listed": sa.not_(is_absent),
        "version": sa.func.coalesce(known.c.version, 0) + 1,
        "change_kind": kind,
        "changed_columns": sa.case(
            (is_absent, is_listed_changed),
            (known.c.token_id.is_(None), sa.null()),
            (
                known.c.is_listed.is_(False),
                sa.func.array_cat(is_listed_changed, changed_columns(new.c, known.c)),
            ),
            else_=changed_columns(new.c, known.c),
        ),
        "observed_at": new.c.observed_at,
        "last_listed_at": sa.case((is_absent, last_seen_at(database, known))),
        "absence_confirmed_at": sa.case((is_absent, new.c.observed_at)),
        **{name: value(name) for name in DIGEST_COLUMNS},
    }
    return (
        sa.select(*[columns[name].label(name) for name in VERSION_COLUMNS])
        .select_from(new.outerjoin(known, _same_token(new, known)))
        .where(kind.is_not(None))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """What publishing the walk would do."""

    inserted: int
    changed: int
    absent: int
    relisted: int
    pending: int
    """Known tokens missing from their page whose absence no lookup has settled: left unchanged."""
    rejected: int
    """Rows in rejected_row, the same row of a token counted once."""
    rejected_known: int
    """Known listed tokens that the walk showed only in a rejected row."""
    not_covered: int
    """Known listed tokens that the run did not check: neither in the seconds that it read, nor as
    one of the open tokens, nor by a lookup."""
    unchanged: int
    listed_before: int
    staged_now: int
    staged_expected: int
    """Differs from ``staged_now`` if a crash of the server emptied the staging table."""

    @property
    def tokens_read(self) -> int:
        return self.inserted + self.changed + self.relisted + self.unchanged + self.rejected

    @property
    def versions(self) -> int:
        """Rows that publishing writes to upload_token."""
        return self.inserted + self.changed + self.relisted + self.absent


def audit_counts(database: Database, run: OpenRun) -> AuditCounts:
    """Count, in the server, what publishing would do."""
    with transaction(database.engine, work_mem="64MB") as connection:
        return _audit_counts(connection, database, run)


def _audit_counts(connection: sa.Connection, database: Database, run: OpenRun) -> AuditCounts:
    tables = database.tables
    staging, rejected = tables.upload_token_staging, tables.rejected_row
    staged_now = _count(connection, sa.select(staging).where(staging.c.walk_id == run.walk.walk_id))
    kinds: dict[str, int] = {}
    pending = rejected_known = 0
    rejected_rows = sa.select(
        rejected.c.token_id, rejected.c.reason, rejected.c.created_second
    ).where(rejected.c.run_id == run.run_id)
    if staged_now:
        versions = outcomes(database, run).subquery()
        kinds = count_by(
            connection,
            sa.select(versions.c.change_kind, sa.func.count()).group_by(versions.c.change_kind),
        )
        pending = _count(connection, _pending(database, run))
    rejected_count = _count(connection, rejected_rows.distinct())
    if rejected_count:
        rejected_known = _count(connection, _rejected_known(database, run))
    looked_at = run.baseline.listed_before
    if not complete(run) and run.baseline.listed_before:
        looked_at = _count(connection, _looked_at(database, run))
    changed, absent = kinds.get("changed", 0), kinds.get("absent", 0)
    kept = changed + absent + pending + rejected_known
    return AuditCounts(
        inserted=kinds.get("first_seen", 0),
        changed=changed,
        absent=absent,
        relisted=kinds.get("relisted", 0),
        pending=pending,
        rejected=rejected_count,
        rejected_known=rejected_known,
        not_covered=max(0, run.baseline.listed_before - looked_at),
        unchanged=max(0, looked_at - kept),
        listed_before=run.baseline.listed_before,
        staged_now=staged_now,
        staged_expected=run.walk.counts.staged,
    )


def _looked_at(database: Database, run: OpenRun) -> sa.CompoundSelect[Any]:
    """Known listed tokens in the seconds that were read, or settled by a lookup."""
    known, staging = database.tables.upload_token, database.tables.upload_token_staging
    staged = sa.select(staging.c.token_id).where(of_walk(staging, run))
    listed = sa.select(known.c.token_id).where(
        known.c.partner_id == run.partner_id, known.c.is_listed
    )
    # One SELECT per index; combined by OR they would scan the table.
    return sa.union(
        listed.where(within(known.c.created_at, run.walk.coverage)),
        listed.where(
            known.c.status.in_(OPEN_STATUSES), within(known.c.created_at, run.walk.open_coverage)
        ),
        listed.where(known.c.token_id.in_(staged)),
        listed.where(known.c.token_id.in_(_rejected_ids(database, run))),
    )


def unobserved(database: Database, run: OpenRun) -> sa.CompoundSelect[Any]:
    """Known listed tokens whose state the walk has not seen: token_id and reason."""
    return sa.union_all(
        *[
            sa.select(tokens.c.token_id, sa.literal(reason))
            for reason, tokens in (
                ("pending", _pending(database, run).subquery()),
                ("rejected", _rejected_known(database, run).subquery()),
            )
        ]
    )


def complete(run: OpenRun) -> bool:
    """Whether the walk covered the whole createdAt line."""
    return run.walk.coverage.contains_span(EVERYTHING)


def _rejected_ids(database: Database, run: OpenRun) -> sa.Select[Any]:
    """Tokens that were listed, but in a row that could not be loaded.

    A row rejected as a duplicate id says nothing about the token itself.
    """
    rejected = database.tables.rejected_row
    return sa.select(rejected.c.token_id).where(
        rejected.c.run_id == run.run_id,
        rejected.c.reason != DUPLICATE_ID,
        rejected.c.token_id.is_not(None),
    )


def _pending(database: Database, run: OpenRun) -> sa.Select[Any]:
    """Known listed tokens that were missing from their page, and that no lookup has settled."""
    staging, known = database.tables.upload_token_staging, database.tables.upload_token
    return (
        sa.select(staging.c.token_id)
        .distinct()
        .select_from(staging.join(known, _same_token(staging, known)))
        .where(
            staging.c.walk_id == run.walk.walk_id,
            staging.c.kind == "missing",
            known.c.is_listed,
            _has_no_outcome(database, run, staging.c.token_id),
            staging.c.token_id.not_in(_rejected_ids(database, run)),
        )
    )


def _rejected_known(database: Database, run: OpenRun) -> sa.Select[Any]:
    """Known listed tokens that the walk showed only in a row that could not be loaded."""
    known = database.tables.upload_token
    return sa.select(known.c.token_id).where(
        known.c.partner_id == run.partner_id,
        known.c.is_listed,
        known.c.token_id.in_(_rejected_ids(database, run)),
        _has_no_outcome(database, run, known.c.token_id),
    )


def _same_token(one: Any, other: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        one.c.partner_id == other.c.partner_id,
        one.c.token_id == other.c.token_id,
    )


def _has_no_outcome(
    database: Database, run: OpenRun, token_id: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    other = database.tables.upload_token_staging.alias("outcome")
    return sa.not_(
        sa.exists().where(
            of_walk(other, run),
            other.c.kind != "missing",
            other.c.token_id == token_id,
        )
    )


def count_by(connection: sa.Connection, pairs: sa.Executable) -> dict[str, int]:
    """Rows of (word, count) as a dict."""
    return {row[0]: row[1] for row in connection.execute(pairs)}


def _count(connection: sa.Connection, rows: sa.Select[Any] | sa.CompoundSelect[Any]) -> int:
    counted = connection.scalar(sa.select(sa.func.count()).select_from(rows.subquery()))
    return int(counted or 0)
