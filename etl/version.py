"""The program's version, as installed."""

from __future__ import annotations


def program_version() -> str:
    """The version of the installed distribution; ``0+unknown`` in a bare checkout."""
    # Imported here: importlib.metadata costs a tenth of what --help may take.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("kaltura-etl")
    except PackageNotFoundError:
        return "0+unknown"
