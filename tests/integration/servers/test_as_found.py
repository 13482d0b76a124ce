"""Servers and databases as they are found: what can be found beforehand is found by ``check``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from etl.errors import ConfigurationError, EtlError, WarehouseUnavailable
from etl.preflight import Finding, check_parts
from etl.process.stop import Stop
from etl.report.read import read_report
from etl.settings.read import LoadedSettings, load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.access.grants import grant
from etl.warehouse.ledger.certificates import unknown_ids
from etl.warehouse.ledger.lease import restart_walk
from etl.warehouse.load.ready import require_ready
from etl.warehouse.privacy.prune import prune, prune_old_pages
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema import server as server_module
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.repair import repair
from etl.warehouse.schema.revision import migrate
from tests.support.databases import with_database
from tests.support.job import Job
from tests.support.nights import START, Nights, make_token, page_of
from tests.support.own_server import ANYBODY, OwnServer
from tests.support.pgbouncer import pgbouncer
from tests.support.roles import roles_of


@pytest.fixture(scope="module")
def service() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(40, seed=3)) as running:
        yield running


def database_parts(job: Job, **variables: str) -> dict[str, Finding]:
    """What ``check`` says of the database, by part."""
    loaded = load_settings(environment=job.environment(**variables))
    parts = {each.part: each for each in check_parts(loaded, lambda: url_of(loaded), Stop())}
    assert [each.state for each in parts.values()][:3] == ["ok"] * 3
    return dict(list(parts.items())[3:])


def url_of(loaded: LoadedSettings) -> str | None:
    return loaded.settings.database_url


def failed(parts: dict[str, Finding]) -> dict[str, int]:
    return {name: part.exit_code for name, part in parts.items() if part.state == "failed"}


@contextmanager
def database(url: str, name: str, options: str) -> Iterator[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"create database {name} template template0 {options} "
            "locale_provider libc locale 'C'".encode()
        )
        try:
            yield with_database(url, name)
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_refused_by_migrate_and_found_by_check(
    postgres_url: str, service: SimulatorServer, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    with database(postgres_url, name, f"encoding '{encoding}'") as url:
        with pytest.raises(ConfigurationError, match=f"{name} has the encoding {encoding}"):
            migrate(url)
        with psycopg.connect(url) as connection:
            assert connection.execute("select to_regnamespace('kaltura')").fetchone() == (None,)
        job = Job.of(service, url)
        parts = database_parts(job)
        assert failed(parts) == {"database writable": 78, "schema version": 78}
        assert "encoding 'UTF8' template template0" in parts["database writable"].detail


def assert_readable(url: str, *, unchecked: Sequence[str] = ()) -> None:
    """Everything that only reads does so: status, report, verify, prune and grant without apply."""
    assert status_summary(url, "kaltura", None)["last_runs"]
    shown = read_report(url, "kaltura", partner_id=None, days=7, time_zone="UTC")
    assert shown.runs
    with open_database(url, "kaltura") as database:
        assert prune(database, days={"pages": 0}, partner_id=None, apply=False)[0].rows > 0
        assert unknown_ids(database, 102, ["x"]) == ["x"]
    results = {each.name: each for each in verify(url)}
    assert [name for name, each in results.items() if each.skipped] == list(unchecked)
    assert all(each.ok for each in results.values())
    assert "grant usage" in grant(url, "kaltura", {"loader": ANYBODY}, apply=False).script()


def test_a_standby_is_read_and_told_by_its_name(
    server: OwnServer, own_url: str, service: SimulatorServer
) -> None:
    job = Job.of(service, own_url)
    job.run()
    with server.standby() as standby:
        url = with_database(standby.url(), own_url.partition("@/")[2].partition("?")[0])
        assert_readable(url, unchecked=["staging_empty"])
        parts = database_parts(job, DATABASE_URL=url)
        assert failed(parts) == {"database writable": 74}
        asked = len(service.service.log)
        for write in (lambda: replace(job, database_url=url).run(), lambda: migrate(url)):
            with pytest.raises(WarehouseUnavailable, match="is a standby") as refused:
                write()
            assert refused.value.fields["reason"] == "standby"
        for what in (["--user-id", "u"], ["--account"]):
            erased = job.call_command("erase", *what, DATABASE_URL=url)
            assert (erased.code, "is a standby" in erased.err) == (74, True)
        assert len(service.service.log) == asked


@pytest.mark.parametrize(
    ("statement", "set_by", "code"),
    [
        ("alter database {} set default_transaction_read_only = on", "of the database", 78),
        ("alter system set default_transaction_read_only = on", "of the server", 74),
    ],
)
def test_a_database_that_is_read_only_is_read_and_told_by_its_name(
    server: OwnServer,
    own_url: str,
    service: SimulatorServer,
    statement: str,
    set_by: str,
    code: int,
) -> None:
    job = Job.of(service, own_url)
    job.run()
    name = own_url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(server.url(), autocommit=True) as connection:
        try:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
            connection.execute("select pg_reload_conf()")
            assert_readable(own_url)
            with pytest.raises(EtlError, match="Every transaction is read-only") as refused:
                job.run()
            assert (refused.value.exit_code, refused.value.fields["reason"]) == (code, "read_only")
            assert set_by in refused.value.message
            assert failed(database_parts(job)) == {"database writable": code}
        finally:
            connection.execute("set default_transaction_read_only = off")
            connection.execute("alter system reset default_transaction_read_only")
            connection.execute("select pg_reload_conf()")


def test_what_was_dropped_is_found_by_check(database_url: str, service: SimulatorServer) -> None:
    job = Job.of(service, database_url)
    job.query("comment on table kaltura.pruning is null")
    assert database_parts(job)["schema objects"].state == "warning"
    job.query("drop view kaltura.stuck_upload")
    job.query("drop index kaltura.ix_sync_run_partner")
    parts = database_parts(job)
    assert failed(parts) == {"schema objects": 78}
    for words in ("view stuck_upload", "sync_run.ix_sync_run_partner", "migrate --repair"):
        assert words in parts["schema objects"].detail
    job.query("drop table kaltura.erasure_key")
    assert "from a backup" in database_parts(job)["schema objects"].detail


def test_staging_that_is_logged_is_a_warning_and_published_tables_that_are_not_a_failure(
    database_url: str, service: SimulatorServer
) -> None:
    """The first loses nothing but some speed; the second may lose the history in a crash."""
    job = Job.of(service, database_url)
    job.query("alter table kaltura.upload_token_staging set logged")
    part = database_parts(job)["schema objects"]
    assert (part.state, part.exit_code) == ("warning", 0)
    for words in ("persistence upload_token_staging", "migrate --repair"):
        assert words in part.detail
    assert job.run().status == "succeeded"
    assert [str(each) for each in repair(database_url, "kaltura")] == [
        "persistence upload_token_staging"
    ]
    assert database_parts(job)["schema objects"].state == "ok"
    job.query("alter table kaltura.pruning set unlogged")
    assert failed(database_parts(job)) == {"schema objects": 78}


def test_a_database_that_was_not_migrated_is_told_what_comes_next(
    empty_database_url: str, service: SimulatorServer
) -> None:
    parts = database_parts(Job.of(service, empty_database_url))
    assert failed(parts) == {"schema version": 78}
    assert parts["schema version"].detail.endswith("yet; run kaltura-etl migrate, then check")


def test_a_clock_that_is_off_is_told(
    database_url: str, service: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job.of(service, database_url)
    assert database_parts(job)["database clock"].state == "ok"
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "now", lambda: datetime.now(UTC) - timedelta(seconds=61))
        clock = database_parts(job)["database clock"]
    assert (clock.state, clock.exit_code) == ("warning", 0)
    assert clock.detail.startswith("the clock of the database is +61 s from ours")


@pytest.mark.parametrize(
    ("host", "address", "encrypted", "mode", "said", "warns"),
    [
        ("/run/postgresql", "", False, "prefer", "does not leave this machine", False),
        ("localhost", "127.0.0.1", False, "prefer", "does not leave this machine", False),
        ("db.example", "10.0.0.7", False, "prefer", "not encrypted.* to db.example", True),
        ("db.example", "10.0.0.7", True, "require", "not verified.*=require.*verify-full", True),
        ("db.example", "10.0.0.7", True, "verify-ca", "not verified", True),
        ("localhost", "::1", True, "require", "not verified", False),
        ("db.example", "10.0.0.7", True, "verify-full", "the server is verified", False),
    ],
)
def test_a_connection_that_others_can_read_is_told(
    host: str, address: str, encrypted: bool, mode: str, said: str, warns: bool
) -> None:
    found = server_module.encryption_of(host, address, encrypted=encrypted, mode=mode)
    assert re.search(said, found.text)
    assert found.warns == warns


def test_the_encryption_of_the_connection_itself_is_told(
    database_url: str, service: SimulatorServer
) -> None:
    found = database_parts(Job.of(service, database_url))["connection encrypted"]
    assert (found.state, found.detail) == ("ok", "not encrypted, and does not leave this machine")


def test_who_may_prune_is_told(database_url: str, service: SimulatorServer) -> None:
    with roles_of(database_url) as roles:
        roles.grant_all("loader")
        loader = database_parts(Job.of(service, roles.url("loader")), ETL_KEEP_PAGES_DAYS="30")
    assert loader["retention"].state == "ok"
    for words in ("30 days", "DELETE on kaltura.upload_token_superseded"):
        assert words in loader["retention"].detail
    owner = database_parts(Job.of(service, database_url))["retention"]
    assert "needs another role" not in owner.detail


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_proxy_that_is_ignored_is_told(
    database_url: str, service: SimulatorServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "proxy.example:3128")
    loaded = load_settings(environment=Job.of(service, database_url).environment())

    def first() -> Finding:
        return next(iter(check_parts(loaded, lambda: None, Stop())))

    assert (first().part, first().state) == ("settings", "warning")
    assert "ETL_USE_ENVIRONMENT_PROXIES=yes" in first().detail
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert first().state == "ok"


def nights_of(url: str) -> Iterator[Nights]:
    with open_database(url, "kaltura") as opened:
        yield Nights(url, opened)


def test_a_publication_of_all_tables_forbids_nothing(database_url: str) -> None:
    for nights in nights_of(database_url):
        nights.query("create publication everything for all tables")
        nights.night([make_token("a"), make_token("b"), make_token("b", START + 5)])
        nights.night([make_token("a", status=2)])
        run = nights.open()
        nights.stage(run, page_of([make_token("c"), make_token("c", START + 5)], from_start=True))
        assert nights.query("select 1 from kaltura.rejected_row where run_id = %s", run.run_id)
        restart_walk(nights.database, run)
        nights.query(
            "update kaltura.sync_run set status = 'failed', finished_at = now(), "
            "error_kind = 'x' where status = 'running'"
        )
        assert prune_old_pages(nights.database, 0) > 0
        require_ready(nights.database)


HINDRANCES = [
    (
        "create publication odd for table kaltura.upload_token (partner_id, status)",
        "publication",
        "kaltura.upload_token (odd)",
    ),
    (
        "alter table kaltura.sync_page replica identity nothing; "
        "create publication odd for table kaltura.sync_page",
        "publication",
        "kaltura.sync_page (odd)",
    ),
]


@pytest.mark.parametrize(("statements", "reason", "named"), HINDRANCES)
def test_a_publication_that_forbids_a_run_is_found(
    database_url: str, service: SimulatorServer, statements: str, reason: str, named: str
) -> None:
    job = Job.of(service, database_url)
    for statement in statements.split("; "):
        job.query(statement)
    with pytest.raises(ConfigurationError) as refused:
        job.run()
    assert refused.value.fields["reason"] == reason
    assert named in refused.value.message
    assert job.runs() == []
    assert failed(database_parts(job)) == {"tables": 78}


def test_what_forbids_a_change_in_the_middle_of_a_run_has_its_name(database_url: str) -> None:
    for nights in nights_of(database_url):
        nights.night([make_token("a")])
        run = nights.open()
        nights.query("alter table kaltura.sync_run replica identity nothing")
        nights.query("create publication odd for table kaltura.sync_run")
        with pytest.raises(EtlError) as refused:
            nights.stage(run, page_of([make_token("b")], from_start=True, to_end=True))
        assert (refused.value.exit_code, refused.value.fields["reason"]) == (78, "publication")


def test_triggers_and_rules_of_others_are_told(database_url: str, service: SimulatorServer) -> None:
    job = Job.of(service, database_url)
    job.query(
        "create function public.pass() returns trigger language plpgsql as "
        "$$ begin return new; end $$"
    )
    job.query(
        "create trigger audit before insert on kaltura.upload_token for each row "
        "execute function public.pass()"
    )
    job.query("create rule also as on insert to kaltura.sync_page do also notify pages")
    tables = database_parts(job)["tables"]
    assert tables.state == "warning"
    for named in ("kaltura.upload_token (audit)", "kaltura.sync_page (also)"):
        assert named in tables.detail
    job.run()


def test_row_level_security_hides_nothing_from_a_run(
    database_url: str, service: SimulatorServer
) -> None:
    """It is an error, for a run and for verify; an analyst may be meant to see some rows only."""
    job = Job.of(service, database_url)
    job.run()
    with roles_of(database_url) as roles:
        roles.grant_all()
        loader, auditor = roles.url("loader"), roles.url("auditor")
        job.query("alter table kaltura.upload_token enable row level security")
        for read in (Job.of(service, loader).run, lambda: verify(auditor)):
            with pytest.raises(EtlError) as refused:
                read()
            assert refused.value.exit_code == 78
            assert refused.value.fields["reason"] == "row_security"
            assert "ow-level security" in refused.value.message
        analyst = roles.url("analyst")
        assert read_report(analyst, "kaltura", partner_id=None, days=7, time_zone="UTC").runs
        assert failed(database_parts(job, DATABASE_URL=loader)) == {"tables": 78}


@pytest.mark.pgbouncer
@pytest.mark.parametrize(
    ("mode", "parameter", "reason"),
    [
        ("transaction", "", None),
        ("session", "", None),
        ("statement", "", "statement_pooling"),
        ("transaction", "&options=-cwork_mem%3D8MB", "pooler_parameter"),
    ],
)
def test_a_pooler_that_cannot_be_used_is_told(
    database_url: str,
    pgbouncer_program: str,
    private_folder: Path,
    mode: str,
    parameter: str,
    reason: str | None,
) -> None:
    with (
        pgbouncer(pgbouncer_program, private_folder, database_url, mode=mode) as url,
        open_database(url + parameter, "kaltura") as database,
    ):
        if reason is None:
            require_ready(database)
            return
        with pytest.raises(ConfigurationError) as refused:
            require_ready(database)
    assert refused.value.fields["reason"] == reason
