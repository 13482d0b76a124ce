"""Numbers, times and other people's text as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.report import words


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, words.NOTHING),
        (None, 5, words.NOTHING),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 3, "33.3 %"),
        (1, 2, "50.0 %"),
        (1, 10**9, "< 0.1 %"),
        (10**9 - 1, 10**9, "> 99.9 %"),
        (Decimal("12.5"), 100, "12.5 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part: int | None, whole: int, shown: str) -> None:
    assert words.percent(part, whole).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, words.NOTHING),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (2**63 - 1, "9.2 EB"),
        (Decimal(2**63) * 10**9, "9,223 YB"),
    ],
)
def test_a_size_has_a_unit_that_suits_it(number: int | None, shown: str) -> None:
    assert words.size(number).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.4, "under 1 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (599.7, "10 min"),
        (3_599, "1 h"),
        (3_600 * 5 + 61, "5 h 1 min"),
        (86_399, "1 d"),
        (86_400 * 3 + 3_600 * 4, "3 d 4 h"),
        (86_400 * 4_000, "4,000 d"),
        (-90, "minus 1 min 30 s"),
        (None, words.NOTHING),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float | None, shown: str) -> None:
    assert words.duration(seconds).replace("\u00a0", " ") == shown


@given(st.floats(0, 1e12))
def test_a_duration_never_shows_sixty_of_a_unit(seconds: float) -> None:
    parts = list(pairwise(words.duration(timedelta(seconds=min(seconds, 8e10))).split("\u00a0")))

    assert not {("60", "s"), ("60", "min"), ("24", "h")} & set(parts)


def test_times_are_those_of_the_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
    end = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

    assert words.moment(begin, berlin) == "2026-03-29 00:30"
    assert words.span_in_words(begin, end, berlin) == "On 29 March 2026 from 00:30 to 03:30"
    assert words.span_in_words(begin, end, UTC) == (
        "From 28 March 2026 at 23:30 to 29 March 2026 at 01:30"
    )
    assert words.span_in_words(end, end, UTC) == "On 29 March 2026 at 01:30"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("holiday\u202efdp.exe", "holiday[U+202E]fdp.exe"),
        ("a\nb\tc\0", "a[U+000A]b[U+0009]c[U+0000]"),
        ("\ufeffzero\u200bwidth", "[U+FEFF]zero[U+200B]width"),
        ("tag\U000e0041", "tag[U+E0041]"),
        ("\ufffd stays", "\ufffd stays"),
        ("שלום مقطع 動画 👩‍👩‍👧", "שלום مقطع 動画 👩‍👩‍👧"),
        ("e\u0301" + "\u0301" * 50, "e" + "\u0301" * words.MARKS_MAX),
        ("<b>&amp;", "<b>&amp;"),
        (None, ""),
    ],
)
def test_what_acts_unseen_is_seen(text: str | None, shown: str) -> None:
    assert words.visible(text) == shown


@given(st.text(st.characters(), max_size=300))
def test_any_text_stays_on_one_bounded_line(text: str) -> None:
    shown = words.visible(text)

    assert len(shown.splitlines()) <= 1
    assert len(shown) <= len("[U+10FFFF]") * words.TEXT_LENGTH_MAX + 40
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u061c")


def test_a_long_name_says_how_long_it_is() -> None:
    assert words.visible("x" * 3_000) == "x" * words.TEXT_LENGTH_MAX + "… (3,000 characters)"
