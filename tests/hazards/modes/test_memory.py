"""Hazard 16: a norm makes a value of its own: without it, who reads a view must not be able to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_same, trained, unchanged, values
from tests.support.samples import parameter

Function = Callable[[Any, Tensor], Tensor]


class Calls(Model):
    """Layers by name, and a function of them."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(self, x)
        return y


def made(function: Function, **layers: nn.Module | Tensor) -> nn.Module:
    model = trained(Calls(**layers))
    model.function = function  # type: ignore[assignment] # a plain attribute
    return model


def conv(**others: nn.Module) -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), **others}


def written(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x[:1]).expand(2, -1, -1, -1))
    y[0].zero_()
    return y


def written_by_relu(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.norm(m.conv(x[:1]).expand(2, -1, -1, -1)), inplace=True)


def viewed(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x).transpose(2, 3))
    return y.view(y.size(0), -1)


def viewed_behind_others(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x).transpose(2, 3)).sigmoid() * 2
    return y.view(-1)


def strided(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(torch.cat([m.conv(x)] * 2, 1)[:, 2:6])
    return torch.as_strided(y, (2, 60), (60, 1))


@pytest.mark.parametrize("function", [written, written_by_relu, viewed, viewed_behind_others, strided])
def test_a_view_of_what_the_layer_made(structure: Structure, function: Function) -> None:
    model, x = made(function, **conv()), values(2, 3, 5, 6)
    with unchanged(model):
        fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, x)
    assert not Report.of(fused)


@pytest.mark.parametrize("function", [written, written_by_relu, strided])
def test_a_view_in_a_program(function: Function) -> None:
    model, x = made(function, **conv()), values(2, 3, 5, 6)
    program = fx_fuse(torch.export.export(model, (x,)))
    assert_same(model, program.module(), x)


def reshaped(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.norm(m.conv(x).transpose(2, 3))
    return y.reshape(y.size(0), -1) + y.flatten(1)


def made_anew(m: Any, x: Tensor) -> Tensor:
    return (m.norm(m.conv(x).transpose(2, 3)).contiguous() + 1).view(-1)


@pytest.mark.parametrize("function", [reshaped, made_anew])
def test_readers_that_take_any_layout(structure: Structure, function: Function) -> None:
    model = made(function, **conv())
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 5, 6))
    assert Report.of(fused)


def onwards(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.last(m.norm(x).view(x.shape[0], 4, 30).transpose(1, 2))
    return y


def test_an_input_may_lie_in_any_order(structure: Structure) -> None:
    model = made(onwards, norm=nn.BatchNorm2d(4), last=nn.Linear(4, 3))
    fused = fx_fuse(model, structure=structure, example_inputs=values(2, 4, 5, 6))
    assert_same(model, fused, values(2, 4, 6, 5).transpose(2, 3))
    assert {d.downstream for d in Report.of(fused).skipped} == {Reason.LAYOUT}


def test_the_layout_of_a_layer_is_known(structure: Structure) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.conv(x).relu())
        result: Tensor = m.last(y.view(x.shape[0], 4, y.shape[2], y.shape[3]).transpose(1, 3))
        return result

    model = made(function, **conv(last=nn.Linear(4, 3)))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 5, 6))
    assert Report.of(fused)


# -- other ways to be wrong on the way


def mean_of_all(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.last(m.norm(x).mean((), True).expand(2, 4, 3, 3))
    return y


def numpy_names(m: Any, x: Tensor) -> Tensor:
    mean: Any = torch.mean
    y: Tensor = m.last(mean(m.norm(x), 0, keepdims=True).transpose(1, -1))
    return y


def numpy_axis(m: Any, x: Tensor) -> Tensor:
    unbind: Any = torch.unbind
    y: Tensor = m.last(unbind(m.norm(x), axis=1)[0])
    return y


def moved_in_place(m: Any, x: Tensor) -> Tensor:
    n, y = x.shape[0], x.relu()
    y.transpose_(0, 2)
    z: Tensor = m.linear(m.norm(y.clone()).reshape(n, 4, -1).transpose(1, 2))
    return z


@pytest.mark.parametrize("function", [mean_of_all, numpy_names, numpy_axis, moved_in_place])
def test_what_must_not_be_misread(structure: Structure, function: Function) -> None:
    layers = {"norm": nn.BatchNorm2d(4), "last": nn.Conv2d(4, 3, 1), "linear": nn.Linear(4, 5)}
    model = made(function, **layers)
    shape = (2, 4, 2, 5) if function is moved_in_place else (4, 4, 4, 4)
    assert_same(model, fx_fuse(model, structure=structure), values(*shape))
    assert_same(model, fx_fuse(model, structure=structure, example_inputs=values(*shape)), values(*shape))


def squeezed(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.last(m.norm(m.pool(m.norm2(m.conv(x)).mean(3)).squeeze(-1)))
    return y


def test_a_check_stands_where_the_number_of_axes_was_assumed(structure: Structure) -> None:
    layers = {"norm2": nn.BatchNorm2d(4), "pool": nn.AdaptiveAvgPool1d(1), "last": nn.Linear(4, 2)}
    model = made(squeezed, **{**conv(**layers), "norm": nn.BatchNorm1d(4)})
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 5, 6))
    details = {d.path: d.detail for d in Report.of(fused).folded}
    assert not {d.path: d.assumed for d in Report.of(fx_fuse(model, values(2, 3, 5, 6))).folded}["norm2"]
    assert "assumes 2 axes" in details["norm"]


def two_assumptions(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.last(m.norm((m.linear(m.conv(x)) * m.gain).flatten(0, 1)))
    return y


def repeated(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.last(m.norm((m.linear(m.conv(x)) * m.gain).repeat(1, 2, 1)))  # which is of three axes
    return y


@pytest.mark.parametrize("function", [two_assumptions, repeated])
def test_two_assumptions_are_not_one(structure: Structure, function: Function) -> None:
    layers = {"conv": nn.Conv1d(3, 4, 1), "linear": nn.Linear(5, 8), "norm": nn.BatchNorm1d(8), "last": nn.Linear(8, 2)}
    model = made(function, gain=parameter(1, 1, 8), **layers)
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 5))
    if function is repeated:
        with pytest.raises(ValueError, match="axes"):
            fused(values(3, 5))  # of which the constant makes three axes


def test_affines_whose_sizes_do_not_fit(structure: Structure) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.norm(m.linear(x)) * m.gain
        return y

    model = made(function, linear=nn.Linear(3, 4), norm=nn.BatchNorm1d(5), gain=parameter(4))
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 5, 3))


def assumed_concatenation(m: Any, x: Tensor) -> Tensor:
    y = F.batch_norm(torch.cat([m.conv(x), m.conv2(x)], 1), m.mean, m.var)
    one, other = y.chunk(2, -3)
    result: Tensor = m.last(one) + m.last(other)
    return result


def test_sizes_do_not_rest_on_what_another_fold_checks(structure: Structure) -> None:
    layers = {"conv": nn.Conv2d(4, 4, 1), "conv2": nn.Conv2d(4, 4, 1), "last": nn.Conv2d(4, 3, 1)}
    model = made(assumed_concatenation, mean=values(8), var=values(8).exp(), **layers)
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 4, 4, 4))
