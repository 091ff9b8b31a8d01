from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import leaf
from audit.views import Context, Row, report
from tests.browser.chromium import Chromium
from tests.needs import needs
from tests.unit.audit.views import story

LINES = story.lines(8)
ROWS = story.rows(LINES)
CONTEXT = story.context(LINES)
PAGE = report.render(ROWS, CONTEXT, story.SIGNER.sign)

PASTE = (
    "document.getElementById('trusted').value = {text!r};"
    "document.documentElement.dataset.checked = 'no';"
    "document.getElementById('verify').click();"
    "new Promise((done) => {{ const wait = () => document.documentElement.dataset.checked === 'yes'"
    " ? done(1) : setTimeout(wait, 10); wait(); }})"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(needs("chromium", "chromium"), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def moment_s(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return how long a page that can still say something needs: several times what the honest one does."""
    begun = time.monotonic()
    assert shown(browser, tmp_path_factory.mktemp("honest"), PAGE) == "amber"
    return 0.1 + 3 * (time.monotonic() - begun)


def shown(browser: Chromium, tmp_path: Path, page: bytes, patience_s: float = 20.0) -> str:
    path = tmp_path / "report.html"
    path.write_bytes(page)
    return browser.open(path, patience_s)


def why(browser: Chromium) -> str:
    return str(browser.value("document.getElementById('checks').textContent"))


def test_the_page_verifies_itself_offline(browser: Chromium, tmp_path: Path) -> None:
    assert shown(browser, tmp_path, PAGE) == "amber", why(browser)
    assert browser.value("document.documentElement.dataset.verdict") == "consistent"
    assert browser.value("document.querySelectorAll('#checks .ok').length") == 4


@pytest.mark.parametrize("by", ["the key", "its fingerprint"])
def test_it_is_green_once_the_reader_gives_the_key(browser: Chromium, tmp_path: Path, by: str) -> None:
    shown(browser, tmp_path, PAGE)
    fingerprint = browser.value("document.querySelectorAll('dl.facts dd code')[1].textContent")
    browser.value(PASTE.format(text=story.SIGNER.vkey() if by == "the key" else fingerprint))
    assert browser.verdict() == "green"
    assert browser.value("document.documentElement.dataset.verdict") == "verified"


def test_it_is_red_with_another_key(browser: Chromium, tmp_path: Path) -> None:
    shown(browser, tmp_path, PAGE)
    browser.value(PASTE.format(text=story.STRANGER.vkey()))
    assert browser.verdict() == "red"


def test_it_asks_for_nothing_from_outside(browser: Chromium, tmp_path: Path) -> None:
    shown(browser, tmp_path, PAGE)
    asked = browser.value("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')")
    assert asked in {"", (tmp_path / "report.html").as_uri()}


@pytest.mark.parametrize(("start", "end"), [(0, 37), (5, 6), (37, 90), (64, len(LINES)), (3, 3)])
def test_a_range_verifies_by_its_edges(browser: Chromium, tmp_path: Path, start: int, end: int) -> None:
    rows = story.rows(LINES[start:end], start)
    page = report.render(rows, story.context(LINES, start, end), story.SIGNER.sign)
    assert shown(browser, tmp_path, page) == "amber", why(browser)


def test_a_selection_verifies_by_all_the_hashes(browser: Chromium, tmp_path: Path) -> None:
    rows = [row for row in ROWS if row.event["ty"].startswith("dsr.")]
    context = story.context(LINES, hashes=tuple(row.hash for row in ROWS))
    assert shown(browser, tmp_path, report.render(rows, context, story.SIGNER.sign)) == "amber", why(browser)


def test_the_browser_counts_what_python_counts_over_a_long_story(browser: Chromium, tmp_path: Path) -> None:
    lines = story.lines(90, seed=3)
    page = report.render(story.rows(lines), story.context(lines), story.SIGNER.sign)
    assert shown(browser, tmp_path, page) == "amber", why(browser)
    browser.value(
        "document.getElementById('events').open = true; new Promise((done) => setTimeout(done, 50))"
    )
    assert browser.value("document.getElementById('every').rows.length") == len(lines)


# --- one byte changed ------------------------------------------------------------------------

PLACES = {
    "the first byte": 0,
    "the function that the page is": PAGE.index(b"function"),
    "the doctype": PAGE.index(b"doctype"),
    "the language": PAGE.index(b'lang="en"') + 6,
    "the first verdict": PAGE.index(b"unverified"),
    "the policy": PAGE.index(b"script-src"),
    "the title": PAGE.index(b"<title>") + 9,
    "the style": PAGE.index(b"#verdict"),
    "the colour of red": PAGE.index(b"#b3261e"),
    "the end of the style": PAGE.index(b"</style>") + 3,
    "the heading": PAGE.index(b"<h1>") + 5,
    "a tag's name": PAGE.index(b"<section") + 2,
    "an end tag's name": PAGE.index(b"</section") + 4,
    "a space in a tag": PAGE.index(b"<h2 id") + 3,
    "an attribute's name": PAGE.index(b"aria-label") + 1,
    "a line end": PAGE.index(b"\n", 4000),
    "a figure": PAGE.index(b'data-f="consent.recorded">') + len(b'data-f="consent.recorded">'),
    "a bar": PAGE.index(b'data-side="width"') + 31,
    "the embedded size": PAGE.index(b'"size":') + 8,
    "the embedded root": PAGE.index(b'"root":') + 9,
    "an embedded leaf": PAGE.index(b"consent.recorded", PAGE.index(b'id="data"')),
    "the checkpoint's signature": PAGE.index(b"\\u2014") + 40,
    "the embedded key": PAGE.index(b'"vkeys":') + 40,
    "the seal's words": PAGE.index(b'id="seal">') + 12,
    "the seal's statement": PAGE.index(b"sha256 ", PAGE.index(b'id="seal">')) + 9,
    "the seal's signature": PAGE.rindex("\u2014".encode()) + 60,
    "the script's first word": PAGE.index(b'"use strict"') + 2,
    "a comparison in the script": PAGE.index(b"report.body ==="),
    "the script's verdict": PAGE.index(b"show(words"),
    "the end of the script": PAGE.rindex(b"</script>") + 3,
    "the end of the page": PAGE.rindex(b"</html>") + 3,
    "the last comment": PAGE.rindex(b"<!--") + 4,
    "the last bracket": len(PAGE) - 2,
    "the last byte": len(PAGE) - 1,
}


def changed(place: int, byte: int) -> bytes:
    assert PAGE[place] != byte
    return PAGE[:place] + bytes([byte]) + PAGE[place + 1 :]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("flip", [0x20, 0x01])
def test_it_is_red_after_one_byte_is_changed(
    browser: Chromium, tmp_path: Path, moment_s: float, place: int, flip: int
) -> None:
    """Of the two, 0x20 turns letters to the other case: a parser of HTML does not see that in a tag."""
    assert shown(browser, tmp_path, changed(place, PAGE[place] ^ flip), moment_s) == "red"


@pytest.mark.parametrize(
    ("place", "byte"),
    [
        (PAGE.index(b"\n"), 0x0D),  # a parser of HTML reads it as a line feed
        (PAGE.index(b"\n", len(PAGE) // 2), 0x0D),
        (PAGE.index(b"<h2 id") + 3, 0x0A),
        (PAGE.index(b"</h2>") + 1, 0x2A),  # ends the comment that the page is as a script
        (PAGE.index(b"Privacy"), 0x00),
        (PAGE.index(b"Privacy"), 0xFF),
        (len(PAGE) - 2, 0x21),  # --! at the end of a comment is not part of its text
        (PAGE.index(b"\xe2\x80\xa8") + 2, 0xA9),  # another line end of scripts
    ],
)
def test_it_is_red_after_a_change_that_parsers_forgive(
    browser: Chromium, tmp_path: Path, moment_s: float, place: int, byte: int
) -> None:
    assert shown(browser, tmp_path, changed(place, byte), moment_s) == "red"


@pytest.mark.parametrize("text", [b" ", b"\n", b"x", b"<p>"])
def test_it_is_red_after_something_is_added(
    browser: Chromium, tmp_path: Path, moment_s: float, text: bytes
) -> None:
    assert shown(browser, tmp_path, PAGE + text, moment_s) == "red"


# --- hostile and forged ----------------------------------------------------------------------

HOSTILE = (
    "</script><script>self.broken=1</script><!-- */self.broken=1/* {{data}} \u2028 <img src=x onerror=1>"
)


def test_no_text_breaks_out_of_the_page(browser: Chromium, tmp_path: Path) -> None:
    event = leaf.decode(LINES[0]) | {"ty": "notice.published", "ntc": HOSTILE, "pur": [HOSTILE]}
    rows = [*ROWS, hostile(event)]
    lines = [row.line for row in rows]
    context = story.context(
        lines,
        controller=story.Controller(HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        backends={row.event["bak"]: HOSTILE for row in ROWS if "bak" in row.event},
    )
    page = report.render(rows, context, story.SIGNER.sign)
    assert shown(browser, tmp_path, page) == "amber", why(browser)
    assert browser.value("typeof self.broken") == "undefined"
    assert browser.value("document.images.length") == 0
    assert HOSTILE in browser.value("document.querySelector('.lead').textContent")


def hostile(event: dict[str, object]) -> Row:
    """Return a row outside the schema: what the page does if a leaf ever says more."""
    from audit import canonical

    line = canonical.encode(event)
    return Row(len(ROWS), leaf.leaf_hash(line), event, line)


@pytest.mark.parametrize(
    "changes",
    [
        {"root": bytes(32)},
        {"size": len(LINES) + 1},
        {"checkpoint": story.context(LINES[:-1]).checkpoint},
        {"checkpoint": story.context(LINES, signer=story.STRANGER).checkpoint},
        {"left": (bytes(32),)},
    ],
)
def test_a_page_over_a_false_checkpoint_is_red(
    browser: Chromium, tmp_path: Path, changes: dict[str, object]
) -> None:
    context: Context = story.context(LINES, **changes)
    assert shown(browser, tmp_path, report.render(ROWS, context, story.SIGNER.sign)) == "red"


def test_a_page_whose_figures_are_not_those_of_its_leaves_is_red(
    browser: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the key signs anything: the browser counts for itself."""
    from audit.views import figures

    honest = figures.count
    monkeypatch.setattr(figures, "count", lambda rows: {**honest(rows), "objects.late": 0})
    assert shown(browser, tmp_path, report.render(ROWS, CONTEXT, story.SIGNER.sign)) == "red"
    assert "objects.late" in why(browser)


def test_without_script_the_page_can_be_read_and_says_that_nothing_is_checked(
    browser: Chromium, tmp_path: Path
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        assert shown(browser, tmp_path, PAGE, 0.3) == "red"
        assert browser.value("document.getElementById('state').textContent") == "Not verified"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
