"""Writes the file atomically."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from etl.errors import UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``; a reader sees the file before or the file after.

    An existing file is replaced, and keeps its permissions; a new one gets those of the umask.  A
    device or a pipe is written to.  Raises UsageError if that cannot be.
    """
    try:
        _write(path, content)
    except (OSError, RuntimeError) as error:  # Python 3.11 raises RuntimeError for a loop of links
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        raise UsageError(
            f"The report cannot be written to {path}: {reason}. Name another file with --output."
        ) from error


def _write(path: Path, content: bytes) -> None:
    target = path.resolve()  # a link stays, and what it leads to is replaced
    mode = _mode_of(target)
    if mode is not None and not stat.S_ISREG(mode):
        target.write_bytes(content)  # replacing /dev/null by a file would be worse than half a page
        return
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".kaltura-report.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), _new_mode() if mode is None else stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _new_mode() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
