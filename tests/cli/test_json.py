"""The fields of ``--json``, a public interface: what is documented, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

from etl.cli.group import COMMANDS
from etl.simulator import SimulatorServer, generate_account
from tests.support.calls import call_each
from tests.support.job import Job
from tests.support.json_reference import contradictions, documented, fields_of
from tests.support.roles import roles_of

WITHOUT = {"psql", "simulate"}
VARIANTS = {"--check", "--account", "--all"}
"""Options with which a command prints other fields, if they are documented."""
ELSEWHERE = {"demo"}
"""Checked where its result is tested already: it takes seconds."""


def test_what_the_commands_print_is_what_is_documented(
    database_url: str, clean_environment: dict[str, str], role: str, tmp_path: Path
) -> None:
    archive = str(tmp_path / "archive")
    with SimulatorServer(generate_account(60, seed=5)) as server:
        ids = tmp_path / "ids.txt"
        ids.write_text(f"{next(iter(server.account.line)).id}\n0_unknown\n")
        poisoned = list(server.account.line)[30].id
        server.configure(poison=[poisoned])
        calls = [
            ["init", "--output", str(tmp_path / "account.env")],
            ["migrate", "--repair"],
            ["check"],
            ["sync", "--dry-run"],
            ["sync", "--archive", archive],
            ["sync", "--mode", "incremental", "--archive", archive],
            ["backfill", "--ids", str(ids), "--archive", archive],
            ["backfill", "--from", "2025-01-01", "--to", "2025-12-31", "--archive", archive],
            ["status", "--max-age", "1h"],
            ["status", "--all"],
            ["verify", "--source", "5"],
            ["report", "--output", str(tmp_path / "report.html")],
            ["export", "--format", "csv", "--to", str(tmp_path / "export")],
            ["grant", "--analyst", role, "--accounts", "101"],
            ["erase", "--user-id", "somebody", "--archive", archive],
            ["erase", "--account", "--archive", archive],
            ["prune", "--pages-days", "0", "--rejected-days", "0", "--versions-days", "0"],
            ["replay", "--check", archive],
            ["replay", archive, "--into-schema", "recovered"],
            # Failures, with a result and without.
            ["replay", "--check", str(tmp_path / "nothing")],
            ["check", "--schema", "nothing_here"],
            ["status", "--partner-id", "7", "--max-age", "1h"],
            ["sync", "--all", "--schema", "nothing_here"],
            ["backfill"],
        ]
        accounts = tmp_path / "accounts.toml"
        accounts.write_text(
            "[accounts.acme]\npartner_id = 102\nadmin_secret = { env = 'KALTURA_ADMIN_SECRET' }\n"
        )
        # Rows that cannot be read are asked for once: what is printed is no other after retries.
        once = {"ETL_RETRY_ATTEMPTS": "1"}
        job = Job.of(server, database_url, ETL_ACCOUNTS=str(accounts), **once)
        with roles_of(database_url) as roles:
            roles.grant_all("analyst")
            published = "kaltura.upload_token, kaltura.upload_token_superseded, kaltura.sync_run"
            job.query(f"grant select on {published} to {roles.create()}")
            job.query("drop view kaltura.stuck_upload")
            ended = call_each(
                clean_environment | job.environment(), [[*call, "--json"] for call in calls]
            )
    seen: dict[str, set[str]] = {}
    wrong = []
    for call, each in zip(calls, ended, strict=True):
        result = json.loads(each.out)
        assert each.out.count("\n") == 1
        assert result["exit_code"] == each.code, each.err
        variant = " ".join((call[0], *(each for each in call if each in VARIANTS)))
        name = variant if variant in documented() else call[0]
        fields = fields_of(name, failed=each.code != 0)
        if each.code and "parts" not in result and "accounts" not in result:
            fields = fields_of("", failed=True)  # it ended before it had a result
        problems = contradictions(result, fields, seen.setdefault(name, set()))
        wrong += [f"{' '.join(call)}: {problem}" for problem in problems]

    assert wrong == []
    seen["sync"] |= seen.pop("backfill")
    # Only of several accounts: tests/report/test_command.py compares them.
    seen["report"] |= {path for path in documented()["report"] if path.startswith("pages[]")}
    never = {name: documented()[name].keys() - paths for name, paths in seen.items()}
    assert {name: fields for name, fields in never.items() if fields} == {}, "never printed"


def test_every_command_is_documented() -> None:
    headings = documented().keys()

    assert {name for name in COMMANDS if name not in WITHOUT} <= headings
    assert headings - set(COMMANDS) == {
        "Every command",
        "A command that failed",
        "erase --account",
        "replay --check",
        "sync --all",
        "backfill --all",
    }
