"""How fresh and how complete the data are, in plain words.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from typing import Any, Final

from etl.coverage import EVERYTHING, Coverage
from etl.report.read import ReportRows
from etl.report.words import counted, day_in_words, moment_in_words, rough_duration, span_in_words
from etl.tokens.token import seconds_between

STALE_AFTER: Final = timedelta(hours=36)
"""A nightly job that missed one night."""
SPANS_SHOWN: Final = 3
HOW_IT_ENDED: Final = {
    "refused": "was refused by the audit",
    "failed": "failed",
    "abandoned": "broke off",
}
"""A run that did not publish, by its status."""

NIGHT: Final = {
    "complete": "complete",
    "partial": "a part was read",
    "failed": "failed",
    "no_run": "no run",
}
NIGHTS_LOOKED_AT: Final = 7
"""Before today."""

GOOD: Final = "good"
WARNING: Final = "warning"
BAD: Final = "bad"


@dataclass(frozen=True, slots=True)
class Trust:
    """``level`` is good, warning or bad: a colour, so the headline says it too."""

    level: str
    headline: str
    sentences: list[str]


def trust(rows: ReportRows, zone: tzinfo) -> Trust:
    """What a reader must know before believing the page."""
    freshness = rows.freshness
    if freshness is None:
        return _no_runs(rows)
    if freshness["last_published_at"] is None:
        return Trust(
            BAD,
            "Nothing has been published yet.",
            ["No run of this account has ended well so far.", *_last_run(rows, zone)],
        )
    if freshness["last_complete_at"] is None:
        return _never_complete(rows, freshness, zone)
    return _complete(rows, freshness, zone)


def _no_runs(rows: ReportRows) -> Trust:
    if rows.partner_id is None:
        headline, what = "This warehouse is empty.", "No run has been made yet."
    else:
        headline = f"Nothing is known of account {rows.partner_id}."
        what = "The warehouse has no run of this account."
    return Trust(BAD, headline, [what, "kaltura-etl sync reads an account for the first time."])


def _complete(rows: ReportRows, freshness: Mapping[str, Any], zone: tzinfo) -> Trust:
    certificate = next(row for row in rows.certificates if row["is_complete"])
    age = max(rows.read_at - freshness["last_complete_at"], timedelta(0))
    stale = age > STALE_AFTER
    left_out = list(_left_out(certificate))
    sentences = [_what_was_read(certificate, left_out, zone)]
    if not stale:
        # Absolute times first: the page may be read long after it was made.
        made = moment_in_words(rows.read_at, zone)
        sentences.append(f"When this page was made, on {made}, that was {rough_duration(age)} ago.")
    latest = rows.certificates[-1] if rows.certificates else None
    if latest is not None and not latest["is_complete"]:
        at = moment_in_words(latest["published_at"], zone)
        sentences.append(
            f"On {at} {_a_run(latest['mode'])} brought a part up to date: "
            f"{_read_part(latest, zone)}. What vanished since the complete run may still be shown."
        )
    if stale:
        sentences.append(
            f"When this page was made, on {moment_in_words(rows.read_at, zone)}, no run had read "
            f"the whole account for {rough_duration(age)}: what happened since then is missing, or "
            "known in part."
        )
    sentences += [*_last_run(rows, zone), *_bad_nights(rows)]
    level = WARNING if stale or left_out else GOOD
    complete = "Complete but for what is said here, as of" if left_out else "Complete as of"
    at = moment_in_words(freshness["last_complete_at"], zone)
    old = f": {rough_duration(age)} old when this page was made" if stale else ""
    return Trust(level, f"{complete} {at}{old}.", sentences)


def _what_was_read(certificate: Mapping[str, Any], left_out: list[str], zone: tzinfo) -> str:
    """The certificate in a sentence.  It holds for the whole walk, which may be of several runs."""
    when = span_in_words(certificate["walk_started_at"], certificate["published_at"], zone)
    line = (
        "the createdAt line as far as Kaltura could show it"
        if certificate["unreadable"]
        else "every second of the createdAt line"
    )
    listed = "every upload that was listed all that time is in here"
    *others, last = left_out or [""]
    excepted = f"{', '.join(others)} and {last}" if others else last
    listed = f": {listed}, except {excepted}" if left_out else f", so {listed}"
    return f"{when} the last complete run read {line}{listed}."


def _never_complete(rows: ReportRows, freshness: Mapping[str, Any], zone: tzinfo) -> Trust:
    latest = rows.certificates[-1]
    at = moment_in_words(freshness["last_published_at"], zone)
    return Trust(
        BAD,
        "Not complete: no run has read the whole account yet.",
        [
            f"On {at} {_a_run(latest['mode'])} was published: {_read_part(latest, zone)}. "
            "Counts and shares on this page are those of the uploads that were read.",
            *_last_run(rows, zone),
            *_bad_nights(rows),
        ],
    )


def _left_out(certificate: Mapping[str, Any]) -> Iterator[str]:
    busy = int(certificate["busy_seconds"])
    if certificate["unreadable"] > busy:
        count = counted(certificate["unreadable"] - busy, "upload")
        yield f"{count} that Kaltura itself failed to show"
    if busy:
        yield f"those created in {counted(busy, 'second')} that kept changing"
    if certificate["rejected"]:
        count = counted(certificate["rejected"], "row")
        were = "was" if certificate["rejected"] == 1 else "were"
        yield f"{count} that could not be loaded and {were} set aside"


def night_in_words(night: Mapping[str, Any], is_today: bool) -> str:
    """What came of a day; today may still get its run."""
    return "no run yet" if is_today and night["outcome"] == "no_run" else NIGHT[night["outcome"]]


def _bad_nights(rows: ReportRows) -> Iterator[str]:
    """Nights that cost nothing but precision, since a complete run followed."""
    before_today = rows.nights[1 : NIGHTS_LOOKED_AT + 1]
    bad = [night for night in before_today if night["outcome"] in ("failed", "no_run")]
    if bad:
        named = ", ".join(
            f"{day_in_words(night['day'])} ({night_in_words(night, False)})" for night in bad[::-1]
        )
        yield (
            f"Of the {counted(len(before_today), 'day')} before "
            f"{day_in_words(rows.nights[0]['day'])}, {len(bad)} had no published run: {named}. "
            "When something happened is known less precisely for these."
        )


def _a_run(mode: str) -> str:
    return f"an {mode} run" if mode[0] in "aeiou" else f"a {mode} run"


def _read_part(run: Mapping[str, Any], zone: tzinfo) -> str:
    everything = Coverage([EVERYTHING])
    coverage = Coverage.from_sql(run["coverage"])
    spans = list(coverage)
    open_ones = Coverage.from_sql(run["open_coverage"]) == everything
    if not spans:
        return "it read all open uploads" if open_ones else "it looked up single uploads"
    shown = []
    for span in spans[:SPANS_SHOWN]:
        lower, upper = seconds_between(span)
        begin = "the beginning" if lower is None else moment_in_words(lower, zone)
        end = "the end" if upper is None else moment_in_words(upper, zone)
        shown.append(f"from {begin} to {end}")
    more = len(spans) - len(shown)
    return (
        f"it read the uploads created {', and '.join(shown)}"
        + (f", and {counted(more, 'more span')}" if more else "")
        + (", and all open ones" if open_ones else "")
    )


def _last_run(rows: ReportRows, zone: tzinfo) -> Iterator[str]:
    """What the newest runs add to the certificate."""
    running = next((run for run in rows.runs if run["status"] == "running"), None)
    if running is not None:
        since = moment_in_words(running["started_at"], zone)
        yield f"When this page was made, a run was at work, since {since}."
    ended = next((run for run in rows.runs if run["status"] != "running"), None)
    how = None if ended is None else HOW_IT_ENDED.get(ended["status"])
    if ended is not None and how is not None:
        yield (
            f"The last run, begun on {moment_in_words(ended['started_at'], zone)}, {how} and "
            "changed nothing; the reason is in the table of nights."
        )
