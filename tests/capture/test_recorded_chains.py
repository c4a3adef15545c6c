"""Folds on a run from one traced forward into another: what is between them is checked whenever the model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import FuseError, Report, fx_fuse
from tests.support.helpers import Model, assert_equal, folds, trained, unchanged, values

X = values(2, 4, 6)


class NormOverTokens(Model):
    """Its norm runs along the last axis of what it gets, as in transformers for time series."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.transpose(1, 2)).transpose(1, 2)


class Pair(NormOverTokens):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Mixed(Model):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.linear(x.relu().relu() if x.ndim < 2 else x.flatten(0, 1)) + other.sum()


class Untraced(Model):
    """Nothing but Python between its blocks, so that only a run shows which value goes where."""

    def forward(self, x: Tensor) -> Any:
        x = x if float(x.sum()) > 1e9 else x.clone()
        return self._use(x)

    def _use(self, x: Tensor) -> Any:
        return self.linear(self.norm(x))


def norm(cls: type[Model] = NormOverTokens) -> Model:
    return cls(bn=nn.BatchNorm1d(6))


def fused_on_a_run(model: nn.Module, *folded: str) -> nn.Module:
    with unchanged(model):
        result: nn.Module = fx_fuse(model, X)
    assert folds(result) == sorted(folded), str(Report.of(result))
    assert {d.evidence for d in Report.of(result).folded} <= {"recorded"}
    for x in (X, values(3, 5, 6)):
        assert_equal(model(x), result(x))
    return result


@torch.no_grad()
def test_a_norm_between_transposes_folds_into_the_layer_behind_its_block() -> None:
    result: Any = fused_on_a_run(trained(Untraced(norm=norm(), linear=nn.Linear(6, 3))), "norm.bn")
    assert type(result.norm.bn) is nn.Identity


class Sees(Untraced):
    wrong = False

    def _use(self, x: Tensor) -> Any:
        y = self.norm(x)
        return self.linear(y + 1 if self.wrong else y)


class GivesItAway(Sees):
    def _use(self, x: Tensor) -> Any:
        y = self.norm(x)
        return (self.linear(y), y) if self.wrong else self.linear(y)


class CallsItAlone(Sees):
    def _use(self, x: Tensor) -> Any:
        return self.linear(x) if self.wrong else self.linear(self.norm(x))


@torch.no_grad()
@pytest.mark.parametrize("cls", [Sees, GivesItAway, CallsItAlone])
def test_another_way_through_the_code_is_an_error(cls: type[Sees]) -> None:
    result: Any = fused_on_a_run(trained(cls(norm=norm(), linear=nn.Linear(6, 3))), "norm.bn")
    result.wrong = True
    with pytest.raises(FuseError, match=r"'norm'.*'linear'.*example of each way"):
        result(X)
    result.wrong = False
    result(X)  # nothing is left behind


class OfAPair(Untraced):
    def _use(self, x: Tensor) -> Any:
        return self.linear(self.norm(x)[0])


class IntoTwo(Untraced):
    def _use(self, x: Tensor) -> Any:
        return self.mixed(self.norm(x), x)


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        OfAPair(norm=norm(Pair), linear=nn.Linear(6, 3)),
        IntoTwo(norm=norm(), mixed=Mixed(linear=nn.Linear(6, 3))),
    ],
)
def test_blocks_that_give_or_take_several_values_keep_their_norms(model: nn.Module) -> None:
    fused_on_a_run(trained(model))


class Block(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class TakesApart(Model):
    wrong = False

    def forward(self, x: Tensor) -> Any:
        x = x if float(x.sum()) > 1e9 else x.clone()
        return self.block.conv(x) if self.wrong else self.block(x)


@torch.no_grad()
def test_a_fold_in_a_traced_block_is_checked_where_code_may_take_the_block_apart() -> None:
    model = trained(TakesApart(block=Block(conv=nn.Linear(6, 6), bn=nn.BatchNorm1d(4))))
    model.block.bn = trained(nn.Sequential(nn.BatchNorm1d(6)))[0]
    x = values(5, 6)
    result: Any = fx_fuse(model, x)
    assert [d.evidence for d in Report.of(result).folded] == ["recorded"]
    assert_equal(model(x), result(x))
    result.wrong = True
    with pytest.raises(FuseError, match=r"'block.conv'.*'block.bn'.*example of each way"):
        result(x)


class Written(Block):
    """Its norm is a function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.bn.running_mean, self.bn.running_var)


class Over(Block):
    """Something is between its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).unsqueeze(0).transpose(1, 2)).relu()


class Sum(Model):
    """Its layers merge."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.bn(x)


@torch.no_grad()
@pytest.mark.parametrize(
    "block",
    [
        Written(conv=nn.Linear(6, 6), bn=nn.BatchNorm1d(6)),
        Over(conv=nn.Linear(6, 6), bn=nn.BatchNorm1d(6)),
        Sum(conv=nn.Linear(6, 6), bn=nn.Linear(6, 6)),
    ],
)
def test_what_no_module_could_check_stays_where_code_may_take_the_block_apart(block: Model) -> None:
    model = trained(TakesApart(block=block))
    x = values(5, 6)
    result: Any = fx_fuse(model, x)
    assert not Report.of(result).folded
    for wrong in (False, True):
        model.wrong = result.wrong = wrong
        assert_equal(model(x), result(x))


class Whole(Untraced):
    def _use(self, x: Tensor) -> Any:
        return self.block(x)


@torch.no_grad()
@pytest.mark.parametrize("cls", [Written, Over])
def test_where_none_takes_the_block_apart_it_folds(cls: type[Block]) -> None:
    model = trained(Whole(block=cls(conv=nn.Linear(6, 6), bn=nn.BatchNorm1d(6))))
    x = values(5, 6)
    result: Any = fx_fuse(model, x)
    assert [d.evidence for d in Report.of(result).folded] == ["traced"]
    assert_equal(model(x), result(x))


@torch.no_grad()
def test_what_was_fused_on_a_run_is_watched_again_and_stays_checked() -> None:
    result: Any = fused_on_a_run(trained(Sees(norm=norm(), linear=nn.Linear(6, 3))), "norm.bn")
    again: Any = fx_fuse(result, X)
    assert not Report.of(again).notes
    assert_equal(result(X), again(X))
    again.wrong = True
    with pytest.raises(FuseError, match=r"'norm'.*'linear'.*example of each way"):
        again(X)


class CallsInside(Untraced):
    wrong = False

    def _use(self, x: Tensor) -> Any:
        return self.norm.bn(x.transpose(1, 2)) if self.wrong else self.linear(self.norm(x))


@torch.no_grad()
def test_a_layer_that_code_may_call_inside_of_its_block_takes_part_in_no_chain() -> None:
    fused_on_a_run(trained(CallsInside(norm=norm(), linear=nn.Linear(6, 3))))
