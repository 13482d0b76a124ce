"""Half a year of twenty times as many uploads, told as truly as the six weeks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.campaign
@pytest.mark.timeout(1_800)
def test_half_a_year_is_told_as_truly_as_six_weeks() -> None:
    """Every view, every question and the morning page, by the same tests, in a process that lives
    the long life."""
    files = [HERE / name for name in ("test_views.py", "test_answers.py", "test_report.py")]
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=1700", *files],
        env=here | {"ETL_TEST_LIFE": "long"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
