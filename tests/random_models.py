"""Random models of one shape of image: every value can be read again, every layer be called again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers import trained, values
from tests.random_carriers import CARRIERS

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 4
INPUT = (2, WIDTH, 5, 5)


# -- layers


class Block(nn.Module):
    """A forward of its own, with a change in place behind the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y += x
        return F.relu_(y)


class Flagged(Block):
    """An optional argument decides whether the norm is called."""

    def forward(self, x: Tensor, raw: bool = False) -> Tensor:
        y: Tensor = self.conv(x)
        if raw:
            return y
        z: Tensor = self.bn(y)
        return z


class Branching(nn.Module):
    """Cannot be traced, but what it calls can."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x) if x.sum() > 0 else self.inner(-x)
        return y


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
    "depthwise": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
    "transposed": lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1, groups=2),
    "norm": lambda: nn.BatchNorm2d(WIDTH),
    "relu": lambda: nn.ReLU(inplace=True),
    "identity": nn.Identity,
    "dropout": nn.Dropout,
    "block": Block,
    "flagged": Flagged,
    "branching": Branching,
}


TWO_VALUES = ("add", "iadd", "cat")


# -- a model is a list of steps, each of which makes a value from earlier ones


@dataclass(frozen=True)
class Step:
    """What is done: the layer or function, which one of several, and to which values."""

    kind: str
    number: int = 0
    first: int = 9
    second: int = 0

    def picked(self, count: int) -> tuple[int, ...]:
        """The numbers of the values it reads, of so many; the first is the latest but for one time in three."""
        first = count - 1 if self.first > 2 else self.first % count
        return (first, self.second % count) if self.kind in TWO_VALUES else (first,)

    def pick(self, found: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Two values, of which most steps read only the first."""
        numbers = self.picked(len(found))
        return found[numbers[0]], found[numbers[-1]]


@dataclass(frozen=True)
class Shape:
    """What a random model consists of.

    Attributes:
        steps: what its forward does.
        outputs: how many of the last values it returns.
        root: "plain", "optional" (an argument that leaves out the norms) or "branching" (cannot be traced).
        tied: whether the convolutions share one weight.
        hooked: the number of a layer with a hook, if there are so many.
    """

    steps: tuple[Step, ...]
    outputs: int
    root: str
    tied: bool
    hooked: int

    def build(self) -> Net:
        """The model, with the same numbers every time."""
        torch.manual_seed(len(self.steps))
        return trained(ROOTS[self.root](self))


NUMBER, ANY = st.integers(0, 2), st.integers(0, 9)
FUNCTIONS = "f.conv f.norm f.relu f.scale f.shift f.dropout add cat iadd relu_".split()
SINGLE = st.builds(Step, st.sampled_from([*LAYERS, *FUNCTIONS]), NUMBER, ANY, ANY).map(lambda step: (step,))
# A convolution with a norm behind it, so that folds are common.
PAIR = st.builds(
    lambda conv, norm, one, other, first: (Step(conv, one, first), Step(norm, other)),
    st.sampled_from(["conv", "conv", "depthwise", "f.conv"]),
    st.sampled_from(["norm", "norm", "f.norm", "f.scale"]),
    NUMBER,
    NUMBER,
    ANY,
)


def shapes(steps: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[Shape]:
    """Models of such steps."""
    return st.builds(
        Shape,
        st.lists(steps, min_size=2, max_size=7).map(lambda parts: sum(parts, ())),
        st.integers(1, 2),
        st.sampled_from(["plain", "plain", "optional", "branching"]),
        st.booleans(),
        st.integers(0, 12),
    )


SHAPES = shapes(st.one_of(PAIR, SINGLE))


class Net(nn.Module):
    """A model of which the forward follows a list of steps."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.steps, self.outputs = shape.steps, shape.outputs
        used = dict.fromkeys(f"{step.kind}{step.number}" for step in shape.steps if step.kind in LAYERS)
        self.layers = nn.ModuleDict({name: LAYERS[name[:-1]]() for name in used})
        for number in range(3):
            self.register_parameter(f"weight{number}", nn.Parameter(values(WIDTH, WIDTH, 1, 1)))
            self.register_buffer(f"mean{number}", values(WIDTH))
            self.register_buffer(f"var{number}", values(WIDTH).exp())
            self.register_parameter(f"gain{number}", nn.Parameter(values(WIDTH, 1, 1)))
        if shape.tied:
            self._tie()
        for layer in list(self.layers.values())[shape.hooked : shape.hooked + 1]:
            layer.register_forward_hook(doubled)

    def _tie(self) -> None:
        convolutions = [layer for name, layer in self.layers.items() if name.startswith("conv")]
        for layer in convolutions[1:]:
            layer.weight = convolutions[0].weight
        self.weight1 = self.weight0

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run(x, norms=True)

    def run(self, x: Tensor, *, norms: bool) -> tuple[Tensor, ...]:
        found = [x]
        for step in self.steps:
            if norms or step.kind != "norm":
                found.append(self._step(step, *step.pick(found)))
        return tuple(found[-self.outputs :])

    def _step(self, step: Step, x: Tensor, other: Tensor) -> Tensor:
        if step.kind == "flagged":
            flagged: Tensor = self.layers[f"flagged{step.number}"](x, step.second > 4)
            return flagged
        if step.kind in LAYERS:
            called: Tensor = self.layers[f"{step.kind}{step.number}"](x)
            return called
        if step.kind.startswith(("f.", "c.")):
            return self._function(step, x)
        if step.kind == "relu_":
            return x.relu_()
        if step.kind == "iadd":
            x += other
            return x
        return x + other if step.kind == "add" else torch.cat([x, other], 2)[:, :, : x.shape[2]]

    def _function(self, step: Step, x: Tensor) -> Tensor:
        weight, gain, mean, var = (getattr(self, f"{n}{step.number}") for n in ("weight", "gain", "mean", "var"))
        if step.kind in CARRIERS:
            return CARRIERS[step.kind](x, weight[:, :, 0, 0], gain[:, 0, 0])
        functions: dict[str, Callable[[], Tensor]] = {
            "f.conv": lambda: F.conv2d(x, weight),
            "f.norm": lambda: F.batch_norm(x, mean, var),
            "f.relu": lambda: F.relu(x),
            "f.scale": lambda: x * gain,
            "f.shift": lambda: 1 - x + gain,
            "f.dropout": lambda: F.dropout(x, 0.5, self.training),
        }
        return functions[step.kind]()


class OptionalNet(Net):
    """Called with an argument that leaves out the norms, it gives something else."""

    def forward(self, x: Tensor, plain: bool = False) -> tuple[Tensor, ...]:
        return self.run(x, norms=not plain)


class BranchingNet(Net):
    """Cannot be traced as a whole."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run(x if x.sum() > -1e9 else -x, norms=True)


ROOTS = {"plain": Net, "optional": OptionalNet, "branching": BranchingNet}


def doubled(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """A hook that changes what a layer gives."""
    return output * 2
