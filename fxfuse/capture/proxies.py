"""Proxies that behave like tensors while a forward is traced, and what they would answer wrongly."""

from __future__ import annotations

import abc
import functools
import operator
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxfuse.capture.frames import asked_classes, raises_if, unpacked
from fxfuse.capture.symbolic_sizes import gives_tensor, number_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Untraceable(Exception):  # noqa: N818 - a finding, not an error
    """The forward of a module does something that a trace would get wrong."""


# One part for each size that is asked for, where these are listed.
_BY_SIZES = (torch.split, torch.split_with_sizes, "split", "split_with_sizes")


def part_count(node: fx.Node) -> int | None:
    """Return how many parts a node is sure to give: as many as the sizes that it is asked for."""
    sizes = (
        *node.args[1:2],
        *(node.kwargs.get(name) for name in ("split_size_or_sections", "split_size", "split_sizes")),
    )
    listed = [s for s in sizes if isinstance(s, (list, tuple))]
    return len(listed[0]) if node.target in _BY_SIZES and len(listed) == 1 else None


def asked_by_user() -> bool:
    """Whether the caller's caller is user code, and not a library that handles proxies as such."""
    return not _is_library(sys._getframe(2))


def _is_library(frame: FrameType) -> bool:
    libraries = ("torch.", "fxfuse.", "copy", "collections", "functools", "typing")
    return bool(frame.f_globals.get("__name__", "").startswith(libraries))


_ABSTRACT: Any = abc.ABCMeta.__instancecheck__
# What asks for a class on behalf of others -> the name that it has for what is wanted, if any.
_ASKS = {
    _ABSTRACT.__code__: "cls",  # isinstance(x, Sequence)
    torch.is_tensor.__code__: "",
    torch.jit.isinstance.__code__: "target_type",
    torch._jit_internal._isinstance.__code__: "target_type",
    torch._jit_internal.container_checker.__code__: "target_type",
}


def _asking(frame: Any) -> tuple[FrameType, tuple[type, ...] | None]:
    """Return the frame that asks for a class, and the classes that it asks for where other code does on its behalf."""
    wanted: tuple[type, ...] | None = None
    while frame.f_code in _ASKS:
        name = _ASKS[frame.f_code]
        if name and wanted is None:
            cls = frame.f_locals[name]
            wanted = (cls,) if isinstance(cls, type) else ()
        frame = frame.f_back
    return frame, wanted


class AnyProxy(fx.Proxy):
    """A proxy that behaves like a tensor, or says that it cannot.

    A plain proxy answers some questions wrongly: ``isinstance(x, Tensor)`` is false, ``hasattr(x, "anything")`` is
    true, ``x += y`` makes a new value, ``x.data = y`` is forgotten.  Each would let a trace take a branch that no
    value can take.
    """

    @property  # type: ignore[misc] # isinstance asks for it, and nothing sets it
    def __class__(self) -> type:
        # C code stands in the frame of its caller, and would read a proxy that says it is a tensor as one, and crash.
        # So only ``isinstance`` gets that answer, and only for a value that is sure to be a tensor.
        frame, wanted = _asking(sys._getframe(1))
        if _is_library(frame) or not {"isinstance", "is_tensor"} & set(frame.f_code.co_names):
            return AnyProxy
        number = number_class(self.node)
        if number is not None:
            return number
        classes = asked_classes(frame) if wanted is None else wanted
        checks = raises_if(frame, after_call=True) is not None
        if checks or (classes and gives_tensor(self.node, self.tracer.is_layer)):  # type: ignore[attr-defined] # the tracer of this package
            return Tensor if not classes or issubclass(Tensor, classes) else AnyProxy
        raise self.refused("it asks for the class of a value")

    def __getattr__(self, k: str) -> Any:
        if not hasattr(Tensor, k) and asked_by_user():
            raise self.refused(f"it looks for {k!r} on a value that may be a tensor")
        if hasattr(Tensor, k) and not callable(getattr(Tensor, k)):  # torch.fx would make an object of another class
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k)

    def __setattr__(self, k: str, v: Any) -> None:
        if k not in ("tracer", "node", "tensor", "root", "attr", "_node"):
            raise self.refused(f"it sets {k!r} on a value")
        super().__setattr__(k, v)

    def __hash__(self) -> int:
        """Refuse to be looked up: ``x.dim() in {3, 4}`` compares numbers, and a proxy is none."""
        if asked_by_user():
            raise self.refused("it looks up a value in a set or dictionary")
        return object.__hash__(self)

    def __len__(self) -> int:
        """Return how many parts there are, where that is sure."""
        count = part_count(self.node)
        if count is None:
            raise self.refused("it asks for the length of a value")
        return count

    def __iter__(self) -> Iterator[Any]:
        """Unpack like torch.fx, which disassembles the caller anew each time; loop over parts that are counted."""
        count = unpacked(sys._getframe(1))
        count = part_count(self.node) if count is None else count
        return self.tracer.iter(self) if count is None else (self[position] for position in range(count))  # type: ignore[index] # as torch.fx does

    def __int__(self) -> Any:
        """Refuse, so that nobody who catches the exception goes on with it."""
        raise self.refused("it makes a Python number of a value")

    __float__ = __complex__ = __int__

    def refused(self, why: str) -> Untraceable:
        """Remember that tracing failed here, also if the user's code catches the exception."""
        error = Untraceable(why)
        self.tracer.failure = error  # type: ignore[attr-defined] # the tracer of this package
        return error

    def _in_place(self, function: Callable[..., Any], other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


for _name in "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor".split():
    _function = getattr(operator, _name)
    setattr(AnyProxy, f"__{_name}__", functools.partialmethod(AnyProxy._in_place, _function))


class ConstantProxy(AnyProxy):
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
