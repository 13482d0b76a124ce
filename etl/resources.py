"""What was installed with the program: SQL files, migrations, documents; and its version."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def sql_directory() -> Path:
    """Return the folder of the SQL files (``views/``, ``checks/``, ``queries/``, ``ops/``)."""
    return _directory("sql")


def migrations_directory() -> Path:
    """Return the folder of Alembic's ``env.py`` and ``versions/``."""
    return _directory("migrations")


def document(name: str) -> Path:
    """Return the path of a document, such as ``howto/erase.md``: for messages that refer to it."""
    return _directory("docs") / name


def as_named(path: Path) -> str:
    """A path for messages: short for a reader who is in the checkout, else absolute."""
    try:
        at_home = in_checkout() and Path.cwd() == _PACKAGE.parent
    except OSError:  # the working directory is gone
        at_home = False
    return str(path.relative_to(_PACKAGE.parent) if at_home else path)


def in_checkout() -> bool:
    """Whether the program is not installed but runs from a checkout, which has ``./dev``."""
    return (_PACKAGE.parent / "dev").is_file()


def program_call() -> str:
    """How a reader calls the program, for messages: a command follows it."""
    return "./dev run" if in_checkout() else "kaltura-etl"


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
