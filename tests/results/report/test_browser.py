"""The page in a browser: headless Chromium without a network, if this machine has one."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from results.report.test_page import EVIL, evil

from mmlit.results.compare import compare
from mmlit.results.report.page import page as report

MakeRun = Callable[..., Path]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    arguments = ["--headless", "--no-sandbox", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


class Opened(NamedTuple):
    """A page, what it wrote to the console, and what it asked for."""

    page: Any
    faults: list[str]
    requests: list[str]


@pytest.fixture
def opened(browser: Any, make_run: MakeRun, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the report of three strategies, with markup in their records, from its file."""
    evil(make_run, tmp_path / "runs")
    for seed, (number, alignment) in itertools.product(range(3), enumerate(("projection", "contrastive"))):
        rank = (1, 1, 1, 2 + number)
        make_run(f"{alignment}{seed}", alignment=alignment, seed=seed, i2t_rank=rank, t2i_top=np.arange(10))
    path = tmp_path / "report.html"
    path.write_text(report(compare([tmp_path / "runs"]), [tmp_path / "runs"]), encoding="utf-8")
    pages = []

    def open_page(**options: Any) -> Opened:
        page = browser.new_page(**options)
        pages.append(page)
        found = Opened(page, [], [])
        page.on("console", lambda message: found.faults.append(message.text))
        page.on("pageerror", lambda error: found.faults.append(str(error)))
        page.on("dialog", lambda dialog: found.faults.append(dialog.message))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(path.as_uri())
        return found

    yield open_page
    for page in pages:
        page.close()


def test_it_loads_without_an_error_and_without_a_request(opened: Callable[..., Opened], tmp_path: Path) -> None:
    """Trap 36: no script but its own runs."""
    found = opened(viewport=DESK)
    assert found.faults == []
    fetched = [each for each in found.requests if not each.startswith("data:")]
    assert fetched == [(tmp_path / "report.html").as_uri()]
    assert EVIL in found.page.inner_text("#queries")
    assert found.page.locator("#cost svg.plot").count() == 2
    box = found.page.locator("#cost svg.plot").first.bounding_box()
    assert box["width"] > 300
    assert box["height"] > 150


def column(found: Opened, number: int) -> list[float]:
    cells = found.page.locator(f"#table .box >> nth=0 >> tbody tr > :nth-child({number})")
    return [float(value) for value in cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort)")]


def test_headings_sort_by_mouse_and_by_keyboard(opened: Callable[..., Opened]) -> None:
    found = opened(viewport=DESK)
    heading = found.page.locator("#table th[aria-sort] >> nth=1")
    assert heading.get_attribute("aria-sort") == "none"
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = column(found, 2)
    assert len(set(values)) >= 3
    assert values == sorted(values, reverse=True)
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(found, 2) == sorted(values)
    name = found.page.locator("#table th[aria-sort] >> nth=0")
    name.locator("button").press("Space")
    assert (name.get_attribute("aria-sort"), heading.get_attribute("aria-sort")) == ("ascending", "none")
    assert found.page.locator("#table .box >> nth=0 >> .place").all_inner_texts() == ["1", "2", "3", "4"]
    found.page.locator("#sure th[aria-sort] >> nth=0 >> button").press("Space")
    labels = found.page.locator("#sure tbody th").all_inner_texts()
    assert len(labels) == 3
    assert labels == sorted(labels, key=str.lower)
    assert found.faults == []


def test_a_phone_scrolls_tables_not_the_page(opened: Callable[..., Opened]) -> None:
    found = opened(viewport=PHONE, is_mobile=True)
    found.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    table = found.page.locator("#table .box").first
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")


def test_dark_is_dark_and_plots_follow(opened: Callable[..., Opened]) -> None:
    def shades(scheme: str) -> tuple[int, int]:
        page = opened(viewport=DESK, color_scheme=scheme).page
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        text = page.locator("#cost svg.plot text").first.evaluate("text => getComputedStyle(text).fill")
        return sum(_numbers(paper)), sum(_numbers(text))

    paper, text = shades("light")
    assert paper == 3 * 255
    assert text < 400
    dark_paper, dark_text = shades("dark")
    assert dark_paper < 120
    assert dark_text > 400


def _numbers(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
