"""Example inputs: running a model on them without leaving a trace, and comparing what comes out."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxfuse.modules.handed_on import HandedOn
from fxfuse.modules.mutable_state import State, unwritten
from fxfuse.report.errors import FuseError, out_of_memory, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


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
    if type(value) is HandedOn:
        return value.copied()
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
    with untouched(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
        try:
            return inputs.call(model)
        except Exception as error:
            if out_of_memory(error):
                raise
            told = f"{name or type(model).__name__} raises on the example inputs by itself ({sentence(error)})"
            raise FuseError(f"{told}, so nothing was changed. {_advice(inputs)}") from error


def _advice(inputs: Inputs) -> str:
    """Return what to pass in place of inputs that a model does not take."""
    if inputs.args and all(type(size) is int for size in inputs.args):
        return f"A shape is no input: pass torch.randn({', '.join(map(str, inputs.args))})."
    if any(type(leaf).__module__ == "numpy" for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))):
        return "Pass tensors: torch.from_numpy(array)."
    return "Pass inputs that the model accepts: a tuple of positional arguments, or a dict of keywords."


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
