"""Hazard 34: arguments other than tensors, or left out: a graph holds only for what it was traced with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from fxfuse import Reason
from tests.hazards.blocks import UNPROVEN, assert_decided, assert_recorded, assert_stays, batch_of, layers
from tests.support.helpers import Model, assert_equal, assert_fuses, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.helpers import Structure

INPUTS = (2, 3, 6, 6)


class Optional_(Model):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        return self.bn(y) if mask is None else y * mask


class KeywordOnly(Model):
    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        return self.bn(y) if mask is None else y * mask


class Starred(Model):
    def forward(self, x: Tensor, *masks: Tensor) -> Tensor:
        y = self.conv(x)
        return y * masks[0] if masks else self.bn(y)


class Keywords(Model):
    def forward(self, x: Tensor, **options: Tensor) -> Tensor:
        y = self.conv(x)
        return y * options["mask"] if "mask" in options else self.bn(y)


class Flag(Model):
    def forward(self, x: Tensor, normed: bool = True) -> Tensor:
        y = self.conv(x)
        return self.bn(y) if normed else y


OPTIONAL: list[tuple[type[Model], Any]] = [
    (Optional_, lambda m, x: m(x, x)),
    (KeywordOnly, lambda m, x: m(x, mask=x)),
    (Starred, lambda m, x: m(x, x)),
    (Keywords, lambda m, x: m(x, mask=x)),
    (Flag, lambda m, x: m(x, normed=False)),
]


@pytest.mark.parametrize(("cls", "other"), OPTIONAL)
def test_another_argument_is_an_error_or_right(structure: Structure, cls: type[Model], other: Any) -> None:
    model, x = trained(cls(**layers())), values(*INPUTS)
    fused = assert_decided(model, folded=["bn"], structure=structure)
    assert_right_or_error(lambda either: other(either, x), model, fused)


def assert_right_or_error(call: Callable[[nn.Module], Tensor], model: nn.Module, fused: nn.Module) -> None:
    """The fused model gives what the model gives, or raises."""
    with torch.no_grad():
        expected = call(model)
        try:
            given = call(fused)
        except (ValueError, TypeError) as error:
            given, message = None, str(error)
        else:
            message = ""
    if given is None:
        assert message
    else:
        assert_equal(expected, given)


class PassesPositional(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, x) if batch_of(x) > 4 else self.block(x)


class PassesKeyword(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, mask=x) if batch_of(x) > 4 else self.block(x)


class PassesUnpacked(Model):
    def forward(self, x: Tensor) -> Tensor:
        more = {"mask": x} if batch_of(x) > 4 else {}
        return self.block(x, **more)


class PassesStarred(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(*((x, x) if batch_of(x) > 4 else (x,)))


class PassesFlag(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, normed=batch_of(x) <= 4)


PASSING = [
    (PassesPositional, Optional_), (PassesPositional, Starred), (PassesKeyword, Optional_),
    (PassesKeyword, KeywordOnly),
    (PassesKeyword, Keywords), (PassesUnpacked, KeywordOnly), (PassesUnpacked, Keywords), (PassesStarred, Starred),
    (PassesStarred, Optional_), (PassesFlag, Flag),
]  # fmt: skip


@pytest.mark.parametrize(("parent", "child"), PASSING)
def test_untraced_code_that_passes_more_forbids_the_fold(parent: type[Model], child: type[Model]) -> None:
    model = trained(parent(block=child(**layers())))
    assert_stays(model, ["block.bn"])
    assert_recorded(model, "block.bn", example=values(*INPUTS))


class DefaultsOnly(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x=x) if batch_of(x) > 4 else self.block(x)


@pytest.mark.parametrize("child", [Optional_, KeywordOnly, Starred, Keywords, Flag])
def test_untraced_code_that_passes_what_is_required_folds_on_a_recorded_run(child: type[Model]) -> None:
    model = trained(DefaultsOnly(block=child(**layers())))
    assert_stays(model, ["block.bn"])
    assert_recorded(model, "block.bn", example=values(*INPUTS), branches=False)


# -- required arguments that are not always tensors


class RequiredOrNone(Model):
    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        y = self.conv(x)
        return y if skip is None else self.bn(y) + skip


class PassesNone(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, None) if batch_of(x) > 4 else self.block(x, x)


class OneOrMany(Model):
    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        if isinstance(x, (list, tuple)):
            return torch.cat([self.conv(inner) for inner in x])
        return self.bn(self.conv(x))


class PassesList(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block([x, x]) if batch_of(x) > 4 else self.block(x)


@pytest.mark.parametrize(("parent", "child"), [(PassesNone, RequiredOrNone), (PassesList, OneOrMany)])
def test_untraced_code_that_passes_no_tensor_forbids_the_fold(parent: type[Model], child: type[Model]) -> None:
    assert_stays(trained(parent(block=child(**layers()))), ["block.bn"])


def test_a_model_that_takes_none_too_is_right_for_both_or_raises(structure: Structure) -> None:
    model, x = trained(RequiredOrNone(**layers())), values(*INPUTS)
    fused = assert_fuses(model, x, x, folded=["bn"], structure=structure)
    assert_right_or_error(lambda either: either(x, None), model, fused)


# -- several signatures within one model


class TwoWays(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.block(x, mask=x)


def test_two_signatures_of_one_block_in_a_traced_model() -> None:
    model = trained(TwoWays(block=KeywordOnly(**layers())))
    assert_decided(model, folded=["block.bn"], structure="graph")
    assert_decided(model, left={"block.bn": Reason.OWN_FORWARD}, structure="module")


class TwoWaysUntraced(Model):
    def forward(self, x: Tensor) -> Tensor:
        return (self.block(x) + self.block(x, mask=x)) * batch_of(x)


def test_two_signatures_of_one_block_in_an_untraced_model() -> None:
    model = trained(TwoWaysUntraced(block=KeywordOnly(**layers())))
    assert_stays(model, ["block.bn"], because=UNPROVEN)


class FixedFlag(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x, normed=True) * self.two(x, normed=False)


def test_a_flag_that_traced_code_passes_is_known(structure: Structure) -> None:
    model = trained(FixedFlag(one=Flag(**layers()), two=Flag(**layers())))
    assert_decided(model, folded=["one.bn"], left={"two.bn": Reason.NOT_CALLED}, structure=structure)


@pytest.mark.parametrize("normed", [True, False])
def test_a_flag_among_the_example_inputs_is_known(normed: bool) -> None:
    model, x = trained(Flag(**layers())), values(*INPUTS)
    left = {} if normed else {"bn": Reason.NOT_CALLED}
    options: dict[str, Any] = {"example_inputs": (x, normed), "structure": "graph"}
    fused = assert_fuses(model, x, normed, folded=["bn"] if normed else [], left=left, **options)
    with pytest.raises(ValueError, match="normed"):
        fused(x, not normed)


class More(Model):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002 - that is what is tested
        return self.bn(self.conv(x))


class MoreNamed(Model):
    def forward(self, x: Tensor, *, flag: bool = True, **kwargs: Any) -> Tensor:  # noqa: ARG002
        return self.bn(self.conv(x)) if flag else x


@pytest.mark.parametrize("cls", [More, MoreNamed])
@pytest.mark.parametrize("nested", [False, True])
def test_inputs_make_nothing_worse_where_a_forward_takes_any_arguments(cls: type[Model], nested: bool) -> None:
    inner, x = cls(**layers()), values(*INPUTS)
    model = trained(nn.Sequential(inner, nn.ReLU()) if nested else inner)
    path = "0.bn" if nested else "bn"
    assert_fuses(model, x, folded=[path])
    assert_fuses(model, x, folded=[path], example_inputs=x)
