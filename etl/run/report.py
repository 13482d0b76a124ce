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
