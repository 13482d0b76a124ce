"""``kaltura-etl report``."""

from __future__ import annotations

import logging
from datetime import UTC, tzinfo
from pathlib import Path

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime, write_output
from etl.errors import UsageError

log = logging.getLogger("etl.cli")

DAYS_MAX = 366
STANDARD_OUTPUT = "-"


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="kaltura-report.html",
    show_default=True,
    help="File to write, replaced if it exists; - writes to standard output.",
)
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=30,
    show_default=True,
    help="Days to show, up to the day of the last published run.",
)
@click.option(
    "--time-zone",
    metavar="ZONE",
    default="UTC",
    show_default=True,
    help="Time zone of days and times, such as Europe/Berlin.",
)
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def report(runtime: Runtime, output: str, days: int, time_zone: str) -> None:
    """Generate a self-contained HTML report.

    It shows how fresh and complete the data are, uploads by outcome and duration, stuck and
    vanished uploads, failures by size, the busiest users and recent runs.  The file loads nothing
    from the network, so it can be mailed; it contains names of people and files.  Charts need the
    extra kaltura-etl[report]; without it there are tables.
    """
    settings = runtime.start()
    to_standard_output = output == STANDARD_OUTPUT
    if to_standard_output and runtime.json:
        raise UsageError("--json and --output - both write to standard output; name a file.")
    zone = _zone(time_zone)
    runtime.stop.install()
    from etl.cli.database import open_warehouse

    with open_warehouse(settings, create=False) as opened:
        from etl.report.page import report_html
        from etl.report.read import read_report

        rows = read_report(
            str(opened.database_url),
            opened.schema,
            partner_id=opened.partner_id,
            days=days,
            time_zone=time_zone,
        )
    runtime.stop.check()
    page, has_charts = report_html(rows, zone)
    if not has_charts:
        log.warning("The report has no charts: they need pip install 'kaltura-etl[report]'.")
    if to_standard_output:
        write_output(page)
        runtime.result_printed = True
        return
    from etl.cli.tables import facts_table
    from etl.report.write import write_whole

    content = page.encode("utf-8")
    path = Path(output)
    write_whole(path, content)
    result: dict[str, object] = {
        "status": "succeeded",
        "path": str(path.absolute()),
        "bytes": len(content),
        "partner_id": rows.partner_id,
        "first_day": rows.first_day.isoformat(),
        "last_day": rows.last_day.isoformat(),
        "time_zone": time_zone,
        "charts": has_charts,
    }
    runtime.print_result(result, facts_table("", {key: result[key] for key in ("path", "bytes")}))


def _zone(name: str) -> tzinfo:
    """The time zone; UTC needs no time zone data, which a small container may lack."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise UsageError(
            f"--time-zone: there is no time zone {name}. Use a name such as Europe/Berlin; if "
            "it is correct, the system lacks time zone data (Debian: tzdata)."
        ) from None
