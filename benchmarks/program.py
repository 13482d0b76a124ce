"""How a benchmark starts the program, and in which environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("KALTURA_", "ETL_", "PG", "PYTHON", "DATABASE_URL", "VARIABLE_FILE", "STOP_WATCH_")


def program() -> list[str]:
    """The console script of this environment, or the same program without one."""
    script = Path(sys.executable).with_name("kaltura-etl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "etl"]


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of the program, libpq or Python.

    They would change what is measured: with PYTHONDONTWRITEBYTECODE, every start compiles every
    module again.
    """
    return {k: v for k, v in os.environ.items() if not k.startswith(_OURS)} | more


def write_bytecode() -> None:
    """Compile what a sync imports: an installer may have left that to the first start."""
    command = [sys.executable, "-m", "compileall", "-q", "etl", "benchmarks"]
    subprocess.run(command, env=clean_environment(), cwd=ROOT, check=True)
