"""``kaltura-etl erase``."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import UsageError

log = logging.getLogger("etl.cli")

STILL_THERE = (
    "Backups, WAL archives, lagging replicas and archives of replies still contain the data: let "
    "them expire or delete them; see docs/howto/erase.md."
)


@click.command()
@click.option(
    "--user-id",
    "user_ids",
    multiple=True,
    metavar="ID",
    help="A Kaltura user, exactly as stored; may be given more than once.",
)
@click.option(
    "--token-id",
    "token_ids",
    multiple=True,
    metavar="ID",
    help="An upload token; may be given more than once.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Repeat earlier erasures whose data is present again: after restoring a backup.",
)
@click.option(
    "--apply", is_flag=True, help="Apply the changes; without this option they are only counted."
)
@setting_options("partner_id", "schema")
@json_option
@log_options
@pass_runtime
def erase(
    runtime: Runtime,
    user_ids: tuple[str, ...],
    token_ids: tuple[str, ...],
    again: bool,
    apply: bool,
) -> None:
    """Replace a user's or a token's personal data with pseudonyms, irreversibly.

    This covers user id, file names and unknown keys in every version, and rejected rows; data that
    arrives later is replaced before it is stored.  Requires the role that owns the tables.  The
    key is ETL_ERASURE_KEY, or one that the warehouse stores.
    """
    settings = runtime.start()
    partner_id = settings.require_partner_id()
    if not (user_ids or token_ids or again):
        raise UsageError("Give --user-id, --token-id or --again.")
    # Signals keep their default action: whatever ends the process, the transaction rolls back.
    from etl.cli.database import open_warehouse
    from etl.warehouse.privacy.erase import erase as erase_subjects
    from etl.warehouse.privacy.subject import Subject
    from etl.warehouse.schema.database import open_database, require_current_schema

    subjects = [Subject("user", user_id) for user_id in dict.fromkeys(user_ids)]
    subjects += [Subject("token", token_id) for token_id in dict.fromkeys(token_ids)]
    with (
        open_warehouse(settings, create=False) as opened,
        open_database(str(opened.database_url), opened.schema) as database,
    ):
        require_current_schema(database)
        erased = erase_subjects(
            database,
            partner_id=partner_id,
            key=settings.erasure_key,
            subjects=subjects,
            again=again,
            lease_seconds=settings.lease_seconds,
            apply=apply,
        )
    for number, each in enumerate(erased, 1):
        if each.similar_ids:
            log.warning(
                "user %d: %d other user ids differ only in case; they are not erased",
                number,
                each.similar_ids,
            )
        if not each.tokens:
            log.warning("%s %d: nothing is stored for it", each.kind, number)
    result = {
        "status": "succeeded" if apply else "dry run",
        "applied": apply,
        "partner_id": partner_id,
        "subjects": [dataclasses.asdict(each) for each in erased],
        "still_there": STILL_THERE,
    }
    runtime.print_result(result, *_tables(result))


def _tables(result: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from etl.cli.tables import rows_table

    title = (
        f"Account {result['partner_id']}: erased"
        if result["applied"]
        else "Nothing was erased (dry run; --apply does it). This would be replaced:"
    )
    rows = [
        {
            "subject": f"{subject['kind']} {subject['subject_hash'] or number}",
            "tokens": subject["tokens"],
            "table": name,
            "rows": replaced["rows"],
            "values": replaced["values"],
        }
        for number, subject in enumerate(result["subjects"], 1)
        for name, replaced in subject["tables"].items()
    ]
    return [rows_table(title, rows, shown=len(rows)), Text(""), Text(result["still_there"])]
