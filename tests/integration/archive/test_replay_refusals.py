"""What a replay refuses, how it goes on after an end, and what ``--check`` finds."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from etl.archive import layout, segment
from etl.errors import DataRefused, EtlError, LeaseHeld, UsageError
from etl.replay import runs as replay
from etl.replay.runs import ReplayReport
from etl.simulator import SimulatorServer, generate_account
from etl.tokens import decode as records
from etl.tokens.row import read_row
from etl.tokens.token import Token
from tests.support import forked
from tests.support.archive import (
    Life,
    archived,
    assert_same_dump,
    assert_verified,
    check,
    copied_database,
    dump,
    job_without_archive,
    replay_into,
)
from tests.support.job import Ended, Job, listed

TOKENS = 400
NIGHTS = 3


@dataclass
class Scene:
    """A few archived nights."""

    job: Job
    archive: Path
    dumps: dict[int, dict[str, bytes]]

    def files(self, run_id: int) -> list[Path]:
        return sorted(self.archive.glob(f"partner-*/run-{run_id:010d}/batch-*.zst"))

    def manifest_path(self, run_id: int) -> Path:
        (found,) = self.archive.glob(f"partner-*/run-{run_id:010d}/manifest.json")
        return found

    def replay(self, *, until: int | None = None) -> ReplayReport:
        return replay_into(self.job, [self.archive], "kaltura", until=until)

    def published(self) -> list[int]:
        rows = self.job.query(
            "select run_id from kaltura.sync_run where published_at is not null order by run_id"
        )
        return [row["run_id"] for row in rows]

    def assert_is(self, run_id: int) -> None:
        """The warehouse is what it was when that run had published."""
        assert_same_dump(dump(self.job.database_url), self.dumps[run_id])

    def command(self, *arguments: str) -> Ended:
        return called(*arguments, DATABASE_URL=self.job.database_url)


def called(*arguments: str, **variables: str) -> Ended:
    """``kaltura-etl`` as a process."""
    done = forked.call(*arguments, env=forked.environment(**variables))
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Story:
    """A few archived nights, lived once for all tests of this file."""

    job: Job
    archive: Path
    dumps: dict[int, dict[str, bytes]]


@pytest.fixture(scope="module")
def story(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    account = generate_account(TOKENS, seed=21)
    archive = tmp_path_factory.mktemp("story") / "archive"
    with (
        copied_database(postgres_url, template_database) as url,
        SimulatorServer(account, page_cap=40, seed=21) as server,
    ):
        job = archived(server, url, archive)
        life = Life(server)
        dumps = {life.night(job, seed).run_id: dump(url) for seed in range(NIGHTS)}
        yield Story(job, archive, dumps)


@pytest.fixture
def scene(story: Story, database_url: str, tmp_path: Path) -> Scene:
    """An empty warehouse, and a copy of the archive."""
    shutil.copytree(story.archive, tmp_path / "archive")
    job = replace(story.job, database_url=database_url)
    return Scene(job, tmp_path / "archive", story.dumps)


@pytest.fixture
def original(story: Story, postgres_url: str, tmp_path: Path) -> Iterator[Scene]:
    """A copy of the warehouse that the archive came from, and of the archive."""
    shutil.copytree(story.archive, tmp_path / "original")
    name = urlsplit(story.job.database_url).path[1:]
    with copied_database(postgres_url, name) as url:
        job = replace(story.job, database_url=url)
        yield Scene(job, tmp_path / "original", story.dumps)


def damage_missing(scene: Scene) -> None:
    scene.files(2)[-1].unlink()


def damage_cut(scene: Scene) -> None:
    path = scene.files(2)[-1]
    path.write_bytes(path.read_bytes()[:-9])


def damage_changed(scene: Scene) -> None:
    path = scene.files(2)[0]
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def damage_swapped(scene: Scene) -> None:
    scene.files(2)[0].write_bytes(scene.files(1)[0].read_bytes())


def damage_manifest(scene: Scene) -> None:
    path = scene.manifest_path(2)
    path.write_text(path.read_text().replace('"inserted": ', '"inserted": 1'))


@pytest.mark.parametrize(
    "damage",
    [damage_missing, damage_cut, damage_changed, damage_swapped, damage_manifest],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_archive_publishes_nothing_wrong(scene: Scene, damage: Any) -> None:
    kept = scene.archive.with_name("kept")
    shutil.copytree(scene.archive, kept)
    damage(scene)
    with pytest.raises(DataRefused, match="The archive is damaged") as refused:
        scene.replay()

    assert refused.value.fields["reason"] == "archive_corrupt"
    # Runs before the damage may be there, whole; the damaged one left nothing.
    if scene.published():
        assert scene.published() == [1]
        scene.assert_is(1)
    # With the archive mended the replay goes on.
    replay_into(scene.job, [kept], "kaltura")
    scene.assert_is(NIGHTS)


def test_a_forged_reply_is_refused_by_what_it_comes_to(scene: Scene) -> None:
    """Rewriting every checksum does not make the counts fit."""
    path = scene.manifest_path(2)
    manifest = layout.decode_manifest(path.read_bytes(), "m")
    first = scene.files(2)[0]
    head, replies = segment.unpack(first.read_bytes(), "s")
    pages = [replay.staged_again(reply, manifest.partner_id, None) for reply in replies]
    body = pages[0].body.replace(b'"status":3', b'"status":5', 3)
    assert body != pages[0].body
    pages[0].body = body
    sha256 = bytes.fromhex(layout.sha256_of(body))
    pages[0].facts = msgspec.structs.replace(pages[0].facts, body_sha256=sha256)
    packed = segment.pack(head, pages)
    first.write_bytes(packed)
    named = layout.Segment(
        name=manifest.segments[0].name,
        sha256=layout.sha256_of(packed),
        bytes=len(packed),
        replies=manifest.segments[0].replies,
        rows=manifest.segments[0].rows,
    )
    forged = msgspec.structs.replace(manifest, segments=[named, *manifest.segments[1:]])
    path.write_bytes(layout.encode_manifest(forged))
    with pytest.raises(DataRefused, match="differs from the original") as refused:
        scene.replay()

    assert refused.value.fields["reason"] == "replay_differs"
    assert scene.published() == [1]


def test_a_run_of_a_program_that_counted_otherwise_is_not_refused(
    database_url: str, tmp_path: Path
) -> None:
    """Until revision 0012, unchanged tokens in the second of an unreadable one did not count."""
    account = generate_account(54, seed=2)
    with SimulatorServer(account) as server:
        pattern = listed(server)[27]
        for number in range(6):
            account.insert(pattern | {"id": f"tied{number}"})
        job = archived(server, database_url, tmp_path / "archive")
        job.run()
        server.configure(poison=["tied3"])
        report = job.run()
    (path,) = (tmp_path / "archive").glob(f"partner-*/run-{report.run_id:010d}/manifest.json")
    manifest = layout.decode_manifest(path.read_bytes(), "m")
    assert manifest.row["holes"]

    # As the earlier program would have written both ledgers.
    counts = {"tokens_read": report.tokens_read - 3, "unchanged": report.unchanged - 3}
    row = manifest.row | counts
    del row["service"]
    ledger = [*manifest.ledger[:-1], row]
    path.write_bytes(layout.encode_manifest(msgspec.structs.replace(manifest, ledger=ledger)))
    job.query(
        "update kaltura.sync_run set tokens_read = %s, unchanged = %s, service = null "
        "where run_id = %s",
        *(*counts.values(), report.run_id),
    )
    assert check(job, tmp_path / "archive").equal


@pytest.mark.parametrize(
    ("tokens_read", "unchanged", "beside", "row"),
    [
        ([59, 56], [59, 56], 6, {}),
        ([56, 59], [57, 59], 6, {}),
        ([56, 59], None, 6, {}),
        ([52, 59], [52, 59], 6, {}),
        ([56, 59], [56, 59], 0, {}),
        ([56, 59], [56, 59], 6, {"service": None}),
    ],
    ids=["fewer", "unlike", "one", "more than there are", "no hole", "a later program"],
)
def test_a_loss_is_not_explained_by_another_way_of_counting(
    tokens_read: list[int], unchanged: list[int] | None, beside: int, row: dict[str, Any]
) -> None:
    differs: dict[str, list[Any]] = {"tokens_read": tokens_read}
    if unchanged is not None:
        differs["unchanged"] = unchanged
    shown = {7: {str(number) for number in range(beside)}}
    assert replay.counted_otherwise(row, differs, shown) == {}


def test_a_warehouse_that_is_not_empty_is_refused(scene: Scene, original: Scene) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        original.replay()
    scene.replay()
    again = scene.replay()
    assert (again.runs, again.already_there) == ([], NIGHTS)
    with pytest.raises(UsageError, match="not the beginning of this replay"):
        scene.replay(until=2)
    job_without_archive(scene.job).run()
    with pytest.raises(UsageError, match="is not empty"):
        scene.replay()


def test_an_interrupted_replay_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    read = replay.staged_again
    left = [0]

    def staged_again(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise EtlError("interrupted")
        return read(*arguments)

    attempts, done = 0, False
    while not done:
        attempts += 1
        left[0] = 4 * attempts
        with monkeypatch.context() as patch, contextlib.suppress(EtlError):
            patch.setattr(replay, "staged_again", staged_again)
            scene.replay()
            done = True
        published = scene.published()
        if published:
            scene.assert_is(published[-1])

    assert attempts > 2
    scene.assert_is(NIGHTS)
    assert_verified(scene.job.database_url)


KILLED_IN_THE_SECOND_RUN = """
import os, signal
from etl.replay import runs as replay
publish = replay.publish
def publish_one(database, run, *arguments, **options):
    if run.run_id == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(database, run, *arguments, **options)
replay.publish = publish_one
from etl.cli import main
main()
"""


@pytest.mark.parametrize("expired", [True, False])
def test_a_killed_replay_goes_on_when_it_is_known_to_be_dead(scene: Scene, expired: bool) -> None:
    killed = forked.call(
        *("replay", str(scene.archive)),
        env=forked.environment(DATABASE_URL=scene.job.database_url),
        code=KILLED_IN_THE_SECOND_RUN,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    scene.assert_is(1)

    # As if it had run on another machine: only its lease tells.
    (held,) = scene.job.query("select process from kaltura.sync_run where run_id = 2")
    scene.job.query("update kaltura.sync_run set process = 'elsewhere' where run_id = 2")
    with pytest.raises(LeaseHeld, match="was killed a moment ago"):
        scene.replay()
    if expired:
        scene.job.query(
            "update kaltura.sync_run set heartbeat_at = heartbeat_at - interval '1 day' "
            "where run_id = 2"
        )
    else:
        scene.job.query(
            "update kaltura.sync_run set process = %s where run_id = 2", held["process"]
        )
    assert [run.run_id for run in scene.replay().runs] == [2, 3]
    scene.assert_is(NIGHTS)


def test_the_command_line(original: Scene) -> None:
    archive = str(original.archive)
    done = original.command("replay", archive, "--into-schema", "again", "--until", "2", "--json")
    assert done.code == 0, done.err
    assert [run["run_id"] for run in done.report["runs"]] == [1, 2]
    assert_same_dump(dump(original.job.database_url, "again"), original.dumps[2])

    equal = original.command("replay", "--check", archive)
    assert equal.code == 0, equal.err
    assert "equal" in equal.out
    schemas = original.job.query("select nspname from pg_namespace where nspname ~ '^kaltura'")
    assert [row["nspname"] for row in schemas] == ["kaltura"]

    refused = original.command("replay", archive)
    assert refused.code == 2
    assert "is not empty" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument 'ARCHIVE"),
        (["{tmp}/none"], 78, "no archive of this program"),
        (["ftp://x/y"], 78, "no files can be kept"),
        (["{tmp}", "--into-schema", "No"], 2, "--into-schema must be"),
        (["{tmp}", "--check", "--until", "2"], 2, "--check compares"),
        (["{tmp}", "--until", "0"], 2, "--until"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(
    arguments: list[str], code: int, said: str, database_url: str, tmp_path: Path
) -> None:
    filled = [text.replace("{tmp}", str(tmp_path)) for text in arguments]
    ended = called("replay", *filled, DATABASE_URL=database_url)
    assert (ended.code, said in ended.err) == (code, True), ended.err


def test_a_check_names_what_differs(original: Scene) -> None:
    job = original.job
    (row,) = job.query("select min(token_id) as id from kaltura.upload_token")
    job.query("update kaltura.upload_token set file_name = 'other' where token_id = %s", row["id"])
    job.query("delete from kaltura.sync_page where run_id = 1")  # pruned: nothing is missed
    found = check(job, original.archive)

    assert not found.equal
    differing = {table.table: table for table in found.tables if not table.equal}
    assert list(differing) == ["upload_token"]
    table = differing["upload_token"]
    assert (table.only_in_warehouse, table.only_in_archive) == (1, 1)
    assert {found["token_id"] for found in table.rows} == {row["id"]}


def test_a_check_names_runs_that_only_one_of_both_has(original: Scene) -> None:
    shutil.rmtree(original.manifest_path(3).parent)
    refused = original.command("replay", "--check", str(original.archive), "--json")
    assert refused.code == 65, refused.err
    assert refused.report["equal"] is False
    assert refused.report["notes"] == ["run 3 has published and is not in the archive"]


def test_a_newer_program_reads_old_replies_anew(
    scene: Scene, original: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are decoded from the bodies: what a later version reads of them is there."""
    assert original.job.query("select token_id from kaltura.upload_token where extra is not null")
    monkeypatch.setattr(replay, "program_version", lambda: "99")

    def read_row_of_the_future(*arguments: Any, **options: Any) -> Any:
        outcome, position, coerced = read_row(*arguments, **options)
        if isinstance(outcome, Token) and outcome.extra is not None:
            outcome = outcome._replace(extra=None, attached_object_type="from extra")
        return outcome, position, coerced

    monkeypatch.setattr(records, "read_row", read_row_of_the_future)
    report = scene.replay()

    assert len(report.runs) == NIGHTS
    assert not scene.job.query("select token_id from kaltura.upload_token where extra is not null")
    assert scene.job.query(
        "select token_id from kaltura.upload_token where attached_object_type = 'from extra'"
    )
    stamps = "select run_id, published_at from kaltura.sync_run order by 1"
    assert scene.job.query(stamps) == original.job.query(stamps)
    assert_verified(scene.job.database_url)
