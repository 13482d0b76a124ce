"""Sphinx' configuration: see https://www.sphinx-doc.org and https://myst-parser.readthedocs.io.

Sphinx, because it finds by itself what must not happen, and ``--fail-on-warning`` makes errors of
it: a dead link, a dead anchor, a page that the navigation leaves out, an entry of the navigation
without a page.  Zensical (0.0.73, with ``--strict``) lets the last two pass, Material for MkDocs
is at the end of its maintenance, and MkDocs' last release is from 2024.

The source folder is the root of the checkout, not ``docs``: then README, CHANGELOG and
CONTRIBUTING are pages as well, and one relative link is right in the repository and on the site.
"""

from __future__ import annotations

import tomllib
from typing import Any

from tools.environments import ROOT
from tools.site.navigation import INDEX, as_toctrees, pages_of, sections_of

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
html_title = f"{project} {_project['version']}"
root_doc = INDEX
include_patterns = pages_of(ROOT)
exclude_patterns = [".*", "build", "dist"]  # large folders that need not be walked

# Pages are Markdown as the repository's own site shows it, so nothing of it may mean more here: a
# line that begins with "%" is no comment, "(name)=" no target.  Anchors are made as GitHub does.
extensions = ["myst_parser"]
myst_heading_anchors = 6
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
smartquotes = False
highlight_language = "none"  # for blocks that name none; Sphinx' own default is Python
nitpicky = True
# Not wrong in a page: psql's \i among SQL, and Mermaid, for which Pygments has no lexer.
suppress_warnings = ["misc.highlighting_failure"]

# Furo loads nothing from elsewhere, and the index of its search is a file of the site.
html_theme = "furo"
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]
html_use_index = False
html_copy_source = False
html_show_copyright = False


def setup(app: Any) -> None:
    app.connect("source-read", _add_navigation)


def _add_navigation(_app: Any, page: str, source: list[str]) -> None:
    if page == INDEX:
        source[0] += as_toctrees(sections_of(source[0]))
