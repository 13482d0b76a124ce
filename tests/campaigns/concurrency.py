"""Several runs of an account at once, and readers and maintenance beside them."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import psycopg

from etl.warehouse.privacy.prune import prune_old_pages
from etl.warehouse.schema.database import open_database
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.campaigns.second_night import (
    SecondNight,
    assert_sound,
    exit_of,
    second_night,
)
from tests.support.job import Job

STARTS: Final = (2, 3, 5, 8)
FINGERPRINT: Final = """
select (select md5(string_agg(each::text, '' order by each::text))
        from kaltura.upload_token as each),
       (select md5(string_agg(each::text, '' order by each::text))
        from kaltura.upload_token_superseded as each)
"""


@contextmanager
def read_meanwhile(job: Job) -> Iterator[list[tuple[Any, ...]]]:
    """Read both tables in one statement, again and again; the distinct states, in their order."""
    seen: list[tuple[Any, ...]] = []
    samples = Counter[str]()
    over = threading.Event()

    def read() -> None:
        with closing(psycopg.connect(job.database_url, autocommit=True)) as connection:
            while not over.is_set():
                found = connection.execute(FINGERPRINT.encode()).fetchone()
                samples["samples"] += 1
                if found is not None and (not seen or seen[-1] != found):
                    seen.append(found)
                time.sleep(0.002)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield seen
    finally:
        over.set()
        reader.join(30)


def maintain(job: Job, rng: random.Random) -> str:
    """What a DBA or another command does meanwhile."""
    name = rng.choice(list(MAINTENANCE))
    with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
        MAINTENANCE[name](job)
    return name


def prune(job: Job) -> None:
    with open_database(job.database_url, SCHEMA) as database:
        prune_old_pages(database, 90)


MAINTENANCE: Final[dict[str, Callable[[Job], object]]] = {
    "nothing": lambda _: None,
    "vacuum": lambda job: job.query("vacuum kaltura.upload_token"),
    "analyze": lambda job: job.query("analyze"),
    "reindex": lambda job: job.query("reindex table concurrently kaltura.upload_token"),
    "prune": prune,
    "verify": assert_sound,
    "checkpoint": lambda job: job.query("checkpoint"),
}


def run_case(ground: Ground, seed: int) -> Ending:
    rng = random.Random(seed)
    scene = second_night(ground, seed)
    starts = STARTS[seed % len(STARTS)]
    with scene.copy(ETL_LEASE_SECONDS="900") as job:
        codes, states, beside = race(scene, job, starts, rng)
        winners = codes[0]
        assert codes.keys() <= {0, 75}, codes
        assert winners >= 1, codes
        # The state before, and the one that the first of them published.
        assert len(states) <= 2, f"{len(states)} states were seen"
        scene.assert_published(job)
        published = [run for run in job.runs() if run["status"] == "succeeded"]
        assert len(published) == winners + 1
        scene.assert_repaired(job)
    return Ending(
        f"{starts} starts at once, {beside} beside them",
        "all others 75" if winners == 1 else "some one after the other",
        {"starts": starts, "published": winners},
    )


def race(
    scene: SecondNight, job: Job, starts: int, rng: random.Random
) -> tuple[Counter[int], list[tuple[Any, ...]], str]:
    """Start all at once; exit codes, the states that a reader saw, and what was done beside."""
    codes: Counter[int] = Counter()
    errors: list[BaseException] = []
    barrier = threading.Barrier(starts + 1)
    scene.server.configure(latency_ms=2)

    def start() -> None:
        barrier.wait(30)
        try:
            code, _ = exit_of(job)
        except BaseException as error:
            errors.append(error)
        else:
            codes[code] += 1

    threads = [threading.Thread(target=start, daemon=True) for _ in range(starts)]
    try:
        with read_meanwhile(job) as states:
            for thread in threads:
                thread.start()
            barrier.wait(30)
            beside = maintain(job, rng)
            for thread in threads:
                thread.join(100)
                assert not thread.is_alive(), "stuck"
    finally:
        scene.server.configure(latency_ms=0)
    if errors:
        raise errors[0]
    return codes, states, beside


CONCURRENCY: Final = Campaign(
    name="concurrency",
    promise="Started several times at once, one run reads and publishes, and the others end with "
    "75 at once or find nothing to do later; readers see the state before or after, whatever "
    "maintenance goes on.",
    run=run_case,
    in_slice=2,
    in_all=60,
    not_done=(
        "Backfills, migrations and erasures at the same time as a nightly run, compared with some "
        "serial order of them; a hundred starts.",
        "Virtual nights across changes of daylight saving time.",
    ),
)
