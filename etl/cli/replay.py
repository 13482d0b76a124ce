"""``kaltura-etl replay``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from etl.replay.check import Comparison
    from etl.settings.table import Settings


@click.command()
@click.argument("archives", nargs=-1, required=True, metavar="ARCHIVE…")
@click.option(
    "--into-schema",
    metavar="NAME",
    help="Create this schema and replay into it instead of into ETL_SCHEMA.",
)
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="RUN_ID",
    help="Stop after this run: the warehouse as it was then.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Publish nothing; compare the warehouse with a replay of its archive.",
)
@click.option(
    "--accept-gaps",
    is_flag=True,
    help="Replay even if published runs are missing; the history restarts after each gap.",
)
@setting_options("schema")
@json_option
@log_options
@pass_runtime
def replay(
    runtime: Runtime,
    archives: tuple[str, ...],
    into_schema: str | None,
    until: int | None,
    check: bool,
    accept_gaps: bool,
) -> None:
    """Rebuild the warehouse from an archive, with the original timestamps.

    ARCHIVE is the value of --archive: a directory, or an s3://, gs:// or az:// URL.  The warehouse
    must be empty; an interrupted replay continues where it stopped.

    With --check the archive is replayed into a temporary schema and compared row by row; the exit
    code is 65 if anything differs.
    """
    if check and (into_schema is not None or until is not None or accept_gaps):
        raise UsageError(
            "--check compares the whole warehouse with the whole archive: it cannot be combined "
            "with --into-schema, --until or --accept-gaps."
        )
    settings = runtime.start()
    if into_schema is not None:
        settings = dataclasses.replace(settings, schema=_schema_name(into_schema))
    runtime.stop.install()
    if check:
        _check(runtime, settings, archives)
    else:
        _replay(runtime, settings, archives, until, accept_gaps, migrate_it=into_schema is not None)


def _replay(
    runtime: Runtime,
    settings: Settings,
    archives: tuple[str, ...],
    until: int | None,
    accept_gaps: bool,
    *,
    migrate_it: bool,
) -> None:
    from etl.cli.database import open_warehouse
    from etl.cli.tables import facts_table, rows_table
    from etl.replay.runs import replay as replay_archives
    from etl.warehouse.schema.revision import migrate

    with open_warehouse(settings, create=True) as opened:
        if migrate_it or settings.database_url is None:
            migrate(str(opened.database_url), opened.schema)
        with runtime.progress() as progress:
            report = replay_archives(
                opened,
                archives,
                stop=runtime.stop,
                progress=progress,
                until=until,
                accept_gaps=accept_gaps,
            )
    result: dict[str, object] = {"status": "succeeded", **dataclasses.asdict(report)}
    result["unfinished"] = [name._asdict() for name in report.unfinished]
    rows = [dataclasses.asdict(run) for run in report.runs]
    facts: dict[str, object] = {
        "schema": report.schema,
        "published_runs_in_the_archive": report.found_runs,
        "replayed_now": len(report.runs),
        "replayed_before": report.already_there,
    }
    if report.unfinished:
        facts["unfinished_runs_ignored"] = _names(report.unfinished)
    if report.gaps:
        facts["gaps"] = "; ".join(report.gaps)
    runtime.print_result(result, facts_table("Replayed", facts), rows_table("runs", rows))


def _check(runtime: Runtime, settings: Settings, archives: tuple[str, ...]) -> None:
    from etl.cli.database import open_warehouse
    from etl.cli.tables import facts_table, rows_table
    from etl.replay.check import check_archives

    with open_warehouse(settings, create=False) as opened, runtime.progress() as progress:
        found: Comparison = check_archives(opened, archives, stop=runtime.stop, progress=progress)
    result: dict[str, object] = dataclasses.asdict(found)
    result["unfinished"] = [name._asdict() for name in found.unfinished]
    facts: dict[str, object] = {
        "schema": found.schema,
        "runs_compared": found.runs,
        "result": "equal" if found.equal else "DIFFERENT",
    }
    if found.unfinished:
        facts["unfinished_runs_ignored"] = _names(found.unfinished)
    tables = [facts_table("Archive and warehouse", facts)]
    tables.append(rows_table("tables", [dataclasses.asdict(each) for each in found.tables]))
    if found.notes:
        tables.append(rows_table("notes", [{"note": note} for note in found.notes]))
    failure = None
    if not found.equal:
        failure = DataRefused(
            "The warehouse differs from a replay of its archive; the result has the differences.",
            reason="replay_check",
        )
    runtime.print_result(result, *tables, failure=failure)
    if failure is not None:
        raise failure


def _names(unfinished: object) -> str:
    from etl.archive.catalogue import RunName

    names = [name for name in unfinished if isinstance(name, RunName)]  # type: ignore[attr-defined]
    shown = ", ".join(f"{name.run_id} (partner {name.partner_id})" for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _schema_name(text: str) -> str:
    from etl.settings.values import schema_name

    try:
        return schema_name(text.strip())
    except ValueError as error:
        raise UsageError(f"--into-schema {error}.") from None
