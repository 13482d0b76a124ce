"""``sql/dbt/models/sources.yml`` says what the schema says of itself."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests.dbt.published import FRESHNESS, VIEW_KEYS, published, sources_yml

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "sql" / "dbt" / "models" / "sources.yml"
LOCK = Path(__file__).with_name("requirements-dbt.txt")
WRITE = "ETL_TEST_WRITE"


def test_the_sources_are_the_published_tables_and_views(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        expected = sources_yml(published(connection))

    if os.environ.get(WRITE):
        SOURCES.write_text(expected, encoding="utf-8")
    assert SOURCES.read_text(encoding="utf-8") == expected, (
        f"{WRITE}=1 ./dev test tests/dbt writes it anew"
    )


def test_everything_has_a_description_and_every_relation_a_key(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        relations = published(connection)

    names = {relation.name for relation in relations}
    assert names >= VIEW_KEYS.keys() | FRESHNESS.keys()
    for relation in relations:
        assert relation.comment, relation.name
        assert all(relation.columns.values()), relation.name
        assert relation.keys or relation.name == "rejected_row", f"{relation.name} has no key"
        for key in relation.keys:
            assert set(key) <= relation.columns.keys(), relation.name
        known = relation.columns.keys()
        assert known >= relation.not_null | relation.references.keys() | relation.values.keys()
        for table, _ in relation.references.values():
            assert table in names


def test_an_account_without_a_complete_run_is_not_fresh(database_url: str) -> None:
    query = FRESHNESS["sync_freshness"]["loaded_at_query"].replace(
        "{{ this }}",
        "(values (1, now()), (2, cast(null as timestamptz))) as seen (id, last_complete_at)",
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("set time zone 'UTC'")
        row = connection.execute(query).fetchone()

    assert row == (datetime(1970, 1, 1, tzinfo=UTC),)


def test_the_lock_of_dbt_has_hashes_and_no_addresses() -> None:
    text = LOCK.read_text(encoding="utf-8")

    assert "://" not in text
    assert "dbt-core==1.11." in text  # 1.12 did not install beside dbt-postgres
    packages = re.findall(r"^[a-z0-9-]+(?:\[\w+\])?==", text, re.MULTILINE)
    assert len(packages) > 40
    assert text.count("--hash=sha256:") >= len(packages)
