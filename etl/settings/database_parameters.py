"""Parameters of ``DATABASE_URL``: which libpq knows, and what to write instead of others.

Hosting services show an address for each tool, and the one that is copied may be that of another
tool: its parameters are not libpq's.
"""

from __future__ import annotations

import difflib
import re
from typing import Final
from urllib.parse import unquote

# fmt: off
KNOWN: Final = frozenset(
    {
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
        "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host",
        "hostaddr", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
        "krbsrvname", "load_balance_hosts", "max_protocol_version", "min_protocol_version",
        "oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope", "options",
        "passfile", "password", "port", "replication", "require_auth", "requirepeer",
        "scram_client_key", "scram_server_key", "service", "ssl_max_protocol_version",
        "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl",
        "sslcrldir", "sslkey", "sslkeylogfile", "sslmode", "sslnegotiation", "sslpassword",
        "sslrootcert", "sslsni", "target_session_attrs", "tcp_user_timeout", "user",
    }
)
# fmt: on
"""Those of libpq 18.  An older one may lack some of them: it refuses them itself."""

_LEAVE_OUT: Final = "leave it out"
_POOLER: Final = f"{_LEAVE_OUT}: the program works behind a pooler without it"
_SCHEMA: Final = f"{_LEAVE_OUT} and set ETL_SCHEMA to the schema of the warehouse"
_TLS: Final = "write sslmode=verify-full and sslrootcert=FILE (or system) instead"
_TIMEOUT: Final = "write connect_timeout=SECONDS instead"
_OWN_LIMIT: Final = f"{_LEAVE_OUT}: the program sets its own limit in each transaction"
_FOREIGN: Final = {
    # Prisma and its relatives
    "pgbouncer": _POOLER,
    "schema": _SCHEMA,
    "connection_limit": _LEAVE_OUT,
    "pool_timeout": _LEAVE_OUT,
    "socket_timeout": _LEAVE_OUT,
    "statement_cache_size": _POOLER,
    "sslidentity": "write sslcert=FILE and sslkey=FILE instead",
    "sslaccept": _TLS,
    # Supabase with Vercel
    "supa": _LEAVE_OUT,
    "workaround": _LEAVE_OUT,
    # node-postgres
    "ssl": _TLS,
    "uselibpqcompat": _LEAVE_OUT,
    # JDBC
    "currentschema": _SCHEMA,
    "preparethreshold": _POOLER,
    "logintimeout": _TIMEOUT,
    "sockettimeout": _LEAVE_OUT,
    "applicationname": "write application_name=NAME instead",
    # SQLAlchemy, asyncpg, Django, Rails, Go
    "prepared_statement_cache_size": _POOLER,
    "prepared_statements": _POOLER,
    "default_query_exec_mode": _POOLER,
    "server_settings": _LEAVE_OUT,
    "command_timeout": _OWN_LIMIT,
    "timeout": _TIMEOUT,
    "encoding": _LEAVE_OUT,
    "charset": _LEAVE_OUT,
    "pool": _LEAVE_OUT,
    "pool_size": _LEAVE_OUT,
    "max_overflow": _LEAVE_OUT,
    "pool_max_conns": _LEAVE_OUT,
    # Settings of the server
    "search_path": _SCHEMA,
    "statement_timeout": _OWN_LIMIT,
    "lock_timeout": _OWN_LIMIT,
    "idle_in_transaction_session_timeout": _OWN_LIMIT,
    "timezone": f"{_LEAVE_OUT}: the program works in UTC",
}
"""What to do with a parameter that is not libpq's, by its name in lower case."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,40}")


def parameter_problem(query: str) -> str | None:
    """The end of a sentence about the first parameter that libpq would refuse; None if none.

    Shows names, never a value.  ``query`` is what follows the '?', without characters that
    separate the parts of an address.
    """
    # libpq allows an '&' at the end, too.
    query = query.removesuffix("&")
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        name = unquote(key)
        if not _NAME.fullmatch(name):
            return "has a parameter without a proper name after '?' or '&': correct it"
        if not equals:
            return f"has the parameter {name} without a value: write {name}=VALUE, or leave it out"
        if name not in KNOWN and (name, value) != ("ssl", "true"):
            return f"has the parameter {name}, which is not one of libpq's: {_advice(name)}"
        if "=" in value:
            return f"has the parameter {name}, whose value contains '=': write that as %3D"
    return None


def _advice(name: str) -> str:
    if (advice := _FOREIGN.get(name.lower())) is not None:
        return advice
    near = difflib.get_close_matches(name.lower(), KNOWN, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else f"{_LEAVE_OUT}, or correct its name"
