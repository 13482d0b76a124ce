"""A run that holds the lease: its facts, its baseline, and the state of its walk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Self

from etl.coverage import EVERYTHING, Coverage, Span
from etl.tokens.columns import Identity, identity
from etl.tokens.page import Page
from etl.tokens.token import Token

STAGING_SECONDS: Final = 3_600
"""The limit of statements that read or delete all that a walk has staged, of whatever size: the one
that is too short would fail every later run."""
PAGES_REMEMBERED: Final = 64
"""As many as can be in flight at once: pages that are processed out of the order of their arrival
were in flight together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkCounts:
    """Counters of a walk, as in ``sync_run``.  A resumed walk continues them."""

    pages: int = 0
    """Replies accepted."""
    rows_read: int = 0
    staged: int = 0
    """Rows appended to staging."""
    rejected: int = 0
    """Rows written to rejected_row, a row of two overlapping pages twice."""
    total_count_first: int | None = None
    total_count_last: int | None = None

    def columns(self) -> dict[str, int | None]:
        """The values of ``sync_run``'s columns of the same names."""
        return asdict(self)

    def plus(self, pages: Sequence[Page], *, staged: int, rejected: int) -> Self:
        """The counts after a batch."""
        told = [
            page.facts.total_count
            for page in pages
            # totalCount of a lookup, or of the list of open tokens, is not that of the whole list.
            if page.facts.total_count is not None and page.span is not None and not page.open_only
        ]
        first, last = self.total_count_first, self.total_count_last
        return type(self)(
            pages=self.pages + len(pages),
            rows_read=self.rows_read + sum(page.facts.rows for page in pages),
            staged=self.staged + staged,
            rejected=self.rejected + rejected,
            total_count_first=told[0] if told and first is None else first,
            total_count_last=told[-1] if told else last,
        )


class PageMemory:
    """The last pages of a run: when each arrived, and the tokens (id, createdAt) on it."""

    def __init__(self) -> None:
        self._shown: deque[_Shown] = deque(maxlen=PAGES_REMEMBERED)
        self._last_arrived = datetime.min.replace(tzinfo=UTC)

    def remember(self, pages: Iterable[Page]) -> None:
        """Remember what these pages showed."""
        for page in pages:
            self._shown.append(_Shown(page.facts.received_at, page.tokens.identities))
            self._last_arrived = max(self._last_arrived, page.facts.received_at)

    def has_later(self, token: Token, observed_at: datetime) -> bool:
        """Whether a remembered page showed the token after ``observed_at``.

        What it showed is staged if it differed from the known version, and holds in either case.
        """
        # Nearly always false: pages are mostly processed in the order of their arrival.
        return observed_at < self._last_arrived and any(
            shown.arrived > observed_at and identity(token) in shown.tokens for shown in self._shown
        )


class _Shown:
    """What one page showed.  On most nights no page is asked for its tokens."""

    def __init__(self, arrived: datetime, identities: Iterable[Identity]) -> None:
        self.arrived = arrived
        self._identities = tuple(identities)

    @cached_property
    def tokens(self) -> frozenset[Identity]:
        return frozenset(self._identities)


@dataclass(slots=True, kw_only=True)
class StagedWalk:
    """What a walk has read and staged so far, possibly over several runs."""

    walk_id: int
    """The first run of the walk: staging is kept under it."""
    coverage: Coverage = field(default_factory=Coverage)
    open_coverage: Coverage = field(default_factory=Coverage)
    """The coverage of the list of open tokens."""
    holes: list[dict[str, Any]] = field(default_factory=list)
    counts: WalkCounts = field(default_factory=WalkCounts)
    next_seq: int = 0
    """Number of the next page."""
    oldest_page_at: datetime | None = None
    """When the oldest page was requested; None before the first page."""
    lookups_after: datetime | None = None
    """Of a resumed walk: lookups answered up to then belong to an earlier run, and settle nothing
    in this one."""
    positions: list[tuple[int, int]] = field(default_factory=list)
    """Of a resumed walk: (second, approximate number of rows of the list not after it)."""
    memory: PageMemory = field(default_factory=PageMemory)
    beside_holes: dict[int, set[str]] = field(default_factory=dict)
    """By second that is not covered: the tokens of it that this run has been shown.  Only the first
    and the last second of a page can be one."""
    undigested: bool = False
    """Whether it met known tokens without a digest."""

    def note_uncovered(self, pages: Iterable[Page]) -> None:
        """Note the tokens that these pages show in seconds that are not covered; drop those of
        seconds that are covered by now."""
        noted = self.beside_holes
        for page in pages:
            ends = {page.first_created_second, page.last_created_second}
            ends = {second for second in ends if second is not None and not self._covers(second)}
            if page.asked is not None or not ends:
                continue
            tokens = page.tokens
            for second, token_id in zip(tokens.created_seconds, tokens.token_ids, strict=True):
                if second in ends:
                    noted.setdefault(second, set()).add(token_id)
        self.beside_holes = {
            second: ids for second, ids in noted.items() if not self._covers(second)
        }

    def _covers(self, second: int) -> bool:
        return self.coverage.contains(second) or self.open_coverage.contains(second)

    def oldest_with(self, pages: Iterable[Page]) -> datetime | None:
        """``oldest_page_at`` with these pages."""
        times = [page.facts.requested_at for page in pages]
        known = [] if self.oldest_page_at is None else [self.oldest_page_at]
        return min([*known, *times], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was known of the account when the run opened, with which it compares."""

    listed_before: int = 0
    """Known tokens with is_listed."""
    knows_tokens: bool = False
    """Whether any token of the account is known; if not, pages need no comparison."""
    last_published_run_id: int | None = None
    published_runs: int = 0
    """How many runs of the account have published."""


@dataclass(slots=True, kw_only=True)
class OpenRun:
    """A run that holds the lease of its partner."""

    run_id: int
    partner_id: int
    mode: str
    started_at: datetime
    walk: StagedWalk
    baseline: Baseline = field(default_factory=Baseline)
    resumed_from: int | None = None
    dry_run: bool = False
    """Whether it is a dry run."""
    range: Span = EVERYTHING
    """The range of a backfill, which reads beyond it but stages nothing from there."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The database's time: its clock at the opening plus this process' monotonic time since."""
    wait: Callable[[float], bool] = lambda _: True
    """Waits so many seconds; True as soon as a stop is requested.  Ending a run whose database is
    away waits by it: without one, it does not wait at all."""

    @property
    def is_resumed(self) -> bool:
        """Whether the walk holds pages of an earlier run."""
        return self.walk.walk_id != self.run_id
