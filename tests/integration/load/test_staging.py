"""Staging: any batches in any order give the same table, and an unchanged night writes nothing."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.tokens.decode import Rejected
from etl.warehouse.load.staging import stage_lookup
from tests.support.nights import START, MakeNights, Nights, make_token, page_of
from tests.support.pgbouncer import pgbouncer
from tests.support.wal import install_wal_inspect, wal_of_tables, wal_position

WRITTEN = ("upload_token", "upload_token_superseded", "upload_token_staging")


def published(nights: Nights) -> list[tuple[Any, ...]]:
    """The tables without their stamps."""
    rows = nights.query(
        "select token_id, version, change_kind, changed_columns, is_listed, status, user_id, "
        "created_at, observed_at, absence_confirmed_at from kaltura.upload_token order by token_id"
    )
    rejected = nights.query(
        "select distinct token_id, reason, created_second from kaltura.rejected_row "
        "where run_id = (select max(run_id) from kaltura.sync_run) order by 1, 2, 3"
    )
    return [tuple(map(str, row.values())) for row in (*rows, *rejected)]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_batches_in_any_order_give_the_same_table(
    make_nights: MakeNights, data: st.DataObject
) -> None:
    seconds = st.integers(0, 12)
    rows = st.lists(
        st.tuples(st.sampled_from("abcdefghij"), seconds, st.sampled_from([1, 3])),
        min_size=1,
        max_size=14,
    )
    before, after, partial = data.draw(rows), data.draw(rows), data.draw(st.booleans())
    pages_of_night = []
    ordered = sorted(after, key=lambda row: row[1])
    size = data.draw(st.integers(2, 5))
    for number, begin in enumerate(range(0, len(ordered), size - 1)):
        # Statuses change from page to page, so that the overlaps disagree.
        pages_of_night.append(
            (
                [
                    make_token(token_id, START + second, status=status + number % 2)
                    for token_id, second, status in ordered[begin : begin + size]
                ],
                begin == 0,
                begin + size >= len(ordered) and not partial,
                number,
            )
        )

    def load(batches: list[list[Any]], small: bool) -> list[tuple[Any, ...]]:
        nights = make_nights(small=small)
        nights.query(
            "truncate kaltura.upload_token, kaltura.upload_token_superseded, "
            "kaltura.upload_token_status_moment_log, kaltura.upload_token_status_count_log, "
            "kaltura.upload_bytes_arrival_log"
        )
        nights.query("truncate kaltura.rejected_row, kaltura.sync_page, kaltura.sync_run cascade")
        nights.night(make_token(each[0], START + each[1], status=each[2]) for each in before)
        run = nights.open()
        for batch in batches:
            nights.stage(
                run,
                *[
                    page_of(
                        tokens,
                        from_start=from_start,
                        to_end=to_end,
                        observed_at=nights.time + timedelta(days=1, seconds=number),
                    )
                    for tokens, from_start, to_end, number in batch
                ],
            )
        nights.time += timedelta(days=1, hours=1)
        nights.confirm(run, [make_token(row[0], START + row[1], status=row[2]) for row in after])
        nights.publish(run)
        found = published(nights)
        nights.database.engine.dispose()
        return found

    shuffled = data.draw(st.permutations(pages_of_night))
    cut = data.draw(st.integers(0, len(shuffled)))
    batches = [part for part in (list(shuffled[:cut]), list(shuffled[cut:])) if part]
    assert load([pages_of_night], small=False) == load(batches, small=True)


def test_unchanged_night_writes_no_row(make_nights: MakeNights) -> None:
    tokens = [make_token(f"token-{number}", START + number) for number in range(20_000)]
    assert install_wal_inspect(make_nights().query)
    for small in (False, True):
        nights = make_nights(small=small)

        def night(nights: Nights = nights) -> int:
            run = nights.open()
            pages = [
                page_of(
                    tokens[begin : begin + 500],
                    from_start=begin == 0,
                    to_end=begin + 500 >= len(tokens),
                )
                for begin in range(0, len(tokens) - 20, 480)
            ]
            for begin in range(0, len(pages), 8):
                nights.stage(run, *pages[begin : begin + 8])
            nights.publish(run)
            assert nights.ledger(run.run_id)["certificate"] == "{(,)}"
            return int(nights.counts.versions)

        night()
        # The backend's own figures first: told after the vacuum, its dead rows would count again,
        # and autovacuum would come for them in the middle of the measurement.
        statistics(nights)
        nights.query("vacuum analyze")
        night()
        before, grown = statistics(nights), []
        for _ in range(3):
            wal_before = wal_position(nights.query)
            assert night() == 0
            grown.append(sum(wal_of_tables(nights.query, wal_before).values()))

        assert statistics(nights) == before
        # Measured: 0.7 to 0.8; the least of three, as autovacuum may write in between.
        assert 0 < min(grown) < 2 * len(tokens)


def statistics(nights: Nights) -> list[tuple[Any, ...]]:
    # A backend tells what it has done at most once a second, and for certain when it ends.
    nights.database.engine.dispose()
    nights.query("select pg_stat_force_next_flush()")
    time.sleep(0.2)
    rows = nights.query(
        "select relname, n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup from pg_stat_user_tables "
        "where relname = any(%s) order by relname",
        list(WRITTEN),
    )
    return [tuple(row.values()) for row in rows]


def test_later_page_that_shows_the_known_value_again_wins(nights: Nights) -> None:
    nights.night([make_token("a", status=1)])
    run = nights.open()
    later = nights.time + timedelta(hours=1)
    nights.stage(run, page_of([make_token("a", status=2)], from_start=True, to_end=True))
    nights.stage(
        run, page_of([make_token("a", status=1)], from_start=True, to_end=True, observed_at=later)
    )
    nights.publish(run)

    assert (nights.counts.versions, nights.counts.unchanged) == (0, 1)


def test_rejected_row_of_a_known_token_keeps_its_version_open(nights: Nights) -> None:
    nights.night([make_token("a"), make_token("b", START + 9)])
    bad = Rejected("a", "bad_status", b'{"id": "a", "status": "full"}', START)
    run = nights.open()
    for _ in range(2):
        nights.stage(
            run, page_of([make_token("b", START + 9)], from_start=True, to_end=True, rejected=[bad])
        )
    assert nights.confirm(run, [make_token("b", START + 9)]) == []
    nights.publish(run)

    counts = nights.counts
    assert (counts.rejected, counts.rejected_known, counts.unchanged) == (1, 1, 1)
    assert (counts.pending, counts.absent, counts.tokens_read) == (0, 0, 2)
    assert nights.token("a")["is_listed"]


def test_awkward_texts_arrive_as_they_are(nights: Nights) -> None:
    names = ["\\N", "", "a\tb\r\n'\"\\.", "\U0001f4a9é\u202e", "'; drop table x--", "%s %(a)s :x"]
    nights.night(
        make_token(
            f"t{number}", START + number, file_name=name, user_id="", extra=b'{"k": "\\u00e9"}'
        )
        for number, name in enumerate(names)
    )
    counts = nights.night(
        make_token(
            f"t{number}", START + number, file_name=name, user_id="", extra=b'{"k": "\xc3\xa9"}'
        )
        for number, name in enumerate(names)
    )

    assert counts.versions == 0
    rows = nights.query("select file_name from kaltura.upload_token order by token_id")
    assert [row["file_name"] for row in rows] == names


def test_looked_up_token_that_is_known_and_silent_becomes_absent(nights: Nights) -> None:
    """What an incremental run asks for without having missed it on a page."""
    nights.night([make_token("a"), make_token("b")])
    run = nights.open(mode="incremental")
    answer = page_of(
        [make_token("b", status=4)],
        seq=0,
        observed_at=nights.time,
        lookup=True,
        asked=["a", "b", "unknown"],
    )
    stage_lookup(nights.database, run, answer, absence_grace=timedelta(minutes=15))
    nights.publish(run)

    assert (nights.counts.absent, nights.counts.changed, nights.counts.unchanged) == (1, 1, 0)
    assert nights.ledger(run.run_id)["pages"] == 1


def test_many_random_nights_agree_with_a_model(make_nights: MakeNights) -> None:
    dice = random.Random(7)
    nights = make_nights()
    model: dict[str, int] = {}
    for _ in range(6):
        for _ in range(20):
            model[f"t{dice.randrange(40)}"] = dice.randrange(7)
        for token_id in dice.sample(sorted(model), 8):
            del model[token_id]
        nights.night(make_token(each, START + int(each[1:]), status=model[each]) for each in model)

        rows = nights.query("select * from kaltura.upload_token where is_listed")
        assert {row["token_id"]: row["status"] for row in rows} == model
    broken = nights.query(
        "select 1 from kaltura.upload_token_superseded old where not exists ("
        "select 1 from kaltura.upload_token new where new.token_id = old.token_id "
        "and new.version > old.version) or valid_to is distinct from coalesce(("
        "select valid_from from kaltura.upload_token_superseded next where next.token_id = "
        "old.token_id and next.version = old.version + 1), (select valid_from from "
        "kaltura.upload_token new where new.token_id = old.token_id and new.version = "
        "old.version + 1))"
    )
    assert broken == []


@pytest.mark.pgbouncer
def test_nights_through_pgbouncer_in_transaction_mode(
    make_nights: MakeNights,
    database_url: str,
    pgbouncer_program: str,
    private_folder: Path,
) -> None:
    with pgbouncer(pgbouncer_program, private_folder, database_url) as url:
        nights = make_nights(url)
        tokens = [make_token(f"t{number}", START + number) for number in range(30)]
        nights.night(tokens)
        assert nights.night(tokens).versions == 0
        run = nights.open()
        for begin in range(0, 30, 3):
            nights.stage(
                run,
                page_of(
                    [each._replace(status=4) for each in tokens[begin : begin + 5]],
                    from_start=begin == 0,
                    to_end=begin == 27,
                ),
            )
        nights.confirm(run, [])
        nights.publish(run)
        nights.database.engine.dispose()

    assert (nights.counts.changed, nights.counts.absent) == (30, 0)
