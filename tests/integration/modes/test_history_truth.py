"""The history against the truth: every token, every night, every change of status.

A simulated account lives, with a log of when exactly each thing happened.  Its nights are of all
kinds: quiet, with changes while the run reads, with rows that cannot be read or loaded, with runs
that failed and were resumed, with incremental runs between.  Then ``upload_token_as_of`` is what
was true each night, and every interval of ``upload_token_status_history`` holds the true moment.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.support.chronicle import Chronicle
from tests.support.history import (
    Estimate,
    as_of,
    judge,
    missing_changes,
    quantile,
    status_changes,
    wrong_states,
)
from tests.support.job import Job, tell
from tests.support.moments import fill_moments_anew

KINDS: dict[str, dict[str, Any]] = {
    "quiet": {},
    "churn": {"churn": 0.5},
    "rejected": {"rejected": 5},
    "poisoned": {"poisoned": 1},
    "resumed": {"broken": True},
    "resumed under churn": {"broken": True, "churn": 0.3},
    "grace": {"grace_hours": 80},
    "incremental": {"mode": "incremental"},
    "incremental under churn": {"mode": "incremental", "churn": 0.3},
}
KEPT = {"ETL_KEEP_PAGES_DAYS": "3650", "ETL_MAX_UNREADABLE": "10"}


def chronicle_of(
    database_url: str, kinds: list[str], *, tokens: int, page_cap: int, seed: int
) -> Chronicle:
    """Live through a first load and these nights."""
    account = generate_account(tokens, seed=seed, open_share=0.4)
    rng = random.Random(seed)
    server = SimulatorServer(account, page_cap=page_cap, seed=seed, shuffle_ties=True)
    with server:
        chronicle = Chronicle(server, Job.of(server, database_url, **KEPT), seed)
        chronicle.night()
        for kind in kinds:
            chronicle.live(rng.choice((24.0, 24.0, rng.uniform(4, 50))))
            chronicle.night(**KINDS[kind])
    return chronicle


def assert_history_is_true(chronicle: Chronicle) -> list[Estimate]:
    """All that must hold in the end; prints the figures."""
    assert_none(wrong_states(chronicle))
    for night in chronicle.nights:
        # Until the next publication, nothing that the warehouse knew has changed.
        assert as_of(chronicle, night.published_at + timedelta(hours=1)) == as_of(
            chronicle, night.published_at
        )
    changes = status_changes(chronicle)
    assert_none(missing_changes(chronicle, changes))
    outside, estimates = judge(chronicle, changes)
    assert_none(outside)
    assert [each for each in verify(chronicle.job.database_url) if not each.ok] == []
    tell({**chronicle.figures, **figures_of(estimates)})
    return estimates


def assert_none(wrong: list[str]) -> None:
    """Nothing is wrong; the first few are shown in full."""
    tell({"wrong": wrong[:3]} if wrong else {})
    assert len(wrong) == 0


def figures_of(estimates: list[Estimate]) -> dict[str, float]:
    """Errors of the best estimate in seconds, and what a plain snapshot's stamp would be off."""
    told: dict[str, float] = {"changes": len(estimates), "outside their interval": 0}
    for kind in ("first_seen", "changed", "absent", "relisted"):
        some = [each for each in estimates if each.kind == kind]
        if some:
            told |= {
                f"{kind}": len(some),
                f"{kind}, error median": round(quantile([each.error for each in some], 0.5), 1),
                f"{kind}, error p95": round(quantile([each.error for each in some], 0.95), 1),
                f"{kind}, within 1 s": round(sum(each.error <= 1 for each in some) / len(some), 4),
                f"{kind}, stamp late, median": round(quantile([e.late for e in some], 0.5), 1),
                f"{kind}, interval, median": round(quantile([e.width for e in some], 0.5), 1),
            }
    return told


def test_the_history_of_nine_nights_is_true(database_url: str) -> None:
    kinds = ["churn", "rejected", "poisoned", "incremental", "resumed", "grace", "churn", "quiet"]
    chronicle = chronicle_of(database_url, kinds, tokens=700, page_cap=50, seed=11)
    estimates = assert_history_is_true(chronicle)
    assert {each.kind for each in estimates} >= {"first_seen", "changed", "absent"}
    figures = chronicle.figures
    assert figures["rejected"] > 0
    assert figures["pending"] > 0
    assert figures["absences"] > 0


def test_an_interval_needs_to_know_what_a_run_did_not_see(database_url: str) -> None:
    """Without ``unobserved_token`` intervals would be too narrow: the campaign finds that."""
    chronicle = chronicle_of(
        database_url, ["rejected", "grace", "quiet"], tokens=300, page_cap=100, seed=12
    )
    assert judge(chronicle, status_changes(chronicle))[0] == []
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = kaltura")
        connection.execute("delete from unobserved_token")
        # As they would have been published.
        fill_moments_anew(connection)
    assert judge(chronicle, status_changes(chronicle))[0] != []


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_history_of_sixty_nights_is_true(database_url: str, seed: int) -> None:
    rng = random.Random(f"{seed}/kinds")
    others = [kind for kind in KINDS if kind != "quiet"]
    kinds = [rng.choice([*others, "quiet", "quiet", "quiet"]) for _ in range(59)]
    chronicle = chronicle_of(database_url, kinds, tokens=600, page_cap=40, seed=seed)
    assert_history_is_true(chronicle)
