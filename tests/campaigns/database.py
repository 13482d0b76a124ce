"""A database that fails at any moment of a run, or is set up oddly."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from etl.run.plan import SyncOptions
from etl.warehouse.schema.revision import migrate
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.campaigns.moments import Moments, watched
from tests.campaigns.second_night import (
    SecondNight,
    account_of,
    exit_of,
    expire_lease,
    make_second_night,
    others_connected,
    second_night,
)
from tests.support.databases import with_database
from tests.support.job import Job, requests_of, wait_until
from tests.support.own_server import OwnServer, own_server
from tests.support.pgbouncer import pgbouncer
from tests.support.relay import PIECE_BYTES, Relay, relay_before
from tests.support.roles import Roles, roles_of

STRIDE: Final = 61
KIND_STRIDE: Final = 7
"""Prime to the number of kinds, so that some seeds in a row are of both sorts."""
TEMPLATE: Final = "template_kaltura"
"""Name of a migrated database on a server of a campaign's own."""
LOCK_SECONDS: Final = 0.3
READ_ONLY_SECONDS: Final = 0.5
Codes = frozenset[int]
OK: Final[Codes] = frozenset({0})
LOST: Final[Codes] = frozenset({0, 74})
"""Postgres failed: perhaps the run was done already, or could begin again."""


@dataclass
class Stage:
    """A second night whose runs reach Postgres through a relay."""

    scene: SecondNight
    relay: Relay
    server: OwnServer | None
    moments: int
    """Of an undisturbed run."""
    timers: list[threading.Timer] = field(default_factory=list)
    """What ends a fault by itself."""


def stage_of(ground: Ground, seed: int, *, own: bool = False) -> Stage:
    """On the ground's Postgres, or on one of its own that may be stopped."""
    if own:
        server = ground.keep("own server", lambda: new_server())  # noqa: PLW0108
        return stage_on(ground, seed, server)
    return ground.keep(
        ("database", account_of(seed)), lambda: make_stage(second_night(ground, seed))
    )


def stage_on(ground: Ground, seed: int, server: OwnServer) -> Stage:
    """On a server that is the campaign's own."""

    @contextmanager
    def make() -> Iterator[Stage]:
        with (
            make_second_night(server.url(), TEMPLATE, account_of(seed)) as scene,
            make_stage(scene, server) as stage,
        ):
            yield stage

    return ground.keep((str(server.folder), account_of(seed)), make)


@contextmanager
def make_stage(scene: SecondNight, server: OwnServer | None = None) -> Iterator[Stage]:
    """A scene behind a relay, and how many moments a run has there."""
    with relay_before(scene.postgres_url) as relay:
        stage = Stage(scene, relay, server, 0)
        with scene.copy() as job:
            counted = Moments()
            with watched(scene.server, relay, counted):
                assert exit_of(through(stage, job))[0] == 0
            scene.assert_published(job)
        stage.moments = counted.count
        yield stage


@contextmanager
def new_server(
    environment: Mapping[str, str] | None = None, within: Path | None = None
) -> Iterator[OwnServer]:
    with own_server(environment, within) as server:
        with closing(psycopg.connect(server.url(), autocommit=True)) as admin:
            admin.execute(f"create database {TEMPLATE}")
        migrate(server.url(TEMPLATE), SCHEMA)
        yield server


def through(stage: Stage, job: Job) -> Job:
    return replace(job, database_url=stage.relay.url(job.database_url))


# --- faults at a moment --------------------------------------------------------------------------


def on_others(job: Job, function: str) -> None:
    """``pg_terminate_backend`` or ``pg_cancel_backend`` for all connections of the database."""
    job.query(
        f"select {function}(pid) from pg_stat_activity where datname = current_database() "  # noqa: S608
        "and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )


def crash(job: Job) -> None:
    """One backend dies, so Postgres starts all over, and unlogged tables are empty."""
    backends = job.query(
        "select pid from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    for backend in backends[:1]:
        os.kill(backend["pid"], signal.SIGKILL)
        time.sleep(0.1)  # until Postgres has noticed
    wait_until(lambda: answers(job.database_url))


def answers(url: str) -> bool:
    with suppress(psycopg.Error), closing(psycopg.connect(url)) as connection:
        connection.execute("select 1")
        return True
    return False


def restart(stage: Stage, mode: str) -> None:
    assert stage.server is not None
    stage.server.stop(mode)
    stage.server.start()


def make_read_only(stage: Stage, job: Job) -> None:
    """As after a failover to a server that is a standby still, for a moment."""

    def promote() -> None:
        set_for_database(job, "default_transaction_read_only", None)
        on_others(job, "pg_terminate_backend")

    set_for_database(job, "default_transaction_read_only", "on")
    on_others(job, "pg_terminate_backend")
    stage.timers.append(threading.Timer(READ_ONLY_SECONDS, promote))
    stage.timers[-1].start()


def set_for_database(job: Job, name: str, value: str | None) -> None:
    database = sql.Identifier(job.database_url.rpartition("/")[2].partition("?")[0])
    with closing(psycopg.connect(admin_url(job), autocommit=True)) as admin:
        if value is None:
            statement = sql.SQL("alter database {} reset {}")
            admin.execute(statement.format(database, sql.Identifier(name)))
        else:
            statement = sql.SQL("alter database {} set {} = {}")
            admin.execute(statement.format(database, sql.Identifier(name), sql.Literal(value)))


def admin_url(job: Job) -> str:
    return with_database(job.database_url, "postgres")


@contextmanager
def locked(job: Job, table: str) -> Iterator[Callable[[], None]]:
    """Yields a function that locks a table against everybody, for a moment."""
    with closing(psycopg.connect(job.database_url)) as connection:

        def lock() -> None:
            connection.execute(
                sql.SQL("set local lock_timeout = '200ms'; lock table {} in access exclusive mode")
                .format(sql.Identifier(SCHEMA, table))
                .as_string()
                .encode()
            )
            connection.execute("select pg_sleep(%s)", [LOCK_SECONDS])
            connection.rollback()

        def lock_if_possible() -> None:
            with suppress(psycopg.errors.LockNotAvailable):
                lock()
            connection.rollback()

        yield lock_if_possible


@dataclass(frozen=True, slots=True)
class AtMoment:
    """What is done at a moment of the run."""

    act: Callable[[Stage, Job, random.Random], int | None]
    """Returns how many bytes still pass of the piece that is on its way; None for all."""
    codes: Codes = LOST
    reset: bool = False
    own: bool = False
    """Needs a server of its own."""


def at_moment(
    act: Callable[[Stage, Job], object],
    *,
    codes: Codes = LOST,
    own: bool = False,
) -> AtMoment:
    def run(stage: Stage, job: Job, rng: random.Random) -> None:
        del rng
        act(stage, job)

    return AtMoment(run, codes, own=own)


AT_MOMENT: Final[Mapping[str, AtMoment]] = {
    "link cut": AtMoment(lambda _stage, _job, rng: rng.choice((0, rng.randrange(1, 400)))),
    "link reset": AtMoment(
        lambda _stage, _job, rng: rng.choice((0, rng.randrange(1, 400))), reset=True
    ),
    "backends terminated": at_moment(lambda _, job: on_others(job, "pg_terminate_backend")),
    "statement cancelled": at_moment(lambda _, job: on_others(job, "pg_cancel_backend")),
    "server crashed": at_moment(lambda _, job: crash(job), own=True),
    "server restarted": at_moment(lambda stage, _: restart(stage, "fast"), own=True),
    "server stopped at once": at_moment(lambda stage, _: restart(stage, "immediate"), own=True),
    "read-only for a moment": at_moment(make_read_only, codes=frozenset({0, 74, 77, 78})),
}


def meet(ground: Ground, seed: int, number: int, name: str) -> Ending:
    """A run that meets a fault at a moment."""
    fault, rng = AT_MOMENT[name], random.Random(seed)
    stage = stage_of(ground, seed, own=fault.own)
    moment = number * STRIDE % stage.moments
    case = f"{name} at moment {moment} of {stage.moments}"
    with stage.scene.copy() as job:
        if fault.own:
            # A sequence in a copied database goes back in a crash unless there was a checkpoint:
            # Postgres counts on the log of the database that it was copied from.
            job.query("checkpoint")
        moments = Moments({moment: lambda: fault.act(stage, job, rng)})
        with watched(stage.scene.server, stage.relay, moments, reset=fault.reset):
            code, error = exit_of(through(stage, job))
        while stage.timers:
            stage.timers.pop().join()
        result = look_and_repair(stage.scene, job, code, fault.codes, repr(error))
    return Ending(case, f"{name}: {result}")


def look_and_repair(
    scene: SecondNight,
    job: Job,
    code: int,
    codes: Codes,
    said: str,
    after: Callable[[Job], None] = lambda _: None,
) -> str:
    wait_until(lambda: answers(job.database_url))
    after(job)
    wait_until(lambda: others_connected(job) == 0)
    assert code in codes, (code, said)
    published = scene.assert_one_of_both(job)
    assert published == (code == 0), (code, said)
    (scene.assert_published if published else scene.assert_untouched)(job)
    left_running = job.last_run()["status"] == "running"
    expire_lease(job)
    scene.assert_repaired(job)
    return f"exit {code}{', ledger not told' if left_running else ''}"


# --- odd databases -------------------------------------------------------------------------------

ODD_SETTINGS: Final = (
    ("timezone", "Australia/Lord_Howe"),
    ("timezone", "<+14>-14"),
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("search_path", ""),
    ("search_path", "pg_catalog, nowhere"),
    ("standard_conforming_strings", "off"),
    ("bytea_output", "escape"),
    ("client_encoding", "LATIN1"),
    ("extra_float_digits", "-15"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "1s"),
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("synchronous_commit", "off"),
    ("work_mem", "64kB"),
    ("temp_buffers", "800kB"),
    ("enable_indexscan", "off"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_nestloop", "off"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
    ("geqo_threshold", "2"),
    ("join_collapse_limit", "1"),
    ("plan_cache_mode", "force_generic_plan"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("quote_all_identifiers", "on"),
    ("row_security", "off"),
    ("check_function_bodies", "off"),
    ("lc_messages", "C"),
    ("xmloption", "document"),
    ("max_parallel_workers_per_gather", "8"),
    ("parallel_setup_cost", "0"),
    ("debug_parallel_query", "on"),
    ("cursor_tuple_fraction", "0"),
    ("session_replication_role", "replica"),
)


def live_with_setting(ground: Ground, seed: int, number: int) -> Ending:
    """A setting of the database that no run may depend on."""
    name, value = ODD_SETTINGS[number % len(ODD_SETTINGS)]
    scene = second_night(ground, seed)
    with scene.copy() as job:
        set_for_database(job, name, value)
        code, error = exit_of(job)
        result = look_and_repair(
            scene, job, code, OK, repr(error), lambda job: set_for_database(job, name, None)
        )
    return Ending(f"{name} = {value!r}", f"odd setting: {result}")


def privileges_of(roles: Roles, role: str) -> list[str]:
    """A REVOKE for each single privilege of a role."""
    found = roles.owner(
        sql.SQL(
            """
            with role as (select to_regrole({role})::oid as oid)
            select format('revoke %s on table %s from %I', privilege_type, pg_class.oid::regclass,
                grantee::regrole) as statement
            from role, pg_class cross join lateral aclexplode(relacl)
            where relkind in ('r', 'v', 'S', 'p') and grantee = role.oid
            union all
            select format('revoke %s (%I) on table %s from %I', privilege_type, attname,
                attrelid::regclass, grantee::regrole)
            from role, pg_attribute cross join lateral aclexplode(attacl) where grantee = role.oid
            union all
            select format('revoke %s on schema %I from %I', privilege_type, nspname,
                grantee::regrole)
            from role, pg_namespace cross join lateral aclexplode(nspacl) where grantee = role.oid
            union all
            select format('revoke %s on function %s from %I', privilege_type,
                pg_proc.oid::regprocedure, grantee::regrole)
            from role, pg_proc cross join lateral aclexplode(proacl) where grantee = role.oid
            order by 1
            """
        ).format(role=sql.Literal(role))
    )
    return [row["statement"] for row in found]


def take_a_privilege(ground: Ground, seed: int, number: int) -> Ending:
    """The role of the job lacks one of its privileges: that is said before anything is read."""
    scene = second_night(ground, seed)
    with scene.copy() as job, roles_of(job.database_url) as roles:
        roles.grant_all("loader")
        of_loader = replace(job, database_url=roles.url("loader"))
        statements = privileges_of(roles, roles.names["loader"])
        assert len(statements) > 20, statements
        taken = statements[number % len(statements)]
        roles.owner(taken)
        roles.close()
        before = requests_of(scene.server)
        code, error = exit_of(of_loader)
        if code != 0:
            assert requests_of(scene.server) == before, "said after the account was read"
        named = taken.partition(" from ")[0]
        result = look_and_repair(scene, job, code, frozenset({0, 77}), repr(error))
        roles.close()
    return Ending(named, f"privilege taken: {result}")


TABLES: Final = (
    *("upload_token", "upload_token_superseded", "upload_token_staging"),
    *("sync_run", "sync_page", "rejected_row", "unobserved_token"),
)
FAILURES: Final = {
    "53100": frozenset({0, 74}),  # disk full
    "53200": frozenset({0, 74}),  # out of memory
    "40001": frozenset({0, 74}),  # serialization failure
    "40P01": frozenset({0, 74}),  # deadlock
    "57014": frozenset({0, 74}),  # cancelled, as by statement_timeout
    "55P03": frozenset({0, 74, 75}),  # lock not available
    "XX001": frozenset({0, 74}),  # data corrupted
    "P0001": frozenset({0, 65, 74, 78}),  # what a trigger of a DBA says
}


def fail_to_write(ground: Ground, seed: int, number: int) -> Ending:
    """Postgres fails a statement that writes to a table, the first of them or a later one."""
    rng = random.Random(seed)
    table = TABLES[number % len(TABLES)]
    state = list(FAILURES)[number // len(TABLES) % len(FAILURES)]
    after = rng.choice((0, 0, 1, 3))
    scene = second_night(ground, seed)
    with scene.copy() as job:
        job.query("create sequence public.writes")
        job.query(
            "create function public.fail() returns trigger language plpgsql as $$ begin "
            f"if nextval('public.writes') > {after} then "
            f"raise exception 'no' using errcode = '{state}'; end if; return new; end $$"
        )
        job.query(
            f"create trigger fail before insert or update on kaltura.{table} "
            "for each statement execute function public.fail()"
        )
        code, error = exit_of(job)
        codes = FAILURES[state]
        result = look_and_repair(
            scene,
            job,
            code,
            codes,
            repr(error),
            lambda job: void(job.query("drop function public.fail() cascade")),
        )
    return Ending(f"SQLSTATE {state} when {table} is written, after {after}", f"write: {result}")


def void(value: object) -> None:
    del value


def lie_about_sizes(ground: Ground, seed: int, number: int) -> Ending:
    """Statistics of another time: tables seem empty, or huge."""
    rng = random.Random(seed)
    scene = second_night(ground, seed)
    with scene.copy() as job:
        rows = rng.choice((0, 1, 10**9))
        job.query(
            "update pg_class set reltuples = %s, relpages = %s where relkind in ('r', 'i') "
            "and relnamespace = 'kaltura'::regnamespace",
            rows,
            rows // 50,
        )
        if rng.random() < 0.5:
            job.query("delete from pg_statistic where starelid::regclass::text like 'kaltura.%%'")
        options = SyncOptions(mode=rng.choice(("full", "incremental")))
        code, error = exit_of(job, options)
        assert code == 0, error
        scene.assert_repaired(job)
    del number
    return Ending(f"{rows} rows, says the catalogue ({options.mode})", f"statistics: exit {code}")


def slow_link(ground: Ground, seed: int, number: int) -> Ending:
    """A few bytes at a time."""
    rng = random.Random(seed)
    size = rng.choice((200, 1_000))
    stage = stage_of(ground, seed)
    with stage.scene.copy() as job:
        with watched(stage.scene.server, stage.relay, Moments(), piece_bytes=size):
            code, error = exit_of(through(stage, job))
        result = look_and_repair(stage.scene, job, code, OK, repr(error))
    del number
    return Ending(f"{size} of {PIECE_BYTES} bytes at a time", f"slow link: {result}")


def lock_a_table(ground: Ground, seed: int, number: int) -> Ending:
    """Somebody locks a table for a moment: the run waits for them."""
    table = TABLES[number % len(TABLES)]
    stage = stage_of(ground, seed)
    moment = number * STRIDE % stage.moments
    with stage.scene.copy() as job:
        with (
            locked(job, table) as lock,
            watched(stage.scene.server, stage.relay, Moments({moment: lambda: void(lock())})),
        ):
            code, error = exit_of(through(stage, job))
        result = look_and_repair(stage.scene, job, code, OK, repr(error))
    return Ending(f"{table} locked at moment {moment}", f"table locked: {result}")


# --- the server as a whole -----------------------------------------------------------------------

MIB: Final = 1 << 20
DISK_MIB: Final = 400
ROOM_LEFT: Final = (0, 0, 100_000, 1_000_000)
"""Bytes that are free when the disk is nearly full."""


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of its own, in memory; only root can make one."""
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-disk-") as name:
        options = f"size={DISK_MIB}m,mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@contextmanager
def server_on_small_disk() -> Iterator[OwnServer]:
    with small_disk() as folder, new_server(within=folder) as server:
        yield server


def fill_the_disk(ground: Ground, seed: int, number: int) -> Ending:
    """No room under the server's own files, from a moment of the run until it is over."""
    if os.geteuid() != 0:
        return fail_to_write(ground, seed, number)
    rng = random.Random(seed)
    server = ground.keep("small disk", server_on_small_disk)
    stage = stage_on(ground, seed, server)
    filler = server.folder / "filler"
    moment, left = number * STRIDE % stage.moments, rng.choice(ROOM_LEFT)

    def fill() -> None:
        with filler.open("wb") as file:
            for more in (0, MIB, 8 * MIB):  # Postgres may take some meanwhile
                room = os.statvfs(server.folder)
                free = room.f_bavail * room.f_frsize
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, free - left - more))
                    return

    with stage.scene.copy() as job:
        job.query("checkpoint")  # see meet
        try:
            moments = Moments({moment: fill})
            with watched(stage.scene.server, stage.relay, moments):
                code, error = exit_of(through(stage, job))
        finally:
            filler.unlink(missing_ok=True)
            revive(server, job)
        result = look_and_repair(stage.scene, job, code, LOST, repr(error))
    case = f"disk full but for {left:,} bytes at moment {moment} of {stage.moments}"
    return Ending(case, f"disk full: {result}")


def revive(server: OwnServer, job: Job) -> None:
    """A server that could not recover without room has given up; one that could is there again."""
    deadline = time.monotonic() + 10
    while not answers(job.database_url):
        if time.monotonic() > deadline or not (server.folder / "data" / "postmaster.pid").exists():
            with suppress(AssertionError):  # it is not running
                server.stop("immediate")
            server.start()
            return
        time.sleep(0.05)


def lose_commits(ground: Ground, seed: int, number: int) -> Ending:
    """A failover to a copy that lacks the last commits: those of the run so far, or all of it."""
    rng = random.Random(seed)
    stage = stage_of(ground, seed, own=True)
    server = stage.server
    assert server is not None
    data, copy = server.folder / "data", server.folder / "copy"

    def fail_over() -> None:
        server.stop("immediate")
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", copy, data], check=True)
        server.start()

    # Not the one of an earlier case of this seed.
    archive = tempfile.mkdtemp(prefix="archive-", dir=ground.folder)
    archived = {"ETL_ARCHIVE": archive} if rng.random() < 0.5 else {}
    with stage.scene.copy(**archived) as job:
        # An archive that is ahead of its warehouse is refused, so that it is replayed or replaced.
        later = replace(job, variables=job.variables | dict.fromkeys(archived, f"{archive}-new"))
        server.stop("fast")
        subprocess.run(["cp", "-a", data, copy], check=True)
        server.start()
        try:
            if rng.random() < 0.5:
                moment = f"at moment {number * STRIDE % stage.moments} of {stage.moments}"
                moments = Moments({number * STRIDE % stage.moments: fail_over})
                with watched(stage.scene.server, stage.relay, moments):
                    code, error = exit_of(through(stage, job))
                result = look_and_repair(stage.scene, later, code, LOST | {75}, repr(error))
            else:
                moment = "after the run"
                code, error = exit_of(job)
                assert code == 0, error
                fail_over()
                stage.scene.assert_untouched(job)
                if archived:
                    code, error = exit_of(job)
                    assert code == 78, error
                    stage.scene.assert_untouched(job)
                stage.scene.assert_repaired(later)
                result = f"the next run exit {code}"
        finally:
            shutil.rmtree(copy)
    return Ending(f"commits lost {moment}", f"failover: {result}")


def pass_a_pooler(ground: Ground, seed: int, number: int) -> Ending:
    """Through PgBouncer, by transaction, when a link is cut or its connections are terminated."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return meet(ground, seed, number, "link cut")
    fault = random.Random(seed).choice(("nothing", "link cut", "backends terminated"))

    @contextmanager
    def make() -> Iterator[Stage]:
        scene = second_night(ground, seed)
        with (
            tempfile.TemporaryDirectory(prefix="kaltura-etl-pooler-") as folder,
            pgbouncer(program, Path(folder), scene.postgres_url) as url,
            relay_before(url) as relay,
        ):
            yield Stage(scene, relay, None, stage_of(ground, seed).moments)

    stage = ground.keep(("pooler", account_of(seed)), make)
    moment = number * STRIDE % stage.moments
    with stage.scene.copy() as job:
        acts: dict[int, Callable[[], int | None]] = {}
        if fault != "nothing":
            act = AT_MOMENT[fault].act
            acts = {moment: lambda: act(stage, job, random.Random(seed))}
        with watched(stage.scene.server, stage.relay, Moments(acts)):
            code, error = exit_of(through(stage, job))
        result = look_and_repair(
            stage.scene,
            job,
            code,
            LOST if acts else OK,
            repr(error),
            # The pooler keeps its own.
            lambda job: on_others(job, "pg_terminate_backend"),
        )
    return Ending(f"PgBouncer, {fault} at moment {moment}", f"pooler: {result}")


Kind = Callable[[Ground, int, int], Ending]


def moment_kind(name: str) -> Kind:
    return lambda ground, seed, number: meet(ground, seed, number, name)


KINDS: Final[tuple[Kind, ...]] = (
    *(moment_kind(name) for name in AT_MOMENT),
    moment_kind("link cut"),
    take_a_privilege,
    live_with_setting,
    fail_to_write,
    lock_a_table,
    lie_about_sizes,
    slow_link,
)


OF_SERVER: Final[tuple[Kind, ...]] = (fill_the_disk, lose_commits, pass_a_pooler)
ROUNDS: Final = 3
"""One round of so many is of the server as a whole."""


def run_case(ground: Ground, seed: int) -> Ending:
    number, kind = divmod(seed, len(KINDS))
    if number % ROUNDS == ROUNDS - 1:
        number = number // ROUNDS * len(KINDS) + kind
        return OF_SERVER[number % len(OF_SERVER)](ground, seed, number // len(OF_SERVER))
    return KINDS[kind * KIND_STRIDE % len(KINDS)](ground, seed, number)


DATABASE: Final = Campaign(
    name="database",
    promise="The database may fail, restart, crash, lose the link at any byte, run out of disk, "
    "fail over to a copy without the last commits, be reached through PgBouncer, become read-only, "
    "refuse a statement or a privilege, and be set up oddly: exit 0 means published, any other "
    "exit code means that nothing visible has changed, and the next run repairs everything.",
    run=run_case,
    in_slice=12,
    in_all=12 * len(KINDS),
    not_done=(
        "Corrupted pages and indexes.",
        "A host that vanishes without closing its connections.",
    ),
)
