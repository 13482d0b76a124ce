"""Which runs of which archives to replay, in which order, and the gaps that prevent it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from etl.archive.layout import Manifest
from etl.archive.reader import Archive
from etl.errors import DataRefused, UsageError


class ArchivedRun(NamedTuple):
    """A published run and the archive that holds it."""

    archive: Archive
    manifest: Manifest


class RunName(NamedTuple):
    """A run by its account and number."""

    partner_id: int
    run_id: int


@dataclass(slots=True)
class ReplayPlan:
    """What archives hold."""

    runs: list[ArchivedRun] = field(default_factory=list)
    """In the order in which they were published."""
    unfinished: list[RunName] = field(default_factory=list)
    """Folders without a manifest: runs that were killed, failed, or are in progress.

    A run that another one resumed is not among them: its replies are in the other's manifest.
    """
    gaps: list[str] = field(default_factory=list)
    """A sentence per published run that is missing before one that is present."""
    last_run_id: int = 0
    """The highest run id of any archive."""


def plan_of(archives: Iterable[Archive], *, until: int | None = None) -> ReplayPlan:
    """Read every manifest; ``until`` is the last run to replay (of any account).

    Raises UsageError for a run that is in no archive, DataRefused for damage and for two archives
    with different runs of one number.
    """
    plan = ReplayPlan()
    runs: dict[RunName, ArchivedRun] = {}
    for archive in archives:
        archive.require()
        for partner_id in archive.partners():
            for run_id in archive.run_ids(partner_id):
                plan.last_run_id = max(plan.last_run_id, run_id)
                name = RunName(partner_id, run_id)
                manifest = archive.manifest(partner_id, run_id)
                if manifest is None:
                    plan.unfinished.append(name)
                    continue
                other = runs.setdefault(name, ArchivedRun(archive, manifest))
                if other.manifest != manifest:
                    raise DataRefused(
                        f"{other.archive.address} and {archive.address} have different runs "
                        f"{run_id} of partner {partner_id}: they belong to two warehouses.",
                        reason="archive_conflict",
                    )
    carried_on = {
        RunName(name.partner_id, row["run_id"])
        for name, run in runs.items()
        for row in run.manifest.ledger
    }
    plan.unfinished = [name for name in plan.unfinished if name not in carried_on]
    plan.runs = sorted(
        runs.values(), key=lambda run: (run.manifest.published_at, run.manifest.run_id)
    )
    if until is not None:
        plan.runs = _until(plan.runs, until)
    plan.gaps = _gaps(plan.runs)
    return plan


def _until(runs: Sequence[ArchivedRun], until: int) -> list[ArchivedRun]:
    for index, run in enumerate(runs):
        if run.manifest.run_id == until:
            return list(runs[: index + 1])
    raise UsageError(f"--until {until}: no archive has a published run of this number.")


def _gaps(runs: Sequence[ArchivedRun]) -> list[str]:
    """Published runs that are missing: later runs were compared with them."""
    gaps = []
    last: dict[int, int] = {}
    for run in runs:
        manifest = run.manifest
        before = last.get(manifest.partner_id)
        if manifest.follows_run_id != before:
            gaps.append(
                f"run {manifest.run_id} of partner {manifest.partner_id} follows run "
                f"{manifest.follows_run_id}, which is not archived"
            )
        last[manifest.partner_id] = manifest.run_id
    return gaps
