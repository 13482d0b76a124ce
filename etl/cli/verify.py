"""``kaltura-etl verify``."""

from __future__ import annotations

import dataclasses
import logging

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import DataRefused

log = logging.getLogger("etl.cli")


@click.command()
@setting_options("schema")
@json_option
@log_options
@pass_runtime
def verify(runtime: Runtime) -> None:
    """Check the invariants and re-derive the certificates of completeness.

    Each check looks for rows that must not be; the exit code is 65 if one finds any.
    """
    settings = runtime.start()
    runtime.stop.install()
    from etl.cli.database import open_warehouse
    from etl.cli.tables import rows_table

    with open_warehouse(settings, create=False) as opened:
        from etl.verify import verify as verify_warehouse

        results = verify_warehouse(
            str(opened.database_url),
            opened.schema,
            partner_id=opened.partner_id,
            stop=runtime.stop,
        )
    failed = [each for each in results if not each.ok]
    overview = [
        {
            "check": each.name,
            "result": "ok" if each.ok else "FAILED",
            "rows": each.total,
            "purpose": each.purpose,
        }
        for each in results
    ]
    tables = [rows_table("", overview, shown=len(overview))]
    tables += [rows_table(f"{each.name}: {each.purpose}", each.rows) for each in failed]
    runtime.print_result(
        {
            "status": "failed" if failed else "succeeded",
            "checks": [dataclasses.asdict(each) for each in results],
        },
        *tables,
    )
    if failed:
        raise DataRefused(
            f"{len(failed)} of {len(results)} checks failed: "
            f"{', '.join(each.name for each in failed)}; the rows are in the result.",
            reason="verify",
        )
