"""A warehouse whose version kept no status moments gets them of its versions, and loses none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg
from alembic import command
from psycopg.rows import dict_row
from sqlalchemy import Engine, event

from etl.verify.checks import verify
from etl.warehouse.schema.filling import (
    arrival_filling,
    count_filling,
    moment_fillings,
    reopened_filling,
    stay_filling,
)
from etl.warehouse.schema.revision import HEAD_REVISION, migrate
from tests.support.moments import fill_moments
from tests.support.schema import configured, rows, upgrade
from tests.support.world import World

HISTORY: Final = (
    "select * from kaltura.upload_token_status_history order by partner_id, token_id, version"
)
OUTCOMES: Final = (
    "select * from kaltura.upload_outcome order by token_id",
    "select * from kaltura.upload_outcome_daily order by day, size_bucket_order",
    "select * from kaltura.upload_token_daily_status order by day, status",
)
BYTES: Final = "select * from kaltura.upload_bytes_daily order by day"
DERIVED: Final = (
    "select partner_id, token_id, version, from_status, to_status, happened_at, happened_after, "
    "happened_before from kaltura.upload_token_status_moment order by partner_id, token_id, version"
)
LOG: Final = "select * from kaltura.upload_token_status_moment_log order by token_id, version"
SINCE: Final = (
    "select token_id, version, status_version, status_happened_at, status_happened_after, "
    "status_happened_before from kaltura.upload_token order by token_id"
)
OF_MOMENTS: Final = {
    *("status_moments_truthful", "status_since_truthful", "first_closed_truthful"),
    *("status_counts_truthful", "bytes_arrived_truthful", "earlier_stays_truthful"),
}


PUBLICATIONS_HELD: Final = (
    "select exists (select from pg_locks where granted and mode = 'ShareRowExclusiveLock' "
    "and relation = 'kaltura.upload_token'::regclass)"
)


@contextmanager
def publications_held(url: str) -> Iterator[None]:
    """Each filling is done while no run can publish, and none can before the revision is there."""
    fillings = {
        _in_line(each)
        for each in (
            *(*moment_fillings(), count_filling(), arrival_filling(), stay_filling()),
            reopened_filling(),
        )
    }
    begun, held = set[str](), set[str]()

    def sent(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        del conn, cursor
        if (filling := _in_line(statement)) in fillings and rows(url, PUBLICATIONS_HELD)[0][0]:
            begun.add(filling)
        if statement.startswith("UPDATE kaltura.alembic_version"):
            held.update(begun)

    def committed(conn: Any) -> None:
        del conn
        begun.clear()

    event.listen(Engine, "before_cursor_execute", sent)
    event.listen(Engine, "commit", committed)
    try:
        yield
        assert held == fillings
    finally:
        event.remove(Engine, "before_cursor_execute", sent)
        event.remove(Engine, "commit", committed)


def _in_line(statement: str) -> str:
    return " ".join(statement.replace("%%", "%").split())


def failing(url: str) -> set[str]:
    return {each.name for each in verify(url) if not each.ok} & OF_MOMENTS


def test_an_old_warehouse_is_filled_and_can_go_back(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0009")
    made = World(random.Random(4))
    made.pass_days(12, 60)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        made.write(connection, moments=False)
        for table in ("upload_token", "upload_token_superseded"):
            connection.execute(
                f"update {table} set uploaded_size_bytes = 1000 * version, changed_columns = "  # noqa: S608
                "array_append(changed_columns, 'uploaded_size_bytes') where is_listed".encode()
            )
    versions = rows(url, DERIVED)
    with publications_held(url):
        assert migrate(url) == ("0009", HEAD_REVISION)
    assert [row[:5] + row[8:11] for row in rows(url, HISTORY)] == versions
    logged = rows(url, "select count(*) from kaltura.upload_token_status_moment_log")
    assert logged == [(sum(row[2] != 1 for row in versions),)]
    assert failing(url) == set()
    history, outcomes = rows(url, HISTORY), [rows(url, query) for query in OUTCOMES]
    arrived = rows(url, BYTES)
    command.downgrade(configured(url), "0014")
    assert rows(url, BYTES) == arrived != []
    command.downgrade(configured(url), "0009")
    assert rows(url, HISTORY) == history
    assert [rows(url, query) for query in OUTCOMES] == outcomes
    # A version that is published by a program of that revision is filled in at the next migration.
    assert migrate(url) == ("0009", HEAD_REVISION)
    assert rows(url, HISTORY) == history
    assert [rows(url, query) for query in OUTCOMES] == outcomes
    assert rows(url, BYTES) == arrived


def test_what_revision_0012_published_is_told_of_the_change_before(empty_database_url: str) -> None:
    """It put no estimates in order, and may have pruned what would say since when."""
    url = empty_database_url
    migrate(url)
    made = World(random.Random(4))
    made.pass_days(12, 60)
    with closing(psycopg.connect(url, autocommit=True, row_factory=dict_row)) as connection:
        connection.execute("set search_path = kaltura")
        made.write(connection, moments=False)
        # As late as can be, but for the latest, which are as early as can be.
        connection.execute("update upload_token_superseded set updated_at = observed_at")
        connection.execute(
            "update upload_token as latest set updated_at = derived.happened_after "
            "from upload_token_status_moment as derived "
            "where derived.token_id = latest.token_id and derived.version = latest.version"
        )
        fill_moments(connection)
        assert failing(url) == set()
        before = [connection.execute(query).fetchall() for query in (LOG, SINCE)]
        command.downgrade(configured(url), "0012")
        early = connection.execute(
            "update upload_token_status_moment_log as logged set happened_at = derived.happened_at "
            "from upload_token_status_moment as derived where derived.token_id = logged.token_id "
            "and derived.version = logged.version and derived.happened_at <> logged.happened_at"
        ).rowcount
        assert early > 0
        assert migrate(url) == ("0012", HEAD_REVISION)
        assert [connection.execute(query).fetchall() for query in (LOG, SINCE)] == before
        command.downgrade(configured(url), "0012")
        connection.execute(
            "with pruned as (delete from upload_token_superseded where version < 3 returning *) "
            "delete from upload_token_status_moment_log as logged using pruned "
            "where pruned.token_id = logged.token_id and pruned.version = logged.version"
        )
        connection.execute(
            "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
            "select partner_id, 'versions', max(valid_from), 1, '' from upload_token group by 1"
        )
        assert migrate(url) == ("0012", HEAD_REVISION)
        assert failing(url) == set()
        log, since = [connection.execute(query).fetchall() for query in (LOG, SINCE)]
    was = {row["token_id"]: row for row in before[1]}
    unknown = [row for row in since if row["version"] > 1 and row["status_version"] is None]
    assert unknown
    assert all(was[row["token_id"]]["status_version"] < 3 for row in unknown)
    assert all(row == was[row["token_id"]] for row in since if row not in unknown)
    orphans = [row for row in log if row["from_version"] is None]
    assert orphans
    # What was told when they were published stays.
    assert None not in {row["from_happened_at"] for row in orphans}


LEAVE_OUT: Final = """
update upload_token as token set earlier_stays = (
    select array_agg(number order by stay.version, stay.seen, stay.status_code, place)
    from
        upload_status_stay as stay,
        unnest(array[
            case
                when stay.status = 'NOT_LISTED' then 32768 else coalesce(stay.status_code, 32769)
            end,
            case when stay.seen then stay.at_least_seconds else -1 end,
            stay.at_most_seconds,
            stay.estimated_at_most_seconds
        ]) with ordinality as each (number, place)
    where
        stay.token_id = token.token_id
        and not stay.is_current
        and (
            stay.seen
            or not exists (
                select 1 from reopened
                where reopened.token_id = stay.token_id and reopened.version = stay.version
            )
        )
)
where token_id in (select token_id from reopened)
"""


def test_what_went_on_after_a_failure_is_told_what_it_passed(empty_database_url: str) -> None:
    """Revisions from 0016 on left that out; of some tokens, earlier versions are pruned by now."""
    url = empty_database_url
    migrate(url)
    made = World(random.Random(4))
    made.pass_days(12, 300)
    stays = "select token_id, earlier_stays from kaltura.upload_token order by token_id"
    numbers = (
        "select token_id, array(select unnest(earlier_stays) order by 1) "
        "from kaltura.upload_token order by token_id"
    )
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        made.write(connection, moments=False)
        fill_moments(connection)
        connection.execute(
            "create temporary table reopened as select moment.token_id, moment.version "
            "from upload_token_status_moment_log as moment "
            "left join upload_token_status_moment_log as was on was.token_id = moment.token_id "
            "and was.version = moment.from_version and moment.change_kind = 'relisted' "
            "where moment.to_status_code in (2, 3) "
            "and coalesce(moment.from_status_code, was.from_status_code) in (4, 6)"
        )
        told, told_numbers = rows(url, stays), rows(url, numbers)
        assert failing(url) == set()
        assert connection.execute(LEAVE_OUT).rowcount > 3
        assert rows(url, stays) != told
        assert failing(url) == {"earlier_stays_truthful"}
        command.downgrade(configured(url), "0020")
        assert migrate(url) == ("0020", HEAD_REVISION)
        assert rows(url, stays) == told

        connection.execute(LEAVE_OUT)
        command.downgrade(configured(url), "0020")
        connection.execute("delete from upload_token_superseded where version = 1")
        connection.execute(
            "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
            "select partner_id, 'versions', max(valid_from), 1, '' from upload_token group by 1"
        )
        migrate(url)
        added = rows(url, stays)
        # Once more, it is there.
        command.downgrade(configured(url), "0020")
        migrate(url)
    assert failing(url) == set()
    assert rows(url, stays) == added
    assert rows(url, numbers) == told_numbers
