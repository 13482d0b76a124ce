"""A warehouse whose version kept no status moments gets them of its versions, and loses none."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Final

import psycopg
from alembic import command

from etl.verify.checks import verify
from etl.warehouse.schema.revision import HEAD_REVISION, migrate
from tests.support.schema import configured, rows, upgrade
from tests.support.world import World

HISTORY: Final = (
    "select * from kaltura.upload_token_status_history order by partner_id, token_id, version"
)
OUTCOMES: Final = (
    "select * from kaltura.upload_outcome order by token_id",
    "select * from kaltura.upload_outcome_daily order by day, size_bucket_order",
)
DERIVED: Final = (
    "select partner_id, token_id, version, from_status, to_status, happened_at, happened_after, "
    "happened_before from kaltura.upload_token_status_moment order by partner_id, token_id, version"
)
OF_MOMENTS: Final = {"status_moments_truthful", "first_closed_truthful"}


def test_an_old_warehouse_is_filled_and_can_go_back(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0009")
    made = World(random.Random(4))
    made.pass_days(12, 60)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        made.write(connection, moments=False)
    versions = rows(url, DERIVED)
    assert migrate(url) == ("0009", HEAD_REVISION)
    assert [row[:5] + row[8:11] for row in rows(url, HISTORY)] == versions
    logged = rows(url, "select count(*) from kaltura.upload_token_status_moment_log")
    assert logged == [(sum(row[2] != 1 for row in versions),)]
    failing = {each.name for each in verify(url) if not each.ok}
    assert not failing & OF_MOMENTS
    history, outcomes = rows(url, HISTORY), [rows(url, query) for query in OUTCOMES]
    command.downgrade(configured(url), "0009")
    assert rows(url, HISTORY) == history
    assert [rows(url, query) for query in OUTCOMES] == outcomes
    # A version that is published by a program of that revision is filled in at the next migration.
    assert migrate(url) == ("0009", HEAD_REVISION)
    assert rows(url, HISTORY) == history
