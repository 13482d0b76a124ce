"""What a run reads.  Every mode is one of these plans; the engine is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etl.coverage import EVERYTHING, POSITIVE_INFINITY, Span
from etl.settings.values import duration_text
from etl.warehouse.ledger.certificates import (
    LOOKBACK,
    known_tokens,
    last_complete,
    last_total_count,
    watermark,
)
from etl.warehouse.load.fingerprint import FINGERPRINT
from etl.warehouse.schema.database import Database

if TYPE_CHECKING:
    from etl.kaltura.in_flight import RequestLimit
    from etl.kaltura.request_rate import RequestRate


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one ``sync`` or ``backfill``.  Limits that may also be settings live in
    ``Settings``."""

    mode: str = "full"
    """``full`` or ``incremental``; a backfill has a range or ids instead."""
    dry_run: bool = False
    """Do everything except publishing, and report the changes."""
    resume: bool = True
    """Resume the walk of a failed run within ``Settings.resume_window``."""
    accept_absences: int | None = None
    """Override the absence limit: publish up to this many absences; None: the limit applies."""
    accept_rejected: int | None = None
    """Override the limit of rejected rows: publish without up to this many; None: it applies."""
    accept_vanished_fields: tuple[str, ...] = ()
    """Publish although these fields (keys of the service) have vanished from most tokens."""
    full_every: timedelta | None = None
    """An incremental run becomes a full one if the last complete certificate is older than this."""
    compare: str = FINGERPRINT
    """How pages are compared with what is known: ``fingerprint`` or ``full``."""
    label: str | None = None
    """What the ledger calls the run besides its number, such as the orchestrator's id of it."""
    wait_seconds: float = 0
    """How long to wait for a running run of the account to end."""
    in_flight: RequestLimit | None = None
    """The limit of requests that it shares with the other runs of a job; None: it is alone."""
    request_rate: RequestRate | None = None
    """As ``in_flight``, of requests per second; None: as the settings say."""
    patient: bool = True
    """Whether a service that has not answered yet is asked again; False: the run fails at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One list to cover."""

    target: Span = EVERYTHING
    open_only: bool = False
    """Whether to read the list of open tokens instead of the whole list."""
    newest_first: bool = False
    """Read from the newest token back: for a target that begins near the end of the list."""
    positions: tuple[tuple[int, int], ...] = ()
    """Where its ends presumably lie in the list: (second, number of rows not after it)."""
    total_count: int | None = None
    """The presumed length of the list, if it is to be relied on before the first reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Legs to walk, one after the other, and ids to look up."""

    mode: str
    """As in ``sync_run``."""
    legs: tuple[Leg, ...] = ()
    token_ids: tuple[str, ...] = ()
    """Distinct."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    """Both ends are inclusive; None is open."""
    full_because: str | None = None
    """Why a run requested as incremental is a full one."""
    expected_tokens: int | None = None
    """Estimate of the tokens that it will read, from what the warehouse knows."""
    expected_requests: int | None = None


Planner = Callable[[Database], RunPlan]
"""Makes the plan once the lease is free: it depends on what was published last."""


def plan_full(database: Database, partner_id: int, *, because: str | None = None) -> RunPlan:
    """Everything, in one walk."""
    leg = Leg(total_count=last_total_count(database, partner_id))
    return RunPlan(mode="full", legs=(leg,), full_because=because)


def plan_incremental(
    database: Database, partner_id: int, *, full_every: timedelta | None
) -> RunPlan:
    """The newest tokens down to a lookback below the watermark, and all open tokens.

    Known open tokens that neither list shows are missing from the second one, and are looked up by
    id.  Without a watermark, or with an old certificate, the plan is a full one.
    """
    complete = last_complete(database, partner_id)
    if complete is None:
        because = "no published run has read the whole account yet"
        return plan_full(database, partner_id, because=because)
    if full_every is not None and complete.age > full_every:
        age = duration_text(timedelta(seconds=round(complete.age.total_seconds())))
        because = (
            f"the last complete certificate (run {complete.run_id}) is {age} old, more than "
            f"{duration_text(full_every)}"
        )
        return plan_full(database, partner_id, because=because)
    newest_read = watermark(database, partner_id)
    if newest_read is None:
        because = "no watermark: no listed token is known"
        return plan_full(database, partner_id, because=because)
    newest = Span(newest_read - round(LOOKBACK.total_seconds()), POSITIVE_INFINITY)
    positions = _position_before(database, partner_id, newest.lower)
    return RunPlan(
        mode="incremental",
        legs=(
            Leg(target=newest, newest_first=True, positions=positions),
            Leg(open_only=True, total_count=known_tokens(database, partner_id, open_only=True)),
        ),
    )


def _position_before(
    database: Database, partner_id: int, second: int
) -> tuple[tuple[int, int], ...]:
    """Where a second near the end of the list lay at the last run, if that is known."""
    total_count = last_total_count(database, partner_id)
    if total_count is None:
        return ()
    since = known_tokens(database, partner_id, datetime.fromtimestamp(second, UTC))
    return ((second - 1, max(total_count - since, 0)),)
