"""What makes a run be refused or end half-way, and what holds after that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
import pytest

from etl.errors import CredentialsRefused, DataRefused
from etl.run.plan import SyncOptions
from etl.simulator import Account, SimulatorServer
from tests.support.job import Job, killed_at_exit, listed, wait_until
from tests.support.model import Model
from tests.support.moments import fill_moments_anew

TOKENS = 400
HIDDEN = 180
"""45 %, far more than the brake lets pass."""
PAGE_SIZE = 20
FIRST_SECOND = 1_700_000_000
BAD_ROWS = 100
HALF_WAY = 20
"""A list request in the middle of a walk, when two batches are saved."""
OF_THE_SERVICE = (
    *("created_at", "updated_at", "first_created_at", "last_created_at", "first_closed_at"),
    *("range_from", "range_to"),
)
"""Times that stand for createdAt and its like, not for when something happened here."""


def account_of_singles(tokens: int) -> Account:
    """Tokens of all statuses, no two of a second: small pages need no look-ups for ties."""
    account = Account()
    for number in range(tokens):
        second = FIRST_SECOND + 60 * number
        account.insert(
            {
                "id": f"0_{number:04d}",
                "createdAt": second,
                "updatedAt": second,
                "status": (2, 3, 3, 0)[number % 4],
                "fileName": f"film {number}.mp4",
            }
        )
    return account


def hide(server: SimulatorServer) -> list[str]:
    """Take tokens off the list, from all over it."""
    ids = [fields["id"] for fields in listed(server)]
    hidden = [token_id for number, token_id in enumerate(ids) if number % 20 < 9]
    assert len(hidden) == HIDDEN
    for token_id in hidden:
        assert server.account.delete(token_id)
    return hidden


def show(server: SimulatorServer, hidden: Sequence[str]) -> None:
    """Put them back, byte for byte, where they were."""
    for token_id in hidden:
        assert server.account.undelete(token_id)


def refuse(job: Job, reason: str, options: SyncOptions | None = None, **variables: str) -> str:
    """A run that the audit refuses; returns what it says."""
    before = job.everything()
    with pytest.raises(DataRefused) as caught:
        job.run(options=options, **variables)
    assert caught.value.exit_code == 65
    assert caught.value.fields["reason"] == reason
    assert job.everything() == before
    return caught.value.message


def break_half_way(server: SimulatorServer, job: Job, *, at: int = HALF_WAY) -> int:
    """A run that fails after it has saved pages, with the list ``at``; returns its id."""
    server.faults.schedule("service-forbidden", where="list", at=(at,))
    with pytest.raises(CredentialsRefused):
        job.run()
    broken = job.last_run()
    assert (broken["status"], broken["pages"] > 0) == ("failed", True)
    return int(broken["run_id"])


def let_hours_pass(job: Job, hours: float) -> None:
    """Make everything that the warehouse knows of so much older, as if it were that much later."""
    columns = job.query(
        "select table_name, string_agg(format('%%1$I = %%1$I - %%2$L::interval', column_name, "
        "%s::text), ', ') as earlier from information_schema.columns "
        "join information_schema.tables using (table_schema, table_name) "
        "where table_schema = 'kaltura' and table_type = 'BASE TABLE' "
        "and data_type = 'timestamp with time zone' and column_name <> all (%s) "
        "group by table_name",
        f"{hours} hours",
        list(OF_THE_SERVICE),
    )
    for table in columns:
        job.query(f"update kaltura.{table['table_name']} set {table['earlier']}")  # noqa: S608
    # Moments are estimated from both kinds of times.
    with psycopg.connect(job.database_url, autocommit=True) as connection:
        connection.execute("set search_path = kaltura")
        fill_moments_anew(connection)


@contextmanager
def no_room_for_publishing(job: Job) -> Iterator[None]:
    """The database fails each run when all is confirmed and it is about to end as published."""
    job.query(
        "create function kaltura.no_room() returns trigger language plpgsql as "
        "$$ begin raise exception 'no room' using errcode = 'disk_full'; end $$"
    )
    job.query(
        "create trigger no_room before update on kaltura.sync_run for each row "
        "when (new.status = 'succeeded') execute function kaltura.no_room()"
    )
    try:
        yield
    finally:
        job.query("drop function kaltura.no_room cascade")


def spoil(server: SimulatorServer, bad_rows: int = BAD_ROWS) -> list[tuple[str, int]]:
    """Add rows that cannot be loaded, from all over the list: id and second of each."""
    tokens = listed(server)
    step = len(tokens) // bad_rows
    seconds = [fields["createdAt"] + 1 for fields in tokens[::step][:bad_rows]]
    rows = [(f"bad{number}", second) for number, second in enumerate(seconds)]
    for token_id, second in rows:
        body = b'{"id":"%b","partnerId":102,"status":"often","createdAt":%d}'
        server.account.insert_raw(token_id, second, body % (token_id.encode(), second))
    return rows


def mend(server: SimulatorServer, rows: Sequence[tuple[str, int]]) -> None:
    """Make tokens of them."""
    for token_id, second in rows:
        server.account.delete(token_id)
        server.account.insert({"id": token_id, "createdAt": second, "updatedAt": second})


def assert_published(server: SimulatorServer, job: Job) -> None:
    """The warehouse lists what the service lists, and says so of the whole account."""
    run = job.last_run()
    assert (run["status"], run["certificate"]) == ("succeeded", "{(,)}")
    model = Model()
    model.night(listed(server))
    current = job.current()
    assert {token_id for token_id, row in current.items() if row["is_listed"]} == set(
        model.current()
    )


def staged(job: Job) -> int:
    (row,) = job.query(
        "select count(*) as n from kaltura.upload_token_staging where partner_id = %s",
        job.partner_id,
    )
    return int(row["n"])


@contextmanager
def publishing_locked(job: Job) -> Iterator[None]:
    """Hold the lock that publishing takes first."""
    with closing(psycopg.connect(job.database_url, autocommit=True)) as connection:
        connection.execute(
            "select pg_advisory_lock(hashtextextended(%s, 0))",
            [f"kaltura-etl kaltura {job.partner_id}"],
        )
        yield


def kill_before_publishing(job: Job, *arguments: str) -> int:
    """SIGKILL a run that has confirmed all absences and is about to publish; returns its id."""
    backends = (
        "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
        "and wait_event = 'advisory'"
    )
    with publishing_locked(job), killed_at_exit(job.start(*arguments)) as process:
        wait_until(lambda: bool(job.query(f"select pid {backends}")), 60)
        process.kill()
        process.wait(60)
        # Postgres learns of the death only when it has the lock, so its process is ended too.
        job.query(f"select pg_terminate_backend(pid, 10000) {backends}")
    killed = job.last_run()
    assert killed["status"] == "running"
    let_hours_pass(job, 1)
    return int(killed["run_id"])
