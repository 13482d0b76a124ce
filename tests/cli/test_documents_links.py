"""Every page has its place in ``docs/index.md``, and every link of a page leads somewhere.

``./dev docs`` finds the same when it builds the site (``test_documents_site.py``); here it is found
without the generator.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from tests.support.documents import ROOT
from tools.site.navigation import INDEX, pages_of, sections_of

MARKDOWN: Final = MarkdownIt("commonmark").enable("table")
HTML_LINK: Final = re.compile(r"""(?:href|src)\s*=\s*["']([^"']*)""")
NOT_IN_AN_ANCHOR: Final = re.compile(r"[^\w\- ]")


class Page(NamedTuple):
    links: list[str]
    anchors: set[str]
    levels: list[int]
    """Of its headings."""


@cache
def read(path: Path) -> Page:
    links: list[str] = []
    anchors: set[str] = set()
    levels: list[int] = []
    seen = Counter[str]()
    tokens = MARKDOWN.parse(path.read_text(encoding="utf-8"))
    for token, after in pairwise(tokens):
        if token.type == "heading_open":
            levels.append(int(token.tag[1:]))
            heading = "".join(
                part.content
                for part in after.children or []
                if part.type in ("text", "code_inline")
            )
            slug = NOT_IN_AN_ANCHOR.sub("", heading.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    for token in chain.from_iterable([each, *(each.children or [])] for each in tokens):
        if token.type in ("html_block", "html_inline"):
            links.extend(HTML_LINK.findall(token.content))
        elif target := token.attrGet("href") or token.attrGet("src"):
            links.append(unquote(str(target)))
    return Page(links, anchors, levels)


def dead_links(checkout: Path) -> list[str]:
    """``page: link`` of each link to nothing, or to what is no page of the site."""
    pages = pages_of(checkout)
    return [
        f"{page}: {link}"
        for page in pages
        for link in read(checkout / page).links
        if not _leads_somewhere(checkout, page, link, pages)
    ]


def _leads_somewhere(checkout: Path, page: str, link: str, pages: list[str]) -> bool:
    url = urlsplit(link)
    if url.scheme:
        return url.scheme in ("https", "mailto")
    target = _from(page, url.path) if url.path else page
    if target.endswith(".md"):
        return target in pages and url.fragment in {"", *read(checkout / target).anchors}
    # A folder is shown in the repository, but not on the site.
    return not target.startswith("..") and (checkout / target).is_file() and not url.fragment


def _from(page: str, path: str) -> str:
    """A path that a page gives, relative to the checkout."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def unlisted(checkout: Path) -> list[str]:
    """The pages that are not in the index exactly once."""
    index = (checkout / f"{INDEX}.md").read_text(encoding="utf-8")
    times = Counter(
        _from(INDEX, target) for section in sections_of(index) for _, target in section.entries
    )
    return [page for page in pages_of(checkout) if times[page] != (page != f"{INDEX}.md")]


def test_every_page_is_in_the_navigation_once() -> None:
    assert unlisted(ROOT) == [], "give it its place in docs/index.md"
    assert f"{INDEX}.md" in read(ROOT / "README.md").links


def test_every_link_and_every_anchor_exists() -> None:
    assert dead_links(ROOT) == []


def test_a_page_has_one_title_and_its_headings_leave_out_no_level() -> None:
    """More titles would be entries of the navigation."""
    levels = {page: read(ROOT / page).levels for page in pages_of(ROOT)}

    assert [page for page, each in levels.items() if each[0] != 1 or each.count(1) != 1] == []
    steps = {page: [below - above for above, below in pairwise(levels[page])] for page in levels}
    assert [page for page, each in steps.items() if max(each, default=0) > 1] == []


WRONG: Final = {
    "[gone](docs/gone.md)": "gone",
    "[gone](docs/page.md#gone)": "anchor of another page",
    "[gone](#gone)": "anchor of this page",
    "[anchor](docs/page.md#in-a-block)": "no heading, but code",
    "[folder](docs/)": "folder",
    "[outside](../elsewhere.md)": "outside of the repository",
    "[code](dev#L1)": "line of a file",
    "[insecure](http://example.com)": "not https",
    "![picture](docs/gone.svg)": "picture",
    '<a href="docs/gone.md">gone</a>': "HTML",
    "| a |\n|---|\n| [gone](docs/gone.md) |": "in a table",
    "[gone][there]\n\n[there]: docs/gone.md": "by reference",
}
RIGHT: Final = """
[page](docs/page.md) [its part](docs/page.md#a-part-code) [again](docs/page.md#a-part-code-1)
[here](#title) [a file](dev) [elsewhere](https://example.com/a#b) `[code](docs/gone.md)`

```
[no link](docs/gone.md)
```
"""
PAGE: Final = "# Page\n\n## A part: `code`\n\n## A part: `code`\n\n```\n# In a block\n```\n"
SMALL_INDEX: Final = "# All\n\n## Start\n\n- [Overview](../README.md): first\n- [Page](page.md)\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small one in which nothing is wrong."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "dev").touch()
    for name, text in {
        "README.md": f"# Title\n\n{RIGHT}",
        "docs/page.md": PAGE,
        "docs/index.md": SMALL_INDEX,
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("link", WRONG, ids=WRONG.values())
def test_a_dead_link_is_found(checkout: Path, link: str) -> None:
    assert dead_links(checkout) == []
    with (checkout / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(f"\n{link}\n")
    read.cache_clear()

    assert len(dead_links(checkout)) == 1


def test_a_page_without_a_place_is_found(checkout: Path) -> None:
    assert unlisted(checkout) == []
    (checkout / "docs" / "deep").mkdir()
    (checkout / "docs" / "deep" / "new.md").write_text("# New\n", encoding="utf-8")
    with (checkout / "docs" / "index.md").open("a", encoding="utf-8") as index:
        index.write("- [Page again](page.md)\n")

    assert unlisted(checkout) == ["docs/deep/new.md", "docs/page.md"]
