"""Hazard 15: what a hook writes, a forward may read: no graph holds the value of one run, or its branch."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason, fx_fuse
from tests.hazards.blocks import assert_right, sequence
from tests.support.helpers import Model, Structure, assert_same, folds, reasons, trained, values

if TYPE_CHECKING:
    from fxfuse.capture.hooks import Hooks

torch.manual_seed(0)  # whatever other files of tests have drawn
INPUTS = [values(2, 3, 6, 6), values(6, 3, 6, 6), -values(2, 3, 6, 6).abs()]


class Net(Model):
    def forward(self, x: Tensor) -> Any:
        return self.block(x).relu()


def net() -> Net:
    return Net(block=sequence())


# -- values that a hook leaves behind


class Reassembles(Model):
    """As in MiDaS: the hooks of a backbone write into a dictionary that belongs to another module."""

    def forward(self, x: Tensor) -> Any:
        self.net(x)
        return self.head(self.net.activations["x"])


def reassembles(start: dict[str, Any]) -> nn.Module:
    model, found = Reassembles(net=net(), head=sequence()), dict(start)

    def hook(_module: Any, _args: Any, output: Any) -> None:
        found["x"] = output

    model.net.block.register_forward_hook(hook)
    model.net.activations = found
    return model


class Extractor(nn.Module):
    """The recipe that everybody knows: hooks that are closures, and know the module that holds what they find."""

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.model, self.fresh = net(), fresh
        self._features: dict[str, Tensor] = {"block": torch.empty(0)}
        self.model.block.register_forward_hook(self.save("block"))

    def save(self, name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            self._features[name] = output

        return hook

    def forward(self, x: Tensor) -> Any:
        if self.fresh:
            self._features = {}
        return self.model(x), self._features["block"]


class Bound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.last = net(), None
        self.model.block.register_forward_hook(self.note)

    def note(self, _module: Any, _args: Any, output: Any) -> None:
        self.last = output

    def forward(self, x: Tensor) -> Any:
        return self.model(x), self.last


WRITING = [
    lambda: reassembles({}),
    lambda: reassembles({"x": torch.zeros(1, 3, 6, 6)}),
    lambda: Extractor(fresh=False),
    lambda: Extractor(fresh=True),
    Bound,
]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("make", WRITING)
def test_values_that_a_hook_leaves_are_those_of_this_run(make: Any, used: bool) -> None:
    model = trained(make())
    if used:  # as most models were before somebody fuses them
        model(INPUTS[0])
    for structure in (None, "module"):
        kept = fx_fuse(model, structure=structure)
        assert_right(model, kept, INPUTS)
        assert any(path.endswith("block.1") and reason is Reason.HOOKED for path, reason in reasons(kept))
        fused = fx_fuse(model, structure=structure, hooks="observe")
        assert_right(model, fused, INPUTS)
        assert any(path.endswith("block.1") for path in folds(fused))


# -- what a hook switches


class Configured(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.block[0](x)
        return self.block[1](y) if self.config.use_norm else y


class Asked(Model):
    use_norm = True

    def forward(self, x: Tensor) -> Any:
        y = self.block[0](x)
        return self.block[1](y) if uses_norm(self) else y


class ByName(Model):
    use_norm = True

    def forward(self, x: Tensor) -> Any:
        y = self.block[0](x)
        return self.block[1](y) if getattr(self, "use_norm") else y  # noqa: B009 - this is the point


def uses_norm(module: Any) -> bool:
    return bool(module.use_norm)


def switches_setting(module: Any, args: Any) -> None:
    module.config.use_norm = bool(args[0].sum() > 0)


def switches(module: Any, args: Any) -> None:
    module.use_norm = bool(args[0].sum() > 0)


def switches_shared(config: Any) -> Any:
    def hook(_module: Any, args: Any) -> None:
        config.use_norm = bool(args[0].sum() > 0)

    return hook


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(
    ("cls", "hook"),
    [(Configured, switches_setting), (Configured, None), (Asked, switches), (ByName, switches)],
)
def test_a_norm_that_a_hook_switches_stays(cls: type[Model], hook: Any, inner: bool) -> None:
    model: Any = cls(block=sequence())
    model.config = types.SimpleNamespace(use_norm=True)
    model.register_forward_pre_hook(hook or switches_shared(model.config))
    whole = trained(nn.Sequential(model, nn.ReLU()) if inner else model)
    for structure in (None, "module"):
        fused = fx_fuse(whole, structure=structure)
        assert_right(whole, fused, INPUTS)
        assert not folds(fused)


def scale(model: nn.Module) -> None:
    weight: Any = model.get_parameter("block.0.weight")
    weight.data.mul_(1.5)


def test_a_hook_of_a_layer_that_changes_another_one() -> None:
    def make() -> nn.Module:
        model = trained(nn.Sequential(net(), nn.ReLU()))
        model[1].register_forward_pre_hook(lambda _module, _args: scale(model[0]))
        return model

    torch.manual_seed(3)
    model = make()
    torch.manual_seed(3)
    fused = fx_fuse(make())
    assert not folds(fused)
    for x in INPUTS:
        assert_same(model, fused, x)


def test_a_hook_that_asks_for_the_class_keeps_it(structure: Structure) -> None:
    model = trained(net())
    model.register_forward_hook(lambda module, _args, output: output * 2 if isinstance(module, Net) else output)
    chosen = None if structure == "graph" else structure
    ways: list[tuple[Hooks, list[str]]] = [("keep", []), ("observe", ["block.1"])]
    for hooks, folded in ways:
        fused = fx_fuse(model, structure=chosen, hooks=hooks)
        assert isinstance(fused, Net)
        assert folds(fused) == folded
        assert_right(model, fused, INPUTS)
