"""Stays: how long a token was in the statuses that it has left, kept with its latest version.

Each change of status appends to ``upload_token.earlier_stays`` what it tells, and nothing is looked
up for it: the stay that it ended, and what the token must have passed unseen on the way (the first
change, before it was first seen as well).  ``upload_status_duration`` then reads one table.  The
view ``upload_token_earlier_stay`` derives the same from the log of moments, for ``verify``.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by, array

from etl.tokens.token import OPEN_STATUSES
from etl.warehouse.load.moments import CLOSED, Since

NOT_LISTED: Final = 32768
UNKNOWN: Final = 32769
"""In place of a code of a status, which is a smallint."""
UNSEEN: Final = -1.0
"""In place of the seconds at least."""
NUMBERS: Final = 4
"""Of a stay: code, seconds at least, at most, and estimated at most."""
STAYS_MAX: Final = 32
"""With so many they are summed up by status before the next one is added.

A change copies the row: one of a token that comes and goes for years would copy all before it.  A
token that did not go back has eight at most.
"""
LAST_CODE: Final = 6
_PARTIAL: Final = 1
_AFTER_PARTIAL: Final = (2, CLOSED)
_DELETED: Final = 5
_FAILED: Final = (4, 6)
_ON_THE_WAY: Final = (*OPEN_STATUSES, CLOSED)
_STAYS: Final = sa.ARRAY(sa.Double)


def stays_of_next(
    new: Any, known: Any, moment: Any, changed: sa.ColumnElement[bool]
) -> dict[str, sa.ColumnElement[Any]]:
    """The columns of the version after ``known`` that tell of stays.

    ``moment`` has since when the new version has its status; it counts if that has ``changed``.
    """
    earlier = Since.of(known)
    at, after, before = (moment.c[f"status_happened_{name}"] for name in ("at", "after", "before"))
    is_absent = new.c.kind == "absent"
    was_seen_first = earlier.version == 1
    first = _passed(
        sa.case((was_seen_first, 0)),
        _beyond(known.c.status),
        _seconds(earlier.before, earlier.after),
        _seconds(earlier.at, earlier.after),
    )
    # Nothing says when it disappeared, but between which looks.  What was first seen in a status
    # may have been in it since it was made: updated_at moves with every part of the file.
    ended = sa.case((is_absent, before), else_=at)
    is_loose = sa.or_(was_seen_first, sa.not_(known.c.is_listed))
    begun = sa.case((is_loose, earlier.after), else_=earlier.at)
    code = sa.case(
        (sa.not_(known.c.is_listed), NOT_LISTED), else_=sa.func.coalesce(known.c.status, UNKNOWN)
    )
    over = array(
        [
            sa.cast(code, sa.Double),
            sa.func.greatest(_seconds(after, earlier.before), _number(0)),
            _seconds(before, earlier.after),
            _seconds(ended, begun),
        ]
    )
    # What failed and went on was PARTIAL_UPLOAD again.
    went_on = sa.and_(
        known.c.status.in_(_FAILED), new.c.status.in_(_AFTER_PARTIAL), sa.not_(is_absent)
    )
    # What is listed again may be as it was listed last, and have gone on from there.
    left = sa.case(
        (went_on, _PARTIAL),
        (known.c.is_listed, sa.case((known.c.status.in_(OPEN_STATUSES), known.c.status + 1))),
        else_=sa.case((known.c.status.in_(_ON_THE_WAY), known.c.status + 0)),
    )
    on_the_way = _passed(
        left,
        sa.case((is_absent, CLOSED + 1), else_=_beyond(new.c.status)),
        _seconds(before, after),
        _seconds(at, after),
    )
    stays: sa.ColumnElement[Any] = sa.case(
        (sa.func.cardinality(known.c.earlier_stays) >= NUMBERS * STAYS_MAX, _summed(known)),
        else_=known.c.earlier_stays,
    )
    for part in (first, sa.case((earlier.before.is_not(None), over)), on_the_way):
        stays = sa.func.array_cat(stays, part, type_=_STAYS)
    # Codes that Kaltura does not document could be any number: eight stays are the most otherwise.
    onward = sa.and_(
        known.c.is_listed,
        known.c.status >= 0,
        new.c.status > known.c.status,
        new.c.status <= LAST_CODE,
    )
    is_back = sa.not_(sa.or_(is_absent, sa.func.coalesce(onward, sa.false())))
    none = sa.cast(array([], type_=sa.Double), _STAYS)
    return {
        "earlier_stays": sa.case(
            (changed, sa.func.nullif(stays, none, type_=_STAYS)), else_=known.c.earlier_stays
        ),
        "went_back": sa.case((sa.and_(changed, is_back), sa.true()), else_=known.c.went_back),
    }


def _passed(
    first: sa.ColumnElement[Any],
    beyond: sa.ColumnElement[Any],
    at_most: sa.ColumnElement[Any],
    estimated: sa.ColumnElement[Any],
) -> sa.ColumnElement[Any]:
    """The statuses from ``first`` to the one before ``beyond``, unseen; NULL if that is NULL."""
    every: Any = array(
        [
            number
            for code in _ON_THE_WAY
            for number in (_number(code), _number(UNSEEN), at_most, estimated)
        ],
        type_=sa.Double,
    )
    part: sa.ColumnElement[Any] = every[NUMBERS * first + 1 : NUMBERS * beyond]
    return part


def _summed(known: Any) -> sa.ColumnElement[Any]:
    """The stays, one for each status: what ``upload_status_duration`` makes of them, too."""
    stays = known.c.earlier_stays
    places = sa.func.generate_series(1, sa.func.cardinality(stays), NUMBERS)
    place = places.table_valued(sa.column("place", sa.Integer)).render_derived("each").c.place
    at_least = stays[place + 1]
    of_status = (
        sa.select(
            stays[place].label("code"),
            sa.case(
                (
                    sa.func.bool_or(at_least >= 0),
                    sa.func.sum(sa.func.greatest(at_least, _number(0))),
                ),
                else_=_number(UNSEEN),
            ).label("at_least"),
            sa.func.sum(stays[place + 2]).label("at_most"),
            sa.func.sum(stays[place + 3]).label("estimated"),
        )
        .group_by(stays[place])
        .correlate(known)
        .subquery("of_status")
    )
    numbers = (
        sa.func.unnest(array(list(of_status.c)))
        .table_valued("number", with_ordinality="place")
        .render_derived()
        .lateral()
    )
    return (
        sa.select(
            sa.func.array_agg(
                aggregate_order_by(numbers.c.number, of_status.c.code, numbers.c.place),
                type_=_STAYS,
            )
        )
        .select_from(of_status.join(numbers, sa.true()))
        .scalar_subquery()
    )


def _beyond(status: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The code before which a token has passed all, by the one that it has."""
    return sa.case((status.in_(_ON_THE_WAY), status + 0), (status == _DELETED, CLOSED + 1), else_=3)


def _seconds(end: sa.ColumnElement[Any], begin: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.date_part("epoch", end - begin, type_=sa.Double)


def _number(value: float) -> sa.ColumnElement[Any]:
    return sa.literal(float(value), sa.Double)
