"""``kaltura-etl migrate``."""

from __future__ import annotations

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime


@click.command()
@setting_options("schema")
@json_option
@log_options
@pass_runtime
def migrate(runtime: Runtime) -> None:
    """Bring the warehouse's schema to this program's version.

    Idempotent, and safe to run concurrently.  Without DATABASE_URL it creates the embedded
    Postgres if there is none yet.
    """
    settings = runtime.start()
    from etl.cli.database import open_warehouse
    from etl.cli.tables import facts_table
    from etl.warehouse.schema import revision as schema

    with open_warehouse(settings, create=True) as opened:
        url = str(opened.database_url)
        before = schema.schema_state(url, opened.schema)
        schema.migrate(url, opened.schema)
        after = schema.schema_state(url, opened.schema)
    result: dict[str, object] = {
        "status": "succeeded",
        "schema": opened.schema,
        "from_revision": before.current,
        "to_revision": after.current,
        "changed": before.current != after.current,
    }
    title = "Migrated" if result["changed"] else "Nothing to migrate"
    shown = {key: result[key] for key in ("schema", "from_revision", "to_revision")}
    shown["from_revision"] = before.current or "nothing"
    runtime.print_result(result, facts_table(title, shown))
