"""The views of versions against a world whose truth is known: as-of, changes of status, days."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.model import Row
from tests.support.moments import fill_moments
from tests.support.roles import own_database
from tests.support.world import BEGIN, PARTNER, SECOND, World, insert

NAMES = {0: "PENDING", 1: "PARTIAL_UPLOAD", 2: "FULL_UPLOAD", 3: "CLOSED", 4: "TIMED_OUT"}
NAMES |= {5: "DELETED", 6: "ERROR", 77: "UNKNOWN_77"}
DAYS = 20


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        yield opened


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with connected(database_url) as opened:
        yield opened


Lived = tuple[World, psycopg.Connection[Row]]


@pytest.fixture(scope="module", params=[1, 2, 3])
def lived(
    postgres_url: str, template_database: str, request: pytest.FixtureRequest
) -> Iterator[Lived]:
    """Twenty days of 150 tokens under all kinds of runs.  The tests only read them."""
    made = World(random.Random(request.param))
    made.pass_days(DAYS, 150)
    assert len(made.runs) > 30
    assert made.unobserved
    with own_database(postgres_url, template_database) as url, connected(url) as opened:
        made.write(opened)
        opened.execute("set default_transaction_read_only = on")
        yield made, opened


def named(version: Row) -> str:
    if not version["is_listed"]:
        return "NOT_LISTED"
    return "UNKNOWN" if version["status"] is None else NAMES[version["status"]]


def changes(versions: list[Row]) -> list[tuple[Row | None, Row]]:
    """The versions at which the status or the presence changed, with those before them."""
    pairs = zip([None, *versions], versions, strict=False)
    return [(was, became) for was, became in pairs if was is None or named(was) != named(became)]


@pytest.mark.postgres15
def test_every_interval_contains_the_true_moment(lived: Lived) -> None:
    world, connection = lived
    rows = connection.execute("select * from upload_token_status_history").fetchall()
    found = {(row["token_id"], row["version"]): row for row in rows}
    narrowed = at_the_second = 0
    expected = set()
    for life in world.lives:
        versions = world.versions.get(life.token_id, [])
        before: Row | None = None
        for was, became in changes(versions):
            key = life.token_id, became["version"]
            expected.add(key)
            row = found[key]
            moment = world.seen_at[key]
            entered = max(state.since for state in life.states if state.since <= moment)
            assert row["happened_before"] == became["observed_at"]
            assert row["happened_after"] <= row["happened_at"] <= row["happened_before"]
            assert row["happened_after"] <= entered <= row["happened_before"], (key, row, entered)
            assert row["to_status"] == named(became)
            assert row["to_status_code"] == (became["status"] if became["is_listed"] else None)
            assert row["from_status"] == (named(was) if was else None)
            assert (row["valid_from"], row["run_id"]) == (became["valid_from"], became["run_id"])
            assert row["change_kind"] == became["change_kind"]
            if was is None:
                assert row["happened_after"] == life.created_at
                assert row["time_in_from_status"] is None
            else:
                assert before is not None
                spent = row["happened_at"] - before["happened_at"]
                assert row["time_in_from_status"] == spent
                narrowed += row["happened_after"] >= was["valid_from"]
            if became["is_listed"] and abs(row["happened_at"] - entered) <= SECOND:
                at_the_second += 1
            before = row
    assert found.keys() == expected
    # The ledger narrows the intervals, and updated_at is nearly always the true second.
    assert narrowed > 0.4 * sum(version > 1 for _, version in expected)
    listed = sum(row["to_status"] != "NOT_LISTED" for row in rows)
    assert at_the_second > 0.9 * listed


def test_the_interval_is_as_narrow_as_the_ledger_allows(lived: Lived) -> None:
    world, connection = lived
    ledger = {run["run_id"]: run for run in world.ledger}
    missed = set(world.unobserved)
    for row in connection.execute("select * from upload_token_status_history").fetchall():
        if row["version"] == 1:
            continue
        token = row["token_id"]
        was, became = world.versions[token][row["version"] - 2 : row["version"]]
        second = int(was["created_at"].timestamp())
        saw = [
            run.began
            for run in world.runs
            if was["valid_from"] <= run.published_at < became["valid_from"]
            and (
                run.run_id == was["run_id"]
                or (
                    (token, run.run_id) not in missed
                    and (
                        run.covers(second)
                        or (was["is_listed"] and was["status"] in (0, 1, 2) and run.reads_open)
                    )
                    and (was["is_listed"] or ledger[run.run_id]["rejected"] == 0)
                )
            )
        ]
        assert row["happened_after"] == max(saw)


@pytest.mark.postgres15
def test_as_of_is_what_was_valid_then(lived: Lived) -> None:
    world, connection = lived
    rng = random.Random(DAYS)
    moments = [run.published_at for run in world.runs]
    moments += [moment - timedelta(microseconds=1) for moment in moments]
    moments += [BEGIN + timedelta(days=rng.uniform(-1, DAYS + 1)) for _ in range(10)]
    for moment in moments:
        found = connection.execute("select * from upload_token_as_of(%s)", [moment]).fetchall()
        expected = {}
        for versions in world.versions.values():
            known = bisect_left(
                [version["valid_from"] for version in versions], moment + timedelta(microseconds=1)
            )
            if known:
                expected[versions[0]["token_id"]] = versions[known - 1]["version"]
        assert {row["token_id"]: row["version"] for row in found} == expected
        assert len(found) == len(expected)
        for row in found:
            assert row["is_current"] == (row["version"] == len(world.versions[row["token_id"]]))


@pytest.mark.postgres15
def test_happened_by_takes_the_last_version_that_had_happened(lived: Lived) -> None:
    world, connection = lived
    rng = random.Random(DAYS)

    def happened(version: Row) -> datetime:
        value = version["observed_at"]
        if version["version"] == 1:
            value = version["created_at"]
        elif "updated_at" in version["changed_columns"] and (
            version["updated_at"] <= version["observed_at"]
        ):
            value = version["updated_at"]
        assert isinstance(value, datetime)
        return value

    moments = [BEGIN + timedelta(days=rng.uniform(-1, DAYS + 1)) for _ in range(40)]
    for moment in moments:
        found = connection.execute(
            "select token_id, version from upload_token_happened_by(%s)", [moment]
        ).fetchall()
        expected = {
            token: max(past)
            for token, versions in world.versions.items()
            if (past := [each["version"] for each in versions if happened(each) <= moment])
        }
        assert {row["token_id"]: row["version"] for row in found} == expected
        assert len(found) == len(expected)


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Kiritimati"]
)
def test_the_days_of_the_daily_status_end_at_midnight_of_the_zone(
    connection: psycopg.Connection[Row], zone: str
) -> None:
    # Over the last Sunday of March and the first of April; and again over those of autumn.
    made = World(random.Random(9))
    made.pass_days(40, 40)
    made.write(connection)
    connection.execute("select set_config('kaltura.time_zone', %s, false)", [zone])
    connection.execute("set time zone 'America/New_York'")  # which must not matter
    days: dict[date, Counter[str]] = {}
    unseen: Counter[date] = Counter()
    for row in connection.execute(
        "select * from upload_token_daily_status where day < '2026-04-20' order by day"
    ).fetchall():
        assert row["time_zone"] == zone
        assert row["partner_id"] == PARTNER
        assert row["tokens"] > 0
        days.setdefault(row["day"], Counter())[row["status"]] += row["tokens"]
        unseen[row["day"]] += row["unseen_tokens"]
        assert not row["unseen_tokens"] or row["status"] == "PENDING"
    first = min(run.published_at for run in made.runs).astimezone(ZoneInfo(zone)).date()
    assert list(days) == [first + timedelta(days=number) for number in range(len(days))]
    assert len(days) > 40
    changed: dict[str, list[Row]] = {}
    query = "select * from upload_token_status_history order by version"
    for row in connection.execute(query.encode()).fetchall():
        changed.setdefault(row["token_id"], []).append(row)
    for day, counted in days.items():
        following = day + timedelta(days=1)
        midnight = datetime.combine(following, time(), ZoneInfo(zone)).astimezone(UTC)
        expected: Counter[str] = Counter()
        begun = 0
        for rows in changed.values():
            past = [row["to_status"] for row in rows if row["happened_at"] < midnight]
            if past:
                expected[past[-1]] += 1
            elif rows[0]["happened_after"] < midnight:
                begun += 1
        expected["PENDING"] += begun
        assert counted == +expected, day
        assert unseen[day] == begun


@pytest.mark.parametrize(
    ("zone", "at", "day"),
    [
        # Both sides of the midnights next to a change of the clocks.
        ("Europe/Berlin", "2026-03-28 22:59:59+00", "2026-03-28"),
        ("Europe/Berlin", "2026-03-28 23:00:00+00", "2026-03-29"),
        ("Europe/Berlin", "2026-03-29 21:59:59+00", "2026-03-29"),
        ("Europe/Berlin", "2026-03-29 22:00:00+00", "2026-03-30"),
        ("Europe/Berlin", "2026-10-24 22:00:00+00", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25 22:59:59+00", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25 23:00:00+00", "2026-10-26"),
        ("Australia/Lord_Howe", "2026-04-04 12:59:59+00", "2026-04-04"),
        ("Australia/Lord_Howe", "2026-04-04 13:00:00+00", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-04-05 13:29:59+00", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-04-05 13:30:00+00", "2026-04-06"),
        ("Pacific/Kiritimati", "2026-12-31 09:59:59+00", "2026-12-31"),
        ("Pacific/Kiritimati", "2026-12-31 10:00:00+00", "2027-01-01"),
        ("", "2026-12-31 23:59:59+00", "2026-12-31"),
    ],
)
def test_a_moment_belongs_to_the_day_of_the_zone(
    connection: psycopg.Connection[Row], zone: str, at: str, day: str
) -> None:
    moment = datetime.fromisoformat(at)
    one_token(connection, moment)
    connection.execute("set time zone 'Asia/Tokyo'")
    connection.execute("select set_config('kaltura.time_zone', %s, false)", [zone])
    (created,) = connection.execute("select * from upload_outcome_daily").fetchall()
    assert (str(created["day"]), created["started"]) == (day, 1)
    known = connection.execute("select * from upload_token_daily_status order by day").fetchall()
    assert str(known[0]["day"]) == day
    assert {row["time_zone"] for row in [created, *known]} == {zone or "UTC"}


def test_an_unknown_zone_is_refused(connection: psycopg.Connection[Row]) -> None:
    one_token(connection, BEGIN)
    connection.execute("set kaltura.time_zone = 'Mars/Olympus_Mons'")
    for view in ("upload_outcome_daily", "upload_token_daily_status"):
        with pytest.raises(psycopg.DataError, match='time zone "Mars/Olympus_Mons" not recog'):
            connection.execute(f"select * from {view}".encode())  # noqa: S608


def one_token(connection: psycopg.Connection[Row], at: datetime) -> None:
    """One run and one token of the same moment."""
    run = {"run_id": 1, "walk_id": 1, "partner_id": PARTNER, "mode": "full", "status": "succeeded"}
    insert(
        connection,
        "sync_run",
        [run | {"started_at": at, "published_at": at, "finished_at": at, "coverage": "{(,)}"}],
    )
    version = {
        "partner_id": PARTNER,
        "token_id": "one",
        "status": 0,
        "created_at": at,
        "is_listed": True,
        "version": 1,
        "change_kind": "first_seen",
        "valid_from": at,
        "observed_at": at,
        "run_id": 1,
    }
    insert(connection, "upload_token", [version])
    fill_moments(connection)
