"""Parsers of settings: one function per kind of value, text in, value out.

A parser raises ``ValueError`` with the *end* of a sentence ("must be a whole number from 1 to
32"); the caller prepends the setting's name and its source.  No parser repeats a text that may
contain a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from etl.settings.database_parameters import KNOWN, parameter_problem

_DURATION_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd]?)", re.ASCII)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_LONG_SECRET_LENGTH = 32
_LEAST_SECRET_PART = 16
"""Characters of a part of an address that is taken for a secret: shorter ones are words."""
_ARCHIVE_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|:)")
_OBJECT_SCHEMES = frozenset({"s3", "gs", "az"})
_DRIVER = re.compile(r"postgres(?:ql)?(\+[a-z0-9_]{1,20})://")
_POSTGRES_SCHEMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(\d{0,5}))?", re.ASCII)
_SECRET_QUERY_KEYS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)


def shown(text: str) -> str:
    """Quote a wrong value for a message: bounded, printable, on one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() alone would take "1_000", " 4" and Arabic digits.
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {shown(text)}")
        return int(text)

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """A number that may have a fraction, such as ``0.5``."""

    def parse(text: str) -> float:
        # float() alone would take "1_000", "1e3", "nan" and Arabic digits.
        plain = re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII)
        if plain is None or not least <= float(text) <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}, not {shown(text)}")
        return float(text)

    return parse


def duration(least_seconds: float, most_seconds: float) -> Callable[[str], timedelta]:
    """``90s``, ``15m``, ``6h``, ``7d``, ``1.5h``, and ``0``.

    A number without a unit is refused: who writes ``--full-every 7`` means days, not seconds.
    """

    def parse(text: str) -> timedelta:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f"must be a duration such as 90s, 15m, 6h or 7d, not {shown(text)}")
        number, unit = match[1], match[2] or ("s" if float(match[1]) == 0 else "")
        if not unit:
            raise ValueError(
                f"must have a unit: {number}s, {number}m, {number}h or {number}d, not {shown(text)}"
            )
        seconds = float(number) * _DURATION_UNITS[unit]
        if not least_seconds <= seconds <= most_seconds:
            raise ValueError(
                f"must be from {duration_text(least_seconds)} to {duration_text(most_seconds)}, "
                f"not {shown(text)}"
            )
        return timedelta(seconds=seconds)

    return parse


def seconds(least_seconds: float, most_seconds: float) -> Callable[[str], float]:
    """A duration, as a number of seconds."""
    parse_duration = duration(least_seconds, most_seconds)

    def parse(text: str) -> float:
        return parse_duration(text).total_seconds()

    return parse


def plain_seconds(least_seconds: float, most_seconds: float) -> Callable[[str], float]:
    """As ``seconds``, for a setting whose name says the unit of a number that has none."""
    parse_seconds = seconds(least_seconds, most_seconds)

    def parse(text: str) -> float:
        return parse_seconds(f"{text}s" if re.fullmatch(r"[\d.]+", text, re.ASCII) else text)

    return parse


def duration_text(value: timedelta | float) -> str:
    """The shortest text that ``duration`` reads back: 21600 s is ``6h``."""
    total = value.total_seconds() if isinstance(value, timedelta) else float(value)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if total and total % size == 0:
            return f"{int(total // size)}{unit}"
    return f"{total:g}s"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of ``choices``, in any case; the value is as they write it."""

    choices: tuple[str, ...]

    def __call__(self, text: str) -> str:
        by_lower = {choice.lower(): choice for choice in self.choices}
        if text.lower() not in by_lower:
            raise ValueError(f"must be one of {', '.join(self.choices)}, not {shown(text)}")
        return by_lower[text.lower()]


def one_of(*choices: str) -> OneOf:
    return OneOf(choices)


def yes_or_no(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"must be yes or no (also true/false, on/off, 1/0), not {shown(text)}")


def secret(text: str) -> str:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(
            "contains whitespace or a control character; copy the secret again (its value is not "
            "shown here)"
        )
    return text


def long_secret(text: str) -> str:
    """A secret that is long enough to resist guessing."""
    if len(secret(text)) < _LONG_SECRET_LENGTH:
        raise ValueError(
            f"must have at least {_LONG_SECRET_LENGTH} characters, as from openssl rand -hex 32 "
            "(its value is not shown here)"
        )
    return text


def file_path(text: str) -> Path:
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def archive_address(text: str) -> str:
    """A folder, ``file:///folder``, or ``s3://``, ``gs://`` or ``az://`` with a bucket.

    The scheme becomes lower case.  No message contains the text, which may hold a key.
    """
    found = _ARCHIVE_SCHEME.match(text)
    if found is None:
        return text
    scheme, is_address, rest = found[1].lower(), found[2] == "://", text[found.end() :]
    if scheme == "file":
        if not is_address or not rest.removeprefix("localhost").startswith("/"):
            raise ValueError("must look like file:///folder, if it begins with file:")
    elif scheme not in _OBJECT_SCHEMES:
        if not is_address:
            return text  # a folder with a colon in its name
        raise ValueError(
            f"begins with {scheme}://, where no files can be kept: give a folder, or an address "
            "that begins with s3://, gs:// or az://"
        )
    elif not is_address:
        raise ValueError(f"must begin with {scheme}://, with two slashes")
    elif "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(
            f"must be {scheme}://bucket/path without a user, key or query: the keys come from the "
            "environment (AWS_ACCESS_KEY_ID and related variables)"
        )
    elif not rest.partition("/")[0].strip():
        raise ValueError(f"names no bucket: {scheme}://bucket/path")
    return f"{scheme}{found[2]}{rest}"


def schema_name(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise ValueError(
            "must be a schema name of lower-case letters, digits and underscores that does not "
            f"start with a digit, at most 63 characters, not {shown(text)}"
        )
    if text.startswith("pg_") or text == "information_schema":
        raise ValueError(f"must not be {shown(text)}: Postgres reserves that name")
    return text


def service_url(text: str) -> str:
    """The base address without a trailing slash: ``https://``, or ``http://`` to this machine."""
    parts = _web_address(text, "must be an address such as https://www.kaltura.com")
    if parts.query or parts.fragment:
        raise ValueError("must not contain a '?' or '#': give the base address only")
    _refuse_open_http(parts)
    # What people copy from a client's configuration, or from the address of a call.
    path = parts.path.rstrip("/").removesuffix("/index.php").removesuffix("/api_v3")
    return f"{parts.scheme}://{parts.netloc}{path}"


def notify_url(text: str) -> str:
    """An address to post to: ``https://``, or ``http://`` to this machine.

    No message contains any part of the text: who knows the address can post to it.
    """
    parts = _web_address(
        text,
        "must be an address such as https://hooks.slack.com/services/… (its value is not shown "
        "here)",
    )
    if parts.fragment:
        raise ValueError("must not contain a '#'")
    _refuse_open_http(parts)
    return text


def _web_address(text: str, otherwise: str) -> SplitResult:
    """The parts of an http or https address without a user; ``otherwise`` says what it must be.

    The address is not repeated: it may contain a session or a password.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(otherwise) from None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(otherwise)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password")
    return parts


def _refuse_open_http(parts: SplitResult) -> None:
    if parts.scheme == "http" and not _is_loopback(str(parts.hostname)):
        raise ValueError("must begin with https:// (http:// is allowed only to this machine)")


def notify_secrets(url: str) -> tuple[str, ...]:
    """What of the address must not be told: all of it, its path and query, and long parts."""
    rest = url.partition("://")[2].partition("/")[2]
    parts = [part for part in re.split(r"[/?&=]", rest) if len(part) >= _LEAST_SECRET_PART]
    whole = [rest] if len(rest) >= _LEAST_SECRET_PART else []
    return tuple(dict.fromkeys((url, *whole, *parts)))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def database_url(text: str) -> str:
    """Check a Postgres URL and normalize its scheme to ``postgresql://``.

    No message contains any part of the text: in a malformed URL the password can be anywhere.
    """
    wanted = "must be an address such as postgresql://user:password@host:5432/database"
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _POSTGRES_SCHEMES:
        raise ValueError(wanted + _scheme_advice(text))
    if re.search(r"[\s\x00-\x1f\x7f]", rest):
        raise ValueError(
            f"{wanted}: it contains a space or a control character (write a space as %20)"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise ValueError(
            f"{wanted}: it contains a '%' without a %xx code (write a '%' in a password as %25)"
        )
    normal = f"postgresql://{rest}"
    try:
        parts = urlsplit(normal)
    except ValueError:
        advice = (
            ": write the characters [ and ] of a password as %5B and %5D" if "[" in rest else ""
        )
        raise ValueError(wanted + advice) from None
    outside = parts.path + parts.query + parts.fragment
    if not parts.fragment and (name := _with_at_sign(parts)) is not None:
        raise ValueError(f"has the parameter {name}, whose value contains '@': write that as %40")
    if parts.fragment or "#" in rest or "@" in outside or parts.netloc.count("@") > 1:
        raise ValueError(
            f"{wanted}: write the characters @ / ? # : % of a user name or password as %xx codes "
            "(%40 %2F %3F %23 %3A %25)"
        )
    if not all(_is_host_and_port(part) for part in _host_part(parts).split(",")):
        raise ValueError(
            f"{wanted}: what follows the host's ':' is not a port number (if it belongs to "
            "the password, write / ? # : as %2F %3F %23 %3A)"
        )
    if (problem := parameter_problem(parts.query)) is not None:
        raise ValueError(problem)
    return normal


def _scheme_advice(text: str) -> str:
    """What else a text without a proper scheme may begin with, as it is copied from elsewhere."""
    begins = text.lower()
    if begins.startswith(("'", '"')):
        return ": leave out the quotation marks"
    if begins.startswith("psql "):
        return ": leave out 'psql' and the quotation marks"
    if begins.startswith("jdbc:postgresql:"):
        return ": leave out 'jdbc:', and write user and password before the host"
    if match := _DRIVER.match(begins):
        return f": leave out '{match[1]}', the name of a driver"
    if re.match(r"(host|hostaddr|dbname|user|port|password|service)\s*=", begins):
        return ": write host, port, user, password and database as one address"
    return ""


def _with_at_sign(parts: SplitResult) -> str | None:
    """A parameter with an '@' in its value, as in ``?user=me@here``.

    Only libpq's own names: if the '?' is that of a password, they are no part of it.
    """
    if parts.netloc.count("@") > 1 or "@" in parts.path:
        return None
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    return next((key for key, _, value in pairs if "@" in value and key in KNOWN), None)


def _host_part(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _is_host_and_port(text: str) -> bool:
    match = _HOST_AND_PORT.fullmatch(text)
    return match is not None and int(match[2] or 1) in range(1, 65536)


def masked_database_url(url: str) -> str:
    """The URL with *** for every password; only *** if it does not parse."""
    try:
        parts = urlsplit(database_url(url))
    except ValueError:
        return "***"
    user_info, at, host = parts.netloc.rpartition("@")
    user, colon, _ = user_info.partition(":")
    query = "&".join(
        f"{key}=***" if unquote(key).lower() in _SECRET_QUERY_KEYS else f"{key}{equals}{value}"
        for key, equals, value in (pair.partition("=") for pair in parts.query.split("&"))
    )
    path = parts.path + (f"?{query}" if query else "")
    return f"postgresql://{user}{colon and ':***'}{at}{host}{path}"


def without_passwords(url: str) -> tuple[str, str | None, str | None]:
    """A checked URL without passwords and ``options``, the server's password, and the options.

    The latter two are decoded, None if the URL has none.  A key's passphrase has no environment
    variable: libpq asks for it.
    """
    parts = urlsplit(url)
    user_info, at, host = parts.netloc.rpartition("@")
    user, colon, password = user_info.partition(":")
    values: dict[str, str | None] = {"password": unquote(password) if colon else None}
    kept = []
    for pair in parts.query.split("&"):
        key, _, value = pair.partition("=")
        name = unquote(key).lower()
        if name in _SECRET_QUERY_KEYS or name == "options":
            values[name] = unquote(value)  # as in libpq, it takes precedence
        elif pair:
            kept.append(pair)
    query = f"?{'&'.join(kept)}" if kept else ""
    address = f"postgresql://{user}{at}{host}{parts.path}{query}"
    return address, values["password"] or None, values.get("options")


def database_address(url: str, environment: Mapping[str, str]) -> dict[str, object]:
    """``host``, ``port`` and ``database`` of a checked URL, as libpq finds them; nothing secret.

    None is what libpq chooses by itself: a local socket, or ports that differ between hosts.
    """
    parts = urlsplit(url)
    query = _query(parts)
    places = [_HOST_AND_PORT.fullmatch(place) for place in _host_part(parts).split(",")]
    hosts = [place[1].strip("[]") for place in places if place is not None]
    ports = {place[2] or "" for place in places if place is not None}
    host = query.get("host") or unquote(",".join(hosts)) or environment.get("PGHOST")
    port = query.get("port") or (ports.pop() if len(ports) == 1 else "several")
    port = port or environment.get("PGPORT", "5432")
    user = query.get("user") or unquote(parts.netloc.rpartition("@")[0].partition(":")[0])
    database = query.get("dbname") or unquote(parts.path[1:]) or environment.get("PGDATABASE")
    return {
        "host": host or None,
        "port": int(port) if port.isdecimal() else None,
        "database": database or user or environment.get("PGUSER") or None,
    }


def _query(parts: SplitResult) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in parts.query.split("&"))
    return {unquote(key): unquote(value) for key, _, value in pairs}


def database_passwords(url: str) -> tuple[str, ...]:
    """Every password in the URL, as written and decoded, for the log's scrubber."""
    try:
        parts = urlsplit(database_url(url))
    except ValueError:
        return (url,)
    found = [parts.netloc.rpartition("@")[0].partition(":")[2]]
    for pair in parts.query.split("&"):
        key, _, value = pair.partition("=")
        if unquote(key).lower() in _SECRET_QUERY_KEYS:
            found.append(value)
    return tuple(dict.fromkeys(text for raw in found if raw for text in (raw, unquote(raw))))
