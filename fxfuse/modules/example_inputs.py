"""Example inputs: running a model on them without leaving a trace, and comparing what comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from fxfuse.modules.lookup import tensor_paths
from fxfuse.modules.mutable_state import State, unwritten
from fxfuse.report.errors import FuseError, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# What the rounding of a deep model in each dtype can make of an exact fold, relative to the largest output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Inputs:
    """The arguments of one call.

    Example:
        >>> import torch
        >>> from fxfuse import Inputs, explain
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8)).eval()
        >>> explain(model, [Inputs(torch.randn(2, 4)), Inputs(input=torch.randn(1, 4))]).folded[0].into
        ('0',)

    Attributes:
        args: the positional arguments.
        kwargs: the keyword arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Remember the arguments of a call, as they would be passed to the model."""
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs

    @staticmethod
    def of(example_inputs: Any) -> Inputs:
        """Read what users pass: a tuple is positional arguments, a mapping keywords, the rest one argument."""
        if isinstance(example_inputs, Inputs):
            return example_inputs
        if isinstance(example_inputs, tuple):
            return Inputs(*example_inputs)
        if isinstance(example_inputs, Mapping):
            return Inputs(**example_inputs)
        return Inputs(example_inputs)

    @staticmethod
    def calls_of(example_inputs: Any) -> list[Inputs]:
        """Read one call, or a list of ``Inputs``, which is one call each; any other list is one argument."""
        several = isinstance(example_inputs, list) and example_inputs
        if several and all(isinstance(item, Inputs) for item in example_inputs):
            return list(example_inputs)
        return [Inputs.of(example_inputs)]

    def call(self, module: Callable[..., Any]) -> Any:
        """Call a module with copies of the arguments, without gradients."""
        copied = self.copied()
        with torch.no_grad():
            return module(*copied.args, **copied.kwargs)

    def copied(self) -> Inputs:
        """Return the same call with copies of the tensors, which a model may change in place."""
        args, kwargs = pytree.tree_map(_copied, (self.args, self.kwargs))
        return Inputs(*args, **kwargs)

    def bound(self, module: nn.Module) -> dict[str, Any]:
        """Return the values that the call binds to the parameters of ``forward``, defaults left out."""
        signature = inspect.signature(type(module).forward)
        return dict(list(signature.bind(module, *self.args, **self.kwargs).arguments.items())[1:])


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def reference(model: Callable[..., Any], inputs: Inputs, name: str = "") -> Any:
    """Return what a model gives, with the model as it was.

    Args:
        model: a module, or any callable.
        inputs: the call.
        name: what to call the model where it raises; its class by default.

    Raises:
        FuseError: if the model raises.
    """
    try:
        with untouched(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
            return inputs.call(model)
    except Exception as error:
        raise FuseError(
            f"{name or type(model).__name__} raises on the example inputs by itself ({sentence(error)}), so nothing "
            "was changed. Pass inputs that the model accepts: a tuple of positional arguments, or a dict of keywords."
        ) from error


def amplifies_rounding(model: nn.Module, inputs: Inputs, expected: Any) -> bool:
    """Whether a model gives another result where its inputs and weights change by no more than rounding.

    A model that selects (the best boxes, say) can select others then, so that no comparison of results says anything.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            return value
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return (value.detach() * (1 + 8 * torch.finfo(value.dtype).eps * noise.to(value.device))).to(value.dtype)

    for _ in range(3):
        args, kwargs = pytree.tree_map(moved, (inputs.args, inputs.kwargs))
        weights = {name: moved(tensor) for tensor, name in tensor_paths(model)}
        with untouched(model), torch.no_grad():
            given = functional_call(model, weights, args, kwargs, strict=False)
        if not agree(expected, given, weights.values()):
            return True
    return False


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put buffers, attributes and random generators back to what they were before a run."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    state = State(model, runs=True)
    try:
        yield
    finally:
        state.restore()
        for parameter, data in parameters:
            if parameter.data_ptr() != data.data_ptr():  # ``weight.data = ...`` exchanges the memory
                parameter.data = data
        with torch.no_grad():
            for buffer, before in buffers:
                if not unwritten(buffer, before):
                    buffer.copy_(before)


def recorded(model: nn.Module, modules: Iterable[nn.Module], inputs: Inputs) -> dict[nn.Module, list[Inputs]]:
    """Run the model, and return what each of some modules was called with."""
    seen: dict[nn.Module, list[Inputs]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(module, []).append(Inputs(*args, **kwargs).copied())

    with untouched(model), contextlib.ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        inputs.call(model)
    return seen


def difference(one: Any, other: Any) -> float:
    """Return the largest relative difference of two outputs, infinite where their structure differs."""
    one, other = _thawed(one), _thawed(other)
    firsts, seconds = leaves(one), leaves(other)
    if len(firsts) != len(seconds) or pytree.tree_structure(one) != pytree.tree_structure(other):
        return math.inf
    ratios = [_ratio(a, b) for a, b in zip(firsts, seconds, strict=True)]
    return sys.float_info.max if any(map(math.isnan, ratios)) else max(ratios, default=0.0)


def _thawed(output: Any) -> Any:
    """Return an output with plain lists and dictionaries; an interpreter of graphs gives immutable ones."""
    if type(output) in (list, immutable_list):
        return [_thawed(item) for item in output]
    if type(output) in (dict, immutable_dict):
        return {key: _thawed(value) for key, value in output.items()}
    return tuple(map(_thawed, output)) if type(output) is tuple else output


def agree(expected: Any, given: Any, weights: Iterable[Tensor] = ()) -> bool:
    """Whether two outputs are the same but for rounding.

    Args:
        expected: what is compared with.
        given: what is compared.
        weights: what they were computed with; a part of a model may be of a narrower dtype than its output.
    """
    tensors = [leaf for leaf in (*leaves(expected), *weights) if isinstance(leaf, Tensor)]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    tolerance = max((TOLERANCE.get(dtype, 1e-3) for dtype in dtypes), default=0.0)
    return difference(expected, given) <= tolerance


def leaves(output: Any) -> list[Any]:
    """Return the tensors and plain values of an output, in order; dataclasses are opened too."""
    found: list[Any] = []
    for leaf in pytree.tree_leaves(output):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += [type(leaf), *leaves([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])]
        elif isinstance(leaf, Mapping):
            found += [type(leaf), *leaf, *leaves(list(leaf.values()))]
        else:
            found.append(leaf)
    return found


def alike(one: Any, other: Any) -> bool:
    """Whether two outputs have the same structure, and tensors of the same shapes and dtypes."""
    return difference(one, other) < math.inf


def _ratio(one: Any, other: Any) -> float:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        same = type(one) is type(other) and (not isinstance(one, (int, float, str, bool, type)) or one == other)
        return 0.0 if same else math.inf
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    return min(gap(one, other) / largest(one), sys.float_info.max)


def gap(one: Tensor, other: Tensor) -> float:
    """Return the largest absolute difference of two tensors; NaN or infinity at the same places are equal."""
    if not one.numel():
        return 0.0
    a, b = one.detach().to(_wide(one)), other.detach().to(_wide(one))
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, torch.zeros_like(a), a - b).abs().max())


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def largest(tensor: Tensor) -> float:
    """Return the largest absolute finite value of a tensor, or a tiny number if there is none."""
    tiny = sys.float_info.min
    return (
        max(float(tensor.detach().to(_wide(tensor)).abs().nan_to_num(0.0, 0.0, 0.0).max()), tiny)
        if tensor.numel()
        else tiny
    )
