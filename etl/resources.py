"""What was installed with the program: its SQL files, its migrations, its version."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def sql_directory() -> Path:
    """Return the folder of the SQL files (``views/``, ``checks/``, ``queries/``, ``ops/``)."""
    return _directory("sql")


def migrations_directory() -> Path:
    """Return the folder of Alembic's ``env.py`` and ``versions/``."""
    return _directory("migrations")


def program_version() -> str:
    """The version of the installed distribution; ``0+unknown`` in a bare checkout."""
    # Imported here: importlib.metadata costs a tenth of what --help may take.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("kaltura-etl")
    except PackageNotFoundError:
        return "0+unknown"


def _directory(name: str) -> Path:
    # The wheel maps the top-level folders into the package (pyproject.toml).  What was installed
    # goes first: a folder that happens to be named sql beside an installed package is not ours.
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name
