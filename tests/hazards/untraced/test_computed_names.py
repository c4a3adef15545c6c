"""Hazard 35: untraced code calls what it gets by a name that it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from tests.hazards.blocks import Block, assert_decided, assert_stays, batch_of, block, layers
from tests.support.helpers import Model, trained

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls(Model):
    def forward(self, x: Tensor) -> Any:
        return self.run(self.first(x) * batch_of(x))

    def run(self, x: Tensor) -> Any:
        raise NotImplementedError


def in_a_loop(self: Any, x: Any) -> Any:
    for number in range(2):
        layer = getattr(self, f"stage{number}")
        x = layer(x)
    return x


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "in a loop": in_a_loop,
    "a sum": lambda self, x: sum(getattr(self, "stage" + str(number))(x) for number in range(2)),
    "a format": lambda self, x: [getattr(self, "stage%d" % number)(x) for number in range(2)],  # noqa: UP031
    "several parts": lambda self, x: getattr(self, f"stag{'e'}{x.shape[1] - 3}")(x),
    "with an end": lambda self, x: getattr(self, "stag" + "{}".format("e") + "0")(x),
}


def model_of(run: Any, cls: type[Calls] = Calls, **others: Any) -> Any:
    kind = type("Computing", (cls,), {"run": run, "__module__": __name__})
    return trained(kind(first=block(), stage0=block(), stage1=block(), **others))


@pytest.mark.parametrize("run", CALLS.values(), ids=CALLS)
def test_what_is_only_called_by_a_name_with_a_beginning_folds(run: Any) -> None:
    assert_decided(model_of(run), folded=["first.bn", "stage0.bn", "stage1.bn"])
    assert_decided(model_of(run), folded=["first.bn", "stage0.bn", "stage1.bn"], structure="module")


def by_a_part_of_a_text(self: Any, x: Any) -> Any:
    return getattr(self, f"stage0{x.shape[0]}"[:6])(x)


OPENS: dict[str, Callable[[Any, Any], Any]] = {
    "a name without a beginning": lambda self, x: getattr(self, f"{self.names[x.shape[1] - 3]}")(x),
    "a part of a text": by_a_part_of_a_text,
    "a text several times": lambda self, x: getattr(self, "stage0" * (x.shape[1] // 3))(x),
    "torch's own names": lambda self, x: next(iter(getattr(self, f"ch{'ildren'}")())).conv(x),
    "a layer of it": lambda self, x: getattr(self, f"stage{x.shape[1] - 3}").conv(x),
    "under two names": lambda self, x: [layer := getattr(self, f"stage{x.shape[1] - 3}"), layer.conv(x)][1],
    "a method": lambda self, x: getattr(self, f"step_{'taps'}")(x),
    "a property": lambda self, x: getattr(self, f"part_{'layer'}")(x),
    "a function that it holds": lambda self, x: getattr(self, f"held_{'one'}")(x),
    "of a block": lambda self, x: getattr(self.stage0, f"co{'nv'}")(x),
    "with a default": lambda self, x: getattr(self, f"unknown{x.shape[1]}", self.stage0.conv)(x),
}


class Taps(Calls):
    names = ("stage0", "stage1")

    def step_taps(self, x: Tensor) -> Any:
        return self.stage0.conv(x)

    @property
    def part_layer(self) -> Any:
        return self.stage0.conv


@pytest.mark.parametrize("run", OPENS.values(), ids=OPENS)
def test_what_may_be_opened_by_a_name_stays(run: Any) -> None:
    model = model_of(run, Taps)
    model.held_one = held = torch.vmap(model.stage0.conv)
    assert callable(held)
    assert_stays(model, ["stage0.bn"])


class Parts(Model):
    def forward(self, x: Tensor) -> Any:
        for number in range(1 + batch_of(x) // 4):
            x = getattr(self, f"layer{number}")(x)
        return x


def test_layers_with_such_names_are_called_by_themselves() -> None:
    conv, bn = layers().values()
    assert_stays(trained(Parts(layer0=conv, layer1=bn)), ["layer1"])


class Child(Block):
    def forward(self, x: Tensor) -> Any:
        return getattr(self, f"co{'nv'}")(x) + self.bn(self.conv(x)) * batch_of(x)


class Outer(Calls):
    def run(self, x: Tensor) -> Any:
        return self.child(x)


def test_a_module_inside_may_do_so() -> None:
    assert_stays(trained(Outer(first=block(), child=Child(**layers()))), ["child.bn"])
