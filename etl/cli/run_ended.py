"""``run ended``: the last event in the log of every run, with all figures, whatever came of it.

A run here is a call of ``sync`` or ``backfill``, from its first option on: one whose settings are
wrong is a run that failed.  Every key is always there; what is not known is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from etl.errors import DataRefused, LeaseHeld
from etl.process.progress import StageTimes
from etl.run.report import Figures

EVENT: Final = "run ended"
RUNS: Final = frozenset({"sync", "backfill"})
"""The commands that are runs."""
FIGURES: Final = (
    *("run_id", "mode", "resumed_from", "published_at", "coverage"),
    *("tokens_read", "inserted", "changed", "absent", "relisted", "unchanged", "rejected"),
    *("unreadable", "pages", "rows_read", "requests", "retries", "bytes"),
)


@dataclass(slots=True)
class RunFacts:
    """What the command line knows of its run."""

    mode: str | None = None
    label: str | None = None
    times: StageTimes = field(default_factory=StageTimes)
    figures: Figures = field(default_factory=Figures)
    report: Mapping[str, Any] | None = None
    """Of a run that succeeded."""

    def event(self, error: BaseException | None) -> dict[str, object]:
        """The keys that are the run's own; those of every failure and result are not in it."""
        facts = {"mode": self.mode} | self.figures.facts() | dict(self.report or {})
        return {
            **{name: facts.get(name) for name in FIGURES},
            "label": self.label,
            "status": self._status(error),
            "duration_seconds": self.times.total_seconds(),
            "stage_seconds": self.times.seconds(),
        }

    def _status(self, error: BaseException | None) -> str:
        """As in ``sync_run.status``."""
        if error is None:
            return "dry_run" if self.report is not None and self.report["dry_run"] else "succeeded"
        if isinstance(error, DataRefused):
            return "refused"
        # One that has lost its lease has failed.
        return "skipped" if isinstance(error, LeaseHeld) and not self.figures.run else "failed"
