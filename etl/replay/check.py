"""``replay --check``: does the warehouse equal a rebuild from its archive?

The archive is replayed into a separate schema, which is compared with the warehouse and dropped.
The warehouse is only read.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from etl.archive.catalogue import ReplayPlan, RunName, plan_of
from etl.errors import EtlError
from etl.replay.runs import open_archives, replay_into
from etl.warehouse.ledger.replayed import all_entries
from etl.warehouse.read.compare_schemas import (
    TableComparison,
    compare_schemas,
    copy_suppression,
    drop_schema,
)
from etl.warehouse.schema.database import Database, open_database, require_current_schema
from etl.warehouse.schema.revision import migrate

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.settings.table import Settings

log = logging.getLogger(__name__)

NAME_LENGTH: Final = 40
"""Characters of the warehouse's schema kept in the name of the replay's (63 at most in all)."""


@dataclass(slots=True, kw_only=True)
class Comparison:
    """The result of a check."""

    schema: str
    runs: int
    equal: bool = False
    tables: list[TableComparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences about runs that only the warehouse or only the archive has."""
    unfinished: list[RunName] = field(default_factory=list)


def check_archives(
    settings: Settings, addresses: Sequence[str], *, stop: Stop, progress: Progress
) -> Comparison:
    """Compare the warehouse of ``settings`` with its archives; raises what ``replay`` raises."""
    plan = plan_of(open_archives(addresses))
    url = str(settings.database_url)
    found = Comparison(schema=settings.schema, runs=len(plan.runs), unfinished=plan.unfinished)
    with open_database(url, settings.schema) as database:
        require_current_schema(database)
        found.notes = [*plan.gaps, *_unmatched_runs(database, plan)]
        if plan.gaps:
            return found
        aside = f"{settings.schema[:NAME_LENGTH]}_check_{secrets.token_hex(4)}"
        with open_database(url, aside) as replayed:
            try:
                migrate(url, aside)
                copy_suppression(database, replayed)
                replay_into(
                    replayed, plan, replace(settings, schema=aside), stop=stop, progress=progress
                )
                progress.stage("comparing")
                found.tables = compare_schemas(
                    database,
                    replayed,
                    partners=sorted({run.manifest.partner_id for run in plan.runs}),
                    runs=[run.manifest.run_id for run in plan.runs],
                )
            finally:
                _drop(replayed)
    found.equal = not found.notes and all(table.equal for table in found.tables)
    return found


def _unmatched_runs(database: Database, plan: ReplayPlan) -> list[str]:
    """Published runs of these accounts that differ between the warehouse and the archive."""
    partners = {run.manifest.partner_id for run in plan.runs}
    published = {
        entry.run_id: entry.published_at
        for entry in all_entries(database)
        if entry.published_at is not None and (entry.partner_id in partners or not partners)
    }
    archived = {run.manifest.run_id: run.manifest.published_at for run in plan.runs}
    notes = []
    for run_id in sorted(published.keys() - archived.keys()):
        killed = any(name.run_id == run_id for name in plan.unfinished)
        notes.append(
            f"run {run_id} has published and its archive is unfinished: the next archived run "
            "finishes it"
            if killed
            else f"run {run_id} has published and is not in the archive"
        )
    notes += [
        f"run {run_id} is in the archive and not in the warehouse"
        for run_id in sorted(archived.keys() - published.keys())
    ]
    notes += [
        f"run {run_id} was published at another time than its archive says"
        for run_id in sorted(archived.keys() & published.keys())
        if archived[run_id] != published[run_id]
    ]
    return notes


def _drop(replayed: Database) -> None:
    try:
        drop_schema(replayed)
    except EtlError as error:
        log.warning(
            "the schema of the check could not be dropped",
            extra={"schema": replayed.schema, "reason": error.message},
        )
