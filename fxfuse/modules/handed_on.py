"""Checks at run time that a value which one layer gives arrives, as it is, where its norm was.

A fold over Python code that was not traced holds for what that code did on the example inputs.  It may do something
else on others.  So what the layer gives is marked until the module takes it in whose place the fold put it.  Nothing
else can be done with a marked value, but to ask for its shape.  There is no state that an exception, a thread or a copy
could get out of step: the mark is on the value.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_functorch: Any = torch._C._functorch


class HandedOn(Tensor):
    """What a layer gave, and only some modules may take.

    Attributes:
        giver: the path of the module that gave it.
        takers: the paths of the modules that may take it.
    """

    giver: str
    takers: tuple[str, ...]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what asks for the shape; raise for everything else.

        Raises:
            ValueError: if anybody else uses the value.
        """
        del types
        kwargs = kwargs or {}
        if func in _SHAPE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        marked = next(leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, HandedOn))
        name = getattr(func, "__name__", str(func))
        raise _violation(f"{name} uses what '{marked.giver}' gave", marked.giver, marked.takers)


_SHAPE = frozenset([
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.is_floating_point),
    *(Tensor.is_complex, Tensor.element_size, Tensor.__len__, Tensor.get_device, torch.numel, torch.is_tensor),
    *(Tensor.is_contiguous, Tensor.stride, Tensor.storage_offset, torch.is_floating_point, torch.is_complex),
    *(
        getattr(Tensor, name).__get__
        for name in "shape ndim dtype device layout is_cuda is_cpu is_meta is_sparse is_quantized is_mps requires_grad "
        "is_leaf nbytes itemsize grad_fn".split()
    ),
])  # fmt: skip


@dataclass(frozen=True)
class Handing:
    """The change of a class: it takes marked values, gives them, or both.

    Attributes:
        path: the path of the module in the model.
        givers: the paths of the modules of which it must get the result; empty for none.
        takers: the paths of the modules that must take its result; empty for none.
    """

    path: str
    givers: tuple[str, ...] = ()
    takers: tuple[str, ...] = ()

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Wrap the forward of ``base``."""
        original = base.forward

        @functools.wraps(original)
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.givers:
                args, kwargs = pytree.tree_map(self._taken, (args, kwargs))
            result = original(module, *args, **kwargs)
            return self._marked(result) if self.takers else result

        return forward

    def _taken(self, value: Any) -> Any:
        """Return a value without its mark.

        Raises:
            ValueError: if it has another mark, or none.
        """
        if isinstance(value, HandedOn):
            if value.giver not in self.givers:
                raise _violation(f"'{self.path}' gets what '{value.giver}' gave", value.giver, value.takers)
            return _plain(value)
        if isinstance(value, Tensor) and _is_checked(value):
            raise _violation(f"'{self.path}' gets another value", self.givers[0], [self.path])
        return value

    def _marked(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not _is_checked(value):
            return value
        marked = value.as_subclass(HandedOn)
        marked.giver, marked.takers = self.path, self.takers
        return marked


@dataclass(frozen=True)
class Closing:
    """The change of the class of a whole model: nothing that it gives may be marked."""

    def forward(self, base: type[nn.Module]) -> Callable[..., Any]:
        """Wrap the forward of ``base``."""
        original = base.forward

        @functools.wraps(original)
        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            for leaf in pytree.tree_leaves(result):
                if isinstance(leaf, HandedOn):
                    raise _violation(f"the model returns what '{leaf.giver}' gave", leaf.giver, leaf.takers)
            return result

        return forward


def unmarked(value: Any) -> Any:
    """Return a value, or what holds some, without marks: for who only looks at what a module gets or gives."""
    return pytree.tree_map_only(HandedOn, _plain, value)


def _plain(value: HandedOn) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def _is_checked(value: Tensor) -> bool:
    """Whether a value is a plain tensor, in code that simply runs: compilers and exporters see one fixed way anyway."""
    plain = type(value) in (Tensor, nn.Parameter)
    compiles = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return plain and not compiles and not _functorch.is_functorch_wrapped_tensor(value)


def _violation(what: str, giver: str, takers: Sequence[str]) -> ValueError:
    names = " or ".join(f"'{path}'" for path in takers)
    return ValueError(
        f"fxfuse folded {names} and '{giver}' into one, since '{giver}' gave its result to {names} alone on the "
        f"example inputs; now {what}. Add an example of this call to example_inputs and fuse again, or pass "
        "guards=False if this cannot be."
    )
