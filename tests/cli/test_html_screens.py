"""The page on screens of all widths, and what it tells of each fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torch import nn

from tests.cli import html_pages
from tests.cli.test_html_browser import browser, decision, in_view, node, opened
from tests.support.helpers import trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

__all__ = ["browser", "opened"]


def test_modules_whose_names_are_numbers_have_names(opened: Callable[..., Page]) -> None:
    page = opened(trained(nn.Sequential(nn.Sequential(html_pages.chain(), nn.ReLU()), nn.ReLU())))
    assert page.locator(".before .title").all_inner_texts() == ["0", "0.0"]


def test_the_head_tells_the_sizes(opened: Callable[..., Page]) -> None:
    page = opened(html_pages.chain(), example_inputs=values(1, 3, 8, 8))
    assert page.locator("#size").inner_text().startswith("5 \N{RIGHTWARDS ARROW} 3 layers")


def test_a_fold_tells_its_evidence(opened: Callable[..., Page]) -> None:
    page = opened(trained(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))))
    assert decision(page, "1").locator(".evidence").inner_text() == "assumed"
    page.locator('.row[data-state="folded"]').hover()
    assert "Assumed: it holds for the usual input" in page.get_by_role("tooltip").inner_text()
    page.get_by_role("button", name="1 rest on an assumption").click()
    assert page.locator("tbody tr:visible").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_decisions_come_first_and_nothing_is_wider(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(html_pages.long_chain(60), scheme, width=390)
    assert decision(page, "0.1").is_visible()
    assert not node(page, "0.1").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    decision(page, "57.1").click()
    in_view(page, node(page, "57.1"))
    assert "0" in node(page, "57.1").locator(".alone").inner_text()  # what took it in, without a second column
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    node(page, "57.1").click()
    in_view(page, decision(page, "57.1"))


@pytest.mark.parametrize("width", [1440, 1280, 1100, 390])
def test_the_title_keeps_its_line_beside_the_totals(opened: Callable[..., Page], width: int) -> None:
    page = opened(html_pages.exported_branches(), width=width, title="timm:mobileone_s0")
    assert page.locator("#totals > *").count() >= 6
    assert page.get_by_role("heading", level=1).bounding_box()["height"] < 40  # type: ignore[index] # it is shown
