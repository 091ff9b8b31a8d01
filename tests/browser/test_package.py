"""The page of a package in a real browser: it opens from a folder, shows its pictures, asks for nothing."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.package.page import LANGUAGES, name_of, render
from tests.browser.chromium import Chromium
from tests.needs import needs
from tests.unit.package.example import DOCUMENT
from tests.unit.package.test_packages import made
from tests.world import APP, World

SCREENSHOTS = os.environ.get("LETHE_SCREENSHOTS", "")
"""A folder for what the browser shows, for a person to look at."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(needs("chromium", "chromium"), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def opened(browser: Chromium, path: Path) -> None:
    """Open a page, and wait until everything that it asks for has come or failed."""
    browser.call("Page.navigate", url=path.as_uri())
    browser.value(
        "new Promise((done) => document.readyState === 'complete' ? done(1) : addEventListener('load', done))"
        ".then(() => 1)"
    )


def shot(browser: Chromium, name: str) -> None:
    if SCREENSHOTS:
        taken = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(SCREENSHOTS, f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


ASKED = "performance.getEntriesByType('resource').map((entry) => entry.name)"
BROKEN = "[...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"
STYLED = "getComputedStyle(document.querySelector('main')).maxWidth"
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


async def test_a_package_opens_in_a_browser(browser: Chromium, tmp_path: Path) -> None:
    w = World()
    await w.ready("ann")
    await w.portrait("ann")
    await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=True)
    await w.log()
    package: zipfile.ZipFile = await made(w)
    package.extractall(tmp_path)
    with heard(browser) as messages:
        opened(browser, tmp_path / "index.html")
        assert browser.value(BROKEN) == []
        assert browser.value("document.images.length") == 1
        asked: list[str] = browser.value(ASKED)
        assert all(name.startswith((tmp_path.as_uri(), "data:")) for name in asked), asked
        assert browser.value(STYLED) == "960px"
    assert messages == []
    root = tmp_path.as_uri() + "/"
    links: list[str] = browser.value("[...document.links].map((link) => decodeURI(link.href))")
    assert links
    assert {link.removeprefix(root) for link in links} <= set(package.namelist())
    shot(browser, "package")


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_fits_a_narrow_screen(browser: Chromium, tmp_path: Path, language: str) -> None:
    for other in LANGUAGES:
        (tmp_path / name_of(other, "en")).write_bytes(render(DOCUMENT, other, "en"))
    (tmp_path / "images").mkdir()
    for image in DOCUMENT["images"]:
        (tmp_path / image["file"]).write_bytes(picture())
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True
    )
    try:
        opened(browser, tmp_path / name_of(language, "en"))
        assert not browser.value(OVERFLOWS)
        shot(browser, f"narrow-{language}")
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@contextlib.contextmanager
def heard(browser: Chromium) -> Iterator[list[Any]]:
    """Yield a list that holds, after the block, what the page said on the console and what it violated."""
    messages: list[Any] = []
    for domain in ("Log", "Runtime"):
        browser.call(f"{domain}.enable")
    browser.said.clear()
    yield messages
    browser.value("1")  # whatever was said before is read by now
    kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    messages += [said for said in browser.said if said["method"] in kinds]
    for domain in ("Log", "Runtime"):
        browser.call(f"{domain}.disable")


def picture() -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.new("RGB", (64, 80), (90, 120, 150)).save(held, "JPEG")
    return held.getvalue()
