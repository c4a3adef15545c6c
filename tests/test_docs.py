"""The documentation says what the code does: its generated pages are up to date, its examples run."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reasons", "operators"])
def test_generated_pages_are_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / f"{page}.md").read_text() == getattr(generator(), page)()


def blocks(page: pathlib.Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_every_example_runs(page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    scope: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page):
        if "torch.onnx" in block:
            pytest.importorskip("onnxscript")
        exec(compile(block, str(page), "exec"), scope)  # noqa: S102 - our own documentation


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: pathlib.Path) -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
