"""Exports by a process of the other environment, and what others read in them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.environment import PYTHONPATH
from tests.support.job import Ended, ended

KILLED_BEFORE_COMMIT = """
import os, signal
from etl.export import delta
delta.Lake.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
"""
"""All files of an account are written, and no commit names them."""
WAITS_BEFORE_COMMIT = """
import time
from pathlib import Path
from etl.export import delta
replace = delta.Lake.replace
def wait(*arguments):
    Path({folder!r}, "written").touch()
    while not Path({folder!r}, "go").exists():
        time.sleep(0.01)
    return replace(*arguments)
delta.Lake.replace = wait
"""
"""The same, but it is committed when there is a file ``go``."""


@dataclass
class Lake:
    """The Delta tables of a warehouse, in a folder."""

    python: Path
    database_url: str
    folder: Path

    def start(self, *arguments: str, before: str = "") -> subprocess.Popen[str]:
        """A command of the program, with ETL_LAKE; ``before`` is code that it runs first."""
        program = f"{before}\nfrom etl.cli import main\nmain()"
        return subprocess.Popen(
            [self.python, "-c", program, *arguments],
            env={
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": PYTHONPATH,
                "DATABASE_URL": self.database_url,
                "ETL_LAKE": str(self.folder),
                "KALTURA_PARTNER_ID": "",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, before: str = "") -> Ended:
        return ended(self.start(*arguments, before=before))

    def export(self, *arguments: str, before: str = "") -> Ended:
        """``export --format delta``."""
        return self.call("export", "--format", "delta", "--json", *arguments, before=before)

    def exported(self, *arguments: str) -> dict[str, Any]:
        done = self.export(*arguments)
        assert done.code == 0, done.err
        return done.report

    def differing(self, file_format: str = "delta", folder: Path | None = None) -> dict[str, int]:
        """By view: rows that only the warehouse has, or only the files."""
        told = self._read("compare", file_format, self.database_url, str(folder or self.folder))
        assert all(each["rows"] for view, each in told.items() if view not in MAY_BE_EMPTY), told
        return {
            view: each["only_in_files"] + each["only_in_warehouse"] for view, each in told.items()
        }

    def mentions(self, text: str) -> list[str]:
        """Files in which a text is."""
        found: list[str] = self._read("mentions", str(self.folder), text)["found"]
        return found

    def versions(self) -> dict[str, dict[str, Any]]:
        """By table: the rows of each of its versions, and the runs of their commits."""
        return self._read("versions", str(self.folder))

    def _read(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [self.python, Path(__file__).with_name("read_back.py"), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


MAY_BE_EMPTY = ("pruning", "upload_token_horizon", "unobserved_token")
HISTORY, CERTIFICATES = "upload_token_history", "sync_run"
SAME = {HISTORY: 0, CERTIFICATES: 0}
