"""The theorem, end to end: a list that changes while it is read, over HTTP, into Postgres.

An adversary deletes tokens that have been read already (each pulls an unread one across the edge of
the next page), inserts others so that the count does not show it, and changes some, after every
request.  The truth is the simulator's log of what was listed when.  Each seed lives through three
nights: a first load and an ordinary night under churn, and a quiet one.
"""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from etl.simulator import Churn, SimulatorClient, SimulatorServer, generate_account
from tests.support.job import Job, listed, tell
from tests.support.model import VALUES, assert_same, columns_of

TOKENS = 2_000
PAGE_CAP = 100


def account_of(seed: int) -> SimulatorServer:
    rng = random.Random(seed)
    account = generate_account(
        rng.randrange(TOKENS // 2, TOKENS), seed=seed, partner_id=1_000 + seed
    )
    return SimulatorServer(
        account, page_cap=PAGE_CAP, seed=seed, shuffle_ties=seed % 2 == 1, keep_ids=False
    )


def churn_of(seed: int) -> Churn:
    return Churn(delete=0.5, insert=0.5, change=0.5, mode="hostile", seed=seed)


def lost_by_a_plain_walk(seed: int) -> int:
    """How many tokens that were listed throughout a page-by-page walk does not show."""
    with account_of(seed) as server, SimulatorClient(server.url) as client:
        known = server.settings()
        ks = client.start_session(known["admin_secret"], known["partner_id"])
        server.service.churn = churn_of(seed)
        mark, index = server.account.mark, 1
        seen: set[str] = set()
        while rows := client.list_tokens(ks, index, PAGE_CAP)["objects"]:
            seen.update(row["id"] for row in rows)
            index += 1
        throughout = server.account.listed_throughout(mark, server.account.mark)
        return sum(token_id not in seen for token_id, _ in throughout)


def live_through(seed: int, database_url: str) -> Counter[str]:
    """Three nights of one account; returns what went wrong and how much happened, by kind."""
    found: Counter[str] = Counter()
    with account_of(seed) as server:
        account, job = server.account, Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
        for night, churn in enumerate((churn_of(seed), churn_of(seed + 1_000_000), None)):
            server.service.churn = churn
            mark = account.mark
            report = job.run()
            server.service.churn = None
            throughout = {token_id for token_id, _ in account.listed_throughout(mark, account.mark)}
            current = job.current()
            here = {token_id for token_id, row in current.items() if row["is_listed"]}
            absent_now = {
                row["token_id"]
                for row in job.query(
                    "select token_id from kaltura.upload_token "
                    "where run_id = %s and change_kind = 'absent'",
                    report.run_id,
                )
            }
            known_ids = {token_id for token_id, _ in account.listed_sometime(0, account.mark)}
            found["throughout"] += len(throughout)
            found["lost"] += len(throughout - here)
            found["false absences"] += len(throughout & absent_now)
            found["invented"] += len(current.keys() - known_ids)
            found["absences"] += len(absent_now)
            found["requests"] += report.requests
            found["incomplete certificates"] += report.coverage != "{(,)}"
            found["events"] += account.mark - mark
            for token_id in random.Random(seed).sample(sorted(throughout & here), 50):
                found["wrong values"] += not _was_served(server, token_id, current[token_id])
            if night == 2:
                expected = {fields["id"]: columns_of(fields) for fields in listed(server)}
                assert_same(
                    {
                        token_id: {name: row[name] for name in VALUES}
                        for token_id, row in current.items()
                        if row["is_listed"]
                    },
                    expected,
                )
    found["seeds"] = 1
    return found


def _was_served(server: SimulatorServer, token_id: str, row: dict[str, object]) -> bool:
    """Whether the row is one that the token really had at some time, not a mixture."""
    values = {name: row[name] for name in VALUES}
    return any(
        columns_of(_decoded(body)) == values for _, body in server.account.versions(token_id)
    )


def _decoded(body: bytes) -> dict[str, object]:
    return msgspec.json.decode(body, type=dict[str, object])


def campaign(seeds: range, database_url: str) -> Counter[str]:
    """All seeds in one warehouse, an account for each."""
    total: Counter[str] = Counter()
    for seed in seeds:
        total += live_through(seed, database_url)
        total["lost by a plain walk"] += lost_by_a_plain_walk(seed)
    tell(total)
    return total


def assert_nothing_was_lost(total: Counter[str]) -> None:
    wrong = ("lost", "false absences", "invented", "wrong values", "incomplete certificates")
    assert {name: total[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert total["lost by a plain walk"] > 0
    assert total["absences"] > 0


def test_nothing_is_lost_while_the_list_changes(database_url: str) -> None:
    assert_nothing_was_lost(campaign(range(6), database_url))


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("first", range(1_000, 1_210, 30))
def test_nothing_is_lost_in_many_seeds(database_url: str, first: int) -> None:
    assert_nothing_was_lost(campaign(range(first, first + 30), database_url))
