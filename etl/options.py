"""What one call of a command asks for, as opposed to the settings that every call shares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one ``sync``.  Limits that may also be settings live in ``Settings``."""

    mode: str = "full"
    dry_run: bool = False
    """Do everything except publishing, and report the changes."""
    resume: bool = True
    """Take over what a failed run within ``Settings.resume_window`` has staged."""
    accept_absences: int | None = None
    """Publish up to this many absences although the brake says no; None: the brake decides."""
