"""The page: what it says of any warehouse, and that it says it as text."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from decimal import Decimal

import pytest

from etl.report.page import render_report
from etl.report.read import FAILED_ROWS, STUCK_ROWS, VANISHED_ROWS, ReportRows
from etl.resources import sql_directory
from tests.support.report_sample import (
    HOSTILE,
    HOUR,
    LAST_DAY,
    PUBLISHED,
    certificate,
    change,
    drawer,
    freshness,
    month,
    night,
    nothing,
    outcome,
    page_of,
    rows,
    run,
    upload,
    user,
)

HUGE = 2**63 - 1
DRAW = drawer()


def full_page() -> ReportRows:
    return rows(
        outcomes=month(),
        changes=change(
            newly_stuck=13, newly_failed=8, gone=21, gone_open=9, first_seen=187, total=14
        ),
        changed_users=[change(user_id="anna", newly_failed=2)],
        stuck=[upload(number, total=1_234, is_new=number < 13) for number in range(50)],
        failed=[upload(is_new=True)],
        vanished=[upload()],
        users=[user()],
        nights=[night()],
    )


def one_night() -> ReportRows:
    published = freshness(published_runs=1, first_published_at=PUBLISHED, since_published_at=None)
    day = outcome(day=LAST_DAY, started=1, succeeded=1, completed=1, p50_seconds=0.0)
    day["p95_seconds"] = 0.0
    size = outcome(size_bucket="unknown", started=1, succeeded=1)
    return rows(freshness=published, changes=None, outcomes=[day, size], users=[user()])


def nothing_known() -> ReportRows:
    """Every column that may be NULL is."""
    day = LAST_DAY
    return rows(
        outcomes=[
            outcome(day=day, started=1, still_open=1),
            outcome(day=day - timedelta(days=1), started=2, abandoned=2),
            outcome(size_bucket="unknown", started=3, abandoned=2, still_open=1),
        ],
        stuck=[
            upload(
                user_id=None,
                file_name=None,
                file_size_bytes=None,
                uploaded_size_bytes=None,
                percent_received=None,
            )
        ],
        vanished=[
            upload(
                user_id=None,
                file_name=None,
                status="UNKNOWN",
                last_listed_at=None,
                file_size_bytes=None,
                uploaded_size_bytes=None,
            )
        ],
        users=[user(user_id=None, median_seconds_to_complete=None, bytes_received=Decimal(0))],
        changes=None,
        failed=[
            upload(user_id=None, file_name=None, file_size_bytes=None, uploaded_size_bytes=None)
        ],
        runs=[run(status="running")],
        nights=[night(complete_at=None)],
    )


def huge() -> ReportRows:
    day = outcome(
        day=LAST_DAY,
        started=HUGE,
        succeeded=HUGE - 1,
        failed=1,
        completed=HUGE,
        p50_seconds=1e9,
        p95_seconds=3e9,
    )
    before = day | {"day": LAST_DAY - timedelta(days=1), "started": 1, "succeeded": 0}
    size = outcome(
        size_bucket="> 10 GB", started=HUGE, failed=HUGE, bytes_received=Decimal(HUGE) * HUGE
    )
    return rows(
        freshness=freshness(tokens_listed=HUGE, tokens_known=HUGE),
        outcomes=[day, before, size],
        stuck=[upload(file_size_bytes=HUGE, stuck_for=timedelta(days=40_000), total=HUGE)],
        users=[user(uploads=HUGE, bytes_received=Decimal(HUGE) * HUGE, total=HUGE)],
        changes=change(
            newly_failed=HUGE, newly_stuck=3_000_000, gone=HUGE, gone_open=HUGE, total=HUGE
        ),
        changed_users=[change(user_id="anna", newly_failed=HUGE)],
        nights=[night(inserted=Decimal(HUGE), runs=HUGE)],
    )


def a_year() -> ReportRows:
    days = [
        outcome(day=LAST_DAY - timedelta(days=number), started=3, failed=3) for number in range(366)
    ]
    return rows(first_day=LAST_DAY - timedelta(days=365), outcomes=days)


WAREHOUSES = {
    "empty": nothing(),
    "another account": nothing(7),
    "never published": rows(
        freshness=freshness(last_published_at=None, last_complete_at=None, published_runs=0),
        certificates=[],
        changes=None,
        runs=[run(status="failed", error_kind="refused")],
        nights=[night(outcome="failed", error_kind="refused", error_message="It <b>failed</b>.")],
    ),
    "no uploads": rows(),
    "quiet days": rows(newest_day=date(2026, 3, 3)),
    "one night": one_night(),
    "nothing known": nothing_known(),
    "huge": huge(),
    "a year": a_year(),
    "full": full_page(),
}


@pytest.mark.parametrize("name", WAREHOUSES)
@pytest.mark.parametrize("draw", [DRAW, None], ids=["charts", "tables"])
def test_every_warehouse_has_a_page(name: str, draw: object) -> None:
    page = page_of(WAREHOUSES[name], draw=draw)

    assert len(page.ids()) == len(set(page.ids()))
    assert "None" not in page.text
    assert "Undefined" not in page.text
    assert page.tags.count("h1") == page.tags.count("main") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "This warehouse is empty."),
        ("another account", "Nothing is known of account 7."),
        ("never published", "Nothing has been published yet."),
        ("no uploads", "No upload is known."),
        ("quiet days", "No upload was created in the days shown; the newest is of 3 March 2026."),
        ("one night", "Only one complete run has been published"),
        ("one night", "Only one run has been published"),
        ("one night", "All on one day, so there is no chart."),
        ("nothing known", "no user"),
        ("huge", "9,223,372,036,854,775,807"),
        ("full", "1,234 uploads are open and have not moved for a day or more"),
        ("full", "The last to become stuck come first; 50 are shown."),
        ("full", "Since 22 November 2026 at 02:31"),
        ("full", "Newly failed 8 1 in 30 days"),
        ("full", "Newly stuck 13 1,234 stuck in all"),
        ("full", "Gone 21 9 of them while open"),
        ("full", "1 of 14 users, most failures first"),
        ("full", "no later upload of the same user"),
    ],
)
def test_what_there_is_not_is_said_in_words(name: str, words: str) -> None:
    assert words in page_of(WAREHOUSES[name], draw=DRAW).text


def test_a_list_that_is_cut_off_says_where_all_of_it_is() -> None:
    many = {"total": 64_616}
    cut = rows(
        outcomes=month(),
        stuck=[upload() | many],
        failed=[upload(to_act_on=64_000) | many],
        vanished=[upload() | many],
        users=[user() | many],
    )
    text = page_of(cut, draw=None).text

    assert "64,616 uploads have failed" in text
    for name in ("failed_uploads.sql", "stuck_now.sql", "vanished_unfinished.sql"):
        assert f"The example query {name} lists all." in text
        assert (sql_directory() / "queries" / name).exists()
    assert "1 of 64,616 users; the view upload_user_summary has all." in text
    assert "lists all" not in page_of(rows(failed=[upload()], users=[user()])).text


@pytest.mark.parametrize(
    ("name", "charts"),
    [("empty", 0), ("no uploads", 0), ("one night", 0), ("nothing known", 2), ("full", 4)],
)
def test_no_chart_is_empty(name: str, charts: int) -> None:
    page = page_of(WAREHOUSES[name], draw=DRAW)

    assert page.tags.count("figure") == charts
    assert page.tags.count("svg") == 2 * charts  # for wide and for narrow screens


@pytest.mark.parametrize("highest", [1, 2, 3])
def test_the_axis_of_few_uploads_has_whole_numbers(highest: int) -> None:
    days = [
        outcome(day=LAST_DAY - timedelta(days=number), started=started, succeeded=started)
        for number, started in enumerate((highest, 1))
    ]
    page = page_of(rows(outcomes=days), draw=DRAW)

    wide, narrow = [place for place, text in enumerate(page.texts) if "Stacked bars" in text]
    labels = page.texts[wide + 1 : narrow]
    assert [text for text in labels if text[0].isdigit() and " " not in text] == [
        str(number) for number in range(highest + 1)
    ]


def test_each_chart_is_told_and_tabled() -> None:
    page = page_of(full_page(), draw=DRAW)

    ids = set(page.ids())
    named = [value for name, value in page.attributes if name == "aria-labelledby"]
    described = [value for name, value in page.attributes if name == "aria-describedby"]
    assert len(described) == page.tags.count("svg")
    assert ids.issuperset(named + described)
    assert page.tags.count("details") == 4
    assert page.tags.count("caption") == page.tags.count("table")
    assert "The busiest day is 25 October 2026 with 49 uploads." in page.text


def test_a_week_whose_share_may_still_change_is_hollow() -> None:
    """Until the 24 hours of all of its uploads are over."""
    days = month()
    settled = page_of(rows(outcomes=days), draw=DRAW).text.count("Hollow: may still change")
    days[1] |= {"old_enough": days[1]["started"] - 1}  # of the last full day
    unsettled = page_of(rows(outcomes=days), draw=DRAW).text.count("Hollow: may still change")

    assert (settled, unsettled) == (1, 2)  # that of the times to complete has some


def test_without_the_library_the_numbers_lie_open() -> None:
    page = page_of(full_page(), draw=None)

    assert "svg" not in page.tags
    assert "details" not in page.tags
    assert "Without charts: they need the extra" in page.text
    assert page.tags.count("table") == page_of(full_page(), draw=DRAW).tags.count("table")


def test_the_page_can_fetch_and_run_nothing() -> None:
    html = render_report(full_page(), PUBLISHED.tzinfo, draw=DRAW)  # type: ignore[arg-type]
    page = page_of(full_page(), draw=DRAW)

    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("content", policy) in page.attributes
    assert "script" not in page.tags
    for name, value in page.attributes:
        if name in ("href", "src", "action", "srcset", "xlink:href"):
            assert value is not None
            assert value.startswith(("#", "data:")), (name, value)
        assert not name.startswith("on"), name
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_names_that_people_chose_are_text() -> None:
    names = list(HOSTILE.values())
    read = rows(
        changed_users=[change(user_id=name) for name in names],
        failed=[upload(n, file_name=name, user_id=name) for n, name in enumerate(names)],
        stuck=[upload(n, file_name=name, user_id=name) for n, name in enumerate(names)],
        vanished=[upload(token_id=name, file_name=name) for name in names if name],
        users=[user(user_id=name) for name in names],
        nights=[night(error_kind="bug", error_message=name) for name in names],
    )
    plain = rows(
        changed_users=[change(user_id="anna")] * len(names),
        failed=[upload()] * len(names),
        stuck=[upload()] * len(names),
        vanished=[upload()] * (len(names) - 1),
        users=[user()] * len(names),
        nights=[night(error_kind="bug", error_message="x")] * len(names),
    )

    page, calm = page_of(read, draw=None), page_of(plain, draw=None)

    assert set(page.tags) - {"span"} == set(calm.tags)  # a span says "(empty)"
    assert page.tags.count("tr") == calm.tags.count("tr")
    assert {name for name, _ in page.attributes} == {name for name, _ in calm.attributes}
    for shown in (
        *(HOSTILE["script"], HOSTILE["formula"], HOSTILE["template"]),
        "holiday[U+202E]fdp.exe[U+2066]",
    ):
        assert page.texts.count(shown) == 9, shown


def test_a_year_of_names_keeps_the_page_small() -> None:
    # Every list is as long as it can be, and every name as long as it is shown.
    name = "<" * 65_536
    read = rows(
        first_day=LAST_DAY - timedelta(days=365),
        outcomes=WAREHOUSES["a year"].outcomes,
        changed_users=[change(user_id=name)] * 10,
        stuck=[upload(token_id=name, file_name=name, user_id=name)] * STUCK_ROWS,
        failed=[upload(token_id=name, file_name=name, user_id=name)] * FAILED_ROWS,
        vanished=[upload(token_id=name, file_name=name, user_id=name)] * VANISHED_ROWS,
        users=[user(user_id=name)] * 20,
        nights=[night(error_kind="bug", error_message=name)] * 14,
    )

    assert len(render_report(read, PUBLISHED.tzinfo, draw=DRAW)) < 1_000_000  # type: ignore[arg-type]


def test_days_before_the_history_are_owned_up_to() -> None:
    begun = freshness(first_published_at=PUBLISHED - 48 * HOUR)

    text = page_of(rows(freshness=begun, outcomes=month())).text

    assert "The history begins on 21 November 2026 at 02:31" in text
    assert "23 November 2026 is counted up to 02:31" in text


def test_the_reason_of_a_failed_run_is_shown() -> None:
    failed = run(run_id=41, status="failed")
    told = night(error_kind="service", error_message="The service said <no>.")

    page = page_of(rows(runs=[failed, run()], nights=[told], certificates=[certificate()]))

    assert "The service said <no>." in page.text
    assert "the reason is in the table of nights" in page.text


def test_a_night_without_a_run_has_a_row() -> None:
    days = [night(day=LAST_DAY - timedelta(days=number), runs=HUGE) for number in range(3)]
    days[0] |= {"outcome": "no_run", "complete_at": None}
    days[1] |= {"outcome": "no_run", "complete_at": None}
    days[2] |= {"outcome": "failed", "error_kind": "credentials", "complete_at": None}
    page = page_of(rows(nights=days))

    assert "Last nights" in page.text
    assert page.text.count("no run yet") == 1
    assert page.text.count("no run") == 3  # the other night's, in its row and above
    assert "credentials" in page.text
    assert "Last nights" not in page_of(rows()).text


def test_the_page_begins_with_what_is_new_and_every_figure_leads_to_its_section() -> None:
    page = page_of(full_page(), draw=DRAW)

    ids = page.ids()
    sections = [
        *("trust", "changes", "weeks", "nights", "outcomes", "times", "sizes"),
        *("failed", "stuck", "vanished", "users", "words"),
    ]
    assert [each for each in ids if each in sections] == sections
    links = [value for name, value in page.attributes if name == "href" and value is not None]
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
    for figure in ("failed", "stuck", "vanished", "outcomes", "times"):
        assert links.count(f"#{figure}") == 2, figure  # of the figure, and of the navigation
    assert page.texts.count("new") == 13 + 1  # the stuck and the failed


def test_a_day_that_may_still_change_is_marked() -> None:
    page = page_of(full_page(), draw=DRAW)

    # Eight days in two tables, the last week.
    assert page.texts.count("may still change") == 8 * 2 + 1
    assert page.texts.count("Pale: may still change") == 1
    assert "The figures of 8 days may still change." in page.text
    final = [row | {"is_mature": True} for row in full_page().outcomes]
    settled = page_of(rows(outcomes=final, first_day=LAST_DAY - timedelta(days=29)), draw=DRAW)
    assert "may still change" not in settled.text.replace("May still change", "")


def test_the_stuck_of_long_ago_are_counted() -> None:
    zombies = upload(total=168, over_a_week=102, over_a_month=18, over_a_year=4)

    text = page_of(rows(stuck=[zombies])).text

    assert (
        "102 of them have not moved for more than 7 days and count as abandoned: 18 for more than "
        "30 days, 4 for more than a year, the oldest since 18 November 2026 at 23:31."
    ) in text


def test_failed_uploads_tell_what_is_left_to_do() -> None:
    done = {"total": 3, "to_act_on": 2}
    failed = [upload(**done), upload(1, **done), upload(2, uploaded_again_at=PUBLISHED, **done)]

    text = page_of(rows(failed=failed)).text

    assert "3 uploads have failed since 25 October 2026." in text
    assert "2 have not been uploaded again and come first" in text


def test_an_account_of_old_uploads_shows_the_days_that_had_some() -> None:
    day = LAST_DAY - timedelta(days=400)
    read = rows(
        first_day=day - timedelta(days=29),
        last_day=day,
        outcomes=[outcome(day=day, started=7, succeeded=7, is_mature=True)],
    )

    text = page_of(read).text

    assert "7 uploads were created: 100 % succeeded." in text
    assert (
        "The newest upload is of 19 October 2025, so the days shown end there; the last run was "
        "published on 23 November 2026 at 02:31."
    ) in text
    assert "No upload was created in the last weeks that are over." in text
    assert "No upload has failed since 25 October 2026." in text


def test_an_address_of_email_may_be_broken_behind_its_sign_only() -> None:
    address = "<b>.lovelace@long-university.example"
    html = render_report(rows(stuck=[upload(user_id=address, file_name="a film.mp4")]), UTC)

    assert "<bdi>&lt;b&gt;<wbr>.lovelace@<wbr>long-university<wbr>.example</bdi>" in html
    assert "<bdi>a film.mp4</bdi>" in html
