"""``join_constants``: products and sums with constants that follow each other are one product and one sum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Report, fx_fuse, refold
from tests.support.helpers import Model, assert_same, trained, values
from tests.support.samples import graph_text, lines, only, parameter

if TYPE_CHECKING:
    from collections.abc import Callable

X = values(2, 5, 4, 6)


class Chain(Model):
    """A model that computes with constants between two activations, so that no layer takes them in."""

    run: Any

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(type(self).run(self, torch.sigmoid(x)))


def model_of(run: Any) -> Any:
    model = type("Constants", (Chain,), {"run": run, "__module__": __name__})(
        a=parameter(5, 1, 1),
        b=parameter(5, 1, 1),
        wide=parameter(6),
        number=nn.Parameter(torch.tensor(1.5, dtype=torch.float64)),
    )
    model.register_buffer("whole", torch.arange(1, 7))
    return trained(model)


def steps(fused: Any) -> int:
    calls = [node for node in fused.graph.nodes if node.op.startswith("call")]
    return len(calls) - 2  # without the activations


def forms(model: Any) -> list[Any]:
    return [fx_fuse(model), fx_fuse(model, X), fx_fuse(torch.export.export(model, (X,)))]


JOINED: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "products": (lambda self, x: x * self.a * self.b * 1.0 + 0.0, 1),
    "numbers": (lambda _self, x: x * 2.0 / 4.0 * 3, 1),
    "sums": (lambda self, x: x + self.a - self.b + 1.0, 1),
    "an image": (lambda _self, x: (x / 255.0 - 0.485) / 0.229, 2),
    "an image, back and forth": (lambda _self, x: 2 * (x / 255.0) - 1, 2),
    "all of them": (lambda self, x: ((x * self.a + self.b) * self.b - self.a) / self.a, 2),
    "constants first": (lambda self, x: self.a * (self.b * x), 1),
    "constants first, added": (lambda self, x: self.a + (self.b + x), 1),
    "negative": (lambda self, x: 2.0 - (1.0 - x * self.a), 2),
    "methods": (lambda self, x: x.mul(self.a).div(2.0).sub(self.b).neg(), 2),
    "some of them": (lambda self, x: x * self.a * self.b * self.wide, 2),
}


@pytest.mark.parametrize(("run", "count"), JOINED.values(), ids=JOINED)
def test_constants_become_one_product_and_one_sum(run: Any, count: int) -> None:
    model = model_of(run)
    for fused in forms(model):
        assert steps(fused) == count
        called = fused.module() if hasattr(fused, "module") else fused
        torch.testing.assert_close(called(X), model(X), rtol=1e-12, atol=1e-12)


def test_before_and_after() -> None:
    model = model_of(lambda self, x: (x * self.a * self.b + 1.0) * 2.0)
    fused = fx_fuse(model)
    assert graph_text(fused) == lines("""
        x = <input>
        sigmoid = sigmoid(x)
        a_1 = self.a
        mul = mul(sigmoid, a_1)
        mul_1 = add(mul, 2.0)
        relu = relu(mul_1)
        return relu
    """)
    assert {decision.rule for decision in Report.of(fused).folded} == {"join_constants"}
    torch.testing.assert_close(fused.a, model.a * model.b * 2, rtol=1e-12, atol=0.0)


def in_place(self: Any, x: Any) -> Any:
    y = x * self.a
    y *= self.b
    return y * 2.0


def read_twice(self: Any, x: Any) -> Any:
    y = x * self.a
    return y * self.b + y


def asked_for_its_shape(self: Any, x: Any) -> Any:
    y = x[:, :1, :1, :1] * self.a
    return y * self.wide * (y.shape[1] - y.shape[3])


KEPT: dict[str, Callable[[Any, Any], Any]] = {
    "one product and one sum": lambda self, x: x * self.a + self.b,
    "a sum and a product": lambda self, x: (x + self.a) * self.b,
    "a larger constant": lambda self, x: x * self.a * self.wide,
    "a tensor of one number": lambda self, x: x * self.number * 2.0,
    "whole numbers": lambda self, x: x * self.whole * 2.0,
    "a factor of what is added": lambda self, x: torch.add(torch.add(x, self.a, alpha=2), self.b, alpha=3),
    "not finite": lambda _self, x: x / 0.0 * 2.0,
    "in place": in_place,
    "read twice": read_twice,
    "asked for its shape": asked_for_its_shape,
}


@pytest.mark.parametrize("run", KEPT.values(), ids=KEPT)
def test_what_stays(run: Any) -> None:
    model = model_of(run)
    fused = fx_fuse(model)
    assert not Report.of(fused).folded
    torch.testing.assert_close(fused(X), model(X), rtol=0.0, atol=0.0, equal_nan=True)


class Raw(Model):
    def forward(self, x: Any) -> Any:
        return (x * 2) * 4 * 0.5 * 3.0


def test_whole_numbers_overflow_as_they_did() -> None:
    fused: Any = fx_fuse(Raw().eval())
    numbers = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(fused(numbers), Raw()(numbers), rtol=0.0, atol=0.0)
    assert math.isclose(fused(3.0), 36.0)  # it need not be a tensor
    assert len([node for node in fused.graph.nodes if node.op == "call_function"]) == 3


def test_where_the_class_is_kept_its_code_is() -> None:
    model = model_of(JOINED["all of them"][0])
    fused = fx_fuse(model, structure="module")
    assert not Report.of(fused).folded
    assert_same(model, fused, X)


def test_constants_behind_a_layer_are_in_the_layer() -> None:
    class Behind(Model):
        def forward(self, x: Tensor) -> Any:
            return torch.sigmoid(self.conv(x) * self.a * 2.0 + 1.0) * 2.0 * 3.0

    fused = fx_fuse(trained(Behind(conv=nn.Conv2d(5, 5, 1), a=parameter(5, 1, 1))), X)
    assert sorted({decision.rule for decision in Report.of(fused).folded}) == ["fold_upstream", "join_constants"]


class Shared(Model):
    def forward(self, x: Tensor) -> Any:
        return torch.relu(self.conv(x)), torch.sigmoid(self.conv(x) * self.a * self.a)


def test_a_layer_that_needs_a_copy_takes_them_in_all_the_same() -> None:
    fused = fx_fuse(trained(Shared(conv=nn.Conv2d(5, 5, 1), a=parameter(5, 1, 1))), X)
    assert {decision.rule for decision in Report.of(fused).folded} == {"fold_upstream"}


def test_new_weights_are_joined_as_the_old_ones() -> None:
    model, other = (model_of(JOINED["all of them"][0]) for _ in range(2))
    fused = fx_fuse(model)
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.mul_(1.5).add_(0.25)
    assert torch.equal(refold(fused, other)(X), fx_fuse(other)(X))


def test_the_compiler_joins_them() -> None:
    model = model_of(JOINED["all of them"][0])
    compiled: Any = torch.compile(model, backend="fxfuse")
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), model(X), rtol=1e-12, atol=1e-12)


def test_one_decision_for_each_that_goes() -> None:
    decision = only(Report.of(fx_fuse(model_of(lambda self, x: x * self.a * self.b))).folded)
    assert (decision.rule, decision.subject, decision.into) == ("join_constants", "constants", ("mul",))
