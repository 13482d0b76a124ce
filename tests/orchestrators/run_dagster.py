"""Materializes assets of ``examples/dagster``.  Only Dagster's own environment runs this:
``python run_dagster.py '["a01", "a02"]'``, partitions.

Prints one JSON object: for each partition what became of it, and what the check of freshness said.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg  # type: ignore[import-not-found]  # its own environment

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "dagster"))

from kaltura_etl_assets import (  # type: ignore[import-not-found]
    definitions,
    every_night,
    upload_token,
    upload_token_is_fresh,
)

QUICKLY = {"ops": {"kaltura__upload_token": {"config": {"retries": 2, "retry_seconds": 0.1}}}}


def main() -> None:
    told: dict[str, Any] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for account in json.loads(sys.argv[1]):
            done = dg.materialize(
                [upload_token],
                partition_key=account,
                run_config=QUICKLY,
                instance=instance,
                raise_on_error=False,
            )
            events = [event.event_type_value for event in done.all_events]
            made = done.asset_materializations_for_node("kaltura__upload_token")
            told[account] = {
                "success": done.success,
                "retries": events.count("STEP_RESTARTED"),
                "failed": [
                    str(event.step_failure_data.user_failure_data.description)
                    for event in done.all_events
                    if event.is_step_failure and event.step_failure_data.user_failure_data
                ],
                "metadata": {
                    name: value.value for each in made for name, value in each.metadata.items()
                },
                "label": f"dagster {done.run_id}",
            }
    checked = upload_token_is_fresh()
    told["check"] = {"passed": checked.passed, "hours": dict(checked.metadata)["hours"].value}
    definitions.resolve_all_job_defs()
    with dg.build_schedule_context() as context:
        told["nightly"] = [request.partition_key for request in every_night(context)]
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
