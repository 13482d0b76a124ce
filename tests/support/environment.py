"""The environment in which tests and campaigns run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHONPATH: Final = os.pathsep.join((str(ROOT / "tests" / "support" / "watched"), str(ROOT)))
"""Of the processes that tests start: their statements keep ``tests.support.portable`` too."""
SCRUBBED_PREFIXES: Final = ("KALTURA_", "ETL_", "PG")
SCRUBBED_NAMES: Final = ("DATABASE_URL", "VARIABLE_FILE", "XDG_DATA_HOME")
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
MEMORY_BYTES_MIN: Final = 4 << 30
"""What the servers of a whole test run may need, several times over."""


def quick_folder() -> str | None:
    """Where the folder of a server is to be made: in memory if there is much; None: on disk.

    A database has some 350 files, and on disk making and removing them is four fifths of the work
    of most tests.
    """
    try:
        found = os.statvfs(MEMORY)
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    # Where the server runs as another user its programs may be copied there.
    usable = os.access(MEMORY, os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return str(MEMORY) if usable and free > MEMORY_BYTES_MIN else None


def scrub_environment() -> None:
    """A developer's settings must not change a test, and a test must not reach what they name."""
    for name in list(os.environ):
        of_the_program = name.startswith(SCRUBBED_PREFIXES) or name in SCRUBBED_NAMES
        if of_the_program and not name.startswith("ETL_TEST_"):
            del os.environ[name]
