"""Nights of an account: which versions they publish."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.errors import ConfigurationError, DataRefused, EtlError
from etl.warehouse.ledger.ending import failed_on_error, finish_dry_run
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.publish import plan_changes
from tests.support.nights import START, Nights, make_token, page_of

both_servers = pytest.mark.postgres15
"""Together these send every statement of a run that publishes; the rest is about what they do."""


@both_servers
def test_first_night_loads_every_token_as_its_first_version(nights: Nights) -> None:
    counts = nights.night([make_token("a"), make_token("b", START + 1, extra=b'{"new": 1}')])

    assert (counts.inserted, counts.versions) == (2, 2)
    row = nights.token("b")
    assert (row["version"], row["change_kind"], row["changed_columns"]) == (1, "first_seen", None)
    assert row["extra"] == {"new": 1}
    assert row["created_at"] == datetime.fromtimestamp(START + 1, UTC)
    assert row["observed_at"] == nights.time
    assert row["absence_confirmed_at"] is None
    assert nights.query("select 1 from kaltura.upload_token_staging") == []


@both_servers
def test_changed_token_gets_a_version_and_the_old_one_is_kept(nights: Nights) -> None:
    nights.night([make_token("a", status=1), make_token("b")])
    counts = nights.night([make_token("a", status=3, file_name=None), make_token("b")])

    assert (counts.changed, counts.unchanged, counts.inserted) == (1, 1, 0)
    row = nights.token("a")
    assert row["changed_columns"] == ["status", "file_name"]
    assert row["version"] == 2
    (old,) = nights.query("select * from kaltura.upload_token_superseded")
    assert (old["status"], old["version"], old["change_kind"]) == (1, 1, "first_seen")
    assert old["valid_to"] == row["valid_from"]
    assert old["superseded_by_run_id"] == row["run_id"]


def test_unchanged_night_makes_no_version(nights: Nights) -> None:
    tokens = [make_token("a"), make_token("b", START + 5)]
    nights.night(tokens)
    counts = nights.night(tokens)

    assert (counts.unchanged, counts.versions, counts.tokens_read) == (2, 0, 2)
    assert nights.versions("a") == [(1, "first_seen")]


@pytest.mark.parametrize(
    "values",
    [
        {"user_id": None},
        {"upload_url": "https://other.example"},
        {"upload_url": None},
        {"auto_finalize": True},
        {"auto_finalize": None},
    ],
)
def test_volatile_or_vanished_value_makes_no_version(
    nights: Nights, values: dict[str, Any]
) -> None:
    nights.night([make_token("a")])
    counts = nights.night([make_token("a", **values)])

    assert (counts.unchanged, counts.versions) == (1, 0)


def test_known_value_is_not_erased_by_a_missing_one(nights: Nights) -> None:
    nights.night([make_token("a", status=1)])
    nights.night([make_token("a", status=3, user_id=None, upload_url=None, auto_finalize=None)])

    row = nights.token("a")
    assert row["changed_columns"] == ["status"]
    assert (row["user_id"], row["upload_url"]) == ("anna", "https://upload.example")
    assert row["auto_finalize"] is False


def test_renamed_user_makes_a_version(nights: Nights) -> None:
    nights.night([make_token("a")])
    nights.night([make_token("a", user_id="anna2")])

    assert nights.token("a")["changed_columns"] == ["user_id"]


@both_servers
def test_vanished_token_becomes_absent_with_its_last_values(nights: Nights) -> None:
    nights.night([make_token("a"), make_token("b", START + 5)])
    counts = nights.night([make_token("b", START + 5)])

    assert (counts.absent, counts.unchanged) == (1, 1)
    row = nights.token("a")
    assert (row["is_listed"], row["change_kind"], row["version"]) == (False, "absent", 2)
    assert row["changed_columns"] == ["is_listed"]
    assert row["file_name"] == "film.mp4"
    assert row["absence_confirmed_at"] == nights.time + timedelta(minutes=1)
    # When the first night's reply arrived the token may have been gone; when it began, it was not.
    (first,) = nights.query("select min(started_at) as at from kaltura.sync_run")
    assert row["last_listed_at"] == first["at"]
    assert nights.night([make_token("b", START + 5)]).versions == 0


@both_servers
def test_absent_token_that_comes_back_is_relisted(nights: Nights) -> None:
    nights.night([make_token("a"), make_token("b", START + 5)])
    nights.night([make_token("b", START + 5)])
    counts = nights.night([make_token("a", status=4), make_token("b", START + 5)])

    assert (counts.relisted, counts.unchanged) == (1, 1)
    row = nights.token("a")
    assert (row["is_listed"], row["version"]) == (True, 3)
    assert row["changed_columns"] == ["is_listed", "status"]
    assert row["absence_confirmed_at"] is None
    assert nights.versions("a") == [(1, "first_seen"), (2, "absent"), (3, "relisted")]


def test_missing_token_that_answers_a_lookup_is_unchanged(nights: Nights) -> None:
    both = [make_token("a"), make_token("b", START + 5)]
    nights.night(both)
    run = nights.open()
    nights.stage(run, page_of(both[1:], from_start=True, to_end=True))

    assert nights.confirm(run, both) == ["a"]
    assert missing_tokens(nights.database, run, after=None) == []
    nights.publish(run)
    assert (nights.counts.unchanged, nights.counts.versions) == (2, 0)


@both_servers
def test_missing_token_without_a_lookup_stays_pending(nights: Nights) -> None:
    both = [make_token("a"), make_token("b", START + 5)]
    nights.night(both)
    run = nights.open()
    nights.stage(run, page_of(both[1:], from_start=True, to_end=True))
    nights.publish(run)

    assert (nights.counts.pending, nights.counts.unchanged, nights.counts.versions) == (1, 1, 0)
    assert nights.token("a")["is_listed"]


def test_young_token_that_does_not_answer_stays_pending(nights: Nights) -> None:
    young = int(nights.time.timestamp()) - 60
    nights.night([make_token("a", START), make_token("b", young)], at=nights.time)
    run = nights.open()
    nights.stage(
        run,
        page_of([make_token("a", START)], from_start=True, to_end=True, observed_at=nights.time),
    )
    assert nights.confirm(run, []) == ["b"]
    nights.publish(run)

    assert (nights.counts.pending, nights.counts.absent) == (1, 0)


@both_servers
def test_token_outside_of_the_coverage_is_left_alone(nights: Nights) -> None:
    tokens = [make_token(f"t{second}", START + second) for second in range(10)]
    nights.night(tokens)
    run = nights.open(mode="backfill")
    nights.stage(run, page_of([tokens[2], tokens[5]]))
    nights.confirm(run, [])
    nights.publish(run)

    assert (nights.counts.absent, nights.counts.not_covered) == (2, 8)
    absent = nights.query("select token_id from kaltura.upload_token where not is_listed")
    assert sorted(row["token_id"] for row in absent) == ["t3", "t4"]


@both_servers
def test_newer_twin_is_the_token_and_the_older_is_rejected(nights: Nights) -> None:
    counts = nights.night([make_token("a", START, status=1), make_token("a", START + 9, status=2)])

    assert (counts.inserted, counts.rejected) == (1, 1)
    assert nights.token("a")["status"] == 2
    (row,) = nights.query("select * from kaltura.rejected_row")
    assert (row["token_id"], row["reason"], row["created_second"]) == ("a", "duplicate_id", START)


def test_older_twin_of_a_known_token_is_rejected(nights: Nights) -> None:
    newer = make_token("a", START + 9)
    nights.night([newer])
    counts = nights.night([make_token("a", START), newer])

    assert (counts.versions, counts.rejected, counts.unchanged) == (0, 1, 1)


def test_token_whose_newer_twin_went_continues_as_the_older(nights: Nights) -> None:
    nights.night([make_token("a", START + 9)])
    counts = nights.night([make_token("a", START)])

    assert (counts.changed, counts.rejected, counts.absent) == (1, 0, 0)
    assert nights.token("a")["changed_columns"] == ["created_at", "updated_at"]


def test_trigger_that_swallows_rows_is_noticed(nights: Nights) -> None:
    nights.night([make_token("a")])
    nights.query(
        "create function public.swallow() returns trigger language plpgsql "
        "as $$ begin if new.token_id = 'c' then return null; end if; return new; end $$"
    )
    nights.query(
        "create trigger swallow before insert on kaltura.upload_token "
        "for each row execute function public.swallow()"
    )
    with pytest.raises(DataRefused) as refused:
        nights.night([make_token("a"), make_token("b", START + 1), make_token("c", START + 2)])

    assert refused.value.fields["reason"] == "row_count_mismatch"
    assert (
        "did not write the rows that it was given: 1 instead of 2 new tokens. A trigger"
        in refused.value.message
    )
    assert [row["token_id"] for row in nights.query("select * from kaltura.upload_token")] == ["a"]


@both_servers
@pytest.mark.parametrize(
    ("state", "exit_code", "reason"),
    [("P0001", 78, "raised"), ("55P03", 74, "lock_timeout"), ("57014", 74, "statement_canceled")],
)
def test_the_ledger_names_what_ended_the_publication(
    nights: Nights, state: str, exit_code: int, reason: str
) -> None:
    """Not a lost connection: Postgres itself refused a statement."""
    nights.query(
        "create function public.no() returns trigger language plpgsql as "
        f"$$ begin raise exception 'no' using errcode = '{state}'; end $$"
    )
    nights.query(
        "create trigger no before insert on kaltura.upload_token "
        "for each row execute function public.no()"
    )
    run = nights.open()
    nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
    with pytest.raises(EtlError) as ended, failed_on_error(nights.database, run):
        nights.publish(run)

    assert (ended.value.exit_code, ended.value.fields["reason"]) == (exit_code, reason)
    row = nights.ledger(run.run_id)
    told = (row["status"], row["error_kind"], row["error_message"])
    assert told == ("failed", ended.value.kind, ended.value.message)


def test_stamps_grow_although_the_clock_was_set_back(nights: Nights) -> None:
    nights.night([make_token("a", status=1)])
    future = datetime(2090, 1, 1, tzinfo=UTC)
    nights.query("update kaltura.sync_run set published_at = %s", future)
    nights.night([make_token("a", status=2)])

    assert nights.token("a")["valid_from"] == future + timedelta(microseconds=1)


def test_run_does_not_publish_over_another_one(nights: Nights) -> None:
    nights.night([make_token("a")])
    run = nights.open()
    nights.stage(run, page_of([make_token("a", status=5)], from_start=True, to_end=True))
    nights.query(
        "insert into kaltura.sync_run (partner_id, mode, status, walk_id, published_at) "
        "select partner_id, mode, 'succeeded', 1, clock_timestamp() from kaltura.sync_run limit 1"
    )
    with pytest.raises(DataRefused) as refused:
        nights.publish(run)

    assert refused.value.fields["reason"] == "other_run_published"
    assert nights.token("a")["status"] == 3


@both_servers
def test_dry_run_plans_and_leaves_nothing(nights: Nights) -> None:
    nights.night([make_token("a")])
    run = nights.open(dry_run=True)
    nights.stage(
        run,
        page_of(
            [make_token("a", status=5), make_token("b", START + 1)], from_start=True, to_end=True
        ),
    )
    plan = plan_changes(nights.database, run, 10)
    finish_dry_run(nights.database, run)

    assert plan == [
        {"token_id": "a", "change_kind": "changed", "changed_columns": ["status"]},
        {"token_id": "b", "change_kind": "first_seen", "changed_columns": None},
    ]
    ended = nights.ledger(run.run_id)
    assert (ended["status"], ended["error_kind"]) == ("dry_run", "dry_run")
    assert nights.query("select 1 from kaltura.upload_token_staging") == []
    assert nights.open(resume_window=timedelta(hours=6)).resumed_from is None


def test_a_run_over_which_the_schema_was_migrated_publishes_nothing(nights: Nights) -> None:
    """The new program keeps things with a version of which this one does not know."""
    nights.night([make_token("a", status=1)])
    run = nights.open()
    nights.stage(run, page_of([make_token("a", status=3)], from_start=True, to_end=True))
    revision = "update kaltura.alembic_version set version_num = %s returning version_num"
    (head,) = nights.query("select version_num from kaltura.alembic_version")
    nights.query(revision, "9999")
    with pytest.raises(ConfigurationError, match="at revision 9999"):
        nights.publish(run)
    assert nights.versions("a") == [(1, "first_seen")]
    nights.query(revision, head["version_num"])
    nights.publish(run)
    assert nights.versions("a") == [(1, "first_seen"), (2, "changed")]


def test_a_change_stays_in_its_block(nights: Nights) -> None:
    """So a night of few changes writes few blocks, and tokens stay in the order of creation."""

    def blocks() -> dict[str, int]:
        found = nights.query(
            "select token_id, cast((cast(cast(ctid as text) as point))[0] as integer) as block "
            "from kaltura.upload_token"
        )
        return {str(row["token_id"]): int(str(row["block"])) for row in found}

    tokens = [make_token(f"t{number:04}", START + 7 * number, status=2) for number in range(600)]
    nights.night(tokens)
    loaded = blocks()
    first_of_each = {block: token_id for token_id, block in sorted(loaded.items(), reverse=True)}
    assert len(first_of_each) > 10
    # The last block is not full.
    changed = set(first_of_each.values()) - {first_of_each[max(first_of_each)]}
    nights.night(
        [token._replace(status=3) if token.token_id in changed else token for token in tokens]
    )

    assert nights.counts.changed == len(changed)
    assert blocks() == loaded
