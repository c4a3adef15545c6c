"""Models whose pages are tested, and what a page holds."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fxfuse.cli import html_report
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from torch.export import ExportedProgram

HOSTILE = "</script><script>var owned=1</script><img src=x onerror=\"window['owned']=1\">&amp;<!--"


def data_of(page: str) -> dict[str, Any]:
    """What the script of a page reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    content: dict[str, Any] = json.loads(found)
    return content


def rows_of(model: nn.Module | ExportedProgram, example: Any = None, **options: Any) -> list[dict[str, Any]]:
    """All rows of the page of a model."""
    data = data_of(html_report.page(model, example, **options))
    return [row for part in data["parts"] for row in part["rows"]]


def states(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What each row is about, and what became of it; a function is called by its name."""
    return [(r["path"] if r["module"] else (r["before"] or r["after"])["name"], r["state"]) for r in rows]


def chain() -> nn.Sequential:
    """A norm that folds and one that stays."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(), nn.BatchNorm2d(4)]
    return trained(nn.Sequential(*layers))


class Branches(Model):
    """Branches that become one convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.point(x) + self.norm(self.square(x)) + x)


def branches() -> Branches:
    square, point = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    return trained(Branches(square=square, norm=nn.BatchNorm2d(4), point=point))


class InParts(Model):
    """A forward that cannot be traced, around a block that can."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x + 1
        return self.second(self.first(x)) if x.mean() > 0 else self.first(x)


def in_parts() -> InParts:
    return trained(InParts(first=chain(), second=nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())))


class Twice(Model):
    """One convolution that is called twice, a layer norm whose weight moves on, and a norm that is never called."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.shared(x)) + self.shared(x)
        return self.linear(self.layer_norm(y.flatten(2)))


def twice() -> Twice:
    norms = {"norm": nn.BatchNorm2d(3), "unused": nn.BatchNorm2d(3), "layer_norm": nn.LayerNorm(16)}
    return trained(Twice(shared=nn.Conv2d(3, 3, 1), linear=nn.Linear(16, 2), **norms))


def long_chain(blocks: int = 340) -> nn.Sequential:
    """More than 1,000 nodes."""
    block = [nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()) for _ in range(blocks)]
    return nn.Sequential(*block).eval()


def hostile() -> nn.Sequential:
    """A model with names that would be markup if they were not escaped."""
    model = nn.Sequential()
    for name, layer in {HOSTILE: nn.Conv2d(3, 4, 3), '"><b>bn</b>': nn.BatchNorm2d(4), "<u>act</u>": nn.GELU()}.items():
        model.add_module(name, layer)
    model.add_module("<i>late</i>", nn.BatchNorm2d(4))
    return trained(model)


def exported() -> ExportedProgram:
    return torch.export.export(chain(), (torch.randn(2, 3, 8, 8, dtype=torch.float64),))


def exported_branches() -> ExportedProgram:
    """A page with all numbers at its head."""
    return torch.export.export(branches(), (torch.randn(2, 4, 8, 8, dtype=torch.float64),))
