"""Where an archive is kept, or an export.  A store maps names to bytes; a name is a path with
slashes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from etl.errors import ArchiveUnavailable, ConfigurationError, CredentialsRefused, EtlError
from etl.settings.values import archive_address

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""An archive contains personal data: only its owner may read it."""


class Store(Protocol):
    """Raises ArchiveUnavailable; where another try cannot help, ConfigurationError or
    CredentialsRefused."""

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

    def delete(self, folder: str, *, but: Collection[str] = ()) -> int:
        """Delete a folder with all that is in it, leftovers of killed writers too.

        ``but``: files (their last part) that stay.  Returns how many it deleted; 0 if there is no
        such folder.
        """
        ...

    def failure(self, what: str, error: Exception) -> EtlError:
        """The error of ours for one of the system or of a library; ``what``: ``read``,
        ``written`` or ``deleted``."""
        ...


def open_store(address: str, *, what: str = "archive", private: bool = True) -> Store:
    """The store at a folder (also ``file:///…``), or at ``s3://``, ``gs://``, ``az://``.  Looks at
    the address only.

    ``what``: its name in messages, ``archive`` or ``export``.  ``private``: whether files in a
    folder are for their owner only; else as the umask says.  Raises ConfigurationError.
    """
    try:
        address = archive_address(address)
    except ValueError as error:
        raise ConfigurationError(f"The {what}'s address {error}.") from None
    scheme, separator, _ = address.partition("://")
    if not separator:
        return LocalStore(Path(address).expanduser(), what=what, private=private)
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(address).path)), what=what, private=private)
    from etl.archive.object_store import open_object_store  # noqa: PLC0415 - 16 ms, an extra

    return open_object_store(address, what=what)


class LocalStore:
    """A folder of this machine."""

    def __init__(self, root: Path, *, what: str = "archive", private: bool = True) -> None:
        self._root = root.absolute()
        self._what = what
        self._file_mode, self._folder_mode = (FILE_MODE, FOLDER_MODE) if private else (0o666, 0o777)

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
            raise self.failure("read", error) from error

    def write(self, name: str, body: bytes) -> None:
        path = self._root / name
        # Listings skip names with a leading dot, so what a killed run leaves is never read.  Runs
        # of several accounts, in threads of one process, may write the mark at the same time.
        writer = f"{os.getpid()}-{threading.get_ident()}"
        temporary = path.with_name(f".{path.name}.{writer}.new")
        try:
            self._make(path.parent)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, self._file_mode), "wb") as file:
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
            raise self.failure("written", error) from error

    def tidy(self, folder: str) -> None:
        try:
            for left_over in (self._root / folder).glob(".*.new"):
                left_over.unlink()
        except OSError as error:
            raise self.failure("tidied", error) from error

    def delete(self, folder: str, *, but: Collection[str] = ()) -> int:
        path = self._root / folder
        try:
            if not path.is_dir():
                return 0
            files = [Path(at) / name for at, _, names in os.walk(path) for name in names]
            doomed = [file for file in files if file.name not in but]
            if len(doomed) == len(files):
                shutil.rmtree(path)
                path = path.parent
            else:
                for file in doomed:
                    file.unlink()
            _sync_folder(path)
            return len(doomed)
        except OSError as error:
            raise self.failure("deleted", error) from error

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
            raise self.failure("read", error) from error

    def _make(self, folder: Path) -> None:
        """Make a folder and its parents, durably."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(self._folder_mode, exist_ok=True)
        _sync_folder(folder.parent)

    def failure(self, what: str, error: Exception) -> EtlError:
        number = getattr(error, "errno", None)
        kind, said = _MEANINGS.get(number or 0, _UNKNOWN)
        if number in _NOT_A_FOLDER:
            said = self._in_the_way() or said
        return kind(
            f"The {self._what} {self.address} cannot be {what}: {said}.",
            archive=self.address,
            errno=number,
        )

    def _in_the_way(self) -> str | None:
        """What stands where the archive's folder or one of its parents should be."""
        for path in (self._root, *self._root.parents):
            if path.is_dir():
                return None
            if path.is_symlink():
                return f"{path} is a link that leads to no folder. Correct it, or name a folder"
            if path.exists():
                return f"{path} is a file, not a folder. Name a folder"
        return None


_NOT_A_FOLDER: Final = frozenset({errno.ENOTDIR, errno.EEXIST})
_UNKNOWN: Final = (
    ArchiveUnavailable,
    "the system reports an error of the disk or the network. Look at it, then try again",
)
_MEANINGS: Final[Mapping[int, tuple[type[EtlError], str]]] = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        (
            ArchiveUnavailable,
            "the disk, a quota or a limit is full. Free some space, then try again",
        ),
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        (ArchiveUnavailable, "the system has too many open files, or no memory. Try again later"),
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        (
            CredentialsRefused,
            "this user may not. Correct the owner or the permissions of the folder",
        ),
    ),
    **dict.fromkeys(
        (*_NOT_A_FOLDER, errno.EISDIR),
        (
            ConfigurationError,
            "where it needs a folder there is a file, or the other way round. Name a folder of its "
            "own",
        ),
    ),
    errno.EROFS: (
        ConfigurationError,
        "its file system is read-only. Mount it for writing, or name another folder",
    ),
    errno.ENOENT: (
        ConfigurationError,
        "its folder, or one above it, has just been deleted. Create it, or name another",
    ),
    errno.ELOOP: (ConfigurationError, "links on the way to it form a circle. Name another folder"),
    errno.ENAMETOOLONG: (ConfigurationError, "its name is too long. Name another folder"),
    errno.EINVAL: (ConfigurationError, "that is not a possible name there. Name another folder"),
}
"""What the system's errors mean for an archive: errno, kind, the end of the sentence."""


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk: a rename alone does not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
