"""The dashboards of ``examples/``, with their queries as Grafana and Metabase would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.support.recipes import EXAMPLES

GRAFANA: Final = EXAMPLES / "grafana" / "kaltura-uploads.json"
METABASE: Final = EXAMPLES / "metabase"
EXPOSURES: Final = EXAMPLES.parent / "sql" / "dbt" / "models" / "exposures.yml"


def dashboard() -> dict[str, Any]:
    """Grafana's dashboard."""
    found = json.loads(GRAFANA.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def as_grafana_sends(query: str, variables: dict[str, str], time_from: str, time_to: str) -> str:
    """The macros of its PostgreSQL data source and the variables of the dashboard, replaced.

    Times are in RFC 3339, in UTC.  A macro ends at the first closing bracket.
    """

    def filtered(match: re.Match[str]) -> str:
        return f"{match[1]} BETWEEN '{time_from}' AND '{time_to}'"

    query = re.sub(r"\$__timeFilter\(([^)]*)\)", filtered, query)
    for name, value in variables.items():
        query = re.sub(rf"\$(?:{name}\b|{{{name}}})", value, query)
    assert "$" not in query, query
    return query


@dataclass(frozen=True, slots=True)
class MetabaseQuestion:
    """A file of ``examples/metabase``: three lines of comment, and the query."""

    name: str
    text: str

    @property
    def shown(self) -> set[str]:
        """Columns that its display names."""
        return set(re.findall(r"`(\w+)`", self[1]))

    @property
    def needs(self) -> dict[str, str]:
        """The kind of each variable that its third line names."""
        return dict(re.findall(r"(\w+) \((number|date)(?:, required)?\)", self[2]))

    @property
    def required(self) -> set[str]:
        return set(re.findall(r"(\w+) \(\w+, required\)", self[2]))

    def __getitem__(self, line: int) -> str:
        return self.text.splitlines()[line]

    def as_metabase_sends(self, **values: str) -> str:
        """Without the optional parts whose variable has no value."""

        def part(match: re.Match[str]) -> str:
            return match[1] if variables(match[1]) <= values.keys() else ""

        query = re.sub(r"\[\[(.*?)\]\]", part, self.text, flags=re.DOTALL)
        return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], query)


def variables(query: str) -> set[str]:
    """The variables of a query of Metabase."""
    return set(re.findall(r"\{\{(\w+)\}\}", query))


def metabase_questions() -> Iterator[MetabaseQuestion]:
    for path in sorted(METABASE.glob("*.sql")):
        yield MetabaseQuestion(path.stem, path.read_text(encoding="utf-8"))


def exposed() -> dict[str, set[str]]:
    """The sources that each exposure of the dbt package depends on."""
    _, *parts = re.split(r"^  - name: ", EXPOSURES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        part.partition("\n")[0]: set(re.findall(r"source\('kaltura', '(\w+)'\)", part))
        for part in parts
    }
