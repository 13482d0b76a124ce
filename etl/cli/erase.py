"""``kaltura-etl erase``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import EtlError, UsageError
from etl.resources import as_named, document

if TYPE_CHECKING:
    from etl.settings.table import Settings
    from etl.warehouse.schema.database import Database

log = logging.getLogger("etl.cli")

_PAGE = as_named(document("howto/erase.md"))
ARCHIVE_LEFT = (
    "No archive was named (--archive, ETL_ARCHIVE): if there is one, delete the account's folder "
    "in it."
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
    "--account",
    is_flag=False,
    flag_value="",
    metavar="[N]",
    help="The whole account that leaves: delete everything stored of partner N, or of "
    "KALTURA_PARTNER_ID.",
)
@click.option(
    "--apply", is_flag=True, help="Apply the changes; without this option they are only counted."
)
@setting_options("partner_id", "schema", "archive", "lake")
@json_option
@log_options
@pass_runtime
def erase(
    runtime: Runtime,
    user_ids: tuple[str, ...],
    token_ids: tuple[str, ...],
    again: bool,
    account: str | None,
    apply: bool,
) -> None:
    """Replace a user's or a token's personal data with pseudonyms, or delete an account.

    Irreversible.  A user's data are user id, file names and unknown keys in every version, and
    rejected rows; data that arrives later is replaced before it is stored.  The archive of
    ETL_ARCHIVE and the Delta tables of ETL_LAKE are changed as well.  Requires the role that owns
    the tables.  The key is ETL_ERASURE_KEY, or one that the warehouse stores.
    """
    people = bool(user_ids or token_ids or again)
    if account is not None and people:
        raise UsageError("--account deletes everything: give no --user-id, --token-id or --again.")
    if account and runtime.flags.setdefault("partner_id", account) != account:
        raise UsageError("--account and --partner-id name two accounts.")
    settings = runtime.start()
    partner_id = settings.require_partner_id()
    if account is not None:
        _erase_account(runtime, settings, partner_id, apply=apply)
    elif people:
        _erase_people(runtime, settings, partner_id, user_ids, token_ids, again=again, apply=apply)
    else:
        raise UsageError("Give --user-id, --token-id, --again or --account.")


def _erase_account(runtime: Runtime, settings: Settings, partner_id: int, *, apply: bool) -> None:
    runtime.stop.install()
    from etl.archive.account import erase_account
    from etl.archive.stores import open_store
    from etl.cli.database import open_warehouse
    from etl.cli.tables import paragraph, rows_table
    from etl.warehouse.schema.database import open_database

    store = None if settings.archive is None else open_store(settings.archive)
    with (
        open_warehouse(settings, create=False) as opened,
        open_database(str(opened.database_url), opened.schema) as database,
        _rewriting_lake(runtime, opened, partner_id, apply=apply) as lake,
    ):
        _require_erasable(database)
        erased = erase_account(
            database,
            store,
            partner_id=partner_id,
            lease_seconds=settings.lease_seconds,
            apply=apply,
            stop=runtime.stop,
        )
    if not erased.archived_runs and not any(erased.tables.values()):
        log.warning("nothing is stored of account %d", partner_id)
    still_there = _still_there(archive=True, lake=bool(lake))
    if store is None:
        still_there = f"{ARCHIVE_LEFT} {still_there}"
    result = {
        "status": "succeeded" if apply else "dry run",
        "applied": apply,
        "partner_id": partner_id,
        **dataclasses.asdict(erased),
        "lake": lake or None,
        "still_there": still_there,
    }
    title = (
        f"Account {partner_id}: deleted"
        if apply
        else "Nothing was deleted (dry run; --apply does it). This would be deleted:"
    )
    rows: list[dict[str, Any]] = [
        {"where": f"table {name}", "deleted": f"{count:,} rows"}
        for name, count in erased.tables.items()
    ]
    if erased.archive is not None:
        rows.append(
            {"where": f"archive {erased.archive}", "deleted": f"{erased.archived_runs} runs"}
        )
    rows += [
        {"where": f"Delta table {each['table']}", "deleted": f"{each['files_deleted']} files"}
        for each in lake.get("tables", [])
    ]
    tables = [rows_table(title, rows, shown=len(rows)), paragraph(""), paragraph(still_there)]
    runtime.print_result(result, *tables)


def _erase_people(
    runtime: Runtime,
    settings: Settings,
    partner_id: int,
    user_ids: tuple[str, ...],
    token_ids: tuple[str, ...],
    *,
    again: bool,
    apply: bool,
) -> None:
    # Signals keep their default action: whatever ends the process, the transaction rolls back.
    from etl.archive.people import erase_people
    from etl.archive.stores import open_store
    from etl.cli.database import open_warehouse
    from etl.warehouse.privacy.subject import Subject
    from etl.warehouse.schema.database import open_database

    subjects = [Subject("user", user_id) for user_id in dict.fromkeys(user_ids)]
    subjects += [Subject("token", token_id) for token_id in dict.fromkeys(token_ids)]
    store = None if settings.archive is None else open_store(settings.archive)
    with (
        open_warehouse(settings, create=False) as opened,
        open_database(str(opened.database_url), opened.schema) as database,
        _rewriting_lake(runtime, opened, partner_id, apply=apply) as lake,
    ):
        _require_erasable(database)
        erased, archive = erase_people(
            database,
            store,
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
        "archive": None if archive is None else dataclasses.asdict(archive),
        "lake": lake or None,
        "still_there": _still_there(archive=archive is not None, lake=bool(lake)),
    }
    runtime.print_result(result, *_tables(result))


@contextmanager
def _rewriting_lake(
    runtime: Runtime, settings: Settings, partner_id: int, *, apply: bool
) -> Iterator[dict[str, Any]]:
    """The Delta tables of ETL_LAKE: no export writes to them meanwhile, and what was erased goes
    at the end.  Yields what the result says of them, which is nothing without ETL_LAKE."""
    told: dict[str, Any] = {}
    if settings.lake is None:
        yield told
        return
    from etl.export.extras import require_libraries

    require_libraries("delta")
    from etl.export.delta import Lake, erase_in_lake, lake_held

    lake, url = Lake(settings.lake), str(settings.database_url)
    told |= {"address": lake.address, "tables": []}
    if not apply:
        yield told
        return
    with lake_held(url, settings.schema, lake, partner_id):
        yield told
        try:
            with runtime.progress(unit="rows") as shown:
                done = erase_in_lake(
                    *(url, settings.schema, lake),
                    partner_id=partner_id,
                    stop=runtime.stop,
                    progress=shown,
                )
        except EtlError as error:
            raise type(error)(
                "It is erased in the warehouse, but the Delta tables are not finished: "
                f"{error.message} Then run the same command again.",
                **error.fields,
            ) from error
    told["tables"] = [dataclasses.asdict(each) for each in done]


def _still_there(*, archive: bool, lake: bool) -> str:
    """Where the data remain; what was named is done."""
    unnamed = [
        name
        for name, named in (("archives of replies", archive), ("Delta tables", lake))
        if not named
    ]
    places = ["Backups", "WAL archives", "lagging replicas", "exported files"]
    places += [f"{name} that were not named" for name in unnamed]
    return (
        f"{', '.join(places)} and versions that an object store keeps still contain the data: let "
        f"them expire or delete them; see {_PAGE}."
    )


def _require_erasable(database: Database) -> None:
    """Refuse another schema, a layout in which rows would be missed, a standby, and a worker.

    A standby does not have the rows of the staging table.
    """
    from etl.warehouse.engine import transaction
    from etl.warehouse.schema.database import require_current_primary
    from etl.warehouse.schema.layout import require_supported_layout

    require_current_primary(database)
    with transaction(database.engine) as connection:
        require_supported_layout(connection, database.schema)


def _tables(result: dict[str, Any]) -> list[Any]:
    from etl.cli.tables import paragraph, rows_table

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
    lines = [paragraph(""), paragraph(result["still_there"])]
    archive = result["archive"]
    if archive is not None:
        done = f"{archive['rewritten']} rewritten" if result["applied"] else "to be searched"
        lines.insert(
            0, paragraph(f"Archive {archive['address']}: {archive['files']} files, {done}")
        )
        lines[1:1] = [
            paragraph(f"Not erased: {each['file']}: {each['reason']}") for each in archive["left"]
        ]
    if lake := result.get("lake"):
        done = "rewritten" if result["applied"] else "to be rewritten if the account is there"
        lines.insert(0, paragraph(f"Delta tables {lake['address']}: {done}"))
    return [rows_table(title, rows, shown=len(rows)), *lines]
