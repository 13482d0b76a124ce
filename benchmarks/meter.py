"""One process, measured from outside: its time, its memory, and what it cost the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.postgres import Postgres, processor_seconds
from benchmarks.program import ROOT
from benchmarks.service import Simulator

MEMORY_POLL_SECONDS = 0.05
SAID_BYTES = 100_000
_EXCEPTION = re.compile(r"[a-z_][\w.]*\.[A-Z]\w+: ")
_PATH = re.compile(r"(?:/[\w.+-]+){2,}")
"""A path of this machine, which is nobody's business."""


class RunFailed(Exception):
    """A measured program ended with an error.

    The message is the line of its output that names the error; ``said`` is the end of all of it.
    """

    def __init__(self, said: str) -> None:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if _EXCEPTION.match(line)] or lines
        message = telling[-1] if telling else "it said nothing"
        with suppress(ValueError, KeyError, TypeError):
            message = str(json.loads(message)["event"])  # this program's log
        super().__init__(_PATH.sub("...", message)[:300])
        self.said = said


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one program.  Every process that it starts and waits for is part of it."""

    seconds: float
    """Wall time, from fork to exit."""
    client_cpu: float
    server_cpu: float
    """Processor seconds of the server's backends."""
    server_background_cpu: float
    """Of its WAL writer, checkpointer and other processes."""
    service_cpu: float
    """Of the simulated service."""
    peak_rss_bytes: int
    """The sum of the high-water marks of its processes."""
    wal_bytes: int
    rows_written: int
    dead_tuples: int
    output: str
    """What it printed."""


def measure(
    command: list[str],
    environment: dict[str, str],
    *,
    server: Postgres,
    database: str,
    service: Simulator | None = None,
) -> Measured:
    """Run a command to its end; one without a ``service`` asks none.

    Raises RunFailed unless its exit code is 0.
    """
    written_before = server.written(database)
    server.wait_for_clients(database)
    service_before = processor_seconds(service.pid) if service else 0.0
    server_before = server.processor_seconds()
    wal_before = server.wal_position()
    with tempfile.TemporaryFile() as said:
        # A pipe would have to be read meanwhile, by a thread of ours beside the measured program.
        with tempfile.TemporaryFile() as printed:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=printed, stderr=said
            )
            peaks: dict[int, int] = {}
            watching = threading.Thread(
                target=_watch_memory, args=(process.pid, peaks), daemon=True
            )
            watching.start()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            watching.join()
            printed.seek(0)
            output = printed.read().decode()
        if process.returncode != 0:
            said.seek(max(said.seek(0, os.SEEK_END) - SAID_BYTES, 0))
            raise RunFailed(said.read().decode("utf-8", "replace"))
    wal = server.wal_position() - wal_before
    server.wait_for_clients(database)
    server_cpu = server.processor_seconds() - server_before
    written = server.written(database)
    return Measured(
        seconds=seconds,
        client_cpu=usage.ru_utime + usage.ru_stime,
        server_cpu=server_cpu.backends,
        server_background_cpu=server_cpu.whole - server_cpu.backends,
        service_cpu=processor_seconds(service.pid) - service_before if service else 0.0,
        peak_rss_bytes=sum(peaks.values()),
        wal_bytes=wal,
        rows_written=written.rows - written_before.rows,
        dead_tuples=max(written.dead - written_before.dead, 0),
        output=output,
    )


def _watch_memory(pid: int, peaks: dict[int, int]) -> None:
    """Note the high-water mark of a process and of its children, until it ends (Linux).

    ``ru_maxrss`` would not do: it begins with what the process that forked was using.
    """
    own = Path("/proc/self/cmdline").read_bytes()
    while True:
        waiting = [pid]
        while waiting:
            one = waiting.pop()
            try:
                mark = _high_water(one)
                # Before its exec a new process is a copy of the one that forked.
                if mark and Path(f"/proc/{one}/cmdline").read_bytes() != own:
                    peaks[one] = max(peaks.get(one, 0), mark)
                children = Path(f"/proc/{one}/task/{one}/children").read_text(encoding="ascii")
                waiting += map(int, children.split())
            except OSError:
                mark = 0
            if one == pid and not mark:
                return  # it has ended
        time.sleep(MEMORY_POLL_SECONDS)


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
