"""Modules of which the forward is one call, in each of the forms that a graph has for it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable


# A plain trace would write ``operator.add`` for ``operator.iadd``, and so on, unlike Dynamo.
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, which a plain trace writes down as it is."""
    proxies = [argument for argument in args if isinstance(argument, fx.Proxy)]
    if proxies and function in IN_PLACE:
        return proxies[0].tracer.create_proxy("call_function", function, args, kwargs)
    return function(*args, **kwargs)


class Code(nn.Module):
    """A function, as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


class Single(nn.Module):
    """Calls a module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class _Arguments(nn.Module):
    """Keeps the other arguments of a call: tensors as parameters and buffers, the rest as it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.plain: list[Any] = [*args]
        self.named: dict[str, Any] = dict(kwargs)
        for name, value in (*((f"arg{n}", a) for n, a in enumerate(args)), *kwargs.items()):
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"the_{name}", value)
            elif isinstance(value, Tensor):
                self.register_buffer(f"the_{name}", value)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        args = [self._value(f"arg{n}", a) for n, a in enumerate(self.plain)]
        return args, {name: self._value(name, value) for name, value in self.named.items()}

    def _value(self, name: str, value: Any) -> Any:
        return getattr(self, f"the_{name}") if isinstance(value, Tensor) else value


class Function(_Arguments):
    """Calls a function with the input first, last (``flipped``), behind a few others (``behind``) or by keyword."""

    def __init__(
        self,
        function: Callable[..., Any],
        *args: Any,
        flipped: bool = False,
        behind: int = 0,
        by_keyword: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.function = function
        self.behind = len(args) if flipped else behind
        self.by_keyword = by_keyword

    def forward(self, x: Tensor) -> Any:
        args, kwargs = self.arguments()
        if self.by_keyword:
            return self.function(*args, **{self.by_keyword: x}, **kwargs)
        args.insert(self.behind, x)
        return call(self.function, *args, **kwargs)


class FirstItem(Function):
    """Calls a function that gives a tuple, of which the first item is the value."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[0]


class Part(nn.Module):
    """Takes one item of what another call gives."""

    def __init__(self, inner: nn.Module, number: int) -> None:
        super().__init__()
        self.inner = inner
        self.number = number

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)[self.number]


class Joined(nn.Module):
    """Calls a function with a list of its first inputs."""

    def __init__(self, function: Callable[..., Any], count: int, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function = function
        self.count = count
        self.plain = args
        self.named = kwargs

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        listed = [x, y, z][: self.count]
        if "tensors" in self.named:
            return self.function(**{**self.named, "tensors": listed})
        return self.function(listed, *self.plain, **self.named)


class Pair(nn.Module):
    """Calls a function of its first two inputs, or a method of the first with the second."""

    def __init__(self, function: Callable[..., Any] | str, *, by_keyword: bool = False, **kwargs: Any) -> None:
        super().__init__()
        self.function = function
        self.by_keyword = by_keyword
        self.named = kwargs

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        del z
        if isinstance(self.function, str):
            return getattr(x, self.function)(y, **self.named)
        if self.by_keyword:
            return self.function(input=x, other=y, **self.named)
        return call(self.function, x, y, **self.named)


class Stacked(nn.Module):
    """Stacks its first inputs along an axis, and calls a function or a method that sums, along the same if not told."""

    def __init__(self, function: Callable[..., Any] | str, count: int, axis: int, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function = function
        self.count = count
        self.axis = axis
        self.plain = args if args or kwargs else (axis,)
        self.named = kwargs

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        stack = torch.stack([x, y, z][: self.count], self.axis)
        if isinstance(self.function, str):
            return getattr(stack, self.function)(*self.plain, **self.named)
        return self.function(stack, *self.plain, **self.named)


class Swapped(_Arguments):
    """Multiplies by a weight that is stored as ``(out, in)``, and swapped before the call."""

    def __init__(self, swap: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight, *([] if bias is None else [bias]))
        self.swap = swap

    def forward(self, x: Tensor) -> Any:
        (weight, *bias), _ = self.arguments()
        return torch.addmm(bias[0], x, self.swap(weight)) if bias else torch.mm(x, self.swap(weight))


class Einsum(_Arguments):
    """Calls an einsum of the input and a weight, in one list."""

    def __init__(self, function: Any, equation: str, weight: Tensor, *, flipped: bool = False) -> None:
        super().__init__(weight)
        self.function = function
        self.equation = equation
        self.flipped = flipped

    def forward(self, x: Tensor) -> Any:
        (weight,), _ = self.arguments()
        return self.function(self.equation, [weight, x] if self.flipped else [x, weight])


class Method(_Arguments):
    """Calls a method of the input, or, ``flipped``, a method of the first argument."""

    def __init__(self, name: str, *args: Any, flipped: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name
        self.flipped = flipped

    def forward(self, x: Tensor) -> Any:
        args, kwargs = self.arguments()
        if self.flipped:
            return getattr(args[0], self.name)(x, *args[1:], **kwargs)
        return getattr(x, self.name)(*args, **kwargs)
