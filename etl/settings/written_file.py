"""Write a file for ``VARIABLE_FILE``: private from its first byte, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from etl.errors import ConfigurationError
from etl.settings.variable_file import read_variable_file


def write_variable_file(path: Path, values: Mapping[str, str], *, replace: bool) -> None:
    """Write ``NAME=VALUE`` lines to a new file of mode 0600; values are of one line.

    With ``replace`` it may take the place of another file.  Raises ConfigurationError if that is
    not allowed, and where the program would refuse to read the file.
    """
    text = "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        read_variable_file(Path(temporary))  # its folder may be one in which others can replace it
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a renamed file, it takes no other's place
    except FileExistsError:
        raise ConfigurationError(f"There is a file {path} already; it stays as it is.") from None
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be written: {exc.strerror or exc}. Name another file with --output."
        ) from exc
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _quoted(value: str) -> str:
    """The value as ``read_variable_file`` reads it back."""
    if value[:1] not in ("'", '"', "#") and value == value.strip() and not re.search(r"\s#", value):
        return value
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
