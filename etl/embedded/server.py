"""The embedded Postgres: a real server in the user's data folder, when DATABASE_URL is not set.

It is durable (fsync and checksums on), listens on a Unix socket in a folder of mode 0700 and on
no port, and runs exactly as long as a process uses it::

    folder/                0700, ours (0711 as root, so that the server's user can pass)
      clients.lock         shared flock: one holder for each process that uses the server
      start.lock           exclusive flock: one process at a time checks and starts it
      reaper.lock          exclusive flock: the reaper runs (see ``reaper``)
      server.log
      socket-folder        where the socket is, if the path of the folder is too long for one
      binaries-18.6.3/     a copy, only if the server's user cannot reach the originals
      server/              0700, the server's user's
        data/              made by initdb
        .s.PGSQL.5432
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from etl.embedded.binaries import choose_server_user, find_binaries
from etl.embedded.cluster import START_SECONDS_MAX, Cluster, lock, open_private
from etl.errors import ConfigurationError, EtlError, WarehouseUnavailable

LOCK_SECONDS_MAX = 120
NOT_USABLE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
)
"""Errors of a folder that a retry does not fix."""


def default_data_dir() -> Path:
    """ETL_DATA_DIR, else ``kaltura-etl`` in the user's data folder; it may not exist.

    Root's is under /var/lib: the server does not run as root, and another user cannot pass
    through root's home.
    """
    if chosen := os.environ.get("ETL_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    if data_home := os.environ.get("XDG_DATA_HOME"):
        return Path(data_home).absolute() / "kaltura-etl"
    if os.geteuid() == 0:
        return Path("/var/lib/kaltura-etl")
    home = os.environ.get("HOME")
    if not home:
        with suppress(KeyError):
            home = pwd.getpwuid(os.geteuid()).pw_dir
    if not home:
        raise ConfigurationError(
            "There is no home folder to keep the embedded Postgres in. Set ETL_DATA_DIR to a "
            "folder for it, or DATABASE_URL to a Postgres that runs elsewhere."
        )
    return Path(home).absolute() / ".local" / "share" / "kaltura-etl"


@contextmanager
def embedded_server(data_dir: Path | None = None, *, fast: bool = False) -> Iterator[str]:
    """Yield the URL of the embedded server in ``data_dir``, starting it if it does not run.

    The server is stopped when the last process has left this context or has died.  ``fast``
    turns fsync off: for tests, whose data may be lost.  Raises ConfigurationError for a folder
    or binaries that cannot be used, WarehouseUnavailable for a server that does not start.
    """
    folder = default_data_dir() if data_dir is None else data_dir.absolute()
    with ExitStack() as held:
        try:
            cluster = _open_cluster(folder)
            clients = held.enter_context(open_private(folder / "clients.lock"))
            lock(clients, fcntl.LOCK_SH, LOCK_SECONDS_MAX, "for the server's shutdown to end")
            with open_private(folder / "start.lock") as starting:
                lock(starting, fcntl.LOCK_EX, START_SECONDS_MAX, "for another process's start")
                cluster.ensure_running(starting, fast=fast)
        except OSError as exc:
            raise _translate(exc, folder) from exc
        yield cluster.url


def _translate(exc: OSError, folder: Path) -> EtlError:
    place = exc.filename or folder
    if exc.errno in NOT_USABLE:
        return ConfigurationError(
            f"The embedded Postgres cannot use the folder {folder}: {exc.strerror} ({place}). "
            "Set ETL_DATA_DIR to a folder that you can write to, or DATABASE_URL to a Postgres "
            "that runs elsewhere."
        )
    return WarehouseUnavailable(
        f"The embedded Postgres in {folder} could not be prepared: {exc.strerror or exc} ({place})."
    )


def _open_cluster(folder: Path) -> Cluster:
    """Create ``folder`` if needed, check that only we can write to it, and return its cluster."""
    as_root = os.geteuid() == 0
    server = folder / "server"
    if not folder.is_dir():
        find_binaries()  # without them no folder is left behind
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was first
            folder.mkdir(mode=0o711 if as_root else 0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The folder {folder} belongs to the user number {found.st_uid}, not to you "
            f"({os.geteuid()}). Run as that user, or set ETL_DATA_DIR to a folder of your own."
        )
    if found.st_mode & 0o022:
        raise ConfigurationError(
            f"The folder {folder} can be written to by other users. Remove that permission "
            f"(chmod go-w), or set ETL_DATA_DIR to another folder."
        )
    if as_root and not found.st_mode & 0o001 and (server.is_dir() or not any(folder.iterdir())):
        # The folder is ours (an empty one, as mktemp makes); its parents are not.
        folder.chmod(stat.S_IMODE(found.st_mode) | 0o011)
    user = choose_server_user(server.stat().st_uid if server.is_dir() else None)
    return Cluster(folder, user)
