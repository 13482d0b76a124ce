"""``accounts.toml``: the accounts of one job, and where the secret of each is.

    [accounts.acme]
    partner_id = 1234567
    app_token_id = "1_abc123de"
    app_token = { env = "ACME_APP_TOKEN" }

    [accounts.globex]
    partner_id = 7654321
    service_url = "https://video.globex.example"
    schema = "globex"
    admin_secret = { file = "secrets/globex" }

The keys are the settings of an account, with their rules; what it does not give comes from the
settings of the job, except for the credential.  The file itself holds no secret.  Every mistake in
it is a ``ConfigurationError`` that names the table.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from etl.errors import ConfigurationError, UsageError
from etl.settings.private_file import open_regular_file, read_private_file
from etl.settings.read import VARIABLE_FILE
from etl.settings.table import SETTINGS, Settings
from etl.settings.variable_file import read_variable_file

FILE_NAME: Final = "accounts.toml"
SIZE_LIMIT_BYTES: Final = 1024 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRETS: Final = ("app_token", "admin_secret", "ks")
"""Keys that say where a secret is: the kinds of ``Credential``."""
_TEXTS: Final = ("service_url", "schema", "app_token_id", "app_token_hash")
_KEYS: Final = ("partner_id", *_TEXTS, *_SECRETS)


@dataclass(frozen=True, slots=True)
class Account:
    """One table ``[accounts.NAME]``, checked; its secret is not read yet."""

    name: str
    place: str
    """The file and the table, for messages."""
    values: Mapping[str, Any]
    """``partner_id`` and the texts that it gives, by name of the field of ``Settings``."""
    secret_kind: str
    """The field of ``Settings`` that its secret is."""
    variable: str | None
    """The environment variable that holds the secret, or ..."""
    file: Path | None
    """... the file that does."""

    @property
    def partner_id(self) -> int:
        return int(self.values["partner_id"])

    def schema_of(self, settings: Settings) -> str:
        return str(self.values.get("schema", settings.schema))

    def settings(self, base: Settings, variables: Mapping[str, str]) -> Settings:
        """The settings of its runs, with its secret; ``variables`` as ``secret_variables`` gives.

        Raises ``ConfigurationError`` if the secret is not where the file says.
        """
        own: dict[str, Any] = dict.fromkeys((*_SECRETS, "app_token_id", "app_token_hash"))
        own |= {**self.values, self.secret_kind: self._secret(variables)}
        return dataclasses.replace(
            base,
            **own,
            archive=self._archive(base),
            sources={**base.sources, **dict.fromkeys(own, self.place)},
            account_place=self.place,
        )

    def _archive(self, base: Settings) -> str | None:
        """An archive belongs to one schema: another schema has a folder of its own in it."""
        schema = self.schema_of(base)
        if base.archive is None or schema == base.schema:
            return base.archive
        return f"{base.archive.rstrip('/')}/{schema}"

    def _secret(self, variables: Mapping[str, str]) -> str:
        named_by = f"{self.place} {self.secret_kind}"
        if self.file is not None:
            body = read_private_file(self.file, named_by=named_by)
            text, where = body.decode("utf-8", "replace").strip(), str(self.file)
        else:
            where = f"the variable {self.variable}"
            text = variables.get(str(self.variable), "").strip()
        if not text:
            problem = f"{where} is not set" if self.file is None else f"{where} is empty"
            raise ConfigurationError(f"{named_by}: {problem}.", setting=self.secret_kind)
        try:
            return str(SETTINGS[self.secret_kind].parse(text))
        except ValueError as exc:
            raise ConfigurationError(
                f"{named_by}: the secret in {where} {exc}.", setting=self.secret_kind
            ) from None


def secret_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where the secrets of accounts are looked up: the environment, else the ``VARIABLE_FILE``."""
    environment = os.environ if environment is None else environment
    file_name = environment.get(VARIABLE_FILE, "").strip()
    found = read_variable_file(Path(file_name)) if file_name else {}
    return found | {name: text for name, text in environment.items() if text.strip()}


def read_accounts(settings: Settings) -> dict[str, Account]:
    """All accounts of the file, by name, in its order.  Raises ``ConfigurationError``."""
    path = settings.accounts_file or Path(FILE_NAME)
    tables = _tables(path)
    accounts = {name: _account(path, name, table) for name, table in tables.items()}
    _refuse_shared_rows(path, accounts.values(), settings)
    return accounts


def chosen_accounts(accounts: Mapping[str, Account], names: Iterable[str]) -> list[Account]:
    """The accounts of these names, each once; raises ``UsageError`` for an unknown name."""
    found = []
    for name in dict.fromkeys(names):
        if name not in accounts:
            hint = _did_you_mean(name, accounts)
            raise UsageError(f"There is no account {name} in the accounts file{hint}")
        found.append(accounts[name])
    return found


def _tables(path: Path) -> dict[str, Any]:
    try:
        loaded = tomllib.loads(_read(path))
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        problem = str(exc) if isinstance(exc, ValueError) else "it is nested too deeply"
        raise ConfigurationError(f"{path} is not valid TOML: {problem}.") from None
    for key in loaded:
        if key != "accounts":
            raise ConfigurationError(
                f"{path}: {_shown(key)} is not known; each account is a table [accounts.NAME]."
            )
    tables = loaded.get("accounts")
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(f"{path} has no account; each one is a table [accounts.NAME].")
    return tables


def _read(path: Path) -> str:
    try:
        with open_regular_file(path, named_by="ETL_ACCOUNTS") as file:
            status = os.fstat(file.fileno())
            body = file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no file {path}: create it, or name another one in ETL_ACCOUNTS.",
            setting="ETL_ACCOUNTS",
        ) from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "not a usable path"
        raise ConfigurationError(
            f"{path} cannot be read ({reason}).", setting="ETL_ACCOUNTS"
        ) from None
    if status.st_mode & stat.S_IWOTH:
        # It says where sessions are sent.
        raise ConfigurationError(f"{path}: other users can change it; run: chmod o-w {path}")
    if len(body) > SIZE_LIMIT_BYTES:
        raise ConfigurationError(f"{path} is larger than {SIZE_LIMIT_BYTES} bytes.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as UTF-8.") from None


def _account(path: Path, name: str, table: object) -> Account:
    place = f"{path} [accounts.{_shown(name)}]"
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{place}: a name has at most 63 lower-case letters, digits, - and _, and begins with "
            "a letter or a digit."
        )
    if not isinstance(table, dict):
        raise ConfigurationError(f"{place} is not a table.")
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(
                f"{place}: {_shown(key)} is not known{_did_you_mean(key, _KEYS)}"
            )
    if "partner_id" not in table:
        raise ConfigurationError(f"{place}: partner_id is missing.")
    values = {
        key: _value(place, key, table[key]) for key in ("partner_id", *_TEXTS) if key in table
    }
    kind = _secret_kind(place, table)
    variable, file = _source(f"{place}: {kind}", table[kind], path.parent)
    return Account(name, place, values, kind, variable, file)


def _value(place: str, key: str, value: object) -> object:
    wanted = int if key == "partner_id" else str
    if type(value) is not wanted:
        kind = "a number, without quotes" if wanted is int else "a text in quotes"
        raise ConfigurationError(f"{place}: {key} must be {kind}.")
    try:
        return SETTINGS[key].parse(str(value))
    except ValueError as exc:
        raise ConfigurationError(f"{place}: {key} {exc}.") from None


def _secret_kind(place: str, table: Mapping[str, object]) -> str:
    """The one key that says where the secret is."""
    given = [kind for kind in _SECRETS if kind in table]
    if not given:
        raise ConfigurationError(
            f"{place}: it does not say where its secret is: give app_token_id and app_token "
            '(recommended), admin_secret or ks, such as app_token = { env = "NAME" }.'
        )
    if len(given) > 1:
        raise ConfigurationError(f"{place}: {' and '.join(given)} are given; keep one.")
    if (given == ["app_token"]) != ("app_token_id" in table):
        raise ConfigurationError(f"{place}: app_token_id and app_token belong together.")
    if "app_token_hash" in table and given != ["app_token"]:
        raise ConfigurationError(f"{place}: app_token_hash requires app_token.")
    return given[0]


def _source(place: str, value: object, folder: Path) -> tuple[str | None, Path | None]:
    """(variable, None) or (None, file); a relative path is relative to the accounts file."""
    how = '{ env = "NAME" } or { file = "PATH" }'
    if isinstance(value, str):
        raise ConfigurationError(
            f"{place} must say where the secret is: {how}. The secret itself does not belong here."
        )
    if not isinstance(value, dict) or value.keys() not in ({"env"}, {"file"}):
        raise ConfigurationError(f"{place} must be {how}.")
    [(kind, text)] = value.items()
    if kind == "env":
        if not isinstance(text, str) or _VARIABLE.fullmatch(text) is None:
            raise ConfigurationError(f"{place}: env must be the name of an environment variable.")
        return text, None
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{place}: file must be the path of a file.")
    return None, folder / Path(text.strip()).expanduser()


def _refuse_shared_rows(path: Path, accounts: Iterable[Account], settings: Settings) -> None:
    seen: dict[tuple[str, int], str] = {}
    for account in accounts:
        key = account.schema_of(settings), account.partner_id
        other = seen.setdefault(key, account.name)
        if other != account.name:
            raise ConfigurationError(
                f"{path}: [accounts.{other}] and [accounts.{account.name}] have the same partner "
                f"id {account.partner_id} in schema {key[0]}, where their rows would mix: delete "
                "one of them, or give it a schema of its own."
            )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "."


def _shown(text: str) -> str:
    """A key of the file: bounded, printable, on one line."""
    return text if _NAME.fullmatch(text.lower()) else repr(text[:60])
