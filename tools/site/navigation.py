"""The navigation of the documentation: the lists of links in ``docs/index.md``, in their order.

So a reader of the repository and a reader of the site find the same pages under the same names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

INDEX: Final = "docs/index"
"""The page without its suffix, as Sphinx names pages."""

PAGES: Final = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md")

_SECTION: Final = re.compile(r"^## ", re.MULTILINE)
_ENTRY: Final = re.compile(r"^- \[([^\]]+)\]\(([^)]+)\)", re.MULTILINE)


def pages_of(checkout: Path) -> list[str]:
    """The files that are pages, relative to the checkout."""
    return sorted(
        path.relative_to(checkout).as_posix() for each in PAGES for path in checkout.glob(each)
    )


class Section(NamedTuple):
    title: str
    entries: list[tuple[str, str]]
    """Title and target of each page, relative to the index."""


def sections_of(index: str) -> list[Section]:
    """The sections of the index that list pages; the text of the file is given."""
    parts = (part.partition("\n") for part in _SECTION.split(index)[1:])
    found = [Section(title.strip(), _ENTRY.findall(body)) for title, _, body in parts]
    return [section for section in found if section.entries]


def as_toctrees(sections: list[Section]) -> str:
    """The sections in the notation that Sphinx takes a navigation from."""
    return "".join(
        "\n".join(
            [
                "\n\n```{toctree}",
                *(":hidden:", f":caption: {section.title}", ""),
                *(f"{title} <{target}>" for title, target in section.entries),
                "```\n",
            ]
        )
        for section in sections
    )
