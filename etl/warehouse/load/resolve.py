"""Resolve staged observations to at most one outcome per token.

Of the observations of a token that count, the latest lookup by id wins; without one, the page
row with the newest createdAt, then the one observed last.  A token that was only missing from its
page, and that no lookup has settled, has no outcome: it is pending and stays unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, array, distinct_on

from etl.coverage import EVERYTHING, Coverage
from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.keys import PARTLY_LOADED, SHOWN_ANYHOW, STATUS_REASONS
from etl.tokens.token import OPEN_STATUSES, TIE_ORDER, TOKEN_COLUMNS
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import DECIDING, KEPT_WHEN_ABSENT, changed_columns, differs
from etl.warehouse.load.moments import (
    CLOSED,
    changes_status,
    first_closed_at,
    first_happened_at,
    since_of_next,
)
from etl.warehouse.load.planning import (
    in_walk,
    intervals,
    known_row,
    known_rows,
    listed_within,
    of_walk,
    whole_walk,
)
from etl.warehouse.load.stays import stays_of_next
from etl.warehouse.load.witnesses import Witnesses, last_seen_at
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
    "first_happened_at",
    "first_closed_at",
    "status_version",
    "status_happened_at",
    "status_happened_after",
    "status_happened_before",
    "earlier_stays",
    "went_back",
    *DIGEST_COLUMNS,
)
"""Columns of ``outcomes``: a version without its publication timestamp and run."""


def resolved(database: Database, run: OpenRun, *, by_creation: bool = False) -> sa.Subquery:
    """One row of staging per token that has an outcome, in the order of token_id.

    With ``by_creation``, which needs that no token was staged with two createdAt, in the order of
    createdAt and token_id: nearly that of an index of staging, so that hardly anything is sorted.
    """
    staged = database.tables.upload_token_staging
    key = [staged.c.created_at, staged.c.token_id] if by_creation else [staged.c.token_id]
    ties = [
        sa.collate(column, "C") if isinstance(column.type, sa.Text) else column
        for column in (staged.c[name] for name in TIE_ORDER)
    ]
    return (
        sa.select(staged)
        .ext(distinct_on(*key))
        .where(of_walk(staged, run), staged.c.kind != "missing")
        .order_by(
            *key,
            staged.c.from_lookup.desc(),
            sa.case((staged.c.from_lookup, staged.c.observed_at)).desc().nulls_last(),
            staged.c.kind.desc(),
            staged.c.created_at.desc(),
            staged.c.observed_at.desc(),
            *[tie.desc().nulls_last() for tie in ties],
        )
        .subquery("resolved")
    )


def outcomes(
    database: Database, run: OpenRun, witnesses: Witnesses | None = None
) -> sa.Select[Any]:
    """The versions that the walk would publish (``VERSION_COLUMNS``), unordered.

    Without ``witnesses``, the state that they replace was seen at no known time: enough to count
    them, and to publish tokens that were not known.
    """
    if not run.baseline.knows_tokens:
        return first_versions(database, run)
    new = resolved(database, run)
    known = known_row(database, run, new.c.token_id)
    kind = _change_kind(new, known)
    is_absent = new.c.kind == "absent"

    def value(name: str) -> sa.ColumnElement[Any]:
        given: sa.ColumnElement[Any] = new.c[name]
        if name in KEPT_WHEN_ABSENT:
            given = sa.func.coalesce(given, known.c[name])
        if name == "user_digest":
            # Of the user that is kept, although an erasure may have emptied the staged digest.
            given = sa.case((new.c.user_id.is_(None), known.c[name]), else_=given)
        return sa.case((is_absent, known.c[name]), else_=given).label(name)

    is_listed_changed: array[Any] = array([sa.literal("is_listed")], type_=sa.Text)
    source = new.outerjoin(known, sa.true())
    last_seen: sa.ColumnElement[Any] = sa.cast(sa.null(), sa.DateTime(timezone=True))
    if witnesses is not None:
        seen_at = last_seen_at(database, known, run.partner_id, witnesses)
        seen = (
            sa.select(sa.case((changes_status(new, known), seen_at)).label("last_seen"))
            .correlate(new, known)
            # Computed once per row.
            .offset(0)
            .lateral("seen")
        )
        source = source.join(seen, sa.true())
        last_seen = seen.c.last_seen
    since = since_of_next(new, known, last_seen)
    moment = (
        sa.select(*[value.label(name) for name, value in since.items()])
        .correlate(*([new, known] if witnesses is None else [new, known, seen]))
        # Computed once per row: several columns are made of it.
        .offset(0)
        .lateral("moment")
    )
    source = source.join(moment, sa.true())
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
        "last_listed_at": sa.case((is_absent, last_seen)),
        "absence_confirmed_at": sa.case((is_absent, new.c.observed_at)),
        "first_happened_at": sa.case((known.c.token_id.is_(None), first_happened_at(new))),
        "first_closed_at": first_closed_at(
            known, sa.case((sa.not_(is_absent), new.c.status)), new.c.updated_at
        ),
        **{name: moment.c[name] for name in since},
        **stays_of_next(new, known, moment, last_seen.is_not(None)),
        **{name: value(name) for name in DIGEST_COLUMNS},
    }
    return (
        sa.select(*[columns[name].label(name) for name in VERSION_COLUMNS])
        .select_from(source)
        .where(kind.is_not(None))
    )


def first_versions(
    database: Database, run: OpenRun, *, by_creation: bool = False
) -> sa.Select[Any]:
    """The same of an account of which nothing is known: its rows, as they were staged.

    ``by_creation`` is that of ``resolved``.
    """
    new = resolved(database, run, by_creation=by_creation)
    of_staging: dict[str, Any] = {name: new.c[name] for name in VERSION_COLUMNS if name in new.c}
    columns: dict[str, Any] = of_staging | {
        "is_listed": sa.true(),
        "version": sa.literal(1, sa.Integer),
        "change_kind": sa.literal("first_seen", sa.Text),
        "first_happened_at": first_happened_at(new),
        "first_closed_at": sa.case((new.c.status == CLOSED, new.c.updated_at)),
    }
    types = database.tables.upload_token.c
    return sa.select(
        *[
            columns.get(name, sa.cast(sa.null(), types[name].type)).label(name)
            for name in VERSION_COLUMNS
        ]
    ).where(new.c.kind == "present")


def replaced_versions(database: Database, run: OpenRun) -> tuple[sa.FromClause, sa.Select[Any]]:
    """The known versions that the walk would replace: the rows, and a query of their columns.

    The query is in the order of token_id.
    """
    new = resolved(database, run)
    known = known_row(database, run, new.c.token_id)
    query = (
        sa.select(known)
        .select_from(new.join(known, sa.true()))
        .where(_change_kind(new, known).is_not(None))
        .order_by(new.c.token_id)
    )
    return known, query


def _kinds(database: Database, run: OpenRun) -> sa.Select[Any]:
    """How many ``outcomes`` there are of each kind."""
    new = resolved(database, run)
    known = known_row(database, run, new.c.token_id, DECIDING)
    versions = (
        sa.select(_change_kind(new, known).label("change_kind"))
        .select_from(new.outerjoin(known, sa.true()))
        .subquery("version")
    )
    return (
        sa.select(versions.c.change_kind, sa.func.count())
        .where(versions.c.change_kind.is_not(None))
        .group_by(versions.c.change_kind)
    )


def _change_kind(new: Any, known: Any) -> sa.ColumnElement[Any]:
    """What a resolved row makes of what is known of its token; NULL: no new version."""
    return sa.case(
        (new.c.kind == "absent", sa.case((known.c.is_listed, "absent"))),
        (known.c.token_id.is_(None), "first_seen"),
        (known.c.is_listed.is_(False), "relisted"),
        (differs(new.c, known.c), "changed"),
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
    """Rows in rejected_row of which nothing was loaded, the same row of a token counted once."""
    stateless: int
    """Those of them that lack only a status, of known tokens: these keep their known state."""
    partly_loaded: int
    """The other rows in rejected_row: they were loaded without a value that cannot be used."""
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
    created_once: bool = False
    """Whether no token was staged with two createdAt; counted only where nothing was known."""

    @property
    def tokens_read(self) -> int:
        return self.inserted + self.changed + self.relisted + self.unchanged + self.rejected

    @property
    def versions(self) -> int:
        """Rows that publishing writes to upload_token."""
        return self.inserted + self.changed + self.relisted + self.absent


def audit_counts(database: Database, run: OpenRun) -> AuditCounts:
    """Count, in the server, what publishing would do."""
    with whole_walk(database, run) as connection:
        return _audit_counts(connection, database, run)


def _audit_counts(connection: sa.Connection, database: Database, run: OpenRun) -> AuditCounts:
    tables = database.tables
    staging, rejected = tables.upload_token_staging, tables.rejected_row
    staged_now = _count(connection, sa.select(staging).where(in_walk(staging, run)))
    kinds: dict[str, int] = {}
    created_once = False
    rejected_rows = sa.select(
        rejected.c.token_id, rejected.c.reason, rejected.c.created_second
    ).where(rejected.c.run_id == run.run_id)
    odd = rejected_rows.distinct().subquery()
    reasons = count_by(connection, sa.select(odd.c.reason, sa.func.count()).group_by(odd.c.reason))
    partly_loaded = sum(count for reason, count in reasons.items() if reason in PARTLY_LOADED)
    stateless = 0
    if not reasons.keys().isdisjoint(STATUS_REASONS):
        of_known = known_row(database, run, odd.c.token_id, ("token_id",))
        lacking = sa.select(odd.c.token_id).select_from(odd.join(of_known, sa.true()))
        stateless = _count(connection, lacking.where(odd.c.reason.in_(STATUS_REASONS)))
    if staged_now and not run.baseline.knows_tokens:
        present = sa.and_(of_walk(staging, run), staging.c.kind == "present")
        created = sa.func.min(staging.c.created_at), sa.func.max(staging.c.created_at)
        tokens = (
            sa.select((created[0] == created[1]).label("once"))
            .where(present)
            .group_by(staging.c.token_id)
            .subquery("tokens")
        )
        number, created_once = connection.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.bool_and(tokens.c.once), True))
        ).one()
        kinds = {"first_seen": number}
    elif staged_now:
        kinds = count_by(connection, _kinds(database, run))
    unseen: dict[str, int] = {}
    if staged_now or reasons:
        found = unobserved(database, run).subquery()
        unseen = count_by(
            connection, sa.select(found.c.reason, sa.func.count()).group_by(found.c.reason)
        )
    pending, rejected_known = unseen.get("pending", 0), unseen.get("rejected", 0)
    looked_at = run.baseline.listed_before
    if not complete(run) and run.baseline.listed_before:
        looked_at = sum(_count(connection, tokens) for tokens in looked_at_of(database, run))
    changed, absent = kinds.get("changed", 0), kinds.get("absent", 0)
    kept = changed + absent + pending + rejected_known
    return AuditCounts(
        inserted=kinds.get("first_seen", 0),
        changed=changed,
        absent=absent,
        relisted=kinds.get("relisted", 0),
        pending=pending,
        rejected=sum(reasons.values()) - partly_loaded,
        stateless=stateless,
        partly_loaded=partly_loaded,
        rejected_known=rejected_known,
        not_covered=max(0, run.baseline.listed_before - looked_at),
        unchanged=max(0, looked_at - kept),
        listed_before=run.baseline.listed_before,
        staged_now=staged_now,
        staged_expected=run.walk.counts.staged,
        created_once=created_once,
    )


def looked_at_of(database: Database, run: OpenRun, *names: str) -> Iterator[sa.Select[Any]]:
    """Known listed tokens in the seconds that were read, settled by a lookup, or shown beside a
    hole; no token twice.

    With the values of these columns that are known of them.
    """
    whole, open_coverage = run.walk.coverage, run.walk.open_coverage
    only_open = Coverage(hole for span in open_coverage for hole in whole.holes(span))
    for seconds, open_only in ((whole, False), (only_open, True)):
        parts = intervals(seconds)
        known = listed_within(
            database, run.partner_id, parts, names or ("created_at",), open_only=open_only
        )
        yield sa.select(*known.c).select_from(parts.join(known, sa.true()))
    walked = _walked(database, run)
    known_by_id = known_row(database, run, walked.c.token_id)
    yield (
        sa.select(*[known_by_id.c[name] for name in names] or [walked.c.token_id])
        .select_from(walked.join(known_by_id, sa.true()))
        .where(
            known_by_id.c.is_listed,
            sa.or_(walked.c.is_staged, walked.c.is_rejected),
            ~_is_within(known_by_id.c.created_at, whole),
            ~sa.and_(
                known_by_id.c.status.in_(OPEN_STATUSES),
                _is_within(known_by_id.c.created_at, open_coverage),
            ),
        )
    )
    holes = Coverage.from_sql("{" + ",".join(hole["span"] for hole in run.walk.holes) + "}")
    shown = {
        token_id
        for second, token_ids in run.walk.beside_holes.items()
        if holes.contains(second)
        for token_id in token_ids
    }
    if shown:
        found, as_known = known_rows(database, run, shown)
        yield (
            sa.select(*[as_known.c[name] for name in names] or [as_known.c.token_id])
            .select_from(found)
            .where(
                as_known.c.is_listed,
                as_known.c.token_id.not_in(sa.select(walked.c.token_id)),
                ~_is_within(as_known.c.created_at, whole),
                ~_is_within(as_known.c.created_at, open_coverage),
            )
        )


def unobserved(database: Database, run: OpenRun) -> sa.Select[Any]:
    """Known listed tokens whose state the walk has not seen: token_id and reason.

    They were missing from their page and no lookup has settled them (pending), or were shown only
    in a row that could not be loaded (rejected).
    """
    walked = _walked(database, run)
    known = known_row(database, run, walked.c.token_id, ("is_listed",))
    return (
        sa.select(
            walked.c.token_id,
            sa.case((walked.c.is_rejected, "rejected"), else_="pending").label("reason"),
        )
        .select_from(walked.join(known, sa.true()))
        .where(
            known.c.is_listed,
            ~walked.c.has_outcome,
            sa.or_(walked.c.is_rejected, walked.c.is_missing),
        )
    )


def _walked(database: Database, run: OpenRun) -> sa.Subquery:
    """What the walk found of each token, staged or rejected: one pass, and no join of the two."""
    staging, rejected = database.tables.upload_token_staging, database.tables.rejected_row
    counts = of_walk(staging, run)
    is_missing = staging.c.kind == "missing"
    rows = sa.union_all(
        sa.select(
            staging.c.token_id,
            counts.label("is_staged"),
            sa.and_(counts, ~is_missing).label("has_outcome"),
            is_missing.label("is_missing"),
            sa.false().label("is_rejected"),
        ).where(in_walk(staging, run)),
        # A row rejected as a duplicate id says nothing about the token itself, and one that was
        # loaded in part has shown it.
        sa.select(rejected.c.token_id, *[sa.false()] * 3, sa.true()).where(
            rejected.c.run_id == run.run_id,
            rejected.c.reason != sa.all_(sa.cast(sorted(SHOWN_ANYHOW), sa.ARRAY(sa.Text))),
            rejected.c.token_id.is_not(None),
        ),
    ).subquery("observation")
    flags = ("is_staged", "has_outcome", "is_missing", "is_rejected")
    return (
        sa.select(rows.c.token_id, *[sa.func.bool_or(rows.c[name]).label(name) for name in flags])
        .group_by(rows.c.token_id)
        .subquery("walked")
    )


def _is_within(moment: sa.ColumnElement[Any], coverage: Coverage) -> sa.ColumnElement[bool]:
    second = sa.cast(sa.func.floor(sa.extract("epoch", moment)), sa.BigInteger)
    return sa.cast(coverage.to_sql(), INT8MULTIRANGE).contains(second)


def complete(run: OpenRun) -> bool:
    """Whether the walk covered the whole createdAt line."""
    return run.walk.coverage.contains_span(EVERYTHING)


def count_by(connection: sa.Connection, pairs: sa.Executable) -> dict[str, int]:
    """Rows of (word, count) as a dict."""
    return {row[0]: row[1] for row in connection.execute(pairs)}


def _count(connection: sa.Connection, rows: sa.Select[Any]) -> int:
    counted = connection.scalar(sa.select(sa.func.count()).select_from(rows.subquery()))
    return int(counted or 0)
