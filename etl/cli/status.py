"""``kaltura-etl status``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from etl.cli.accounts import AccountsCommand, account_options, chosen_accounts, status_of
from etl.cli.options import duration_type, json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import Stale
from etl.settings.values import duration_text

if TYPE_CHECKING:
    from rich.console import RenderableType

ACCOUNTS_NAMED = 5
NOT_YET = "no run yet"
"""Of today, which is not over."""
DRY_RUN = "dry_run"
"""Why a dry run did not publish, which is no error."""
RARE_COUNTS = ("relisted", "rejected", "unreadable")
"""Shown if one of the runs has any; ``--json`` has all of them, and more."""


@click.command(cls=AccountsCommand)
@click.option(
    "--max-age",
    type=duration_type,
    metavar="DURATION",
    help="Exit with 79 if an account has no complete run that was published within this time, such "
    "as 30h.",
)
@account_options()
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def status(
    runtime: Runtime,
    max_age: timedelta | None,
    account_names: tuple[str, ...],
    all_accounts: bool,
) -> None:
    """Show recent runs, the freshness of the data, and counts by status.

    For one account if KALTURA_PARTNER_ID is set, for those of --accounts or --all, else for the
    whole warehouse.  With --max-age that account, each of those that are named, or each in the
    warehouse, must have a complete run that is recent enough; a warehouse without any account
    fails.
    """
    settings = runtime.start()
    chosen = chosen_accounts(runtime, settings, account_names, all_accounts)
    from etl.cli.database import open_warehouse

    with open_warehouse(settings, create=False) as opened:
        from etl.warehouse.read.status import Partners, status_summary

        def read(schema: str, partners: Partners) -> dict[str, list[dict[str, Any]]]:
            return status_summary(
                str(opened.database_url), schema, partners, lease_seconds=opened.lease_seconds
            )

        if chosen is None:
            summary = read(opened.schema, opened.partner_id)
        else:
            summary = status_of(chosen, opened, read)
    ages: dict[int | str, float | None] = {
        row.get("name", row["partner_id"]): row["complete_age_hours"] for row in summary["accounts"]
    }
    if chosen is None and settings.partner_id is not None:
        ages.setdefault(settings.partner_id, None)
    failure = None if max_age is None else _staleness(ages, max_age)
    runtime.print_result(summary, *status_tables(summary), failure=failure)
    if failure is not None:
        raise failure


def _staleness(ages: Mapping[int | str, float | None], max_age: timedelta) -> Stale | None:
    """What is too old, or None, by the hours since the last complete run of each account.

    An account that ought to exist and does not is too old.
    """
    limit = max_age.total_seconds() / 3600
    stale = {account: age for account, age in ages.items() if age is None or age > limit}
    if ages and not stale:
        return None
    if not ages:
        return Stale("The warehouse has no account: no run has ever begun.", reason="no_account")
    named = [
        f"account {account} has never had a complete run"
        if age is None
        else f"the last complete run of account {account} was published {_age_text(age)} ago"
        for account, age in list(stale.items())[:ACCOUNTS_NAMED]
    ]
    if len(stale) > ACCOUNTS_NAMED:
        named.append(f"and {len(stale) - ACCOUNTS_NAMED:,} more")
    message = "; ".join(named)
    return Stale(
        f"{message[0].upper()}{message[1:]}; --max-age is {duration_text(max_age)}.",
        reason="never_complete" if None in stale.values() else "too_old",
        accounts=list(stale),
    )


def _age_text(hours: float) -> str:
    from etl.cli.tables import cell_text

    return cell_text(timedelta(hours=hours))


def status_tables(summary: dict[str, Any]) -> list[RenderableType]:
    """The summary for a person: the state first, then what it is made of."""
    from etl.cli.tables import rows_table

    one = len(summary["accounts"]) == 1
    accounts = summary["accounts"] or [{"state": "no run yet"}]
    return [
        rows_table("Accounts", [_account(row) for row in accounts]),
        *_nights(summary["last_nights"], one),
        rows_table(
            "Last runs", [_run(row, one) for row in summary["last_runs"]], beneath=("error",)
        ),
        rows_table("Tokens by status", [_tokens(row, one) for row in summary["tokens_by_status"]]),
    ]


def _account(row: dict[str, Any]) -> dict[str, object]:
    if "partner_id" not in row:
        return row
    name = {"account": row["name"]} if "name" in row else {}
    return name | {
        "state": "running" if row["running"] else row["last_run_status"] or "no run yet",
        "partner_id": row["partner_id"],
        "last_complete": row["complete_at"] or "never",
        "hours_since_complete": row["complete_age_hours"],
        "hours_since_published": row["age_hours"],
    }


def _nights(rows: list[dict[str, Any]], one_account: bool) -> list[RenderableType]:
    """The nights of one account, newest first; of several, those without a complete run."""
    from etl.cli.tables import rows_table

    today = {row["partner_id"]: row["day"] for row in reversed(rows)}
    shown = [
        _night(row, one_account, is_today=row["day"] == today[row["partner_id"]]) for row in rows
    ]
    if one_account:
        return [rows_table("Last nights", shown)]
    wrong = [row for row in shown if row["outcome"] not in ("complete", NOT_YET)]
    return [rows_table("Nights without a complete run", wrong)] if wrong else []


def _night(row: dict[str, Any], one_account: bool, *, is_today: bool) -> dict[str, object]:
    """A night, by its calendar day."""
    outcome = NOT_YET if is_today and row["outcome"] == "no_run" else row["outcome"]
    shown: dict[str, object] = {"outcome": outcome, "day": row["day"]}
    if not one_account:
        shown["partner_id"] = row["partner_id"]
    names = ("runs", "complete_at" if one_account else "last_attempt_at", "error_kind")
    return shown | {name: row[name] for name in names}


def _run(row: dict[str, Any], one_account: bool) -> dict[str, object]:
    shown: dict[str, object] = {"status": row["status"], "run_id": row["run_id"]}
    if not one_account:
        shown["partner_id"] = row["partner_id"]
    shown |= {
        "mode": row["mode"],
        "started_at": row["started_at"],
        **{name: row[name] for name in ("inserted", "changed", "absent")},
        **{name: row[name] or None for name in RARE_COUNTS},
    }
    if row["error_kind"] not in (None, DRY_RUN):
        shown["error"] = f"{row['error_kind']}: {row['error_message']}"
    return shown


def _tokens(row: dict[str, Any], one_account: bool) -> dict[str, object]:
    return {key: value for key, value in row.items() if not (one_account and key == "partner_id")}
