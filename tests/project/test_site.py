"""The documentation site is built without a warning, and its pages fit a wide screen and a phone, light and dark."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_html_browser import browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
__all__ = ["browser"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; its settings say that a warning is an error."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("timm")
    path = tmp_path_factory.mktemp("site")
    mkdocs = shutil.which("mkdocs", path=str(Path(sys.executable).parent))
    assert mkdocs is not None
    command = [mkdocs, "build", "--site-dir", str(path)]
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return path


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


OURS = ("http://127.0.0.1:", "data:", "blob:")
OVERFLOW = "[document.documentElement.scrollWidth - innerWidth, document.title]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_raise_nothing_ask_nobody_else_and_fit(
    folder: Path, address: str, browser: Browser, width: int, scheme: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("request", lambda asked: None if asked.url.startswith(OURS) else wrong.append(asked.url))
    page.on("response", lambda answer: None if answer.status < 400 else wrong.append(f"{answer.url} {answer.status}"))
    for path in sorted(folder.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(folder).as_posix()}")
        beyond, title = page.evaluate(OVERFLOW)
        assert title, path
        assert beyond <= 0, path
    page.context.close()
    assert wrong == []


def test_the_search_finds_a_function(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{address}/index.html")
    box = page.get_by_role("textbox", name="Search")
    box.click()
    box.press_sequentially("allow_growth")  # it looks at keys, which `fill` does not press
    page.locator(".md-search-result__link").first.wait_for(timeout=60_000)
    assert "reference.html" in " ".join(
        link.get_attribute("href") or "" for link in page.locator(".md-search-result__link").all()
    )
    page.context.close()


def test_names_are_not_broken_on_a_phone(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{address}/reasons.html")
    assert set(page.locator("td code").evaluate_all("all => all.map(code => code.getClientRects().length)")) == {1}
    page.goto(f"{address}/notebooks/01_tutorial.html")
    outputs = page.locator(".jp-OutputArea-output pre")
    assert set(outputs.evaluate_all("all => all.map(pre => getComputedStyle(pre).whiteSpace)")) == {"pre"}
    page.context.close()
