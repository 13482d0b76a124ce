"""Read a file that holds secrets, if no other user can read or replace it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

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
        # The checks below look at the opened file, so that it cannot be replaced in between;
        # O_NONBLOCK keeps a FIFO from blocking the open.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{named_by}: there is no file {path}; create it, or name another one."
        ) from None
    except (OSError, RuntimeError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "not a usable path"
        raise ConfigurationError(
            f"{named_by}: {path} cannot be read ({reason}); check its path and its owner."
        ) from None
    try:
        _refuse_if_others_can_touch_it(path, real, os.fstat(descriptor), named_by)
        with contextlib.suppress(OSError), open(descriptor, "rb", closefd=False) as file:
            body = file.read(SIZE_LIMIT_BYTES + 1)
            if len(body) <= SIZE_LIMIT_BYTES:
                return body
    finally:
        os.close(descriptor)
    raise ConfigurationError(
        f"{named_by}: {path} cannot be read or is larger than {SIZE_LIMIT_BYTES} bytes; "
        "is it the right file?"
    )


def _refuse_if_others_can_touch_it(
    path: Path, real: Path, status: os.stat_result, named_by: str
) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{named_by}: {path} is not a regular file; name a file.")
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
