"""What ``backfill`` takes for a range and for ids, and the one sentence for everything else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from etl.cli.backfill_input import read_ids, read_range
from etl.errors import UsageError
from etl.run.backfill import Range

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("begin", "end", "first", "last"),
    [
        ("2026-03-01", "2026-03-01", "2026-03-01T00:00:00", "2026-03-01T23:59:59"),
        ("2026-03-01", None, "2026-03-01T00:00:00", None),
        (None, "2026-03-01", None, "2026-03-01T23:59:59"),
        ("2026-03-01T08:30Z", "2026-03-01T08:30Z", "2026-03-01T08:30:00", "2026-03-01T08:30:00"),
        ("2026-03-01 08:30:05+02:00", None, "2026-03-01T06:30:05", None),
        ("2026-03-01T08:30:00-0330", None, "2026-03-01T12:00:00", None),
        ("2026-03-01T08:30:00.000Z", None, "2026-03-01T08:30:00", None),
        ("2026-07-01T08:00 Europe/Berlin", None, "2026-07-01T06:00:00", None),
        # The hour that comes twice: as a beginning the first one, as an end the second.
        (
            "2026-10-25T02:30 Europe/Berlin",
            "2026-10-25T02:30 Europe/Berlin",
            "2026-10-25T00:30:00",
            "2026-10-25T01:30:00",
        ),
        ("2026-11-23", "2026-11-23", "2026-11-23T00:00:00", "2026-11-23T23:59:59"),
    ],
)
def test_ranges(begin: str | None, end: str | None, first: str | None, last: str | None) -> None:
    expected = Range(first and utc(first), last and utc(last))  # type: ignore[arg-type]
    assert read_range(begin, end, now=NOW) == expected


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        ("2026-03-01T08:30", None, "has no zone: add one, such as 2026-03-01T08:30:00Z"),
        ("2026-03-01T08:30 Europe/Atlantis", None, "unknown zone 'Europe/Atlantis'"),
        ("2026-03-01T08:30CEST", None, "unknown zone 'CEST'"),
        ("2026-03-01T08:30+25:00", None, "unknown zone '+25:00'"),
        ("2026-03-02", "2026-03-01", "--from '2026-03-02' is after --to '2026-03-01'"),
        ("2026-12-01", None, "--from '2026-12-01' is in the future"),
        ("2026-11-01", "2027-01-01", "omit --to"),
        ("1989-12-31", None, "before 1990"),
        (None, "1970-01-01", "before 1990"),
        ("2026-02-30", None, "is not a valid date or time"),
        ("2026-03-01T25:00Z", None, "is not a valid date or time"),
        ("yesterday", None, "must be a date such as 2026-03-01"),
        ("", None, "must be a date"),
        ("1767225600", None, "must be a date"),
        ("2026-03-01T08:30:00.5Z", None, "fraction of a second"),
        ("9999-12-31T23:00:00-18:00", None, "outside the supported date range"),
    ],
)
def test_one_sentence_for_each_wrong_range(begin: str | None, end: str | None, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_range(begin, end, now=NOW)
    message = refused.value.message
    assert said in message
    assert message.endswith(".")
    assert "\n" not in message


def test_ids_are_read_one_a_line() -> None:
    lines = [b"\xef\xbb\xbf0_one\r\n", b"\n", b"# a comment\n", b"  0_two  \n", b"0_one\n"]
    assert read_ids(lines, "ids.txt") == ["0_one", "0_two", "0_one"]


@pytest.mark.parametrize("header", [b"id", b'"token_id"', b"UploadTokenId", b"Upload_Token_ID\r"])
def test_an_export_of_one_column_is_read(header: bytes) -> None:
    lines = [b"\xef\xbb\xbf" + header + b"\n", b'"0_one"\r\n', b"'0_two'\n", b"0_three\n", b"id\n"]
    assert read_ids(lines, "ids.csv") == ["0_one", "0_two", "0_three", "id"]


@pytest.mark.parametrize(
    "line",
    [
        b'"0_a',
        b"0_a'",
        b'"',
        b'""0_a""',
        b"a,b",
        b"a b",
        b"a\tb",
        b"\xff\xfe",
        b"x" * 256,
        "a\u200bb".encode(),
        b"a\0b",
    ],
)
def test_a_line_that_holds_no_id_is_named(line: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        read_ids([b"0_one\n", line + b"\n"], "ids.txt")
    assert refused.value.message.startswith("Line 2 contains no token id (such as ")


def test_three_bad_lines_of_ten_thousand_are_named() -> None:
    lines = [f"0_{number:032x}\n".encode() for number in range(10_000)]
    lines[16], lines[4_001], lines[9_999] = b"two ids\n", b"a,b\n", b"\xc3\n"
    with pytest.raises(UsageError) as refused:
        read_ids(lines, "ids.txt")
    assert refused.value.message == (
        "Lines 17, 4002 and 10000 contain no token id (such as 'two ids'); nothing was done. "
        "Correct ids.txt and try again."
    )


def test_many_bad_lines_are_counted_and_an_empty_file_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^Lines 1, 2, .*, 10 and 90 more contain no token id"):
        read_ids([b"a b\n"] * 100, "ids.txt")
    with pytest.raises(UsageError, match="contains no id"):
        read_ids([b"# nothing\n"], "ids.txt")
