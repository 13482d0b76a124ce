"""Tokens and pages made in Python, and nights that load them into a warehouse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import psycopg
from psycopg.rows import dict_row

from etl.coverage import page_span
from etl.tokens.columns import PageTokens
from etl.tokens.page import Page, PageFacts
from etl.tokens.token import Rejected, Token, Untold
from etl.warehouse.engine import transaction
from etl.warehouse.ledger.lease import fence, open_run
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.compare import JSON_ROWS_MAX
from etl.warehouse.load.fingerprint import CHECKED_ONE_IN, FINGERPRINT
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.publish import publish
from etl.warehouse.load.resolve import AuditCounts, audit_counts
from etl.warehouse.load.staging import stage_batch, stage_lookup
from etl.warehouse.load.vanished import Vanished, vanished_fields
from etl.warehouse.schema.database import Database
from tests.support.model import Row

PARTNER = 102
START = 1_700_000_000
OBSERVED = datetime(2026, 11, 1, tzinfo=UTC)
GRACE = timedelta(minutes=15)


def make_token(token_id: str, created: int = START, **values: object) -> Token:
    """A closed token; ``created`` in Unix seconds."""
    fields: Row = {
        "user_id": "anna",
        "status": 3,
        "file_name": "film.mp4",
        "file_size_bytes": 1_000,
        "uploaded_size_bytes": 1_000,
        "created_at": datetime.fromtimestamp(created, UTC),
        "updated_at": datetime.fromtimestamp(created + 60, UTC),
        "attached_object_type": "1",
        "attached_object_id": "0_entry",
        "auto_finalize": False,
        "upload_url": "https://upload.example",
        "extra": None,
    }
    return Token(token_id, **(fields | values))


def raw_of(token: Token) -> bytes:
    return json.dumps([str(value) for value in token]).encode()


def page_of(
    tokens: Iterable[Token],
    *,
    seq: int | None = 0,
    observed_at: datetime = OBSERVED,
    from_start: bool = False,
    to_end: bool = False,
    lookup: bool = False,
    asked: Sequence[str] = (),
    rejected: Sequence[Rejected] = (),
    untold: Mapping[int, Untold] | None = None,
) -> Page:
    """A page of tokens in the order given; ``lookup`` for an answer, which has no span."""
    tokens = list(tokens)
    seconds = [int(token.created_at.timestamp()) for token in tokens]
    span = None if lookup else page_span(seconds, from_start=from_start, to_end=to_end)
    facts = PageFacts(
        page_index=1,
        page_size=500,
        filter="{}",
        requested_at=observed_at - timedelta(seconds=1),
        received_at=observed_at,
        total_count=len(tokens),
        rows=len(tokens),
        body_sha256=hashlib.sha256(repr(tokens).encode()).digest(),
    )
    return Page(
        facts=facts,
        body=b"",
        tokens=PageTokens.of(tokens, untold),
        raw=[raw_of(token) for token in tokens],
        rejected=rejected,
        positions=seconds,
        asked=tuple(asked) if lookup else None,
        span=span,
        seq=seq,
    )


def require_lease(database: Database, run: OpenRun) -> None:
    """Raise LeaseHeld unless the run still holds its lease."""
    with transaction(database.engine) as connection:
        fence(connection, database, run)


@dataclass
class Nights:
    """A warehouse, and runs through it as ``etl.run.sync`` makes them."""

    url: str
    database: Database
    small: bool = False
    compare: str = FINGERPRINT
    time: datetime = OBSERVED
    counts: AuditCounts = field(init=False)
    """Of the last run that was published."""
    vanished: list[Vanished] = field(init=False)
    """The fields that had vanished when it was published all the same."""

    def open(
        self,
        *,
        partner_id: int = PARTNER,
        mode: str = "full",
        resume_window: timedelta | None = None,
        dry_run: bool = False,
    ) -> OpenRun:
        return open_run(
            self.database,
            partner_id=partner_id,
            mode=mode,
            lease_seconds=60,
            resume_window=resume_window,
            dry_run=dry_run,
        )

    def stage(self, run: OpenRun, *pages: Page) -> None:
        coverage = run.walk.coverage.union([page.span for page in pages if page.span is not None])
        for offset, page in enumerate(pages):
            page.seq = run.walk.next_seq + offset
        stage_batch(
            self.database,
            run,
            pages,
            coverage=coverage,
            holes=[],
            requests=len(pages),
            retries=0,
            compare=self.compare,
            json_rows_max=JSON_ROWS_MAX if self.small else 0,
        )

    def confirm(
        self, run: OpenRun, answers: Iterable[Token], grace: timedelta = GRACE
    ) -> list[str]:
        """Look up what is missing; ``answers`` are all rows that the service has."""
        answers = list(answers)
        missing = missing_tokens(self.database, run, after=None, limit=100_000)
        asked = [token_id for token_id, _ in missing]
        if asked:
            page = page_of(
                [token for token in answers if token.token_id in asked],
                seq=run.walk.next_seq,
                observed_at=self.time + timedelta(minutes=1),
                lookup=True,
                asked=asked,
            )
            stage_lookup(self.database, run, page, absence_grace=grace)
        return asked

    def publish(self, run: OpenRun, stamp: datetime | None = None) -> datetime:
        """``stamp``: the publication timestamp, instead of now."""
        self.counts = audit_counts(self.database, run)
        self.vanished = vanished_fields(self.database, run, self.counts)
        return publish(
            self.database,
            run,
            self.counts,
            holes=[],
            overrides={},
            requests=1,
            retries=0,
            stamp=stamp,
        )

    def night(
        self,
        tokens: Iterable[Token],
        *,
        at: datetime | None = None,
        untold: Mapping[int, Untold] | None = None,
        stamp: datetime | None = None,
    ) -> AuditCounts:
        """One whole run over an account that fits on one page; ``untold`` by place on it."""
        tokens = list(tokens)
        self.time = at or self.time + timedelta(days=1)
        run = self.open()
        ordered = sorted(tokens, key=lambda token: token.created_at)
        page = page_of(ordered, observed_at=self.time, from_start=True, to_end=True, untold=untold)
        self.stage(run, page)
        self.confirm(run, tokens)
        self.publish(run, stamp)
        return self.counts

    def query(self, statement: str, *values: object) -> list[Row]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def token(self, token_id: str) -> Row:
        (row,) = self.query("select * from kaltura.upload_token where token_id = %s", token_id)
        return row

    def versions(self, token_id: str) -> list[tuple[int, str]]:
        """Version and kind, of superseded and present versions."""
        rows = self.query(
            "select version, change_kind from kaltura.upload_token_superseded where token_id = %s "
            "union all select version, change_kind from kaltura.upload_token where token_id = %s "
            "order by version",
            token_id,
            token_id,
        )
        return [(row["version"], row["change_kind"]) for row in rows]

    def ledger(self, run_id: int) -> Row:
        (row,) = self.query(
            "select *, coverage::text as certificate from kaltura.sync_run where run_id = %s",
            run_id,
        )
        return row


class MakeNights(Protocol):
    """Makes nights on a test's database, or on another URL of it."""

    def __call__(self, url: str | None = None, *, small: bool = False) -> Nights: ...


def publish_runs(query: Callable[..., object], partner_id: int, remainder: int) -> None:
    """Publish empty runs until their number leaves ``remainder``, divided by ``CHECKED_ONE_IN``.

    That tells which pages the next run checks by columns.
    """
    query(
        "insert into kaltura.sync_run (partner_id, walk_id, mode, status, started_at, "
        "heartbeat_at, finished_at, published_at, program_version, listed_before) "
        "select partner_id, walk_id, 'backfill', 'succeeded', at, at, at, at, 'empty', "
        "(select count(*) from kaltura.upload_token as token "
        "where token.partner_id = known.partner_id and is_listed) "
        "from (select partner_id, max(run_id) as walk_id, max(published_at) as last_at, "
        "count(*) as runs from kaltura.sync_run where partner_id = %s "
        "and published_at is not null group by partner_id) as known, "
        "generate_series(1, mod(%s - mod(runs, %s) + %s, %s)) as number, "
        "lateral (select last_at + number * interval '1 microsecond') as moment (at)",
        *(partner_id, remainder, CHECKED_ONE_IN, CHECKED_ONE_IN, CHECKED_ONE_IN),
    )
    query("update kaltura.sync_run set walk_id = run_id where program_version = 'empty'")
