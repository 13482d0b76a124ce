"""Each way in which no connection comes about: what is said, and the exit code.

A real libpq and a real Postgres; where Postgres or a pooler cannot easily be brought to say
something, its text is in the table.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from etl.errors import CredentialsRefused, EtlError, WarehouseUnavailable
from etl.warehouse.connecting import CAUSES, connect_error
from etl.warehouse.engine import connect, driver_connection, transaction
from etl.warehouse.schema.revision import open_connection, schema_state
from tests.support.own_server import PORT, OwnServer
from tests.support.tls_front import TlsFront
from tests.support.wire import Authority

SECRET = "canary-0123"
OK = ("", 0)


def failure_of(url: str) -> EtlError:
    with pytest.raises(EtlError) as caught, open_connection(url):
        pass
    error = caught.value
    assert SECRET not in error.message
    assert (error.__cause__, error.__suppress_context__) == (None, True)
    return error


@pytest.fixture(scope="module")
def refusing(shared_server: OwnServer) -> OwnServer:
    """Roles and databases that it refuses, each in its way."""
    folder = shared_server.folder / "data"
    rules = (folder / "pg_hba.conf").read_text()
    (folder / "pg_hba.conf").write_text(
        f"local all with_password scram-sha-256\nlocal all rejected reject\n{rules}"
    )
    with closing(psycopg.connect(shared_server.url(), autocommit=True)) as connection:
        for statement in (
            "create role with_password login password 'right'",
            "create role rejected login",
            "create role cannot_login nologin",
            "create role no_room login connection limit 0",
            "create role plain login",
            "create database closed_one allow_connections false",
            "create database private_one",
            "revoke connect on database private_one from public",
            "select pg_reload_conf()",
        ):
            connection.execute(statement.encode())
        # Its answer to a wrong password shows that it has read the rules again.
        while True:
            try:
                psycopg.connect(shared_server.url(user="rejected")).close()
            except psycopg.OperationalError:
                return shared_server


ANSWERS = {
    "unknown role": ("nobody_here", "postgres", "", "login", 77),
    "a role that may not log in": ("cannot_login", "postgres", "", "login", 77),
    "wrong password": (f"with_password:{SECRET}", "postgres", "", "login", 77),
    "no password": ("with_password", "postgres", "", "login", 77),
    "rejected by pg_hba.conf": ("rejected", "postgres", "", "login", 77),
    "a method that is not allowed": ("plain", "postgres", "&require_auth=md5", "login", 78),
    "no right to connect": ("plain", "private_one", "", "privilege", 77),
    "no such database": ("plain", "nothing_here", "", "no_database", 78),
    "a database that is closed": ("plain", "closed_one", "", "database_closed", 78),
    "no room for the role": ("no_room", "postgres", "", "too_many_connections", 74),
    "an unknown setting": ("plain", "postgres", "&options=-cnone%3D1", "parameter", 78),
    "a setting's wrong value": ("plain", "postgres", "&options=-cwork_mem%3Dx", "parameter", 78),
    "not the kind that is wanted": (
        *("plain", "postgres", "&target_session_attrs=standby"),
        *("wrong_server", 74),
    ),
}


@pytest.mark.parametrize(("user", "name", "more", "reason", "code"), ANSWERS.values(), ids=ANSWERS)
def test_what_postgres_answers(
    refusing: OwnServer, user: str, name: str, more: str, reason: str, code: int
) -> None:
    error = failure_of(refusing.url(name, user) + more)

    assert (error.fields["reason"], error.exit_code) == (reason, code), error.message
    assert f"database {name} at {refusing.folder}, port {PORT}: " in error.message
    assert error.fields["database"] == name


WAYS = {
    "refused": ("u:{secret}@127.0.0.1:1/d", "refused", 74, "at 127.0.0.1, port 1:"),
    "several, refused": ("u@127.0.0.1:1,127.0.0.1:2/d", "refused", 74, "several ports:"),
    "no name": ("u:{secret}@no-such-host.invalid/d", "dns", 74, "no-such-host.invalid, port 5432"),
    "an impossible name": ("u@a..b/d", "host_name", 78, "at a..b, port 5432"),
    "no way": ("u@255.255.255.255/d", "unreachable", 74, "at 255.255.255.255"),
    "no socket": ("u@/d?host=/nowhere", "no_socket", 74, "at /nowhere"),
    "no such sslmode": ("u@127.0.0.1/d?sslmode=always", "parameter", 78, "check sslmode"),
    "no such binding": ("u@127.0.0.1/d?channel_binding=x", "parameter", 78, "channel_binding"),
    "no number": ("u@127.0.0.1/d?connect_timeout=x", "parameter", 78, "connect_timeout"),
    "no number for libpq": ("u@127.0.0.1:1/d?keepalives=x", "parameter", 78, "PG… variable"),
    "contradiction": (
        *("u@127.0.0.1/d?sslmode=require&sslrootcert=system", "parameter", 78),
        "contradicts",
    ),
    "no service": ("u@/d?service=none", "parameter", 78, "PG… variable"),
    "no address": ("u@h/d?hostaddr=db", "parameter", 78, "PG… variable"),
    "no version": (
        *("u@127.0.0.1:1/d?ssl_min_protocol_version=x", "parameter", 78),
        "(refused: ssl_min_protocol_version)",
    ),
    "no range of versions": (
        "u@127.0.0.1:1/d?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
        *("parameter", 78, "contradicts"),
    ),
    "no SCRAM key": ("u@127.0.0.1:1/d?scram_client_key=x", "parameter", 78, "PG… variable"),
    "no time between probes": (
        *("u@127.0.0.1:1/d?keepalives_idle=-1", "parameter", 78),
        "PG… variable",
    ),
    "no folder of a socket": (f"u@/d?host=/{'x' * 120}", "parameter", 78, "PG… variable"),
}


@pytest.mark.parametrize(("rest", "reason", "code", "said"), WAYS.values(), ids=WAYS)
def test_the_way_to_the_server(rest: str, reason: str, code: int, said: str) -> None:
    error = failure_of("postgresql://" + rest.format(secret=SECRET))

    assert (error.fields["reason"], error.exit_code) == (reason, code), error.message
    assert said in error.message
    assert error.message.startswith("No connection to the warehouse, database d at ")


def test_a_name_that_takes_too_long_to_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's function knows no deadline."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait())
    try:
        error = failure_of(f"postgresql://u:{SECRET}@db.example/d?connect_timeout=1")
    finally:
        released.set()

    assert (error.fields["reason"], error.exit_code) == ("dns", 74)
    assert "at db.example, port 5432: the host name cannot be resolved" in error.message


VERIFY = "sslmode=verify-full&sslrootcert={ca}"
CERTIFICATES: dict[
    str, tuple[str, Callable[[Authority, Authority], ssl.SSLContext | None], tuple[str, int]]
] = {
    "accepted": (VERIFY, lambda own, _: own.context(), OK),
    "not verified": ("sslmode=require", lambda own, _: own.context(days=-1), OK),
    "no authorities": ("sslmode=verify-full", lambda own, _: own.context(), ("tls_ca_file", 78)),
    "no such file": (
        "sslmode=verify-full&sslrootcert=/none.pem",
        lambda own, _: own.context(),
        ("tls_ca_file", 78),
    ),
    "no PEM file": (
        "sslmode=verify-full&sslrootcert={none}",
        lambda own, _: own.context(),
        ("tls_ca_file", 78),
    ),
    "system": (
        "sslmode=verify-full&sslrootcert=system",
        lambda own, _: own.context(),
        ("tls_certificate", 78),
    ),
    "unknown authority": (
        VERIFY,
        lambda own, other: own.context(signed_by=other),
        ("tls_certificate", 78),
    ),
    "expired": (VERIFY, lambda own, _: own.context(days=-1), ("tls_certificate", 78)),
    "another host": (VERIFY, lambda own, _: own.context(host="db.example"), ("tls_host_name", 78)),
    "no TLS": ("sslmode=require", lambda _own, _other: None, ("tls_not_offered", 78)),
    "old TLS": (
        "sslmode=require&ssl_min_protocol_version=TLSv1.3",
        lambda own, _: up_to_tls_12(own.context()),
        ("tls_protocol", 78),
    ),
}


def up_to_tls_12(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    return tuple(Authority(tmp_path_factory.mktemp(name)) for name in ("own", "other"))  # type: ignore[return-value]


@pytest.mark.parametrize(("query", "context", "expected"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_tls(
    shared_server: OwnServer,
    authorities: tuple[Authority, Authority],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    context: Callable[[Authority, Authority], ssl.SSLContext | None],
    expected: tuple[str, int],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    none = tmp_path / "none.pem"
    none.write_text("nothing")
    own = authorities[0]
    behind = str(shared_server.folder / f".s.PGSQL.{PORT}")
    with closing(TlsFront(behind, context(*authorities))) as front:
        query = query.format(ca=quote(str(own.file)), none=quote(str(none)))
        url = f"postgresql://postgres:{SECRET}@127.0.0.1:{front.port}/postgres?{query}"
        if expected == OK:
            assert schema_state(url).current is None
            return
        error = failure_of(url)

    assert (error.fields["reason"], error.exit_code) == expected, error.message
    assert f"database postgres at 127.0.0.1, port {front.port}: " in error.message


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_another_kind_of_server_on_that_port(sslmode: str) -> None:
    with closing(TlsFront("", answer=b"HTTP/1.1 400 Bad Request\r\n\r\n")) as front:
        error = failure_of(f"postgresql://u@127.0.0.1:{front.port}/d?sslmode={sslmode}")

    assert (error.fields["reason"], error.exit_code) == ("not_postgres", 78), error.message


TEXTS = {
    'FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d", no encryption': (
        *("login", 77),
        "add sslmode=require",
    ),
    'FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d", SSL encryption\n'
    'FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d", no encryption': (
        *("login", 77),
        "have an entry added",
    ),
    'FATAL:  pg_hba.conf rejects connection for host "::1", user "u", database "d"': (
        *("login", 77),
        "an entry of the server's pg_hba.conf rejects this user",
    ),
    'invalid sslmode value: "x"': ("parameter", 78, "(refused: sslmode)"),
    'unrecognized configuration parameter "no_such"': ("parameter", 78, "(refused: no_such)"),
    'invalid value for parameter "work_mem": "x"': ("parameter", 78, "(refused: work_mem)"),
    'invalid integer value "x" for connection option "port"': ("parameter", 78, "(refused: port)"),
    "FATAL:  Tenant or user not found": ("login", 77, "the user"),
    "FATAL:  SASL authentication failed": ("login", 77, "the password"),
    "FATAL:  connection requires a valid client certificate": ("client_certificate", 77, "sslcert"),
    "channel binding required, but server did not use it": ("login", 78, "channel_binding"),
    "FATAL:  no such database: d": ("no_database", 78, "create it"),
    "FATAL:  sorry, too many clients already": ("too_many_connections", 74, "limit"),
    "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute": (
        *("too_many_connections", 74),
        "limit",
    ),
    "FATAL:  no more connections allowed (max_client_conn)": ("too_many_connections", 74, "limit"),
    "FATAL:  Max client connections reached": ("too_many_connections", 74, "limit"),
    "FATAL:  the database system is starting up": ("starting", 74, "try again later"),
    "FATAL:  the database system is shutting down": ("starting", 74, "try again later"),
    "FATAL:  server login has been failing, try again later": ("pooler_server", 74, "pooler"),
    "FATAL:  query_wait_timeout": ("pooler_server", 74, "pooler"),
    "FATAL:  unsupported startup parameter: options": ("pooler_parameter", 78, "options"),
    "FATAL:  statement pooling is not supported": ("statement_pooling", 78, "pool_mode"),
    "ERROR:  Endpoint ID is not specified.": ("parameter", 78, "options"),
    'private key file "k" has group or world access': ("tls_client_key", 78, "0600"),
    'could not read certificate file "c": No such file or directory': (
        *("tls_client_key", 78),
        "sslcert",
    ),
    'connection to server on socket "/s" failed: Permission denied': (
        *("socket_permission", 77),
        "permissions",
    ),
    "connection timeout expired": ("timeout", 74, "connect_timeout"),
    'FATAL:  Passwort-Authentifizierung für Benutzer "u" fehlgeschlagen': (
        *("connection_lost", 74),
        "its log says why",
    ),
    # What a server answered counts, not that its other address did not.
    "Connection refused\n- host: 'h': FATAL:  password authentication failed": (
        *("login", 77),
        "the password",
    ),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_texts_that_cannot_easily_be_had_here(text: str, expected: tuple[str, int, str]) -> None:
    error = connect_error(text, f"postgresql://u:{SECRET}@db.example:6000/d")

    assert (error.fields["reason"], error.exit_code) == expected[:2]
    assert error.message.startswith(
        "No connection to the warehouse, database d at db.example, port 6000: "
    )
    assert expected[2] in error.message
    assert SECRET not in error.message


def test_every_cause_is_tried_here() -> None:
    tried = {each[3] for each in ANSWERS.values()} | {each[1] for each in WAYS.values()}
    tried |= {each[2][0] for each in CERTIFICATES.values()} | {each[0] for each in TEXTS.values()}
    assert {each.reason for each in CAUSES} - tried == {"not_postgres"}  # has a test of its own


def test_a_connection_that_breaks_names_its_server(shared_server: OwnServer) -> None:
    engine = connect(shared_server.url())
    with (
        pytest.raises(WarehouseUnavailable) as lost,
        transaction(engine) as connection,
    ):
        driver_connection(connection).pgconn.finish()
    engine.dispose()

    assert lost.value.fields["reason"] == "connection_lost"
    assert f"database postgres at {shared_server.folder}, port {PORT}," in lost.value.message


def test_a_right_that_is_taken_while_it_runs(refusing: OwnServer) -> None:
    with (
        pytest.raises(CredentialsRefused) as refused,
        open_connection(refusing.url(user="plain")) as connection,
    ):
        connection.exec_driver_sql("select pg_read_file('/etc/passwd')")

    assert (refused.value.exit_code, refused.value.fields["reason"]) == (77, "privilege")
