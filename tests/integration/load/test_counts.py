"""Status counts: what a publication brings into each status, by the quarter of an hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from etl.tokens.token import Token
from tests.support.model import Row
from tests.support.nights import OBSERVED, MakeNights, Nights, make_token

QUARTER: Final = timedelta(minutes=15)
DAY: Final = timedelta(days=1)
MINUTE: Final = timedelta(minutes=1)
Counted = tuple[datetime, str, int | None, int, int]


def counted(nights: Nights) -> list[Counted]:
    """What the last run has counted."""
    rows: list[Row] = nights.query(
        "select * from kaltura.upload_token_status_count_log "
        "where run_id = (select max(run_id) from kaltura.sync_run) order by quarter_hour, status"
    )
    return [
        (
            row["quarter_hour"],
            row["status"],
            row["status_code"],
            row["tokens"],
            row["unseen_tokens"],
        )
        for row in rows
    ]


def read(nights: Nights, tokens: list[Token], night: datetime) -> list[Counted]:
    """A run that begins five minutes before the night and publishes five minutes after it."""
    nights.night(tokens, at=night, stamp=night + 5 * MINUTE)
    nights.query(
        "update kaltura.sync_run set started_at = %s "
        "where run_id = (select max(run_id) from kaltura.sync_run)",
        night - 5 * MINUTE,
    )
    return counted(nights)


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def test_a_run_counts_what_has_moved_and_when(make_nights: MakeNights) -> None:
    nights = make_nights()
    night = OBSERVED + DAY  # midnight, so the beginning of a quarter of an hour
    earliest = night - 2 * DAY
    long_ago = [make_token(f"old{n}", seconds(night - (400 + n) * DAY)) for n in range(9)]
    open_ = make_token("open", seconds(night - 100 * MINUTE), status=0, updated_at=None)
    closed = make_token(
        "closed", seconds(night - 50 * MINUTE), status=3, updated_at=night - 20 * MINUTE
    )
    tokens = [*long_ago, open_, closed]
    assert read(nights, tokens, night) == [
        # However long ago, and however often, before the first day that is told.
        (earliest, "CLOSED", 3, 9, 0),
        (night - 7 * QUARTER, "PENDING", 0, 1, 0),
        # Which no run saw.
        (night - 4 * QUARTER, "PENDING", 0, 1, 1),
        (night - 2 * QUARTER, "CLOSED", 3, 1, 0),
        (night - 2 * QUARTER, "PENDING", 0, -1, -1),
    ]

    night += DAY
    assert read(nights, tokens, night) == []
    night += DAY
    tokens[0] = tokens[0]._replace(file_name="renamed.mp4")
    assert read(nights, tokens, night) == []

    night += DAY
    unknown = open_._replace(status=77, updated_at=night - 40 * MINUTE)
    deleted = [each._replace(status=5, updated_at=night - 31 * MINUTE) for each in tokens[:4]]
    gone_at = night - timedelta(hours=12) - QUARTER  # in the middle between the two looks
    assert read(nights, [*deleted, *tokens[4:9], unknown], night) == [
        (gone_at, "CLOSED", 3, -1, 0),
        (gone_at, "NOT_LISTED", None, 1, 0),
        (night - 3 * QUARTER, "CLOSED", 3, -4, 0),
        (night - 3 * QUARTER, "DELETED", 5, 4, 0),
        (night - 3 * QUARTER, "PENDING", 0, -1, 0),
        (night - 3 * QUARTER, "UNKNOWN_77", 77, 1, 0),
    ]
    # Also of one that is there again, and of a status that the service does not tell.
    night += DAY
    back = closed._replace(status=None, updated_at=night - MINUTE)
    assert read(nights, [*deleted, *tokens[4:9], unknown, back], night) == [
        (night - QUARTER, "NOT_LISTED", None, -1, 0),
        (night - QUARTER, "UNKNOWN", None, 1, 0),
    ]
