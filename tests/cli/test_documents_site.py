"""The site that ``./dev docs`` builds, in a browser that reaches no other computer.

A campaign, because the generator is installed for it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.browser import Browser, open_browser
from tests.support.documents import ROOT
from tools.site.navigation import INDEX, pages_of

pytestmark = [pytest.mark.campaign, pytest.mark.chromium]

FOUND = """(async () => {
    Search.performSearch(%r);
    const shown = document.querySelector('#search-results');
    while (!/finished|did not match/.test(shown.innerText)) {
        await new Promise((done) => setTimeout(done, 20));
    }
    return [...shown.querySelectorAll('li a')].map((a) => a.pathname);
})()"""


def build(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.site", folder],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "built"
    done = build(ROOT, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/index.html\n"
    return folder


@pytest.fixture(scope="module")
def browser(chromium_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(chromium_program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_every_page_is_there_and_its_links_lead_somewhere(site: Path, browser: Browser) -> None:
    links: set[str] = set()
    anchors: dict[Path, list[str]] = {}
    pages = [site / Path(page).with_suffix(".html") for page in pages_of(ROOT)]
    for page in [*pages, site / "search.html"]:
        browser.open(page)
        links.update(browser.run("[...document.querySelectorAll('a[href]')].map(a => a.href)"))
        anchors[page] = browser.run("[...document.querySelectorAll('[id]')].map(e => e.id)")

        own = (f"{site.as_uri()}/", "data:")
        assert [each for each in browser.requests() if not each.startswith(own)] == []
        assert [each for each in browser.complaints() if "file" not in each] == []

    local = [urlsplit(link) for link in links if link.startswith("file:")]
    assert len(local) > 100
    for url in local:
        target = Path(unquote(url.path))
        assert target.is_file(), target
        if url.fragment:
            assert unquote(url.fragment) in anchors[target], url
    assert {urlsplit(link).scheme for link in links} == {"file", "https"}


@pytest.mark.parametrize("width", [320, 900, 1100, 1600])
def test_the_pages_fit_the_screen(site: Path, browser: Browser, width: int) -> None:
    browser.show(width=width)
    for page in ("README", "docs/howto/operate", "docs/reference/settings"):
        browser.open(site / f"{page}.html")

        assert browser.run("document.documentElement.scrollWidth") == width, page


def test_the_search_needs_no_server(site: Path, browser: Browser) -> None:
    browser.open(site / "search.html")

    found = browser.run(FOUND % "absence_brake")

    assert f"{site}/docs/howto/operate.html" in found


def test_the_top_of_the_site_leads_to_the_index(site: Path) -> None:
    (target,) = re.findall(r"; url=([^\"]+)", (site / "index.html").read_text(encoding="utf-8"))

    assert target == f"{INDEX}.html"
    assert (site / target).is_file()


def test_whatever_is_wrong_fails_the_build_and_is_named(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for part in ("docs", "benchmarks", "tools"):
        shutil.copytree(ROOT / part, checkout / part)
    for file in [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.txt"),
        ROOT / "pyproject.toml",
        ROOT / "LICENSE",
    ]:
        shutil.copy(file, checkout)
    (checkout / "docs" / "unlinked.md").write_text("# Unlinked\n", encoding="utf-8")
    with (checkout / "docs" / "index.md").open("a", encoding="utf-8") as index:
        index.write("- [No page](nothing.md)\n")
    with (checkout / "CHANGELOG.md").open("a", encoding="utf-8") as changelog:
        changelog.write("\n[dead](docs/dead.md) [anchor](docs/why.md#dead-anchor)\n")

    done = build(checkout, tmp_path / "site")

    assert done.returncode == 1
    for wrong in ("unlinked.md", "nothing", "docs/dead.md", "dead-anchor"):
        assert wrong in done.stderr, done.stderr
    assert not (tmp_path / "site").exists()
