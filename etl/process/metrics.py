"""The file for Prometheus' textfile collector: the outcome and the counts of the last run.

A batch job cannot be scraped, so it writes a file that node_exporter reads.  The file is replaced
atomically.  Times are Unix seconds, durations seconds.
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


def write_metrics(
    path: Path,
    *,
    exit_code: int,
    report: Mapping[str, Any] | None,
    labels: Mapping[str, str],
) -> None:
    """Write the outcome of a run; ``report`` is None if it failed.

    ``labels``: the account, so that the collector can tell the files of several accounts apart.
    A file that cannot be written is a warning: what was published stays published.
    """
    registry = CollectorRegistry()
    published_at = None if report is None else report["published_at"]
    published = _published_before(path) if published_at is None else published_at.timestamp()

    def add(name: str, meaning: str, value: float) -> None:
        gauge = Gauge(f"kaltura_etl_{name}", meaning, list(labels), registry=registry)
        gauge.labels(**labels).set(value)

    add("last_run_end_time_seconds", "When the last run ended.", time.time())
    add("last_run_exit_code", "Exit code of the last run.", exit_code)
    if report is not None:
        add("last_run_duration_seconds", "How long the last run took.", report["duration_seconds"])
        for name, meaning in COUNTS.items():
            add(f"last_run_{name}", meaning, report[name])
    if published is not None:
        add(PUBLISHED, "Time of the last publication, of any run.", published)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        log.warning(
            "the metrics file could not be written",
            extra={"path": str(path), "reason": error.strerror or type(error).__name__},
        )


def _published_before(path: Path) -> float | None:
    """The earlier publication in the file, so that an alert on its age survives a failed run."""
    try:
        families = list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values.get(f"kaltura_etl_{PUBLISHED}")
