"""The audit: the conditions that a walk must meet before it is published.

Pure: it checks counts and coverage, and raises with a reason or returns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from etl.coverage import TOLERATED, Coverage, Span
from etl.errors import DataRefused
from etl.walk import Hole, what_was_not_read

if TYPE_CHECKING:
    from etl.run.plan import SyncOptions
    from etl.warehouse.load.resolve import AuditCounts
    from etl.warehouse.load.vanished import Vanished

ABSENCES_ALWAYS_ALLOWED: Final = 10
ABSENCES_OF_PART_ALWAYS_ALLOWED: Final = 100
ABSENCE_BRAKE: Final = 0.20
"""Absence limit: the share of the tokens listed before that may become absent in one run."""
NOTHING_PUBLISHED: Final = "Nothing was published; the next run reads the list again."
REJECTED_ALWAYS_ALLOWED: Final = 10
REJECTED_SHARE: Final = 0.001


def audit_coverage(
    *, target: Span, coverage: Coverage, holes: Sequence[Hole], max_unreadable: int
) -> None:
    """Refuse a list that was not covered as far as required."""
    unreadable = [hole for hole in holes if hole.reason in TOLERATED]
    open_seconds = coverage.union(hole.span for hole in unreadable).holes(target)
    if open_seconds:
        raise DataRefused(
            f"The list was not read completely: createdAt {open_seconds[0].to_sql()} is missing"
            + _more(len(open_seconds))
            + f". {NOTHING_PUBLISHED} If that happens again, run at a time with fewer uploads.",
            reason="incomplete",
            holes=[span.to_sql() for span in open_seconds[:20]],
        )
    audit_unreadable(unreadable, max_unreadable)


def audit_unreadable(
    holes: Iterable[Hole], max_unreadable: int, token_ids: Collection[str] = ()
) -> None:
    """Refuse too many unreadable rows and seconds that kept changing; some rows are known by id."""
    holes = list(holes)
    found = sum(hole.tokens for hole in holes) + len(token_ids)
    if found > max_unreadable:
        raise DataRefused(
            f"{what_was_not_read(holes, len(token_ids))}, more than the {max_unreadable} allowed. "
            f"{NOTHING_PUBLISHED} If the service cannot be fixed, allow them: "
            f"--max-unreadable {found}.",
            reason="unreadable",
            token_ids=sorted(token_ids)[:20],
        )


def audit_changes(
    counts: AuditCounts, *, accept_absences: int | None = None, accept_rejected: int | None = None
) -> None:
    """Refuse too many rejected rows, and absences above the limit."""
    allowed = max(REJECTED_ALWAYS_ALLOWED, int(REJECTED_SHARE * counts.tokens_read))
    # A row that lacks only its status is that of a known token, which keeps the known one.
    rejected = counts.rejected - counts.stateless
    if rejected > max(allowed, accept_rejected or 0):
        raise DataRefused(
            f"{rejected} rows were rejected, more than the {allowed} allowed. "
            f"{NOTHING_PUBLISHED} The rows and the reasons are in the table rejected_row: fix them "
            f"in the service, or run once with --accept-rejected {rejected}, without these rows.",
            reason="rejected",
        )
    limit = absences_allowed(counts.listed_before, counts.listed_before - counts.not_covered)
    if counts.absent > max(limit, accept_absences or 0):
        raise DataRefused(
            f"{counts.absent} of {counts.listed_before} tokens would be declared absent, more than "
            f"the {limit} allowed. {NOTHING_PUBLISHED} If the tokens are really gone, run once "
            f"with --accept-absences {counts.absent}: that run also looks up each of them by id.",
            reason="absence_brake",
        )


def audit_fields(vanished: Sequence[Vanished], *, accepted: Collection[str]) -> None:
    """Refuse a list from which a field has vanished, unless that is accepted."""
    refused = [each for each in vanished if each.field not in accepted]
    if not refused:
        return
    first = refused[0]
    options = " ".join(f"--accept-vanished-field {each.field}" for each in refused)
    raise DataRefused(
        f"{first.lacking} of {first.of} tokens have no value of {first.field} any more, or one "
        f"that cannot be used{_more(len(refused))}: the service may have renamed the field. "
        f"{NOTHING_PUBLISHED} If the values are really gone, run once with {options}.",
        reason="field_vanished",
        fields=[each._asdict() for each in refused],
    )


def overrides_of(options: SyncOptions) -> dict[str, Any]:
    """What the operator overrides in this run, as the ledger records it."""
    given = {
        "accept_absences": options.accept_absences,
        "accept_rejected": options.accept_rejected,
        "accept_vanished_field": [*options.accept_vanished_fields] or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def absences_allowed(listed_before: int, looked_at: int) -> int:
    """The absence limit: a share of the tokens listed before.

    For a run that looked at only a part of them, it is also a share of that part.  A part is small,
    and many of its tokens may legitimately go at once, so its minimum is higher.
    """
    of_all = max(ABSENCES_ALWAYS_ALLOWED, int(ABSENCE_BRAKE * listed_before))
    of_part = max(ABSENCES_OF_PART_ALWAYS_ALLOWED, int(ABSENCE_BRAKE * looked_at))
    return min(of_all, of_part)


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""
