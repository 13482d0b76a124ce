"""The page as a browser shows it: it asks for nothing, runs nothing, fits and can be read.

``ETL_TEST_SHOTS=FOLDER`` keeps the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from etl.report.index import entry_of, render_index
from etl.report.page import render_report
from tests.support.browser import Browser, open_browser
from tests.support.report_sample import HOSTILE, change, night, rows

pytestmark = pytest.mark.chromium

WIDE, NARROW = 1200, 360
CHARTS = 4
SCHEMES = ("light", "dark")
TAB = 9

TEXT_CONTRASTS = """(() => {
  const parse = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    return parts.length === 4 && parts[3] === 0 ? null : parts.slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour) return colour;
    }
    return [255, 255, 255];
  };
  for (const details of document.querySelectorAll('details')) details.open = true;
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (['title', 'desc'].includes(element.tagName.toLowerCase())) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest('svg') ? style.fill : style.color);
    found.push([ratio(colour, behind(element)), walker.currentNode.data.trim().slice(0, 40)]);
  }
  const shapes = [];
  for (const mark of document.querySelectorAll('.mark-rect path, .mark-symbol path, .swatch')) {
    if (!mark.checkVisibility()) continue;
    const style = getComputedStyle(mark);
    // What is pale or hollow has an outline.
    const hollow = style.fillOpacity < 1 || style.fill === style.getPropertyValue('--page')
      || mark.matches('.mark-symbol path');
    const colour = mark.closest('svg') ? (hollow ? style.stroke : style.fill)
      : mark.matches('.line, .pale') ? style.borderTopColor : style.backgroundColor;
    shapes.push([ratio(parse(colour), behind(mark.parentElement.closest(':not(svg *)'))), colour]);
  }
  return {texts: found, shapes: shapes};
})()"""

STICKING_OUT = """(() => {
  for (const details of document.querySelectorAll('details')) details.open = true;
  const wide = [...document.body.querySelectorAll('*')].filter((e) =>
    !e.closest('.scroll table, svg *, .hidden, .skip')
    && e.getBoundingClientRect().right > innerWidth + 0.5);
  const root = document.documentElement;
  const places = wide.map((e) => e.outerHTML.slice(0, 80));
  return {scrolls: root.scrollWidth - root.clientWidth, wide: places};
})()"""


BROKEN_FIGURES = """[...document.querySelectorAll('.figures dd:not(.small)')].filter((e) => {
  const range = document.createRange();
  range.selectNodeContents(e);
  const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.bottom)));
  const tile = e.parentElement.getBoundingClientRect();
  const right = Math.max(...[...range.getClientRects()].map((box) => box.right));
  return lines.size > 1 || right > tile.right || right > innerWidth;
}).map((e) => e.textContent)"""


SCROLLED = """(async () => {
  for (const details of document.querySelectorAll('details')) details.open = true;
  // What depends on whether a table scrolls follows its layout.
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
  return [...document.querySelectorAll('.scroll')].map((e) => {
    const overflows = e.scrollWidth > e.clientWidth;
    const hinted = e.querySelector('.more').checkVisibility();
    const second = e.querySelectorAll('thead th')[1].getBoundingClientRect();
    e.scrollLeft = 10000;
    const heading = e.querySelector('tbody th').getBoundingClientRect();
    const box = e.getBoundingClientRect();
    return {name: e.getAttribute('aria-labelledby'), overflows, hinted,
      second: second.right <= box.right, stays: heading.left >= box.left};
  });
})()"""


@pytest.fixture(scope="module")
def browser(chromium_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(chromium_program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_page_asks_for_nothing_but_itself(browser: Browser, page: Path) -> None:
    browser.show()
    browser.open(page)
    browser.run("new Promise((done) => setTimeout(done, 500))")

    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


def test_the_policy_stops_what_would_be_fetched(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """If something slipped in, the browser would stop it: and we would see that it tried."""
    html = page.read_text(encoding="utf-8")
    slipped_in = '<img src="http://evil.invalid/x"><script>hit=1</script><main'
    path = tmp_path / "page.html"
    path.write_text(html.replace("<main", slipped_in, 1), encoding="utf-8")

    browser.open(path)

    assert browser.run("typeof hit") == "undefined"
    assert any("Content Security Policy" in text for text in browser.complaints())
    assert browser.requests() == [path.as_uri(), "http://evil.invalid/x"]
    failed = [each for each in browser.events if each.get("method") == "Network.loadingFailed"]
    assert [each["params"].get("blockedReason") for each in failed] == ["csp"]


def test_names_that_people_chose_are_text(browser: Browser, page: Path) -> None:
    browser.open(page)

    assert browser.run("document.title").startswith("Uploads of account ")
    assert browser.run("typeof window.hit") == "undefined"
    forbidden = (
        "script, img, iframe, object, embed, form, base, link:not([rel=icon]), foreignObject"
    )
    assert browser.run(f"document.querySelectorAll('{forbidden}').length") == 0
    texts = browser.run(
        "[...document.querySelectorAll('#stuck ~ .scroll bdi')].map(e => e.innerHTML)"
    )
    assert "&lt;script&gt;document.title='gotcha';window.hit=1&lt;/script&gt;" in texts
    shown = browser.run(
        "[...document.querySelectorAll('#stuck ~ .scroll bdi')].map(e => e.textContent)"
    )
    for name in ("script", "image", "leave", "address", "template", "formula", "entity", "arabic"):
        assert shown.count(HOSTILE[name]) == 2, name  # as a file name, and as a user
    assert "holiday[U+202E]fdp.exe[U+2066]" in shown


@pytest.mark.parametrize("width", [320, NARROW, 640, 800, WIDE])
def test_the_page_fits_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.show(width=width)
    browser.open(page)

    assert browser.run(STICKING_OUT) == {"scrolls": 0, "wide": []}
    shown = browser.run(
        "[...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).length"
    )
    assert shown == CHARTS


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_charts_stand_out(browser: Browser, page: Path, scheme: str) -> None:
    browser.show(scheme=scheme)
    browser.open(page)

    found: dict[str, list[tuple[float, str]]] = browser.run(TEXT_CONTRASTS)

    assert len(found["texts"]) > 200
    assert [text for text in found["texts"] if text[0] < 4.5] == []
    assert len(found["shapes"]) > 20
    assert [shape for shape in found["shapes"] if shape[0] < 3] == []


def test_the_two_schemes_differ_and_paper_is_white(browser: Browser, page: Path) -> None:
    def background(**shown: Any) -> str:
        browser.show(**shown)
        return str(browser.run("getComputedStyle(document.body).backgroundColor"))

    browser.open(page)

    assert background(scheme="light") == "rgb(255, 255, 255)"
    assert background(scheme="dark") != "rgb(255, 255, 255)"
    assert background(scheme="dark", media="print") == "rgb(255, 255, 255)"


def test_the_page_can_be_used_by_keyboard(browser: Browser, page: Path) -> None:
    browser.show()
    browser.open(page)
    browser.press("Tab", TAB)

    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0
    reached = []
    for _ in range(60):
        browser.press("Tab", TAB)
        reached.append(browser.run("document.activeElement.tagName"))
        if reached[-1] == "BODY":
            break
        outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", reached
    regions = browser.run("document.querySelectorAll('.scroll').length")
    closed = browser.run("document.querySelectorAll('details .scroll').length")
    assert reached.count("SUMMARY") == CHARTS
    assert reached.count("DIV") == regions - closed
    assert browser.run(
        "[...document.querySelectorAll('.scroll')].every(e => e.getAttribute('role') === 'region'"
        " && document.getElementById(e.getAttribute('aria-labelledby')).textContent.trim())"
    )


def test_what_is_heard_is_in_order(browser: Browser, page: Path) -> None:
    browser.open(page)

    assert browser.run("document.documentElement.lang") == "en"
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    heard = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    roles = [role for role, _ in heard]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    images = [name for role, name in heard if role in ("image", "img")]
    assert len(images) == CHARTS
    assert all(images)


def test_pictures_to_look_at(browser: Browser, page: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ETL_TEST_SHOTS") or tmp_path)
    for name, width in (("wide", WIDE), ("narrow", NARROW)):
        for scheme in SCHEMES:
            browser.show(width=width, scheme=scheme)
            browser.open(page)
            browser.screenshot(folder / f"report-{scheme}-{name}.png")
            assert (folder / f"report-{scheme}-{name}.png").stat().st_size > 20_000
    browser.show()
    browser.print(folder / "report.pdf")

    sheets = (folder / "report.pdf").read_bytes().count(b"/Type /Page\n")
    assert 2 <= sheets <= 12


@pytest.mark.parametrize("width", [320, NARROW, WIDE, 1280])
def test_no_figure_is_broken(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    changes = change(newly_failed=3_000_000, newly_stuck=10, gone=2**63 - 1, first_seen=300_000_000)
    path.write_text(render_report(rows(changes=changes), UTC), encoding="utf-8")
    browser.show(width=width)
    browser.open(path)

    assert browser.run("document.querySelectorAll('.figures dd:not(.small)').length") == 5
    assert browser.run(BROKEN_FIGURES) == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_table_that_scrolls_says_so_and_keeps_its_first_column(
    browser: Browser, page: Path, width: int
) -> None:
    browser.show(width=width)
    browser.open(page)
    tables: list[dict[str, Any]] = browser.run(SCROLLED)

    assert len(tables) > 8
    assert [each["name"] for each in tables if each["overflows"] != each["hinted"]] == []
    # The two columns that matter first are there without scrolling; then the first one stays.
    assert [each["name"] for each in tables if not each["second"]] == []
    assert [each["name"] for each in tables if width == NARROW and not each["stays"]] == []
    if width == NARROW:
        lists = {f"table-{name}" for name in ("failed", "stuck", "vanished", "nights")}
        assert lists <= {each["name"] for each in tables if each["overflows"]}


def test_the_reason_of_a_failure_leaves_no_gap_between_the_nights(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    failed = night(
        outcome="failed",
        error_kind="credentials",
        error_message="Kaltura answered INVALID_KS: the session string is not valid: check the "
        "secret and KALTURA_PARTNER_ID",
    )
    path.write_text(render_report(rows(nights=[failed, night()]), UTC), encoding="utf-8")
    browser.show(width=NARROW)
    browser.open(path)

    row, usual = browser.run(
        "[...document.querySelectorAll('section[aria-labelledby=nights] tbody tr')]"
        ".map((e) => e.offsetHeight)"
    )
    assert row < 3 * usual


def test_tokens_and_users_are_found_by_the_browser(browser: Browser, page: Path) -> None:
    browser.show()
    browser.open(page)

    for text in ("0_hostile_3", "0_vanished_1", HOSTILE["arabic"]):
        assert browser.run(f"getSelection().removeAllRanges() || window.find({text!r})"), text
    assert browser.run("document.querySelectorAll('details bdi').length") == 0


@pytest.mark.parametrize("width", [NARROW, 1280])
def test_the_page_of_all_accounts_fits_too(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "index.html"
    accounts = [rows(partner_id=number, changes=change(newly_failed=9)) for number in (7, 1234567)]
    entries = [entry_of(each, UTC, f"./{each.partner_id}.html") for each in accounts]
    path.write_text(render_index(entries, UTC, "UTC"), encoding="utf-8")
    browser.show(width=width, scheme="dark")
    browser.open(path)

    assert browser.run(STICKING_OUT) == {"scrolls": 0, "wide": []}
    (table,) = browser.run(SCROLLED)
    assert (table["overflows"], table["hinted"]) == (width == NARROW, width == NARROW)
    assert table["second"]
    assert [text for text in browser.run(TEXT_CONTRASTS)["texts"] if text[0] < 4.5] == []
    assert browser.complaints() == []
