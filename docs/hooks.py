"""What mkdocs.yml cannot say: files from outside of this folder, and the pages that fxfuse itself draws."""

from __future__ import annotations

import contextlib
import io
import posixpath
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import griffe
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
REPORTS = {"resnet50": "resnet50", "mobileone_s0": "timm:mobileone_s0"}
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
NEEDS = re.compile(r"^```python recipe.*$", re.MULTILINE)  # what a recipe needs, which the tests read


@event_priority(50)  # before the plugin that makes pages of notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page, two pages beside it, the notebooks, and reports as ``fxfuse`` draws them."""
    places = {**PAGES, **{f"notebooks/{p.name}": f"notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.ipynb")}}
    for source, place in places.items():
        files.append(File(place, str(ROOT), config.site_dir, use_directory_urls=False))
        files.get_file_from_path(place).abs_src_path = str(ROOT / source)
    for name, model in REPORTS.items():
        files.append(File.generated(config, f"reports/{name}.html", content=report(model)))
    return files


def report(model: str) -> str:
    """Return the page that ``fxfuse explain MODEL --html`` writes."""
    from fxfuse.cli import main  # noqa: PLC0415 - it imports torch

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "report.html"
        if main.main(["explain", model, "--html", str(path)]) != 0:
            raise RuntimeError(f"fxfuse explain {model} failed")
        return path.read_text(encoding="utf-8")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the files are on the site: in the checkout, they are where they are."""
    del config, files
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        place = PAGES.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    return NEEDS.sub("```python", LINK.sub(moved, markdown))


class Examples(griffe.Extension):
    """Shows what stands below ``Example:`` in a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **others: object) -> None:
        """Give the section the name under which griffe looks for code."""
        del others
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
