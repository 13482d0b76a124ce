"""A list that changes while it is read, over HTTP, into Postgres.

An adversary deletes tokens that have been read already (each pulls an unread one across the edge of
the next page), inserts others so that the count does not show it, and changes some, after every
request.  The truth is the simulator's log of what was listed when.  Each seed lives through three
nights: a first load and an ordinary night under churn, and a quiet one.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

import msgspec

from etl.errors import DataRefused
from etl.run.report import RunReport
from etl.simulator import Churn, SimulatorClient, SimulatorServer, generate_account
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.second_night import assert_sound
from tests.support.job import Job, listed
from tests.support.model import VALUES, assert_same, columns_of

TOKENS: Final = 2_000
MANY: Final = 20_000
PAGE_CAP: Final = 100
RESTLESS: Final = 1.0
"""Events of one kind per request with which a run may be refused as incomplete."""
TOO_FAST: Final = ("incomplete", "unstable")
WRONG: Final = ("lost", "false absences", "invented", "wrong values", "incomplete certificates")


def account_of(seed: int, tokens: int | None) -> SimulatorServer:
    rng = random.Random(seed)
    if tokens is None:
        tokens = MANY if seed % 10 == 9 else rng.randrange(TOKENS // 2, TOKENS)
    return SimulatorServer(
        generate_account(tokens, seed=seed),
        page_cap=PAGE_CAP if tokens < MANY else 500,
        seed=seed,
        shuffle_ties=seed % 2 == 1,
        keep_ids=False,
    )


def churn_of(seed: int) -> Churn:
    rng = random.Random(f"{seed}/churn")
    if seed % 3 != 2:
        return Churn(delete=0.5, insert=0.5, change=0.5, mode="hostile", seed=seed)
    rate = (0, 0.1, 0.5, RESTLESS)
    return Churn(
        delete=rng.choice(rate),
        insert=rng.choice(rate),
        change=rng.choice(rate),
        mode=rng.choice(("uniform", "hostile")),
        seed=seed,
    )


def lost_by_a_plain_walk(seed: int) -> int:
    """How many tokens that were listed throughout a page-by-page walk does not show."""
    with account_of(seed, None) as server, SimulatorClient(server.url) as client:
        known = server.settings()
        ks = client.start_session(known["admin_secret"], known["partner_id"])
        server.service.churn = churn_of(seed)
        mark, index = server.account.mark, 1
        seen: set[str] = set()
        while rows := client.list_tokens(ks, index, server.service.tokens.page_cap)["objects"]:
            seen.update(row["id"] for row in rows)
            index += 1
        throughout = server.account.listed_throughout(mark, server.account.mark)
        return sum(token_id not in seen for token_id, _ in throughout)


def run_under(churn: Churn | None, server: SimulatorServer, job: Job) -> RunReport | None:
    """One run; None if the list moved faster than it could be read, which is refused."""
    server.service.churn = churn
    before = job.everything()
    try:
        return job.run()
    except DataRefused as refusal:
        is_restless = churn is not None and RESTLESS in (churn.delete, churn.insert)
        if not is_restless or refusal.fields["reason"] not in TOO_FAST:
            raise
        assert job.everything() == before
        return None
    finally:
        server.service.churn = None


def live_through(seed: int, database_url: str, tokens: int | None) -> Counter[str]:
    """Three nights of one account; returns what went wrong and how much happened, by kind."""
    found: Counter[str] = Counter()
    with account_of(seed, tokens) as server:
        account, job = server.account, Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
        for night, churn in enumerate((churn_of(seed), churn_of(seed + 1_000_000), None)):
            mark = account.mark
            report = run_under(churn, server, job)
            if report is None:
                found["refused as incomplete"] += 1
                continue
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
        assert_sound(job)
    return found


def _was_served(server: SimulatorServer, token_id: str, row: dict[str, object]) -> bool:
    """Whether the row is one that the token really had at some time, not a mixture."""
    values = {name: row[name] for name in VALUES}
    return any(
        columns_of(_decoded(body)) == values for _, body in server.account.versions(token_id)
    )


def _decoded(body: bytes) -> dict[str, object]:
    return msgspec.json.decode(body, type=dict[str, object])


def run_case(ground: Ground, seed: int) -> Ending:
    with ground.database() as database_url:
        found = live_through(seed, database_url, ground.tokens)
    wrong = {name: found.pop(name) for name in WRONG}
    assert wrong == dict.fromkeys(WRONG, 0), wrong
    refused = found["refused as incomplete"]
    if ground.tokens is None and seed % 10 != 9:
        found["lost by a plain walk"] = lost_by_a_plain_walk(seed)
    return Ending(f"{found['throughout']} tokens", f"{3 - refused} nights published", found)


MUTATION: Final = Campaign(
    name="mutation",
    promise="While tokens are added, deleted and changed after every request, in places chosen "
    "against the walk: no token that was listed throughout a published run is missing from it, "
    "none of them is called absent, no value is a mixture of two.",
    run=run_case,
    in_slice=2,
    first_of_slice=1,  # seed 0 meets no kind of churn that these two do not
    in_all=60,
    not_done=("A lagging replica, and pages from a cache that does not say so.",),
)
