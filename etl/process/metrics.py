"""The file for Prometheus' text-file collector: how the last run ended, and what it did.

A batch job is not there to be scraped, so it leaves a file that node_exporter reads.  The file is
replaced as a whole.  Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

log = logging.getLogger(__name__)

COUNTS: Final = {
    "tokens_read": "Distinct tokens that the last run read.",
    "inserted": "Tokens that the last run saw for the first time.",
    "changed": "Tokens that the last run found changed.",
    "absent": "Tokens that the last run found no longer listed.",
    "relisted": "Tokens that the last run found listed again.",
    "unchanged": "Tokens that the last run found unchanged.",
    "rejected": "Rows that the last run could not load.",
    "unreadable": "Tokens that the service failed to show to the last run.",
    "requests": "Requests of the last run, retries included.",
    "retries": "Retries of the last run.",
    "pages": "Replies that the last run accepted.",
}


PUBLISHED: Final = "published_time_seconds"


def write_metrics(path: Path, *, exit_code: int, report: Mapping[str, Any] | None) -> None:
    """Write how a run ended; ``report`` is that of a run that did not fail.

    A file that cannot be written is a warning: what was published stays published.
    """
    registry = CollectorRegistry()
    published_at = None if report is None else report["published_at"]
    published = _published_before(path) if published_at is None else published_at.timestamp()

    def tell(name: str, meaning: str, value: float) -> None:
        Gauge(f"kaltura_etl_{name}", meaning, registry=registry).set(value)

    tell("last_run_end_time_seconds", "When the last run ended.", time.time())
    tell("last_run_exit_code", "Exit code of the last run.", exit_code)
    if report is not None:
        tell("last_run_duration_seconds", "How long the last run took.", report["duration_seconds"])
        for name, meaning in COUNTS.items():
            tell(f"last_run_{name}", meaning, report[name])
    if published is not None:
        tell(PUBLISHED, "Stamp of the last publication, of whichever run.", published)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        log.warning(
            "the metrics file could not be written",
            extra={"path": str(path), "reason": error.strerror or type(error).__name__},
        )


def _published_before(path: Path) -> float | None:
    """What the file says of an earlier publication: an alarm on its age outlives a failed run."""
    try:
        families = list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values.get(f"kaltura_etl_{PUBLISHED}")
