"""The page in a real browser: it draws, sorts, filters, prints and fits the screen, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.rendering.files import write
from tests.helpers.synthetic import SEEDS, Scores, fill, sweep_records

pytestmark = pytest.mark.skipif(
    not shutil.which("chromium"), reason="no chromium on this machine (Debian: apt-get install chromium)"
)
TASKS = ("sst2", "sst5", "<script>alert(1)</script>")


def score(spec: RunSpec) -> Scores:
    """SGDM scores 3 points higher on sst5, and the same on other tasks except for a little noise."""
    place = SEEDS.index(spec.seed)
    test = 0.8 + 0.01 * place + (spec.optimizer == "sgdm") * (0.001 * (place - 2))
    return Scores(
        0.9 if spec.learning_rate == 0.01 else 0.8,
        0.5,
        test + 0.03 * (spec.task == "sst5") * (spec.optimizer == "sgdm"),
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of three tasks, on disk."""
    folder = tmp_path_factory.mktemp("page")
    records = [record for task in TASKS for record in sweep_records(score, task=task)]
    write(build(fill(folder / "results", records)), folder / "board")
    return Path(folder / "board" / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests of this file."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with api.sync_playwright() as playwright:
        # 0 is no limit of time: a slow machine is no fault
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=0
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The opened page; the test fails if the page logs something, requests a file or opens a dialog."""
    trouble: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(0)
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url == address or trouble.append(request.url))
    page.goto(address)
    yield page
    page.close()
    assert not trouble


def test_a_plot_is_drawn_when_its_task_is_opened(page: Any):
    details = page.locator("details.plot").nth(1)
    assert details.locator("svg").count() == 0
    details.locator("summary").click()
    details.locator("svg").wait_for()
    assert details.locator("svg").bounding_box()["height"] > 100


def test_tables_sort_by_number_with_mouse_and_keyboard(page: Any):
    differences = page.locator("#comparisons td:nth-child(4)")
    head = page.locator("#comparisons th:nth-child(4)")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert differences.all_inner_texts() == ["+0.00", "+0.00", "+3.00"]
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert differences.all_inner_texts() == ["+3.00", "+0.00", "+0.00"]


def test_a_filter_leaves_the_rows_that_hold_its_words(page: Any):
    page.get_by_label("Filter rows").fill("sst5 sgdm")
    rows = page.locator("#rows tbody tr:visible")
    assert rows.count() == 1
    page.get_by_label("Filter rows").fill("")
    assert rows.count() == 6


def test_a_row_leads_to_its_runs(page: Any):
    page.locator("#rows tbody a").first.click()
    provenance = page.locator("#provenance ~ details[open]")
    provenance.wait_for()
    assert "run id" in provenance.inner_text()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_screen_with_everything_open(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.locator("details.plot svg").last.wait_for()
    assert page.locator("#matched-table tbody tr").count() == 9  # three tasks and three rates
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_dark_and_paper(page: Any):
    def background() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert background() == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert background() != "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark", media="print")
    assert background() == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("details.plot svg").count() == 9  # three plots of three tasks
