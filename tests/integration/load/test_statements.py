"""The statements of the hot path, as Postgres gets them.

They exist only as expressions in ``etl/warehouse/load``.  The files in ``statements/`` let a reader
read them, and let a change of one show in the diff: ``ETL_TEST_WRITE=1 ./dev test`` of this file
writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import event

from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.resolve import audit_counts
from etl.warehouse.schema.database import Database
from tests.support.nights import MakeNights, Nights, make_token, page_of

FOLDER: Final = Path(__file__).parent / "statements"
HOT: Final = {
    "compare_copied": r"from pg_temp\.kaltura_etl_batch_\d",
    "compare_json": r"json_to_recordset",
    "missing": r"bool_or\(",
    "resolve": r"^select version\.change_kind, count\(\*\)",
    "fingerprint": r"string_agg\(int8send",
    "move": r"insert into kaltura\.upload_token_superseded",
    "first_load": r"insert into kaltura\.upload_token \((?!.* on conflict)",
    "upsert": r"insert into kaltura\.upload_token \(.* on conflict",
}
"""What tells each statement from the others."""
_CLAUSE: Final = re.compile(
    r" (?=(?:(?<!distinct )from|where|and|or|union all|left outer join|(?<!outer )join|group by|"
    r"order by|limit|set|values|on conflict|returning)\b)",
    re.IGNORECASE,
)
_OWN_NAME: Final = re.compile(r"(\b\w+\.(\w+)) AS \2\b")


@contextmanager
def listened(database: Database) -> Iterator[list[str]]:
    """The statements that SQLAlchemy sends, as one line each."""
    sent: list[str] = []

    def note(*arguments: object) -> None:
        sent.append(" ".join(str(arguments[2]).split()))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def readable(statement: str) -> str:
    """Without the schema and names that repeat the column's, and with one clause per line."""
    short = statement.replace("kaltura.", "").replace("pg_temp.", "")
    return _CLAUSE.sub("\n", _OWN_NAME.sub(r"\1", short)) + "\n"


def a_night_with_everything(nights: Nights) -> None:
    """Tokens that are new, changed, unchanged, gone, and seen twice."""
    nights.night(
        [make_token(name, 1_700_000_000 + 60 * number) for number, name in enumerate("abcd")]
    )
    nights.time += timedelta(days=1)
    run = nights.open()
    tokens = [
        make_token("a"),
        make_token("b", 1_700_000_060, status=1),
        make_token("e", 1_700_000_300),
    ]
    nights.stage(run, page_of(tokens[:2], observed_at=nights.time, from_start=True))
    later = nights.time + timedelta(seconds=5)
    nights.stage(run, page_of(tokens[1:], observed_at=later, to_end=True))
    nights.confirm(run, tokens)
    missing_tokens(nights.database, run, after="a")
    audit_counts(nights.database, run)
    nights.publish(run)
    assert (nights.counts.inserted, nights.counts.changed, nights.counts.absent) == (1, 1, 2)


@pytest.fixture
def statements(make_nights: MakeNights) -> dict[str, str]:
    """The last statement of each kind, by name."""
    found: dict[str, str] = {}
    for small in (False, True):
        nights = make_nights(small=small)
        with listened(nights.database) as sent:
            a_night_with_everything(nights)
        nights.query(
            "truncate kaltura.upload_token, kaltura.upload_token_superseded, "
            "kaltura.upload_token_status_moment_log, kaltura.upload_token_status_count_log, "
            "kaltura.upload_bytes_arrival_log"
        )
        nights.query("delete from kaltura.sync_page")
        nights.query("delete from kaltura.unobserved_token")
        nights.query("delete from kaltura.sync_run")
        for name, pattern in HOT.items():
            of_kind = [each for each in sent if re.search(pattern, each, re.IGNORECASE)]
            if of_kind:
                found[name] = readable(of_kind[-1])
    return found


def test_the_hot_statements_are_those_in_the_files(statements: dict[str, str]) -> None:
    assert statements.keys() == HOT.keys()
    if os.environ.get("ETL_TEST_WRITE"):
        for name, statement in statements.items():
            (FOLDER / f"{name}.sql").write_text(statement, encoding="utf-8")
    for name, statement in statements.items():
        assert (FOLDER / f"{name}.sql").read_text(encoding="utf-8") == statement, (
            f"{name}: if the change is meant, ETL_TEST_WRITE=1 writes the file anew"
        )
