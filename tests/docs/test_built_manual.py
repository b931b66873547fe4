"""The manual as it is built: nothing comes from elsewhere, and every page fits a screen and a telephone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import momentum_bench
from tests.conftest import ROOT

pytest.importorskip("mkdocs", reason="the docs extra is not installed")
pytest.importorskip("mkdocstrings", reason="the docs extra is not installed")
WIDTHS = (1280, 390)
"""Of a screen, and of a telephone, in pixels."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_navigation_is_built(site: Path):
    named = re.findall(r"^  - .*: (\S+)\.md$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert {page.stem for page in site.glob("*.html")} == {*named, "404"}


def test_nothing_is_fetched_from_elsewhere(site: Path):
    for page in site.glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', page.read_text()
        )
        assert not loaded, f"{page.name}: {loaded}"
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//", style.read_text()), style.name


def test_the_api_page_shows_every_public_name(site: Path):
    text = (site / "api.html").read_text()
    for name in momentum_bench.__all__:
        # `momentum_bench.run` is also a module, for `python -m`, and that is what the page would show
        shown = "momentum_bench.harness.api.run.run" if name == "run" else f"momentum_bench.{name}"
        if not name.startswith("_"):
            assert f'id="{shown}"' in text, name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for all pages."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if not shutil.which("chromium"):
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_runs_out_of_the_window(site: Path, browser: Any, width: int):
    """Tables and code may scroll in a box of their own; the page itself may not."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: request.url.startswith("file:") or asked.append(request.url))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        found = page.evaluate(_TOO_WIDE, width)
        assert not found, f"{path.name} at {width} px: {found}"
    page.close()
    assert not asked


_TOO_WIDE = """width => [...document.querySelectorAll('article *')].filter(element => {
    const box = element.getBoundingClientRect();
    let above = element.parentElement;
    while (above && !['auto', 'scroll'].includes(getComputedStyle(above).overflowX)) {
        above = above.parentElement;
    }
    const scrolls = above && above !== document.body && above.tagName !== 'HTML';
    return box.width && box.right > width + 1 && !scrolls;
}).map(element => element.tagName + ': ' + element.textContent.trim().slice(0, 60)).slice(0, 5)"""
