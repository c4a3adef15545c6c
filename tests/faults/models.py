"""One model on which every rule finds something to do, and a second that can be traced only in parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse.rules import DEFAULT_RULES, Rule
from tests.support.helpers import Model, trained, values
from tests.support.samples import parameter

RULES: tuple[Rule | str, ...] = (*DEFAULT_RULES, "stack_parallel")
IMAGE = (2, 3, 8, 8)


class Everything(Model):
    """A line for each rule."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.drop(self.conv1(x))))  # upstream, past something that does nothing
        y = torch.relu(self.conv2(self.bn2(torch.relu(y).sin())))  # downstream
        y = torch.relu(self.left(y) + self.bn3(self.right(y)))  # branches
        y = torch.relu(self.after(self.before(y)))  # a chain
        y = torch.relu(torch.cat([self.one(y), self.two(y)], 1))  # a concatenation
        y = torch.relu(F.conv2d(y, self.weight) * self.gain)  # a function of parameters
        y = torch.relu(F.conv2d(y, self.computed - self.computed.mean()))  # a weight that is always the same
        y = torch.relu(self.bn4(self.twice(y))) + torch.relu(self.bn5(self.twice(y.sin())))  # a copy
        z = self.norm(self.bn6(self.head(y.mean((2, 3)))).relu())  # with a check of the axes
        return torch.cat([self.q(z), self.k(z).sin() + torch.tensor(0.5), self.v(z).cos()], 1)  # parallel layers


def everything() -> Everything:
    """A model with numbers far from fresh ones, the same every time."""
    torch.manual_seed(0)
    convolutions = {
        "conv1": nn.Conv2d(3, 4, 3),
        "conv2": nn.Conv2d(4, 4, 1, bias=False),
        "left": nn.Conv2d(4, 4, 3, padding=1),
        "right": nn.Conv2d(4, 4, 1),
        "before": nn.Conv2d(4, 4, 1),
        "after": nn.Conv2d(4, 4, 3),
        "one": nn.Conv2d(4, 2, 1),
        "two": nn.Conv2d(4, 2, 1),
        "twice": nn.Conv2d(4, 4, 1),
    }
    norms = {f"bn{number}": nn.BatchNorm2d(4) for number in range(1, 6)} | {"bn6": nn.BatchNorm1d(4)}
    tail = {"head": nn.Linear(4, 4), "norm": nn.LayerNorm(4), **{name: nn.Linear(4, 3) for name in "qkv"}}
    constants = {"weight": parameter(4, 4, 1, 1), "computed": parameter(4, 4, 1, 1), "gain": values(4, 1, 1) + 3}
    model = trained(Everything(**convolutions, **norms, **tail, **constants, drop=nn.Dropout()))
    model.norm.weight.data = values(4) + 2
    return model


class Padded(Model):
    """Cannot be traced, but its source says that the norm always follows the convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if int(x.shape[-1]) % 2:
            x = F.pad(x, (0, 1))
        return self.bn(self.conv(x))


class Parts(Model):
    """Cannot be traced as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.sum() > 1e9:
            y = -y
        return torch.cat([y, self.padded(x).mean((2, 3))], 1)


def parts() -> Parts:
    """The model with everything, in one that branches on a value, and beside a part that only a run can capture."""
    torch.manual_seed(1)
    padded = Padded(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4))
    return Parts(body=everything(), padded=trained(padded)).eval()
