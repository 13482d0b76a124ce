"""``kaltura-etl grant``."""

from __future__ import annotations

import logging
from collections.abc import Callable

import click

from etl.cli.options import Command, json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime, write_output
from etl.settings.values import whole_number

log = logging.getLogger("etl.cli")


def _role_option(kind: str, text: str) -> Callable[[Command], Command]:
    def named(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise click.BadParameter("must not be empty.", context, parameter)
        return value

    return click.option(f"--{kind}", metavar="ROLE", callback=named, help=text)


def _accounts(text: str) -> tuple[int, ...]:
    """Partner ids; none of them for ``all``."""
    if text.strip().lower() == "all":
        return ()
    parse = whole_number(1, 2**31 - 1)
    try:
        return tuple(parse(each.strip()) for each in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"each account {error}; or say all.") from None


@click.command()
@_role_option("loader", "Role that runs sync; cannot change what was published earlier.")
@_role_option("analyst", "Role that reads the views and the published tables.")
@_role_option("auditor", "Role that runs verify, status and report; reads only.")
@click.option(
    "--accounts",
    type=_accounts,
    metavar="IDS",
    help="Limit the analyst to the rows of these accounts, such as 101,102; all lifts the limit.  "
    "Without it, a limit stays as it is.",
)
@click.option(
    "--apply", is_flag=True, help="Execute the statements in one transaction, and check the result."
)
@setting_options("schema")
@json_option
@log_options
@pass_runtime
def grant(
    runtime: Runtime,
    loader: str | None,
    analyst: str | None,
    auditor: str | None,
    accounts: tuple[int, ...] | None,
    apply: bool,
) -> None:
    """Print or apply the privileges of the loader, analyst and auditor roles.

    The roles must exist.  Each is granted what it needs; its other privileges on this schema are
    revoked.  migrate does it again for roles that have exactly that.  Without --apply nothing is
    changed: the statements can be pasted into psql.
    """
    settings = runtime.start()
    from etl.cli.database import open_warehouse
    from etl.warehouse.access import grants

    named = {"loader": loader, "analyst": analyst, "auditor": auditor}
    roles = {kind: role for kind, role in named.items() if role is not None}
    with open_warehouse(settings, create=False) as opened:
        found = grants.grant(
            str(opened.database_url), opened.schema, roles, accounts=accounts, apply=apply
        )
    for warning in found.warnings:
        log.warning(warning)
    if runtime.json:
        runtime.print_result(
            {
                "status": "succeeded",
                "applied": apply,
                "schema": settings.schema,
                "roles": roles,
                "accounts": list(found.accounts) or None,
                "statements": found.statements,
                "warnings": list(found.warnings),
            }
        )
        return
    if apply and runtime.quiet:
        return
    # Not a table: statements to paste into psql must not be wrapped at the terminal's width.
    done = "Executed" if apply else "Not executed (--apply does that)"
    write_output(f"-- {done}:\n{found.script()}")
