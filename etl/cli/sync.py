"""``kaltura-etl sync``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime

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


@click.command()
@click.option(
    "--mode",
    type=click.Choice(["full"]),
    default="full",
    help="What to read; full: the whole account. [default full]",
)
@click.option("--dry-run", is_flag=True, help="Publish nothing; print what would change.")
@click.option("--no-resume", is_flag=True, help="Start over instead of resuming a run that failed.")
@click.option(
    "--accept-absences",
    type=click.IntRange(min=0),
    metavar="N",
    help="Publish up to N absences this once, although the brake says no.",
)
@setting_options(
    "resume_window",
    "max_unreadable",
    "absence_grace",
    "concurrency",
    "page_size",
    "partner_id",
    "service_url",
    "schema",
)
@json_option
@log_options
@pass_runtime
def sync(
    runtime: Runtime, mode: str, dry_run: bool, no_resume: bool, accept_absences: int | None
) -> None:
    """Read the account's upload tokens and publish what changed.

    Readers of the warehouse see the state before or the state after, never a mixture; a run that
    fails changes nothing that they can see.
    """
    settings = runtime.start()
    settings.credential()
    settings.require_partner_id()
    runtime.stop.install()
    from etl.cli.database import migrate_embedded, open_warehouse
    from etl.options import SyncOptions
    from etl.sync import sync_full

    options = SyncOptions(
        mode=mode, dry_run=dry_run, resume=not no_resume, accept_absences=accept_absences
    )
    with open_warehouse(settings, create=True) as opened:
        if settings.database_url is None:
            migrate_embedded(opened)
        runtime.stop.check()
        with runtime.progress() as progress:
            report = sync_full(opened, options, stop=runtime.stop, progress=progress)
    result = dataclasses.asdict(report)
    runtime.print_result(result, *_tables(result))


def _tables(report: dict[str, Any]) -> list[Any]:
    from etl.cli.tables import facts_table, rows_table

    facts: dict[str, object] = {name: report[name] for name in SHOWN}
    facts["duration"] = f"{report['duration_seconds']:.1f} s"
    facts["coverage"] = report["coverage"]
    if report.get("resumed_from") is not None:
        facts["resumed_from"] = str(report["resumed_from"])
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
