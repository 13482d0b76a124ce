"""``--accounts`` and ``--all``: one call for several accounts of ``accounts.toml``."""

from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from etl.cli.exit_codes import WORTH_RETRYING, error_of, exit_code_of
from etl.cli.group import log_error
from etl.cli.monitoring import state_after, write_account_metrics
from etl.cli.options import setting_options
from etl.cli.run_ended import EVENT, RunFacts, ended_event
from etl.cli.runtime import Runtime, bug_message, failure_fields
from etl.errors import ConfigurationError, EtlError, Interrupted, UsageError
from etl.process.log_context import log_fields
from etl.process.secrets import scrub
from etl.settings.table import Settings

if TYPE_CHECKING:
    from etl.kaltura.in_flight import RequestLimit
    from etl.run.accounts import Outcome, Run
    from etl.run.backfill import Range
    from etl.run.plan import SyncOptions
    from etl.settings.accounts import Account

log = logging.getLogger("etl.cli")

FAILED_NAMED: Final = 5
RETRIED_FIRST: Final = (74, 69, 75)
"""The exit code of a job in which some accounts are worth another try, ..."""
GRAVEST_FIRST: Final = (1, 65, 77, 78, 2)
"""... and of one in which none is: the first of these that an account has."""
NEVER: Final[Mapping[str, object]] = {
    "published_at": None,
    "complete_at": None,
    "age_hours": None,
    "complete_age_hours": None,
    "running": False,
    "last_run_status": None,
}
"""``accounts[]`` of ``status`` for an account of which no run has ever begun."""
COUNTS: Final = ("tokens_read", "inserted", "changed", "absent", "requests")


class AccountsCommand(click.Command):
    """A command whose ``--accounts`` takes several names: ``--accounts acme globex``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, one_name_each("--accounts", args))


def one_name_each(option: str, arguments: Iterable[str]) -> list[str]:
    """The arguments with the option before each of its names, as click wants them.

    Raises ``click.UsageError`` if it has none: click would take the next option for a name.
    """
    found: list[str] = []
    names = -1
    """Of the option that is being read; -1: it is not being read."""
    for argument in [*arguments, "--"]:
        if argument.startswith("-"):
            if names == 0:
                raise click.UsageError(f"{option} needs a name: {option} NAME…, or --all.")
            given, _, name = argument.partition("=")
            names = bool(name) if given == option else -1
            found += [argument] if names else []
        else:
            found += [argument] if names < 0 else [option, argument]
            names += names >= 0
    return found[:-1]


def account_options(*setting_names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--accounts`` and ``--all``, and options for these settings."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in (
            setting_options(*setting_names),
            click.option(
                "--all",
                "all_accounts",
                is_flag=True,
                help="All accounts of accounts.toml.",
            ),
            click.option(
                "--accounts",
                "account_names",
                metavar="NAME…",
                multiple=True,
                help="These accounts of accounts.toml, or of the file that ETL_ACCOUNTS names.",
            ),
        ):
            command = each(command)
        return command

    return decorate


def chosen_accounts(
    runtime: Runtime, settings: Settings, names: Sequence[str], all_accounts: bool
) -> list[Account] | None:
    """The accounts that a call is about; None: the one of the settings."""
    if not names and not all_accounts:
        return None
    if names and all_accounts:
        raise UsageError("--accounts and --all contradict each other; give one.")
    if "partner_id" in runtime.flags:
        raise UsageError("--partner-id cannot be combined with --accounts or --all.")
    from etl.settings.accounts import chosen_accounts as chosen
    from etl.settings.accounts import read_accounts

    runtime.partner_id = None
    accounts = read_accounts(settings)
    return chosen(accounts, accounts if all_accounts else names)


def shared_limit(settings: Settings, accounts: Sequence[Account] | None) -> RequestLimit | None:
    """The limit of requests that the runs of a job share."""
    if accounts is None:
        return None
    from etl.kaltura.in_flight import RequestLimit

    return RequestLimit(settings.concurrency)


def run_accounts(
    runtime: Runtime,
    settings: Settings,
    accounts: Sequence[Account],
    run: Run,
    options: SyncOptions,
    *,
    wanted: Range | None = None,
) -> None:
    """Run each account, print how all of them ended, and raise an error if one has failed."""
    from etl.cli.database import migrate_embedded, open_warehouse
    from etl.run.accounts import Member, Outcome
    from etl.run.accounts import run_accounts as run_members
    from etl.settings.accounts import secret_variables

    if len(accounts) > 1:
        _refuse_numbers_of_one(options)
    variables = secret_variables()
    by_name = {account.name: account for account in accounts}
    members: dict[str, Member] = {}
    outcomes: dict[str, Outcome] = {}

    with open_warehouse(settings, create=True) as opened:

        def ended(name: str, outcome: Outcome) -> None:
            outcomes[name] = outcome
            account = by_name[name]
            facts = _facts(outcome, options)
            with log_fields(account=name, partner_id=account.partner_id):
                if name in members:
                    facts.state = state_after(members[name].settings, facts, outcome.error)
                failure = _failure_of(outcome)
                _log_end(runtime, account, account.schema_of(opened), outcome, facts, failure)
                runtime.run_facts.accounts.append(_told(account, outcome, facts, failure))
                _write_metrics(settings.metrics_file, account, outcome, facts)

        for account in accounts:
            try:
                own = account.settings(opened, variables)
            except ConfigurationError as error:
                ended(account.name, Outcome(error=error))
            else:
                members[account.name] = Member(account.name, own)
                scrub.add(*own.secrets())
        if settings.database_url is None:
            for schema in dict.fromkeys(each.settings.schema for each in members.values()):
                migrate_embedded(dataclasses.replace(opened, schema=schema))

        run_members(
            list(members.values()),
            run,
            options,
            wanted=wanted,
            at_once=settings.accounts_at_once,
            stop=runtime.stop,
            progress=lambda: runtime.progress(alone=False),
            ended=ended,
        )
        rows = [
            _row(runtime, account, account.schema_of(opened), outcomes[account.name])
            for account in accounts
        ]
    failure = _failure(runtime, rows, outcomes.values())
    runtime.print_result({"accounts": rows}, *_tables(runtime, rows), failure=failure)
    if failure is not None:
        raise failure


def status_of(
    accounts: Sequence[Account],
    settings: Settings,
    read: Callable[[str, Collection[int]], dict[str, list[dict[str, Any]]]],
) -> dict[str, list[dict[str, Any]]]:
    """The ``status_summary`` of these accounts; each row has the ``name`` of its account.

    ``read`` gives that of some partners in one schema.  An account that has no row in the
    warehouse, because no run of it has ever begun, has one in ``accounts``.
    """
    merged: dict[str, list[dict[str, Any]]] = {}
    for schema in dict.fromkeys(account.schema_of(settings) for account in accounts):
        names = {
            account.partner_id: account.name
            for account in accounts
            if account.schema_of(settings) == schema
        }
        for part, rows in read(schema, list(names)).items():
            named = [{"name": names[row["partner_id"]], **row} for row in rows]
            merged.setdefault(part, []).extend(named)
    found = {row["name"]: row for row in merged["accounts"]}
    merged["accounts"] = [
        found.get(each.name, {"name": each.name, "partner_id": each.partner_id, **NEVER})
        for each in accounts
    ]
    return merged


def _refuse_numbers_of_one(options: SyncOptions) -> None:
    """A number of rows or absences that somebody has looked at is of one account."""
    for given, option in (
        (options.accept_absences, "--accept-absences"),
        (options.accept_rejected, "--accept-rejected"),
    ):
        if given is not None:
            raise UsageError(f"{option} is for one account: name it alone with --accounts NAME.")


def _facts(outcome: Outcome, options: SyncOptions) -> RunFacts:
    return RunFacts(
        mode=options.mode,
        label=options.label,
        dry_run=options.dry_run,
        times=outcome.times,
        figures=outcome.figures,
        report=None if outcome.report is None else dataclasses.asdict(outcome.report),
    )


def _failure_of(outcome: Outcome) -> dict[str, object] | None:
    error = outcome.error
    return None if error is None else failure_fields(error, message=_message(error))


def _log_end(
    runtime: Runtime,
    account: Account,
    schema: str,
    outcome: Outcome,
    facts: RunFacts,
    failure: Mapping[str, object] | None,
) -> None:
    """One line per account: the last one of a run of its own."""
    if outcome.done_in_run is not None:
        log.info(
            "account left out: published with this label before",
            extra={"run_id": outcome.done_in_run},
        )
        return
    error = outcome.error
    event = ended_event(
        facts,
        error,
        failure,
        partner_id=account.partner_id,
        warehouse={**(runtime.warehouse or {}), "schema": schema},
    )
    if error is None or failure is None:
        log.info(EVENT, extra=event)
    else:
        log_error(error, failure, event | {"event": EVENT})


def _told(
    account: Account, outcome: Outcome, facts: RunFacts, failure: Mapping[str, object] | None
) -> dict[str, object]:
    """How an account has ended, for the notice of the job."""
    failure = failure or {}
    return {
        "name": account.name,
        "partner_id": account.partner_id,
        "status": "succeeded" if outcome.done_in_run is not None else facts.status(outcome.error),
        "exit_code": failure.get("exit_code", 0),
        "error_kind": failure.get("error_kind"),
        "reason": failure.get("reason"),
        "message": failure.get("error_message"),
    }


def _message(error: Exception) -> str:
    return scrub(error.message if isinstance(error, EtlError) else bug_message(error))


def _write_metrics(path: Path | None, account: Account, outcome: Outcome, facts: RunFacts) -> None:
    """Each account has a file of its own: ``kaltura.prom`` becomes ``kaltura-acme.prom``."""
    if path is None or outcome.done_in_run is not None:
        return
    write_account_metrics(
        path.with_name(f"{path.stem}-{account.name}{path.suffix}"),
        {"account": account.name, "partner_id": str(account.partner_id)},
        facts,
        outcome.error,
        0 if outcome.error is None else exit_code_of(outcome.error),
    )


def _row(runtime: Runtime, account: Account, schema: str, outcome: Outcome) -> dict[str, Any]:
    """What the command would print for the account alone, and its name."""
    row: dict[str, Any] = {
        "name": account.name,
        "status": "succeeded",
        "exit_code": 0,
        "partner_id": account.partner_id,
        "run_id": outcome.done_in_run,
        "warehouse": {**(runtime.warehouse or {}), "schema": schema},
        "done_before": outcome.done_in_run is not None,
    }
    if outcome.report is not None:
        row |= dataclasses.asdict(outcome.report)
    # By now the secrets of all accounts are known, which no message shows.
    return row | (_failure_of(outcome) or {})


def _failure(
    runtime: Runtime, rows: Sequence[Mapping[str, Any]], outcomes: Iterable[Outcome]
) -> EtlError | None:
    """The error with which the job ends, None if no account has failed."""
    failed = [row for row in rows if row["exit_code"]]
    if not failed:
        return None
    message = _message_of_job(failed, len(rows))
    number = runtime.stop.signal_number
    if number is not None and any(isinstance(each.error, Interrupted) for each in outcomes):
        name = signal.Signals(number).name
        return Interrupted(f"Stopped by {name}. {message}", signal_number=number)
    return _accounts_failed(failed, message)


def failure_of_accounts(rows: Sequence[Mapping[str, Any]]) -> EtlError | None:
    """The error of a command that goes on with the next account: rows have ``name``, ``exit_code``
    and ``error_kind``; None if no account has failed."""
    failed = [row for row in rows if row["exit_code"]]
    return _accounts_failed(failed, _message_of_job(failed, len(rows))) if failed else None


def _message_of_job(failed: Sequence[Mapping[str, Any]], of: int) -> str:
    named = [f"{row['name']} ({row['error_kind']})" for row in failed[:FAILED_NAMED]]
    if len(failed) > FAILED_NAMED:
        named.append(f"and {len(failed) - FAILED_NAMED:,} more")
    plural = "s" if of > 1 else ""
    return f"{len(failed)} of {of} account{plural} failed: {', '.join(named)}."


def _accounts_failed(failed: Iterable[Mapping[str, Any]], message: str) -> EtlError:
    failure = error_of(exit_code_of_job(row["exit_code"] for row in failed), message)
    failure.fields["reason"] = "accounts_failed"
    return failure


def exit_code_of_job(codes: Iterable[int]) -> int:
    """One exit code for those of all accounts: one that is worth a retry if an account's is."""
    found = set(codes) - {0}
    if not found:
        return 0
    order = RETRIED_FIRST if found & WORTH_RETRYING else GRAVEST_FIRST
    return next((code for code in order if code in found), EtlError.exit_code)


def _tables(runtime: Runtime, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    if runtime.json:
        return []
    from etl.cli.tables import rows_table

    shown = [
        {
            "account": row["name"],
            "partner_id": row["partner_id"],
            "status": "done before" if row["done_before"] else row["status"],
            "exit_code": row["exit_code"],
            "run_id": row["run_id"],
            **{name: row.get(name) for name in COUNTS},
            "error": row.get("error_message"),
        }
        for row in rows
    ]
    return [rows_table("Accounts", shown, shown=len(shown), beneath=("error",))]
