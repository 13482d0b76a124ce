"""A run of the one account that a call is about; of several, see ``accounts``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from etl.cli.database import migrate_embedded, open_warehouse
from etl.cli.monitoring import asking_warehouse
from etl.cli.runtime import Runtime
from etl.settings.table import Settings

if TYPE_CHECKING:
    from etl.run.accounts import Run
    from etl.run.plan import SyncOptions


def run_account(runtime: Runtime, settings: Settings, run: Run, options: SyncOptions) -> None:
    """Open the warehouse, run and print the report."""
    from etl.process.progress import TimedProgress

    facts = runtime.run_facts
    with open_warehouse(settings, create=True) as opened:
        if settings.database_url is None:
            migrate_embedded(opened)
        runtime.stop.check()
        with asking_warehouse(opened, facts), runtime.progress() as shown:
            timed = TimedProgress(shown, facts.times)
            report = run(opened, options, stop=runtime.stop, progress=timed, figures=facts.figures)
            facts.report = result = dataclasses.asdict(report)
    if runtime.json:
        runtime.print_result(result)
        return
    from etl.cli.tables import report_tables

    runtime.print_result(result, *report_tables(result))
