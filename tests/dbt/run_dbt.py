"""Runs several dbt commands in one process, since each start takes seconds.  Only dbt's own
environment runs this: ``python run_dbt.py '[["parse"], ["test"]]'``.

Prints one JSON object: for each command whether it succeeded, its results by status, and what dbt
deprecates in the project.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from dbt.cli.main import dbtRunner  # type: ignore[import-not-found]  # its own environment


def main() -> None:
    told = []
    for command in json.loads(sys.argv[1]):
        events: list[str] = []
        runner = dbtRunner(callbacks=[lambda event, kept=events: kept.append(event.info.name)])
        done = runner.invoke(["--no-use-colors", "--quiet", *command])
        results = list(getattr(done.result, "results", None) or [])
        told.append(
            {
                "command": command,
                "success": done.success,
                "exception": None if done.exception is None else str(done.exception),
                "statuses": Counter(str(result.status) for result in results),
                "not_passed": {
                    result.node.unique_id: str(result.message)
                    for result in results
                    if str(result.status) not in ("pass", "success")
                },
                "deprecations": sorted({name for name in events if "Deprecat" in name}),
            }
        )
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
