"""Writes a file atomically."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_aside(target: Path, content: bytes, *, mode: int) -> Iterator[Path]:
    """A new file beside ``target`` with this content, safely on the disk.

    The block gives it the name of ``target``; otherwise nothing of it is left.  Nobody else can
    read it before it has its ``mode``.  Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        with suppress(OSError):
            os.unlink(name)


def try_place(path: Path) -> None:
    """Raise what ``replace_file`` would raise because of the place, and leave nothing there."""
    target = path.resolve()
    mode = _mode_of(target)
    if mode is None or stat.S_ISREG(mode):
        with written_aside(target, b"", mode=0o600):
            pass
    elif stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    elif not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Put ``content`` at ``path``; a reader sees the file before or the file after.

    An existing file is replaced.  Its permissions are ``mode``, else those of the file before, else
    those of the umask.  A device or a pipe is written to.  Raises OSError, or RuntimeError.
    """
    target = path.resolve()  # a link stays, and what it leads to is replaced
    before = _mode_of(target)
    if before is not None and not stat.S_ISREG(before):
        target.write_bytes(content)  # replacing /dev/null by a file would be worse than half a page
        return
    if mode is None:
        mode = _new_mode() if before is None else stat.S_IMODE(before)
    with written_aside(target, content, mode=mode) as aside:
        os.replace(aside, target)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _new_mode() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
