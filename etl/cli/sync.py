"""``kaltura-etl sync``."""

from __future__ import annotations

from datetime import timedelta

import click

from etl.cli.accounts import (
    AccountsCommand,
    account_options,
    chosen_accounts,
    run_accounts,
    shared_limit,
)
from etl.cli.options import duration_type, json_option, log_options, pass_runtime, run_options
from etl.cli.run_account import run_account
from etl.cli.runtime import Runtime
from etl.errors import UsageError


@click.command(cls=AccountsCommand)
@click.option(
    "--mode",
    type=click.Choice(["full", "incremental"]),
    default="full",
    help="What to read; full: the whole account; incremental: the newest tokens and the open "
    "ones. [default full]",
)
@click.option(
    "--full-every",
    type=duration_type,
    metavar="DURATION",
    help="Run in full mode if the last full certificate is older than this, such as 7d.",
)
@click.option("--dry-run", is_flag=True, help="Publish nothing; print what would change.")
@account_options("accounts_at_once")
@run_options
@json_option
@log_options
@pass_runtime
def sync(
    runtime: Runtime,
    mode: str,
    full_every: timedelta | None,
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
    """Read the account's upload tokens and publish what changed.

    Publication is atomic: readers see the state before or after the run, and a failed run changes
    nothing that they can see.

    An incremental run is cheap enough for every five minutes.  It does not detect that a finished
    token was changed or deleted; the next full run does.  Without a full run to build on, it runs
    in full mode and says so.
    """
    runtime.run_facts.mode, runtime.run_facts.label = mode, run_label
    if full_every is not None and mode != "incremental":
        raise UsageError("--full-every requires --mode incremental.")
    settings = runtime.start()
    accounts = chosen_accounts(runtime, settings, account_names, all_accounts)
    if accounts is None:
        settings.credential()
        settings.require_partner_id()
    runtime.stop.install()
    from etl.kaltura.request_rate import request_rate
    from etl.run.plan import SyncOptions
    from etl.run.sync import sync as run_sync

    options = SyncOptions(
        mode=mode,
        dry_run=dry_run,
        resume=not no_resume,
        accept_absences=accept_absences,
        accept_rejected=accept_rejected,
        accept_vanished_fields=accept_vanished_fields,
        full_every=full_every,
        compare=compare,
        request_rate=request_rate(settings.requests_per_second),
        wait_seconds=wait_seconds,
        label=run_label,
        in_flight=shared_limit(settings, accounts),
    )
    if accounts is None:
        run_account(runtime, settings, run_sync, options)
    else:
        run_accounts(runtime, settings, accounts, run_sync, options)
