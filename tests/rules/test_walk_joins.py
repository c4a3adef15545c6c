"""Hazard 22: affines through concatenations and parts of values, where each path needs its own piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, assert_same, trained, values
from tests.support.samples import FOLDS, graph_text, lines, only

IMAGE = (2, 4, 6, 5)
Function = Callable[[Any, Tensor], Tensor]


class Calls(Model):
    """Layers by name, and a function of them."""

    function: Function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(self, x)
        return y


def made(function: Function, **layers: nn.Module) -> nn.Module:
    model = trained(Calls(**layers))
    model.function = function
    return model


def two() -> dict[str, nn.Module]:
    return {"a": nn.Conv2d(4, 3, 3), "b": nn.Conv2d(4, 2, 3, bias=False), "norm": nn.BatchNorm2d(5)}


def test_a_norm_is_split_over_a_concatenation(structure: Structure) -> None:
    model = made(lambda m, x: m.norm(torch.cat([m.a(x), m.b(x)], 1)), **two())
    fused = assert_fuses(model, values(*IMAGE), folded=["norm"], structure=structure, rules=FOLDS)
    assert sorted(only(Report.of(fused).folded).into) == ["a", "b"]


def test_before_and_after() -> None:
    model = made(lambda m, x: m.norm(torch.cat([m.a(x), m.b(x)], 1)), **two())
    assert graph_text(fx_fuse(model, rules=FOLDS)) == lines("""
        x = <input>
        a = self.a(x)
        b = self.b(x)
        cat = cat([a, b], 1)
        return cat
    """)


PATHS: list[Function] = [
    lambda m, x: m.norm(torch.cat([m.a(x), m.b(x), m.b(x).sigmoid()], 1)[:, :5]),
    lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), dim=-3)),
    lambda m, x: m.norm(torch.cat([m.a(x), torch.cat([m.b(x)], 1)], 1)),
    lambda m, x: m.norm(torch.cat([m.a(x), m.b(x)], 1)[:, [0, 1, 2, 3, 4]]),
]


@pytest.mark.parametrize(("function", "folds"), list(zip(PATHS, [0, 1, 1, 0], strict=True)), ids=map(str, range(4)))
def test_concatenations(structure: Structure, function: Function, folds: int) -> None:
    model = made(function, **two())
    fused = fx_fuse(model, structure=structure, rules=FOLDS)
    assert_same(model, fused, values(*IMAGE))
    assert len(Report.of(fused).folded) == folds


REFUSED: list[tuple[Function, Reason]] = [
    (lambda m, x: m.norm(torch.cat([m.a(x), torch.sigmoid(m.b(x))], 1)), Reason.NOT_LINEAR),
    (lambda m, x: m.norm(torch.cat([m.a(x), x[:, :2, 2:, 2:]], 1)), Reason.UNKNOWN_SIZE),
]


@pytest.mark.parametrize(("function", "reason"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_all_parts_or_none(structure: Structure, function: Function, reason: Reason) -> None:
    model = made(function, **two())
    assert_fuses(model, values(*IMAGE), left={"norm": reason}, structure=structure)


def test_a_part_that_is_read_elsewhere(structure: Structure) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        y: Tensor = m.norm(torch.cat([a, m.b(x)], 1))
        return y + a.sum()

    assert_fuses(made(function, **two()), values(*IMAGE), left={"norm": Reason.SEVERAL_USES}, structure=structure)


def parts() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(4, 6, 3), "norm": nn.BatchNorm2d(2)}


def split(m: Any, x: Tensor) -> Tensor:
    one, other = m.conv(x).split([4, 2], 1)
    return torch.cat([one, m.norm(other)], 1)


def chunk(m: Any, x: Tensor) -> Tensor:
    one, other, third = m.conv(x).chunk(3, 1)
    return one * m.norm(other) + third


def sliced(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y[:, :2]).sum() + y[:, 2:]


def narrow(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y.narrow(1, 1, 2)) * y[:, -3:].sum()


@pytest.mark.parametrize("function", [split, chunk, sliced, narrow], ids=lambda f: f.__name__)
def test_a_norm_on_one_part(structure: Structure, function: Function) -> None:
    assert_fuses(made(function, **parts()), values(*IMAGE), folded=["norm"], structure=structure)


def overlapping(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y[:, :2]) + y[:, 1:].sum()


def whole(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y.split(2, 1)[0]) + y.sum()


def same_part(m: Any, x: Tensor) -> Tensor:
    pieces = m.conv(x).split(2, 1)
    return m.norm(pieces[0]) + pieces[-3]


def other_axis(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y[:, :2]) + y[:, :, 1:].sum()


def all_parts(m: Any, x: Tensor) -> Tensor:
    pieces = m.conv(x).split(2, 1)
    return m.norm(pieces[0]) + len(pieces)


@pytest.mark.parametrize("function", [overlapping, whole, same_part, other_axis], ids=lambda f: f.__name__)
def test_parts_that_somebody_else_sees(structure: Structure, function: Function) -> None:
    model = made(function, **parts())
    assert_fuses(model, values(*IMAGE), left={"norm": Reason.SEVERAL_USES}, structure=structure)


def test_a_tuple_that_is_read_as_a_whole() -> None:
    model = made(all_parts, **parts())
    fused = fx_fuse(model, example_inputs=values(*IMAGE))
    assert_same(model, fused, values(*IMAGE))


# -- onwards


def onwards() -> dict[str, nn.Module]:
    others = {"b": nn.Conv2d(2, 3, 3), "c": nn.Conv2d(2, 3, 3), "aside": nn.Conv2d(4, 5, 1)}
    return {"norm": nn.BatchNorm2d(4), "a": nn.Conv2d(9, 3, 3), **others}


def into_cat(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.a(torch.cat([m.norm(x.sigmoid()), m.aside(x)], 1))
    return y


def into_parts(m: Any, x: Tensor) -> Tensor:
    one, other = m.norm(x.sigmoid()).chunk(2, 1)
    return m.b(one) * m.c(other[:, :])


def into_positions(m: Any, x: Tensor) -> Tensor:
    y = m.norm(x.sigmoid()).permute(0, 2, 3, 1)
    return F.linear(y[:, 0, -1], m.aside.weight[:, :, 0, 0])


@pytest.mark.parametrize("function", [into_cat, into_parts, into_positions], ids=lambda f: f.__name__)
def test_onwards(structure: Structure, function: Function) -> None:
    model = made(function, **onwards())
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(*IMAGE))
    # The weight that is cut out of another one is computed once, where the graph itself is the result.
    assert "norm" in {d.path for d in Report.of(fused).folded}, str(Report.of(fused))


def test_the_way_that_needs_no_copy_is_taken() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.b(m.norm(m.a(x))) + m.a(x.abs()).sum()
        return y

    layers = {"a": nn.Conv2d(4, 3, 1), "norm": nn.BatchNorm2d(3), "b": nn.Conv2d(3, 2, 3)}
    fused = assert_fuses(made(function, **layers), values(*IMAGE), folded=["norm"], rules=FOLDS)
    decision = only(Report.of(fused).folded)
    assert (decision.into, decision.copied_bytes, decision.rule) == (("b",), 0, "fold_downstream")


def called(model: Any, x: Tensor) -> Tensor:
    result: Tensor = model.forward_features(x)
    return result


class Features(Model):
    """A public method that the forward calls, and whose result has the norm."""

    def forward_features(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.forward_features(x))
        return y


def test_a_method_that_the_forward_calls_gives_what_it_gave(structure: Structure) -> None:
    model = Features(norm=nn.LayerNorm(4), head=nn.Linear(4, 3))
    model.norm.weight.data = values(4)
    x, model = values(5, 4), trained(model)
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, x)
    if structure == "graph":
        assert Report.of(fused).folded
    else:
        assert only(Report.of(fused).skipped).reason is Reason.REACHED_INTO
        assert torch.equal(called(fused, x), called(model, x))


class Alone(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.cat([self.conv(x)], 1))
        return y


def test_a_value_that_is_put_together_with_nothing(structure: Structure) -> None:
    model = trained(Alone(conv=nn.Conv2d(4, 3, 1), norm=nn.BatchNorm2d(3)))
    assert_fuses(model, values(*IMAGE), folded=["norm"], structure=structure)
