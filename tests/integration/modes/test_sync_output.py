"""What ``sync`` prints, and what a dry run leaves behind: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from etl.errors import Interrupted
from etl.process.stop import Stop
from etl.run.plan import SyncOptions
from etl.run.sync import sync
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(700, seed=21)) as running:
        yield running


def test_a_dry_run_says_what_would_change_and_changes_nothing(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    first = job.run(options=SyncOptions(dry_run=True))
    assert (first.inserted, first.published_at) == (700, None)
    assert job.everything() == ({}, {})
    job.run()
    rows = listed(server)
    server.account.change(rows[3]["id"], {"status": 4})
    server.account.delete(rows[5]["id"])
    server.account.insert({"id": "new"})
    before = job.everything()

    dry = job.call("--dry-run")

    assert dry.code == 0, dry.err
    report = dry.report
    assert job.everything() == before
    assert (report["inserted"], report["changed"], report["absent"]) == (1, 1, 1)
    changes = {change["token_id"]: change["change_kind"] for change in report["changes"]}
    assert changes == {"new": "first_seen", rows[3]["id"]: "changed", rows[5]["id"]: "absent"}
    (left,) = job.query("select count(*) as n from kaltura.upload_token_staging")
    assert left["n"] == 0
    assert job.last_run()["published_at"] is None

    after = job.run()
    assert (after.inserted, after.changed, after.absent) == (1, 1, 1)
    assert after.resumed_from is None


class Stages:
    """The stages that a run names, each with the figures that it gave."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []
        self.updates: dict[str, int] = {}

    def stage(self, name: str, *, changes: int | None = None) -> None:
        self.seen.append((name, changes))

    def update(self, tokens: int, total: int | None, pages: int) -> None:
        del tokens, total, pages
        self.updates[self.seen[-1][0]] = self.updates.get(self.seen[-1][0], 0) + 1


def test_a_run_names_each_of_its_stages(server: SimulatorServer, database_url: str) -> None:
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    job.run()
    server.account.delete(listed(server)[5]["id"])
    stages = Stages()
    settings = load_settings(environment=job.environment()).checked()
    sync(settings, SyncOptions(), stop=Stop(), progress=stages)

    assert stages.seen == [
        ("logging in", None),
        ("reading", None),
        ("confirming", None),
        ("auditing", None),
        ("publishing", 1),
        ("tidying up", None),
    ]
    assert stages.updates.keys() == {"reading", "confirming"}


def test_a_run_that_waits_for_another_says_so(server: SimulatorServer, database_url: str) -> None:
    job = Job.of(server, database_url)
    job.query(
        "insert into kaltura.sync_run (partner_id, walk_id, mode, status) "
        "values (%s, 99, 'full', 'running')",
        job.partner_id,
    )
    stop = Stop()

    class UntilItWaits(Stages):
        def stage(self, name: str, *, changes: int | None = None) -> None:
            super().stage(name, changes=changes)
            if name == "waiting":
                stop.request()

    stages = UntilItWaits()
    settings = load_settings(environment=job.environment()).checked()
    with pytest.raises(Interrupted):
        sync(settings, SyncOptions(wait_seconds=600), stop=stop, progress=stages)

    assert stages.seen == [("logging in", None), ("waiting", None)]


def test_the_json_is_one_object_and_logs_go_elsewhere(
    server: SimulatorServer, database_url: str
) -> None:
    night = Job.of(server, database_url).call()

    assert night.code == 0, night.err
    assert night.out.count("\n") == 1
    report = night.report
    assert report["run_id"] == 1
    assert (report["inserted"], report["coverage"], report["dry_run"]) == (700, "{(,)}", False)
    assert all(json.loads(line)["level"] for line in night.err.splitlines())
    assert str(server.settings()["admin_secret"]) not in night.out + night.err


def test_a_refusal_is_one_object_too(server: SimulatorServer, database_url: str) -> None:
    server.faults.schedule("foreign-partner", where="list", rate=1.0)

    night = Job.of(server, database_url).call()

    assert night.code == 65
    assert (night.report["status"], night.report["error_kind"]) == ("failed", "refused")
    assert "Traceback" not in night.err
