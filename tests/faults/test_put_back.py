"""What a pass exchanges for a while is put back, also where it fails while it does so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fxfuse import FuseError, fx_fuse
from fxfuse.capture import process, tracer
from fxfuse.modules import lookup as modules
from fxfuse.pipeline import entry
from tests.support.helpers import Model, folds, trained, unchanged, values


class Failing:
    """A function that raises at its second call, and at all calls after it."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls > 1:
            raise KeyboardInterrupt
        return self.function(*args, **kwargs)


def pair() -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


class Larger(Model):
    """Uses ``max`` of a size: while it is traced, this file has a variable of that name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * max(x.shape[2], 2)


def test_names_that_a_trace_gives_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_traced", Failing(process._traced))
    with pytest.raises(KeyboardInterrupt):
        fx_fuse(trained(Larger(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4))))
    assert globals().keys().isdisjoint(("max", "min"))


class Literal(Model):
    """Makes a tensor, which torch.fx keeps on the model while it is traced, and notes what it got."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.bn(self.conv(x)) * torch.tensor(2.0)


def test_what_a_trace_leaves_on_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(Literal(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), seen=None))
    failing = Failing(modules.shallow_copy)
    failing.calls = 1
    monkeypatch.setattr(tracer, "shallow_copy", failing)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        fx_fuse(model)


def test_the_code_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph_module = fx.symbolic_trace(pair())
    compiled, failing = type(graph_module).forward, Failing(fx.GraphModule.recompile)
    failing.calls = 1

    def recompile(self: fx.GraphModule) -> Any:
        result = original(self)
        return failing() if self is graph_module else result

    original = fx.GraphModule.recompile
    monkeypatch.setattr(fx.GraphModule, "recompile", recompile)
    with unchanged(graph_module), pytest.raises(KeyboardInterrupt):
        fx_fuse(graph_module, inplace=True)
    assert type(graph_module).forward is compiled


def test_a_program_owns_its_graph() -> None:
    program = torch.export.export(pair(), (values(2, 3, 6, 6),))
    owner = program.graph.owning_module
    assert folds(fx_fuse(program).graph_module)
    assert program.graph.owning_module is owner


class Random(Model):
    """Raises where its weight is computed, after numbers were drawn."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.conv2d(x, torch.rand_like(self.weight).reshape(self.sizes)))


def test_random_numbers_that_were_drawn_for_a_weight_that_cannot_be_computed() -> None:
    model = trained(Random(weight=nn.Parameter(values(4, 3, 3, 3)), sizes=7, bn=nn.BatchNorm2d(4)))
    state = torch.get_rng_state()
    fx_fuse(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_argument_that_cannot_even_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: nn.Module) -> Any:
        raise ValueError("no parts")

    monkeypatch.setattr(entry, "paths_below", broken)
    with pytest.raises(FuseError, match=r"ValueError: no parts.*othing was changed"):
        fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 3)))
