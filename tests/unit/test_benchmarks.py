"""What the benchmarks know of the program by name is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.compare import CASES, Comparison, Conditions, Round
from benchmarks.limits import Copied
from benchmarks.meter import Measured
from benchmarks.peers.environments import PEERS, Peer
from benchmarks.peers.results import Results, entry_of, section
from benchmarks.scale import VIEWS
from benchmarks.service import ACCOUNTS, Delay
from benchmarks.stop_watch import WATCHED, NotThere, find
from benchmarks.views import QUERIES
from etl.simulator.account.kinds import KINDS


@pytest.mark.parametrize("path", [path for path, _ in WATCHED])
def test_a_watched_function_exists(path: str) -> None:
    assert callable(find(path)[2])


def test_a_name_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(NotThere, match=r"watches etl\.coverage:gone, which is not there"):
        find("etl.coverage:gone")
    with pytest.raises(NotThere, match=r"etl\.nothing:gone"):
        find("etl.nothing:gone")


def test_every_account_is_a_kind_of_the_simulator() -> None:
    assert set(ACCOUNTS) == set(KINDS)


def test_the_views_of_a_growing_warehouse_are_queries() -> None:
    assert set(VIEWS) <= set(QUERIES)


def test_the_stages_of_the_main_thread_add_up(tmp_path: Path) -> None:
    watch = tmp_path / "watch.json"
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stop_watch", "sync", "--help"],
        env={**os.environ, "STOP_WATCH_FILE": str(watch), "STOP_WATCH_BEGAN": repr(began)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    spent = json.loads(watch.read_text(encoding="utf-8"))
    assert {"imports", "start of Python", "the rest"} <= spent["main"].keys()
    whole = sum(stage["seconds"] for stage in spent["main"].values())
    assert 0 < whole <= time.time() - began
    assert all(stage["cpu"] > -0.01 for stages in spent.values() for stage in stages.values())


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_has_a_program_and_pinned_packages(peer: Peer) -> None:
    assert peer.requirements.with_suffix(".py").exists()
    assert all(name in peer.versions() for name in peer.packages)
    pinned = [
        line
        for line in peer.requirements.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert all("==" in line and "://" not in line for line in pinned)


def comparison(tokens: int, tools: dict[str, float], failures: dict[str, str]) -> Comparison:
    """One round in which each tool took so many seconds in every case, at a limit of 2 s."""
    conditions = Conditions(account="plain", tokens=tokens, delay=Delay(), concurrency=4, rounds=1)
    one = Round(1.0, Copied(2.0, 1_000))
    for case in CASES:
        one.runs[case] = {
            name: Measured(
                seconds=seconds,
                client_cpu=1.0,
                server_cpu=0.5,
                server_background_cpu=0.25,
                service_cpu=0.0,
                peak_rss_bytes=2**20,
                wal_bytes=2_000,
                rows_written=10,
                dead_tuples=0,
                output="",
            )
            for name, seconds in tools.items()
        }
    return Comparison(
        conditions, "18", [one], lost={name: [0] for name in tools}, failures=failures
    )


def test_results_name_ratios_and_failures_and_keep_peers_that_were_not_measured_again() -> None:
    results = Results({})
    failed = {"singer": "first load: a reason"}
    first = comparison(1_000, {"kaltura-etl": 4.0, "dlt-csv": 12.0, "dlt-arrow": 8.0}, failed)
    results.update(entry_of(first, command="one"))
    again = comparison(1_000, {"kaltura-etl": 2.0}, {})
    results.update(entry_of(again, command="two"))
    assert len(results.entries) == 1
    text = section(next(iter(results.entries.values())))
    assert "| first load | kaltura-etl | 2.00 | 1.00 " in text
    assert "| first load | dlt-arrow | 8.00 | 4.00 " in text
    assert "first load 4.0 \N{MULTIPLICATION SIGN} faster than dlt-arrow" in text
    assert "**singer was not measured to the end.** first load: a reason" in text
    assert "`two`" in text
    assert "`one`" in text
