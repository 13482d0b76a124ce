"""Many nights of an account that lives: after each one the warehouse is what the service was."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed, requests_of
from tests.support.model import Model, assert_same

NIGHTS = 6


def night_is_right(job: Job, model: Model, server: SimulatorServer, **options: Any) -> Counter[str]:
    """One run, and everything that it left compared with the model."""
    report = job.run(options=SyncOptions(**options), ETL_ABSENCE_GRACE="0s")
    kinds = model.night(listed(server))
    assert_same(job.current(), model.current())
    assert_same(job.superseded(), model.superseded())
    told = {
        "first_seen": report.inserted,
        "changed": report.changed,
        "absent": report.absent,
        "relisted": report.relisted,
        "unchanged": report.unchanged,
    }
    assert told == {kind: kinds[kind] for kind in told}
    return kinds


@pytest.mark.parametrize(("seed", "page_cap"), [(1, 500), (2, 100)])
def test_a_week_of_a_living_account(database_url: str, seed: int, page_cap: int) -> None:
    account = generate_account(1_500, seed=seed)
    seen: Counter[str] = Counter()
    with SimulatorServer(account, page_cap=page_cap, seed=seed, shuffle_ties=True) as server:
        job, model, life = Job.of(server, database_url), Model(), server.life()
        rng = random.Random(seed)
        night_is_right(job, model, server)
        gone: list[str] = []
        for night in range(NIGHTS):
            life.advance(24)
            if night % 2:
                life.delete_some_user()
            for token_id in rng.sample(gone, min(5, len(gone))):
                account.undelete(token_id)
            tokens = [token.id for token in account.line]
            some = rng.sample(tokens, 8)
            account.change(some[0], {"fileName": None})
            account.change(some[1], {"uploadUrl": "https://one.example/", "autoFinalize": True})
            account.change(some[2], {"autoFinalize": True}, touch=False)  # no reason for a version
            account.change(some[3], {"attachedObjectId": ...}, touch=False)
            account.change(some[4], {"aNewKey": {"a": [1, None]}, "another": "x"}, touch=False)
            account.change(some[5], {"userId": f"renamed{night}"}, touch=False)
            for token_id in some[6:]:
                account.delete(token_id)
                gone.append(token_id)
            seen += night_is_right(job, model, server)
        # A night in which nothing happened.
        quiet = night_is_right(job, model, server)
        assert quiet.keys() <= {"unchanged"}
    assert all(seen[kind] for kind in ("first_seen", "changed", "absent", "relisted")), seen


def test_a_token_that_comes_and_goes(database_url: str) -> None:
    account = generate_account(50, seed=3)
    token_id = account.line[20].id
    with SimulatorServer(account) as server:
        job, model = Job.of(server, database_url), Model()
        for _ in range(3):
            night_is_right(job, model, server)
            account.delete(token_id)
            night_is_right(job, model, server)
            account.undelete(token_id)
        night_is_right(job, model, server)

    kinds = [version["change_kind"] for version in model.versions[token_id]]
    assert kinds == ["first_seen", *["absent", "relisted"] * 3]


def test_the_ends_of_the_list(database_url: str) -> None:
    """The first and the last token, a whole page, all but one, all: none goes unseen."""
    account = generate_account(1_200, seed=4)
    with SimulatorServer(account) as server:
        job, model = Job.of(server, database_url), Model()
        night_is_right(job, model, server)
        account.delete(account.line[0].id)
        account.delete(account.line[len(account) - 1].id)
        night_is_right(job, model, server)
        while len(account) > 600:
            account.delete(account.line[500].id)
        night_is_right(job, model, server, accept_absences=600)
        while len(account) > 1:
            account.delete(account.line[0].id)
        night_is_right(job, model, server, accept_absences=599)
        account.delete(account.line[0].id)
        night_is_right(job, model, server)
        night_is_right(job, model, server)
        account.insert({"id": "again"})
        night_is_right(job, model, server)


def test_an_empty_account(database_url: str) -> None:
    with SimulatorServer(generate_account(0, seed=1)) as server:
        job, model = Job.of(server, database_url), Model()
        assert not night_is_right(job, model, server)

        assert job.last_run()["certificate"] == "{(,)}"
        assert requests_of(server) <= 3


@pytest.mark.parametrize("tokens", [20_000])
def test_requests_of_a_quiet_walk(database_url: str, tokens: int) -> None:
    with SimulatorServer(generate_account(tokens, seed=1)) as server:
        job = Job.of(server, database_url)
        job.run()
        first = requests_of(server)
        job.run()

        limit = 1.10 * tokens / 500
        assert first <= limit
        assert requests_of(server) - first <= limit
        # Anybody can check the certificate.
        spans = job.query(
            "select run_id, range_agg(span)::text as certificate from kaltura.sync_page "
            "group by run_id order by run_id"
        )
        assert [row["certificate"] for row in spans] == ["{(,)}", "{(,)}"]
