"""Environments of their own for tools that the tests and the program do not need.

Each is made from a lock file of its own, with ``--require-hashes``, in the cache of the checkout's
environment.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def tool_environment(name: str) -> Path:
    """The environment of ``requirements-NAME.txt``; made when it is first asked for."""
    return environment(Path(sys.prefix) / "cache" / name, ROOT / f"requirements-{name}.txt")


def environment(folder: Path, lock: Path) -> Path:
    """An environment with exactly what a lock file names; made again if that has changed."""
    stamp, wanted = folder / "stamp", lock.read_text(encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            _uv("venv", "-q", "--clear", "--no-project", "--python", sys.executable, folder)
            python = folder / "bin" / "python"
            _uv("pip", "sync", "-q", "--require-hashes", "--python", python, lock)
            stamp.write_text(wanted, encoding="utf-8")
    return folder


def _uv(*arguments: str | Path) -> None:
    """``uv`` with the settings that ``./dev`` gives it when it makes its own environment."""
    settings = {"UV_SYSTEM_CERTS": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if index := os.environ.get("PIP_INDEX_URL"):  # uv does not read pip's settings
        settings["UV_DEFAULT_INDEX"] = index
    subprocess.run(
        [Path(sys.prefix) / "bin" / "uv", *arguments], env=settings | os.environ, check=True
    )
