"""A pass captures once, runs the rules once, and goes through few files."""

from __future__ import annotations

import collections
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch import Tensor, fx, nn

import fxfuse
from fxfuse import Reason, fx_fuse
from fxfuse.capture.capture import capture
from fxfuse.capture.tracer import Tracer
from fxfuse.extend import DEFAULT_RULES, Graph, Linear, Plan, Write
from fxfuse.pipeline import attempt, engine, run
from tests.hazards.blocks import Block, layers
from tests.support.helpers import Model, assert_equal, assert_same, folds, reasons, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (2, 3, 6, 6)
CHANNELS = 4
MOST_FILES = 40
"""Through which fxfuse goes for a convolution, a norm and an activation."""


class Asking(Block):
    """Its forward does something else if the norm is gone."""

    def forward(self, x: Tensor) -> Any:
        y = self.bn(self.conv(x))
        return y.relu() if isinstance(self.bn, nn.BatchNorm2d) else y


class Beside(Block):
    """A method beside the forward calls the convolution alone."""

    def other(self, x: Tensor) -> Any:
        return self.conv(x)


class Twice(Block):
    """The convolution is called with the norm and without."""

    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) * self.conv(x + 1)


class Optional(Block):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        y = self.bn(self.conv(x))
        return y if mask is None else y * mask


class Functional(Model):
    """Its forward has to be edited, and computes with a tensor of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain


def functional() -> Functional:
    return Functional(conv=nn.Conv2d(3, 4, 3), gain=nn.Parameter(values(4, 1, 1) + 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Block(**layers()),
    "a forward that asks": lambda: nn.Sequential(Asking(**layers()), nn.ReLU()),
    "a method beside": lambda: nn.Sequential(Beside(**layers()), nn.ReLU()),
    "two calls": lambda: Twice(**layers()),
    "an optional argument": lambda: Optional(**layers()),
    "a forward that is edited": lambda: nn.Sequential(functional(), nn.ReLU()),
}


ONCE = ("plain", "a method beside", "an optional argument")
"""Their forwards do nothing with the modules that change but call them, so that nothing has to be traced again."""


@pytest.mark.parametrize("name", MODELS)
def test_no_module_is_captured_twice(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, x = trained(MODELS[name]()), values(*IMAGE)
    captured: collections.Counter[tuple[type, nn.Module]] = collections.Counter()
    runs: Any = []
    trace = Tracer.capture

    def counted(tracer: Tracer, root: nn.Module) -> Any:
        captured[type(tracer), root] += 1
        return trace(tracer, root)

    monkeypatch.setattr(Tracer, "capture", counted)
    monkeypatch.setattr(attempt, "run", lambda editor, *args: runs.append(editor) or engine.run(editor, *args))
    fused = fx_fuse(model, structure="module")
    assert_same(model, fused, x)
    assert set(captured.values()) == {1}
    assert captured[Tracer, model] == 1
    if name in ONCE:
        assert sum(captured.values()) == 1
    assert len(runs) == 1


def test_a_forward_that_asks_keeps_its_layers_and_says_so() -> None:
    model, x = trained(Asking(**layers())), values(*IMAGE)
    fused: Any = fx_fuse(model, structure="module")
    assert_same(model, fused, x)
    assert type(fused.bn) is nn.BatchNorm2d
    assert folds(fused) == []
    assert reasons(fused) == {("bn", Reason.OWN_FORWARD)}


def test_an_optional_argument_is_checked_where_the_forward_is_kept() -> None:
    model, x = trained(Optional(**layers())), values(*IMAGE)
    fused = fx_fuse(model, structure="module")
    assert folds(fused) == ["bn"]
    with torch.no_grad():
        assert_equal(model(x), fused(x, mask=None))
    with pytest.raises(ValueError, match="mask=None"):
        fused(x, values(1))


def halve(graph: Graph, node: fx.Node) -> Plan | None:
    """A rule that is wrong, and asks whether the layer may change."""
    if not graph.plays(node, Linear) or graph.read(node).tensor("weight").shape[1] != CHANNELS:
        return None
    graph.require_changeable(node)
    call = graph.read(node)
    return Plan(writes=(Write(call, {"weight": call.tensor("weight") / 2}),))


@pytest.mark.parametrize("structure", ["graph", "module"])
def test_what_differs_on_example_inputs_is_undone_without_another_capture(
    monkeypatch: pytest.MonkeyPatch, structure: Literal["graph", "module"]
) -> None:
    blocks = [nn.Sequential(nn.Conv2d(c, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU()) for c in (3, CHANNELS)]
    model, x = trained(nn.Sequential(*blocks)), values(*IMAGE)
    captured: Any = []
    monkeypatch.setattr(run, "capture", lambda *args, **kw: captured.append(args) or capture(*args, **kw))
    rules = [*DEFAULT_RULES, halve]
    fused = fx_fuse(model, x, rules=rules, structure=structure)
    assert_same(model, fused, x)
    assert folds(fused) == ["0.1"]
    assert ("1.1", Reason.DIFFERS) in reasons(fused)
    assert len(captured) == 1


def test_few_files() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    root, files = os.path.dirname(fxfuse.__file__), set[str]()  # noqa: PTH120 - names as frames have them

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        fx_fuse(model)
    finally:
        sys.setprofile(before)
    assert len(files) <= MOST_FILES, sorted(files)
