"""``docs/howto/ask.md`` shows each question as it is in its file, and what psql really answers.

The parts between ``<!-- begin … -->`` and ``<!-- end … -->`` are written by this test when
``ETL_TEST_WRITE`` is set, and compared otherwise.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from etl.embedded.binaries import find_binaries
from tests.questions.accounts import ACCOUNT
from tests.questions.questions import COMMON, QUERIES, QUESTIONS, ROOT, Question
from tests.questions.truth import histories

PAGE = ROOT / "docs" / "howto" / "ask.md"
WRITE = "ETL_TEST_WRITE"
INDEX = "questions"
NEWLINE = "\n"
Psql = Callable[..., str]


@pytest.fixture(scope="session")
def psql(known_url: str) -> Psql:
    """``psql("-f", "variables.psql")``: what it prints, on the known account."""

    def call(*arguments: str, options: str = "", url: str = known_url, fails: bool = False) -> str:
        done = subprocess.run(
            [
                *(str(find_binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"),
                *("-d", url, *arguments),
            ],
            env={
                "PATH": os.environ.get("PATH", ""),
                "PGOPTIONS": f"-c search_path=kaltura {options}",
                "PGTZ": "UTC",
                "PGCLIENTENCODING": "UTF8",
            },
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return call


def _part(name: str, text: str) -> str:
    """What stands between the markers."""
    found = re.search(_pattern(name), text, re.DOTALL)
    assert found is not None, f"{PAGE.name} has no markers for {name}"
    return found[1]


def _pattern(name: str) -> str:
    return rf"(?<=<!-- begin {re.escape(name)} -->\n)(.*?)(?=<!-- end {re.escape(name)} -->)"


def _compare_or_write(name: str, expected: str) -> None:
    if os.environ.get(WRITE):
        with open(PAGE, "r+", encoding="utf-8") as page:
            fcntl.flock(page, fcntl.LOCK_EX)  # of several workers one writes at a time
            text = page.read()
            _part(name, text)
            page.seek(0)
            page.write(re.sub(_pattern(name), lambda _: expected, text, flags=re.DOTALL))
            page.truncate()
    found = _part(name, PAGE.read_text(encoding="utf-8"))
    assert found == expected, f"{WRITE}=1 ./dev test tests/questions writes it anew"


def _transcript(question: Question, psql: Psql) -> str:
    """What a session in psql looks like: what is set, the file, and its answer."""
    lines = [
        rf"=> \set {name} {_quoted(value)}" for name, value in sorted(question.variables.items())
    ]
    options = ""
    if question.time_zone is not None:
        lines.append(f"=> set kaltura.time_zone = '{question.time_zone}';")
        options = f"-c kaltura.time_zone={question.time_zone}"
    lines.append(rf"=> \i sql/queries/{question.file}")
    given = [f"{name}={value}" for name, value in (COMMON | question.variables).items()]
    answer = psql(
        *[part for each in given for part in ("-v", each)],
        *("-f", "sql/queries/variables.psql"),
        *("-f", f"sql/queries/{question.file}"),
        options=options,
    )
    lines += [line.rstrip() for line in answer.rstrip().splitlines()]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value else value


@pytest.mark.parametrize("file", QUESTIONS)
def test_the_question_the_query_and_the_answer(file: str, psql: Psql) -> None:
    question = QUESTIONS[file]

    _compare_or_write(
        file,
        f"### {question.words}\n\n"
        f"```sql\n{question.text.partition(NEWLINE)[2]}```\n\n"
        f"```text\n{_transcript(question, psql)}\n```\n",
    )


def test_the_list_of_questions() -> None:
    text = PAGE.read_text(encoding="utf-8")
    in_order = re.findall(r"^<!-- begin (\w+\.sql) -->$", text, re.MULTILINE)
    assert sorted(in_order) == sorted(QUESTIONS)

    words = [QUESTIONS[file].words for file in in_order]
    anchors = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in words]
    lines = [f"- [{each}](#{anchor})\n" for each, anchor in zip(words, anchors, strict=True)]
    _compare_or_write(INDEX, "".join(lines))


def test_every_question_is_followed_by_how_to_read_its_answer() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for file in QUESTIONS:
        after = text.split(f"<!-- end {file} -->\n")[1].strip()
        assert re.match(r"[A-Z`]", after), file


@pytest.mark.parametrize("file", QUESTIONS)
def test_a_file_is_a_question_its_variables_and_one_statement(file: str) -> None:
    question = QUESTIONS[file]

    assert question.text.startswith("-- ")
    assert question.words.endswith("?")
    assert question.says_it_needs == question.needs
    assert ";" not in question.statement
    assert question.text.endswith("\n")


def test_the_variables_have_values_without_being_set(psql: Psql) -> None:
    needed = sorted(set().union(*(question.needs for question in QUESTIONS.values())))
    echo = [part for name in needed for part in ("-c", rf"\echo :{name}")]

    values = dict(
        zip(
            needed,
            psql("-v", "partner_id=102", "-f", "sql/queries/variables.psql", *echo).splitlines(),
            strict=True,
        )
    )

    assert values["partner_id"] == "102"
    last_night, before = ACCOUNT.complete[-1], ACCOUNT.complete[-2]
    assert (values["run_before"], values["run_id"]) == (str(before.run_id), str(last_night.run_id))
    assert values["token_id"] in histories()
    assert (values["now"], values["day"]) == ("now", "yesterday")
    assert all(value and not value.startswith(":") for value in values.values())


@pytest.mark.parametrize("file", QUESTIONS)
def test_no_question_takes_an_account_by_itself(file: str, known_url: str) -> None:
    """It is told which one; or it is about all of them, and says of whom each row is."""
    with psycopg.connect(known_url, options="-c search_path=kaltura") as connection:
        if "partner_id" in QUESTIONS[file].needs:
            assert QUESTIONS[file].ask(connection, partner_id="999") == []
        else:
            assert next(iter(QUESTIONS[file].ask(connection)[0])) == "partner_id"


def test_the_account_is_the_only_one_or_asked_for(
    psql: Psql, known_url: str, database_url: str
) -> None:
    file = ("-f", "sql/queries/variables.psql", "-c", r"\echo :partner_id :run_id :run_before")
    for url, says in (
        (known_url, r"This warehouse holds several accounts: \set partner_id to one of 102, 103."),
        (database_url, "This warehouse holds no account: run kaltura-etl sync first."),
    ):
        failed = psql(*file, url=url, fails=True)
        assert says in failed
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into kaltura.sync_run (partner_id, walk_id, mode, status, started_at, "
            "heartbeat_at, program_version) values (7, 1, 'full', 'failed', now(), now(), '1')"
        )

    assert psql(*file, url=database_url) == "7 0 0\n"


def test_every_question_can_be_asked_of_an_empty_warehouse(database_url: str) -> None:
    with psycopg.connect(database_url, options="-c search_path=kaltura") as connection:
        for question in QUESTIONS.values():
            assert question.ask(connection) == [], question.file


def test_the_page_names_no_variable_that_is_not_there() -> None:
    text = (QUERIES / "variables.psql").read_text(encoding="utf-8")

    assert set(re.findall(r"\{\?(\w+)\}", text)) == set().union(
        *(question.needs for question in QUESTIONS.values())
    )
