"""The ledger for the archive: the rows of a run to archive, and the rows of replayed runs.

A replayed run has the ``run_id``, the times and the counts of the original, the mode ``replay`` and
its original mode in ``overrides.replayed_mode``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from etl.coverage import Coverage
from etl.errors import DataRefused, EtlError, LeaseHeld
from etl.process.identity import process_identity
from etl.resources import program_version
from etl.warehouse.engine import SETTINGS, UNIQUE_VIOLATION, transaction
from etl.warehouse.ledger.lease import abandon_dead_runs, load_baseline
from etl.warehouse.ledger.resume import DRY_RUN
from etl.warehouse.ledger.run import STAGING_SECONDS, OpenRun, StagedWalk
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

REPLAY: Final = "replay"
REPLAYED_MODE: Final = "replayed_mode"
_WALKED_BEFORE_PUBLISHING: Final = (
    *("pages", "rows_read", "tokens_read", "inserted", "changed", "unchanged", "rejected"),
    *("absent", "relisted", "unreadable", "unobserved", "listed_before", "staged"),
    *("pages_pruned", "rejected_pruned"),
)
"""Counters that start at 0 and are counted again by the replay."""


class LedgerEntry(NamedTuple):
    """A summary of a run's row."""

    run_id: int
    partner_id: int
    mode: str
    status: str
    published_at: datetime | None


def entry_of(database: Database, run_id: int) -> LedgerEntry | None:
    """The run's entry, or None."""
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        found = connection.execute(_entries(sync_run).where(sync_run.c.run_id == run_id))
        row = found.one_or_none()
    return None if row is None else LedgerEntry(*row)


def all_entries(database: Database) -> list[LedgerEntry]:
    """Every run of the warehouse, by run_id."""
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        rows = connection.execute(_entries(sync_run).order_by(sync_run.c.run_id)).all()
    return [LedgerEntry(*row) for row in rows]


def ledger_rows(database: Database, run_id: int) -> list[dict[str, Any]]:
    """The rows, as JSON, of the runs whose walk a run resumed (oldest first), and its own."""
    sync_run = database.tables.sync_run
    rows: list[dict[str, Any]] = []
    wanted: int | None = run_id
    with transaction(database.engine) as connection:
        while wanted is not None:
            row = connection.scalar(
                sa.select(sa.func.to_jsonb(sync_run.table_valued())).where(
                    sync_run.c.run_id == wanted
                )
            )
            if row is None:
                break
            rows.append(row)
            wanted = row["resumed_from"]
    return rows[::-1]


def published_before(database: Database, run_id: int) -> int | None:
    """The run of the same account that published just before this published one."""
    run, other = database.tables.sync_run, alias_of(database.tables.sync_run, "other")
    with transaction(database.engine) as connection:
        return connection.scalar(
            sa.select(other.c.run_id)
            .select_from(run.join(other, other.c.partner_id == run.c.partner_id))
            .where(run.c.run_id == run_id, other.c.published_at < run.c.published_at)
            .order_by(other.c.published_at.desc())
            .limit(1)
        )


def staged_replies(database: Database, run_id: int) -> dict[int, datetime]:
    """The replies that a run has staged, including those of earlier runs of its walk.

    By number, with the time of arrival, which distinguishes a reply from one with the same number
    that was received and never staged.
    """
    page = database.tables.sync_page
    with transaction(database.engine) as connection:
        rows = connection.execute(
            sa.select(page.c.seq, page.c.received_at).where(page.c.run_id == run_id)
        )
        return {row.seq: row.received_at for row in rows}


def is_empty(database: Database) -> bool:
    """Whether the warehouse knows no token and no run."""
    tables = database.tables
    with transaction(database.engine) as connection:
        return not any(
            connection.scalar(sa.select(sa.exists(sa.select(table.c[key]))))
            for table, key in (
                (tables.sync_run, "run_id"),
                (tables.upload_token, "token_id"),
                (tables.upload_token_superseded, "token_id"),
            )
        )


def open_replay(
    database: Database,
    rows: Sequence[Mapping[str, Any]],
    *,
    lease_seconds: float,
    run_ids_up_to: int,
) -> OpenRun:
    """Write the ledger's rows of an archived run (``ledger_rows``), and open it.

    Run ids up to ``run_ids_up_to`` are taken: the next run gets a higher one.
    Raises LeaseHeld if a run of the account is running.
    """
    *earlier, own = rows
    tables = database.tables
    sync_run = tables.sync_run
    run = OpenRun(
        run_id=own["run_id"],
        walk=StagedWalk(walk_id=own["walk_id"]),
        partner_id=own["partner_id"],
        mode=own["mode"],
        started_at=datetime.fromisoformat(own["started_at"]),
        resumed_from=own["resumed_from"],
    )
    started = {
        **_values(sync_run, own),
        **dict.fromkeys(_WALKED_BEFORE_PUBLISHING, 0),
        "status": "running",
        "heartbeat_at": sa.func.statement_timestamp(),
        "process": process_identity(),
        "finished_at": None,
        "published_at": None,
        "coverage": Coverage().to_sql(),
        "open_coverage": Coverage().to_sql(),
    }
    try:
        with transaction(
            database.engine, statement_seconds=STAGING_SECONDS, **SETTINGS
        ) as connection:
            abandon_dead_runs(connection, sync_run, run.partner_id, lease_seconds)
            for row in earlier:
                connection.execute(
                    insert(sync_run).values(_values(sync_run, row)).on_conflict_do_nothing()
                )
            again = insert(sync_run).values(started)
            taken = connection.scalar(
                again.on_conflict_do_update(
                    index_elements=["run_id"],
                    set_={name: again.excluded[name] for name in started if name != "run_id"},
                    # The rest of an interrupted replay; nothing else is ever replaced.
                    where=sa.and_(
                        sync_run.c.mode == REPLAY,
                        sync_run.c.status.not_in(("running", "succeeded")),
                    ),
                ).returning(sync_run.c.run_id)
            )
            if taken is None:
                raise _replay_lease_held(run)
            for table in (tables.sync_page, tables.rejected_row):
                connection.execute(sa.delete(table).where(table.c.run_id == run.run_id))
            staging = tables.upload_token_staging
            connection.execute(sa.delete(staging).where(staging.c.partner_id == run.partner_id))
            _reserve_run_ids(connection, database, run_ids_up_to)
            run.baseline = load_baseline(connection, database, run.partner_id)
    except EtlError as error:
        if error.fields.get("sqlstate") == UNIQUE_VIOLATION:
            raise _replay_lease_held(run) from None
        raise
    return run


def restored(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the original row that publishing writes instead of the replay's own."""
    return {
        "heartbeat_at": datetime.fromisoformat(row["heartbeat_at"]),
        "finished_at": datetime.fromisoformat(row["finished_at"]),
        "staged": row["staged"],
        "oldest_page_at": _time(row.get("oldest_page_at")),
    }


def keeps_to_own_lookups(row: Mapping[str, Any]) -> bool:
    """Whether the run published only absences that it confirmed itself.

    Program versions that did not record the age of their pages inherited the lookups of earlier
    runs of the walk.
    """
    return row.get("oldest_page_at") is not None


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def overrides_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The original overrides, with the original mode and the version of the replaying program."""
    return {**row["overrides"], REPLAYED_MODE: row["mode"], "replayed_by": program_version()}


def _entries(sync_run: sa.Table) -> sa.Select[Any]:
    return sa.select(*[sync_run.c[name] for name in LedgerEntry._fields])


def _values(sync_run: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the ledger from its JSON, as a replay stores it.

    A column that the archived row lacks gets its default.
    """
    values: dict[str, Any] = {}
    for column in sync_run.c:
        if column.name not in row:
            continue
        value = row[column.name]
        if isinstance(column.type, sa.DateTime):
            value = _time(value)
        values[column.name] = value
    # Earlier program versions stored runs that the audit refused as failed.
    if (row["status"], row["error_kind"]) == ("failed", DataRefused.kind):
        values["status"] = DRY_RUN if DRY_RUN in row["overrides"] else "refused"
    return values | {"mode": REPLAY, "overrides": overrides_of(row)}


def _reserve_run_ids(connection: sa.Connection, database: Database, up_to: int) -> None:
    """Advance the sequence of run_id past the archived runs."""
    sync_run = database.tables.sync_run
    sequence = connection.scalar(
        sa.select(
            sa.func.pg_get_serial_sequence(
                sa.func.format(
                    "%I.%I", sa.cast(database.schema, sa.Text), sa.cast(sync_run.name, sa.Text)
                ),
                "run_id",
            )
        )
    )
    if sequence is None:
        raise DataRefused("sync_run.run_id has no sequence: the schema was changed by hand.")
    last = connection.scalar(
        sa.select(sa.func.pg_sequence_last_value(sa.cast(sequence, _REGCLASS)))
    )
    if (last or 0) < up_to:
        connection.execute(sa.select(sa.func.setval(sa.cast(sequence, _REGCLASS), up_to)))


class _Regclass(sa.types.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "regclass"


_REGCLASS: Final = _Regclass()


def _replay_lease_held(run: OpenRun) -> LeaseHeld:
    return LeaseHeld(
        f"A run of partner {run.partner_id} is running in this warehouse, or a replay of run "
        f"{run.run_id} was killed a moment ago: try again when it has ended or its lease has "
        "expired.",
        run_id=run.run_id,
    )
