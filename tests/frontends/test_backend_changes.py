"""What changes after ``torch.compile(model, backend="fxfuse")`` is seen at the next call, and in its graph."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report
from tests.frontends.test_backend import X, _nothing_compiled, call, compiled, counts, net
from tests.support.helpers import Model, assert_equal, assert_same, run, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["_nothing_compiled"]  # a fixture that every test here uses too


def add(model: Any) -> None:
    with torch.no_grad():
        model[0].weight.add_(1)


def add_in_inference_mode(model: Any) -> None:
    with torch.inference_mode():
        model[0].bias.add_(1)


def add_to_all(model: Any) -> None:
    with torch.no_grad():
        torch._foreach_add_(list(model.parameters()), 1.0)


def load(model: Any, *, assign: bool = False) -> None:
    model.load_state_dict({name: t + 1 for name, t in model.state_dict().items()}, assign=assign)


def move_statistics(model: Any) -> None:
    model[1].running_mean.add_(1)
    model[1].running_var.mul_(2)


def train_statistics(model: Any) -> None:
    model.train()(X + 1)
    model.eval()


def step(model: Any, *, fused: bool = False) -> None:
    model(X).square().sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused).step()


def convert(model: Any) -> None:
    model.half().double()


def new_layer(model: Any) -> None:
    model[0] = nn.Conv2d(3, 4, 3).double()


def new_data(model: Any) -> None:
    model[0].weight.data = torch.ones_like(model[0].weight)


@pytest.mark.parametrize(
    "change",
    [
        add,
        add_in_inference_mode,
        add_to_all,
        load,
        functools.partial(load, assign=True),
        move_statistics,
        step,
        convert,
        new_layer,
        new_data,
        functools.partial(step, fused=True),  # which counts no version
        train_statistics,  # likewise
    ],
)
def test_a_change_of_the_model_is_seen(change: Callable[[Any], None]) -> None:
    model = net()
    function = compiled(model)
    before = run(function, (X,))
    change(model)
    assert_same(model, function, X)
    assert not torch.allclose(before, run(model, (X,)))


def test_writes_through_data_are_not_seen() -> None:
    model: Any = net()
    function = compiled(model)
    before = run(function, (X,))
    model[0].weight.data.add_(1)
    assert_equal(before, run(function, (X,)))
    add(model)  # anything that torch counts is enough
    assert_same(model, function, X)


def test_a_change_of_a_model_made_in_inference_mode_is_seen() -> None:
    with torch.inference_mode():
        model: Any = net()
        function = compiled(model)
        assert_equal(model(X), function(X))
        model[0].weight.add_(1)
        assert_equal(model(X), function(X))


def test_parameters_in_use_cannot_be_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    assert_same(model, compiled(model), X)
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    with pytest.raises(RuntimeError, match="swap"):  # torch's own rule for what others watch
        model.float()


def test_parameters_that_are_arguments() -> None:
    def function(x: Tensor, weight: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(F.conv2d(x, weight), mean, var)

    reports = list[Report]()
    other = compiled(function, reports)
    for _ in range(3):
        passed = [nn.Parameter(values(4, 3, 1, 1)), nn.Parameter(values(4)), nn.Parameter(values(4).square() + 0.1)]
        for factor in (1, 2):
            with torch.no_grad():
                passed[0].mul_(factor)
                assert_equal(function(X, *passed), other(X, *passed))
    assert counts(reports) == [1]


def test_tensors_of_a_closure_are_no_constants() -> None:
    weight, mean, var = nn.Parameter(values(4, 3, 1, 1)), values(4), values(4).square() + 0.1

    def function(x: Tensor) -> Tensor:
        return F.batch_norm(F.conv2d(x, weight), mean, var)

    reports = list[Report]()
    other = compiled(function, reports)
    with torch.no_grad():
        for _ in range(2):
            assert_equal(function(X), other(X))
            mean.add_(1)
    assert counts(reports) == [0]


class Changing(Model):
    """Changes its statistics in the middle of its forward."""

    def __init__(self, change: Callable[[Any], Any], *, plain: bool = False) -> None:
        super().__init__(conv=nn.Conv2d(3, 4, 1), statistics=values(2, 4).square() + 0.2)
        for name, row in zip(("mean", "var"), self.statistics, strict=True):
            if plain:
                setattr(self, name, row)
            else:
                self.register_buffer(name, row)
        self.change = change
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.change(self)
        return F.batch_norm(y, self.mean, self.var)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.mean.add_(1),
        lambda m: m.mean.data.add_(1),
        lambda m: m.mean[1:].mul_(3),
        lambda m: torch.add(m.mean, 1, out=m.mean),
        lambda m: m.mean.split(2)[0].fill_(7),
        lambda m: m.mean.__setitem__(1, 7.0),
        lambda m: nn.init.constant_(m.mean, 3.0),
        lambda m: torch._foreach_add_([m.mean, m.var], 1.0),
        lambda m: m.statistics.add_(1),  # the same memory
        lambda m: F.batch_norm(values(3, 4), m.mean, m.var, training=True),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_graph_that_changes_its_statistics(change: Callable[[Any], Any], plain: bool) -> None:
    model = Changing(change, plain=plain)
    other = copy.deepcopy(model)
    function = compiled(other)
    for _ in range(2):
        torch.manual_seed(0)
        expected = run(model, (X,))
        torch.manual_seed(0)
        assert_equal(expected, run(function, (X,)))


def test_weights_with_which_another_fold_is_possible() -> None:
    first = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))).half()
    second: Any = copy.deepcopy(first)
    with torch.no_grad():
        second[0].weight.fill_(100)
        for norm, scale in ((second[1], 1), (second[2], 1000)):  # 100,000 is more than half precision can hold
            norm.running_var.fill_(1)
            norm.weight.fill_(scale)
    reports = list[Report]()
    function = compiled(call, reports)
    for model in (first, second):
        x = X.half() / 64
        assert_equal(run(model, (x,)), run(function, (model, x)), rtol=1e-2)


def test_autocast() -> None:
    class Scaled(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale

    model = Scaled(conv=nn.Conv2d(3, 4, 1), scale=nn.Parameter(torch.randn(4, 1, 1)))
    with torch.autocast("cpu", torch.bfloat16):  # bfloat16 from the convolution, times float32
        assert_same(model, compiled(model), X.float(), rtol=1e-2)


def test_gradients_that_the_graph_turns_on() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.enable_grad():
            return model(x)

    model = net()
    with torch.no_grad():
        expected, given = function(X), compiled(function)(X)
    assert given.requires_grad
    weights = list(model.parameters())
    assert_equal(torch.autograd.grad(expected.sum(), weights), torch.autograd.grad(given.sum(), weights))
