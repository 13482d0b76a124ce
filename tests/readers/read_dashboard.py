"""Reads a dashboard of Grafana with Grafana's own types.  Only the environment of these tests runs
this:

    read_dashboard.py FILE

Prints the paths of what these types do not know, or do not give back as it was, as a JSON array.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder  # type: ignore[import-not-found]
from grafana_foundation_sdk.cog.plugins import (  # type: ignore[import-not-found]
    register_default_plugins,
)
from grafana_foundation_sdk.models.dashboard import Dashboard  # type: ignore[import-not-found]


def lost(given: Any, known: Any, path: str = "") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            yield from lost(value, known.get(key), f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for number, pair in enumerate(zip(given, known, strict=True)):
            yield from lost(*pair, f"{path}[{number}]")
    elif given != known:
        yield path


def main(file: str) -> None:
    register_default_plugins()
    given = json.loads(Path(file).read_text(encoding="utf-8"))
    known = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    sys.stdout.write(f"{json.dumps(sorted(lost(given, known)))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
