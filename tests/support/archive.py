"""Shared by the tests of archive and replay: nights that are archived, and dumps to compare."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from etl.archive.layout import Manifest, decode_manifest
from etl.errors import CredentialsRefused, DataRefused, EtlError, ServiceUnavailable
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.replay.check import Comparison, check_archives
from etl.replay.runs import ReplayReport, replay
from etl.run.backfill import Range, backfill_ids, backfill_range
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.settings.read import load_settings
from etl.settings.table import Settings
from etl.simulator import Churn, SimulatorServer, generate_account
from etl.simulator.faults import RequestInfo
from etl.verify.checks import verify
from etl.warehouse.load.fingerprint import FINGERPRINT, FULL
from etl.warehouse.schema.revision import migrate, schema_state
from tests.support.databases import copy_database
from tests.support.job import Job

TRIES = 9
TOKENS = 900
BY_TOKEN = "partner_id, token_id, version"
PUBLISHED = "where run_id in (select run_id from {schema}.sync_run where published_at is not null)"
DUMPED = {
    "upload_token": ("", BY_TOKEN),
    "upload_token_superseded": ("", BY_TOKEN),
    "unobserved_token": ("", "partner_id, token_id, run_id"),
    "rejected_row": (PUBLISHED, "run_id, reason, sha256(payload)"),
    "sync_page": (PUBLISHED, "run_id, seq"),
}
"""For each table which rows and in which order: all that a replay must make again."""
OF_THE_LOADER = "compared_by"
"""The column that tells how a page was compared: a replay has its own way."""
LEDGER = (
    *("run_id", "partner_id", "walk_id", "range_from", "range_to", "started_at", "heartbeat_at"),
    *("finished_at", "published_at", "resumed_from", "host", "pid", "program_version"),
    *("requests", "retries", "pages", "rows_read", "tokens_read", "inserted", "changed"),
    *("unchanged", "rejected", "absent", "relisted", "unreadable", "listed_before", "staged"),
    *("total_count_first", "total_count_last", "coverage", "open_coverage", "holes"),
)
"""Of a published run a replay keeps these, and its mode in ``overrides``."""


def archived(server: SimulatorServer, database_url: str, archive: Path, **variables: str) -> Job:
    """A job that archives; absences are confirmed at once."""
    return Job.of(
        server, database_url, ETL_ABSENCE_GRACE="0s", ETL_ARCHIVE=str(archive), **variables
    )


@dataclass
class Life:
    """What happens to an account from night to night."""

    server: SimulatorServer
    gone: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def day(self, seed: int) -> None:
        """Uploads go on, some tokens change, vanish, come back, or cannot be loaded for a day."""
        account, rng = self.server.account, random.Random(seed)
        self.server.life().advance(24)
        for token_id in rng.sample(self.gone, min(3, len(self.gone))):
            account.undelete(token_id)
            self.gone.remove(token_id)
        listed = [token.id for token in account.line]
        for token_id in set(self.broken).intersection(listed):
            account.change(token_id, {"fileSize": "12"}, touch=False)
        some = rng.sample(listed, 9)
        account.change(some[0], {"fileName": None})
        account.change(some[1], {"uploadUrl": "https://one.example/", "autoFinalize": True})
        account.change(some[2], {"attachedObjectId": ...}, touch=False)
        account.change(some[3], {"aNewKey": {"a": [1, 1.50, None]}, "b": "\u0000x"}, touch=False)
        account.change(some[4], {"userId": f"renamed{seed}"}, touch=False)
        account.change(some[5], {"fileSize": "12.7"}, touch=False)
        self.broken = [some[5]]
        for token_id in some[7:]:
            account.delete(token_id)
            self.gone.append(token_id)

    def night(self, job: Job, seed: int) -> RunReport:
        """A day, then a run; every other time the list changes while it is read.

        A run that fails is run again, as any scheduler does.  Every third one compares all columns;
        a replay recognises unchanged rows by their digests.
        """
        self.day(seed)
        compare = FULL if seed % 3 == 0 else FINGERPRINT
        if seed % 2:
            self.server.service.churn = Churn(
                delete=0.3, insert=0.3, change=0.3, mode="hostile", seed=seed
            )
        try:
            for _ in range(TRIES):
                with suppress(DataRefused, ServiceUnavailable, CredentialsRefused):
                    return job.run(options=SyncOptions(accept_absences=10_000, compare=compare))
                self.server.faults.decide_by = None
            raise AssertionError(f"the run failed {TRIES} times")
        finally:
            self.server.service.churn = None

    def some_run(self, job: Job, seed: int) -> RunReport:
        """By day: an incremental run, or a backfill of a range or of ids."""
        rng = random.Random(seed)
        listed = list(self.server.account.line)
        some = rng.sample(listed, 30)
        for token in some[:5]:
            self.server.account.change(token.id, {"fileName": f"renamed{seed}"})
        self.server.account.delete(some[0].id)
        self.gone.append(some[0].id)
        self.server.life().advance(2)
        options = SyncOptions(accept_absences=10_000)
        if seed % 3 == 0:
            return job.run(options=replace(options, mode="incremental"))
        if seed % 3 == 1:
            ids = [token.id for token in some]
            return backfill_ids(settings_of(job), options, ids, stop=Stop(), progress=NoProgress())
        begin, end = sorted(datetime.fromtimestamp(token.created_at, UTC) for token in some[1:3])
        chosen = Range(begin, end)
        return backfill_range(settings_of(job), options, chosen, stop=Stop(), progress=NoProgress())

    def fail_after(self, lists: int) -> None:
        """The next run gets ``lists`` pages, then the service refuses it."""
        left = [lists]

        def decide(info: RequestInfo) -> str | None:
            if info.position != "list":
                return None
            left[0] -= 1
            return None if left[0] >= 0 else "service-forbidden"

        self.server.faults.decide_by = decide


@dataclass
class Kept:
    """An account, its archived job, and the folder of the archive."""

    server: SimulatorServer
    job: Job
    archive: Path
    life: Life
    template_url: str
    """An empty, migrated warehouse: replays go into copies of it."""

    def manifest(self, run_id: int) -> Manifest:
        path = self.archive / "partner-102" / f"run-{run_id:010d}" / "manifest.json"
        return decode_manifest(path.read_bytes(), "m")

    def manifests(self) -> list[int]:
        found = self.archive.glob("partner-102/run-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("run-")) for path in found)

    def failed_run(self, lists: int) -> None:
        self.life.fail_after(lists)
        with pytest.raises(EtlError):
            self.job.run()
        self.server.faults.clear()

    @contextmanager
    def replayed(
        self, *, until: int | None = None, accept_gaps: bool = False
    ) -> Iterator[tuple[Job, ReplayReport]]:
        """A job whose warehouse is a replay of the archive."""
        server, name = self.template_url, urlsplit(self.template_url).path[1:]
        with copied_database(server, name) as url:
            job = replace(self.job, database_url=url)
            yield (
                job,
                replay_into(job, [self.archive], "kaltura", until=until, accept_gaps=accept_gaps),
            )

    def assert_replayed(self) -> None:
        with self.replayed() as (job, _):
            self.assert_same(job)

    def assert_same(self, job: Job) -> None:
        """The warehouse of ``job``, a replay, is this one."""
        assert_same_dump(dump(job.database_url), dump(self.job.database_url))
        assert_verified(job.database_url)


@contextmanager
def keeping(database_url: str, template_url: str, archive: Path) -> Iterator[Kept]:
    """Account 102, served, and its archived job."""
    account = generate_account(TOKENS, seed=11, partner_id=102)
    with SimulatorServer(account, page_cap=50, seed=11) as server:
        job = archived(server, database_url, archive)
        yield Kept(server, job, archive, Life(server), template_url)


def settings_of(job: Job, schema: str = "kaltura") -> Settings:
    return load_settings(environment=job.environment(ETL_SCHEMA=schema)).checked()


def replay_into(
    job: Job,
    archives: Sequence[Path | str],
    schema: str,
    *,
    until: int | None = None,
    accept_gaps: bool = False,
) -> ReplayReport:
    """A replay into a schema of the job's own database, made if it is not there."""
    if schema_state(job.database_url, schema).current is None:
        migrate(job.database_url, schema)
    return replay(
        settings_of(job, schema),
        [str(archive) for archive in archives],
        stop=Stop(),
        progress=NoProgress(),
        until=until,
        accept_gaps=accept_gaps,
    )


def check(job: Job, *archives: Path | str) -> Comparison:
    return check_archives(
        settings_of(job),
        [str(archive) for archive in archives],
        stop=Stop(),
        progress=NoProgress(),
    )


@contextmanager
def copied_database(server_url: str, template: str) -> Iterator[str]:
    """A database made from another one; dropped afterwards."""
    database = f"test_{secrets.token_hex(6)}"
    name = sql.Identifier(database)
    # A template must have no connections.
    admin_url = urlunsplit(urlsplit(server_url)._replace(path="/postgres"))
    with closing(psycopg.connect(admin_url, autocommit=True)) as admin:
        copy_database(admin, database, template)
        try:
            yield urlunsplit(urlsplit(server_url)._replace(path=f"/{database}"))
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(name))


def dump(database_url: str, schema: str = "kaltura") -> dict[str, bytes]:
    """The tables as COPY writes them, and what is kept of the ledger."""
    name = sql.Identifier(schema)
    with psycopg.connect(database_url) as connection:
        connection.execute("set timezone = 'UTC'")
        dumped = {
            table: _copied(
                connection,
                sql.SQL("select {} from {}.{} {} order by {}").format(
                    _columns(connection, schema, table),
                    name,
                    sql.Identifier(table),
                    sql.SQL(where).format(schema=name),
                    sql.SQL(order),
                ),
            )
            for table, (where, order) in DUMPED.items()
        }
        dumped["ledger"] = _copied(
            connection,
            sql.SQL(
                "select {}, coalesce(overrides ->> 'replayed_mode', mode) as mode, "
                "overrides - 'replayed_mode' - 'replayed_by' as overrides "
                "from {}.sync_run where published_at is not null order by run_id"
            ).format(sql.SQL(", ").join(map(sql.Identifier, LEDGER)), name),
        )
        dumped["status history"] = _copied(
            connection,
            sql.SQL("select * from {}.upload_token_status_history order by {}").format(
                name, sql.SQL(f"{BY_TOKEN}, valid_from, to_status")
            ),
        )
    return dumped


def _columns(
    connection: psycopg.Connection[tuple[object, ...]], schema: str, table: str
) -> sql.Composed:
    names = connection.execute(
        "select column_name::text from information_schema.columns where table_schema = %s "
        "and table_name = %s and column_name <> %s order by ordinal_position",
        (schema, table, OF_THE_LOADER),
    ).fetchall()
    return sql.SQL(", ").join(sql.Identifier(str(column)) for (column,) in names)


def _copied(connection: psycopg.Connection[tuple[object, ...]], query: sql.Composable) -> bytes:
    statement = sql.SQL("copy ({}) to stdout").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        return b"".join(bytes(block) for block in copy)


def assert_same_dump(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Byte for byte; the first lines that differ are shown."""
    for table, body in expected.items():
        if found[table] == body:
            continue
        ours, theirs = found[table].split(b"\n"), body.split(b"\n")
        differing = [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]][:2]
        raise AssertionError(f"{table}: {len(ours)} lines, expected {len(theirs)}: {differing}")


def assert_verified(database_url: str, schema: str = "kaltura") -> None:
    failed = [
        (check.name, check.rows[:2]) for check in verify(database_url, schema) if not check.ok
    ]
    assert not failed


def job_without_archive(job: Job) -> Job:
    kept = {name: text for name, text in job.variables.items() if name != "ETL_ARCHIVE"}
    return replace(job, variables=kept)
