"""A Postgres server of a test's own, to be stopped, started and copied to a standby."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from etl.embedded.binaries import (
    ServerUser,
    choose_server_user,
    reachable_binaries,
    run_as,
)
from tests.support.environment import quick_folder

ANYBODY = "anybody"
"""A role that may do nothing; made by the tests that need one."""
PORT = 5432  # of the socket; no port is opened


@dataclass(frozen=True)
class OwnServer:
    """Its data and its socket are in ``folder``."""

    folder: Path
    binaries: Path
    user: ServerUser | None
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its programs get besides the usual."""

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        host = quote(str(self.folder), safe="")
        return f"postgresql://{user}@/{database}?host={host}&port={PORT}"

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    @contextmanager
    def standby(self) -> Iterator[OwnServer]:
        """A running hot standby of this server."""
        with _folder(self.user) as folder:
            copy = OwnServer(folder, self.binaries, self.user)
            source = f"host={self.folder} port={PORT} user=postgres"
            copy._run(
                *("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source)
            )
            copy.start()
            try:
                yield copy
            finally:
                copy.stop()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.binaries / program, "-D", self.folder / "data", *arguments],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **self.environment},
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server would keep it open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            **run_as(self.user),
        )
        assert done.returncode == 0, f"{program} {arguments}"


@contextmanager
def own_server(
    environment: Mapping[str, str] | None = None, within: Path | None = None
) -> Iterator[OwnServer]:
    """A new server that runs, in a folder of ``within``; all of it is gone afterwards."""
    user = choose_server_user()
    with (
        _folder(user, within) as folder,
        tempfile.TemporaryDirectory(prefix="kaltura-etl-test-", dir=quick_folder()) as aside,
    ):
        Path(aside).chmod(0o711)
        binaries, _ = reachable_binaries(Path(aside), user)
        server = OwnServer(folder, binaries, user, environment or {})
        auth = ("--auth-local=trust", "--auth-host=reject")
        server._run(
            *("initdb", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C", *auth)
        )
        server.start()
        try:
            yield server
        finally:
            # A test may have ended while it was stopped.
            subprocess.run(
                [binaries / "pg_ctl", "-D", folder / "data", "stop", "-m", "immediate"],
                cwd="/",
                capture_output=True,
                check=False,
                **run_as(user),
            )


@contextmanager
def _folder(user: ServerUser | None, within: Path | None = None) -> Iterator[Path]:
    place = within or quick_folder()
    with tempfile.TemporaryDirectory(prefix="kaltura-etl-test-", dir=place) as name:
        folder = Path(name)
        if user is not None:
            os.chown(folder, user.uid, user.gid)
        yield folder
