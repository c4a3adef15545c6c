"""Hazard 35: untraced code sets something before it calls a child, whose forward then takes another way."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from fxfuse import fx_fuse
from tests.hazards.blocks import assert_right, assert_stays, batch_of, layers
from tests.support.helpers import Model, folds, trained, values


class Taps(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * batch_of(x) + self.tap(x)


class Flags:
    bare = False

    def turn(self, *, on: bool) -> None:
        self.bare = on


FLAGS = Flags()
TABLE = dict[str, bool]()


class Bare(Model):
    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


class Child(Bare):
    bare = False

    def __init__(self, **inner: Any) -> None:
        super().__init__(**inner)
        self.flags, self.table = Flags(), dict[str, bool]()

    def forward(self, x: Tensor) -> Any:
        bare = self.bare or FLAGS.bare or self.flags.bare or self.table.get("bare") or TABLE.get("bare")
        return self.conv(x) if bare else self.bn(self.conv(x))

    def switch(self, *, on: bool) -> None:
        self.bare = on

    def note(self, *, on: bool) -> None:
        self.table["bare"] = on

    def turn(self, *, on: bool) -> None:
        self.flags.turn(on=on)

    @property
    def given(self) -> Any:
        return None

    @given.setter
    def given(self, value: Tensor) -> None:
        object.__setattr__(self, "gave", self.conv(value))


class OtherClass(Taps):
    def tap(self, x: Tensor) -> Any:
        block: Any = self.block
        block.__class__ = Bare
        y = block(x)
        block.__class__ = Child
        return y


class ByAMethodThatSets(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.switch(on=True)
        y = self.block(x)
        self.block.switch(on=False)
        return y


class ByAnObjectThatIsSet(Taps):
    def tap(self, x: Tensor) -> Any:
        FLAGS.bare = True
        y = self.block(x)
        FLAGS.bare = False
        return y


class ByASetter(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.given = x
        return self.block.gave


class ByATextThatIsSet(Taps):
    def tap(self, x: Tensor) -> Any:
        setattr(self.block.flags, "bare", True)  # noqa: B010 - this is the point
        y = self.block(x)
        setattr(self.block.flags, "bare", False)  # noqa: B010
        return y


class ByATable(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.table["bare"] = True
        y = self.block(x)
        self.block.table.clear()
        return y


class ByItsOwnTable(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.note(on=True)
        y = self.block(x)
        self.block.note(on=False)
        return y


class ByItsOwnObject(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.turn(on=True)
        y = self.block(x)
        self.block.turn(on=False)
        return y


class ByAGlobalTable(Taps):
    def tap(self, x: Tensor) -> Any:
        TABLE["bare"] = True
        y = self.block(x)
        TABLE.clear()
        return y


class ByAMethodOfAnObject(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.flags.turn(on=True)
        y = self.block(x)
        self.block.flags.turn(on=False)
        return y


class ByAnotherModule(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.register_module("bn", self.none)
        y = self.block(x)
        self.block.register_module("bn", self.norm)
        return y


class ByWeights(Taps):
    def tap(self, x: Tensor) -> Any:
        self.block.load_state_dict(self.states[1])
        y = self.block(x)
        self.block.load_state_dict(self.states[0])
        return y


SET = [
    *(OtherClass, ByAMethodThatSets, ByAnObjectThatIsSet, ByASetter),
    *(ByATextThatIsSet, ByATable, ByAMethodOfAnObject, ByItsOwnTable, ByItsOwnObject, ByAGlobalTable),
]


@pytest.mark.parametrize("cls", SET)
def test_a_child_that_may_be_switched_stays(cls: type[Model]) -> None:
    assert_stays(trained(cls(block=Child(**layers()))), ["block.bn"])


@pytest.mark.parametrize("cls", [ByAnotherModule, ByWeights])
def test_a_child_whose_contents_are_exchanged_stays(cls: type[Model]) -> None:
    model: Any = trained(cls(block=Child(**layers()), norm=nn.BatchNorm2d(3), none=nn.Identity()))
    state = model.block.state_dict()
    model.states = [{name: value.clone() * scale for name, value in state.items()} for scale in (1, 2)]
    fused = fx_fuse(model)
    assert_right(model, fused, [values(2, 3, 6, 6)])
    assert not folds(fused)
