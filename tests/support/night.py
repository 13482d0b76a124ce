"""Accounts, a warehouse, and what the worker of an orchestrator needs to run the program."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from tests.support.environment import PYTHONPATH
from tests.support.tenants import Tenants


class Night:
    """``folder`` gets the program and its settings."""

    def __init__(self, many: Tenants, folder: Path) -> None:
        self.many, self.folder = many, folder
        self.program = folder / "kaltura-etl"
        start = f'PYTHONPATH={PYTHONPATH} exec {sys.executable} -m etl "$@"'
        self.program.write_text(f"#!/bin/sh\n{start}\n")
        self.program.chmod(0o755)
        self.settings = folder / "settings.env"

    def write_settings(self, **changed: str) -> None:
        values = self.many.environment(
            # With one request in flight, one that is held holds the run.
            ETL_CONCURRENCY="1",
            ETL_PAGE_SIZE="50",
            ETL_REQUEST_TIMEOUT_SECONDS="600",
            **changed,
        )
        del values["ETL_ACCOUNTS"]
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        self.settings.chmod(0o600)

    def environment(self) -> dict[str, str]:
        return {
            "SYNC_PROGRAM": str(self.program),
            "VARIABLE_FILE": str(self.settings),
            "ETL_ACCOUNTS": str(self.many.file),
        }

    def runs(self, account: str) -> list[dict[str, Any]]:
        return self.many.query(
            "select * from kaltura.sync_run "  # noqa: S608 - a number
            f"where partner_id = {self.many.partner(account)} order by run_id"
        )

    def running(self, account: str) -> dict[str, Any] | None:
        """The run that is at work, once it has saved pages."""
        found = [run for run in self.runs(account) if run["status"] == "running" and run["pages"]]
        return found[0] if found else None

    def hold(self, account: str, lists: int) -> threading.Event:
        """After so many lists of the account from now on, one waits for the event."""
        partner, released = self.many.partner(account), threading.Event()
        self.many.held[partner] = self.many.lists[partner] + lists, released
        return released
