"""What ``sync`` and ``backfill`` print, and how they run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from etl.cli.database import migrate_embedded, open_warehouse
from etl.cli.exit_codes import exit_code_of
from etl.cli.tables import facts_table, rows_table

if TYPE_CHECKING:
    from etl.cli.runtime import Runtime
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.run.engine import RunReport
    from etl.settings.table import Settings

SHOWN = (
    "tokens_read",
    "rows_read",
    "inserted",
    "changed",
    "absent",
    "relisted",
    "unchanged",
    "rejected",
    "unreadable",
    "requests",
    "retries",
    "pages",
)
"""Counts of the table, in this order; ``--json`` has every field of the report."""

IDS_SHOWN = 20


class Run(Protocol):
    """A run whose options are given already."""

    def __call__(self, settings: Settings, *, stop: Stop, progress: Progress) -> RunReport: ...


def run_and_print(runtime: Runtime, settings: Settings, run: Run) -> None:
    """Open the warehouse, run, and print the report."""
    result: dict[str, Any] | None = None
    code = 0
    try:
        with open_warehouse(settings, create=True) as opened:
            if settings.database_url is None:
                migrate_embedded(opened)
            runtime.stop.check()
            with runtime.progress() as progress:
                result = dataclasses.asdict(run(opened, stop=runtime.stop, progress=progress))
    except BaseException as error:
        code = exit_code_of(error)
        raise
    finally:
        if settings.metrics_file is not None:
            from etl.process.metrics import write_metrics

            write_metrics(settings.metrics_file, exit_code=code, report=result)
    runtime.print_result(result, *report_tables(result))


def report_tables(report: dict[str, Any]) -> list[Any]:
    """The report for a person."""
    facts: dict[str, object] = {name: report[name] for name in SHOWN}
    facts["duration"] = f"{report['duration_seconds']:.1f} s"
    facts["coverage"] = report["coverage"]
    if report["open_coverage"] != "{}":
        facts["open_coverage"] = report["open_coverage"]
    for name in ("resumed_from", "range_from", "range_to", "full_because", "expected_requests"):
        if report[name] is not None:
            facts[name] = str(report[name])
    if report["asked"]:
        facts["ids_asked"] = report["asked"]
        facts["ids_not_found"] = _some(report["not_found"])
    if report["dry_run"]:
        title = "Nothing was published (dry run). This would change:"
    else:
        title = f"Account {report['partner_id']}, run {report['run_id']}: {report['status']}"
        facts["published_at"] = report["published_at"]
    tables = [facts_table(title, facts)]
    if report["dry_run"]:
        changes = report.get("changes") or []
        rows = [row if isinstance(row, dict) else {"change": row} for row in changes]
        tables.append(rows_table("changes" if rows else "no changes", rows))
    return tables


def _some(ids: list[str]) -> str:
    more = len(ids) - IDS_SHOWN
    shown = ", ".join(ids[:IDS_SHOWN])
    return f"{len(ids)}: {shown}{f', and {more} more' if more > 0 else ''}" if ids else "0"
