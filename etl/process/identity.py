"""Which process this is, so that another one on the same machine can tell later that it has ended.

A process id alone is given again, and means nothing in another container.  So a process is named by
the start of its kernel, its pid namespace, its id and the time of its own start.  Linux only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_START_TIME: Final = 22
"""Number of the field in /proc/PID/stat, see proc(5)."""
_STATE: Final = 3


def process_identity() -> str | None:
    """The name of this process; None where the system does not tell."""
    here, fields = _machine(), _stat(os.getpid())
    if here is None or not fields:
        return None
    return f"{here} {os.getpid()} {fields[_START_TIME]}"


def has_certainly_ended(identity: str | None) -> bool:
    """Whether that process was one of this machine and namespace, and is no more.

    False whenever that cannot be told: of another machine, another container, or an earlier start
    of this machine.
    """
    here, words = _machine(), (identity or "").split(" ")
    if here is None or len(words) != 4 or " ".join(words[:2]) != here or not words[2].isdecimal():
        return False
    pid = int(words[2])
    fields = _stat(pid)
    if fields:
        return fields[_START_TIME] != words[3] or fields[_STATE] in "ZX"
    try:
        os.kill(pid, 0)  # /proc may hide other users' processes
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _machine() -> str | None:
    try:
        started = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{started} {os.stat(_PROC / 'self/ns/pid').st_ino}"
    except (OSError, ValueError):
        return None


def _stat(pid: int) -> dict[int, str]:
    """The fields of /proc/PID/stat from the third on, by number; empty if there is no such file."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return {}
    # The second field is the program's name in parentheses, which may contain anything.
    return dict(enumerate(text.rpartition(")")[2].split(), start=_STATE))
