"""``RunReport``: the outcome of a run, for the command line, the metrics and the log.

``Figures``: what a run has come to so far, also one that fails and so has no report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.kaltura.retry import Counters
    from etl.warehouse.ledger.run import OpenRun
    from etl.warehouse.load.resolve import AuditCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The outcome of a run.  Counts are of tokens unless they say otherwise."""

    run_id: int
    status: str
    mode: str
    partner_id: int
    tokens_read: int
    rows_read: int
    inserted: int
    changed: int
    absent: int
    relisted: int
    unchanged: int
    rejected: int
    """Rows that could not be loaded; they are in ``rejected_row``."""
    partly_loaded: int
    """Rows loaded without a value that cannot be used; they are in ``rejected_row``, too."""
    unreadable: int
    requests: int
    retries: int
    pages: int
    duration_seconds: float
    coverage: str
    """The certificate: ``{(,)}`` is everything."""
    holes: list[dict[str, Any]]
    resumed_from: int | None
    published_at: datetime | None
    dry_run: bool
    changes: list[dict[str, Any]] = field(default_factory=list)
    """Of a dry run: the first changes that it would have published."""
    open_coverage: str = "{}"
    """The coverage of the list of open tokens."""
    full_because: str | None = None
    """Why a run requested as incremental was a full one."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    asked: int = 0
    """Ids given to a backfill."""
    not_found: list[str] = field(default_factory=list)
    """The given ids that neither the service nor the warehouse knows."""
    unreadable_ids: list[str] = field(default_factory=list)
    """The ids that were looked up and could not be read; ``unreadable`` counts them too."""
    vanished_fields: list[dict[str, Any]] = field(default_factory=list)
    """Fields that most tokens have lost: ``field``, ``lacking`` and ``of`` (tokens)."""
    expected_tokens: int | None = None
    expected_requests: int | None = None
    """A backfill's estimate of what it needs, from what the warehouse knew."""


@dataclass(slots=True)
class Figures:
    """What is known of a run so far.  The engine fills it in as the run goes on."""

    run: OpenRun | None = None
    """Once it holds the lease."""
    counters: Counters | None = None
    """Once requests go out."""
    counts: AuditCounts | None = None
    """Once everything is read."""

    def facts(self) -> dict[str, object]:
        """By the names of ``RunReport``, and ``bytes`` received; what is not known is left out."""
        found: dict[str, object] = {}
        if self.run is not None:
            walk = self.run.walk.counts
            found |= {
                "run_id": self.run.run_id,
                "mode": self.run.mode,
                "resumed_from": self.run.resumed_from,
                "pages": walk.pages,
                "rows_read": walk.rows_read,
                "rejected": walk.rejected,
            }
        if self.counters is not None:
            found |= {**self.counters.columns(), "bytes": self.counters.bytes_received}
        if self.counts is not None:
            names = ("tokens_read", "inserted", "changed", "absent", "relisted", "unchanged")
            found |= {name: getattr(self.counts, name) for name in (*names, "rejected")}
        return found
