"""dbt itself builds and tests the package ``sql/dbt``, on a warehouse that real runs have filled.

It connects as an analyst, with the rights that ``grant`` gives and a schema of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.grants import grant
from tests.support.job import Job
from tests.support.model import Row

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("project")
PACKAGE = ROOT / "sql" / "dbt"
RUNNER = Path(__file__).with_name("run_dbt.py")
SOURCES = PACKAGE / "models" / "sources.yml"
MODELS = {path.stem for path in (PACKAGE / "models").rglob("*.sql")}
OTHER_PARTNER = 103
ORDINARY_TYPES = {
    *("text", "boolean", "smallint", "integer", "bigint", "numeric", "double precision"),
    *("date", "timestamp with time zone"),
}
"""What every tool knows: no intervals, ranges, arrays or jsonb."""
UNKNOWN_STATUS = "source_relationships_kaltura_upload_token_status"

# dbt is slow to start, and on a busy machine more so; installing it comes on top.
pytestmark = [pytest.mark.campaign, pytest.mark.dbt, pytest.mark.timeout(900)]


class Dbt:
    """dbt in an analyst's project, which has the package installed."""

    def __init__(self, python: Path, database_url: str, analyst: str, folder: Path) -> None:
        self.project, self.package = folder / "project", folder / "package"
        shutil.copytree(PROJECT, self.project)
        shutil.copytree(PACKAGE, self.package)
        where = conninfo_to_dict(database_url)
        self._python = python
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "DO_NOT_TRACK": "1",
            "DBT_HOST": str(where["host"]),
            "DBT_USER": analyst,
            "DBT_DATABASE": str(where["dbname"]),
        }

    def __call__(self, *commands: list[str], **environment: str) -> list[Row]:
        """``dbt(["parse"], ["test"])``: what became of each command."""
        done = subprocess.run(
            [str(self._python), str(RUNNER), json.dumps(commands)],
            env=self._environment | environment,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(told, list)
        for command in told:
            assert command["deprecations"] == [], command
        return told


@pytest.fixture
def analyst(database_url: str) -> Iterator[str]:
    """A role with an analyst's rights and a schema for its models."""
    role = f"analyst_{secrets.token_hex(4)}"
    name = sql.Identifier(role)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login").format(name))
        connection.execute(sql.SQL("create schema analytics authorization {}").format(name))
        grant(database_url, "kaltura", {"analyst": role}, apply=True)
        yield role
        connection.execute(sql.SQL("drop owned by {} cascade").format(name))
        connection.execute(sql.SQL("drop role {}").format(name))


@pytest.fixture
def dbt(dbt_python: Path, database_url: str, analyst: str, tmp_path: Path) -> Dbt:
    return Dbt(dbt_python, database_url, analyst, tmp_path)


def test_dbt_builds_and_tests_the_package(dbt: Dbt, database_url: str) -> None:
    with SimulatorServer(generate_account(40, seed=3, partner_id=OTHER_PARTNER)) as other:
        Job.of(other, database_url).run()
    account = generate_account(400, seed=11)
    with SimulatorServer(account, seed=11) as server:
        job, life = Job.of(server, database_url), server.life()

        def night() -> None:
            job.run()
            life.advance(24)
            life.delete_some_user()

        for _ in range(4):
            night()

        deps, freshness, run, tests, docs = dbt(
            ["deps"], ["source", "freshness"], ["run"], ["test"], ["docs", "generate"]
        )

        for command in (deps, freshness, run, tests, docs):
            assert command["success"], command
        assert freshness["statuses"] == {"pass": 2}
        # Those of the package, and two of the project's own.
        assert run["statuses"] == {"success": len(MODELS) + 2}
        _all_passed(tests)
        (built,) = job.query("select count(*) from analytics.current_upload_tokens")
        (listed,) = job.query("select count(*) from kaltura.upload_token where is_listed")
        assert built["count"] == listed["count"] > 0
        for name, columns in _built(job).items():
            assert set(columns.values()) <= ORDINARY_TYPES, name
        before = _changes(job)
        assert before["kept"] == before["published"]

        # A later night appends.  So does a run whose number is less than those of another account,
        # because it was published after them: as if this one had been.
        night()
        job.query(
            "delete from analytics.kaltura_status_changes where partner_id = %s returning 1",
            OTHER_PARTNER,
        )
        run, tests = dbt(["run"], ["test"], PGOPTIONS="-c kaltura.time_zone=Europe/Berlin")

    assert run["success"], run
    _all_passed(tests)
    after = _changes(job)
    assert after["kept"] == after["published"] > before["published"]
    assert after["table"] == before["table"]
    zones = job.query("select distinct time_zone from analytics.kaltura_upload_days")
    assert zones == [{"time_zone": "Europe/Berlin"}]

    # Two nights without a run.
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update kaltura.sync_run set published_at = published_at - interval '51 hours'"
        )
    (stale,) = dbt(["source", "freshness"])

    assert not stale["success"]
    assert stale["statuses"] == {"error": 2}


def test_dbt_installs_the_package_from_a_folder_of_a_repository(dbt: Dbt, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(PACKAGE, checkout / "sql" / "dbt")
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "a"),
    ):
        subprocess.run(("git", *command), cwd=checkout, check=True)
    (dbt.project / "packages.yml").write_text(
        f"packages:\n  - git: file://{checkout}\n    subdirectory: sql/dbt\n    revision: main\n"
    )

    for told in dbt(["deps"], ["parse"]):
        assert told["success"], told
    (installed,) = (dbt.project / "dbt_packages").iterdir()
    assert (installed / "models" / "sources.yml").read_bytes() == SOURCES.read_bytes()


def _all_passed(tests: Row) -> None:
    """Codes that Kaltura does not document are worth a warning, and the only one."""
    assert tests["success"], tests
    assert all(UNKNOWN_STATUS in name for name in tests["not_passed"]), tests
    assert tests["statuses"]["pass"] > 150


def _built(job: Job) -> dict[str, dict[str, str]]:
    """The types of the columns of each model of the package."""
    found: dict[str, dict[str, str]] = {}
    for row in job.query(
        "select table_name, column_name, data_type from information_schema.columns "
        "where table_schema = 'analytics'"
    ):
        found.setdefault(row["table_name"], {})[row["column_name"]] = row["data_type"]
    return {name: found[name] for name in MODELS}


def _changes(job: Job) -> Row:
    (row,) = job.query(
        "select (select count(*) from analytics.kaltura_status_changes) as kept, "
        "(select count(*) from kaltura.upload_token_status_history) as published, "
        "'analytics.kaltura_status_changes'::regclass::oid as table"
    )
    return row
