"""Memory and requests of a first load and of an unchanged night, at several sizes of the account.

    python -m benchmarks.campaigns.memory 100000 1000000

Prints one JSON object a night: the greatest resident size of the ``sync`` process in MiB, its
requests, and how far they are from N/500.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.embedded.server import embedded_server
from etl.simulator import DEFAULT_ADMIN_SECRET
from etl.warehouse.schema.revision import migrate

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def simulator(tokens: int) -> Iterator[str]:
    """The URL of a generated account in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", "simulate", "--tokens", str(tokens), "--seed", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate()


def night(environment: dict[str, str], folder: Path) -> dict[str, object]:
    """One ``sync``: what it says, and the greatest resident size of its process."""
    out, log = folder / "out", folder / "log"
    began = time.monotonic()
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "etl", "sync", "--json"],
            env=environment,
            stdout=stdout,
            stderr=stderr,
        )
        # wait4 tells of this child alone; RUSAGE_CHILDREN would tell of the largest so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(log.read_text())
    report = json.loads(out.read_text())
    return {
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        **{name: report[name] for name in ("requests", "inserted", "unchanged", "rejected")},
    }


def main(sizes: list[int]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="kaltura-etl-memory-"))
    folder.chmod(0o711)
    for tokens in sizes:
        with (
            embedded_server(folder / str(tokens), fast=True) as url,
            simulator(tokens) as service_url,
        ):
            migrate(url, "kaltura")
            environment = {
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": str(ROOT),
                "KALTURA_SERVICE_URL": service_url,
                "KALTURA_PARTNER_ID": "102",
                "KALTURA_ADMIN_SECRET": DEFAULT_ADMIN_SECRET,
                "DATABASE_URL": url,
            }
            for name in ("first load", "unchanged night"):
                measured = night(environment, folder)
                requests = measured["requests"]
                assert isinstance(requests, int)  # noqa: S101
                ratio = round(requests / (tokens / 500), 3)
                print(json.dumps({"tokens": tokens, "night": name, **measured, "ratio": ratio}))


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [100_000, 1_000_000])
