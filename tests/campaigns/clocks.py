"""Clocks that are wrong, or change: of the machine, of Postgres, and those on the wall.

The clock of a process is moved by a small library before the C library (``shifted_clock.c``), which
is compiled at the first case.  Where there is no C compiler, those cases are nights across a change
of daylight saving time as well.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from etl.run.plan import SyncOptions
from etl.simulator import Life, SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.campaigns import database, process
from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.campaigns.moments import Moments, watched
from tests.campaigns.second_night import (
    SecondNight,
    assert_sound,
    exit_of,
    expire_lease,
    others_connected,
)
from tests.support.job import Job, listed, wait_until
from tests.support.model import VALUES, assert_same, columns_of

SOURCE: Final = Path(__file__).with_name("shifted_clock.c")
STRIDE: Final = 61
HOUR: Final = 3_600
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY


@dataclass(frozen=True)
class ShiftedClock:
    """The clock of the processes that are started with its environment."""

    folder: Path

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": f"{self.folder}/clock.so", "SHIFTED_CLOCK": f"{self.folder}/seconds"}

    def set(self, seconds: int) -> None:
        """How far it is ahead, from now on."""
        with (self.folder / "seconds").open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@contextmanager
def shifted_clock(compiler: str) -> Iterator[ShiftedClock]:
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-clock-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server runs as another user, if this is root
        target = folder / "clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", target, SOURCE, "-ldl"], check=True
        )
        (folder / "seconds").write_bytes(struct.pack("=q", 0))
        for path in (target, folder / "seconds"):
            path.chmod(0o644)
        yield ShiftedClock(folder)


def steps(rng: random.Random) -> int:
    """Seconds that a clock is off."""
    to_2038 = int(datetime(2038, 1, 19, 3, 14, 6, tzinfo=UTC).timestamp() - time.time())
    return rng.choice((-HOUR, HOUR, -1, 20 * 60, -DAY, DAY, -YEAR, YEAR, to_2038, 14 * HOUR))


# --- the machine's clock -------------------------------------------------------------------------


def wrong_host(ground: Ground, seed: int, compiler: str) -> Ending:
    """The clock of the machine is off from the start, or steps at a moment: nothing depends on it.

    The times in the warehouse are the database's.
    """
    rng, number = random.Random(seed), seed // KINDS
    clock = ground.keep("host clock", lambda: shifted_clock(compiler))
    stage = process.stage_of(ground, seed)
    off = steps(rng)
    at_start = rng.random() < 0.5
    moment = number * STRIDE % stage.moments
    with stage.scene.copy() as job:
        clock.set(off if at_start else 0)
        moments = Moments({} if at_start else {moment: lambda: clock.set(off)})
        with watched(stage.scene.server, stage.relay, moments):
            ended = stage.through(job).call(**clock.environment())
        clock.set(0)
        assert ended.code == 0, ended.err[-2_000:]
        stage.scene.assert_published(job)
        wrong = job.query(
            "select 'token' as place, observed_at as time from kaltura.upload_token "
            "union all select 'page', received_at from kaltura.sync_page "
            "union all select 'run', heartbeat_at from kaltura.sync_run"
        )
        (now,) = job.query("select clock_timestamp() as time")
        for row in wrong:
            age = now["time"] - row["time"]
            assert timedelta(0) <= age < timedelta(hours=1), (row, off)
        stage.scene.assert_repaired(job)
    when = "from the start" if at_start else f"from moment {moment} of {stage.moments}"
    return Ending(f"machine {off:+,} s {when}", "machine's clock: exit 0")


# --- the database's clock ------------------------------------------------------------------------


def wrong_database(ground: Ground, seed: int, compiler: str) -> Ending:
    """The clock of Postgres steps before a run or at a moment of it, and back after it."""
    rng, number = random.Random(seed), seed // KINDS
    clock = ground.keep("database clock", lambda: shifted_clock(compiler))

    server = ground.keep("server with a clock", lambda: database.new_server(clock.environment()))
    stage = database.stage_on(ground, seed, server)
    off = steps(rng)
    before = rng.random() < 0.3
    moment = number * STRIDE % stage.moments
    with stage.scene.copy() as job:
        try:
            moments = Moments({} if before else {moment: lambda: clock.set(off)})
            if before:
                clock.set(off)
            with watched(stage.scene.server, stage.relay, moments):
                code, error = exit_of(database.through(stage, job))
            assert code in (0, 65, 74, 75), error
            wait_until(lambda: others_connected(job) == 0)
            published = stage.scene.assert_one_of_both(job)
            assert published == (code == 0), error
            (stage.scene.assert_published if published else stage.scene.assert_untouched)(job)
            expire_lease(job)
            repair(stage.scene, job)
        finally:
            clock.set(0)
        repair(stage.scene, job)
    when = "before the run" if before else f"at moment {moment} of {stage.moments}"
    return Ending(f"database {off:+,} s {when}", f"database's clock: exit {code}")


def repair(scene: SecondNight, job: Job) -> None:
    """A run publishes, whatever the clock was; a time in the future is all that may be told."""
    code, error = exit_of(job)
    assert code == 0, error
    scene.assert_published(job)
    told = {each.name for each in verify(job.database_url) if not each.ok}
    # Times that a wrong clock told stay in the rows: a publication, or the sight of a token that is
    # absent since, may lie in the future.
    assert told <= {"published_within_run", "absence_times_ordered"}, told


# --- the clock on the wall -----------------------------------------------------------------------

CHANGES: Final = (
    ("Europe/Berlin", datetime(2025, 10, 26, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2025, 11, 2, 6, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 10, 4, 15, 30, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 1, 1, tzinfo=UTC)),
    ("Pacific/Kiritimati", datetime(2024, 2, 29, tzinfo=UTC)),
)
"""When the clocks change (where they do), and the ends of a year and of February."""
HOURS: Final = 10
TOKENS: Final = 400


def across_a_change(ground: Ground, seed: int) -> Ending:
    """Incremental runs each hour, and full ones, while the service's clock is put back or forward.

    The service makes createdAt of the time on its wall, so in the hour that comes twice new tokens
    are an hour old.  The machine and the database are in other zones.
    """
    rng = random.Random(seed)
    zone, change = CHANGES[seed // KINDS % len(CHANGES)]
    fold, wall = rng.randrange(2), ZoneInfo(zone)
    begin = change.timestamp() - HOURS / 2 * HOUR - rng.randrange(HOUR)
    account = generate_account(TOKENS, seed=seed, now=int(begin))
    host, of_database = (rng.choice(CHANGES)[0] for _ in range(2))
    runs = 0
    with (
        ground.database() as url,
        SimulatorServer(account, page_cap=50, seed=seed) as server,
        in_zone(host),
    ):
        job = Job.of(server, url, ETL_ABSENCE_GRACE="0s", ETL_CONCURRENCY="2")
        database.set_for_database(job, "timezone", of_database)
        job.run()
        known = {token.id for token in account.line}
        life = Life(account, seed=seed, uploads_per_day=1_000)
        account.clock = lambda: on_the_wall(life.now, wall, fold)
        for hour in range(HOURS):
            life.advance(1)
            mode = "full" if hour == HOURS - 1 or rng.random() < 0.2 else "incremental"
            job.run(options=SyncOptions(mode=mode))
            runs += 1
            new = {fields["id"] for fields in listed(server)} - known
            current = job.current()
            assert new <= current.keys(), f"{len(new - current.keys())} new tokens were not read"
        # Python calls a time in an hour that comes twice unequal to that of any other zone.
        database.set_for_database(job, "timezone", None)
        here = {token_id: row for token_id, row in job.current().items() if row["is_listed"]}
        assert_same(
            {key: {name: row[name] for name in VALUES} for key, row in here.items()},
            {fields["id"]: columns_of(fields) for fields in listed(server)},
        )
        assert_sound(job)
    return Ending(
        f"{zone}, {change:%Y-%m-%d}, machine in {host}, database in {of_database}",
        "nights across a change",
        {"virtual nights": runs, "new tokens": len(new)},
    )


def on_the_wall(now: float, zone: ZoneInfo, fold: int) -> float:
    """The time that a program gets which reads its wall clock and knows nothing of the change."""
    local = datetime.fromtimestamp(now, zone).replace(fold=fold)
    return local.timestamp()


@contextmanager
def in_zone(name: str) -> Iterator[None]:
    """This process in another zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


SHIFTED: Final[tuple[Callable[[Ground, int, str], Ending], ...]] = (wrong_host, wrong_database)
KINDS: Final = len(SHIFTED) + 1


def run_case(ground: Ground, seed: int) -> Ending:
    compiler, kind = shutil.which("cc"), seed % KINDS
    if compiler is None or kind == len(SHIFTED):
        return across_a_change(ground, seed)
    return SHIFTED[kind](ground, seed, compiler)


CLOCKS: Final = Campaign(
    name="clocks",
    promise="The clock of the machine may be wrong by years, that of Postgres may step before or "
    "during a run, and the service's may be put back or forward for daylight saving time, with "
    "machine and database in any zone: nothing is lost, versions keep their order, and no time in "
    "the warehouse is the machine's.",
    run=run_case,
    in_slice=0,
    in_all=60,
)
