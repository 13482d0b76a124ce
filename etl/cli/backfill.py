"""``kaltura-etl backfill``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from etl.cli.accounts import (
    AccountsCommand,
    account_options,
    chosen_accounts,
    run_accounts,
    shared_limit,
)
from etl.cli.options import json_option, log_options, pass_runtime, run_options
from etl.cli.run_account import run_account
from etl.cli.runtime import Runtime
from etl.errors import UsageError

if TYPE_CHECKING:
    from etl.run.accounts import Run
    from etl.run.backfill import Range


@click.command(cls=AccountsCommand)
@click.option(
    "--from",
    "begin",
    metavar="DATE|TIME",
    help="First createdAt to read: a date (00:00:00 UTC) or a time with a zone.",
)
@click.option(
    "--to",
    "end",
    metavar="DATE|TIME",
    help="Last createdAt to read, inclusive: a date (23:59:59 UTC) or a time with a zone.",
)
@click.option(
    "--ids",
    "ids_file",
    metavar="FILE",
    help="Read the tokens with these ids, one per line; - reads standard input.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Publish nothing; print the expected requests and what would change.",
)
@account_options("accounts_at_once")
@run_options
@json_option
@log_options
@pass_runtime
def backfill(
    runtime: Runtime,
    begin: str | None,
    end: str | None,
    ids_file: str | None,
    dry_run: bool,
    account_names: tuple[str, ...],
    all_accounts: bool,
    no_resume: bool,
    compare: str,
    accept_absences: int | None,
    accept_rejected: int | None,
    accept_vanished_fields: tuple[str, ...],
    wait_seconds: float,
    run_label: str | None,
) -> None:
    """Read a range of createdAt, or given ids, and publish what changed.

    Requires --from, --to or both, or --ids.  Tokens outside the range, or with other ids, are not
    touched; everything else works as in sync.
    """
    runtime.run_facts.mode, runtime.run_facts.label = "backfill", run_label
    settings = runtime.start()
    accounts = chosen_accounts(runtime, settings, account_names, all_accounts)
    from etl.kaltura.request_rate import request_rate
    from etl.run.plan import SyncOptions

    options = SyncOptions(
        mode="backfill",
        dry_run=dry_run,
        resume=not no_resume,
        accept_absences=accept_absences,
        accept_rejected=accept_rejected,
        accept_vanished_fields=accept_vanished_fields,
        compare=compare,
        request_rate=request_rate(settings.requests_per_second),
        wait_seconds=wait_seconds,
        label=run_label,
        in_flight=shared_limit(settings, accounts),
    )
    if ids_file is not None and accounts is not None and len(accounts) > 1:
        raise UsageError("--ids is for one account: name it alone with --accounts NAME.")
    wanted, run = _run(begin, end, ids_file)
    if accounts is None:
        settings.credential()
        settings.require_partner_id()
    runtime.stop.install()
    if accounts is None:
        run_account(runtime, settings, run, options)
    else:
        run_accounts(runtime, settings, accounts, run, options, wanted=wanted)


def _run(begin: str | None, end: str | None, ids_file: str | None) -> tuple[Range | None, Run]:
    """The range and the run to do; raises UsageError before anything is touched."""
    from etl.cli.backfill_input import ids_of_file, read_range
    from etl.run.backfill import backfill_ids, backfill_range

    if ids_file is not None:
        if begin is not None or end is not None:
            raise UsageError("--ids cannot be combined with --from or --to.")
        return None, partial(backfill_ids, token_ids=ids_of_file(ids_file))
    if begin is None and end is None:
        raise UsageError("Give --from, --to or both, or --ids FILE.")
    wanted = read_range(begin, end, now=datetime.now(UTC))
    return wanted, partial(backfill_range, wanted=wanted)
