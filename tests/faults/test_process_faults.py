"""A run that is killed, stopped or asked to end at any moment, and the run after it.

Each trial has a copy of a warehouse of a first night, and a second night to read.  Whatever
happens to the run, a reader sees the first night or the second, never anything between; and a
normal run afterwards leaves what an undisturbed one would have left.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed, tell, wait_until
from tests.support.model import Model, assert_same
from tests.support.warm import Warm, warm

TOKENS = 4_000
PAGE_CAP = 100
EXIT_SECONDS_MAX = 10


@dataclass
class Scene:
    """A warehouse after the first night, the account as of the second, and both truths."""

    server: SimulatorServer
    job: Job
    before: Model
    after: Model
    warm: Warm
    folder: Path
    run_seconds: float = 0.0
    """From the first request to the end, undisturbed."""

    @contextmanager
    def copy(self) -> Iterator[Job]:
        """A copy of the warehouse for one trial."""
        url = urlsplit(self.job.database_url)
        template, name = url.path[1:], f"{url.path[1:]}_{secrets.token_hex(4)}"
        with closing(psycopg.connect(self._admin_url(), autocommit=True)) as admin:
            admin.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            try:
                yield replace(self.job, database_url=urlunsplit(url._replace(path=f"/{name}")))
            finally:
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def _admin_url(self) -> str:
        return urlunsplit(urlsplit(self.job.database_url)._replace(path="/postgres"))

    def start(self, job: Job) -> int:
        """A run as a process; returns its pid when its first request has arrived."""
        known = len(self.server.service.log)
        pid = self.warm.start(job.environment(), "sync", "--json", output=self.folder / "output")
        wait_until(lambda: len(self.server.service.log) > known, 60)
        return pid

    def output(self) -> str:
        return (self.folder / "output").read_text()


def make_scene(database_url: str, folder: Path, starter: Warm, server: SimulatorServer) -> Scene:
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    before, after = Model(), Model()
    for model in (before, after):
        model.night(listed(server))
    job.run()
    server.life().advance(48)
    for token in random.Random(1).sample(list(server.account.line), 150):
        server.account.delete(token.id)
    after.night(listed(server))
    scene = Scene(server, job, before, after, starter, folder)
    # The first run of all pays for things that later ones find ready.
    for _ in range(2):
        with scene.copy() as copy:
            pid = scene.start(copy)
            began = time.monotonic()
            assert starter.wait(pid) == 0, scene.output()
            scene.run_seconds = time.monotonic() - began
            assert_is(copy, after)
    return scene


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    account = generate_account(TOKENS, seed=5)
    with SimulatorServer(account, page_cap=PAGE_CAP) as server, warm() as starter:
        yield make_scene(database_url, tmp_path, starter, server)


def assert_is(job: Job, model: Model) -> None:
    assert_same(job.current(), model.current())
    assert_same(job.superseded(), model.superseded())


def assert_truthful(job: Job, scene: Scene) -> dict[str, Any]:
    """What a reader sees is what the ledger says; returns the ledger's last row."""
    with psycopg.connect(job.database_url) as connection:
        # One snapshot: the process may be at work still.
        connection.execute("set transaction isolation level repeatable read")
        runs = connection.execute(
            "select status, published_at is not null from kaltura.sync_run order by run_id"
        ).fetchall()
        visible = connection.execute(
            "select (select count(*) from kaltura.upload_token), "
            "(select count(*) from kaltura.upload_token_superseded)"
        ).fetchone()
    published = sum(status == "succeeded" for status, _ in runs)
    assert all((status == "succeeded") == stamped for status, stamped in runs)
    model = {1: scene.before, 2: scene.after}[published]
    assert visible == (len(model.current()), len(model.superseded()))
    return job.last_run()


def kill_one(scene: Scene, rng: random.Random, outcomes: Counter[str]) -> None:
    """SIGKILL at a random moment, then a normal run."""
    with scene.copy() as job:
        pid = scene.start(job)
        time.sleep(rng.uniform(0, scene.run_seconds))
        assert_truthful(job, scene)  # also while it is at work
        os.kill(pid, signal.SIGKILL)
        code = scene.warm.wait(pid)
        # Postgres may be committing what it was sent before the end.
        wait_until(lambda: _is_alone(job))
        killed = assert_truthful(job, scene)
        before_it_opened = len(job.runs()) == 1
        published = killed["status"] == "succeeded" and not before_it_opened
        assert_is(job, scene.after if published else scene.before)
        outcomes[f"{'no run' if before_it_opened else killed['status']} {code}"] += 1
        assert killed["status"] in ("running", "succeeded")

        expire_lease(job)
        report = job.run()

        assert_is(job, scene.after)
        outcomes["resumed"] += report.resumed_from is not None
        first, *_, last = job.runs()
        assert first["status"] == last["status"] == "succeeded"
        if killed["status"] == "running":
            assert job.runs()[1]["status"] == "abandoned"
        (left,) = job.query("select count(*) as n from kaltura.upload_token_staging")
        assert left["n"] == 0


def stop_one(scene: Scene, rng: random.Random, outcomes: Counter[str]) -> None:
    """SIGTERM at a random moment: a quick end, a truthful ledger, and a normal run."""
    with scene.copy() as job:
        pid = scene.start(job)
        time.sleep(rng.uniform(0, scene.run_seconds))
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        code = scene.warm.wait(pid)
        seconds = time.monotonic() - began
        outcomes["slowest exit, ms"] = max(outcomes["slowest exit, ms"], int(seconds * 1000))
        assert seconds < EXIT_SECONDS_MAX
        stopped = assert_truthful(job, scene)
        before_it_opened = len(job.runs()) == 1
        outcomes[f"{'no run' if before_it_opened else stopped['status']} {code}"] += 1
        if code == 0:
            assert stopped["status"] == "succeeded"
            assert len(job.runs()) == 2
        else:
            assert code == 143, scene.output()
            assert before_it_opened or (stopped["status"], stopped["error_kind"]) == (
                "failed",
                "interrupted",
            )
            assert_is(job, scene.before)
        report = job.run()
        assert_is(job, scene.after)
        outcomes["resumed"] += report.resumed_from is not None


def expire_lease(job: Job) -> None:
    """Age the lease of a killed run by an hour."""
    job.query(
        "update kaltura.sync_run set heartbeat_at = heartbeat_at - interval '1 hour' "
        "where status = 'running'"
    )


def _is_alone(job: Job) -> bool:
    (others,) = job.query(
        "select count(*) as n from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    return int(others["n"]) == 0


def test_killed_at_random_moments(scene: Scene) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(6):
        kill_one(scene, random.Random(seed), outcomes)
    tell(outcomes)


def test_told_to_stop_at_random_moments(scene: Scene) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(6):
        stop_one(scene, random.Random(seed), outcomes)
    tell(outcomes)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("first", [100, 150])
def test_killed_at_100_random_moments(scene: Scene, first: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + 50):
        kill_one(scene, random.Random(seed), outcomes)
    tell(outcomes)
    assert outcomes["running -9"] > 20


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
def test_told_to_stop_at_100_random_moments(scene: Scene) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(100, 200):
        stop_one(scene, random.Random(seed), outcomes)
    tell(outcomes)
    assert outcomes["failed 143"] > 30
