"""What `comparison.py` counts and compares."""

# ruff: noqa: INP001 - beside a script, and no package

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fxfuse.modules.comparison import leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Tensor], Any]

ARITHMETIC = ("mul", "add", "sub", "div", "rsub")
# Where the weight of a norm without statistics stands among its arguments.
WEIGHT = {"layer_norm": 2, "native_layer_norm": 2}


# Below these an error is rounding; a wrong fold is off by more than a tenth here.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2}


class Work(NamedTuple):
    """Batch norms that run; and with them multiplications, additions, and other norms with a weight."""

    norms: int
    total: int


def outputs(run: Run, x: Tensor) -> list[Tensor]:
    """The tensors that come out."""
    with torch.no_grad():
        return [value.double() for value in leaves(run(x.clone())) if isinstance(value, Tensor)]


def error(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference of any output, relative to its largest number; infinite where shapes differ."""
    if [one.shape for one in expected] != [other.shape for other in given]:
        return math.inf
    return max(float((one - other).abs().max() / one.abs().max()) for one, other in zip(expected, given, strict=True))


def count(run: Run, x: Tensor) -> Work:
    """What runs, at the dispatcher: modules, functions and exported graphs are counted alike."""
    counter = _Counter(x)
    run = copy.deepcopy(run)
    with torch.no_grad(), counter:
        run(x)
    return Work(counter.norms, counter.total)


class _Counter(TorchDispatchMode):
    """Counts what is computed from the input, and not from constants alone."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norms = 0
        self.total = 0
        self.moving = {id(x): x}  # kept alive, so that no other tensor gets its number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(id(value) in self.moving for value in tree_leaves((args, kwargs))):
            self.moving.update((id(value), value) for value in tree_leaves(made))
            self._add(func.overloadpacket.__name__, args)
        return made

    def _add(self, name: str, args: Any) -> None:
        where = WEIGHT.get(name)
        self.norms += "batch_norm" in name
        weighs = where is not None and len(args) > where and args[where] is not None
        self.total += "batch_norm" in name or name.rstrip("_") in ARITHMETIC or weighs
