"""What a kernel was made with, and has changed since: settings, code, modules."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxfuse import fx_fuse, lower
from fxfuse.cli.models import randomize

from .models import gap, image


class Triple(nn.Conv2d):
    """A layer of another class."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Leaves(fx.Tracer):
    """Takes every layer as it is."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del module_qualified_name
        return not isinstance(m, nn.Sequential)


class Scaled(nn.Module):
    """Layers, and numbers that a trace reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(8, 8, 3, padding=1, groups=2)),
            *(nn.Conv2d(8, 8, 1), nn.Upsample(scale_factor=2), nn.Dropout(0.9), nn.Conv2d(8, 8, 3)),
        )
        self.power, self.powers = 2, [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) ** self.power + torch.sin(x.mean()) ** self.powers[1]


CHANGES: dict[str, tuple[str, str, Any]] = {
    "padding": ("2", "padding", (0, 0)),
    "stride": ("2", "stride", (2, 2)),
    "dilation": ("2", "dilation", (2, 2)),
    "list": ("0", "padding", [0, 0]),
    "activation": ("1", "negative_slope", 0.9),
    "between": ("4", "scale_factor", 3.0),
    "mode": ("4", "mode", "bilinear"),
    "forward": ("2", "forward", lambda x: x * 2),
    "forward of an activation": ("1", "forward", torch.abs),
    "class": ("0", "__class__", Triple),
}


@pytest.mark.parametrize("structure", ["graph", "module"])
@pytest.mark.parametrize("name", CHANGES)
def test_settings_that_change(name: str, structure: Any) -> None:
    path, attribute, value = CHANGES[name]
    fused = _fused(structure)
    fast, x = lower(fused, image()), image()
    before = fast(x)
    expected = copy.deepcopy(fused)
    for model in (fast, expected):
        setattr(model.get_submodule(f"layers.{path}"), attribute, value)
    for _ in range(2):
        assert gap(fast(x), expected(x)) < 2e-6
    assert before.shape != fast(x).shape or gap(before, fast(x)) > 1e-3
    if name == "list":
        for model in (fast, expected):
            model.get_submodule("layers.0").padding[0] = 2
        assert gap(fast(x), expected(x)) < 2e-6


@pytest.mark.parametrize("structure", ["graph", "module"])
def test_a_bias_that_comes_later(structure: Any) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, bias=False) for _ in range(3))).eval()
    fast, x = lower(fx_fuse(model, structure=structure, rules=[]), image()), image()
    before = fast(x)
    fast.get_submodule("1").bias = nn.Parameter(torch.ones(3), requires_grad=False)
    assert gap(fast(x), before) > 1e-2
    fast.get_submodule("1").bias.data.mul_(0)
    for _ in range(2):
        assert gap(fast(x), before) < 2e-6
    fast.get_submodule("1").bias = None
    assert gap(fast(x), before) < 2e-6


def test_groups_that_do_not_fit_any_more_are_an_error() -> None:
    fast, x = lower(_fused("graph"), image()), image()
    fast.get_submodule("layers.2").groups = 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected input"):
            fast(x)


def test_numbers_that_the_trace_of_a_part_read() -> None:
    fused = _fused("module")
    fast, x = lower(fused, image()), image()
    for change in (lambda model: setattr(model, "power", 3), lambda model: model.powers.__setitem__(1, 3)):
        change(fast)
        change(fused)
        for _ in range(2):
            assert gap(fast(x), fused(x)) < 2e-6


def test_dropout_inside_in_training_mode() -> None:
    fast, x = lower(_fused("module"), image()), image()
    fast.get_submodule("layers.5").train()
    assert gap(fast(x), fast(x)) > 0.1


def test_a_graph_that_is_edited() -> None:
    fast, x = lower(_fused("graph"), image()), image()
    fast.fused.graph.find_nodes(op="call_function", target=torch.sin)[0].target = torch.cos
    fast.fused.recompile()
    for _ in range(2):
        assert gap(fast(x), fast.fused(x)) < 2e-6


def test_modules_that_count_their_calls_are_called_and_nothing_is_made_anew() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    root = nn.Sequential(nn.Conv2d(3, 4, 1), Counting(), nn.Conv2d(4, 4, 1)).eval()
    fused = fx.GraphModule(root, Leaves().trace(root))
    fast = lower(fused, image())
    built = fast._runner.current()
    first, second = fast(image()), fast(image())
    assert gap(second, first) > 0.05
    assert fast._runner.current() is built


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, image(2, 4, 9, 9))])
@pytest.mark.parametrize("late", [False, True])
def test_hooks_of_modules_of_torchscript(make: Any, late: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaf = make(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval())
    fused = fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 1), leaf, nn.Conv2d(4, 4, 1)).eval())
    fast = lower(fused) if late else None
    nn.Module.register_forward_hook(fused.get_submodule("1"), lambda *args: args[2] * 5)
    fast = fast or lower(fused)
    for _ in range(2):
        assert gap(fast(image()), fused(image())) < 2e-6
    assert fast.fallbacks == 0


def _fused(structure: Any) -> Any:
    torch.manual_seed(0)
    model = Scaled().eval()
    randomize(model)
    return fx_fuse(model.requires_grad_(requires_grad=False), structure=structure)
