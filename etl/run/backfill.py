"""``backfill``: a range of createdAt, or given ids, on demand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, Span
from etl.run.engine import run_plan
from etl.run.fetch import LOOKUP_IDS_AT_MOST
from etl.run.plan import Leg, RunPlan, SyncOptions
from etl.run.report import Figures, RunReport
from etl.warehouse.ledger.certificates import known_tokens, last_complete

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.settings.table import Settings
    from etl.warehouse.schema.database import Database

ROWS_PER_PAGE: Final = 460
"""Of 500: adjacent pages overlap."""

ROWS_NEAR_A_HINT: Final = 2
"""Requests that find the beginning of a range where it is presumed."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole seconds of createdAt, both ends inclusive; None leaves an end open."""

    begin: datetime | None
    end: datetime | None

    def span(self) -> Span:
        """The range as a span."""
        return Span(
            NEGATIVE_INFINITY if self.begin is None else math.floor(self.begin.timestamp()),
            POSITIVE_INFINITY if self.end is None else math.floor(self.end.timestamp()) + 1,
        )


def backfill_range(
    settings: Settings,
    options: SyncOptions,
    wanted: Range,
    *,
    stop: Stop,
    progress: Progress,
    figures: Figures | None = None,
) -> RunReport:
    """Read the tokens of a range and publish what changed in it; see ``run_plan``."""

    def plan_for(database: Database) -> RunPlan:
        return plan_range(database, settings.require_partner_id(), wanted)

    return run_plan(settings, options, plan_for, stop=stop, progress=progress, figures=figures)


def backfill_ids(
    settings: Settings,
    options: SyncOptions,
    token_ids: Iterable[str],
    *,
    stop: Stop,
    progress: Progress,
    figures: Figures | None = None,
) -> RunReport:
    """Look up tokens by id and publish what changed; see ``run_plan``."""
    ids = tuple(dict.fromkeys(token_ids))
    plan = RunPlan(
        mode="backfill",
        token_ids=ids,
        expected_tokens=len(ids),
        expected_requests=-(-len(ids) // LOOKUP_IDS_AT_MOST),
    )
    return run_plan(
        settings, options, lambda _database: plan, stop=stop, progress=progress, figures=figures
    )


def plan_range(database: Database, partner_id: int, wanted: Range) -> RunPlan:
    """The plan, with an estimate of tokens and requests from what the warehouse knows."""
    span = wanted.span()
    tokens = known_tokens(database, partner_id, wanted.begin, wanted.end)
    requests = tokens // ROWS_PER_PAGE + 1 + (wanted.end is None)
    positions: tuple[tuple[int, int], ...] = ()
    if last_complete(database, partner_id) is not None:
        # Both ends lie about where the tokens that are known as listed have them.
        before = 0
        if wanted.begin is not None:
            before = known_tokens(database, partner_id, None, wanted.begin - timedelta(seconds=1))
        positions = ((span.lower - 1, before), (span.upper - 1, before + tokens))
        requests += ROWS_NEAR_A_HINT if wanted.begin is not None else 0
    elif wanted.begin is not None:
        account = known_tokens(database, partner_id)
        requests += 1 + math.ceil(math.log2(max(account / 125, 1)))
    return RunPlan(
        mode="backfill",
        legs=(Leg(target=span, positions=positions),),
        range_from=wanted.begin,
        range_to=wanted.end,
        expected_tokens=tokens,
        expected_requests=requests,
    )
