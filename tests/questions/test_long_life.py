"""Half a year of twelve times as many uploads, told as truly as the six weeks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

HERE = Path(__file__).parent


FILES: Final = ("test_views.py", "test_answers.py", "test_report.py")


@pytest.mark.campaign
@pytest.mark.timeout(7_200)
def test_half_a_year_is_told_as_truly_as_six_weeks() -> None:
    """Every view, every question and the morning page, by the same tests, in a process that lives
    the long life.  ``./dev test life`` is that process, without this one around it."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(  # what it prints is captured like what a test prints, up to a timeout
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=7000"),
            *[HERE / name for name in FILES],
        ],
        env=here | {"ETL_TEST_LIFE": "long"},
        check=False,
    )

    assert done.returncode == 0
