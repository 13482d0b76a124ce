"""The files of ``sql/views``: each is a view or a function of the schema, with its comments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path
from typing import Final

from etl.resources import sql_directory
from etl.warehouse.schema.tables import build_tables

_OF_A_COLUMN: Final = re.compile(r" (?P<name>[a-z][a-z0-9_]*): (?P<words>.*)")
_LIKE: Final = "Columns not named here are those of upload_token_superseded."


@dataclass(frozen=True, slots=True)
class ViewFile:
    """A view or a function, and what it says of itself and of its columns."""

    name: str
    statement: str
    comment: str
    columns: Mapping[str, str]
    """Comments of the columns of a view, by name; a function has none."""
    is_function: bool

    @classmethod
    def of(cls, name: str, statement: str, like: Mapping[str, str]) -> ViewFile:
        """``like``: comments of columns that the file does not name."""
        is_function = f"create or replace function {name}(" in statement
        comment, columns = read_comments(statement, has_columns=not is_function)
        return cls(name, statement, comment, {**like, **columns}, is_function)

    def statements(self, quote: Callable[[str], str]) -> Iterator[str]:
        """SQL that creates or replaces it in the schema of the search_path, and its comments.

        These are sent at once: one by one they were half of all statements of a migration.
        """
        yield self.statement
        said = {f"{'function' if self.is_function else 'view'} {quote(self.name)}": self.comment}
        said |= {
            f"column {quote(self.name)}.{quote(column)}": words
            for column, words in self.columns.items()
        }
        yield "; ".join(
            "comment on {} is '{}'".format(what, words.replace("'", "''"))
            for what, words in said.items()
        )


def view_files() -> list[ViewFile]:
    """All views and functions as they are now, each after those that it is built upon.

    In the same order in every process: views that do not build on each other are not shuffled.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in _directory().glob("*.sql")}
    code = {
        name: "\n".join(line.partition("--")[0] for line in text.splitlines())
        for name, text in texts.items()
    }
    graph = {
        name: [
            other
            for other in sorted(code)
            if other != name and re.search(rf"\b{other}\b", code[name])
        ]
        for name in sorted(code)
    }
    return [
        ViewFile.of(name, texts[name], version_comments() if f"-- {_LIKE}" in texts[name] else {})
        for name in TopologicalSorter(graph).static_order()
    ]


def read_view(name: str) -> str:
    """The text of one of the files."""
    return (_directory() / f"{name}.sql").read_text(encoding="utf-8")


def read_comments(statement: str, *, has_columns: bool = True) -> tuple[str, dict[str, str]]:
    """The comments that a file of ``sql/views`` begins with: on the view, and on its columns.

    The lines before the statement are paragraphs.  The last of these lines, if they begin with
    ``name: ``, are about the columns of these names, and indented lines go on with them.  Such a
    line anywhere else is a sentence like others, and so is the first line of a file.
    """
    head = [line.removeprefix("--") for line in takewhile(_is_comment, statement.splitlines())]
    end = len(head)
    for number in range(len(head) - 1 if has_columns else 0, 0, -1):
        if _OF_A_COLUMN.fullmatch(head[number]):
            end = number
        elif not head[number].startswith("   "):
            break
    columns: dict[str, str] = {}
    last = ""
    for line in head[end:]:
        found = _OF_A_COLUMN.fullmatch(line)
        if found is not None:
            last = found["name"]
            columns[last] = found["words"]
        else:
            columns[last] += f" {line.strip()}"
    words = [line.strip() for line in head[:end] if line.strip() != _LIKE]
    paragraphs = "\n".join(words).strip().split("\n\n")
    return "\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs), columns


def _is_comment(line: str) -> bool:
    return line.startswith("--")


def _directory() -> Path:
    return sql_directory() / "views"


def version_comments() -> dict[str, str]:
    """Comments of the columns that the views of versions have."""
    table = build_tables().upload_token_superseded
    # What is told of changes of status is in upload_token_status_history.
    told = ("first_happened_at", "status_")
    return {
        each.name: str(each.comment) for each in table.columns if not each.name.startswith(told)
    }
