"""``sync``: the whole account (full), or new and open tokens (incremental)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.run.engine import run_plan
from etl.run.plan import RunPlan, SyncOptions, plan_full, plan_incremental
from etl.run.report import Figures, RunReport

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.settings.table import Settings
    from etl.warehouse.schema.database import Database


def sync(
    settings: Settings,
    options: SyncOptions,
    *,
    stop: Stop,
    progress: Progress,
    figures: Figures | None = None,
) -> RunReport:
    """Read the account as ``options.mode`` says, and publish what changed; see ``run_plan``."""

    def plan_for(database: Database) -> RunPlan:
        if options.mode == "incremental":
            return plan_incremental(
                database, settings.require_partner_id(), full_every=options.full_every
            )
        return plan_full(database, settings.require_partner_id())

    return run_plan(settings, options, plan_for, stop=stop, progress=progress, figures=figures)
