"""``kaltura-etl export``."""

from __future__ import annotations

import dataclasses
import logging
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import UsageError

if TYPE_CHECKING:
    from etl.settings.table import Settings

log = logging.getLogger("etl.cli")

_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])
_DELTA: Final = "delta"


@click.command()
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "parquet", _DELTA]),
    required=True,
    help="csv, parquet: files of views; delta: Delta tables of the history, kept up to date.",
)
@click.option(
    "--to",
    "address",
    metavar="DIR|URL",
    help="Folder, or s3://, gs:// or az:// URL; for csv and parquet a new or empty one. "
    "[default for delta: ETL_LAKE]",
)
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="NAME",
    help="A view, or a table that analysts read; may be repeated. [default: the views]",
)
@click.option(
    "--since-run",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only what was published after run N of the account.",
)
@click.option(
    "--from-day",
    type=_DAY,
    metavar="DAY",
    help="Only rows of this day and later, such as 2026-11-26: by day, else valid_from, else "
    "created_at.",
)
@click.option("--to-day", type=_DAY, metavar="DAY", help="Only rows up to the end of this day.")
@click.option(
    "--time-zone",
    metavar="ZONE",
    default="UTC",
    show_default=True,
    help="Time zone of days, such as Europe/Berlin; times are in UTC.",
)
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def export(
    runtime: Runtime,
    file_format: Literal["csv", "parquet", "delta"],
    address: str | None,
    views: tuple[str, ...],
    since_run: int | None,
    from_day: datetime | None,
    to_day: datetime | None,
    time_zone: str,
) -> None:
    """Write views to CSV or Parquet files, or keep the history in Delta tables.

    Files are complete when their manifest.json is there; an export that fails leaves none.  All
    views show the same moment.  Delta tables (upload_token_history and sync_run) are brought up to
    the last publication, account by account; erase rewrites those of ETL_LAKE.  Of the account of
    KALTURA_PARTNER_ID, else of all.  Parquet needs the extra kaltura-etl[parquet], Delta
    kaltura-etl[lake].
    """
    first, last = from_day and from_day.date(), to_day and to_day.date()
    if file_format == _DELTA:
        if views or since_run is not None or first or last or time_zone != "UTC":
            raise UsageError(
                "--format delta always has the whole history: give no --view, --since-run, "
                "--from-day, --to-day or --time-zone."
            )
        _export_delta(runtime, runtime.start(), address)
        return
    if address is None:
        raise UsageError(f"--format {file_format} needs --to, a folder or a URL.")
    if since_run is not None and (first or last):
        raise UsageError("--since-run cannot be combined with --from-day or --to-day.")
    if first and last and first > last:
        raise UsageError("--from-day is after --to-day.")
    settings = runtime.start()
    _export_files(runtime, settings, file_format, address, views, since_run, first, last, time_zone)


def _export_files(
    runtime: Runtime,
    settings: Settings,
    file_format: Literal["csv", "parquet"],
    address: str,
    views: tuple[str, ...],
    since_run: int | None,
    first: date | None,
    last: date | None,
    time_zone: str,
) -> None:
    from etl.cli.database import open_warehouse
    from etl.export.extras import require_libraries

    require_libraries(file_format)
    from etl.export.files import Request, export_files
    from etl.export.target import open_target
    from etl.warehouse.read.extract import Selection

    target = open_target(address)
    request = Request(
        file_format=file_format,
        views=tuple(dict.fromkeys(views)),
        selection=Selection(first_day=first, last_day=last, since_run=since_run),
        time_zone=time_zone,
        partner_id=settings.partner_id,
    )
    runtime.stop.install()
    with open_warehouse(settings, create=False) as opened, runtime.progress(unit="rows") as shown:
        exported = export_files(
            str(opened.database_url),
            opened.schema,
            request,
            target,
            stop=runtime.stop,
            progress=shown,
        )
    if not exported.written:
        log.info("the same export is there already")
    result = {
        "status": "succeeded",
        "run_id": _only_run(exported.accounts),
        "format": file_format,
        "to": target.address,
        "written": exported.written,
        "accounts": exported.accounts,
        "views": exported.views,
    }
    from etl.cli.tables import rows_table

    rows = [
        {"view": view["view"], "rows": view["rows"], "files": len(view["files"])}
        for view in exported.views
    ]
    title = f"Exported to {target.address}" if exported.written else f"Already in {target.address}"
    runtime.print_result(result, rows_table(title, rows, shown=len(rows)))


def _export_delta(runtime: Runtime, settings: Settings, address: str | None) -> None:
    from etl.cli.database import open_warehouse
    from etl.export.extras import require_libraries

    require_libraries("delta")
    from etl.export.delta import Lake, export_delta

    if address is None and settings.lake is None:
        raise UsageError("--format delta needs --to or ETL_LAKE, a folder or a URL.")
    lake = Lake(str(address or settings.lake))
    if settings.lake is None or Lake(settings.lake).address != lake.address:
        log.warning("erase rewrites the tables of ETL_LAKE only: set it to %s", lake.address)
    runtime.stop.install()
    with open_warehouse(settings, create=False) as opened, runtime.progress(unit="rows") as shown:
        done = export_delta(
            str(opened.database_url),
            opened.schema,
            lake,
            partner_id=opened.partner_id,
            stop=runtime.stop,
            progress=shown,
        )
    tables = [dataclasses.asdict(each) for each in done]
    runs = {each.partner_id: each.run_id for each in done}
    accounts = [{"partner_id": each, "run_id": run_id} for each, run_id in runs.items()]
    result = {
        "status": "succeeded",
        "run_id": _only_run(accounts),
        "format": _DELTA,
        "to": lake.address,
        "written": any(each.rows is not None for each in done),
        "accounts": accounts,
        "tables": tables,
    }
    from etl.cli.tables import rows_table

    rows = [
        {name: value for name, value in each.items() if name != "files_deleted"} for each in tables
    ]
    title = f"{lake.address}: {'brought up to date' if result['written'] else 'up to date'}"
    runtime.print_result(result, rows_table(title, rows, shown=len(rows)))


def _only_run(accounts: list[dict[str, Any]]) -> object:
    return accounts[0]["run_id"] if len(accounts) == 1 else None
