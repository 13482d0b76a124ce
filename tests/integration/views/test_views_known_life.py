"""What happened is what the views tell, or within the bounds that they give: nights at 02:30.

A life of three weeks is known to the second: uploads of some minutes, mostly closed when they are
first seen, some that hang for days, tokens that are purged.  Its account is synced at 02:30 local
time, with a night lost, two lost in a row, and a change of the clocks.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.support.databases import with_database
from tests.support.model import Row
from tests.support.moments import fill_moments
from tests.support.world import PARTNER, SECOND, Life, Run, State, World

ZONE = ZoneInfo("Europe/Berlin")
FIRST_NIGHT = date(2026, 3, 20)
NIGHTS = 20
LOST = (4, 9, 10, 15)
"""Numbers of the nights without a run; the clocks change in the night of number 9."""
TOKENS = 400
NAMES = ("PENDING", "PARTIAL_UPLOAD", "FULL_UPLOAD", "CLOSED", "TIMED_OUT")
CHUNK = 1_000
DAY = timedelta(days=1)


class Steady(random.Random):
    """Every page shows the middle of its walk, and every reply loads."""

    def random(self) -> float:
        return 0.5


class Nights(World):
    """A world, with the bytes that each token has received."""

    received: dict[str, list[tuple[datetime, int]]]
    """Of each token, when bytes arrived, and how many."""

    def live(self) -> None:
        rng = random.Random(7)
        self.received = defaultdict(list)
        begin = midnight(FIRST_NIGHT) - 2 * DAY
        for number in range(TOKENS):
            moment = begin + SECOND * rng.randrange(86_400 * (NIGHTS + 1))
            # Half of them in the hours before a midnight or after it.
            if number % 2:
                moment = midnight(moment.astimezone(ZONE).date()) + SECOND * rng.randrange(
                    -3_600, 7_200
                )
            token_id = f"0_{number:04}"
            states = [State(moment, 0)]
            stuck_in = rng.choice((0, 1, 2)) if rng.random() < 0.15 else None
            for status in (1, 1, 1, 2, 3):
                seconds = 1 + round(rng.expovariate(1 / 60))
                if states[-1].status == stuck_in:
                    seconds += rng.randrange(86_400 * 9)
                moment += SECOND * seconds
                if stuck_in is not None and seconds > 86_400 * 7:
                    states.append(State(states[-1].since + 7 * DAY, 4))
                    break
                states.append(State(moment, status))
                if status == 1:
                    self.received[token_id].append((moment, CHUNK))
            if rng.random() < 0.2:
                last = states[-1]
                states.append(State(last.since + 5 * DAY, last.status, listed=False))
            self.lives.append(Life(token_id, states[0].since, states))
        for run_id, number in enumerate((n for n in range(NIGHTS) if n not in LOST), 1):
            began = datetime.combine(FIRST_NIGHT + number * DAY, time(2, 30), ZONE).astimezone(UTC)
            run = Run(run_id, began, began + timedelta(minutes=20), (None, None))
            self._publish(run, began)
        for (token_id, version), seen_at in self.seen_at.items():
            row = self.versions[token_id][version - 1]
            arrived = [count for at, count in self.received[token_id] if at <= seen_at]
            row["uploaded_size_bytes"] = sum(arrived)
            if (
                version > 1
                and row["uploaded_size_bytes"]
                != (self.versions[token_id][version - 2]["uploaded_size_bytes"])
            ):
                row["changed_columns"] = [*row["changed_columns"], "uploaded_size_bytes"]

    def seen(self) -> list[Life]:
        return [life for life in self.lives if life.token_id in self.versions]


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZONE).astimezone(UTC)


def named(state: State) -> str:
    return NAMES[state.status or 0] if state.listed else "NOT_LISTED"


@pytest.fixture(scope="module")
def nights() -> Nights:
    made = Nights(Steady())
    made.live()
    return made


@pytest.fixture(scope="module")
def life_url(postgres_url: str, template_database: str, nights: Nights) -> Iterator[str]:
    """A database that holds it; each test rolls back what it changes."""
    name = f"known_life_{secrets.token_hex(6)}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(template_database)}
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        server.execute(sql.SQL("create database {name} template {template}").format(**names))
        url = with_database(postgres_url, name)
        with psycopg.connect(url, row_factory=dict_row) as opened:
            opened.execute("set search_path = kaltura")
            nights.write(opened)
        yield url
        server.execute(sql.SQL("drop database {name} with (force)").format(**names))


@pytest.fixture
def connection(life_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(life_url, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        opened.execute("set kaltura.time_zone = 'Europe/Berlin'")
        # Of no importance, though its day of 29 March has no midnight.
        opened.execute("set time zone 'Asia/Beirut'")
        yield opened


def ask(connection: psycopg.Connection[Row], statement: str, *values: Any) -> list[Row]:
    return connection.execute(statement.encode(), values).fetchall()


def test_the_day_ends_at_midnight_also_if_the_night_is_at_half_past_two(
    connection: psycopg.Connection[Row], nights: Nights
) -> None:
    rows = ask(connection, "select * from upload_token_daily_status")
    last = FIRST_NIGHT + (NIGHTS - 2) * DAY  # the last one whose end a run came after
    checked = 0
    while last - checked * DAY >= FIRST_NIGHT:
        day = last - checked * DAY
        truth: Counter[str] = Counter()
        for life in nights.seen():
            state = life.at(midnight(day + DAY) - SECOND)
            if state is not None:
                truth[named(state)] += 1
        found = {row["status"]: row for row in rows if row["day"] == day}
        counted = Counter({name: row["tokens"] for name, row in found.items()})
        assert sum(counted[name] for name in NAMES[:3]) == sum(truth[name] for name in NAMES[:3])
        assert (
            sum(counted[name] for name in NAMES[3:]) + counted["NOT_LISTED"]
            == sum(truth[name] for name in NAMES[3:]) + truth["NOT_LISTED"]
        )
        # What no run saw in an open status counts as PENDING.
        unseen = found["PENDING"]["unseen_tokens"] if "PENDING" in found else 0
        for name in NAMES[1:3]:
            assert truth[name] - unseen <= counted[name] <= truth[name] + unseen
        for row in found.values():
            following = day + DAY
            while (following - FIRST_NIGHT).days in LOST:
                following += DAY
            looked = datetime.combine(following, time(2, 30), ZONE)
            assert row["known_at"] == looked
            assert row["stale_by_seconds"] == 0
        checked += 1
    assert checked == NIGHTS - 1
    # The day of the last run: what happened after it is not known.
    ends = {row["status"]: row for row in rows if row["day"] == last + DAY}
    for row in ends.values():
        assert row["known_at"] == datetime.combine(last + DAY, time(2, 30), ZONE)
        assert row["stale_by_seconds"] == 21.5 * 3600
    now = Counter(
        named(State(SECOND + midnight(last), row["status"], row["is_listed"]))
        for row in ask(connection, "select status, is_listed from upload_token")
    )
    assert {name: row["tokens"] for name, row in ends.items()} == now


def test_every_night_has_a_row(connection: psycopg.Connection[Row]) -> None:
    rows = ask(connection, "select day, outcome from sync_night order by day")
    assert [row["day"] for row in rows] == [
        FIRST_NIGHT + number * DAY for number in range(len(rows))
    ]
    assert len(rows) > NIGHTS
    for number, row in enumerate(rows):
        is_lost = number in LOST or number >= NIGHTS
        assert row["outcome"] == ("no_run" if is_lost else "complete")
    today = ask(connection, "select cast(now() at time zone 'Europe/Berlin' as date) as day")
    assert rows[-1]["day"] == today[0]["day"]


def test_ages_are_in_seconds_too(connection: psycopg.Connection[Row]) -> None:
    (row,) = ask(connection, "select * from sync_freshness")
    for name in ("age", "complete_age"):
        assert row[f"{name}_seconds"] == pytest.approx(row[name].total_seconds())


def test_days_before_the_horizon_of_a_pruning_are_left_out_and_the_others_stay(
    connection: psycopg.Connection[Row],
) -> None:
    query = "select * from upload_token_daily_status order by day, status"
    before = ask(connection, query)
    horizon = midnight(FIRST_NIGHT + 12 * DAY) + timedelta(hours=9)
    deleted = connection.execute(
        "delete from upload_token_superseded where valid_to < %s", [horizon]
    ).rowcount
    assert deleted > 20
    connection.execute(
        "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
        "values (%s, 'versions', %s, %s, '')",
        [PARTNER, horizon, deleted],
    )
    after = ask(connection, query)
    assert {row["day"] for row in after} < {row["day"] for row in before}
    expected = [row for row in before if row["day"] >= horizon.astimezone(ZONE).date()]
    assert after == expected
    # A warehouse that was pruned before it counted, once it does: reckoned back from the present.
    connection.execute(
        "delete from upload_token_status_moment_log where valid_from < %s and not exists "
        "(select 1 from upload_token_history as kept "
        "where (kept.partner_id, kept.token_id, kept.version) = (upload_token_status_moment_log"
        ".partner_id, upload_token_status_moment_log.token_id, "
        "upload_token_status_moment_log.version))",
        [horizon],
    )
    fill_moments(connection)
    assert [row | {"unseen_tokens": 0} for row in ask(connection, query)] == [
        row | {"unseen_tokens": 0} for row in expected
    ]


def test_bytes_of_days_up_to_the_horizon_of_a_pruning_are_left_out_and_the_others_stay(
    connection: psycopg.Connection[Row],
) -> None:
    query = "select * from upload_bytes_daily order by day"
    before = ask(connection, query)
    horizon = midnight(FIRST_NIGHT + 12 * DAY) + timedelta(hours=9)
    deleted = connection.execute(
        "delete from upload_token_superseded where valid_to < %s", [horizon]
    ).rowcount
    assert deleted > 20
    connection.execute(
        "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
        "values (%s, 'versions', %s, %s, '')",
        [PARTNER, horizon, deleted],
    )
    expected = [row for row in before if row["day"] > horizon.astimezone(ZONE).date()]
    assert 0 < len(expected) < len(before)
    assert ask(connection, query) == expected


def test_the_true_time_in_each_status_lies_within_the_bounds(
    connection: psycopg.Connection[Row], nights: Nights
) -> None:
    rows = ask(connection, "select * from upload_status_duration")
    found = {(row["token_id"], row["status"]): row for row in rows}
    assert len(found) == len(rows)
    looked = nights.runs[-1].began
    shown = max(nights.seen_at.values())
    compared = estimated = 0
    for life in nights.seen():
        truth: Counter[str] = Counter()
        ends = [state.since for state in life.states[1:]] + [None]
        for state, end in zip(life.states, ends, strict=True):
            if state.since <= shown:
                truth[named(state)] += round(((end or looked) - state.since).total_seconds())
        current = named(life.at(shown) or life.states[0])
        for status, seconds in truth.items():
            row = found.pop((life.token_id, status), None)
            if row is None:
                # Ended there between two looks: nothing says that it had been in it at all.
                assert (status, current) == ("TIMED_OUT", "NOT_LISTED")
                continue
            assert row["at_least_seconds"] <= seconds, (row, life)
            if row["is_current"]:
                assert status == current
                assert row["at_most_seconds"] is row["estimated_at_most_seconds"] is None
            else:
                assert seconds <= row["at_most_seconds"], (row, life)
                compared += 1
                estimated += seconds <= row["estimated_at_most_seconds"] + 1
            if not row["seen"]:
                assert row["at_least_seconds"] == 0
    # Whatever else it names was passed in no time.
    assert {row["at_least_seconds"] for row in found.values()} <= {0}
    unseen = sum(not row["seen"] for row in rows)
    assert estimated > 0.99 * compared
    assert unseen > len(rows) / 3  # the sample that the bounds are for


def test_the_bytes_of_a_day_lie_within_their_bounds(
    connection: psycopg.Connection[Row], nights: Nights
) -> None:
    rows = {row["day"]: row for row in ask(connection, "select * from upload_bytes_daily")}
    seen = {
        token_id: versions[-1]["uploaded_size_bytes"]
        for token_id, versions in nights.versions.items()
    }
    truth: Counter[date] = Counter()
    created: Counter[date] = Counter()
    for life in nights.seen():
        known = 0
        for at, count in nights.received[life.token_id]:
            known += count
            if known <= seen[life.token_id]:
                truth[at.astimezone(ZONE).date()] += count
                created[life.created_at.astimezone(ZONE).date()] += count
    assert sum(row["bytes"] for row in rows.values()) == sum(truth.values())
    for day, row in rows.items():
        assert row["at_least_bytes"] <= truth[day] <= row["at_most_bytes"], day
        assert row["at_least_bytes"] <= row["bytes"] <= row["at_most_bytes"]
    assert truth.keys() <= rows.keys()
    off = sum(abs(rows[day]["bytes"] - truth[day]) for day in truth)
    assert off < sum(abs(created[day] - truth[day]) for day in truth) / 2
    # The bounds say something.
    assert sum(row["at_least_bytes"] for row in rows.values()) > 0.8 * sum(truth.values())


def test_the_bytes_of_a_mature_day_stay_as_they_are(
    connection: psycopg.Connection[Row], nights: Nights
) -> None:
    query = "select * from upload_bytes_daily where is_mature order by day"
    in_the_end = {row["day"]: row for row in ask(connection, query)}
    connection.execute("set session_replication_role = replica")  # no foreign keys
    compared = 0
    for run in reversed(nights.runs[1:-1]):
        connection.execute("delete from upload_bytes_arrival_log where run_id > %s", [run.run_id])
        connection.execute("delete from sync_run where run_id > %s", [run.run_id])
        rows = ask(connection, "select * from upload_bytes_daily")
        mature = {row["day"]: row for row in rows if row["is_mature"]}
        assert mature == {day: in_the_end[day] for day in mature}
        (seen,) = ask(connection, "select open_seen_at from sync_freshness")
        last = seen["open_seen_at"].astimezone(ZONE).date()
        assert mature.keys() == {row["day"] for row in rows if row["day"] < last}
        compared += len(mature)
    assert compared > 20


def test_the_mart_counts_as_the_other_views_do(connection: psycopg.Connection[Row]) -> None:
    rows = ask(connection, "select * from upload_mart")
    today = ask(
        connection,
        "select status, tokens from upload_token_daily_status "
        "where day = (select max(day) from upload_token_daily_status)",
    )
    assert Counter(row["status"] for row in rows) == {row["status"]: row["tokens"] for row in today}
    outcomes = ask(connection, "select outcome, count(*) from upload_outcome group by 1")
    assert Counter(row["outcome"] for row in rows) == {
        row["outcome"]: row["count"] for row in outcomes
    }
    mature = ask(connection, "select token_id, is_mature from upload_outcome")
    assert {row["token_id"]: row["is_mature"] for row in rows} == {
        row["token_id"]: row["is_mature"] for row in mature
    }
    assert {row["is_mature"] for row in mature} == {True, False}
    assert [*rows[0]][-1] == "is_mature"
    for row in rows:
        local = row["created_at"].astimezone(ZONE)
        assert (row["created_day"], row["created_hour"]) == (local.date(), local.hour)
        assert row["created_week"] == local.date() - timedelta(days=local.weekday())
        is_open = row["status"] in NAMES[:3]
        assert (row["seconds_not_moved"] is not None) == is_open
    types = ask(
        connection,
        "select distinct format_type(atttypid, atttypmod) as type from pg_attribute "
        "where attrelid = 'upload_mart'::regclass and attnum > 0",
    )
    assert {row["type"] for row in types} == {
        *("integer", "bigint", "text", "boolean", "date", "double precision"),
        "timestamp with time zone",
    }
