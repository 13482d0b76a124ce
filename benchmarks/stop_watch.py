"""``kaltura-etl`` with a stop watch at its stages: ``python -m benchmarks.stop_watch sync …``.

Writes a JSON object of seconds by stage to the file that STOP_WATCH_FILE names.  Stages of the
main thread add up to the total; those named ``cpu: …`` are processor time of all threads, and are
part of the others.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPENT: dict[str, float] = defaultdict(float)
NESTED: list[float] = []
"""Seconds of watched calls inside the current one, per level of the main thread."""


def _original(owner: Any, name: str) -> Callable[..., Any] | None:
    """The function to watch.  One that has been renamed costs a line of the table, not the run."""
    found: Callable[..., Any] | None = getattr(owner, name, None)
    if found is None:
        print(f"stop watch: {owner.__name__} has no {name}", file=sys.stderr)
    return found


def _watch(owner: Any, name: str, stage: str) -> None:
    """Count the main thread's seconds in this function, without those of watched ones inside."""
    original = _original(owner, name)
    if original is None:
        return

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        NESTED.append(0.0)
        try:
            return original(*args, **kwargs)
        finally:
            took = time.perf_counter() - began
            SPENT[stage] += took - NESTED.pop()
            if NESTED:
                NESTED[-1] += took

    setattr(owner, name, watched)


def _watch_processor(owner: Any, name: str, stage: str) -> None:
    """Count processor seconds of whatever thread calls this function."""
    original = _original(owner, name)
    if original is None:
        return

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return original(*args, **kwargs)
        finally:
            SPENT[stage] += time.thread_time() - began

    setattr(owner, name, watched)


def _install() -> None:
    import etl.cli.sync
    import etl.run.engine
    import etl.run.fetch
    import etl.run.leg
    import etl.run.sync
    import etl.warehouse.load.compare
    import etl.warehouse.load.staging
    from etl.kaltura.client import KalturaClient
    from etl.run.engine import _Engine
    from etl.run.leg import RunContext

    _watch(etl.run.sync, "run_plan", "open and close")
    for name, stage in (
        ("open_upload_tokens", "log in"),
        ("require_ready", "check the schema"),
        ("open_run", "take the lease"),
        ("missing_tokens", "confirm absences"),
        ("audit_counts", "audit"),
        ("publish", "publish"),
        ("prune_old_pages", "prune"),
    ):
        _watch(etl.run.engine, name, stage)
    _watch(_Engine, "run_all", "walk: the rest")
    _watch(RunContext, "wait", "walk: wait for pages")
    _watch(etl.run.leg, "stage_batch", "stage: the rest")
    _watch(etl.run.leg, "stage_lookup", "confirm absences")
    _watch(etl.warehouse.load.staging, "compare_batch", "stage: compare, SQL")
    _watch(etl.warehouse.load.compare, "copy_rows", "stage: compare, COPY")
    _watch(etl.warehouse.load.staging, "copy_rows", "stage: COPY of differences")
    _watch(etl.warehouse.load.staging, "newest_of_each", "stage: one row per id")
    _watch_processor(KalturaClient, "post", "cpu: HTTP")
    _watch_processor(etl.run.fetch, "decode_rows", "cpu: decode")
    _watch_processor(etl.run.leg, "stage_batch", "cpu: stage")


def main() -> None:
    began = float(os.environ["STOP_WATCH_BEGAN"])
    import etl.cli

    _install()
    imported = time.time()
    SPENT["start and imports"] = imported - began
    main_began = time.perf_counter()
    NESTED.append(0.0)
    try:
        etl.cli.main()
    finally:
        SPENT["settings, output"] = time.perf_counter() - main_began - NESTED.pop()
        SPENT["cpu: process"] = time.process_time()
        Path(os.environ["STOP_WATCH_FILE"]).write_text(json.dumps(SPENT), encoding="utf-8")


if __name__ == "__main__":
    main()
