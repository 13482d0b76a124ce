"""``sync``: the whole account, or what is new and what is open."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from etl.coverage import POSITIVE_INFINITY, Span
from etl.run.engine import RunReport, run_plan
from etl.run.leg import BATCH_PAGES
from etl.run.plan import Leg, RunPlan
from etl.settings.values import duration_text
from etl.warehouse.ledger.certificates import LOOKBACK

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.run.options import SyncOptions
    from etl.settings.table import Settings
    from etl.warehouse.store import Warehouse

__all__ = ["BATCH_PAGES", "RunReport", "sync_full"]


def sync_full(
    settings: Settings, options: SyncOptions, *, stop: Stop, progress: Progress
) -> RunReport:
    """Read the account as ``options.mode`` says, and publish what changed; see ``run_plan``."""

    def plan_for(warehouse: Warehouse) -> RunPlan:
        if options.mode == "incremental":
            return plan_incremental(
                warehouse, settings.require_partner_id(), full_every=options.full_every
            )
        return plan_full()

    return run_plan(settings, options, plan_for, stop=stop, progress=progress)


def plan_full(because: str | None = None) -> RunPlan:
    """Everything, in one walk."""
    return RunPlan(mode="full", legs=(Leg(),), full_because=because)


def plan_incremental(
    warehouse: Warehouse, partner_id: int, *, full_every: timedelta | None
) -> RunPlan:
    """The newest tokens down to the watermark, a lookback below it, and all that are open.

    Tokens known as open that neither list shows are missing from the second one, and are asked for
    by id.  Without a watermark, or with an old certificate, everything is read.
    """
    complete = warehouse.last_complete(partner_id)
    if complete is None:
        return plan_full("no published run has read the whole account yet")
    if full_every is not None and complete.age > full_every:
        age = duration_text(timedelta(seconds=round(complete.age.total_seconds())))
        return plan_full(
            f"the last complete certificate (run {complete.run_id}) is {age} old, more than "
            f"{duration_text(full_every)}"
        )
    watermark = warehouse.watermark(partner_id)
    if watermark is None:
        return plan_full("no watermark: no listed token is known")
    newest = Span(watermark - round(LOOKBACK.total_seconds()), POSITIVE_INFINITY)
    return RunPlan(
        mode="incremental", legs=(Leg(target=newest, newest_first=True), Leg(open_only=True))
    )
