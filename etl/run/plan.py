"""What a run is to read.  Every mode is one of these plans; the engine is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from etl.coverage import EVERYTHING, POSITIVE_INFINITY, Span
from etl.settings.values import duration_text
from etl.warehouse.ledger.certificates import LOOKBACK, last_complete, watermark
from etl.warehouse.schema.database import Database


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one ``sync`` or ``backfill``.  Limits that may also be settings live in
    ``Settings``."""

    mode: str = "full"
    """``full`` or ``incremental``; a backfill is told what to read in another way."""
    dry_run: bool = False
    """Do everything except publishing, and report the changes."""
    resume: bool = True
    """Take over what a failed run within ``Settings.resume_window`` has staged."""
    accept_absences: int | None = None
    """Publish up to this many absences although the brake says no; None: the brake decides."""
    full_every: timedelta | None = None
    """An incremental run becomes a full one if the last complete certificate is older."""
    wait_seconds: float = 0
    """How long to wait for another run to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One list to cover."""

    target: Span = EVERYTHING
    open_only: bool = False
    """The list of open tokens instead of the whole one."""
    newest_first: bool = False
    """For a target that begins near the end of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Legs to walk, one after the other, and ids to ask for."""

    mode: str
    """As in ``sync_run``."""
    legs: tuple[Leg, ...] = ()
    token_ids: tuple[str, ...] = ()
    """Distinct."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    """Both included; None is open."""
    full_because: str | None = None
    """Why a run that was to be incremental is a full one."""
    expected_tokens: int | None = None
    """Tokens that it will read, as far as the warehouse knows."""
    expected_requests: int | None = None


Planner = Callable[[Database], RunPlan]
"""Makes the plan when the lease is free: it depends on what was published last."""


def plan_full(because: str | None = None) -> RunPlan:
    """Everything, in one walk."""
    return RunPlan(mode="full", legs=(Leg(),), full_because=because)


def plan_incremental(
    database: Database, partner_id: int, *, full_every: timedelta | None
) -> RunPlan:
    """The newest tokens down to the watermark, a lookback below it, and all that are open.

    Tokens known as open that neither list shows are missing from the second one, and are asked for
    by id.  Without a watermark, or with an old certificate, everything is read.
    """
    complete = last_complete(database, partner_id)
    if complete is None:
        return plan_full("no published run has read the whole account yet")
    if full_every is not None and complete.age > full_every:
        age = duration_text(timedelta(seconds=round(complete.age.total_seconds())))
        return plan_full(
            f"the last complete certificate (run {complete.run_id}) is {age} old, more than "
            f"{duration_text(full_every)}"
        )
    newest_read = watermark(database, partner_id)
    if newest_read is None:
        return plan_full("no watermark: no listed token is known")
    newest = Span(newest_read - round(LOOKBACK.total_seconds()), POSITIVE_INFINITY)
    return RunPlan(
        mode="incremental", legs=(Leg(target=newest, newest_first=True), Leg(open_only=True))
    )
