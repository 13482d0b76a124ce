"""One data folder of the embedded Postgres: created, started, found again (see ``server``)."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from etl.embedded import reaper
from etl.embedded.binaries import INSTALL, ServerUser, has_wheel, reachable_binaries, run_as
from etl.errors import ConfigurationError, WarehouseUnavailable

PORT = 5432  # only a part of the socket's name: no port is opened
SOCKET_PATH_BYTES_MAX = 103  # the size of sun_path on macOS and the BSDs, less its closing NUL
START_SECONDS_MAX = 300  # recovery after a crash may have much to replay
RETRY_START_SECONDS_MAX = 15
LOG_BYTES_MAX = 1_000_000
PASSING_FAULTS = (
    # A killed postmaster stays a zombie for a second or two, and its children live on until they
    # notice: until then a new server refuses to start.
    "pre-existing shared memory block",
    'lock file "postmaster.pid" already exists',
)
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # Joins and sorts of all tokens: with the 4 MB that Postgres has by default they go to disk
    # from a million tokens on, and cost more than in proportion.  Few sessions use it, on one
    # machine.
    "work_mem": "32MB",
}


@contextmanager
def open_private(path: Path, flags: int = 0) -> Iterator[int]:
    """A file that only we can read, created if needed; its descriptor, for locks and for logs."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        # Closed, never unlocked: an unlock would also drop the lock of a process that inherited it.
        os.close(descriptor)


def try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int, kind: int, seconds_max: float, purpose: str) -> None:
    deadline = time.monotonic() + seconds_max
    while not try_lock(descriptor, kind):
        if time.monotonic() > deadline:
            raise WarehouseUnavailable(
                f"Waited {seconds_max:.0f} s {purpose}, which has not happened. Try again, or see "
                "server.log in the data folder."
            )
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One data folder and the user who runs its server (None: we do)."""

    folder: Path
    user: ServerUser | None

    @property
    def server(self) -> Path:
        return self.folder / "server"

    @property
    def data(self) -> Path:
        return self.server / "data"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket; outside the data folder if the path would be too long."""
        if _fits_a_socket(self.server):
            return self.server
        try:
            return Path((self.folder / "socket-folder").read_text("utf-8"))
        except FileNotFoundError:
            return self.server

    @property
    def url(self) -> str:
        # With the port, which PGPORT would set otherwise.
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://postgres@/postgres?host={host}&port={PORT}"

    def answers(self) -> bool:
        from psycopg import pq  # noqa: PLC0415 - 0.2 s, which --help must not pay

        # A server that is full, or that refuses us for another reason, answers too.
        conninfo = f"{self.url}&connect_timeout=10"
        return pq.PGconn.ping(conninfo.encode()) == pq.Ping.OK

    def ensure_running(self, starting: int, *, fast: bool) -> None:
        """Start the server unless it answers, and a reaper if it has none.

        The caller holds the clients' lock (shared) and ``starting``, the start lock.
        """
        retry_until = time.monotonic() + RETRY_START_SECONDS_MAX
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            with open_private(self.folder / "reaper.lock") as lock:
                has_reaper = not try_lock(lock, fcntl.LOCK_EX)
                if self.answers():
                    if not has_reaper:
                        self._adopt(lock)
                    return
                if not has_reaper:
                    fault = self._start(lock, starting, fast=fast)
                    if fault is None:
                        return
                    passing = any(each in fault for each in PASSING_FAULTS)
                    if not passing or time.monotonic() > retry_until:
                        raise WarehouseUnavailable(self._describe(fault))
            time.sleep(0.1)
        raise WarehouseUnavailable(
            f"The embedded Postgres in {self.folder} runs but has not answered for "
            f"{START_SECONDS_MAX} s. Its log is {self.log}."
        )

    def _describe(self, fault: str) -> str:
        if "No space left on device" in fault or "Disk quota exceeded" in fault:
            return (
                f"The embedded Postgres in {self.folder} needs more room: the disk is full. Free "
                "some, or set ETL_DATA_DIR to a folder on another disk."
            )
        telling = [
            line for line in fault.splitlines() if "FATAL" in line or "PANIC" in line
        ] or fault.strip().splitlines()[-3:]
        return (
            f"The embedded Postgres in {self.folder} did not start: "
            f"{' '.join(line.strip() for line in telling)[:500] or 'it logged nothing'} "
            f"(log: {self.log})"
        )

    def _start(self, lock: int, starting: int, *, fast: bool) -> str | None:
        """Start the server through a new reaper; return None, or the log of its failure."""
        self._make_server_folder()
        binaries, major = reachable_binaries(self.folder, self.user)
        if not self.data.is_dir():
            self._initialise(binaries, major, starting, fast=fast)
        self._check_version(binaries, major)
        self._remove_foreign_pid_file()
        settings = SETTINGS | {"unix_socket_directories": str(self._make_socket_folder())}
        durable = "off" if fast else "on"
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            settings[name] = durable
        command = [str(binaries / "postgres"), "-D", str(self.data), "-p", str(PORT)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        logged_before = self.log.stat().st_size if self.log.exists() else 0
        alive = self._spawn_reaper(lock, binaries, command)
        try:
            deadline = time.monotonic() + START_SECONDS_MAX
            while time.monotonic() < deadline:
                gone, _, _ = select.select([alive], [], [], 0.01)
                if gone:  # the reaper has closed the pipe: the server has ended
                    with self.log.open("rb") as log:
                        log.seek(logged_before)
                        return log.read().decode("utf-8", "replace") or "it logged nothing"
                if self.answers():
                    return None
        finally:
            os.close(alive)
        raise WarehouseUnavailable(
            f"The embedded Postgres in {self.folder} has been starting for {START_SECONDS_MAX} s "
            f"and is not ready: try again later. Its log is {self.log}."
        )

    def _adopt(self, lock: int) -> None:
        """Start a new reaper for a running server whose reaper was killed."""
        binaries, _ = reachable_binaries(self.folder, self.user)
        os.close(self._spawn_reaper(lock, binaries, None))

    def _spawn_reaper(self, lock: int, binaries: Path, command: list[str] | None) -> int:
        """Hand the reaper's lock to a detached reaper; return the pipe that closes when it ends.

        The reaper starts the server: if we did and were killed in between, nothing would stop it.
        """
        alive, alive_fd = os.pipe()
        socket_folder = self.socket_folder
        stop = [str(binaries / "pg_ctl"), "stop", "-D", str(self.data), "-m", "fast", "-w"]
        try:
            with (
                open_private(self.folder / "clients.lock") as clients,
                open_private(self.log, os.O_APPEND) as log,
            ):
                order: reaper.Order = {
                    "server": command,
                    "stop": stop,
                    "run_as": run_as(self.user),
                    "environment": _environment(),
                    "clients_fd": clients,
                    "reaper_fd": lock,
                    "alive_fd": alive_fd,
                    "remove": None if socket_folder == self.server else str(socket_folder),
                }
                # -I and -S: nothing of the client's environment, and no site-packages.
                script = [sys.executable, "-I", "-S", reaper.__file__, json.dumps(order)]
                subprocess.run(  # noqa: S603 - our own module
                    script,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(clients, lock, alive_fd),
                    start_new_session=True,  # no interrupt from the terminal
                    timeout=60,
                    check=True,
                )
        except (subprocess.SubprocessError, OSError) as exc:
            os.close(alive)
            raise WarehouseUnavailable(
                f"The process that supervises the embedded Postgres did not start: {exc}."
            ) from exc
        finally:
            os.close(alive_fd)
        return alive

    def _make_server_folder(self) -> None:
        if not self.server.is_dir():
            self._give(Path(tempfile.mkdtemp(prefix="new-", dir=self.folder))).rename(self.server)
        if self.user is None:
            return
        # As root: can the server's user reach the folder?
        passed = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", 'cd "$1" && test -w .', "sh", str(self.server)],
            cwd="/",
            capture_output=True,
            check=False,
            **run_as(self.user),
        )
        if passed.returncode != 0:
            raise ConfigurationError(
                f"The server runs as the user {self.user.name}, because Postgres refuses to run "
                f"as root, and that user cannot reach {self.server}. Set ETL_DATA_DIR to a folder "
                "whose parents it can pass through, such as one under /var/lib."
            )

    def _give(self, folder: Path) -> Path:
        """Change the owner of a new, empty, private folder to the server's user."""
        if self.user is not None:
            os.chown(folder, self.user.uid, self.user.gid, follow_symlinks=False)
        return folder

    def _make_socket_folder(self) -> Path:
        if _fits_a_socket(self.server):
            return self.server
        earlier = self.socket_folder
        owner = os.geteuid() if self.user is None else self.user.uid
        with suppress(FileNotFoundError):
            found = earlier.lstat()
            private = stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077 == 0
            if earlier != self.server and private and found.st_uid == owner:
                return earlier
        # A name that cannot be guessed, in a folder that only its owner may enter.
        made = self._give(Path(tempfile.mkdtemp(prefix="kaltura-etl-", dir="/tmp")))
        new = self.folder / "socket-folder.new"
        new.write_text(str(made), "utf-8")
        new.replace(self.folder / "socket-folder")
        return made

    def _initialise(self, binaries: Path, major: int, starting: int, *, fast: bool) -> None:
        for incomplete in self.server.glob("data-new-*"):
            shutil.rmtree(incomplete, ignore_errors=True)
        partial = self._give(Path(tempfile.mkdtemp(prefix="data-new-", dir=self.server)))
        # Only this user and root can enter the socket's folder, so the socket asks for no password.
        command = [str(binaries / "initdb"), "-D", str(partial), "-U", "postgres"]
        command += ["--data-checksums"]
        command += ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C"]
        if major >= 17:
            # Case mapping of all of Unicode, the same on every system.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if fast:
            command.append("--no-sync")
        done = subprocess.run(  # noqa: S603 - a program that find_binaries chose
            command,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            # It inherits the start lock: if we are killed, the next process waits until it ends.
            pass_fds=(starting,),
            **run_as(self.user),
        )
        if done.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise WarehouseUnavailable(self._describe(done.stderr or done.stdout))
        partial.rename(self.data)

    def _check_version(self, binaries: Path, major: int) -> None:
        try:
            written_by = (self.data / "PG_VERSION").read_text("ascii").strip()
        except FileNotFoundError as exc:
            raise ConfigurationError(
                f"The folder {self.data} holds no Postgres data. Move it away, or set ETL_DATA_DIR "
                "to another folder."
            ) from exc
        if written_by != str(major):
            own = (
                ""
                if has_wheel()
                else f"If that was the program's own, install it again: {INSTALL}. "
            )
            raise ConfigurationError(
                f"The data in {self.data} were written by PostgreSQL {written_by}, and the server "
                f"in {binaries} is PostgreSQL {major}. {own}Set PG_BIN to the bin folder of a "
                f"PostgreSQL {written_by}, or move the data with pg_dump, or set ETL_DATA_DIR to "
                "a new folder."
            )

    def _remove_foreign_pid_file(self) -> None:
        """Remove the pid file of a server that is gone, if another process has its pid now.

        Postgres does this itself unless that process runs as the server's user, as happens in
        containers, where pids are low and recur.
        """
        pid_file = self.data / "postmaster.pid"
        with suppress(OSError, ValueError, IndexError):
            pid = int(pid_file.read_text("utf-8").splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            # An empty command is a zombie, whose children may still write: wait for its end.
            if command and os.fsencode(self.data) not in command.split(b"\0"):
                pid_file.unlink()


def _fits_a_socket(folder: Path) -> bool:
    return len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX


def _environment() -> dict[str, str]:
    """The server's environment: none of the client's PG* variables, and no locale."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LC_ALL": "C", "TZ": "UTC"}
