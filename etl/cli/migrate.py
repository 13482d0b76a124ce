"""``kaltura-etl migrate``."""

from __future__ import annotations

import logging

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import ConfigurationError
from etl.process.stop import ended_by_signals

log = logging.getLogger("etl.cli")


@click.command()
@click.option(
    "--repair",
    is_flag=True,
    help="Then put back what was dropped: views, functions, indexes, constraints, defaults and "
    "comments.  A missing table or column is named and refused.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="Then keep the schema on one worker of Citus (12 or newer; DATABASE_URL names the "
    "coordinator), with what is in it.  See docs/scale.md.",
)
@setting_options("schema")
@json_option
@log_options
@pass_runtime
def migrate(runtime: Runtime, repair: bool, distributed: bool) -> None:
    """Bring the warehouse's schema to this program's version.

    Idempotent, and safe to run concurrently.  Roles that have exactly what grant gives are
    granted what is new; for others the command is named.  Without DATABASE_URL it creates the
    embedded Postgres if there is none yet.
    """
    settings = runtime.start()
    from etl.cli.database import open_warehouse
    from etl.cli.tables import facts_table
    from etl.warehouse.access.again import commands_left, grant_again, roles_as_granted
    from etl.warehouse.access.limits import require_no_policies
    from etl.warehouse.schema import distribution
    from etl.warehouse.schema import revision as schema
    from etl.warehouse.schema.features import feature_problem

    if distributed and settings.database_url is None:
        # Before an embedded server is made or started.
        raise ConfigurationError(
            "migrate --distributed needs DATABASE_URL, the URL of the coordinator of a Citus "
            "cluster: the embedded Postgres does not have Citus.",
            setting="DATABASE_URL",
            reason="citus",
        )
    moved = False
    ended = ended_by_signals(
        "what was in progress was rolled back, or is done again; run kaltura-etl migrate again."
    )
    with ended, open_warehouse(settings, create=True) as opened:
        url = str(opened.database_url)
        with schema.open_connection(url) as connection:
            # Before the statement that would fail for want of it.
            if (lacking := feature_problem(connection)) is not None:
                raise lacking
            if distributed:
                distribution.require_coordinator(connection)
                require_no_policies(connection, opened.schema)
            distribution.require_updatable(connection, opened.schema)
            as_granted = roles_as_granted(connection, opened.schema)
        before, after = schema.migrate(url, opened.schema)
        repaired = []
        if repair:
            from etl.warehouse.schema.repair import repair as put_back

            repaired = [str(each) for each in put_back(url, opened.schema)]
        if distributed:
            moved = distribution.distribute(url, opened.schema)
        elif before != after or repaired:
            distribution.reinstall_if_distributed(url, opened.schema)
        granted, to_grant = [], []
        if before != after or repaired:
            granted = grant_again(url, opened.schema, as_granted)
            to_grant = commands_left(url, opened.schema)
    for command in to_grant:
        log.warning("a role may not read everything that it could be granted: run  %s", command)
    result: dict[str, object] = {
        "status": "succeeded",
        "schema": opened.schema,
        "from_revision": before,
        "to_revision": after,
        "changed": before != after,
        "repaired": repaired,
        "moved_to_worker": moved,
        "granted_again": granted,
        "to_grant": to_grant,
    }
    title = "Migrated" if result["changed"] else "Nothing to migrate"
    shown = {key: result[key] for key in ("schema", "from_revision", "to_revision")}
    shown["from_revision"] = before or "nothing"
    if repair:
        shown["put_back"] = ", ".join(repaired) or "nothing"
    if distributed:
        shown["on_one_worker"] = "moved now" if moved else "it was already"
    if granted:
        shown["granted_again"] = ", ".join(granted)
    runtime.print_result(result, facts_table(title, shown))
