"""Each command as each role: it works, or it says in one line that the role may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed
from tests.support.model import Row
from tests.support.roles import Roles, own_database, roles_of

KEY = {"ETL_ERASURE_KEY": "0123456789abcdef0123456789abcdef"}


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(80, seed=12)) as running:
        yield running


@pytest.fixture(scope="module")
def roles(postgres_url: str, template_database: str, server: SimulatorServer) -> Iterator[Roles]:
    with own_database(postgres_url, template_database) as url, roles_of(url) as made:
        made.grant_all()
        job = Job.of(server, made.url("loader"), ETL_ABSENCE_GRACE="0s")
        job.run()
        server.account.delete(listed(server)[0]["id"])
        job.run()
        yield made


def call(roles: Roles, server: SimulatorServer, kind: str, *arguments: str) -> tuple[int, Row, str]:
    """Exit code, the JSON object that was printed, and the log."""
    done = Job.of(server, roles.url(kind)).call_command(*arguments, "--json", **KEY)
    assert done.out.startswith("{"), done.err
    return done.code, json.loads(done.out), done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["sync"],
        ["sync", "--mode", "incremental"],
        ["sync", "--dry-run"],
        ["backfill", "--from", "2015-01-01", "--to", "2016-01-01"],
        ["backfill", "--ids", "{ids}"],
        ["verify", "--source", "20"],
        ["status"],
        ["check"],
        ["report", "-o", "{report}"],
        ["prune"],
        ["erase", "--user-id", "nobody"],
    ],
)
def test_what_the_loader_runs(
    roles: Roles, server: SimulatorServer, tmp_path: Path, arguments: list[str]
) -> None:
    ids = tmp_path / "ids"
    ids.write_text("".join(fields["id"] + "\n" for fields in listed(server)[:3]))
    paths = {"ids": ids, "report": tmp_path / "report.html"}

    code, _, log = call(roles, server, "loader", *(each.format(**paths) for each in arguments))

    assert code == 0, log


@pytest.mark.parametrize("arguments", [["verify", "--source", "20"], ["status"], ["report"]])
def test_what_the_auditor_runs(
    roles: Roles, server: SimulatorServer, tmp_path: Path, arguments: list[str]
) -> None:
    if arguments == ["report"]:
        arguments = ["report", "-o", str(tmp_path / "report.html")]

    code, _, log = call(roles, server, "auditor", *arguments)

    assert code == 0, log


@pytest.mark.parametrize(
    ("kind", "arguments", "code"),
    [
        ("loader", ["erase", "--user-id", "nobody", "--apply"], 77),
        ("loader", ["erase", "--account", "--apply"], 77),
        ("loader", ["prune", "--versions-days", "0", "--apply"], 77),
        ("loader", ["grant", "--analyst", "{analyst}", "--apply"], 77),
        ("auditor", ["sync"], 77),
        ("auditor", ["prune", "--apply"], 77),
        ("analyst", ["sync"], 77),
        ("analyst", ["verify"], 77),
        ("analyst", ["check"], 77),
        ("analyst", ["erase", "--user-id", "nobody", "--apply"], 77),
    ],
)
def test_what_a_role_may_not_run(
    roles: Roles, server: SimulatorServer, kind: str, arguments: list[str], code: int
) -> None:
    before = roles.fingerprint()

    found, told, log = call(
        roles, server, kind, *(each.format(**roles.names) for each in arguments)
    )

    assert found == code, (told, log)
    assert "This is a bug" not in log
    after = roles.fingerprint()
    assert after == before


def test_nothing_is_asked_of_the_service_for_a_role_that_cannot_store(
    roles: Roles, server: SimulatorServer
) -> None:
    before = len(server.service.log)
    code, told, _ = call(roles, server, "analyst", "sync")
    assert (code, told["error_kind"]) == (77, "credentials")
    assert "kaltura-etl grant" in told["error_message"]
    assert [record.action for record in list(server.service.log)[before:]] == []


def test_an_incremental_run_in_this_process(roles: Roles, server: SimulatorServer) -> None:
    server.account.insert({"id": "fresh"})

    report = Job.of(server, roles.url("loader")).run(options=SyncOptions(mode="incremental"))

    assert (report.mode, report.inserted) == ("incremental", 1)
