"""Builds a random model step by step, each for the values that there are; what does not fit is left out."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.fuzz.fitting import fitting
from tests.fuzz.nets import STYLES, Branching, Call, Handing, Net
from tests.fuzz.pieces import PIECES, DoesNotFit
from tests.fuzz.rows import ROWS
from tests.operators.calls import Function, Joined, Method, Pair, Single
from tests.support.helpers import _train_norm
from tests.support.samples import randn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.recipes import Recipe, Step
    from tests.operators.sample import Sample

LARGEST = 2000  # elements of a value
REFUSED = (RuntimeError, ValueError, IndexError, TypeError, DoesNotFit, AssertionError, NotImplementedError)
"""What torch and the steps raise for a value that is of no use to them."""


@dataclass(frozen=True)
class Built:
    """A model in evaluation mode but for its marks, an input, and the rounding of the narrowest dtype in it."""

    model: nn.Module
    x: Tensor
    rounding: float


def built(recipe: Recipe) -> Built:
    """The model that a recipe describes."""
    torch.manual_seed(0)
    x = randn(*recipe.shape, seed=len(recipe.steps))
    with torch.no_grad(), watched_dtypes() as dtypes:
        model, _ = _net(recipe.steps, recipe.style, recipe.outputs, x)
    return Built(model, x, max(torch.finfo(dtype).eps for dtype in dtypes))


_DTYPES: set[torch.dtype] = set()


@contextlib.contextmanager
def watched_dtypes() -> Iterator[set[torch.dtype]]:
    """Collects the dtypes of all values that are made inside of the block."""
    _DTYPES.clear()
    _DTYPES.add(torch.float64)
    yield _DTYPES


def _net(steps: tuple[Step, ...], style: str, outputs: Any, x: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """A module of some steps, and what it gives."""
    around = {"branching": Branching, "handing": Handing}.get(style)
    net = STYLES["plain" if around is not None else style](outputs)
    net.axes = x.ndim
    builder = Builder(net, [x.clone()])
    for number, step in enumerate(steps):
        builder.add(f"{step.kind.rpartition('.')[-1].strip('_')}{number}", step)
    read = {number for call in net.calls for number in call.inputs}
    unread = [number for number in range(len(builder.values)) if number not in read]
    last = len(builder.values) - 1
    net.returned = [last] if outputs == "last" else unread or [last]
    model = net if around is None else around(net)
    model.training = net.training = False
    return model, [builder.values[number] for number in net.returned]


@dataclass
class Builder:
    """A net that grows, and the values that it has so far.

    Attributes:
        called: the children that a later step may call again, with what they were called with.
    """

    net: Net
    values: list[Tensor]
    called: list[tuple[Call, list[Tensor]]] = field(default_factory=list)

    def add(self, name: str, step: Step) -> None:
        """Add the calls of a step, or nothing where they do not fit."""
        found, calls = len(self.values), len(self.net.calls)
        try:
            self._add(name, step)
        except REFUSED:
            del self.values[found:], self.net.calls[calls:]
            used = {call.child for call in self.net.calls}
            for child in [child for child in self.net._modules if child not in used]:
                delattr(self.net, child)
            self.called = [entry for entry in self.called if entry[0].child in used]

    def _add(self, name: str, step: Step) -> None:
        first = len(self.values) - 1 - step.first % len(self.values)
        second = len(self.values) - 1 - step.second % len(self.values)
        if step.kind == "again":
            self._again(name, step, first)
        elif step.kind == "block":
            module, given = _net(step.inner, step.style, "unread", self.values[first])
            self._call(name, step, module, (first,), gives=len(given))
        elif step.kind in PIECES:
            self._piece(name, step, first, second)
        else:
            self._row(name, step, first, second)

    def _piece(self, name: str, step: Step, first: int, second: int) -> None:
        piece, value = PIECES[step.kind], self.values[first]
        module = _eval(piece.make(value, step.number))
        keeps = step.kind == "norm" and value.dtype in (torch.half, torch.bfloat16) and step.number % 2
        module = module.to(torch.float if keeps else value.dtype)
        inputs = (first,) if piece.reads == 1 else (first, self._fitted(name, second, tuple(value.shape)))
        self._call(name, step, module, inputs, gives=piece.gives)

    def _row(self, name: str, step: Step, first: int, second: int) -> None:
        """A sample of a row, of the value as it is, or, where that cannot be, of one that is made to fit."""
        samples = ROWS[step.kind]
        sample = samples[step.number % len(samples)]
        module = copy.deepcopy(sample.model)
        numbers = [first, second, first][: 1 + len(sample.others)]
        if step.number % 4 and _is_checked(sample) and self._works(module, [self.values[number] for number in numbers]):
            self._call(name, step, module, tuple(numbers))
            return
        inputs = tuple(
            self._fitted(f"{name}_{number}", value, tuple(other.shape), other.dtype)
            for number, (value, other) in enumerate(zip(numbers, sample.inputs, strict=True))
        )
        self._call(name, step, module, inputs)

    def _works(self, module: nn.Module, values: list[Tensor]) -> bool:
        try:
            result = module(*[value.clone() for value in values])
        except REFUSED:
            return False
        return isinstance(result, Tensor) and result.is_floating_point() and 0 < result.numel() <= 4 * LARGEST

    def _again(self, name: str, step: Step, first: int) -> None:
        """Call an earlier child again, with another value and for the rest what it was called with."""
        if not self.called:
            raise DoesNotFit
        call, given = self.called[-1 - step.number % len(self.called)]
        inputs = (self._fitted(name, first, tuple(given[0].shape), given[0].dtype), *call.inputs[1:])
        self._run(Call(call.child, inputs, call.gives))

    def _fitted(self, name: str, number: int, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> int:
        """The number of a value that is made to fit a shape and a dtype."""
        for count, module in enumerate(fitting(self.values[number], shape, dtype or self.values[number].dtype)):
            child = f"{name}_to{count}"
            self.net.add_module(child, module.eval())
            self._run(Call(child, (number,)))
            number = len(self.values) - 1
        return number

    def _call(self, name: str, step: Step, module: nn.Module, inputs: tuple[int, ...], gives: int = 1) -> None:
        for mark in step.marks:
            MARKED[mark](self.net, module, gives)
        self.net.add_module(name, module)
        given = [self.values[number].clone() for number in inputs]
        call = Call(name, inputs, gives)
        self._run(call)
        self.called.append((call, given))
        if gives == 1 and self.values[-1].numel() > LARGEST:
            self._fitted(f"{name}_less", len(self.values) - 1, tuple(min(s, 3) for s in self.values[-1].shape))

    def _run(self, call: Call) -> None:
        result = getattr(self.net, call.child)(*(self.values[number] for number in call.inputs))
        results = [result] if call.gives == 1 else [result[number] for number in range(call.gives)]
        if not all(isinstance(r, Tensor) and r.is_floating_point() and 0 < r.numel() < 50 * LARGEST for r in results):
            raise DoesNotFit
        self.net.calls.append(call)
        self.values += results
        _DTYPES.update(r.dtype for r in results)


def _is_checked(sample: Sample) -> bool:
    """Whether torch checks what it is called with; overloads may read past the end of a weight."""
    return (
        sample.role in ("Carrier", "Parts", "Join", "Sum")
        and isinstance(sample.model, (Single, Function, Method, Pair, Joined))
        and not isinstance(sample.target, torch._ops.OpOverload)
    )


def _eval(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with norms far from fresh ones."""
    for inner in module.double().eval().modules():
        if isinstance(getattr(inner, "running_var", None), Tensor):
            _train_norm(inner)
    return module


def _tie(net: nn.Module, module: nn.Module, gives: int) -> None:
    """Let it share parameters with earlier ones of the same shape."""
    del gives
    earlier = {(p.shape, p.dtype): p for p in net.parameters()}
    for owner in module.modules():
        for name, value in list(owner.named_parameters(recurse=False)):
            if (value.shape, value.dtype) in earlier:
                setattr(owner, name, earlier[value.shape, value.dtype])


def _hook(_net: nn.Module, module: nn.Module, gives: int) -> None:
    if gives == 1:
        module.register_forward_hook(doubled)


def _watch(_net: nn.Module, module: nn.Module, gives: int) -> None:
    del gives
    module.register_forward_pre_hook(watching)


def _train(_net: nn.Module, module: nn.Module, gives: int) -> None:
    del gives
    module.train()


def _parametrize(_net: nn.Module, module: nn.Module, gives: int) -> None:
    del gives
    if isinstance(module, torch.jit.ScriptModule):
        return
    weight = module._parameters.get("weight")
    if weight is not None and weight.ndim > 1:
        parametrizations.weight_norm(module)


def doubled(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """A hook that changes what a layer gives."""
    return output * 2


def watching(_module: nn.Module, _args: Any) -> None:
    """A hook that changes nothing."""


MARKED: dict[str, Any] = {
    "tied": _tie,
    "hooked": _hook,
    "watched": _watch,
    "training": _train,
    "parametrized": _parametrize,
}
