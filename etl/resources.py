"""Where the SQL files and the migrations are: beside the package, or inside an installed one."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def sql_directory() -> Path:
    """Return the folder of the SQL files (``views/``, ``checks/``, ``queries/``, ``ops/``)."""
    return _directory("sql")


def migrations_directory() -> Path:
    """Return the folder of Alembic's ``env.py`` and ``versions/``."""
    return _directory("migrations")


def _directory(name: str) -> Path:
    # The wheel maps the top-level folders into the package (pyproject.toml).  What was installed
    # goes first: a folder that happens to be named sql beside an installed package is not ours.
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name
