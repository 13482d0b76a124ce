"""Where an archive is kept.  A store maps names to bytes; a name is a path with slashes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from etl.errors import ArchiveUnavailable, ConfigurationError

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""An archive contains personal data: only its owner may read it."""
OBJECT_SCHEMES: Final = ("s3", "gs", "az")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Store(Protocol):
    """Raises ArchiveUnavailable, or ConfigurationError where another try cannot help."""

    @property
    def address(self) -> str:
        """Its name in messages; contains no secret."""
        ...

    def folders(self, under: str) -> list[str]:
        """Names (their last part) of the folders in a folder, sorted; empty if there is none."""
        ...

    def files(self, folder: str) -> list[str]:
        """Names (their last part) of the files in a folder, sorted; empty if there is none."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes, or None if there is no such name."""
        ...

    def write(self, name: str, body: bytes) -> None:
        """Write atomically, durable when this returns; replaces what was there."""
        ...

    def tidy(self, folder: str) -> None:
        """Delete what killed writers have left in a folder.  Only while no run writes there."""
        ...

    def delete(self, folder: str) -> int:
        """Delete a folder with all that is in it, leftovers of killed writers too.

        Returns how many files it deleted; 0 if there is no such folder.
        """
        ...


def open_store(address: str) -> Store:
    """The store of ``ETL_ARCHIVE``: a folder (also ``file:///…``), or ``s3://``, ``gs://``,
    ``az://``.  Looks at the address only.

    Raises ConfigurationError.
    """
    found = _SCHEME.match(address)
    if found is None:
        return LocalStore(Path(address).expanduser())
    scheme = found.group(1).lower()
    if scheme == "file":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigurationError("An archive's file address must look like file:///folder.")
        return LocalStore(Path(unquote(parts.path)))
    if scheme not in OBJECT_SCHEMES:
        raise ConfigurationError(
            f"An archive cannot be kept at {scheme}://: give a folder, or an address that begins "
            "with s3://, gs:// or az://."
        )
    from etl.archive.object_store import open_object_store  # noqa: PLC0415 - 16 ms, an extra

    return open_object_store(address)


class LocalStore:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def address(self) -> str:
        return str(self._root)

    def folders(self, under: str) -> list[str]:
        return self._names(under, folders=True)

    def files(self, folder: str) -> list[str]:
        return self._names(folder, folders=False)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failure("read", error) from error

    def write(self, name: str, body: bytes) -> None:
        path = self._root / name
        # Listings skip names with a leading dot, so what a killed run leaves is never read.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            self._make(path.parent)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)
        except OSError as error:
            raise self._failure("written", error) from error

    def tidy(self, folder: str) -> None:
        try:
            for left_over in (self._root / folder).glob(".*.new"):
                left_over.unlink()
        except OSError as error:
            raise self._failure("tidied", error) from error

    def delete(self, folder: str) -> int:
        path = self._root / folder
        try:
            if not path.is_dir():
                return 0
            files = sum(len(names) for _, _, names in os.walk(path))
            shutil.rmtree(path)
            _sync_folder(path.parent)
            return files
        except OSError as error:
            raise self._failure("deleted", error) from error

    def _names(self, under: str, *, folders: bool) -> list[str]:
        try:
            with os.scandir(self._root / under) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir() == folders
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failure("read", error) from error

    def _make(self, folder: Path) -> None:
        """Make a folder and its parents, durably."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        _sync_folder(folder.parent)

    def _failure(self, what: str, error: OSError) -> ArchiveUnavailable:
        return ArchiveUnavailable(
            f"The archive {self.address} cannot be {what}: {error.strerror or 'it failed'}. "
            "Free some space or correct the folder's permissions, then try again.",
            archive=self.address,
            errno=error.errno,
        )


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk: a rename alone does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
