"""The program as a process, as the tests of the command line have it."""

from __future__ import annotations

from tests.cli.conftest import clean_environment, run

__all__ = ["clean_environment", "run"]
