"""Results for people: plain tables that are whole at any width and cannot steer the terminal.

Every table of the program is made here, and two things hold for each, at any width: no figure is
cut, and no word is broken.  Columns that do not fit side by side follow beneath their row, each
with its name; a single word that is longer than a line makes that line longer.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from etl.coverage import TIE_GROUP
from etl.process.log import json_text, printable
from etl.report.words import duration

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

ROWS_SHOWN = 50
CELL_LENGTH_LIMIT = 300
TEXT_WIDTH_LEAST = 20
"""A column of sentences is not made narrower than this; it goes beneath the row instead."""
GAP = "  "
INDENT = "    "
RUN_COUNTS = (
    "tokens_read",
    "rows_read",
    "inserted",
    "changed",
    "absent",
    "relisted",
    "unchanged",
    "rejected",
    "partly_loaded",
    "unreadable",
    "requests",
    "retries",
    "pages",
)
"""Counts of the table, in this order; ``--json`` has every field of the report."""
IDS_SHOWN = 20


def text_of(parts: Iterable[RenderableType], *, width: int | None, terminal: bool) -> str:
    """What is to be printed.  ``width``: columns; None asks the terminal."""
    body = io.StringIO()
    console = Console(
        file=body,
        width=width,
        force_terminal=terminal,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for part in parts:
        console.print(part, crop=False)
    return body.getvalue().strip("\n") + "\n"


def cell_text(value: object) -> str:
    """``value`` as text: counts with separators, times to the second, durations in their two
    largest units, nothing for None."""
    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.1f}"
    elif isinstance(value, datetime.datetime):
        text = f"{value.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%SZ}"
    elif isinstance(value, datetime.date):
        text = value.isoformat()
    elif isinstance(value, datetime.timedelta):
        # A terminal may have no space that does not break.
        text = duration(value).replace("\u00a0", " ")
    elif isinstance(value, str):
        text = value
    else:
        text = json_text(value)
    if len(text) > CELL_LENGTH_LIMIT:
        # Between two words, if there is such a place: half a figure would be a wrong one.
        text = text[:CELL_LENGTH_LIMIT].rpartition(" ")[0] or text[:CELL_LENGTH_LIMIT]
        text += " …"
    return printable(text)


def facts_table(title: str, facts: Mapping[str, object]) -> RenderableType:
    """Two columns: what, and how much."""
    return _Facts(printable(title), {_words(name): _named(name, facts[name]) for name in facts})


def rows_table(
    title: str,
    rows: Sequence[Mapping[str, object]],
    *,
    shown: int = ROWS_SHOWN,
    total: int | None = None,
    beneath: Sequence[str] = (),
) -> RenderableType:
    """One row per line, at most ``shown``; columns as the rows name them, without empty ones.

    Args:
        total: How many there are, if ``rows`` are only the first of them.
        beneath: Columns whose texts always get lines of their own, under their row.
    """
    columns = [
        _Column.of(name, [row.get(name) for row in rows[:shown]])
        for name in dict.fromkeys(name for row in rows for name in row)
        if any(row.get(name) not in (None, "") for row in rows)
    ]
    # Texts last: what gets lines of its own does not push figures off theirs.
    columns.sort(key=lambda column: column.name in beneath)
    side_by_side = [column for column in columns if column.name not in beneath]
    more = ""
    if total is not None and total > len(rows):
        more = f"and {total - min(len(rows), shown):,} more; --json shows the first {len(rows):,}"
    elif len(rows) > shown:
        more = f"and {len(rows) - shown:,} more; --json shows all"
    return _Rows(printable(title), columns, len(side_by_side), min(len(rows), shown), more)


def report_tables(report: dict[str, Any]) -> list[RenderableType]:
    """The report for a person."""
    facts: dict[str, object] = {name: report[name] for name in RUN_COUNTS}
    facts["duration"] = f"{report['duration_seconds']:.1f} s"
    facts["coverage"] = report["coverage"]
    if report["open_coverage"] != "{}":
        facts["open_coverage"] = report["open_coverage"]
    if report["resumed_from"] is not None:
        facts["resumed_from"] = str(report["resumed_from"])  # an id, not a quantity
    for name in ("range_from", "range_to", "full_because", "expected_requests"):
        if report[name] is not None:
            facts[name] = report[name]
    if report["asked"]:
        facts["ids_asked"] = report["asked"]
        facts["ids_not_found"] = _some(report["not_found"])
    if report["unreadable_ids"]:
        facts["ids_unreadable"] = _some(report["unreadable_ids"])
    # Counted in unreadable, where they look like tokens.
    busy = sum(hole["reason"] == TIE_GROUP and hole["tokens"] > 0 for hole in report["holes"])
    if busy:
        facts["seconds_changing"] = busy
    if report["dry_run"]:
        title = "Nothing was published (dry run). This would change:"
    else:
        title = f"Account {report['partner_id']}, run {report['run_id']}: {report['status']}"
        facts["published_at"] = report["published_at"]
    tables = [facts_table(title, facts)]
    if report["dry_run"]:
        changes = report.get("changes") or []
        rows = [row if isinstance(row, dict) else {"change": row} for row in changes]
        total = sum(report[name] for name in ("inserted", "changed", "absent", "relisted"))
        tables.append(rows_table("changes" if rows else "no changes", rows, total=total))
    return tables


def paragraph(text: str, *, style: str = "") -> RenderableType:
    """Sentences, wrapped between words; lines that begin with a blank stay as they are."""
    return _Paragraph(text, style)


class StreamedTable:
    """A table whose rows are printed as they come.

    ``widths``: what each column is expected to need; a value that needs more gets it.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = widths

    def row(self, values: Mapping[str, object], *, heading: bool) -> RenderableType:
        """One row, under its columns' names if ``heading``."""
        columns = [
            _Column.of(name, [values.get(name)], width=self._widths[name]) for name in self._widths
        ]
        return _Rows("", columns, len(columns), 1, "", heading=heading)


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cells: list[str]
    right: bool
    least: int
    """Without a broken word; a figure, a time and an id are one word."""
    wanted: int

    @classmethod
    def of(cls, name: str, values: Sequence[object], *, width: int = 0) -> _Column:
        cells = [_named(name, value) for value in values]
        longest = max((cell_len(text) for text in cells), default=0)
        heading = _longest_word(_words(name))
        numbers = all(isinstance(value, int | float) or value is None for value in values)
        is_text = not numbers and not any(isinstance(value, datetime.datetime) for value in values)
        least = longest
        if is_text and longest > TEXT_WIDTH_LEAST:
            least = max(TEXT_WIDTH_LEAST, *map(_longest_word, cells))
        return cls(name, cells, numbers, max(least, heading, width), max(longest, heading, width))


@dataclass(frozen=True, slots=True)
class _Facts:
    title: str
    facts: dict[str, str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        width = options.max_width
        yield from _heading(self.title, width)
        names = max(map(cell_len, self.facts), default=0)
        room = width - names - len(GAP)
        for name, value in self.facts.items():
            if value == "" or _longest_word(value) <= room:
                lines = _wrap(value, room)
                yield _line(_left(name, names) + GAP + lines[0])
                yield from (_line(" " * names + GAP + line) for line in lines[1:])
            else:
                yield _line(name)
                yield from (_line(INDENT + line) for line in _wrap(value, width - len(INDENT)))


@dataclass(frozen=True, slots=True)
class _Rows:
    title: str
    columns: list[_Column]
    side_by_side: int
    """The first so many columns stand side by side, as far as there is room."""
    rows: int
    more: str
    heading: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        width = options.max_width
        yield from _heading(self.title, width)
        fitting = self._fitting(width)
        widths = _widths(self.columns[:fitting], width)
        if fitting and self.heading:
            names = [
                _wrap(_words(each.name), each_width)
                for each, each_width in zip(self.columns, widths, strict=False)
            ]
            height = max(map(len, names))
            padded = [[""] * (height - len(lines)) + lines for lines in names]
            yield from self._lines(padded, widths, style="bold")
            yield _line(GAP.join("-" * each for each in widths))
        indent = INDENT if fitting else ""
        for row in range(self.rows):
            cells = [
                _wrap(each.cells[row], each_width)
                for each, each_width in zip(self.columns, widths, strict=False)
            ]
            yield from self._lines(cells, widths)
            for text in self._beneath(row, fitting, width - len(indent)):
                yield _line(indent + text)
            if not fitting and row + 1 < self.rows:
                yield Text("")
        if self.more:
            yield from map(_line, _wrap(self.more, width))

    def _fitting(self, width: int) -> int:
        taken = -len(GAP)
        for number, column in enumerate(self.columns[: self.side_by_side]):
            taken += len(GAP) + column.least
            if taken > width:
                return number
        return self.side_by_side

    def _lines(
        self, cells: list[list[str]], widths: list[int], *, style: str = ""
    ) -> Iterator[Text]:
        for number in range(max(map(len, cells), default=0)):
            parts = [
                (_right if column.right else _left)(
                    lines[number] if number < len(lines) else "", width
                )
                for column, lines, width in zip(self.columns, cells, widths, strict=False)
            ]
            yield _line(GAP.join(parts), style=style)

    def _beneath(self, row: int, fitting: int, width: int) -> Iterator[str]:
        """The columns that are not side by side: short ones together, long ones on their own."""
        together = ""
        for number, column in enumerate(self.columns[fitting:], fitting):
            value = column.cells[row]
            if value == "":
                continue
            item = f"{_words(column.name)} {value}"
            alone = number >= self.side_by_side or cell_len(item) > width
            joined = f"{together}{GAP}{item}" if together else item
            if not alone and cell_len(joined) <= width:
                together = joined
                continue
            if together:
                yield together
            together = "" if alone else item
            if alone:
                yield from _wrap(item, width)
        if together:
            yield together


@dataclass(frozen=True, slots=True)
class _Paragraph:
    text: str
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        for line in self.text.split("\n"):
            lines = [line] if line.startswith(" ") else _wrap(line, options.max_width)
            yield from (_line(printable(each), style=self.style) for each in lines)


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """What is left of ``width`` goes to the columns that want it, the least wanting first."""
    widths = [column.least for column in columns]
    left = width - sum(widths) - len(GAP) * (len(columns) - 1)
    wanting = [number for number, column in enumerate(columns) if column.wanted > column.least]
    wanting.sort(key=lambda number: columns[number].wanted - columns[number].least)
    for place, number in enumerate(wanting):
        share = left // (len(wanting) - place)
        given = min(share, columns[number].wanted - columns[number].least)
        widths[number] += given
        left -= given
    return widths


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` cells, broken between words; a longer word has its own line."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split(" ")))


def _left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _line(text: str, *, style: str = "") -> Text:
    # Rich must neither wrap nor crop: the layout is ours.
    return Text(text.rstrip(), style=style, no_wrap=True, overflow="ignore")


def _heading(title: str, width: int) -> Iterator[Text]:
    if title:
        yield Text("")
        yield from (_line(line, style="bold") for line in _wrap(title, width))
        yield Text("")


def _words(name: str) -> str:
    return printable(name.replace("_", " "))


def _named(name: str, value: object) -> str:
    # An identifier is not a quantity: partner_id 1234567 gets no separators.
    if name in ("pid", "seq", "seed") or name.endswith("_id"):
        return cell_text(None if value is None else str(value))
    if name.endswith("coverage") and isinstance(value, str):
        # A multirange has no blanks: its ranges are its words.
        value = value.replace("),", "), ").replace("],", "], ")
    return cell_text(value)


def _some(ids: list[str]) -> str:
    # The number first: a cell that is too long loses its end.
    such_as = ", such as" if len(ids) > IDS_SHOWN else ":"
    return f"{len(ids):,}{such_as} {', '.join(ids[:IDS_SHOWN])}" if ids else "0"
