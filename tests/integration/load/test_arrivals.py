"""Arrivals: the bytes that a publication shows to have arrived, by quarters of an hour."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from etl.tokens.token import Token
from tests.support.nights import OBSERVED, MakeNights, Nights, make_token

DAY: Final = timedelta(days=1)
MINUTE: Final = timedelta(minutes=1)
QUARTER: Final = 15 * MINUTE
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Arrival = tuple[datetime, datetime, datetime, int]
"""Not before, not after, best estimate (each the beginning of its quarter of an hour), bytes."""


def arrived(nights: Nights) -> list[tuple[bool, date, list[Arrival]]]:
    """What the last run has told."""
    rows = nights.query(
        "select * from kaltura.upload_bytes_arrival_log "
        "where run_id = (select max(run_id) from kaltura.sync_run) order by is_long, utc_day"
    )
    names = ("earliest_quarters", "latest_quarters", "best_quarters")
    told = []
    for row in rows:
        quarters = [[EPOCH + QUARTER * each for each in row[name]] for name in names]
        arrivals = list(zip(*quarters, row["bytes"], strict=True))
        told.append((row["is_long"], row["utc_day"], arrivals))
    return told


def read(
    nights: Nights, tokens: list[Token], night: datetime
) -> list[tuple[bool, date, list[Arrival]]]:
    """A run that begins five minutes before the night and publishes five minutes after it."""
    nights.night(tokens, at=night, stamp=night + 5 * MINUTE)
    nights.query(
        "update kaltura.sync_run set started_at = %s "
        "where run_id = (select max(run_id) from kaltura.sync_run)",
        night - 5 * MINUTE,
    )
    return arrived(nights)


def uploading(name: str, created: datetime, updated_at: datetime | None, received: int) -> Token:
    return make_token(
        name,
        int(created.timestamp()),
        status=1,
        updated_at=updated_at,
        uploaded_size_bytes=received,
    )


def test_a_run_tells_what_has_arrived_and_when(make_nights: MakeNights) -> None:
    nights = make_nights()
    night = OBSERVED + DAY  # midnight, so the beginning of a quarter of an hour
    day_before = (night - DAY).date()
    made = night - 100 * MINUTE
    slow = uploading("slow", night - 40 * DAY, night - 3 * DAY, 70)
    undated = uploading("undated", made, None, 10)
    empty = uploading("empty", made, made, 0)
    half = uploading("half", made, night - 50 * MINUTE, 400)
    assert read(nights, [slow, undated, empty, half], night) == [
        (
            False,
            day_before,
            [
                (night - 7 * QUARTER, night - 4 * QUARTER, night - 4 * QUARTER, 400),
                # Until the reply, most likely in the middle.
                (night - 7 * QUARTER, night, night - 4 * QUARTER, 10),
            ],
        ),
        (
            True,
            (night - 40 * DAY).date(),
            [(night - 40 * DAY, night - 3 * DAY, night - 3 * DAY, 70)],
        ),
    ]

    last = night
    night += DAY
    assert read(nights, [slow, undated, empty, half], night) == []

    # What grew in the same quarter is told as one; what shrank, or was only renamed, is not told.
    last, night = night, night + DAY
    empty = empty._replace(uploaded_size_bytes=5, updated_at=night - 14 * MINUTE)
    half = half._replace(uploaded_size_bytes=900, updated_at=night - 10 * MINUTE)
    undated = undated._replace(uploaded_size_bytes=3)
    slow = slow._replace(file_name="renamed.mp4")
    since = last - QUARTER  # when the walk began that saw the size before
    assert read(nights, [slow, undated, empty, half], night) == [
        (False, since.date(), [(since, night - QUARTER, night - QUARTER, 505)])
    ]

    # Of one that was hidden: since it was last listed.
    night += DAY
    assert read(nights, [slow, undated, empty], night) == []
    listed, night = night - DAY - QUARTER, night + DAY
    half = half._replace(uploaded_size_bytes=1_000, updated_at=night - 10 * MINUTE)
    assert read(nights, [slow, undated, empty, half], night) == [
        (True, listed.date(), [(listed, night - QUARTER, night - QUARTER, 100)])
    ]
