"""dbt for the tests that run it: in an environment of its own, since it is heavy.

``uv`` (a part of this project's environment) makes it from ``requirements-dbt.txt``, which is
locked with hashes, and keeps it beside the caches of the other tools.  Where there is no ``uv`` the
tests marked ``dbt`` are left out, and the summary says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import LEFT_OUT

NEEDS_UV = "uv, to install dbt"
LOCK = Path(__file__).with_name("requirements-dbt.txt")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "dbt: runs dbt, in an environment of its own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _uv() is not None:
        return
    left_out = [item for item in items if item.get_closest_marker("dbt")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT][NEEDS_UV] = len(left_out)


def _uv() -> str | None:
    beside = Path(sys.executable).parent
    return shutil.which("uv", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="session")
def dbt_python() -> Path:
    """The Python of dbt's environment, which is made when it is missing."""
    stamp = f"{LOCK.read_text(encoding='utf-8')}{sys.version_info[:2]}"
    folder = _cache() / f"dbt-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    with open(f"{folder}.lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            uv = str(_uv())
            _call(uv, "venv", "-q", "--clear", "--no-project", "--python", sys.executable, folder)
            _call(uv, *("pip", "sync", "-q", "--require-hashes", "--python", python), LOCK)
            (folder / "ready").touch()
    return python


def _cache() -> Path:
    """As ./dev does: all caches of the tools are in the environment."""
    beside = Path(sys.prefix) / "cache"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        return Path(os.environ["ETL_TEST_RUN_DIR"])


def _call(*command: str | Path) -> None:
    environment = {"UV_SYSTEM_CERTS": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if "PIP_INDEX_URL" in os.environ:
        environment["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]  # uv reads no pip settings
    done = subprocess.run(
        [str(part) for part in command],
        env=environment | os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"dbt could not be installed: {done.stderr}"
