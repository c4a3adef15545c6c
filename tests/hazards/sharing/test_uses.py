"""Hazards 4, 5: values and parameters that somebody else reads as well: uses are counted, not users."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Reason, Report, fx_fuse
from tests.support.helpers import Model, Structure, assert_fuses, trained, values


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


class ParameterReadElsewhere(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + x.mean() * getattr(self.conv, self.name).sum()


def read_elsewhere(name: str) -> ParameterReadElsewhere:
    return trained(ParameterReadElsewhere(conv=conv(), bn=nn.BatchNorm2d(4), name=name))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_that_is_read_elsewhere_is_untied(name: str) -> None:
    fused = assert_fuses(read_elsewhere(name), values(2, 3, 6, 6), folded=["bn"], structure="graph")
    assert Report.of(fused).copied_bytes > 0


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"structure": "graph", "allow_copies": False}, Reason.SHARED),
        ({"structure": "module"}, Reason.OWN_FORWARD),
    ],
)
def test_a_parameter_that_is_read_elsewhere_keeps_the_norm(name: str, options: dict[str, Any], reason: Reason) -> None:
    assert_fuses(read_elsewhere(name), values(2, 3, 6, 6), left={"bn": reason}, **options)


class ReadByAnother(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) * y.relu()


class ReturnedToo(Model):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        return {"normed": self.bn(y), "raw": y}


class ReadTwiceByOne(Model):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.bn(y), torch.cat([y, y])


class BothOperands(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y + y)


class BothOperandsOfNorm(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return F.batch_norm(y, self.mean, self.var, weight=y[0])


@pytest.mark.parametrize("cls", [ReadByAnother, ReturnedToo, ReadTwiceByOne])
def test_an_output_that_others_read_keeps_the_norm(structure: Structure, cls: type[Model]) -> None:
    model = trained(cls(conv=conv(), bn=nn.BatchNorm2d(4)))
    left = {"bn": Reason.SEVERAL_USES}
    assert_fuses(model, values(2, 3, 6, 6), left=left, structure=structure)


def test_a_sum_of_an_output_with_itself_is_no_constant_arithmetic(structure: Structure) -> None:
    model = trained(BothOperands(conv=conv(), bn=nn.BatchNorm2d(4)))
    assert_fuses(model, values(2, 3, 6, 6), left={"bn": Reason.SEVERAL_USES}, structure=structure)


def test_a_norm_that_is_scaled_by_its_own_input_stays(structure: Structure) -> None:
    model = trained(BothOperandsOfNorm(linear=nn.Linear(3, 4), mean=values(4), var=values(4).exp()))
    fused = assert_fuses(model, values(2, 3), left={"batch_norm": Reason.COMPUTED}, structure=structure)
    assert not Report.of(fused)


def test_only_the_others_are_named() -> None:
    class Tapped(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y) * self.other(y)

    model = trained(Tapped(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4), other=nn.Sigmoid()))
    (decision,) = Report.of(fx_fuse(model)).skipped
    assert decision.reason is Reason.SEVERAL_USES
    assert decision.detail.startswith("conv is also used by other, for which it must not change; ")
