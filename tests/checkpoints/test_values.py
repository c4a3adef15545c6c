"""Whatever the values of two models are: refold gives what fusing again gives, or says to fuse again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import export

from fxfuse import FuseError, fx_fuse, refold
from tests.checkpoints.models import IMAGE, MODELS, Pooled, conv, norm
from tests.checkpoints.test_refold import assert_identical, state_of
from tests.support.helpers import Model, trained, values

if TYPE_CHECKING:
    from collections.abc import Callable


class Back(Model):
    """A scale that passes a ReLU if it is positive."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) * self.gain


class Padded(Model):
    """A scale that leaves the number that is padded as it is, if it is one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.conv(x), (1, 1), value=1.0) * self.gain


class Shuffled(Model):
    """A norm before a pixel shuffle, which passes if the four channels of a pixel have the same."""

    def forward(self, x: Tensor) -> Tensor:
        return self.next(F.pixel_shuffle(self.norm(F.gelu(x)), 2))


class Twice(Model):
    """A layer that is called twice, with results that may be equal by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) * self.gain) + torch.sigmoid(self.conv(x) * self.gain * self.gain)


def gain() -> nn.Parameter:
    return nn.Parameter(torch.ones(4, 1, 1))


BY_VALUES: dict[str, Callable[[], nn.Module]] = {
    "pool": lambda: Pooled(conv=conv(), pool=nn.MaxPool2d(2), norm=norm()),
    "back": lambda: Back(gain=gain(), conv=conv()),
    "padded": lambda: Padded(gain=gain(), conv=conv()),
    "shuffled": lambda: Shuffled(norm=norm(), next=nn.Conv2d(1, 4, 1)),
    "twice": lambda: Twice(gain=gain(), conv=conv()),
}
NORMS: tuple[dict[str, float], ...] = (
    {"running_mean": 0, "running_var": 1, "weight": 1, "bias": 0},
    {"weight": 0},
    {"weight": -1},
    {"weight": 0, "bias": 0},
    {"bias": 0, "running_mean": 0},
    {"running_mean": 0, "running_var": 1 - 1e-5, "weight": 1, "bias": 0},  # exactly the identity
    {"running_var": 0},
    {},
)


def drawn(factory: Callable[[], nn.Module], draw: random.Random) -> nn.Module:
    """A model of which the norms and gains have some values of their own, or none."""
    torch.manual_seed(draw.randrange(1 << 30))
    model = trained(factory())
    with torch.no_grad():
        for module in model.modules():
            for name, value in draw.choice(NORMS).items():
                tensor = {**module._parameters, **module._buffers}.get(name)
                if tensor is not None and not isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
                    tensor.fill_(value)
        for name, tensor in model.named_parameters():
            if name == "gain":
                tensor.fill_(draw.choice((0.0, 1.0, -2.0))) if draw.random() < 0.7 else tensor.normal_()
    return model


def fused_as(form: str, model: nn.Module) -> Any:
    x = values(*IMAGE)
    if form == "program":
        return fx_fuse(export(model, (x,)))
    if form == "inputs":
        return fx_fuse(model, x)
    return fx_fuse(model, structure="graph" if form == "graph" else "module")


@pytest.mark.parametrize("form", ["graph", "module", "inputs", "program"])
@pytest.mark.parametrize("name", [*MODELS, *BY_VALUES])
def test_values_of_all_kinds(name: str, form: str) -> None:
    draw = random.Random(name + form)  # noqa: S311 - the same every time
    factory = {**MODELS, **BY_VALUES}[name]
    met = set[bool]()
    for _ in range(16 if form == "graph" else 3):
        first, second = drawn(factory, draw), drawn(factory, draw)
        given, again = fused_as(form, first), fused_as(form, second)
        before = {key: tensor.clone() for key, tensor in state_of(given).items()}
        if name not in BY_VALUES:
            assert list(before) == list(state_of(again))  # names never go by values
        told = ""
        try:
            refold(given, second.state_dict())
        except FuseError as error:
            told = str(error)
        if told:
            assert "would fold in another way" in told
            assert name in BY_VALUES
            assert all(torch.equal(tensor, before[key]) for key, tensor in state_of(given).items())
        else:
            assert_identical(given, again)
        met.add(bool(told))
    if form == "graph":
        assert met == ({True, False} if name in BY_VALUES else {False})
