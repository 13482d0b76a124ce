"""Migrations of a warehouse with data, killed or cut off at any moment."""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from alembic import command
from alembic.config import Config

from etl.errors import EtlError
from etl.warehouse.schema.revision import HEAD_REVISION, migrate, schema_state
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.campaigns.moments import Moments
from tests.campaigns.second_night import (
    SecondNight,
    others_connected,
    second_night,
)
from tests.support.job import ROOT, Job, running, wait_until
from tests.support.relay import Relay, relay_before
from tests.support.roles import own_database
from tests.support.schema import OBJECTS, rows

REVISIONS: Final = (None, *(f"{number:04}" for number in range(1, int(HEAD_REVISION))))
"""Where the warehouse was before; None: an empty database."""
ACTIONS: Final = ("killed", "link cut", "told to end")
KINDS: Final = len(REVISIONS) * len(ACTIONS)
STRIDE: Final = 61


@dataclass
class Old:
    """A warehouse of an earlier revision, which cases copy."""

    url: str
    scene: SecondNight
    relay: Relay
    objects: list[tuple[object, ...]]
    """Of the schema as this revision makes it from nothing."""
    moments: int = 0

    @contextmanager
    def copy(self) -> Iterator[Job]:
        template = self.url.rpartition("/")[2].partition("?")[0]
        with own_database(self.scene.postgres_url, template) as url:
            yield Job.of(self.scene.server, url, **self.scene.job.variables)


def old_warehouse(ground: Ground, revision: str | None) -> Old:
    scene = second_night(ground, 0)

    @contextmanager
    def make() -> Iterator[Old]:
        template = "template1"
        if revision is not None:
            template = scene.job.database_url.rpartition("/")[2].partition("?")[0]
        with (
            own_database(scene.postgres_url, template) as url,
            relay_before(scene.postgres_url) as relay,
            ground.database() as new,
        ):
            if revision is not None:
                downgrade(url, revision)
            old = Old(url, scene, relay, objects_of(new))
            counted = Moments()
            with old.copy() as job:
                relay.begin(counted.piece)
                migrate(relay.url(job.database_url))
                relay.end()
                assert_migrated(old, job, revision)
            old.moments = counted.count
            yield old

    return ground.keep(("old", revision), make)


def downgrade(url: str, revision: str) -> None:
    """Back to a revision, whatever that forgets."""
    config = Config(cmd_opts=Namespace(x=["force=yes"]))
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=url, schema=SCHEMA)
    command.downgrade(config, revision)


def objects_of(url: str) -> list[tuple[object, ...]]:
    """What is defined in the schema; dropped columns leave traces in the catalogue."""
    found = rows(url, OBJECTS, "kaltura")
    return [row for row in found if not str(row[3]).startswith("........pg.dropped")]


def assert_migrated(old: Old, job: Job, revision: str | None) -> None:
    """The newest revision, the same objects as made from nothing, and the data of before."""
    assert schema_state(job.database_url).current == HEAD_REVISION
    assert objects_of(job.database_url) == old.objects
    if revision is not None:
        old.scene.assert_untouched(job)


def run_case(ground: Ground, seed: int) -> Ending:
    number, kind = divmod(seed, KINDS)
    revision, action = REVISIONS[kind % len(REVISIONS)], ACTIONS[kind // len(REVISIONS)]
    old = old_warehouse(ground, revision)
    moment = (number * STRIDE + kind * 7) % old.moments
    case = f"from {revision or 'nothing'}, {action} at moment {moment} of {old.moments}"
    with old.copy() as job:
        code = disturb(ground, old, job, action, moment)
        wait_until(lambda: others_connected(job) == 0)
        reached = schema_state(job.database_url).current
        if revision is not None and reached != HEAD_REVISION:
            assert reached is not None
        migrate(job.database_url)
        assert_migrated(old, job, revision)
        if revision is not None:
            old.scene.assert_repaired(job)
    return Ending(case, f"{action}: exit {code}")


def disturb(ground: Ground, old: Old, job: Job, action: str, moment: int) -> int:
    """A migration that ends early, or not; its exit code."""
    url = old.relay.url(job.database_url)
    if action == "link cut":
        old.relay.begin(Moments({moment: lambda: 0}).piece)
        try:
            migrate(url)
        except EtlError as error:
            return error.exit_code
        finally:
            old.relay.end()
        return 0
    number = signal.SIGKILL if action == "killed" else signal.SIGTERM
    pid: list[int] = []
    started = threading.Event()

    def act() -> int | None:
        assert started.wait(30)
        with suppress(ProcessLookupError):
            os.kill(pid[0], number)
        return 0 if number == signal.SIGKILL else None

    old.relay.begin(Moments({moment: act}).piece)
    try:
        environment = job.environment() | {"DATABASE_URL": url}
        output = ground.folder / "output"
        with running("migrate", env=environment, output=output) as process:
            pid.append(process.pid)
            started.set()
            return process.wait()
    finally:
        old.relay.end()


MIGRATIONS: Final = Campaign(
    name="migrations",
    promise="A migration of a warehouse with data may be killed, told to end or lose its link at "
    "any moment: the next one completes it, the schema is the one that is made from nothing, the "
    "data are those of before, and the next run works.",
    run=run_case,
    in_slice=2,
    in_all=6 * KINDS,
    not_done=("A running query of an analyst, and sizes of 100,000 tokens.",),
)
