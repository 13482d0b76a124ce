"""A night in Airflow, for real: its scheduler and executor run the DAGs of ``examples/airflow``."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.job import ROOT, wait_until
from tests.support.night import Night
from tests.support.own_airflow import ENDED, OwnAirflow, own_airflow
from tests.support.tenants import tenants

DAGS = ROOT / "examples" / "airflow"
WAIT = 300  # on a busy machine Airflow needs seconds for each step of a task
TOKENS = 2_000
"""In pages of 50: 24 of them are saved before the service is held after 30."""
GOOD, FLAKY, LOCKED_OUT, REFUSED, KILLED = "a01", "a02", "a03", "a04", "a05"

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


@pytest.fixture
def night(database_url: str, tmp_path: Path) -> Iterator[Night]:
    with tenants(5, database_url, tmp_path, tokens=TOKENS) as many:
        yield Night(many, tmp_path)


@pytest.fixture
def airflow(airflow_programs: Path, night: Night) -> Iterator[OwnAirflow]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        own_airflow(airflow_programs, Path(home), DAGS, night.environment()) as running,
    ):
        yield running


def test_nights_in_airflow(airflow: OwnAirflow, night: Night) -> None:
    """One test: starting Airflow takes longer than all that is shown here."""
    _a_night_in_which_four_accounts_have_trouble(airflow, night)
    _what_has_failed_is_mended_and_what_follows_is_let_in(airflow, night)
    _a_backfill_waits_for_a_nightly_run_and_an_incremental_run_leaves_it_alone(airflow, night)
    _a_run_that_somebody_stops_leaves_a_true_ledger(airflow, night)


def _a_night_in_which_four_accounts_have_trouble(airflow: OwnAirflow, night: Night) -> None:
    many = night.many
    night.write_settings(**{f"SECRET_{LOCKED_OUT}": "wrong"})
    many.faults = {many.partner(FLAKY): "503-html", many.partner(REFUSED): "foreign-partner"}
    released = night.hold(KILLED, 30)

    airflow.pause("kaltura_marts", paused=False)
    airflow.pause("kaltura_backfill", paused=False)
    airflow.pause("kaltura_nightly", paused=False)
    wait_until(lambda: airflow.runs("kaltura_nightly"), WAIT)
    (run,) = airflow.runs("kaltura_nightly")
    wait_until(lambda: [each for each in night.runs(FLAKY) if each["status"] == "failed"], WAIT)
    many.faults.pop(many.partner(FLAKY))
    wait_until(lambda: night.running(KILLED), WAIT)
    _kill_as_without_memory(int(night.runs(KILLED)[0]["pid"]))
    released.set()
    wait_until(lambda: airflow.state("kaltura_nightly", run) in ENDED, WAIT)

    assert run.startswith("scheduled__")
    assert airflow.tasks("kaltura_nightly", run) == {
        "accounts": ("success", 1),
        GOOD: ("success", 1),
        FLAKY: ("success", 2),
        LOCKED_OUT: ("failed", 1),
        REFUSED: ("failed", 1),
        KILLED: ("success", 2),
        "figures": ("upstream_failed", 0),
    }
    (summary,) = airflow.xcom("kaltura_nightly", run, "sync", 0)["accounts"]
    assert (summary["name"], summary["inserted"]) == (GOOD, TOKENS)
    told = {name: [run["status"] for run in night.runs(name)] for name in many.names}
    assert told == {
        GOOD: ["succeeded"],
        FLAKY: ["failed", "succeeded"],
        LOCKED_OUT: ["failed"],
        REFUSED: ["refused"],
        KILLED: ["abandoned", "succeeded"],
    }
    assert {night.runs(name)[0]["attempts"] for name in (LOCKED_OUT, REFUSED)} == {1}
    dead, resumed = night.runs(KILLED)
    assert resumed["resumed_from"] == dead["run_id"]
    assert {each["label"] for each in (dead, resumed)} == {f"kaltura_nightly {run}"}
    assert many.rows() == many.truth(many.partner(LOCKED_OUT), many.partner(REFUSED))
    assert airflow.runs("kaltura_marts") == []


def _what_has_failed_is_mended_and_what_follows_is_let_in(
    airflow: OwnAirflow, night: Night
) -> None:
    many = night.many
    night.write_settings()
    many.faults = {}
    (run,) = airflow.runs("kaltura_nightly")
    airflow.clear_failed("kaltura_nightly", run)
    wait_until(lambda: airflow.state("kaltura_nightly", run) in ENDED, WAIT)
    wait_until(lambda: airflow.runs("kaltura_marts"), WAIT)
    (marts,) = airflow.runs("kaltura_marts")
    wait_until(lambda: airflow.state("kaltura_marts", marts) in ENDED, WAIT)

    tasks = airflow.tasks("kaltura_nightly", run)
    assert {state for state, _ in tasks.values()} == {"success"}
    assert tasks[GOOD] == ("success", 1)
    figures = airflow.xcom("kaltura_nightly", run, "figures")
    assert {name: figure["inserted"] for name, figure in figures.items()} == dict.fromkeys(
        many.names, TOKENS
    )
    assert airflow.tasks("kaltura_marts", marts) == {
        "fresh": ("success", 1),
        "build": ("success", 1),
    }
    assert many.rows() == many.truth()


def _a_backfill_waits_for_a_nightly_run_and_an_incremental_run_leaves_it_alone(
    airflow: OwnAirflow, night: Night
) -> None:
    created = sorted(token.created_at for token in night.many.accounts[4].line)
    start, end = (datetime.fromtimestamp(created[index], UTC) for index in (300, 700))
    released = night.hold(KILLED, 30)
    airflow.trigger("kaltura_nightly", "by-hand", accounts=[KILLED])
    wait_until(lambda: night.running(KILLED), WAIT)
    airflow.trigger(
        "kaltura_backfill",
        "march",
        accounts=[KILLED],
        interval_start=start.isoformat(),
        interval_end=end.isoformat(),
    )
    wait_until(lambda: "waiting: " in airflow.log("kaltura_backfill", "march"), WAIT)
    airflow.pause("kaltura_incremental", paused=False)
    wait_until(lambda: airflow.runs("kaltura_incremental"), WAIT)
    airflow.pause("kaltura_incremental", paused=True)
    (incremental, *_) = airflow.runs("kaltura_incremental")
    airflow.pause("kaltura_incremental", paused=False)
    wait_until(lambda: airflow.state("kaltura_incremental", incremental) in ENDED, WAIT)
    airflow.pause("kaltura_incremental", paused=True)
    assert airflow.state("kaltura_nightly", "by-hand") == "running"
    assert airflow.state("kaltura_backfill", "march") == "running"
    released.set()
    wait_until(lambda: airflow.state("kaltura_nightly", "by-hand") in ENDED, WAIT)
    wait_until(lambda: airflow.state("kaltura_backfill", "march") in ENDED, WAIT)

    assert airflow.tasks("kaltura_incremental", incremental) == {"sync": ("skipped", 1)}
    assert airflow.tasks("kaltura_backfill", "march") == {
        "accounts": ("success", 1),
        KILLED: ("success", 1),
    }
    done = [run for run in night.runs(KILLED) if run["status"] == "succeeded"]
    nightly, backfill = done[-2:]
    assert (nightly["mode"], backfill["mode"]) == ("full", "backfill")
    assert backfill["started_at"] >= nightly["finished_at"]
    assert backfill["range_from"] == start
    assert backfill["range_to"] == end - timedelta(seconds=1)


def _a_run_that_somebody_stops_leaves_a_true_ledger(airflow: OwnAirflow, night: Night) -> None:
    released = night.hold(KILLED, 30)
    airflow.trigger("kaltura_nightly", "stopped", accounts=[KILLED])
    wait_until(lambda: night.running(KILLED), WAIT)
    airflow.fail("kaltura_nightly", "stopped", "sync", 0)
    wait_until(lambda: night.runs(KILLED)[-1]["status"] != "running", WAIT)
    released.set()

    stopped = night.runs(KILLED)[-1]
    assert (stopped["status"], stopped["error_kind"]) == ("failed", "interrupted")


def _kill_as_without_memory(pid: int) -> None:
    """The process of the task, and the program that it waits for: nobody can clean up."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    parent = int(stat.rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
