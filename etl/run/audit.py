"""The audit: what must hold before a walk may become visible.

Pure: it looks at counts and coverage, and refuses with a reason or lets pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from etl.coverage import Coverage, Span
from etl.errors import DataRefused
from etl.walk import Hole

if TYPE_CHECKING:
    from etl.warehouse.load.resolve import AuditCounts

ABSENCES_ALWAYS_ALLOWED: Final = 10
ABSENCES_OF_PART_ALWAYS_ALLOWED: Final = 100
ABSENCE_BRAKE: Final = 0.20
"""Share of the tokens listed before that may vanish in one run."""
NOTHING_PUBLISHED: Final = "Nothing was published; the next run reads the list again."
REJECTED_ALWAYS_ALLOWED: Final = 10
REJECTED_SHARE: Final = 0.001


def audit_coverage(
    *, target: Span, coverage: Coverage, holes: Sequence[Hole], max_unreadable: int
) -> None:
    """Refuse a list that was not read as far as it should be."""
    unreadable = [hole for hole in holes if hole.reason == "unreadable"]
    open_seconds = coverage.union(hole.span for hole in unreadable).holes(target)
    if open_seconds:
        raise DataRefused(
            f"The list was not read completely: createdAt {open_seconds[0].to_sql()} is missing"
            + _more(len(open_seconds))
            + f". {NOTHING_PUBLISHED} If that happens again, run at an hour when less is uploaded.",
            reason="incomplete",
            holes=[span.to_sql() for span in open_seconds[:20]],
        )
    tokens = sum(hole.tokens for hole in unreadable)
    if tokens > max_unreadable:
        raise DataRefused(
            f"{tokens} tokens cannot be read, more than the {max_unreadable} allowed. "
            f"{NOTHING_PUBLISHED} If the service cannot be mended, allow them: "
            f"--max-unreadable {tokens}.",
            reason="unreadable",
        )


def audit_changes(counts: AuditCounts, *, accept_absences: int | None) -> None:
    """Refuse what would change too much."""
    allowed = max(REJECTED_ALWAYS_ALLOWED, int(REJECTED_SHARE * counts.tokens_read))
    if counts.rejected > allowed:
        raise DataRefused(
            f"{counts.rejected} rows were rejected, more than the {allowed} allowed. "
            f"{NOTHING_PUBLISHED} The rows and the reasons are in the table rejected_row: they "
            "must be mended in the service.",
            reason="rejected",
        )
    brake = absences_allowed(counts.listed_before, counts.listed_before - counts.not_covered)
    if counts.absent > max(brake, accept_absences or 0):
        raise DataRefused(
            f"{counts.absent} of {counts.listed_before} tokens would be declared absent, more than "
            f"the {brake} allowed. {NOTHING_PUBLISHED} If the tokens are really gone, run once "
            f"with --accept-absences {counts.absent}: that run, too, asks for each of them by its "
            "id.",
            reason="absence_brake",
        )


def absences_allowed(listed_before: int, looked_at: int) -> int:
    """The brake: a share of the tokens listed before.

    A run that looked at a part of them only has that part for its measure; but a part is small,
    and many of its tokens may well go at once, so the measure of a part is not so tight.
    """
    of_all = max(ABSENCES_ALWAYS_ALLOWED, int(ABSENCE_BRAKE * listed_before))
    of_part = max(ABSENCES_OF_PART_ALWAYS_ALLOWED, int(ABSENCE_BRAKE * looked_at))
    return min(of_all, of_part)


def _more(holes: int) -> str:
    return f", and {holes - 1} more" if holes > 1 else ""
