"""Serves the accounts of ``accounts`` and reads them with real runs, one for each of their nights.

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
from etl.run.plan import SyncOptions
from etl.simulator import Account, SimulatorServer
from etl.warehouse.read.demo import tell_moments_again
from tests.questions.accounts import IS_LONG, LivedAccount, Night
from tests.questions.lives import BACK, CLOSED, GONE, Life, Move, NameChange
from tests.support.job import Job

PAGE_SIZE = 400 if IS_LONG else 60
BROKEN_PAGE_SIZE = 7
"""Of a night that fails midway, and of the one that resumes it: more pages than a checkpoint
waits for."""
FAILS_AT_PAGE = 10
"""In the night that fails midway: after the first checkpoint."""
INCREMENTAL_PAGE_SIZE = 60 if IS_LONG else 10
"""An incremental run reads one page of the newest tokens: ``truth.seen_by`` relies on it."""
FOR_EVER = "36500"
"""Days: by the database's clock the nights are long ago, and their pages would be pruned."""
Event = tuple[datetime, Callable[[Account], object]]


def load_account(database_url: str, lived: LivedAccount, schema: str = "kaltura") -> None:
    """Live through the nights; ``schema`` of ``database_url`` is a migrated warehouse."""
    now = [lived.lives[0].created_at]

    def clock() -> float:
        return now[0].timestamp()

    account = Account(lived.partner_id, clock=clock)
    events = sorted(_events(lived), key=lambda event: event[0])
    with (
        SimulatorServer(account) as server,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        connection.execute("select set_config('search_path', %s, false)", [schema])
        connection.execute(
            "select setval(pg_get_serial_sequence('sync_run', 'run_id'), %s, false)",
            [lived.nights[0].run_id],
        )
        job = Job.of(
            server,
            database_url,
            ETL_SCHEMA=schema,
            ETL_CONCURRENCY="1",
            ETL_RETRY_ATTEMPTS="1",  # a row that cannot be read stays so
            ETL_KEEP_PAGES_DAYS=FOR_EVER,
        )
        resumed = {night.resumed_from for night in lived.nights}
        for night in lived.nights:
            while events and events[0][0] <= night.began_at:
                now[0], happen = events.pop(0)
                happen(account)
            now[0] = night.began_at
            _run(job, server, night, is_resumed=night.run_id in resumed)
            if night.run_id in resumed:
                continue  # it can only be resumed while it is fresh by the database's clock
            if night.resumed_from is not None:
                set_to_calendar(connection, lived.night(night.resumed_from), schema)
            set_to_calendar(connection, night, schema)


def _run(job: Job, server: SimulatorServer, night: Night, *, is_resumed: bool) -> None:
    server.configure(poison=[night.unreadable] if night.unreadable else [])
    page_size = PAGE_SIZE
    if night.mode == "incremental":
        page_size = INCREMENTAL_PAGE_SIZE
    elif is_resumed or night.resumed_from is not None:
        page_size = BROKEN_PAGE_SIZE
    if night.failed:
        at = [FAILS_AT_PAGE] if is_resumed else None
        server.faults.schedule("service-forbidden", where="list", at=at)
        with pytest.raises(EtlError):
            job.run(ETL_PAGE_SIZE=str(page_size))
        server.faults.clear()
        return
    usual: dict[str, Any] = {}
    if night.odd:
        (token,) = server.account.find(night.odd)
        usual = server.account.fields(token)
        server.account.change(night.odd, {"status": "closed"}, touch=False)
    report = job.run(options=SyncOptions(mode=night.mode), ETL_PAGE_SIZE=str(page_size))
    assert (report.run_id, report.resumed_from) == (night.run_id, night.resumed_from), report
    assert (report.mode, report.full_because) == (night.mode, None)
    if night.odd:
        server.account.change(night.odd, usual, touch=False)


# --- what happens in the account -----------------------------------------------------------------


def _events(lived: LivedAccount) -> Iterator[Event]:
    for life in lived.lives:
        yield life.created_at, _creation(life)
        for move in life.moves:
            yield move.at, _move(life, move)
    for change in lived.names:
        yield change.at, _name_change(change)
    token_id, created_at = lived.bad_row
    partner = f"#{lived.partner_id}"
    yield created_at, lambda account: account.insert({"id": token_id, "partnerId": partner})


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

        def list_again(account: Account) -> None:
            account.undelete(life.token_id)
            # It may have gone on meanwhile, and its user may have got another name.
            state = life.state_at(move.at)
            assert state is not None
            fields: dict[str, Any] = {
                "userId": ... if state.user_id is None else state.user_id,
                "status": state.status,
                "updatedAt": int(state.updated_at.timestamp()),
            }
            if state.received is not None:
                fields["uploadedFileSize"] = str(state.received)
            account.change(life.token_id, fields | _attached(life, state.status), touch=False)

        return list_again
    fields: dict[str, Any] = {"status": move.to}
    if move.received is not None:
        fields["uploadedFileSize"] = str(move.received)
    fields |= _attached(life, move.to)
    return lambda account: account.change(life.token_id, fields)


def _attached(life: Life, status: int | str) -> dict[str, Any]:
    """What becomes of an upload that is closed."""
    if status != CLOSED:
        return {}
    return {"attachedObjectType": "1", "attachedObjectId": f"1_{life.token_id[2:]}"}


def _name_change(change: NameChange) -> Callable[[Account], object]:
    """``userId`` of all tokens of the user that are listed; their ``updatedAt`` stays."""
    if change.becomes is None:
        return lambda account: account.delete_user(change.user_id)
    fields = {"userId": change.becomes}

    def rename(account: Account) -> None:
        ids = [token.id for token in account.line if token.user_id == change.user_id]
        for token_id in ids:
            account.change(token_id, fields, touch=False)

    return rename


# --- the calendar --------------------------------------------------------------------------------


def set_to_calendar(connection: psycopg.Connection[Any], night: Night, schema: str) -> None:
    """Set all times that a run has written to those of its night; the search_path is the schema.

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
        update upload_token as token
        set
            valid_from = %(published_at)s,
            absence_confirmed_at
                = case when not token.is_listed then cast(%(confirmed_at)s as timestamptz) end,
            observed_at = case
                when not token.is_listed then %(confirmed_at)s
                else %(observed_at)s
            end
        from sync_run as run
        where token.run_id = run.run_id and run.run_id = %(run_id)s
        """,
        """
        update upload_token_superseded set valid_to = %(published_at)s
        where superseded_by_run_id = %(run_id)s
        """,
        """
        update sync_page
        set
            requested_at = %(requested_at)s,
            received_at = case
                when filter like '%%idIn%%' then %(confirmed_at)s else %(observed_at)s
            end
        where run_id = %(run_id)s
        """,
        """
        update sync_run
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
    tell_moments_again(connection, night.run_id, schema)
    connection.commit()
