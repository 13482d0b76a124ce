"""Writes the page to its file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.errors import UsageError
from etl.process.whole_file import replace_file, try_place


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``; a reader sees the file before or the file after.

    An existing file is replaced, and keeps its permissions; a new one gets those of the umask.  A
    device or a pipe is written to.  Raises UsageError if that cannot be.
    """
    with _told(path):
        replace_file(path, content)


def require_place(path: Path) -> None:
    """Raise UsageError if nothing can be written at ``path``, before anything is read for it."""
    with _told(path):
        try_place(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # Python 3.11 raises RuntimeError for a loop of links
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        raise UsageError(
            f"The report cannot be written to {path}: {reason}. Name another file with --output."
        ) from error
