"""Six weeks of two accounts: their uploads, and the nights that read them.

Both jobs run at 02:30 by the clock on the wall, one in Berlin and one in New York, where the clocks
go forward on different days; both lose nights.  The first also has a few incremental runs.

With ``ETL_TEST_LIFE=long`` (``test_long_life``) they have lived for half a year by the same day,
with four times as many uploads a day, both changes of the clocks, and more nights that were lost:
the first has 2,389 uploads, 188 runs and 15 days without a complete one; the other 1,599, 109, 74.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tests.questions.lives import WRITTEN_LIVES, YEAR, Life, NameChange, moment, with_names
from tests.questions.traffic import Traffic, token_ids

BERLIN: Final = ZoneInfo("Europe/Berlin")
NEW_YORK: Final = ZoneInfo("America/New_York")
LAST_NIGHT: Final = date(2026, 3, 31)
IS_LONG: Final = os.environ.get("ETL_TEST_LIFE") == "long"
NIGHTS_OF_A_LIFE: Final = 7 * (26 if IS_LONG else 6)
FIRST_NIGHT: Final = LAST_NIGHT - timedelta(days=NIGHTS_OF_A_LIFE - 1)
UPLOADS: Final = 4 if IS_LONG else 1
"""How many times as many a day."""
NOW: Final = moment("03-31 08:00")
"""When the questions are asked: a Tuesday.  Last Tuesday was the 24th."""
PARTNER: Final = 102
OTHER_PARTNER: Final = 103


@dataclass(frozen=True, slots=True)
class Night:
    """A run: when it began, and what befell it."""

    run_id: int
    began_at: datetime
    mode: str = "full"
    failed: bool = False
    resumed_from: int | None = None
    unreadable: str | None = None
    """A token whose row the service could not serve."""
    odd: str | None = None
    """A known token whose row made no sense, and was rejected."""

    @property
    def observed_at(self) -> datetime:
        """Pages arrive two minutes after the start, look-ups four, and it publishes after five."""
        return self.began_at + timedelta(minutes=2)

    @property
    def confirmed_at(self) -> datetime:
        return self.began_at + timedelta(minutes=4)

    @property
    def published_at(self) -> datetime:
        return self.began_at + timedelta(minutes=5)


@dataclass(frozen=True, slots=True, eq=False)  # a key of caches: by identity, not by all its lives
class LivedAccount:
    """An account, and the runs that read it."""

    partner_id: int
    lives: tuple[Life, ...]
    """In the order of creation."""
    names: tuple[NameChange, ...]
    nights: tuple[Night, ...]
    bad_row: tuple[str, datetime]
    """A token of another partner, and since when it is listed: it is rejected each time."""

    @property
    def published(self) -> tuple[Night, ...]:
        return tuple(night for night in self.nights if not night.failed)

    @property
    def complete(self) -> tuple[Night, ...]:
        """Those that read the whole list, except a row that the service could not serve."""
        return tuple(night for night in self.published if night.mode == "full")

    def night_of(self, day: str) -> Night:
        """The first complete run that began on a day, such as ``03-24``."""
        at = moment(f"{day} 00:00").date()
        return next(night for night in self.complete if night.began_at.date() == at)

    def night(self, run_id: int) -> Night:
        return next(night for night in self.nights if night.run_id == run_id)

    def is_rejecting(self, night: Night) -> bool:
        """Whether the run met a row that it could not load."""
        return night.odd is not None or night.began_at >= self.bad_row[1]


def at_half_past_two(day: date, zone: ZoneInfo) -> datetime:
    """In UTC.  On the day when that hour does not exist, an hour after 01:30 by the old clock."""
    return datetime.combine(day, time(2, 30), zone).astimezone(UTC)


DAYS: Final = [FIRST_NIGHT + timedelta(days=number) for number in range(NIGHTS_OF_A_LIFE)]


def _nights() -> tuple[Night, ...]:
    """Of the first account."""
    no_run = {date(2026, 2, 26), date(2026, 3, 14), date(2026, 3, 15), date(2026, 3, 26)}
    failed = {date(2026, 3, 8), date(2026, 3, 25)}
    if IS_LONG:
        no_run |= {day for day in DAYS[3::17] if day.year < YEAR}
        failed |= {day for day in DAYS[8::23] if day.year < YEAR}
    broken = date(2026, 3, 28)  # in the middle of its walk; an hour later another goes on with it
    found: list[Night] = []
    begun = [(at_half_past_two(day, BERLIN), "full") for day in DAYS if day not in no_run]
    noons = ("02-20 12:00", "03-04 12:00", "03-18 12:00", "03-21 12:00", "03-31 07:00")
    begun += [(moment(text), "incremental") for text in noons]
    if IS_LONG:
        earlier = [day for day in DAYS[5::9] if day.year < YEAR]
        begun += [(datetime.combine(day, time(12), UTC), "incremental") for day in earlier]
    begun += [(at_half_past_two(broken, BERLIN) + timedelta(hours=1), "full")]
    for at, mode in sorted(begun):
        day, again = at.date(), bool(found) and at - found[-1].began_at == timedelta(hours=1)
        found.append(
            Night(
                len(found) + 1,
                at,
                mode,
                failed=mode == "full" and (day in failed or (day == broken and not again)),
                resumed_from=len(found) if again else None,
                unreadable="0_28_hidden" if day == date(2026, 3, 29) else None,
                odd="0_mar_clip" if day == date(2026, 3, 30) else None,
            )
        )
    return tuple(found)


def _other_nights() -> tuple[Night, ...]:
    """Of the other account, whose job often does not run at all."""
    begun = [day for number, day in enumerate(DAYS) if number % 5 not in (1, 4)]
    return tuple(
        Night(
            (1001 if IS_LONG else 101) + number,
            at_half_past_two(day, NEW_YORK),
            failed=day == date(2026, 3, 10),
        )
        for number, day in enumerate(begun)
    )


def _lives(lives: list[Life], names: tuple[NameChange, ...]) -> tuple[Life, ...]:
    return tuple(
        with_names(life, names) for life in sorted(lives, key=lambda life: life.created_at)
    )


def _lived_account() -> LivedAccount:
    names = (
        NameChange("emil", moment("03-19 12:00"), "emil.k"),
        NameChange("frida", moment("03-06 09:00"), "frida.m"),
        NameChange("dora", moment("03-30 08:00"), None),
    )
    traffic = Traffic(
        seed=1,
        users=("anna", "ben", "carla", "emil", "frida", "gustav"),
        zone=BERLIN,
        per_day=3.4 * UPLOADS,
        ids=token_ids(0),
        taken={life.created_at for life in WRITTEN_LIVES},
        hides_open_ones=IS_LONG,
    )
    lives = [*WRITTEN_LIVES, *traffic.days(_midnight(-9), NIGHTS_OF_A_LIFE + 9)]
    nights = _nights()
    if IS_LONG:
        lives = [life for life in lives if not _is_disturbing(life, nights)]
    return LivedAccount(
        PARTNER, _lives(lives, names), names, nights, ("0_25_bad", moment("03-25 16:00"))
    )


def _midnight(days: int) -> datetime:
    """So many days after the one of the first night."""
    return datetime.combine(FIRST_NIGHT + timedelta(days=days), time(), UTC)


def _is_disturbing(life: Life, nights: tuple[Night, ...]) -> bool:
    """Whether something happens to it between a failed walk and the one that goes on with it:
    what is taken over is dated as the later one."""
    (resumed,) = (night for night in nights if night.resumed_from is not None)
    begun = next(night for night in nights if night.run_id == resumed.resumed_from).began_at
    happened = (life.created_at, *(move.at for move in life.moves))
    return any(begun <= at <= resumed.published_at for at in happened)


def _other_account() -> LivedAccount:
    """Its tokens have the ids of the first one's, and all else different: none may be confused."""
    names = (NameChange("otto", moment("03-12 10:00"), "otto.b"),)
    ids = itertools.chain((life.token_id for life in WRITTEN_LIVES), token_ids(0))
    traffic = Traffic(
        seed=2,
        users=("otto", "anna", "paula"),
        zone=NEW_YORK,
        per_day=2.4 * UPLOADS,
        ids=ids,
        hides_open_ones=IS_LONG,
    )
    lives = list(traffic.days(_midnight(-6), NIGHTS_OF_A_LIFE + 6))
    return LivedAccount(
        OTHER_PARTNER,
        _lives(lives, names),
        names,
        _other_nights(),
        ("0_other_bad", moment("03-02 10:00")),
    )


ACCOUNT: Final = _lived_account()
OTHER: Final = _other_account()
ACCOUNTS: Final = {each.partner_id: each for each in (ACCOUNT, OTHER)}
NIGHTS: Final = ACCOUNT.nights
