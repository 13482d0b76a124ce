"""Libraries that only some exports need."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from etl.errors import ConfigurationError

_LIBRARIES: Final = {"csv": (), "parquet": ("pyarrow",), "delta": ("deltalake", "pyarrow")}
_EXTRAS: Final = {"parquet": "parquet", "delta": "lake"}


def require_libraries(file_format: str) -> None:
    """Raise ConfigurationError, which says how to install them, unless they are there.

    ``file_format``: ``csv``, ``parquet`` or ``delta``.
    """
    missing = [name for name in _LIBRARIES[file_format] if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"An export as {file_format} needs {' and '.join(missing)}, not installed here: "
            f"pip install 'kaltura-etl[{_EXTRAS[file_format]}]'.",
            reason="missing_extra",
        )
