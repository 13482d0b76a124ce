"""Read a file that holds secrets, if no other user can read or replace it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from etl.errors import ConfigurationError

SIZE_LIMIT_BYTES = 64 * 1024


def read_private_file(path: Path, *, named_by: str) -> bytes:
    """The content of a file that no other user can read or replace.

    ``named_by``: the setting that names the file, for messages.  Raises ``ConfigurationError``.
    """
    try:
        real = path.resolve(strict=True)
        # Kubernetes mounts secrets as links that stay inside the mounted directory; a link that
        # leads elsewhere may have been planted.
        if not real.is_relative_to(path.parent.resolve()):
            raise ConfigurationError(
                f"{named_by}: {path} is a link that leads out of its directory; "
                "name the file itself."
            )
        # The checks below look at the opened file, so that it cannot be replaced in between.
        opened = open_regular_file(real, named_by=named_by, flags=os.O_NOFOLLOW)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{named_by}: there is no file {path}; create it, or name another one."
        ) from None
    except (OSError, RuntimeError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "not a usable path"
        raise ConfigurationError(
            f"{named_by}: {path} cannot be read ({reason}); check its path and its owner."
        ) from None
    with opened as file:
        _refuse_if_others_can_touch_it(path, real, os.fstat(file.fileno()), named_by)
        with contextlib.suppress(OSError):
            body = file.read(SIZE_LIMIT_BYTES + 1)
            if len(body) <= SIZE_LIMIT_BYTES:
                return body
    raise ConfigurationError(
        f"{named_by}: {path} cannot be read or is larger than {SIZE_LIMIT_BYTES} bytes; "
        "is it the right file?"
    )


def open_regular_file(path: Path, *, named_by: str, flags: int = 0) -> BinaryIO:
    """The file, to read from.  Raises OSError, and ``ConfigurationError`` if it is something else.

    A FIFO is not waited for, as a plain open would, until somebody writes to it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{named_by}: {path} is not a regular file; name a file.")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_if_others_can_touch_it(
    path: Path, real: Path, status: os.stat_result, named_by: str
) -> None:
    # The group may read: Kubernetes' fsGroup gives a container access to a secret that way.
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(
            f"{named_by}: other users can read or change {path} "
            f"(mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}"
        )
    us = os.geteuid()
    if us != 0 and status.st_uid not in (0, us):
        raise ConfigurationError(
            f"{named_by}: {path} belongs to another user; it must belong to you or to root."
        )
    folder = real.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise ConfigurationError(
            f"{named_by}: other users can replace files in {real.parent}; "
            f"run: chmod o-w {real.parent}"
        )
