"""Several runs of an account at once, other commands, and readers and maintenance beside them."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from etl.errors import EtlError
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_range
from etl.run.plan import SyncOptions
from etl.settings.read import load_settings
from etl.warehouse.privacy.prune import prune, prune_old_pages
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.revision import migrate
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.campaigns.migrations import REVISIONS, downgrade
from tests.campaigns.second_night import (
    SecondNight,
    assert_sound,
    second_night,
    without,
)
from tests.support.erasure import erased
from tests.support.job import Job
from tests.support.model import Key, Row, assert_same

STARTS: Final = (2, 3, 5, 8)
MANY: Final = 100
"""More than the connections that the server allows: one case in ``MANY_EVERY``."""
MANY_EVERY: Final = 40
MIXED: Final = 2
"""Of four cases, so many are of different commands."""
PERSONAL: Final = ("user_id", "file_name", "extra")
FINGERPRINT: Final = """
select (select md5(string_agg(each::text, '' order by each::text))
        from (select to_jsonb(token) - array['digest', 'user_digest'] from kaltura.upload_token
            as token) as seen (each)),
       (select md5(string_agg(each::text, '' order by each::text))
        from kaltura.upload_token_superseded as each)
"""
"""What an analyst sees; a run fills in the digests of erased tokens after it has published."""


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


def prune_nightly(job: Job) -> None:
    with open_database(job.database_url, SCHEMA) as database:
        prune_old_pages(database, 90)


MAINTENANCE: Final[dict[str, Callable[[Job], object]]] = {
    "nothing": lambda _: None,
    "vacuum": lambda job: job.query("vacuum kaltura.upload_token"),
    "analyze": lambda job: job.query("analyze"),
    "reindex": lambda job: job.query("reindex table concurrently kaltura.upload_token"),
    "prune": prune_nightly,
    "verify": assert_sound,
    "checkpoint": lambda job: job.query("checkpoint"),
}


def run_case(ground: Ground, seed: int) -> Ending:
    number, kind = divmod(seed, 4)
    if seed % MANY_EVERY == MANY_EVERY - 4:
        return start_at_once(ground, seed, MANY)
    if kind < MIXED:
        return start_at_once(ground, seed, STARTS[(2 * number + kind) % len(STARTS)])
    return work_together(ground, seed, from_before=kind == MIXED)


@dataclass
class Outcome:
    """How commands went that began at once."""

    errors: dict[str, EtlError | None]
    """By the name of the command; None: it succeeded."""
    states: Sequence[tuple[Any, ...]]
    """What a reader saw, in its order."""

    def code(self, name: str) -> int:
        error = self.errors[name]
        return 0 if error is None else error.exit_code

    def succeeded(self) -> list[str]:
        return sorted(name for name, error in self.errors.items() if error is None)


def at_once(
    scene: SecondNight,
    job: Job,
    commands: Mapping[str, Callable[[], object]],
    meanwhile: Callable[[], object] = lambda: None,
) -> Outcome:
    """Begin all of them at once, and read meanwhile."""
    ended: dict[str, EtlError | None] = {}
    breaches: list[BaseException] = []
    barrier = threading.Barrier(len(commands) + 1)
    scene.server.configure(latency_ms=2)

    def begin(name: str, command: Callable[[], object]) -> None:
        barrier.wait(30)
        try:
            command()
        except EtlError as error:
            ended[name] = error
        except BaseException as error:
            breaches.append(error)
        else:
            ended[name] = None

    threads = [
        threading.Thread(target=begin, args=command, daemon=True) for command in commands.items()
    ]
    try:
        with read_meanwhile(job) as states:
            for thread in threads:
                thread.start()
            barrier.wait(30)
            meanwhile()
            for thread in threads:
                thread.join(100)
                assert not thread.is_alive(), "stuck"
    finally:
        scene.server.configure(latency_ms=0)
    if breaches:
        raise breaches[0]
    return Outcome(ended, states)


def start_at_once(ground: Ground, seed: int, starts: int) -> Ending:
    """The same run several times, and maintenance beside it."""
    rng = random.Random(seed)
    scene = second_night(ground, seed)
    beside = ""

    def meanwhile() -> None:
        nonlocal beside
        beside = maintain(job, rng)

    with scene.copy(ETL_LEASE_SECONDS="900") as job:
        outcome = at_once(
            scene,
            job,
            dict.fromkeys(map(str, range(starts)), job.run),
            meanwhile,
        )
        codes = Counter(outcome.code(name) for name in outcome.errors)
        winners = codes[0]
        for error in outcome.errors.values():
            # A server may have fewer connections than there are starts.
            assert error is None or error.exit_code == 75 or is_full(error), repr(error)
        assert starts == MANY or codes.keys() <= {0, 75}, codes
        assert winners >= 1, codes
        # The state before, and the one that the first of them published.
        assert len(outcome.states) <= 2, f"{len(outcome.states)} states were seen"
        scene.assert_published(job)
        published = [run for run in job.runs() if run["status"] == "succeeded"]
        assert len(published) == winners + 1
        scene.assert_repaired(job)
    return Ending(
        f"{starts} starts at once, {beside} beside them",
        "all others 75" if codes[75] == starts - 1 else f"{starts} starts: several outcomes",
        {"starts": starts, "published": winners},
    )


def is_full(error: EtlError) -> bool:
    """Whether all connections of the server were in use."""
    return error.fields.get("sqlstate") == psycopg.errors.TooManyConnections.sqlstate


# --- different commands --------------------------------------------------------------------------


def work_together(ground: Ground, seed: int, *, from_before: bool) -> Ending:
    """Different commands at once come to what they come to one after the other.

    Each run publishes what has changed since the first night, the whole or a part of it, so every
    serial order leads to the same rows: the second night without the erased person.
    """
    rng = random.Random(seed)
    scene = second_night(ground, seed)
    person = rng.choice(people(scene))
    with scene.copy(ETL_LEASE_SECONDS="900") as job:
        commands: dict[str, Callable[[], object]] = {
            "full": job.run,
            "incremental": lambda: job.run(options=SyncOptions(mode="incremental")),
            "backfill": lambda: backfill(job, scene),
            "erase": lambda: erased(job, users=(person,), key=None),
            "prune": lambda: prune_everything(job),
            "migrate": lambda: migrate(job.database_url),
            "verify": lambda: assert_sound(job),
        }
        if from_before:
            downgrade(job.database_url, str(REVISIONS[-1]))
            # Its checks are those of the new schema.
            del commands["verify"]
        begun = {name: late(command, rng) for name, command in commands.items()}
        outcome = at_once(scene, job, begun)
        for name, error in outcome.errors.items():
            # 78: the schema was not migrated yet.
            allowed = (0, 75, 78) if from_before and name != "migrate" else (0, 75)
            assert outcome.code(name) in allowed, f"{name}: {error!r}"
        changes = {"full", "incremental", "backfill", "erase"} & set(outcome.succeeded())
        assert len(outcome.states) <= 1 + len(changes), f"{len(outcome.states)} states were seen"
        for name in ("migrate", "erase"):
            if outcome.code(name) != 0:
                commands[name]()
        job.run()
        assert_sound(job)
        assert_serial(scene, job, person)
    succeeded = outcome.succeeded()
    return Ending(
        f"{', '.join(succeeded)} succeeded at once",
        f"different commands: {len(succeeded)} of {len(commands)} succeeded",
    )


def people(scene: SecondNight) -> list[str]:
    """The users of the first night."""
    return sorted({row["user_id"] for row in scene.before.current().values() if row["user_id"]})


def late(command: Callable[[], object], rng: random.Random) -> Callable[[], object]:
    """Begin a little later."""
    seconds = rng.choice((0.0, 0.0, 0.05, 0.2, 0.5))

    def begin() -> None:
        time.sleep(seconds)
        command()

    return begin


def backfill(job: Job, scene: SecondNight) -> None:
    """The middle of the list."""
    created = sorted(row["created_at"] for row in scene.after.current().values())
    wanted = Range(created[len(created) // 4], created[len(created) // 2])
    settings = load_settings(environment=job.environment()).checked()
    backfill_range(settings, SyncOptions(), wanted, stop=Stop(), progress=NoProgress())


def prune_everything(job: Job) -> None:
    """All pages and rejected rows of runs that are over."""
    with open_database(job.database_url, SCHEMA) as database:
        prune(database, days={"pages": 0, "rejected": 0}, partner_id=None, apply=True)


def assert_serial(scene: SecondNight, job: Job, person: str) -> None:
    """The second night, and nothing that was the person's."""
    versions = by_id(scene.after.current(), scene.after.superseded())
    tokens = {token_id for token_id, row in versions if row["user_id"] == person}
    files = {row["file_name"] for token_id, row in versions if token_id in tokens} - {None, ""}

    def others(rows: Mapping[Key, Row]) -> dict[Key, Row]:
        return {
            key: dict(without(PERSONAL, {key: row})[key]) if token_of(key) in tokens else row
            for key, row in rows.items()
        }

    assert_same(others(job.current()), others(scene.after.current()))
    assert_same(others(job.superseded()), others(scene.after.superseded()))
    for token_id, row in by_id(job.current(), job.superseded()):
        assert row["user_id"] != person, token_id
        assert token_id not in tokens or row["file_name"] not in files, token_id


def by_id(
    current: Mapping[str, Row], superseded: Mapping[tuple[str, int], Row]
) -> list[tuple[str, Row]]:
    """All versions, with the ids of their tokens."""
    return [*current.items(), *((key[0], row) for key, row in superseded.items())]


def token_of(key: Key) -> str:
    return key if isinstance(key, str) else key[0]


CONCURRENCY: Final = Campaign(
    name="concurrency",
    promise="Started several times at once, one run reads and publishes, and the others end with "
    "75 at once or find nothing to do later; readers see the state before or after, whatever "
    "maintenance goes on.  A full run, an incremental one, a backfill, a migration, an erasure, a "
    "prune and a verify at the same time come to what they come to one after the other, or end "
    "with 75.",
    run=run_case,
    in_slice=2,
    in_all=60,
)
