"""What the warehouse says of all nights of a ``Chronicle``, compared with the truth."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tests.support.chronicle import Chronicle, Night
from tests.support.model import VALUES, VOLATILE, Row, columns_of
from tests.support.truth import NOT_LISTED, Label, decoded, during

COLUMNS = tuple(name for name in VALUES if name not in VOLATILE)
OPEN = (0, 1, 2)


class Estimate(NamedTuple):
    """Seconds."""

    kind: str
    error: float
    """Of ``happened_at``."""
    late: float
    """How much later than the true moment the run published it."""
    width: float
    """Of the interval."""


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wrong_states(chronicle: Chronicle) -> list[str]:
    """Compare ``upload_token_as_of`` each night with the truth of that night, every token."""
    timelines = chronicle.truth.timelines()
    before: dict[str, Row] = {}
    wrong = []
    for number, night in enumerate(chronicle.nights):
        now = as_of(chronicle, night.published_at)
        for token_id in timelines.keys() | now.keys():
            row, known = now.get(token_id), before.get(token_id)
            states = during(timelines[token_id], night.first_mark, night.last_mark)
            true = any(_same(row, body) for body in states)
            stale = _values(row) == _values(known)
            if token_id in night.blind:
                right = stale
            elif _in_reach(known, states, night):
                right = true
            else:
                right = true or stale
            if not right:
                wrong.append(f"night {number} ({night.mode}), {token_id}: {row} is not {states}")
            chronicle.figures["states compared"] += 1
        before = now
    return wrong


def as_of(chronicle: Chronicle, at: datetime) -> dict[str, Row]:
    """The tokens that were listed, by id."""
    rows = chronicle.job.query("select * from kaltura.upload_token_as_of(%s) where is_listed", at)
    return {row["token_id"]: row for row in rows}


def status_changes(chronicle: Chronicle) -> list[Row]:
    """``upload_token_status_history`` in the order of each token's versions."""
    return chronicle.job.query(
        "select * from kaltura.upload_token_status_history order by token_id, version"
    )


def judge(chronicle: Chronicle, changes: Iterable[Row]) -> tuple[list[str], list[Estimate]]:
    """Rows whose interval does not hold the true moment, and how far off estimates are."""
    timelines = chronicle.truth.timelines()
    wrong, estimates = [], []
    for row in changes:
        label = NOT_LISTED if row["to_status"] == NOT_LISTED else row["to_status_code"]
        after, before, guess = (
            row[name].timestamp() for name in ("happened_after", "happened_before", "happened_at")
        )
        entered = [
            each.at
            for each in chronicle.truth.transitions(timelines[row["token_id"]])
            if each.label == label and each.at <= before
        ]
        if not entered or entered[-1] < after or not after <= guess <= before:
            wrong.append(f"{row}: true moments {entered}")
            continue
        estimates.append(
            Estimate(
                row["change_kind"],
                abs(guess - entered[-1]),
                row["valid_from"].timestamp() - entered[-1],
                before - after,
            )
        )
    return wrong, estimates


def missing_changes(chronicle: Chronicle, changes: Iterable[Row]) -> list[str]:
    """Compare the rows with what the nights knew: one for each change, and no other."""
    found: dict[str, list[tuple[datetime, Label, Label]]] = {}
    for row in changes:
        labels = [
            NOT_LISTED if row[f"{side}_status"] == NOT_LISTED else row[f"{side}_status_code"]
            for side in ("from", "to")
        ]
        found.setdefault(row["token_id"], []).append((row["valid_from"], *labels))
    expected: dict[str, list[tuple[datetime, Label, Label]]] = {}
    last: dict[str, Label] = {}
    for night in chronicle.nights:
        now = as_of(chronicle, night.published_at)
        for token_id in last.keys() | now.keys():
            label: Label = now[token_id]["status"] if token_id in now else NOT_LISTED
            if token_id not in last or last[token_id] != label:
                change = (night.published_at, last.get(token_id), label)
                expected.setdefault(token_id, []).append(change)
            last[token_id] = label
    return [
        f"{token_id}: {found.get(token_id)} instead of {expected.get(token_id)}"
        for token_id in found.keys() | expected.keys()
        if found.get(token_id) != expected.get(token_id)
    ]


def _values(row: Row | None) -> Row | None:
    return None if row is None else {name: row[name] for name in COLUMNS}


def _same(row: Row | None, body: bytes | None) -> bool:
    """Whether the row says what the service said; a user who was deleted is still named."""
    if row is None or body is None:
        return row is None and body is None
    expected = columns_of(decoded(body))
    return all(
        row[name] == expected[name] or (name == "user_id" and expected[name] is None)
        for name in COLUMNS
    )


def _in_reach(known: Row | None, states: list[bytes | None], night: Night) -> bool:
    """Whether the run must have seen the token as it was.

    A full run sees all but what lies between the neighbours of a row that could not be read; an
    incremental one what is new, open, or known as open.
    """
    fields = [decoded(body) for body in states if body is not None]
    if night.mode == "full":
        seconds = [each["createdAt"] for each in fields]
        seconds += [int(known["created_at"].timestamp())] if known else []
        return all(night.coverage.contains(second) for second in seconds)
    if known is not None and known["status"] in OPEN:
        return True
    return len(fields) == len(states) and all(
        each["status"] in OPEN or each["createdAt"] > night.reach for each in fields
    )
