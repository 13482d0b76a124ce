"""The lease, the fence, resuming, and a commit whose reply is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from etl.errors import (
    ConfigurationError,
    DataRefused,
    LeaseHeld,
    ServiceUnavailable,
    WarehouseUnavailable,
)
from etl.process.identity import process_identity
from etl.warehouse.connecting import normalise_url
from etl.warehouse.engine import connect, transaction
from etl.warehouse.ledger.ending import fail_run
from etl.warehouse.ledger.lease import restart_walk
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.publish import publish
from etl.warehouse.load.resolve import audit_counts
from etl.warehouse.privacy.prune import prune_old_pages
from tests.support.nights import START, MakeNights, Nights, make_token, page_of, require_lease

WINDOW = timedelta(hours=6)


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    """With small batches: a lease is the same however rows are sent."""
    return make_nights(small=True)


def make_stale(nights: Nights, run: OpenRun) -> None:
    nights.query(
        "update kaltura.sync_run set heartbeat_at = heartbeat_at - interval '2 min' "
        "where run_id = %s",
        run.run_id,
    )


def test_second_run_of_a_partner_is_told_who_holds_the_lease(nights: Nights) -> None:
    first = nights.open()
    with pytest.raises(LeaseHeld, match=f"Run {first.run_id} of partner 102") as held:
        nights.open()

    assert held.value.fields["host"] == socket.gethostname()
    assert nights.open(partner_id=103).run_id > first.run_id


@pytest.mark.parametrize("here", [True, False])
def test_run_of_a_dead_process_is_taken_over_at_once(nights: Nights, here: bool) -> None:
    """If it ran on this machine; the rest wait for the lease."""
    first = nights.open()
    machine, namespace, pid, _ = str(process_identity()).split(" ")
    ended = f"{machine if here else 'elsewhere'} {namespace} {pid} 1"
    nights.query("update kaltura.sync_run set process = %s", ended)
    if not here:
        with pytest.raises(LeaseHeld):
            nights.open()
        return
    assert nights.open().run_id > first.run_id
    assert nights.ledger(first.run_id)["status"] == "abandoned"
    assert "process of the run died" in nights.ledger(first.run_id)["error_message"]


def test_of_many_that_open_at_once_one_gets_the_lease(make_nights: MakeNights) -> None:
    starters = [make_nights() for _ in range(6)]
    outcomes: list[str] = []
    barrier = threading.Barrier(len(starters))

    def start(nights: Nights) -> None:
        barrier.wait()
        try:
            nights.open()
            outcomes.append("open")
        except LeaseHeld:
            outcomes.append("held")

    threads = [threading.Thread(target=start, args=[nights]) for nights in starters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["held"] * 5 + ["open"]


def test_run_that_was_taken_over_can_neither_stage_nor_publish(make_nights: MakeNights) -> None:
    sleeper, nights = make_nights(), make_nights()
    run = sleeper.open()
    sleeper.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
    make_stale(nights, run)
    second = nights.open()

    assert nights.ledger(run.run_id)["status"] == "abandoned"
    with pytest.raises(LeaseHeld):
        sleeper.stage(run, page_of([make_token("b")], from_start=True, to_end=True))
    with pytest.raises(LeaseHeld):
        sleeper.publish(run)
    with pytest.raises(LeaseHeld):
        require_lease(sleeper.database, run)
    fail_run(sleeper.database, run, WarehouseUnavailable("late"))
    assert nights.ledger(run.run_id)["status"] == "abandoned"
    assert nights.ledger(second.run_id)["status"] == "running"
    assert nights.query("select 1 from kaltura.upload_token") == []
    assert nights.query("select 1 from kaltura.upload_token_staging") == []


def test_failed_run_is_resumed_with_its_pages(nights: Nights) -> None:
    tokens = [make_token(f"t{second}", START + second) for second in range(6)]
    first = nights.open()
    nights.stage(first, page_of(tokens[:4], from_start=True))
    fail_run(nights.database, first, ServiceUnavailable("The service\nis down"))
    ended = nights.ledger(first.run_id)
    assert (ended["status"], ended["error_kind"]) == ("failed", "service_unavailable")
    assert ended["error_message"] == "The service is down"

    run = nights.open(resume_window=WINDOW)
    assert (run.resumed_from, run.walk.walk_id) == (first.run_id, first.run_id)
    assert run.walk.coverage == first.walk.coverage
    assert (
        run.walk.next_seq,
        run.walk.counts.pages,
        run.walk.counts.rows_read,
        run.walk.counts.staged,
    ) == (1, 1, 4, 4)
    nights.stage(run, page_of(tokens[2:], to_end=True))
    nights.publish(run)

    row = nights.ledger(run.run_id)
    assert (row["inserted"], row["pages"], row["rows_read"]) == (6, 2, 8)
    assert row["certificate"] == "{(,)}"
    (spans,) = nights.query(
        "select range_agg(span)::text as spans from kaltura.sync_page where run_id = %s",
        run.run_id,
    )
    assert spans["spans"] == "{(,)}"
    assert nights.open(resume_window=WINDOW).resumed_from is None


@pytest.mark.parametrize(
    "options",
    [
        {"resume_window": None},
        {"resume_window": WINDOW, "mode": "backfill"},
        {"resume_window": timedelta(0)},
    ],
)
def test_run_that_must_not_be_resumed_leaves_nothing_behind(
    nights: Nights, options: dict[str, Any]
) -> None:
    first = nights.open()
    nights.stage(first, page_of([make_token("a")], from_start=True, to_end=True))
    fail_run(nights.database, first, ServiceUnavailable("down"))
    run = nights.open(**options)

    assert (run.resumed_from, run.walk.counts.staged, len(run.walk.coverage)) == (None, 0, 0)
    assert nights.query("select 1 from kaltura.upload_token_staging") == []


def test_emptied_staging_is_noticed(nights: Nights) -> None:
    run = nights.open()
    nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
    nights.query("truncate kaltura.upload_token_staging")

    counts = audit_counts(nights.database, run)
    assert (counts.staged_now, counts.staged_expected) == (0, 1)
    with pytest.raises(DataRefused) as refused:
        nights.publish(run)
    assert refused.value.fields["reason"] == "staging_lost"

    restart_walk(nights.database, run)
    assert (len(run.walk.coverage), run.walk.next_seq) == (0, 0)
    nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
    nights.publish(run)
    assert nights.token("a")["version"] == 1


def test_walk_whose_staging_was_emptied_is_not_resumed(nights: Nights) -> None:
    first = nights.open()
    nights.stage(first, page_of([make_token("a")], from_start=True, to_end=True))
    fail_run(nights.database, first, ServiceUnavailable("down"))
    nights.query("truncate kaltura.upload_token_staging")

    assert nights.open(resume_window=WINDOW).resumed_from is None


def test_failing_a_run_does_not_raise_without_a_server(make_nights: MakeNights) -> None:
    nights = make_nights()
    run = nights.open()
    offline = make_nights("postgresql://127.0.0.1:1/none?connect_timeout=1")
    fail_run(offline.database, run, WarehouseUnavailable("lost"))

    assert nights.ledger(run.run_id)["status"] == "running"


def test_failing_a_run_takes_a_new_connection_if_the_old_one_is_lost(nights: Nights) -> None:
    run = nights.open()
    nights.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
        "and datname = current_database()"
    )
    fail_run(nights.database, run, WarehouseUnavailable("lost"))

    assert nights.ledger(run.run_id)["status"] == "failed"


def test_prune_deletes_old_pages_and_rows_only(nights: Nights) -> None:
    nights.night([make_token("a"), make_token("a", START + 1)])
    nights.night([make_token("a", START + 1)])
    nights.query(
        "update kaltura.sync_run set started_at = started_at - interval '91 days' "
        "where run_id = (select min(run_id) from kaltura.sync_run)"
    )
    assert prune_old_pages(nights.database, 90) >= 2
    (left,) = nights.query("select array_agg(distinct run_id) as runs from kaltura.sync_page")
    assert len(left["runs"]) == 1
    assert nights.query("select 1 from kaltura.rejected_row") == []


# The commit whose reply is lost -------------------------------------------------------------


class CommitProxy:
    """A Unix socket before the server's that cuts the link at a COMMIT, when told to."""

    def __init__(self, folder: Path, server: str) -> None:
        self.server, self.cut = server, ""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / ".s.PGSQL.5432"))
        self.listener.listen()
        self.sockets = [self.listener]
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        _shut(*self.sockets)
        for thread in self.threads:
            thread.join(10)
        for each in self.sockets:
            each.close()

    def _start(self, work: Callable[..., None], *sockets: socket.socket) -> None:
        self.threads.append(threading.Thread(target=work, args=sockets, daemon=True))
        self.threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.server)
                self.sockets += [client, server]
                self._start(self._to_server, client, server)
                self._start(self._to_client, client, server)

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                if b"COMMIT\0" in data and self.cut == "request":
                    self.cut = ""
                    break
                server.sendall(data)
        _shut(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if b"COMMIT\0" in data and self.cut == "reply":
                    self.cut = ""
                    break
                client.sendall(data)
        _shut(client, server)


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def commit_proxy(folder: Path, url: str) -> Iterator[tuple[CommitProxy, str]]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    socket_folder = Path(query["host"][0])
    port = query.get("port", ["5432"])[0]
    proxy = CommitProxy(folder, str(socket_folder / f".s.PGSQL.{port}"))
    through = parts._replace(query=f"host={quote(str(folder), safe='')}&port=5432")
    try:
        yield proxy, through.geturl()
    finally:
        proxy.close()


def test_run_whose_commit_was_not_answered_has_published(
    make_nights: MakeNights, database_url: str, private_folder: Path
) -> None:
    with commit_proxy(private_folder, database_url) as (proxy, url):
        nights = make_nights(url)
        run = nights.open()
        nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
        counts = audit_counts(nights.database, run)
        proxy.cut = "reply"
        stamp = publish(nights.database, run, counts, holes=[], overrides={}, requests=1, retries=0)

    assert proxy.cut == ""
    assert nights.token("a")["valid_from"] == stamp
    assert nights.ledger(run.run_id)["status"] == "succeeded"


def test_run_whose_commit_did_not_arrive_has_failed(
    make_nights: MakeNights, database_url: str, private_folder: Path
) -> None:
    with commit_proxy(private_folder, database_url) as (proxy, url):
        nights = make_nights(url)
        run = nights.open()
        nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
        counts = audit_counts(nights.database, run)
        proxy.cut = "request"
        with pytest.raises(WarehouseUnavailable):
            publish(nights.database, run, counts, holes=[], overrides={}, requests=1, retries=0)

    assert nights.query("select 1 from kaltura.upload_token") == []
    assert nights.ledger(run.run_id)["status"] == "failed"
    assert make_nights().open(resume_window=WINDOW).resumed_from == run.run_id


# The door -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_form_of_the_url_works(database_url: str, scheme: str) -> None:
    engine = connect(f"{scheme}://" + database_url.partition("://")[2])
    with transaction(engine) as connection:
        assert connection.exec_driver_sql("show timezone").scalar() == "UTC"
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    ["mysql://root:geheim@db/x", "postgresql://u:geheim@h:port/x", "postgresql://u:%zzgeheim@h/x"],
)
def test_wrong_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        connect(url).connect()

    assert "geheim" not in str(refused.value)


def test_unreachable_server_is_unavailable() -> None:
    assert normalise_url("postgres://h/x") == "postgresql://h/x"
    engine = connect("postgresql://u:geheim@127.0.0.1:1/x")
    with pytest.raises(WarehouseUnavailable) as refused, transaction(engine):
        pass

    assert "geheim" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("select * from kaltura.no_such_table", ConfigurationError),
        ("select 1 / 0", DataRefused),
        ("set transaction read only; create table public.x ()", WarehouseUnavailable),
        ("select pg_terminate_backend(pg_backend_pid())", WarehouseUnavailable),
        ("set local statement_timeout = 50; select pg_sleep(5)", WarehouseUnavailable),
    ],
)
def test_error_of_postgres_becomes_ours_without_its_text(
    database_url: str, statement: str, error: type[Exception]
) -> None:
    engine = connect(database_url)
    with pytest.raises(error) as raised, transaction(engine) as connection:
        connection.exec_driver_sql(statement)

    assert "no_such_table" not in str(raised.value)
    with transaction(engine) as connection:
        assert connection.exec_driver_sql("select 1").scalar() == 1
    engine.dispose()
