"""Opening a connection, and what it means when that fails: one table of causes.

libpq gives a text and no SQLSTATE.  Its own texts, and those of poolers, are in English; those of
a server may be translated, and then the cause is not recognised (``_UNKNOWN``).  No text is passed
on: it may repeat parts of the URL.  What is named is host, port and database.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from etl.errors import ConfigurationError, CredentialsRefused, EtlError, WarehouseUnavailable
from etl.process.resolve import addresses_of
from etl.settings.values import database_address, database_url

CONNECT_SECONDS: Final = 10
APPLICATION: Final = "kaltura-etl"
"""Name of our sessions, unless the URL gives another."""
_DEFAULTS: Final[dict[str, object]] = {
    "application_name": APPLICATION,
    "connect_timeout": CONNECT_SECONDS,
    # A host that vanished without a FIN is noticed after a minute, not after two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


def normalise_url(url: str) -> str:
    """``url`` as libpq reads it: ``postgres://`` and ``postgresql+psycopg://`` are accepted too.

    Raises ConfigurationError, which does not repeat the URL.
    """
    try:
        normal = database_url(url)
    except ValueError as error:
        raise ConfigurationError(f"DATABASE_URL {error}", setting="DATABASE_URL") from None
    try:
        ports = str(conninfo_to_dict(normal).get("port", "")).split(",")
    except (psycopg.Error, UnicodeError):
        ports = ["?"]
    # libpq would find a wrong port only when it connects.
    if not all(port == "" or (port.isascii() and port.isdigit()) for port in ports):
        raise ConfigurationError(
            "DATABASE_URL cannot be read: check it, and percent-encode special characters in "
            "the user, the password and the folder of a socket",
            setting="DATABASE_URL",
        )
    return normal


def open_driver_connection(url: str) -> psycopg.Connection[Any]:
    """A connection to a normalised URL.

    libpq parses the URL itself, so every form that it knows works (several hosts, sockets,
    certificate files).  Raises the errors of ``CAUSES``.
    """
    given = conninfo_to_dict(url)
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}
    _require_names_in_time(defaults | given, url)
    try:
        # Prepared statements belong to a server connection, which PgBouncer may exchange.
        return psycopg.connect(url, prepare_threshold=None, client_encoding="utf8", **defaults)  # type: ignore[arg-type]
    except (psycopg.Error, UnicodeError) as error:
        raise connect_error(str(error), url) from None


def _require_names_in_time(parameters: Mapping[str, object], url: str) -> None:
    """Raise if the host names are not resolved within connect_timeout.

    psycopg resolves them too, but waits as long as the system does.  Names that do not resolve at
    all are its business.
    """
    given = str(parameters["connect_timeout"])
    ends_at = time.monotonic() + (
        int(given) if given.isdecimal() and int(given) else CONNECT_SECONDS
    )

    def wait_seconds() -> float:
        if (left := ends_at - time.monotonic()) <= 0:
            raise TimeoutError
        return left

    hosts = "" if parameters.get("hostaddr") else str(parameters.get("host") or "")
    for host in hosts.split(","):
        if host and not host.startswith(("/", "@")):
            try:
                addresses_of(host, 0, wait_seconds)
            except TimeoutError:
                raise connect_error("name resolution timed out", url) from None
            except (OSError, UnicodeError):
                continue


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there is no connection.  ``said`` ends the sentence that names the server."""

    reason: str
    pattern: str
    """Of the text of libpq, of Postgres or of a pooler."""
    kind: type[EtlError]
    said: str
    sqlstate: str | None = None
    """What Postgres meant, where its text comes without one."""


def connect_error(text: str, url: str) -> EtlError:
    """The error of ours for ``text``, which is that of psycopg."""
    cause = next((each for each in CAUSES if re.search(each.pattern, text)), _UNKNOWN)
    address = database_address(url, os.environ)
    state = f" (SQLSTATE {cause.sqlstate})" if cause.sqlstate else ""
    named = _PARAMETER.search(text) if cause.reason == "parameter" else None
    name = f" (refused: {named[1]})" if named else ""
    return cause.kind(
        f"No connection to the warehouse, {place_text(**address)}: {cause.said}{name}{state}",
        reason=cause.reason,
        sqlstate=cause.sqlstate,
        **address,
    )


_PARAMETER: Final = re.compile(
    r'(?:invalid "?(?=\w+"? value:)|parameter "|for connection option "|bad value for )([a-z_.]+)'
)
"""A parameter by its name, never its value."""


def place_text(host: object, port: object, database: object) -> str:
    """``database etl at db.example, port 5432``, from what ``database_address`` gives."""
    where = f"at {host}" if host else "at the local socket"
    name = f"database {database}" if database else "the user's own database"
    return f"{name} {where}, " + ("several ports" if port is None else f"port {port}")


POOLER: Final = (
    Cause(
        "statement_pooling",
        r"statement pooling",
        ConfigurationError,
        "the connection pooler is in statement mode, which allows no transactions: name a database "
        "that it pools by transactions or sessions (pool_mode), or the server itself",
        "08P01",
    ),
    Cause(
        "pooler_parameter",
        r"unsupported startup parameter",
        ConfigurationError,
        "the connection pooler does not accept a parameter of DATABASE_URL, such as options: leave "
        "it out, or name it in the pooler's ignore_startup_parameters",
        "08P01",
    ),
)
"""What PgBouncer says with the SQLSTATE of a protocol violation, also in answer to a statement."""

# Where several addresses were tried, the text has the failure of each: the first cause in this
# order counts.  What a Postgres server answered says more than what happened on the way to it.
CAUSES: Final = (
    # What Postgres answers.  https://www.postgresql.org/docs/current/errcodes-appendix.html
    Cause(
        "login",
        r"role .* does not exist|is not permitted to log in|no such user|Tenant or user not found",
        CredentialsRefused,
        "Postgres does not know the user of DATABASE_URL, or does not let it log in: check the "
        "user, or have the role created with LOGIN",
        "28000",
    ),
    Cause(
        "client_certificate",
        r"valid client certificate|certificate authentication failed|certificate required",
        CredentialsRefused,
        "Postgres demands a client certificate, or refuses this one: name the files of one for "
        "this user in sslcert and sslkey",
        "28000",
    ),
    Cause(
        "login",
        r"authentication failed|no password supplied|client password must be",
        CredentialsRefused,
        "Postgres refused the user or the password: check both in DATABASE_URL (a password may "
        "also come from PGPASSWORD or ~/.pgpass)",
        "28P01",
    ),
    Cause(
        "login",
        r"pg_hba\.conf rejects",
        CredentialsRefused,
        "an entry of the server's pg_hba.conf rejects this user, this database or this machine's "
        "address, perhaps without TLS only: add sslmode=require, or have the entry changed",
        "28000",
    ),
    Cause(
        "login",
        r"no pg_hba\.conf entry.*SSL encryption",
        CredentialsRefused,
        "the server's pg_hba.conf does not admit this user to this database from this machine's "
        "address: have an entry added",
        "28000",
    ),
    Cause(
        "login",
        r"no pg_hba\.conf entry",
        CredentialsRefused,
        "the server's pg_hba.conf does not admit this user to this database from this machine's "
        "address, or does so with TLS only: add sslmode=require, or have an entry added",
        "28000",
    ),
    Cause(
        "login",
        r"authentication method requirement|channel binding (is )?required|authentication method "
        r"\d+ not supported|none of the server's SASL",
        ConfigurationError,
        "the server offers no way to log in that require_auth or channel_binding allows: change "
        "that parameter, or the server's",
    ),
    Cause(
        "privilege",
        r"permission denied for database|does not have CONNECT privilege",
        CredentialsRefused,
        "the role may not connect to this database: as its owner,  grant connect on database … to "
        "the role",
        "42501",
    ),
    Cause(
        "no_database",
        r"database .* does not exist|no such database",
        ConfigurationError,
        "there is no such database: create it, or correct DATABASE_URL",
        "3D000",
    ),
    Cause(
        "database_closed",
        r"is not currently accepting connections",
        ConfigurationError,
        "this database accepts no connections (allow_connections is false, as for a template): "
        "name another in DATABASE_URL",
        "55000",
    ),
    Cause(
        "too_many_connections",
        r"too many (clients|connections)|remaining connection slots|no more connections allowed|"
        r"[Mm]ax client connections|reserved for",
        WarehouseUnavailable,
        "it has too many connections already: close some, raise the limit of the server, the "
        "database or the role, or try again later",
        "53300",
    ),
    Cause(
        "starting",
        r"the database system is (starting|shutting|not yet accepting|in recovery)",
        WarehouseUnavailable,
        "the server is starting or stopping: try again later",
        "57P03",
    ),
    *POOLER,
    Cause(
        "pooler_server",
        r"server login has been failing|query_wait_timeout|client_login_timeout|pooler error",
        WarehouseUnavailable,
        "the connection pooler answers, but has no connection to the server for us: check the "
        "server behind it, or try again later",
    ),
    Cause(
        "parameter",
        r"unrecognized configuration parameter|invalid value for parameter|permission denied to set"
        r" parameter|Endpoint ID is not specified",
        ConfigurationError,
        "the server does not accept a setting that options, PGOPTIONS or another parameter of "
        "DATABASE_URL asks for: correct it, or leave it out",
    ),
    Cause(
        "wrong_server",
        r"session is (not )?read-only|server is (not )?in (hot )?(standby|recovery)",
        WarehouseUnavailable,
        "no server that was tried is of the kind that target_session_attrs asks for: name the "
        "primary, or wait until a failover is over",
    ),
    # The parameters, before anything is sent.
    Cause(
        "parameter",
        r'invalid "?\w+"? value|for connection option|bad value for|weak sslmode|'
        r"could not match \d+|"
        r"port number|definition of service|invalid connection option|GSSAPI encryption required|"
        r"could not parse network address|socket path .* is too long|invalid SCRAM \w+ key|"
        r"setsockopt\(\w+\) failed: Invalid argument|invalid SSL protocol version range",
        ConfigurationError,
        "a parameter of DATABASE_URL (or a PG… variable of the environment) has a value that libpq "
        "does not accept, or that contradicts another one: check sslmode, sslrootcert, "
        "channel_binding, target_session_attrs, connect_timeout and those that you have set",
    ),
    # TLS
    Cause(
        "tls_ca_file",
        r"root certificate file|root\.crt|could not (load|read) (system )?root certificate|"
        r"certificate revocation list",
        ConfigurationError,
        "the file of certificate authorities cannot be read: name a PEM file, or system, in "
        "sslrootcert (PGSSLROOTCERT); its default is ~/.postgresql/root.crt",
    ),
    Cause(
        "tls_client_key",
        r"(certificate|private key) file|could not load (private key|client)|sslcertmode",
        ConfigurationError,
        "the client certificate or its key cannot be used: check the files of sslcert and sslkey; "
        "the key's mode must be 0600",
    ),
    Cause(
        "tls_host_name",
        r"does not match host name|host name must be specified",
        ConfigurationError,
        "the server's certificate is for another host name: write the name of the certificate in "
        "DATABASE_URL (and the address in hostaddr, if need be), or have it reissued",
    ),
    Cause(
        "tls_certificate",
        r"certificate verify failed|provider signature failure|self.signed certificate|"
        r"certificate has expired",
        ConfigurationError,
        "the server's certificate is not acceptable, because it has expired or is not signed by a "
        "known authority: name the file of the one that signed it in sslrootcert, or have it "
        "renewed",
    ),
    Cause(
        "tls_not_offered",
        r"does not support SSL|SSL was required|SSL support is not compiled in",
        ConfigurationError,
        "the server speaks no TLS, which sslmode asks for: switch it on there (ssl = on), or check "
        "host and port",
    ),
    Cause(
        "tls_protocol",
        r"SSL error: .*(alert|protocol|version|handshake|cipher|unsupported)|direct SSL|ALPN",
        ConfigurationError,
        "the server and this program agree on no version or way of TLS: check "
        "ssl_min_protocol_version and sslnegotiation, the server's TLS settings, and the port",
    ),
    # The way to the server
    Cause(
        "not_postgres",
        r"invalid response to (SSL|GSSAPI?)|expected authentication request|received invalid "
        r"protocol|unexpected response|protocol version",
        ConfigurationError,
        "what answers there is not Postgres: check host and port (5432, unless it was changed)",
    ),
    Cause(
        "host_name",
        r"'idna' codec|label (empty|too long)",
        ConfigurationError,
        "that is not a possible host name: correct it in DATABASE_URL",
    ),
    Cause(
        "dns",
        r"failed to resolve host|could not translate host name|name resolution timed out",
        WarehouseUnavailable,
        "the host name cannot be resolved: check its spelling in DATABASE_URL, and the DNS of this "
        "machine; try again later",
    ),
    Cause(
        "refused",
        r"Connection refused",
        WarehouseUnavailable,
        "the connection was refused, so no server listens there: check host and port, start "
        "Postgres, or try again later",
    ),
    Cause(
        "no_socket",
        r"on socket .*(No such file|Not a directory)",
        WarehouseUnavailable,
        "no server listens at that socket: check its folder and port, start Postgres, or try again "
        "later",
    ),
    Cause(
        "socket_permission",
        r"on socket .*Permission denied",
        CredentialsRefused,
        "this user may not open that socket: check the permissions of its folder",
    ),
    Cause(
        "timeout",
        r"timeout expired|timed out",
        WarehouseUnavailable,
        "no answer within connect_timeout: check host, port and firewalls, or try again later",
    ),
    Cause(
        "unreachable",
        r"unreachable|No route to host|Network is down|Cannot assign requested address",
        WarehouseUnavailable,
        "there is no way to that address: check the host, the network and whether it needs IPv6, "
        "or try again later",
    ),
)

_UNKNOWN: Final = Cause(
    "connection_lost",
    "",
    WarehouseUnavailable,
    "it was refused or broke while it was opened; its log says why. Check that it runs, and try "
    "again later",
)
