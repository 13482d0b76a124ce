"""The shapes that the run, the loader and the ledger hand to each other; no SQL here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import EVERYTHING, Coverage, Span
from etl.tokens.decode import Rejected, Token
from etl.tokens.token import CREATED_SECOND_END, CREATED_SECOND_MIN
from etl.warehouse.schema.tables import Tables

DEFAULT_ABSENCE_GRACE: Final = timedelta(minutes=15)
PAGES_REMEMBERED: Final = 64
"""As many as can be under way at once: pages that are taken in against the order of their arrival
were under way together."""
DUPLICATE_ID: Final = "duplicate_id"
"""Reason of a rejected row whose token has another row with a newer createdAt."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where the functions of this package work: an engine and the tables of one schema."""

    engine: sa.Engine
    tables: Tables
    schema: str


@dataclass(slots=True, kw_only=True)
class OpenRun:
    """A run that holds the lease of its partner, and what its walk has said so far."""

    run_id: int
    walk_id: int
    """The first run of the walk: staging is kept under it."""
    partner_id: int
    mode: str
    started_at: datetime
    dry_run: bool = False
    """Whether it is not to publish."""
    resumed_from: int | None = None
    range: Span = EVERYTHING
    """A backfill reads beyond its range, and takes nothing from there."""
    coverage: Coverage = field(default_factory=Coverage)
    open_coverage: Coverage = field(default_factory=Coverage)
    """The same of the list of open tokens alone."""
    holes: list[dict[str, Any]] = field(default_factory=list)
    listed_before: int = 0
    """Known tokens with is_listed, counted at the opening."""
    known_before: int = 0
    """0 only if no token of the partner is known: then pages need no comparing.  Not a count."""
    last_published_run_id: int | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The database's time: its clock at the opening, and this process' monotonic time since."""
    next_seq: int = 0
    pages: int = 0
    rows_read: int = 0
    staged: int = 0
    rejected: int = 0
    total_count_first: int | None = None
    total_count_last: int | None = None
    oldest_page_at: datetime | None = None
    """When the oldest page of the walk was requested; None before the first page."""
    lookups_after: datetime | None = None
    """Of a resumed walk: look-ups that were answered until then are an earlier run's, and settle
    nothing in this one."""
    positions: list[tuple[int, int]] = field(default_factory=list)
    """Of a resumed walk: (second, about how many rows of the list were not after it)."""
    small: bool = False
    """The caller says that the account is small (at most 20,000 rows): see ``compare``."""
    absence_grace: timedelta = DEFAULT_ABSENCE_GRACE
    shown: deque[tuple[datetime, frozenset[tuple[str, datetime]]]] = field(
        default_factory=lambda: deque(maxlen=PAGES_REMEMBERED)
    )
    """The last pages: when each arrived, and the tokens (id, createdAt) on it."""

    @property
    def is_resumed(self) -> bool:
        """Whether the walk holds pages of an earlier run."""
        return self.walk_id != self.run_id

    def remember(self, pages: Iterable[StagedPage]) -> None:
        """Keep in mind what these pages showed."""
        for page in pages:
            tokens = frozenset((token.token_id, token.created_at) for token in page.tokens)
            self.shown.append((page.received_at, tokens))

    def has_later(self, token: Token, observed_at: datetime) -> bool:
        """Whether a remembered page showed the token after ``observed_at``.

        What it showed is staged if it differed from the known version, and holds in either case.
        """
        here = (token.token_id, token.created_at)
        return any(arrived > observed_at and here in tokens for arrived, tokens in self.shown)


@dataclass(slots=True, kw_only=True)
class StagedPage:
    """A page as it goes to the warehouse: the facts of its reply, and its decoded rows."""

    seq: int | None
    """Its number in the run; None for a page that has its ``sync_page`` row already."""
    page_index: int
    page_size: int
    filter: str
    requested_at: datetime
    received_at: datetime
    total_count: int | None
    body_sha256: bytes
    rows: int
    first_created_at: int | None
    last_created_at: int | None
    """createdAt of the first and last row that can be placed, in Unix seconds."""
    span: Span | None
    tokens: Sequence[Token]
    raw: Sequence[bytes]
    """The JSON of each token, parallel to ``tokens``: kept if a token turns out a duplicate."""
    rejected: Sequence[Rejected] = ()
    body: bytes = b""
    """The reply's JSON as it was accepted."""
    asked: tuple[str, ...] | None = None
    """The ids of a look-up; None for a page of the list."""
    open_only: bool = False
    """A page of the list of open tokens: its span says nothing of the others."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch came to: rows appended to staging, and rows rejected."""

    present: int
    missing: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """What publishing the walk would do."""

    inserted: int
    changed: int
    absent: int
    relisted: int
    pending: int
    """Known tokens missing on their page whose absence no look-up has settled: kept as they are."""
    rejected: int
    """Rows in rejected_row, the same row of a token counted once."""
    rejected_known: int
    """Known listed tokens of which the walk showed nothing but a rejected row."""
    not_covered: int
    """Known listed tokens that the run did not look at: neither in the seconds that it read, nor
    as one of the open tokens, nor by a look-up."""
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


def time_of_second(second: int) -> datetime:
    """The time of a Unix second."""
    return datetime.fromtimestamp(second, UTC)


def time_of_page_end(second: int | None) -> datetime | None:
    """The same for a page's first or last row, whose createdAt may be nonsense: then None."""
    if second is None or not CREATED_SECOND_MIN <= second < CREATED_SECOND_END:
        return None
    return time_of_second(second)


def seconds_between(span: Span) -> tuple[datetime | None, datetime | None]:
    """The span's ends as times; None for an end beyond all times that a token can have."""
    lower = None if span.lower <= CREATED_SECOND_MIN else span.lower
    upper = None if span.upper >= CREATED_SECOND_END else span.upper
    return (
        None if lower is None else time_of_second(min(lower, CREATED_SECOND_END)),
        None if upper is None else time_of_second(max(upper, CREATED_SECOND_MIN)),
    )
