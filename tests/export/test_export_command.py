"""``kaltura-etl export`` as it is called: what it prints, and how it fails."""

from __future__ import annotations

from pathlib import Path

from tests.support import forked
from tests.support.calls import call_each
from tests.support.export_sample import Sample

WITHOUT_LIBRARIES = """
import sys
for name in ("pyarrow", "deltalake"):
    sys.modules[name] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ("pyarrow", "deltalake") else found(name)
"""


def environment(sample: Sample, **variables: str) -> dict[str, str]:
    return forked.environment(DATABASE_URL=sample.job.database_url, **variables)


def test_calls_and_mistakes(sample: Sample, tmp_path: Path) -> None:
    to = ["--to", str(tmp_path / "x")]
    csv = ["export", "--format", "csv"]
    nobody = ["--partner-id", "7"]
    calls: dict[tuple[int, str], list[str]] = {
        (2, "Missing option '--format'"): ["export", *to],
        (2, "needs --to, a folder or a URL"): csv,
        (2, "there is no upload_tokens; there are pruning, "): [
            *csv,
            *to,
            "--view",
            "upload_tokens",
        ],
        (2, "cannot be combined with"): [*csv, *to, "--since-run", "1", "--to-day", "2026-01-01"],
        (2, "--from-day is after"): [
            *(*csv, *to, "--from-day", "2026-01-02", "--to-day", "2026-01-01")
        ],
        (2, "do not say which the run"): [
            *(*csv, *to, "--view", "stuck_upload", "--since-run", "2", "--partner-id", "102")
        ],
        (2, "choose one with --partner-id"): [*csv, *to, "--since-run", "1"],
        (2, "99 is no published run of account 102"): [
            *(*csv, *to, "--since-run", "99", "--partner-id", "102")
        ],
        (2, "no time zone named Middle/Earth"): [*csv, *to, "--time-zone", "Middle/Earth"],
        (2, "Nothing of account 7 has been published yet"): [*csv, *to, *nobody],
        (78, "where no files can be kept"): [*csv, "--to", "ftp://x/y"],
        (78, "pip install 'kaltura-etl[parquet]'"): ["export", "--format", "parquet", *to],
        (78, "pip install 'kaltura-etl[lake]'"): ["export", "--format", "delta", *to],
        (2, "always has the whole history"): [
            *("export", "--format", "delta", *to, "--view", "stuck_upload")
        ],
    }
    good = [*csv, "--to", str(tmp_path / "y"), "--view", "sync_night"]
    *ended, first, again, table = call_each(
        environment(sample),
        [*calls.values(), [*good, "--json"], [*good, "--json"], good],
        before=WITHOUT_LIBRARIES,
    )

    for (code, said), each in zip(calls, ended, strict=True):
        assert (each.code, said in each.err) == (code, True), each.err
    assert not (tmp_path / "x").exists()
    told = first.report
    assert (told["status"], told["written"], told["format"]) == ("succeeded", True, "csv")
    assert (told["to"], told["run_id"]) == (str(tmp_path / "y"), None)
    assert [view["view"] for view in told["views"]] == ["sync_night"]
    assert (again.report["written"], "is there already" in again.err) == (False, True)
    assert table.out.startswith(f"Already in {tmp_path / 'y'}")


def test_an_erasure_that_cannot_reach_the_delta_tables_is_not_begun(
    sample: Sample, tmp_path: Path
) -> None:
    """The tables of ETL_LAKE contain what is to be erased: without deltalake it would stay."""
    known = environment(
        sample, KALTURA_PARTNER_ID=str(sample.job.partner_id), ETL_LAKE=str(tmp_path / "lake")
    )
    call = ["erase", "--user-id", "somebody", "--apply"]
    (refused,) = call_each(known, [call], before=WITHOUT_LIBRARIES)

    assert (refused.code, "pip install 'kaltura-etl[lake]'" in refused.err) == (78, True)
    assert sample.job.query("select * from kaltura.erasure") == []
