"""The modules that random models consist of: each calls its children in a listed order, on listed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fxfuse.modules.guards import require_rank


@dataclass(frozen=True)
class Call:
    """A child, the numbers of the values that it is called with, and how many values it gives."""

    child: str
    inputs: tuple[int, ...]
    gives: int = 1


class Net(nn.Module):
    """Calls one child after the other, and returns some of the values.

    Attributes:
        calls: what is called with what; a child may be called again.
        returned: the numbers of the values that are returned.
        outputs: in which form.
        axes: how many axes its first input has.
    """

    def __init__(self, outputs: Literal["unread", "last", "dict", "nested"] = "unread") -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.axes = 0
        self.returned: list[int] = []
        self.outputs = outputs

    def _run(self, *inputs: Tensor) -> Any:
        found: list[Any] = list(inputs)
        for call in self.calls:
            result = getattr(self, call.child)(*(found[number] for number in call.inputs))
            found += [result] if call.gives == 1 else [result[number] for number in range(call.gives)]
        return self.formed([found[number] for number in self.returned])

    def formed(self, values: list[Any]) -> Any:
        if self.outputs == "dict":
            return {f"value{number}": value for number, value in enumerate(values)}
        if self.outputs == "nested":
            return [values[0], tuple(values[1:])]
        return values[0] if len(values) == 1 else tuple(values)


class Plain(Net):
    """Has one input, as most models do."""

    def forward(self, x: Tensor) -> Any:
        return self._run(x)


class Proven(Plain):
    """Checks the number of axes of its input, which proves it to a plain trace."""

    def forward(self, x: Tensor) -> Any:
        return self._run(require_rank(x, self.axes, "the input"))


class Optional(Plain):
    """With an argument that is never passed it does something else."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Any:
        if extra is not None:
            x = x + extra
        return self._run(x)


class Asking(Plain):
    """Asks for the shape of its input."""

    def forward(self, x: Tensor) -> Any:
        assert x.ndim > 0
        if x.shape[0] > 1000:
            x = x[:1000]
        return self._run(x)


class Branching(nn.Module):
    """Cannot be traced, but what it calls can."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) if x.sum() < 1e300 else self.inner(-x)


class Direct(Plain):
    """Cannot be traced, and calls everything itself."""

    def forward(self, x: Tensor) -> Any:
        if x.sum() > 1e300:
            x = -x
        return self._run(x)


class Idle(Plain):
    """Branches on a value, and does the same either way."""

    def forward(self, x: Tensor) -> Any:
        if x.is_cuda and self.axes > 100:
            x = -x
        return self._run(x)


class Region(Plain):
    """Runs in a mode of its own: a region of an exported program, and no trace can say it."""

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return self._run(x)


class Chunks(Plain):
    """Goes through parts of its input, which are put together again."""

    def forward(self, x: Tensor) -> Any:
        return self._run(torch.cat([*x.chunk(2, -1)], -1))


class Handing(nn.Module):
    """Cannot be traced, and gives what it calls to functions that call it, by a slice or a computed name."""

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.layers = nn.ModuleList([inner])
        self.layer0 = inner

    def forward(self, x: Tensor) -> Any:
        if x.sum() > 1e300:
            x = -x
        if x.shape[0] % 2:
            return getattr(self, f"layer{x.shape[0] % 1}")(x)
        for layer in self.layers[:1]:
            found = checkpoint(layer, x, use_reentrant=False) if x.shape[-1] > 5 else run(layer, x)
        return found


def run(layer: Any, x: Tensor) -> Any:
    return layer(x)


STYLES: dict[str, type[Net]] = {
    "plain": Plain,
    "proven": Proven,
    "optional": Optional,
    "asking": Asking,
    "direct": Direct,
    "idle": Idle,
    "region": Region,
    "chunks": Chunks,
}
UNTRACEABLE = ("branching", "direct", "region", "handing")
