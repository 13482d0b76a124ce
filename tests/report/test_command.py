"""``kaltura-etl report``: the file, and what is said about it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from etl.warehouse.schema.revision import migrate
from tests.report.conftest import Lived, Report
from tests.support.json_reference import contradictions, fields_of
from tests.support.report_sample import Page

WITHOUT_THE_EXTRA = "import sys; sys.modules['vl_convert'] = None"
"""Also where a test does not look at the charts: drawing them is most of the work."""


def test_the_closing_line_says_where_and_how_large(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "page.html"

    done = report("--output", str(path))

    assert done.returncode == 0, done.stderr
    *facts, warehouse = (line.split() for line in done.stdout.splitlines() if line)
    assert (warehouse[0], warehouse[-2:]) == ("Warehouse:", ["schema", "kaltura"])
    assert facts == [
        ["path", str(path)],
        ["bytes", f"{path.stat().st_size:,}"],
    ]
    assert Page(path.read_text(encoding="utf-8")).tags.count("svg") == 8
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_one_object(report: Report, lived: Lived, tmp_path: Path) -> None:
    path = tmp_path / "page.html"

    done = report("--json", "--days", "7", "--time-zone", "Europe/Berlin", "-o", str(path))

    result = json.loads(done.stdout)
    days = {result.pop("first_day"), result.pop("last_day")}
    assert len(days) == 2
    assert result.pop("warehouse")["schema"] == "kaltura"
    assert result == {
        "exit_code": 0,
        "run_id": None,
        "status": "succeeded",
        "path": str(path),
        "bytes": path.stat().st_size,
        "partner_id": lived.partner_id,
        "time_zone": "Europe/Berlin",
        "charts": True,
        "pages": [],
    }


def test_a_dash_is_standard_output(report: Report) -> None:
    done = report("--output", "-", code=WITHOUT_THE_EXTRA)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!doctype html>")
    assert Page(done.stdout).tags.count("main") == 1


def test_without_the_extra_there_are_tables_and_a_word_about_it(
    report: Report, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"

    done = report("--json", "-o", str(path), code=WITHOUT_THE_EXTRA)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["charts"] is False
    assert "pip install 'kaltura-etl[report]'" in done.stderr
    assert "svg" not in Page(path.read_text(encoding="utf-8")).tags


def test_an_empty_warehouse_has_a_page_too(
    report: Report, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"

    done = report("-o", str(path), DATABASE_URL=database_url)

    assert done.returncode == 0, done.stderr
    assert "This warehouse is empty." in path.read_text(encoding="utf-8")


def test_several_accounts_have_an_index_and_a_page_each(
    report: Report, database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for partner_id in (7, 8):
            connection.execute(
                "insert into kaltura.sync_run (partner_id, mode, status, started_at, heartbeat_at,"
                " host, pid, program_version, walk_id) overriding system value"
                " values (%s, 'full', 'running', now(), now(), 'h', 1, 'v', 1)",
                [partner_id],
            )
    path = tmp_path / "all of them.html"

    done = report("--json", "-o", str(path), DATABASE_URL=database_url)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    own = [tmp_path / f"all of them-{partner_id}.html" for partner_id in (7, 8)]
    assert (result["path"], result["bytes"]) == (str(path), path.stat().st_size)
    assert [(page["partner_id"], page["path"]) for page in result["pages"]] == [
        (7, str(own[0])),
        (8, str(own[1])),
    ]
    assert {each.name for each in tmp_path.iterdir()} == {each.name for each in (path, *own)}
    fields = fields_of("report", failed=False)
    assert contradictions(result, fields, set()) == []
    index, page = (Page(each.read_text(encoding="utf-8")) for each in (path, own[0]))
    assert ("href", "./all%20of%20them-8.html") in index.attributes
    assert ("href", "./all%20of%20them.html") in page.attributes
    assert "Nothing has been published yet." in index.text


def test_accounts_of_several_schemas_are_on_one_page(
    report: Report, database_url: str, tmp_path: Path
) -> None:
    """By their names in accounts.toml: two of them are the same account in two schemas.

    One cannot be read, and the others are there nevertheless.
    """
    migrate(database_url, "apart")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for schema in ("kaltura", "apart"):
            connection.execute(
                sql.SQL(
                    "insert into {} (partner_id, walk_id, mode, status, started_at, heartbeat_at,"
                    " finished_at, published_at, coverage, program_version) values (7, 1, 'full',"
                    " 'succeeded', now(), now(), now(), now() - interval '1 minute', '{{(,)}}', '')"
                ).format(sql.Identifier(schema, "sync_run"))
            )
    names = tmp_path / "accounts.toml"
    names.write_text(
        "[accounts.old]\npartner_id = 7\nschema = 'elsewhere'\nks = { env = 'K' }\n"
        "[accounts.acme]\npartner_id = 7\nks = { env = 'K' }\n"
        "[accounts.globex]\npartner_id = 7\nschema = 'apart'\nks = { env = 'K' }\n"
        "[accounts.new]\npartner_id = 9\nks = { env = 'K' }\n"
    )
    path = tmp_path / "page.html"

    done = report(
        *("--json", "--all", "-o", str(path)),
        code=WITHOUT_THE_EXTRA,
        DATABASE_URL=database_url,
        ETL_ACCOUNTS=str(names),
    )

    assert done.returncode == 78, done.stderr
    result = json.loads(done.stdout)
    assert result["error_message"] == "1 of 4 accounts failed: old (configuration)."
    assert (result["status"], result["reason"]) == ("failed", "accounts_failed")
    own = {name: tmp_path / f"page-{name}.html" for name in ("acme", "globex", "new")}
    assert {page["name"]: Path(page["path"]) for page in result["pages"]} == own
    index = Page(path.read_text(encoding="utf-8"))
    assert "1 account could not be read; 1 is not complete or not up to date" in index.text
    assert "old is not in the table, and if there is a page of it, that one is old" in index.text
    assert "run kaltura-etl migrate" in index.text
    links = [value for name, value in index.attributes if name == "href"]
    assert links[-3:] == ["./page-new.html", "./page-acme.html", "./page-globex.html"]
    assert "acme 7 Complete as of" in index.text
    assert "Nothing is known of account 9." in index.text


def test_a_file_is_replaced_whole_and_keeps_its_permissions(report: Report, tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)

    with real.open() as reader:
        assert report("-o", str(link), code=WITHOUT_THE_EXTRA).returncode == 0
        assert reader.read() == "before"  # who reads it now goes on reading what was there

    assert link.is_symlink()
    assert real.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_the_umask(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "page.html"

    masked = f"{WITHOUT_THE_EXTRA}; import os; os.umask(0o027)"
    assert report("-o", str(path), code=masked).returncode == 0

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_device_stays_one(report: Report) -> None:
    assert report("-o", os.devnull, code=WITHOUT_THE_EXTRA).returncode == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "{folder}/none/page.html"], "cannot be written to"),
        (["-o", "{folder}"], "cannot be written to"),
        (["-o", "{folder}/circle"], "cannot be written to"),
        (["--output", "-", "--json"], "both write to standard output"),
        (["--time-zone", "Mars/Olympus"], "there is no time zone Mars/Olympus"),
        (["--time-zone", "../../etc/passwd"], "there is no time zone"),
        (["--time-zone", "Europe"], "there is no time zone Europe"),
        (["--time-zone", ""], "there is no time zone"),
        (["--days", "0"], "--days"),
        (["--days", "367"], "--days"),
    ],
)
def test_what_cannot_be_done_is_wrong_use(
    report: Report, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    given = [each.format(folder=tmp_path) for each in arguments]
    done = report(*given, code=WITHOUT_THE_EXTRA)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "<!doctype" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


@pytest.mark.parametrize("place", ["none/page.html", ""])
def test_a_place_that_cannot_be_written_is_told_before_the_warehouse_is_asked(
    report: Report, tmp_path: Path, place: str
) -> None:
    done = report("-o", str(tmp_path / place), DATABASE_URL="postgresql://127.0.0.1:1/none")

    assert done.returncode == 2, done.stderr
    assert "cannot be written to" in done.stderr


def test_a_schema_that_is_not_there_is_told(report: Report, tmp_path: Path) -> None:
    done = report("-o", str(tmp_path / "page.html"), ETL_SCHEMA="elsewhere")

    assert done.returncode == 78
    assert "run kaltura-etl migrate" in done.stderr
    assert list(tmp_path.iterdir()) == []
