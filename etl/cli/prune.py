"""``kaltura-etl prune``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime

_DAYS = click.IntRange(min=0, max=36_500)


@click.command()
@click.option(
    "--pages-days",
    type=_DAYS,
    metavar="N",
    help="Delete pages of runs that started more than N days ago. [default ETL_KEEP_PAGES_DAYS]",
)
@click.option(
    "--rejected-days",
    type=_DAYS,
    metavar="N",
    help="Delete rejected rows of runs that old. [default ETL_KEEP_PAGES_DAYS]",
)
@click.option(
    "--versions-days",
    type=_DAYS,
    metavar="N",
    help="Delete versions superseded more than N days ago; without this option none.",
)
@click.option(
    "--apply", is_flag=True, help="Apply the changes; without this option they are only counted."
)
@setting_options("keep_pages_days", "partner_id", "schema")
@json_option
@log_options
@pass_runtime
def prune(
    runtime: Runtime,
    pages_days: int | None,
    rejected_days: int | None,
    versions_days: int | None,
    apply: bool,
) -> None:
    """Delete old pages, rejected rows and, on request, superseded versions.

    The latest version of a token is always kept.  Applies to one account if KALTURA_PARTNER_ID is
    set, else to the whole warehouse.  Deletions are recorded in the table pruning.
    """
    settings = runtime.start()
    runtime.stop.install()
    from etl.cli.database import open_warehouse
    from etl.warehouse.privacy.prune import prune as prune_rows
    from etl.warehouse.schema.database import (
        open_database,
        require_current_primary,
        require_current_schema,
    )

    kept = settings.keep_pages_days
    days = {
        "pages": kept if pages_days is None else pages_days,
        "rejected": kept if rejected_days is None else rejected_days,
    }
    if versions_days is not None:
        days["versions"] = versions_days
    with (
        open_warehouse(settings, create=False) as opened,
        open_database(str(opened.database_url), opened.schema) as database,
    ):
        (require_current_primary if apply else require_current_schema)(database)
        pruned = prune_rows(
            database,
            days=days,
            partner_id=opened.partner_id,
            apply=apply,
            stop=runtime.stop,
        )
    result: dict[str, Any] = {
        "status": "succeeded" if apply else "dry run",
        "applied": apply,
        "pruned": [dataclasses.asdict(each) for each in pruned],
    }
    from etl.cli.tables import rows_table

    title = "Pruned" if apply else "Nothing was deleted (dry run; --apply does it). This would be:"
    runtime.print_result(result, rows_table(title, result["pruned"]))
