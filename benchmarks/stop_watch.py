"""``kaltura-etl`` with a stop watch at its stages: ``python -m benchmarks.stop_watch sync …``.

STOP_WATCH_FILE names the file for the result, STOP_WATCH_BEGAN is the time.time() at which the
process was started, and STOP_WATCH_CPROFILE, if given, a file for a cProfile of the main thread
(and, with ``.fetch`` added to its name, of one of the fetch threads).

A stage is a function that is watched, without the watched functions inside it, so that the stages
of the main thread and its rest add up to the whole, and the processor seconds of all stages and
the rests to those of the process.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WATCHED = (
    ("etl.warehouse.load.ready:require_ready", "check the schema"),
    ("etl.warehouse.ledger.lease:open_run", "take the lease"),
    ("etl.kaltura.client:KalturaClient.post", "HTTP"),
    ("etl.kaltura.replies:read_list", "parse"),
    ("etl.kaltura.upload_token:UploadTokens.list_page", "page facts, SHA-256"),
    ("etl.tokens.decode:decode_rows", "decode"),
    ("etl.walk.walk:Walk.next_request", "walk: plan"),
    ("etl.walk.walk:Walk.receive", "walk: cover"),
    ("etl.run.leg:RunContext.wait", "wait for pages"),
    ("etl.warehouse.load.staging:stage_batch", "stage: the rest"),
    ("etl.warehouse.load.observations:newest_of_each", "stage: one row per id"),
    ("etl.warehouse.load.staging:_save", "stage: save pages and rows"),
    ("etl.warehouse.ledger.run:PageMemory.remember", "stage: remember pages"),
    ("etl.tokens.columns:PageTokens.digests", "digest"),
    ("etl.tokens.columns:PageTokens.user_digests", "digest of users"),
    ("etl.warehouse.load.fingerprint:known_digests", "read the known digests"),
    ("etl.warehouse.load.fingerprint:unlike", "compare by digest"),
    ("etl.warehouse.load.compare:compare_batch", "compare by columns"),
    ("etl.warehouse.engine:copy_rows", "COPY"),
    ("etl.warehouse.load.missing:missing_tokens", "find missing tokens"),
    ("etl.warehouse.load.staging:stage_lookup", "stage: look-ups"),
    ("etl.warehouse.load.resolve:audit_counts", "audit"),
    ("etl.warehouse.load.publish:publish", "publish"),
    ("etl.warehouse.privacy.prune:prune_old_pages", "prune"),
)
"""Functions and their stages.  A name that is gone is an error: it would lie by its silence."""

IMPORTS = "imports"
FETCH_THREADS = "fetch"


@dataclass(slots=True)
class Stage:
    """Calls of a stage in one kind of thread; wall and processor seconds without inner stages."""

    calls: int = 0
    seconds: float = 0.0
    cpu: float = 0.0


@dataclass
class _Thread(threading.local):
    """What the watched functions of one thread have taken."""

    stages: dict[str, Stage] = field(default_factory=dict)
    inside: list[list[float]] = field(default_factory=list)
    """Wall and processor seconds of watched calls inside the current one, per level."""

    def __post_init__(self) -> None:
        thread = threading.current_thread()
        main = thread is threading.main_thread()
        _SEEN.append(("main" if main else thread.name.rstrip("-_0123456789"), self.stages))


_SEEN: list[tuple[str, dict[str, Stage]]] = []
"""A kind of thread and its stages, for each thread that has called a watched function."""


class NotThere(Exception):
    """A function that should be watched does not exist."""


def find(path: str) -> tuple[Any, str, Callable[..., Any]]:
    """The owner, the name and the function of ``module:function`` or ``module:Class.method``."""
    module, _, names = path.partition(":")
    try:
        owner: Any = importlib.import_module(module)
        *classes, name = names.split(".")
        for each in classes:
            owner = getattr(owner, each)
        return owner, name, getattr(owner, name)
    except (ImportError, AttributeError) as exc:
        raise NotThere(
            f"benchmarks/stop_watch.py watches {path}, which is not there ({exc}). "
            "Name in WATCHED what does this work now."
        ) from exc


def _watch(local: _Thread, path: str, stage: str) -> None:
    owner, name, original = find(path)
    watched = _watched(local, original, stage)
    setattr(owner, name, watched)
    # A module that has imported the function by its name holds the original.
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "etl":
            for alias, value in list(vars(module).items()):
                if value is original:
                    setattr(module, alias, watched)


def _watched(local: _Thread, original: Callable[..., Any], stage: str) -> Callable[..., Any]:
    wall, cpu = time.perf_counter, time.thread_time

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        inside = local.inside
        inner = [0.0, 0.0]
        inside.append(inner)
        began, cpu_began = wall(), cpu()
        try:
            return original(*args, **kwargs)
        finally:
            took, cpu_took = wall() - began, cpu() - cpu_began
            inside.pop()
            spent = local.stages.get(stage)
            if spent is None:
                spent = local.stages[stage] = Stage()
            spent.calls += 1
            spent.seconds += took - inner[0]
            spent.cpu += cpu_took - inner[1]
            if inside:
                inside[-1][0] += took
                inside[-1][1] += cpu_took

    return watched


class _Profiles:
    """A cProfile of the main thread, and of the first fetch thread that starts."""

    def __init__(self, file: str) -> None:
        import cProfile

        if sys.version_info >= (3, 12):
            sys.exit("--cprofile needs Python 3.11: later ones profile all threads as if one")
        self._file = file
        self._main, self._fetch = cProfile.Profile(), cProfile.Profile()
        self._has_fetch = False
        threading.setprofile(self._begin_thread)
        self._main.enable()

    def _begin_thread(self, *_: object) -> None:
        sys.setprofile(None)
        if threading.current_thread().name.startswith(FETCH_THREADS) and not self._has_fetch:
            self._has_fetch = True
            self._fetch.enable()

    def save(self) -> None:
        self._main.disable()
        self._main.dump_stats(self._file)
        if not self._has_fetch:
            sys.exit(f"stop watch: no thread was named {FETCH_THREADS}…, so none was profiled")
        self._fetch.dump_stats(f"{self._file}.{FETCH_THREADS}")


def _result(began: float, start_cpu: float) -> dict[str, Any]:
    """The stages by kind of thread, with the rests."""
    now = time.time()
    threads: dict[str, dict[str, Stage]] = {"main": {}}
    for kind, stages in list(_SEEN):
        merged = threads.setdefault(kind, {})
        for name, spent in list(stages.items()):
            whole = merged.setdefault(name, Stage())
            whole.calls += spent.calls
            whole.seconds += spent.seconds
            whole.cpu += spent.cpu
    main = threads["main"]
    started = float(os.environ["STOP_WATCH_BEGAN"])
    main["start of Python"] = Stage(1, began - started, start_cpu)
    known = sum(stage.cpu for stages in threads.values() for stage in stages.values())
    main_cpu, process_cpu = time.thread_time(), time.process_time()
    rest = main_cpu - sum(stage.cpu for stage in main.values())
    main["the rest"] = Stage(1, now - started - sum(stage.seconds for stage in main.values()), rest)
    threads["others"] = {"the rest": Stage(1, 0.0, process_cpu - known - rest)}
    return {
        kind: {name: asdict(stage) for name, stage in stages.items()}
        for kind, stages in threads.items()
    }


def main() -> None:
    began, start_cpu = time.time(), time.process_time()
    local = _Thread()
    # What every import statement calls for a module that is not there yet.
    import_system: Any = importlib.import_module("importlib._bootstrap")
    import_system._find_and_load = _watched(local, import_system._find_and_load, IMPORTS)
    from etl.cli import main as run

    try:
        for path, stage in WATCHED:
            _watch(local, path, stage)
    except NotThere as gone:
        sys.exit(str(gone))
    profile_file = os.environ.get("STOP_WATCH_CPROFILE")
    profiles = _Profiles(profile_file) if profile_file else None
    try:
        run()
    finally:
        if profiles is not None:
            profiles.save()
        result = json.dumps(_result(began, start_cpu))
        Path(os.environ["STOP_WATCH_FILE"]).write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
