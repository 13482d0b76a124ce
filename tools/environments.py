"""Environments of their own for tools that the tests and the program do not need.

Each is made from a lock file of its own, with ``--require-hashes``, in the cache of the checkout's
environment.
"""

from __future__ import annotations

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
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        uv = Path(sys.prefix) / "bin" / "uv"
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--no-project", "--python", sys.executable, folder],
            check=True,
        )
        subprocess.run(
            [
                *(uv, "pip", "sync", "-q", "--require-hashes"),
                *("--python", folder / "bin" / "python", lock),
            ],
            check=True,
        )
        stamp.write_text(wanted, encoding="utf-8")
    return folder
