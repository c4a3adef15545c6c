"""The page in a browser: what one sees, points at, types and clicks."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from fxfuse.cli import html_report
from tests.cli import html_pages
from tests.cli.html_pages import data_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from torch import nn

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """An installed Chromium."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it is no dependency of the tests

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"no browser is installed; install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open the page of a model; whatever goes wrong in it, and whatever it asks for, fails the test."""
    wrong: list[str] = []

    def open_page(model: nn.Module, scheme: Any = "light", width: int = 1400, **options: Any) -> Page:
        html_report.write(tmp_path / "page.html", model, **options)
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        address = (tmp_path / "page.html").as_uri()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url == address else wrong.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert wrong == []


def node(page: Page, path: str) -> Any:
    return page.locator(f'.row[data-path="{path}"]').first


def decision(page: Page, path: str) -> Any:
    return page.locator("tbody tr", has=page.get_by_role("button", name=path, exact=True))


def luminance(color: str) -> float:
    """The luminance of ``rgb(r, g, b)``, as the accessibility guidelines define it."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


STYLE = "element => getComputedStyle(element)[{!r}]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nodes_have_the_colours_of_the_legend_and_can_be_read(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(html_pages.chain(), scheme)
    paper = page.locator("body").evaluate(STYLE.format("backgroundColor"))
    assert (luminance(paper) > 0.5) is (scheme == "light")
    colors = {}
    for path, state in (("0", "changed"), ("1", "folded"), ("2", "kept"), ("3", "dropped"), ("4", "left")):
        stroke = node(page, path).locator(".dot").first.evaluate(STYLE.format("stroke"))
        legend = page.locator(f'#legend [data-state="{state}"] .dot').evaluate(STYLE.format("stroke"))
        assert stroke == legend
        colors[state] = node(page, path).locator(".name").first.evaluate(STYLE.format("color"))
    assert len({colors[state] for state in ("changed", "folded", "left", "kept")}) == 4
    dark, light = zip(*(sorted((luminance(color), luminance(paper))) for color in colors.values()), strict=True)
    assert min((b + 0.05) / (a + 0.05) for a, b in zip(dark, light, strict=True)) >= 4.5


def test_what_is_gone_is_not_in_the_graph_after(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.chain())
    assert page.locator(".heads").inner_text().split("\n") == ["Before: 7 nodes", "After: 5 nodes"]
    assert node(page, "1").locator(".after").inner_text() == "\N{RIGHTWARDS ARROW} 0"
    assert node(page, "4").locator(".after .name").inner_text() == "4"
    page.get_by_text("After", exact=True).click()
    assert [node(page, path).is_visible() for path in "01234"] == [True, False, True, False, True]
    page.get_by_text("Before", exact=True).click()
    assert all(node(page, path).is_visible() for path in "01234")


def test_pointing_at_a_node_tells_its_reason(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.chain())
    tip = page.get_by_role("tooltip")
    assert not tip.is_visible()
    node(page, "1").hover()
    assert "Folded into 0" in tip.inner_text()
    node(page, "4").hover()
    assert "It follows 2, which is neither a convolution nor a linear layer" in tip.inner_text()
    assert "peer" in (decision(page, "4").get_attribute("class") or "")
    node(page, "0").hover()
    assert "Took in 1" in tip.inner_text()
    page.get_by_role("heading", level=1).hover()
    assert not tip.is_visible()


def test_the_keyboard_reaches_everything(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.chain())
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    assert page.get_by_role("status").inner_text() == "0 of 2 decisions, 0 of 7 nodes"
    assert page.locator("#empty").is_visible()
    page.locator("#search").fill("")
    page.locator("#close").focus()
    page.keyboard.press("Tab")  # one stop for the whole graph
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    focused = page.locator(":focus")
    assert focused.get_attribute("aria-label") == "1, BatchNorm2d: folded into 0"
    assert "Folded into 0" in page.locator(f"#{focused.get_attribute('aria-describedby')}").inner_text()
    page.keyboard.press("Enter")
    assert page.locator(":focus").evaluate("element => element.closest('tr').innerText").split()[0] == "1"
    page.keyboard.press("Enter")
    assert focused.get_attribute("aria-label") == "1, BatchNorm2d: folded into 0"
    page.keyboard.press("Escape")
    assert not page.get_by_role("tooltip").is_visible()


def test_the_search_filters_decisions_and_marks_nodes(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.long_chain(40))
    search = page.get_by_role("searchbox")
    search.fill("batchnorm 37.1")
    assert page.locator("tbody tr:visible").all_inner_texts()[0].split()[0] == "37.1"
    assert page.locator("tbody tr:visible").count() == 1
    assert page.locator(".row.hit").evaluate_all("rows => rows.map(row => row.dataset.path)") == ["37.0", "37.1"]
    assert page.locator(".row.dim").count() == 3 * 40
    page.wait_for_function("document.querySelector('.hit').getBoundingClientRect().top < 700")
    search.fill("")
    assert page.locator("tbody tr:visible").count() == 40
    assert page.locator(".row.hit, .row.dim").count() == 0
    page.get_by_role("button", name="0 norms left").click()
    assert page.locator("tbody tr:visible").count() == 0
    page.get_by_role("button", name="0 norms left").click()
    assert page.locator("tbody tr:visible").count() == 40


IN_VIEW = "e => (box => box.height > 0 && box.top >= 0 && box.bottom <= innerHeight)(e.getBoundingClientRect())"


def in_view(page: Page, found: Any) -> None:
    page.wait_for_function(IN_VIEW, arg=found.element_handle())


@pytest.mark.parametrize("width", [1400, 700])
def test_a_row_leads_to_its_node_and_back(opened: Callable[..., Page], width: int) -> None:
    page = opened(html_pages.long_chain(60), width=width)
    if width == 700:
        page.get_by_text("Graphs", exact=True).click()
    page.get_by_role("button", name="Close all").click()
    if width == 700:
        page.get_by_text("Decisions", exact=True).click()
    assert not node(page, "57.1").is_visible()
    decision(page, "57.1").click()
    in_view(page, node(page, "57.1"))
    assert page.locator(":focus").get_attribute("data-path") == "57.1"
    page.get_by_role("searchbox").fill("57.1")
    page.get_by_role("button", name="Open all").click()
    node(page, "2.1").click()  # its decision is filtered out
    in_view(page, decision(page, "2.1"))


def test_a_thousand_nodes_are_all_there(opened: Callable[..., Page]) -> None:
    model = html_pages.long_chain()
    page = opened(model)
    rows = data_of(html_report.page(model))["parts"][0]["rows"]
    assert len(rows) == 1022
    assert page.locator(".row").evaluate_all("rows => rows.map(row => row.dataset.path)") == [r["path"] for r in rows]
    assert page.locator("tbody tr").count() == 340
    node(page, "339.1").hover()  # which scrolls to it
    page.locator("#graph").evaluate("graph => graph.scrollBy(0, -2)")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert "Folded into 339.0" in page.get_by_role("tooltip").inner_text()


def test_a_model_in_parts(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.in_parts())
    assert [text.split()[0] for text in page.get_by_role("heading", level=2).all_inner_texts()] == ["first", "second"]
    page.get_by_text("1 module runs as the Python code").click()
    assert page.locator("#notes li").inner_text().startswith("InParts: ")
    decision(page, "second.1").click()
    assert page.locator(":focus").get_attribute("data-path") == "second.1"


def test_names_run_no_code(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.hostile(), title=html_pages.HOSTILE, structure="module")
    assert page.get_by_role("heading", level=1).inner_text() == html_pages.HOSTILE
    page.locator(".row").nth(2).hover()
    assert html_pages.HOSTILE in page.get_by_role("tooltip").inner_text()
    assert html_pages.HOSTILE in page.locator("tbody").text_content()  # type: ignore[operator] # there is one
    assert page.evaluate("typeof owned") == "undefined"
    assert page.locator("img, b:has-text('bn'), i, u").count() == page.locator("#tip b").count()


def test_on_paper_everything_is_open_and_dark_on_light(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.long_chain(3), "dark")
    page.get_by_role("button", name="Close all").click()
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert node(page, "2.1").is_visible()
    assert not page.get_by_role("searchbox").is_visible()
    assert luminance(page.locator("body").evaluate(STYLE.format("backgroundColor"))) == 1
    assert luminance(page.locator("h1").evaluate(STYLE.format("color"))) < 0.02
