"""``kaltura-etl report``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from etl.cli.accounts import (
    AccountsCommand,
    account_options,
    chosen_accounts,
    failure_of_accounts,
)
from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime, write_output
from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    EtlError,
    UsageError,
    WarehouseUnavailable,
)
from etl.process.secrets import scrub

if TYPE_CHECKING:
    from etl.report.read import ReportRows

log = logging.getLogger("etl.cli")

DAYS_MAX = 366
STANDARD_OUTPUT = "-"


@click.command(cls=AccountsCommand)
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
@account_options()
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def report(
    runtime: Runtime,
    output: str,
    days: int,
    time_zone: str,
    account_names: tuple[str, ...],
    all_accounts: bool,
) -> None:
    """Generate a self-contained HTML report.

    It shows how fresh and complete the data are, what changed since the complete run before the
    last one, week over week, the last nights, uploads by outcome and duration, failed, stuck and
    vanished uploads, and the busiest users.  Of several accounts, without --partner-id, FILE is a
    page of all accounts in the schema, and the page of each is beside it (FILE-PARTNER_ID.html).
    With --accounts or --all it is a page of these, each in its own schema (FILE-NAME.html).  An
    account that cannot be read is named on that page and in the error; the others are written.  The
    files load nothing from the network, so they can be mailed; they contain names of people and
    files.  Charts need the extra kaltura-etl[report]; without it there are tables.
    """
    settings = runtime.start()
    to_standard_output = output == STANDARD_OUTPUT
    if to_standard_output and runtime.json:
        raise UsageError("--json and --output - both write to standard output; name a file.")
    zone = _zone(time_zone)
    if not to_standard_output:
        from etl.report.write import require_place

        require_place(Path(output))
    chosen = chosen_accounts(runtime, settings, account_names, all_accounts)
    runtime.stop.install()
    from etl.cli.database import open_warehouse

    with open_warehouse(settings, create=False) as opened:
        from etl.report.read import read_accounts, read_report

        url = str(opened.database_url)
        accounts: list[tuple[str | None, str, int | None]]
        if chosen is not None:
            accounts = [(each.name, each.schema_of(opened), each.partner_id) for each in chosen]
        else:
            known = [opened.partner_id]
            if opened.partner_id is None:
                known = [*read_accounts(url, opened.schema)] or [None]
            accounts = [(None, opened.schema, partner_id) for partner_id in known]
        runtime.stop.check()
        pages = [
            (
                name,
                account,
                partial(
                    read_report, url, schema, partner_id=account, days=days, time_zone=time_zone
                ),
            )
            for name, schema, account in accounts
        ]
        failure = None
        if len(pages) == 1:
            written = _one_account(runtime, pages[0][2](), zone, output)
        else:
            written, failure = _all_accounts(runtime, pages, zone, time_zone, output)
    if not written["charts"]:
        log.warning("The report has no charts: they need pip install 'kaltura-etl[report]'.")
    if to_standard_output:
        runtime.result_printed = True
        if failure is not None:
            raise failure
        return
    from etl.cli.tables import facts_table

    shown = {key: written[key] for key in ("path", "bytes")}
    if written["pages"]:
        shown["pages"] = len(written["pages"])
    runtime.print_result(
        {"status": "succeeded", "time_zone": time_zone, **written},
        facts_table("", shown),
        failure=failure,
    )
    if failure is not None:
        raise failure


def _one_account(
    runtime: Runtime, rows: ReportRows, zone: tzinfo, output: str, index: str | None = None
) -> dict[str, Any]:
    """Write the page of an account; what ``--json`` says of it."""
    from etl.report.page import report_html

    runtime.stop.check()
    page, has_charts = report_html(rows, zone, index)
    return {
        **_write(page, output),
        "partner_id": rows.partner_id,
        "first_day": rows.first_day.isoformat(),
        "last_day": rows.last_day.isoformat(),
        "charts": has_charts,
        "pages": [],
    }


def _all_accounts(
    runtime: Runtime,
    accounts: Sequence[tuple[str | None, int | None, Callable[[], ReportRows]]],
    zone: tzinfo,
    time_zone: str,
    output: str,
) -> tuple[dict[str, Any], EtlError | None]:
    """Write the page of each account, and at last the index that leads to them.

    Those of ``accounts.toml`` have a name.  On standard output, and in a pipe or device, there is
    the index alone, without links.  An account that cannot be read is named on the index and in the
    error that is given back; if none can be, the error is raised and nothing written.
    """
    from etl.report.index import Unread, entry_of, render_index

    index = Path(output)
    is_alone = output == STANDARD_OUTPUT or (index.exists() and not index.is_file())
    entries, pages, unread = [], [], []
    ended: list[dict[str, Any]] = []
    for name, partner_id, read in accounts:
        called = name or str(partner_id)
        try:
            rows = read()
        except (ConfigurationError, CredentialsRefused, WarehouseUnavailable) as error:
            log.error("the report of account %s failed: %s", called, error)
            unread.append(Unread(called, scrub(error.message)))
            ended.append({"name": called, "exit_code": error.exit_code, "error_kind": error.kind})
            continue
        ended.append({"name": called, "exit_code": 0, "error_kind": None})
        if is_alone:
            entries.append(entry_of(rows, zone, None, name))
            continue
        own = index.with_name(f"{index.stem}-{name or rows.partner_id}{index.suffix}")
        page = _one_account(runtime, rows, zone, str(own), quote(f"./{index.name}"))
        page.pop("pages")
        pages.append(page if name is None else {"name": name, **page})
        entries.append(entry_of(rows, zone, quote(f"./{own.name}"), name))
    failure = failure_of_accounts(ended)
    if failure is not None and not entries:
        raise failure
    return {
        **_write(render_index(entries, zone, time_zone, unread), output),
        "partner_id": None,
        "first_day": None,
        "last_day": None,
        "charts": all(page["charts"] for page in pages),
        "pages": pages,
    }, failure


def _write(page: str, output: str) -> dict[str, Any]:
    if output == STANDARD_OUTPUT:
        write_output(page)
        return {}
    from etl.report.write import write_whole

    content = page.encode("utf-8")
    path = Path(output)
    write_whole(path, content)
    return {"path": str(path.absolute()), "bytes": len(content)}


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
