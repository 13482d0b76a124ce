"""``erase`` and ``prune`` as commands: dry by default, one JSON object, clear refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.simulator import SimulatorServer, generate_account
from tests.cli.conftest import Run
from tests.support.job import Job

KEY = "0123456789abcdef0123456789abcdef"
USER = "=cmd|' /C calc'!A0 \x1b[31m é"


@pytest.fixture
def job(database_url: str) -> Iterator[Job]:
    account = generate_account(30, seed=5)
    account.insert({"id": "hers", "userId": USER, "fileName": "hers.mp4"})
    with SimulatorServer(account) as server:
        job = Job.of(server, database_url)
        job.run()
        yield job


def variables(job: Job, **more: str) -> dict[str, str]:
    return {
        "DATABASE_URL": job.database_url,
        "KALTURA_PARTNER_ID": str(job.partner_id),
        "ETL_ERASURE_KEY": KEY,
        **more,
    }


def test_erase_counts_and_then_does_it(run: Run, job: Job) -> None:
    dry = run("erase", "--user-id", USER, "--json", **variables(job))
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)
    assert (told["status"], told["applied"]) == ("dry run", False)
    (subject,) = told["subjects"]
    assert subject["tables"]["upload_token"] == {"rows": 1, "values": 2}
    assert "archives" in told["still_there"]
    assert job.query("select * from kaltura.erasure") == []

    done = run("erase", "--user-id", USER, "--apply", **variables(job))
    assert done.returncode == 0, done.stderr
    assert "erased" in done.stdout
    assert "docs/howto/erase.md" in done.stdout
    # Neither the person nor the key shows in what was printed or logged.
    for text in (dry.stdout, dry.stderr, done.stdout, done.stderr):
        assert "calc" not in text
        assert KEY not in text
    (row,) = job.query("select user_id from kaltura.upload_token where token_id = 'hers'")
    assert row["user_id"].startswith("erased:")

    late = job.call()
    assert late.code == 78
    assert late.report["error_kind"] == "configuration"
    assert "ETL_ERASURE_KEY is not set" in late.report["error_message"]
    assert job.call(ETL_ERASURE_KEY=KEY).report["changed"] == 0
    verified = run("verify", "--json", **variables(job))
    assert verified.returncode == 0, verified.stdout


def test_erase_without_the_setting(run: Run, job: Job, tmp_path: Path) -> None:
    known = variables(job, ETL_ERASURE_KEY="")
    dry = run("erase", "--user-id", USER, "--user-id", "nobody", "--json", **known)
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)
    assert [subject["subject_hash"] for subject in told["subjects"]] == [None, None]
    assert told["archive"] is None
    archive = {"ETL_ARCHIVE": str(tmp_path / "archive")}
    table = run("erase", "--user-id", USER, "--user-id", "nobody", **known, **archive)
    assert f"Archive {tmp_path}/archive: 0 files" in table.stdout
    assert "user 1" in table.stdout
    assert "user 2" in table.stdout

    done = run("erase", "--user-id", USER, "--apply", "--json", **known)
    assert done.returncode == 0, done.stderr
    assert "the table erasure_key" in done.stderr
    (kept,) = job.query("select key from kaltura.erasure_key")
    assert kept["key"] not in done.stdout + done.stderr
    assert job.call().report["changed"] == 0


def test_erase_an_account(run: Run, job: Job, tmp_path: Path) -> None:
    job.query(
        "insert into kaltura.pruning (partner_id, kind, horizon, deleted, program_version) "
        "values (7, 'pages', now(), 0, '0')"
    )
    dry = run("erase", "--account", "--json", **variables(job))
    assert dry.returncode == 0, dry.stderr
    told = json.loads(dry.stdout)
    assert (told["status"], told["run_id"], told["archive"]) == ("dry run", None, None)
    assert told["tables"]["upload_token"] == 31
    assert "No archive was named" in told["still_there"]
    assert len(job.current()) == 31

    # Of another account than the environment's.
    done = run("erase", "--account", "7", "--apply", "--json", **variables(job))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tables"]["pruning"] == 1
    assert len(job.current()) == 31

    archive = {"ETL_ARCHIVE": str(tmp_path / "archive")}
    done = run("erase", "--account", "--apply", **variables(job), **archive)
    assert done.returncode == 0, done.stderr
    assert "table upload_token" in done.stdout
    assert "archive" in done.stdout
    assert "No archive was named" not in done.stdout
    assert job.current() == {}
    verified = run("verify", "--json", **variables(job))
    assert verified.returncode == 0, verified.stdout
    again = run("erase", "--account", "--apply", **variables(job))
    assert (again.returncode, "nothing is stored of account" in again.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "more", "code", "said"),
    [
        ([], {}, 2, "Give --user-id, --token-id, --again or --account"),
        (["--account", "--user-id", "x"], {}, 2, "give no --user-id"),
        (["--account", "7", "--partner-id", "102"], {}, 2, "name two accounts"),
        (["--account", "seven"], {}, 2, "must be a whole number"),
        (["--account"], {"KALTURA_PARTNER_ID": ""}, 78, "KALTURA_PARTNER_ID"),
        (["--user-id", ""], {}, 2, "must not be empty"),
        (["--user-id", b"a\xff"], {}, 2, "not valid UTF-8"),
        (["--user-id", "x"], {"ETL_ERASURE_KEY": "short"}, 78, "at least 32 characters"),
        (["--user-id", "x"], {"KALTURA_PARTNER_ID": ""}, 78, "KALTURA_PARTNER_ID"),
        (["--token-id", "x", "--partner-id", "0"], {}, 2, "--partner-id"),
    ],
)
def test_erase_refuses(
    run: Run, arguments: list[str], more: dict[str, str], code: int, said: str
) -> None:
    known = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "KALTURA_PARTNER_ID": "102",
        "ETL_ERASURE_KEY": KEY,
    }
    ended = run("erase", *arguments, **(known | more))
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "short" not in ended.stderr or more.get("ETL_ERASURE_KEY") != "short"


def test_prune_counts_and_then_does_it(run: Run, job: Job) -> None:
    pages = job.query("select * from kaltura.sync_page")
    arguments = ["--pages-days", "0", "--rejected-days", "0", "--versions-days", "0"]
    dry = run("prune", *arguments, "--json", **variables(job))
    assert dry.returncode == 0, dry.stderr
    told = {each["kind"]: each["rows"] for each in json.loads(dry.stdout)["pruned"]}
    assert told == {"pages": len(pages), "rejected": 0, "versions": 0}
    assert job.query("select * from kaltura.sync_page") == pages

    done = run("prune", *arguments, "--apply", **variables(job))
    assert done.returncode == 0, done.stderr
    assert job.query("select * from kaltura.sync_page") == []
    assert run("verify", **variables(job)).returncode == 0


def test_prune_by_default_leaves_versions_alone(run: Run, job: Job) -> None:
    ended = run("prune", "--json", **variables(job))
    kinds = [each["kind"] for each in json.loads(ended.stdout)["pruned"]]
    assert kinds == ["pages", "rejected"]
    assert run("prune", "--versions-days", "-1", **variables(job)).returncode == 2
