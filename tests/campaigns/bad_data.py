"""Rows of any content: alone, and among healthy ones on their way into the warehouse."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from etl.errors import DataRefused
from etl.simulator import Account, SimulatorServer
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.second_night import assert_sound, exit_of
from tests.property.test_tokens import assert_accounted_for, decode, rows
from tests.support.job import Job, listed
from tests.support.model import Model, assert_same
from tests.support.refusals import account_of_singles

ROWS: Final = 200
"""Decoded alone."""
HEALTHY: Final = 120
BAD: Final = 10
"""Among the healthy ones: as many rejected rows as a run may have."""
PAGE_CAP: Final = 50
PAGE_REFUSED: Final = (65, 69)
"""A row of another account, or one that is no JSON."""


def generated_rows(seed: int) -> list[bytes]:
    """Rows with up to six oddities; each is decoded, and must be accounted for."""
    found: list[bytes] = []

    @seeded(seed)
    @settings(
        max_examples=ROWS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(rows(oddities=6))
    def look(row: bytes) -> None:
        assert_accounted_for([row])
        found.append(row)

    look()
    return found


def refuses_its_page(row: bytes) -> bool:
    try:
        decode(row)
    except DataRefused:
        return True
    return False


def as_listed(row: bytes) -> tuple[str, int, dict[str, Any]] | None:
    """Id, second and fields of a row that the service can put into its list, else None."""
    try:
        fields = json.loads(row)
    except (ValueError, RecursionError):
        return None
    token_id, created = fields.get("id"), fields.get("createdAt")
    if not isinstance(token_id, str) or type(created) is not int or not 0 < created < 2**31:
        return None
    return token_id, created, fields


def run_case(ground: Ground, seed: int) -> Ending:
    found = generated_rows(seed)
    rng = random.Random(seed)
    account = account_of_singles(HEALTHY)
    if rng.random() < 0.75:
        # Else most pages would be refused for one of their rows.
        found = [row for row in found if not refuses_its_page(row)]
    with ground.database() as database_url, SimulatorServer(account, page_cap=PAGE_CAP) as server:
        job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
        healthy = Model()
        healthy.night(listed(server))
        bad = add_rows(account, rng.sample(found, len(found)), rng.randint(1, BAD))
        code, error = exit_of(job)
        assert code in (0, *PAGE_REFUSED), repr(error)
        why = "" if error is None else f" ({error.fields.get('reason')})"
        current = job.current()
        if code == 0:
            assert_same(
                {key: row for key, row in current.items() if key not in bad}, healthy.current()
            )
            assert current.keys() <= healthy.current().keys() | bad
        else:
            assert current == {}
        rejected = job.query("select reason, count(*) as n from kaltura.rejected_row group by 1")
        for token_id in bad:
            account.delete(token_id)
        code_after, error = exit_of(job)
        assert code_after == 0, repr(error)
        assert_sound(job)
        here = {key for key, row in job.current().items() if row["is_listed"]}
        assert here == healthy.current().keys()
    figures = Counter({f"rejected, {row['reason']}": int(row["n"]) for row in rejected})
    figures["rows decoded"] = ROWS
    return Ending(f"{len(bad)} odd rows among {HEALTHY}", f"exit {code}{why}", figures)


def add_rows(account: Account, candidates: list[bytes], count: int) -> set[str]:
    """Put some rows into the list, as they are; returns their ids."""
    added: set[str] = set()
    for row in candidates:
        known = as_listed(row)
        if known is None or len(added) == count or account.find(known[0]):
            continue
        token_id, created, _ = known
        account.insert_raw(token_id, created, row.strip())
        added.add(token_id)
    return added


BAD_DATA: Final = Campaign(
    name="bad-data",
    promise="Whatever a row holds, it is loaded, or rejected with its bytes and a reason, or its "
    "page is refused as a whole; the rows beside it are loaded as ever, and when the row is gone "
    "the next run says so.",
    run=run_case,
    in_slice=1,
    in_all=100,
)
