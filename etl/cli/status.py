"""``kaltura-etl status``."""

from __future__ import annotations

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime


@click.command()
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def status(runtime: Runtime) -> None:
    """Show recent runs, the freshness of the data, and counts by status.

    For one account if KALTURA_PARTNER_ID is set, else for the whole warehouse.
    """
    settings = runtime.start()
    from etl.cli.database import open_warehouse
    from etl.cli.tables import tables_of

    with open_warehouse(settings, create=False) as opened:
        from etl.warehouse.read.status import status_summary

        summary = status_summary(str(opened.database_url), opened.schema, opened.partner_id)
    runtime.print_result(summary, *tables_of(summary))
