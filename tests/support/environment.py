"""The environment in which tests and campaigns run."""

from __future__ import annotations

import os
from typing import Final

SCRUBBED_PREFIXES: Final = ("KALTURA_", "ETL_", "PG")
SCRUBBED_NAMES: Final = ("DATABASE_URL", "VARIABLE_FILE", "XDG_DATA_HOME")


def scrub_environment() -> None:
    """A developer's settings must not change a test, and a test must not reach what they name."""
    for name in list(os.environ):
        of_the_program = name.startswith(SCRUBBED_PREFIXES) or name in SCRUBBED_NAMES
        if of_the_program and not name.startswith("ETL_TEST_"):
            del os.environ[name]
