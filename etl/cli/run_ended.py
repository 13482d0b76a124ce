"""``run ended``: the last event in the log of every run, with all figures, whatever came of it.

A run here is a call of ``sync`` or ``backfill``, from its first option on: one whose settings are
wrong is a run that failed.  Every key is always there; what is not known is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from etl.errors import DataRefused, LeaseHeld
from etl.process.progress import StageTimes
from etl.run.report import Figures

if TYPE_CHECKING:
    from etl.process.metrics import WarehouseState

EVENT: Final = "run ended"
JOB_EVENT: Final = "job ended"
"""Of a job of several accounts, after the event of each; its figures are null."""
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
    """What is asked for; the run's own mode may be another one."""
    label: str | None = None
    dry_run: bool = False
    is_job: bool = False
    """Whether it is a job of accounts that are named, or of all."""
    times: StageTimes = field(default_factory=StageTimes)
    figures: Figures = field(default_factory=Figures)
    report: Mapping[str, Any] | None = None
    """Of a run that succeeded."""
    accounts: list[dict[str, object]] = field(default_factory=list)
    """Of a job: how each account has ended that has."""
    state: WarehouseState | None = None
    """What the warehouse says after the run, if it was asked."""

    @property
    def event_name(self) -> str:
        return JOB_EVENT if self.is_job else EVENT

    def presume(self, command: str, arguments: Sequence[str]) -> None:
        """What is asked for, by arguments that may turn out to be wrong."""
        given = {part for argument in arguments for part in argument.split("=", 1)}
        self.mode = command if command == "backfill" else "full"
        if command == "sync" and "incremental" in given:
            self.mode = "incremental"
        self.dry_run = "--dry-run" in given
        self.is_job = bool(given & {"--accounts", "--all"})

    def event(self, error: BaseException | None) -> dict[str, object]:
        """The keys that are the run's own; those of every failure and result are not in it."""
        facts = {"mode": self.mode} | self.figures.facts() | dict(self.report or {})
        return {
            **{name: facts.get(name) for name in FIGURES},
            "label": self.label,
            "status": self.status(error),
            "duration_seconds": self.times.total_seconds(),
            "stage_seconds": self.times.seconds(),
        }

    def status(self, error: BaseException | None) -> str:
        """As in ``sync_run.status``."""
        if error is None:
            return "dry_run" if self.report is not None and self.report["dry_run"] else "succeeded"
        if isinstance(error, DataRefused):
            return "refused"
        # One that has lost its lease has failed.
        return "skipped" if isinstance(error, LeaseHeld) and not self.figures.run else "failed"


def ended_event(
    facts: RunFacts,
    error: BaseException | None,
    failure: Mapping[str, object] | None,
    *,
    partner_id: int | None,
    warehouse: Mapping[str, object] | None,
) -> dict[str, object]:
    """The keys of ``run ended``; ``failure``: those of ``failure_fields``, if it failed."""
    told = dict(failure or {"exit_code": 0, "retryable": False})
    event = facts.event(error)
    return event | {
        "run_id": told.get("run_id") or event["run_id"],
        "partner_id": partner_id,
        "warehouse": warehouse,
        **{key: told.get(key) for key in ("exit_code", "error_kind", "reason", "retryable")},
    }
