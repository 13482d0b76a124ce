"""Serves the known account and reads it with real runs, one for each of its nights.

The runs take a moment each and are stamped by the database's clock, so they are set to the
calendar afterwards: each at its night, with a minute between its steps.  Only times are set; what
a run has read, compared and published stays as it left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from etl.errors import EtlError
from etl.simulator import Account, SimulatorServer
from tests.questions.lives import (
    BACK,
    BAD_ROW,
    CLOSED,
    DORA_DELETED_AT,
    GONE,
    LIVES,
    NIGHTS,
    OTHER_NIGHTS,
    OTHER_PARTNER,
    Life,
    Move,
    Night,
)
from tests.support.job import Job

PAGE_SIZE = 7
"""Small, so that a night has more pages than a checkpoint waits for."""
FAILS_AT_PAGE = 10
"""In the night that fails midway: after the first checkpoint."""
FOR_EVER = "36500"
"""Days: by the database's clock the nights are long ago, and their pages would be pruned."""
Event = tuple[datetime, Callable[[Account], object]]


def load_known_account(database_url: str) -> None:
    """Live through the nights; ``database_url`` is a migrated, empty warehouse."""
    now = [LIVES[0].created_at]

    def clock() -> float:
        return now[0].timestamp()

    account = Account(102, clock=clock)
    events = sorted(_events(), key=lambda event: event[0])
    with SimulatorServer(account) as server:
        job = Job.of(
            server,
            database_url,
            ETL_PAGE_SIZE=str(PAGE_SIZE),
            ETL_CONCURRENCY="1",
            ETL_RETRY_ATTEMPTS="1",  # a row that cannot be read stays so
            ETL_KEEP_PAGES_DAYS=FOR_EVER,
        )
        for night in NIGHTS:
            while events and events[0][0] <= night.began_at:
                now[0], happen = events.pop(0)
                happen(account)
            now[0] = night.began_at
            _run(job, server, night)
            following = NIGHTS[night.run_id :]
            if following and following[0].resumed_from == night.run_id:
                continue  # it can only be resumed while it is fresh by the database's clock
            with psycopg.connect(database_url) as connection:
                if night.resumed_from is not None:
                    set_to_calendar(connection, NIGHTS[night.resumed_from - 1])
                set_to_calendar(connection, night)


def load_other_account(database_url: str) -> None:
    """Another account, whose tokens have the same ids and lives, and all else different."""
    account = Account(OTHER_PARTNER)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "select setval(pg_get_serial_sequence('kaltura.sync_run', 'run_id'), %s)",
            [OTHER_NIGHTS[0].run_id - 1],
        )
    with SimulatorServer(account) as server:
        job = Job.of(server, database_url, ETL_KEEP_PAGES_DAYS=FOR_EVER)
        for night in OTHER_NIGHTS:
            for life in LIVES:
                _show(account, life, night.began_at)
            account.delete("0_other_bad")
            account.insert(
                {"id": "0_other_bad", "createdAt": 1_700_000_000, "partnerId": f"#{night.run_id}"}
            )
            _run(job, server, night)
            with psycopg.connect(database_url) as connection:
                set_to_calendar(connection, night)


def _show(account: Account, life: Life, when: datetime) -> None:
    state, created_at = life.state_at(when), int(life.created_at.timestamp()) + 7
    account.delete(life.token_id)
    if state is not None:
        account.insert(
            {
                "id": life.token_id,
                "userId": life.user_id or "otto",
                "status": state.status,
                "fileName": f"other {life.file_name}",
                "fileSize": "777777",
                "uploadedFileSize": str((state.received or 0) // 10**6),
                "createdAt": created_at,
                "updatedAt": max(int(state.updated_at.timestamp()), created_at),
            }
        )


def _run(job: Job, server: SimulatorServer, night: Night) -> None:
    server.configure(poison=[night.unreadable] if night.unreadable else [])
    if night.failed:
        resumed = any(each.resumed_from == night.run_id for each in NIGHTS)
        at = [FAILS_AT_PAGE] if resumed else None
        server.faults.schedule("service-forbidden", where="list", at=at)
        with pytest.raises(EtlError):
            job.run()
        server.faults.clear()
        return
    usual: dict[str, Any] = {}
    if night.odd:
        (token,) = server.account.find(night.odd)
        usual = server.account.fields(token)
        server.account.change(night.odd, {"status": "closed"}, touch=False)
    report = job.run()
    assert (report.run_id, report.resumed_from) == (night.run_id, night.resumed_from)
    if night.odd:
        server.account.change(night.odd, usual, touch=False)


# --- what happens in the account -----------------------------------------------------------------


def _events() -> Iterator[Event]:
    for life in LIVES:
        yield life.created_at, _creation(life)
        for move in life.moves:
            yield move.at, _move(life, move)
    yield DORA_DELETED_AT, lambda account: account.delete_user("dora")
    token_id, created_at = BAD_ROW
    yield created_at, lambda account: account.insert({"id": token_id, "partnerId": "#102"})


def _creation(life: Life) -> Callable[[Account], object]:
    fields: dict[str, Any] = {"id": life.token_id, "fileName": life.file_name}
    if life.user_id is not None:
        fields["userId"] = life.user_id
    if life.size is not None:
        fields["fileSize"] = str(life.size)
    return lambda account: account.insert(fields)


def _move(life: Life, move: Move) -> Callable[[Account], object]:
    if move.to == GONE:
        return lambda account: account.delete(life.token_id)
    if move.to == BACK:
        return lambda account: account.undelete(life.token_id)
    fields: dict[str, Any] = {"status": move.to}
    if move.received is not None:
        fields["uploadedFileSize"] = str(move.received)
    if move.to == CLOSED:
        fields |= {"attachedObjectType": "1", "attachedObjectId": f"1_{life.token_id[2:]}"}
    return lambda account: account.change(life.token_id, fields)


# --- the calendar --------------------------------------------------------------------------------


def set_to_calendar(connection: psycopg.Connection[Any], night: Night) -> None:
    """Set all times that a run has written to those of its night.

    A version that a resumed run took over from the run before gets its own time too: nothing
    changed between the two.
    """
    ended_at = night.began_at + timedelta(minutes=3) if night.failed else night.published_at
    values = {
        "run_id": night.run_id,
        "began_at": night.began_at,
        "requested_at": night.began_at + timedelta(minutes=1),
        "observed_at": night.observed_at,
        "confirmed_at": night.confirmed_at,
        "published_at": night.published_at,
        "ended_at": ended_at,
    }
    for statement in (
        """
        update kaltura.upload_token as token
        set
            valid_from = %(published_at)s,
            absence_confirmed_at
                = case when not token.is_listed then cast(%(confirmed_at)s as timestamptz) end,
            observed_at = case
                when not token.is_listed then %(confirmed_at)s
                else %(observed_at)s
            end
        from kaltura.sync_run as run
        where token.run_id = run.run_id and run.run_id = %(run_id)s
        """,
        """
        update kaltura.upload_token_superseded set valid_to = %(published_at)s
        where superseded_by_run_id = %(run_id)s
        """,
        """
        update kaltura.sync_page
        set
            requested_at = %(requested_at)s,
            received_at = case
                when filter like '%%idIn%%' then %(confirmed_at)s else %(observed_at)s
            end
        where run_id = %(run_id)s
        """,
        """
        update kaltura.sync_run
        set
            started_at = %(began_at)s,
            heartbeat_at = %(ended_at)s,
            finished_at = %(ended_at)s,
            oldest_page_at = case when oldest_page_at is not null then %(requested_at)s end,
            published_at = case when published_at is not null then %(published_at)s end
        where run_id = %(run_id)s
        """,
    ):
        connection.execute(statement, values)
    connection.commit()
