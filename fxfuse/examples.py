"""Example inputs: running a model on them without leaving a trace, and comparing what comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse.report import FuseError
from fxfuse.tracer import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What the rounding of a deep model in each dtype can make of an exact fold, relative to the largest output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @staticmethod
    def of(example_inputs: Any) -> Inputs:  # noqa: ANN401 - whatever the model takes
        """Read what users pass: a tuple is positional arguments, a mapping keywords, the rest one argument."""
        if isinstance(example_inputs, tuple):
            return Inputs(example_inputs, {})
        if isinstance(example_inputs, Mapping):
            return Inputs((), dict(example_inputs))
        return Inputs((example_inputs,), {})

    def call(self, module: nn.Module) -> Any:  # noqa: ANN401 - whatever the model returns
        """Call a module with copies of the arguments, without gradients."""
        copied = self.copied()
        with torch.no_grad():
            return module(*copied.args, **copied.kwargs)

    def copied(self) -> Inputs:
        """Return the same call with copies of the tensors, which a model may change in place."""
        return Inputs(*pytree.tree_map(_copied, (self.args, dict(self.kwargs))))

    def bound(self, module: nn.Module) -> dict[str, Any]:
        """Return the values that the call binds to the parameters of ``forward``, defaults left out."""
        signature = inspect.signature(type(module).forward)
        return dict(list(signature.bind(module, *self.args, **self.kwargs).arguments.items())[1:])


def _copied(value: Any) -> Any:  # noqa: ANN401 - leaves of any type
    return value.clone() if isinstance(value, Tensor) else value


def reference(model: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401 - whatever the model returns
    """Return what the model gives, with the model as it was.

    Raises:
        FuseError: if the model raises.
    """
    try:
        with untouched(model):
            return inputs.call(model)
    except Exception as error:
        raise FuseError(
            f"{type(model).__name__} raises on the example inputs by itself ({type(error).__name__}: {error}), so nothing "
            "was changed. Pass inputs that the model accepts: a tuple of positional arguments, or a dict of keywords."
        ) from error


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put buffers, attributes and random generators back to what they were before a run."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    states = [State(module) for module in model.modules()]
    try:
        yield
    finally:
        for state in reversed(states):
            state.restore()
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def recorded(model: nn.Module, modules: Iterable[nn.Module], inputs: Inputs) -> dict[nn.Module, list[Inputs]]:
    """Run the model, and return what each of some modules was called with."""
    seen: dict[nn.Module, list[Inputs]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(module, []).append(Inputs(args, kwargs).copied())

    with untouched(model), contextlib.ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        inputs.call(model)
    return seen


def difference(one: Any, other: Any) -> float:  # noqa: ANN401 - whatever models return
    """Return the largest relative difference of two outputs, infinite where their structure differs."""
    firsts, seconds = leaves(one), leaves(other)
    if len(firsts) != len(seconds):
        return float("inf")
    return max((_gap(a, b) for a, b in zip(firsts, seconds, strict=True)), default=0.0)


def agree(expected: Any, given: Any) -> bool:  # noqa: ANN401 - whatever models return
    """Whether two outputs are the same but for rounding."""
    dtypes = [leaf.dtype for leaf in leaves(expected) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    tolerance = max((TOLERANCE.get(dtype, 1e-3) for dtype in dtypes), default=0.0)
    return difference(expected, given) <= tolerance


def leaves(output: Any) -> list[Any]:  # noqa: ANN401 - whatever models return
    """Return the tensors and plain values of an output, in order; dataclasses are opened too."""
    found: list[Any] = []
    for leaf in pytree.tree_leaves(output):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += leaves([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])
        elif isinstance(leaf, Mapping):
            found += leaves(list(leaf.values()))
        else:
            found.append(leaf)
    return found


def _gap(one: Any, other: Any) -> float:  # noqa: ANN401 - leaves of any type
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        same = type(one) is type(other) and (not isinstance(one, (int, float, str, bool)) or one == other)
        return 0.0 if same else float("inf")
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if not one.numel():
        return 0.0
    if not one.is_floating_point() and not one.is_complex():
        return 0.0 if torch.equal(one, other) else float("inf")
    wide = torch.complex128 if one.is_complex() else torch.float64
    a, b = one.detach().to(wide), other.detach().to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, torch.zeros_like(a), a - b).abs().max()
    scale = a.abs().nan_to_num(0.0, 0.0, 0.0).max().clamp_min(torch.finfo(torch.float64).tiny)
    ratio = (gap / scale).item()
    return ratio if ratio == ratio else float("inf")  # noqa: PLR0124 - NaN is not itself
