"""Reads the settings: flag, else environment, else the file of ``VARIABLE_FILE``, else default.

Empty text counts as not set: Compose files and CI pass empty variables for unset ones.  An empty
DATABASE_URL is a mistake all the same: the history would go elsewhere.  The source of each value is
kept, so that ``kaltura-etl check`` can show it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from etl.errors import ConfigurationError, EtlError, UsageError
from etl.settings.table import SETTINGS, Description, Settings
from etl.settings.variable_file import read_variable_file

VARIABLE_FILE = "VARIABLE_FILE"
_LENGTH_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings as far as they could be read, and everything that is wrong with them."""

    settings: Settings
    problems: tuple[EtlError, ...]
    """Settings with a problem have their default in ``settings``; ``fields['setting']`` names."""
    warnings: tuple[str, ...]
    secrets: tuple[str, ...]
    """Secret texts, including those of refused settings: the scrubber must know them too."""

    def checked(self, *, without: str = "") -> Settings:
        """The settings; raises the first problem, a ``UsageError`` or ``ConfigurationError``.

        ``without``: name of a setting that the caller does not use; it may be wrong.
        """
        for problem in self.problems:
            if problem.fields.get("setting") != without:
                raise problem
        return self.settings


def load_settings(
    flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Read all settings without raising.  ``flags`` is text by name of the field."""
    flags = flags or {}
    environment = os.environ if environment is None else environment
    problems: list[EtlError] = []
    file_name = environment.get(VARIABLE_FILE, "").strip()
    file_values: Mapping[str, str] = {}
    if file_name:
        try:
            file_values = read_variable_file(Path(file_name))
        except ConfigurationError as problem:
            problem.fields["setting"] = VARIABLE_FILE
            problems.append(problem)

    parsed: dict[str, object] = {}
    sources: dict[str, str] = {}
    refused_secrets: list[str] = []
    for setting in SETTINGS.values():
        candidates = {
            f"flag {setting.flag}": flags.get(setting.field_name, "").strip(),
            "environment": environment.get(setting.name, "").strip(),
            f"file {file_name}": file_values.get(setting.name, "").strip(),
        }
        source = next((source for source, text in candidates.items() if text), None)
        if source is None:
            continue
        sources[setting.field_name] = source
        try:
            parsed[setting.field_name] = parse_setting(setting, candidates[source])
        except ValueError as exc:
            if setting.secret:
                refused_secrets.append(candidates[source])
            problems.append(_problem(setting, source, exc))

    database_url = SETTINGS["database_url"]
    if database_url.field_name not in sources:
        given = {"environment": environment, f"file {file_name}": file_values}
        empty = [source for source, variables in given.items() if database_url.name in variables]
        problems += [_empty(database_url, source) for source in empty[:1]]

    settings = Settings(sources=sources, **parsed)  # type: ignore[arg-type]
    return LoadedSettings(
        settings,
        tuple(problems),
        (
            *_likely_typos(environment, "the environment"),
            *_likely_typos(file_values, file_name),
            *_without_effect(sources),
        ),
        (*settings.secrets(), *refused_secrets),
    )


def parse_setting(setting: Description, text: str) -> object:
    """The value; raises ValueError with the end of a sentence that begins with the name."""
    if len(text) > _LENGTH_LIMIT:
        raise ValueError(f"must not be longer than {_LENGTH_LIMIT} characters")
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return setting.parse(text)


def _problem(setting: Description, source: str, exc: ValueError) -> EtlError:
    if source.startswith("flag "):
        return UsageError(f"{setting.flag} {exc}.", setting=setting.name)
    return ConfigurationError(f"{setting.name} (from {source}) {exc}.", setting=setting.name)


def _empty(setting: Description, source: str) -> EtlError:
    return ConfigurationError(
        f"{setting.name} (from {source}) is empty: set it to the URL of the warehouse, or remove "
        "it and set ETL_EMBEDDED=yes, to keep the history in an embedded Postgres here.",
        setting=setting.name,
    )


def _without_effect(sources: Mapping[str, str]) -> Iterator[str]:
    if "notify" in sources and "notify_url" not in sources:
        yield "ETL_NOTIFY is set and ETL_NOTIFY_URL is not: no notice will be posted"


def _likely_typos(given: Mapping[str, str], where: str) -> Iterator[str]:
    """A warning for each unknown name that is close to that of a setting."""
    known = [setting.name for setting in SETTINGS.values()]
    for name in given:
        if name.startswith(("ETL_", "KALTURA_", "DATABASE_")) and name not in known:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                # A near name that is set as well is no typo: KALTURA_KS2 beside KALTURA_KS.
                if near not in given:
                    yield f"{name} in {where} is not a setting; did you mean {near}?"
