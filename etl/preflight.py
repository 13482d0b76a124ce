"""``kaltura-etl check``: tries each part in turn, and writes nothing.

A part that cannot be tried because an earlier one failed is skipped, not failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from etl.errors import ConfigurationError, CredentialsRefused, EtlError, Interrupted
from etl.process.stop import Stop
from etl.settings.read import LoadedSettings
from etl.settings.table import Settings
from etl.settings.values import masked_database_url

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
GRANT_LOADER = "kaltura-etl grant --loader ROLE --apply"
ATTEMPTS = 3
CLOCK_SECONDS_MAX = 60
SCHEMA_PARTS = ("schema version", "schema objects", "privileges", "retention", "tables")
DATABASE_PARTS = (
    *("database reachable", "connection encrypted", "database writable", "database clock"),
    *SCHEMA_PARTS,
)


_NO_HINDRANCE = {
    False: "nothing on them hinders a run",
    True: "on one worker of Citus; nothing on them hinders a run",
}


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
    yield from _check_notices(settings)
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
    for warning in (*loaded.warnings, *_ignored_proxy(loaded.settings)):
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


def _ignored_proxy(settings: Settings) -> Iterator[str]:
    """A warning if the environment names a proxy for the service, and the settings do not."""
    from etl.kaltura.transport import environment_proxy  # noqa: PLC0415 - slow
    from etl.process.secrets import Scrubber  # noqa: PLC0415

    if settings.use_environment_proxies:
        return
    try:
        found = environment_proxy(settings.service_url, Scrubber()) is not None
    except ConfigurationError:
        found = True
    if found:
        scheme = settings.service_url.partition(":")[0].upper()
        yield (
            f"{scheme}_PROXY or ALL_PROXY is set, and ignored: set ETL_USE_ENVIRONMENT_PROXIES=yes "
            "if the service is reached through it"
        )


def _check_notices(settings: Settings) -> Iterator[Finding]:
    if settings.notify_url is not None:
        runs = "every run" if settings.notify == "always" else "runs that fail or are refused"
        detail = f"ETL_NOTIFY_URL is set and valid, for {runs}; nothing was posted to it"
        yield Finding("notices", OK, detail)


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
    embedded = settings.database_url is None
    if wrong & {"DATABASE_URL", "ETL_SCHEMA", "ETL_DATA_DIR", "ETL_EMBEDDED", "VARIABLE_FILE"}:
        yield from _skipped(DATABASE_PARTS, "the settings above come first")
        return
    try:
        database_url = open_database()
    except EtlError as error:
        yield from _database_failed(error)
        return
    if database_url is None:
        text = "the embedded Postgres will be created by the first sync or migrate"
        yield from _skipped(DATABASE_PARTS, text)
        return
    where = "embedded" if embedded else masked_database_url(database_url)
    try:
        findings = _check_server(where, database_url)
    except EtlError as error:
        yield from _database_failed(error)
        return
    yield from findings
    yield from _check_schema(settings, database_url, embedded=embedded)


def _check_server(where: str, database_url: str) -> list[Finding]:
    """What one connection shows of the server."""
    from etl.warehouse.schema.features import feature_problem  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow
    from etl.warehouse.schema.server import (  # noqa: PLC0415 - slow
        clock_ahead_seconds,
        encryption,
        server_problems,
    )

    with open_connection(database_url) as connection:
        lacking = feature_problem(connection)
        problems = [*server_problems(connection), *([lacking] if lacking else [])]
        protected = encryption(connection)
        ahead = clock_ahead_seconds(connection)
    writable = Finding("database writable", OK, "UTF-8, and not read-only")
    if problems:
        text = " ".join(problem.message for problem in problems)
        writable = Finding("database writable", FAILED, text, problems[0].exit_code)
    clock = f"the clock of the database is {round(ahead):+d} s from ours"
    if abs(ahead) >= CLOCK_SECONDS_MAX:
        clock += ": ages of pages and of runs will be wrong; set both by NTP"
    return [
        Finding("database reachable", OK, where),
        Finding("connection encrypted", WARNING if protected.warns else OK, protected.text),
        writable,
        Finding("database clock", WARNING if abs(ahead) >= CLOCK_SECONDS_MAX else OK, clock),
    ]


def _check_schema(settings: Settings, database_url: str, *, embedded: bool) -> Iterator[Finding]:
    """Schema version and objects, privileges, retention and tables."""
    from etl.warehouse.engine import INSUFFICIENT_PRIVILEGE  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import schema_state  # noqa: PLC0415 - slow

    version, objects, privileges, retention, tables = SCHEMA_PARTS
    try:
        state = schema_state(database_url, settings.schema)
    except EtlError as error:
        if error.fields.get("sqlstate") != INSUFFICIENT_PRIVILEGE:
            yield _failed(version, error)
            yield from _skipped(SCHEMA_PARTS[1:], "the schema comes first")
            return
        yield from _skipped((version, objects), "the privileges come first")
        yield _check_privileges(privileges, database_url, settings.schema, embedded=embedded)
        yield from _skipped((retention, tables), "the privileges come first")
        return
    if state.current != state.head:
        if state.current is None:
            text = f"schema {settings.schema} has no tables of this program yet"
        else:
            text = (
                f"schema {settings.schema} is at {state.current}, this program needs {state.head}"
            )
        # Nothing is wrong yet: this is what comes next.
        todo = "the next sync migrates it" if embedded else "run kaltura-etl migrate, then check"
        yield Finding(
            version,
            WARNING if embedded else FAILED,
            f"{text}; {todo}",
            0 if embedded else ConfigurationError.exit_code,
        )
        yield from _skipped(SCHEMA_PARTS[1:], "the schema comes first")
        return
    yield Finding(version, OK, f"schema {settings.schema} is at {state.head}")
    yield _check_objects(objects, database_url, settings.schema)
    allowed = _check_privileges(privileges, database_url, settings.schema, embedded=embedded)
    yield allowed
    if allowed.state == FAILED:
        yield Finding(retention, SKIPPED, "the privileges come first")
    else:
        yield _check_retention(retention, database_url, settings)
    yield _check_tables(tables, database_url, settings.schema)


def _check_objects(part: str, database_url: str, schema: str) -> Finding:
    """Whether everything that the revision consists of is there."""
    from etl.warehouse.access.privileges import shortened  # noqa: PLC0415 - slow
    from etl.warehouse.schema.objects import missing_objects  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow

    try:
        with open_connection(database_url) as connection:
            missing = missing_objects(connection, schema)
    except EtlError as error:
        return _failed(part, error)
    if not missing:
        return Finding(part, OK, "everything that the revision consists of")
    text = f"missing, or not as it was: {shortened([str(each) for each in missing])}; "
    if any(each.held_data for each in missing):
        text += "a table or a column that is gone is restored from a backup or an archive only"
    else:
        text += "as the owner, run kaltura-etl migrate --repair"
    if all(each.is_minor for each in missing):
        return Finding(part, WARNING, text)
    return Finding(part, FAILED, text, ConfigurationError.exit_code)


def _check_retention(part: str, database_url: str, settings: Settings) -> Finding:
    """Who deletes what: the nightly run pages and rejected rows, ``prune`` versions as well."""
    from etl.warehouse.access.privileges import shortened  # noqa: PLC0415 - slow
    from etl.warehouse.privacy.prune import missing_to_prune  # noqa: PLC0415 - slow
    from etl.warehouse.schema.database import open_database  # noqa: PLC0415 - slow

    try:
        with open_database(database_url, settings.schema) as database:
            lacking = missing_to_prune(database)
    except EtlError as error:
        return _failed(part, error)
    # That is among the privileges of a run, which are there.
    days = settings.keep_pages_days
    text = f"each run deletes pages and rejected rows of runs older than {days} days"
    if lacking:
        text += "; prune --apply, which deletes versions too, needs another role (this one lacks "
        text += f"{shortened(lacking)})"
    return Finding(part, OK, text)


def _skipped(parts: Sequence[str], text: str) -> Iterator[Finding]:
    return (Finding(part, SKIPPED, text) for part in parts)


def _database_failed(error: EtlError) -> Iterator[Finding]:
    yield _failed(DATABASE_PARTS[0], error)
    yield from _skipped(DATABASE_PARTS[1:], "the database comes first")


def _check_privileges(part: str, database_url: str, schema: str, *, embedded: bool) -> Finding:
    """Whether the role can run ``sync``; warns of rights beyond that, of views not granted, and of
    limits to accounts that do not hold."""
    from etl.warehouse.access.limits import lapsed_limits  # noqa: PLC0415 - slow
    from etl.warehouse.access.privileges import (  # noqa: PLC0415 - slow
        current_role,
        missing_privileges,
        readers_left_behind,
        too_much,
    )
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow

    try:
        with open_connection(database_url) as connection:
            role = current_role(connection)
            missing = missing_privileges(connection, schema)
            behind = readers_left_behind(connection, schema)
            lapsed = lapsed_limits(connection, schema)
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
    warnings += [
        f"the limit of role {limited} does not hold, because it {way}: run kaltura-etl grant for "
        "it again"
        for limited, way in lapsed.items()
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
    from etl.warehouse.schema.layout import layout  # noqa: PLC0415 - slow
    from etl.warehouse.schema.revision import open_connection  # noqa: PLC0415 - slow

    try:
        with open_connection(database_url) as connection:
            stored = layout(connection, schema)
            found = hindrances(connection, schema)
    except EtlError as error:
        return _failed(part, error)
    if stored.problem is not None:
        return Finding(part, FAILED, stored.problem, ConfigurationError.exit_code)
    text = "; ".join(each.text for each in found)
    if any(each.forbids for each in found):
        return Finding(part, FAILED, text, ConfigurationError.exit_code)
    return Finding(part, WARNING if found else OK, text or _NO_HINDRANCE[stored.is_sharded])


def first_exit_code(findings: list[Finding]) -> int:
    return next((each.exit_code for each in findings if each.exit_code), 0)
