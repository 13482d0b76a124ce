"""``RunReport``: the outcome of a run, for the command line, the metrics and the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


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
    """For a dry run: the first changes that it would have published."""
    open_coverage: str = "{}"
    """The same of the list of open tokens alone."""
    full_because: str | None = None
    """Why a run that was to be incremental read everything."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    asked: int = 0
    """Ids that a backfill was given."""
    not_found: list[str] = field(default_factory=list)
    """Those of them that neither the service nor the warehouse knows."""
    expected_tokens: int | None = None
    expected_requests: int | None = None
    """What a backfill expected to need, as far as the warehouse knew."""
