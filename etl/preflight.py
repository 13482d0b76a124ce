"""``kaltura-etl check``: tries each part in turn, and writes nothing.

A part that cannot be tried because an earlier one failed is skipped, not failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from etl.errors import ConfigurationError, CredentialsRefused, EtlError, Interrupted
from etl.process.stop import Stop
from etl.settings.read import LoadedSettings
from etl.settings.table import Settings
from etl.settings.values import database_url_warning, masked_database_url

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
GRANT_LOADER = "kaltura-etl grant --loader ROLE --apply"
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What one part showed.  ``exit_code`` is 0 unless the part failed."""

    part: str
    state: str
    detail: str
    exit_code: int = 0


def check_parts(
    loaded: LoadedSettings, open_database: Callable[[], str | None], stop: Stop
) -> Iterator[Finding]:
    """Yield one finding per part, as soon as it is known.

    ``open_database`` gives the address to try, None if the embedded server does not exist yet.
    Raises nothing but ``Interrupted``.
    """
    settings = loaded.settings
    yield from _check_settings(loaded)
    yield from _check_service(settings, stop, _names_with_problems(loaded))
    yield from _check_database(settings, open_database, _names_with_problems(loaded))


def _names_with_problems(loaded: LoadedSettings) -> set[object]:
    return {problem.fields.get("setting") for problem in loaded.problems}


def _failed(part: str, error: EtlError) -> Finding:
    if isinstance(error, Interrupted):
        raise error
    return Finding(part, FAILED, error.message, error.exit_code)


def _check_settings(loaded: LoadedSettings) -> Iterator[Finding]:
    for problem in loaded.problems:
        yield _failed("settings", problem)
    for warning in loaded.warnings:
        yield Finding("settings", WARNING, warning)
    try:
        kind = loaded.settings.credential().kind.replace("_", " ")
        partner_id = loaded.settings.require_partner_id()
    except ConfigurationError as error:
        # A credential that is set but does not parse is already named above.
        if not loaded.problems:
            yield _failed("settings", error)
        return
    if not loaded.problems:
        yield Finding("settings", OK, f"account {partner_id}, by {kind}")


def _check_service(settings: Settings, stop: Stop, wrong: set[object]) -> Iterator[Finding]:
    service, session = "service reachable", "session valid, of admin type"
    needed = [name for name in map(str, wrong) if name.startswith(("KALTURA_", "VARIABLE_FILE"))]
    try:
        settings.credential()
        settings.require_partner_id()
    except ConfigurationError:
        needed.append("credential")
    if needed:
        yield Finding(service, SKIPPED, "the settings above come first")
        yield Finding(session, SKIPPED, "the settings above come first")
        return
    from etl.run.service import open_upload_tokens  # noqa: PLC0415 - 0.3 s that --help must not pay

    # Somebody waits for the answer: a run bridges minutes, a check only what passes in seconds.
    hurried = replace(settings, retry_attempts=min(settings.retry_attempts, ATTEMPTS))
    try:
        with open_upload_tokens(hurried, stop) as upload_tokens:
            probe = upload_tokens.probe()
    except CredentialsRefused as error:
        if "http_status" in error.fields:  # a gateway refused us: the service never saw the call
            yield _failed(service, error)
            yield Finding(session, SKIPPED, "the service comes first")
            return
        if {"code", "session_type"} & error.fields.keys():
            yield Finding(service, OK, settings.service_url)
        else:
            yield Finding(service, SKIPPED, "not asked: the session comes first")
        yield _failed(session, error)
        return
    except EtlError as error:
        yield _failed(service, error)
        yield Finding(session, SKIPPED, "the service comes first")
        return
    yield Finding(
        service,
        OK,
        f"{probe.service_url}, one token in {probe.latency_seconds * 1000:.0f} ms, clock "
        f"{round(probe.server_clock_ahead_seconds):+d} s from ours",
    )
    left = probe.session_seconds_left
    life = "of unknown life" if left is None else f"valid for {left / 3600:.1f} h"
    count = "?" if probe.total_count is None else f"about {probe.total_count:,}"
    yield Finding(session, OK, f"account {probe.partner_id}, {life}, lists {count} tokens")


def _check_database(
    settings: Settings, open_database: Callable[[], str | None], wrong: set[object]
) -> Iterator[Finding]:
    parts = ("database reachable", "database writable", "schema version", "privileges", "tables")
    embedded = settings.database_url is None
    if wrong & {"DATABASE_URL", "ETL_SCHEMA", "ETL_DATA_DIR", "VARIABLE_FILE"}:
        yield from (Finding(part, SKIPPED, "the settings above come first") for part in parts)
        return
    try:
        database_url = open_database()
    except EtlError as error:
        yield from _database_failed(parts, error)
        return
    if database_url is None:
        text = "the embedded Postgres will be created by the first sync or migrate"
        yield from (Finding(part, SKIPPED, text) for part in parts)
        return
    where = "embedded" if embedded else masked_database_url(database_url)
    try:
        writable = _check_writable(parts[1], database_url)
    except EtlError as error:
        yield from _database_failed(parts, error)
        return
    warning = None if embedded else database_url_warning(database_url)
    yield Finding(parts[0], WARNING if warning else OK, warning or where)
    yield writable
    yield from _check_schema(parts[2:], settings, database_url, embedded=embedded)


def _check_writable(part: str, database_url: str) -> Finding:
    """Whether the server and the database accept what a run writes."""
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow
    from etl.warehouse.schema.server import server_problems  # noqa: PLC0415 - slow

    with open_connection(database_url) as connection:
        problems = server_problems(connection)
    if problems:
        text = " ".join(problem.message for problem in problems)
        return Finding(part, FAILED, text, problems[0].exit_code)
    return Finding(part, OK, "UTF-8, and not read-only")


def _check_schema(
    parts: tuple[str, ...], settings: Settings, database_url: str, *, embedded: bool
) -> Iterator[Finding]:
    """Schema version, privileges and tables."""
    from etl.warehouse.engine import INSUFFICIENT_PRIVILEGE  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import schema_state  # noqa: PLC0415 - slow

    version, _, tables = parts
    try:
        state = schema_state(database_url, settings.schema)
    except EtlError as error:
        if error.fields.get("sqlstate") != INSUFFICIENT_PRIVILEGE:
            yield _failed(version, error)
            yield from (Finding(part, SKIPPED, "the schema comes first") for part in parts[1:])
            return
        yield Finding(version, SKIPPED, "the privileges come first")
        yield _check_privileges(database_url, settings.schema, embedded=embedded)
        yield Finding(tables, SKIPPED, "the privileges come first")
        return
    if state.current != state.head:
        found = state.current or "nothing"
        todo = "the next sync migrates it" if embedded else "run: kaltura-etl migrate"
        yield Finding(
            version,
            WARNING if embedded else FAILED,
            f"schema {settings.schema} is at {found}, this program needs {state.head}; {todo}",
            0 if embedded else ConfigurationError.exit_code,
        )
        yield from (Finding(part, SKIPPED, "the schema comes first") for part in parts[1:])
        return
    yield Finding(version, OK, f"schema {settings.schema} is at {state.head}")
    yield _check_privileges(database_url, settings.schema, embedded=embedded)
    yield _check_tables(tables, database_url, settings.schema)


def _database_failed(parts: tuple[str, ...], error: EtlError) -> Iterator[Finding]:
    yield _failed(parts[0], error)
    yield from (Finding(part, SKIPPED, "the database comes first") for part in parts[1:])


def _check_privileges(database_url: str, schema: str, *, embedded: bool) -> Finding:
    """Whether the role can run ``sync``; warns of rights beyond that, and of views not granted."""
    from etl.warehouse.access.privileges import (  # noqa: PLC0415 - slow
        current_role,
        missing_privileges,
        readers_left_behind,
        too_much,
    )
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow

    part = "privileges"
    try:
        with open_connection(database_url) as connection:
            role = current_role(connection)
            missing = missing_privileges(connection, schema)
            behind = readers_left_behind(connection, schema)
            # The embedded server has one user, who owns everything.
            power = None if embedded else too_much(connection, schema)
    except EtlError as error:
        return _failed(part, error)
    if missing:
        text = f"missing: {', '.join(missing)}; the owner of the tables grants them: {GRANT_LOADER}"
        return Finding(part, FAILED, text, CredentialsRefused.exit_code)
    warnings = [
        f"role {reader} may not read {', '.join(views)}: run kaltura-etl grant for it again"
        for reader, views in behind.items()
    ]
    if power:
        warnings.append(
            f"role {role} {power}, so it could change the past: better run sync as a role of its "
            f"own, see {GRANT_LOADER}"
        )
    if warnings:
        return Finding(part, WARNING, "; ".join(warnings))
    return Finding(part, OK, "everything that a run needs")


def _check_tables(part: str, database_url: str, schema: str) -> Finding:
    """Whether something on the tables forbids a run, or may change what it writes."""
    from etl.warehouse.access.hindrances import hindrances  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow

    try:
        with open_connection(database_url) as connection:
            found = hindrances(connection, schema)
    except EtlError as error:
        return _failed(part, error)
    text = "; ".join(each.text for each in found)
    if any(each.forbids for each in found):
        return Finding(part, FAILED, text, ConfigurationError.exit_code)
    return Finding(part, WARNING if found else OK, text or "nothing on them hinders a run")


def first_exit_code(findings: list[Finding]) -> int:
    return next((each.exit_code for each in findings if each.exit_code), 0)
