"""What one call of a command asks for, as opposed to the settings that every call shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one ``sync`` or ``backfill``.  Limits that may also be settings live in
    ``Settings``."""

    mode: str = "full"
    """``full`` or ``incremental``; a backfill is told what to read in another way."""
    dry_run: bool = False
    """Do everything except publishing, and report the changes."""
    resume: bool = True
    """Take over what a failed run within ``Settings.resume_window`` has staged."""
    accept_absences: int | None = None
    """Publish up to this many absences although the brake says no; None: the brake decides."""
    full_every: timedelta | None = None
    """An incremental run becomes a full one if the last complete certificate is older."""
    wait_seconds: float = 0
    """How long to wait for another run to end."""
