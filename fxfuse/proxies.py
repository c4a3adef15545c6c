"""What stands for values while a forward is traced: as close to tensors as user code can tell."""

from __future__ import annotations

import functools
import operator
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Callable


class Untraceable(Exception):  # noqa: N818 - a finding, not an error
    """The forward of a module does something that a trace would get wrong."""


class AnyProxy(fx.Proxy):
    """A proxy for which ``x += y`` is what it is for tensors: a change in place, seen by every alias."""

    def _in_place(self, function: Callable[..., Any], other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


for _name in "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor".split():
    _function = getattr(operator, _name)
    setattr(AnyProxy, f"__{_name}__", functools.partialmethod(AnyProxy._in_place, _function))


class ValueProxy(AnyProxy):
    """A proxy that tells the user's code that it is a tensor, as the value will be."""

    @property  # type: ignore[misc] # isinstance asks for it, and nothing sets it
    def __class__(self) -> type:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        return fx.Proxy if asking.startswith(("torch.", "fxfuse.")) else Tensor

    def __getattr__(self, k: str) -> Any:
        if not hasattr(Tensor, k):
            raise Untraceable(f"it looks for {k!r} on a value that may be a tensor")
        return super().__getattr__(k)


class ConstantProxy(ValueProxy):
    """A proxy for a parameter or buffer, of which the shape is known while tracing."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, tensor: Tensor) -> None:
        super().__init__(node, tracer)
        self.tensor = tensor

    @property
    def shape(self) -> torch.Size:
        """The shape."""
        return self.tensor.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.tensor.ndim

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size along one axis."""
        return self.tensor.size() if dim is None else self.tensor.size(dim)

    def dim(self) -> int:
        """Return the number of axes."""
        return self.tensor.dim()

    def numel(self) -> int:
        """Return the number of elements."""
        return self.tensor.numel()
